"""Makes the seeds in tests/fuzz/corpus: small valid files of each kind, for the fuzzer to start from.

    python tests/fuzz/make_corpus.py

Files named found-* are inputs that once broke a parser.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from targets import MADE_OF, QUANTISED

import semanticlens as sl
from semanticlens.data import ImageArray
from semanticlens.encoders import Arrays
from semanticlens.io import write_tensors
from semanticlens.lens import checkpoint
from semanticlens.nn import Node, Preprocess
from semanticlens.nn.language import JsonTokenizer, LanguageModel

CORPUS = Path(__file__).resolve().parent / "corpus"
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
RNG = np.random.default_rng(0)


def seeds(name: str) -> Path:
    """The folder of a target's seeds."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def language() -> None:
    """A tiny llama2.c checkpoint, its tokeniser, a vocabulary, configurations."""
    sizes = [262 * 4, 4, 16, 16, 16, 16, 4, 24, 24, 24, 4, 8]
    blob = struct.pack("<7i", 4, 6, 1, 2, 2, 262, 4) + RNG.standard_normal(sum(sizes)).astype("<f4").tobytes()
    (seeds("llama2c") / "tiny.bin").write_bytes(blob)
    tokens = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % byte for byte in range(256)), b" ", b"a", b" a"]
    packed = b"".join(struct.pack("<fi", -float(i), len(token)) + token for i, token in enumerate(tokens))
    (seeds("llama2c_tokenizer") / "tiny.bin").write_bytes(struct.pack("<i", 6) + packed)
    (seeds("vocabulary") / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nun\n##aff\n##able\n", encoding="utf-8")
    folder = seeds("model_config")
    for kind in ("gpt2", "llama", "bert"):
        config = {"model_type": kind, "num_attention_heads": 2, "rope_parameters": {"rope_theta": 1e4}, "hidden_act": "silu"}
        (folder / f"{kind}.json").write_text(json.dumps(config), encoding="utf-8")


def texts() -> None:
    """Small tokenisers of every kind, a bundle with one, and the settings of folders."""
    sys.path.insert(0, str(GOLDEN.parent))
    from test_text_models import PIECES, message

    letters = {"a": 0, "b": 1, "ab": 2, "\u0120": 3, "\u0120a": 4, "<s>": 5}
    level = {"type": "ByteLevel", "add_prefix_space": False}
    words = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    bpe = {
        "added_tokens": [{"id": 5, "content": "<s>", "special": True, "lstrip": True}], "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated"}, level]},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
                           "special_tokens": {"<s>": {"ids": [5]}}},
        "decoder": level, "model": {"type": "BPE", "vocab": letters, "merges": ["a b", "\u0120 a"], "unk_token": None}}
    steps = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
             {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    unigram = {"normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}, "pre_tokenizer": {"type": "Metaspace"},
               "decoder": {"type": "Sequence", "decoders": steps},
               "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["\u2581", -2.0], ["un", -3.0], ["a", -4.5]]}}
    bert = {"normalizer": {"type": "BertNormalizer", "lowercase": True}, "pre_tokenizer": {"type": "BertPreTokenizer"},
            "decoder": {"type": "WordPiece"}, "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
            "model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "un": 3, "##aff": 4}}}
    for name, made in (("bpe", bpe), ("unigram", unigram), ("bert", bert)):
        (seeds("tokenizer_json") / f"{name}.json").write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
    # a trie with one leaf: the root's child "a" is at 97, and becomes "b"
    units = [0] * 256
    units[0], units[97], units[96] = 0, 97 | 1 << 8 | 1 << 10, 0x80000000
    table = struct.pack("<I", 1024) + struct.pack("<256I", *units) + b"b\0"
    folder = seeds("sentencepiece")
    (folder / "unigram.model").write_bytes(message(*PIECES, (2, message((3, 1), (41, 1), (42, 2))), (3, message((2, table)))))
    (folder / "bpe.model").write_bytes(message(*PIECES, (2, message((3, 2))), (3, message((3, 0), (4, 0)))))
    (seeds("merges") / "merges.txt").write_text("#version: 0.2\na b\n", encoding="utf-8")
    (seeds("shards") / "index.json").write_text('{"weight_map": {"wte.weight": "a.safetensors"}}')
    for kind in ("clip", "siglip"):
        part = {"num_attention_heads": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-5}
        made = {"model_type": kind, "text_config": {**part, "eos_token_id": 2}, "vision_config": part}
        (seeds("clip_config") / f"{kind}.json").write_text(json.dumps(made))
    tokenizer = JsonTokenizer(json.dumps(bpe).encode())
    LanguageModel(least_language(), tokenizer, context=9, end=5).save(seeds("text_model") / "tiny.safetensors")
    clip_checkpoints()


def least_language() -> sl.Network:
    """An embedding and an output matrix."""
    values = {"e": RNG.standard_normal((6, 4)).astype(np.float32)}
    nodes = [Node("e", "embedding", ("input",), {"weight": "e"}), Node("y", "dense", ("e",), {"weight": "e"})]
    return sl.Network(nodes, values, input_shape=(None,), name="least")


def clip_checkpoints() -> None:
    """The least members of the three families, four features wide."""
    def draw(*shape: int) -> np.ndarray:
        return RNG.standard_normal(shape).astype(np.float32)

    def block(at: str) -> dict[str, np.ndarray]:
        shapes = {"attn.in_proj_weight": (12, 4), "attn.in_proj_bias": (12,), "attn.out_proj.weight": (4, 4), "attn.out_proj.bias": (4,),
                  "mlp.c_fc.weight": (4, 4), "mlp.c_fc.bias": (4,), "mlp.c_proj.weight": (4, 4), "mlp.c_proj.bias": (4,)}
        shapes |= {f"ln_{i}.{role}": (4,) for i in (1, 2) for role in ("weight", "bias")}
        return {f"{at}.{key}": draw(*shape) for key, shape in shapes.items()}

    def pair(at: str, rows: int, columns: int) -> dict[str, np.ndarray]:
        return {f"{at}.weight": draw(rows, columns), f"{at}.bias": draw(rows)}

    def norm(at: str, width: int = 4) -> dict[str, np.ndarray]:
        return {f"{at}.{role}": draw(width) for role in ("weight", "bias")}

    text = {"token_embedding.weight": draw(5, 4), "positional_embedding": draw(3, 4), **norm("ln_final"),
            **block("transformer.resblocks.0")}
    vit = {**text, "text_projection": draw(4, 2), "visual.conv1.weight": draw(4, 3, 2, 2), "visual.class_embedding": draw(4),
           "visual.positional_embedding": draw(5, 4), "visual.proj": draw(4, 2), **norm("visual.ln_pre"), **norm("visual.ln_post"),
           **block("visual.transformer.resblocks.0")}
    resnet = {**text, "text_projection": draw(4, 2), "visual.attnpool.positional_embedding": draw(2, 4),
              **pair("visual.attnpool.c_proj", 2, 4)}
    for part in "qkv":
        resnet |= pair(f"visual.attnpool.{part}_proj", 4, 4)

    def conv(at: str, bn: str, *shape: int) -> dict[str, np.ndarray]:
        size = (shape[0],)
        return {f"visual.{at}.weight": draw(*shape), **norm(f"visual.{bn}", shape[0]), f"visual.{bn}.running_mean": draw(*size),
                f"visual.{bn}.running_var": np.ones(size, np.float32)}

    resnet |= conv("conv1", "bn1", 1, 3, 3, 3) | conv("conv2", "bn2", 1, 1, 3, 3) | conv("conv3", "bn3", 1, 1, 3, 3)
    for stage in range(1, 5):
        at = f"layer{stage}.0"
        resnet |= conv(f"{at}.conv1", f"{at}.bn1", 1, 1 if stage == 1 else 4, 1, 1) | conv(f"{at}.conv2", f"{at}.bn2", 1, 1, 3, 3)
        resnet |= conv(f"{at}.conv3", f"{at}.bn3", 4, 1, 1, 1)
        resnet |= conv(f"{at}.downsample.0", f"{at}.downsample.1", 4, 1 if stage == 1 else 4, 1, 1)
    siglip = {f"text.{key}": value for key, value in text.items()} | pair("text.text_projection", 4, 4)
    trunk = "visual.trunk"
    siglip |= {f"{trunk}.patch_embed.proj.weight": draw(4, 3, 2, 2), f"{trunk}.patch_embed.proj.bias": draw(4),
               f"{trunk}.pos_embed": draw(1, 4, 4), f"{trunk}.attn_pool.latent": draw(1, 1, 4), **norm(f"{trunk}.norm"),
               **norm(f"{trunk}.attn_pool.norm"), **pair(f"{trunk}.attn_pool.q", 4, 4), **pair(f"{trunk}.attn_pool.kv", 8, 4)}
    for at, name in ((f"{trunk}.blocks.0", "attn.qkv"), (f"{trunk}.attn_pool", "proj")):
        siglip |= pair(f"{at}.{name}", 12 if name == "attn.qkv" else 4, 4) | pair(f"{at}.mlp.fc1", 4, 4) | pair(f"{at}.mlp.fc2", 4, 4)
    siglip |= pair(f"{trunk}.blocks.0.attn.proj", 4, 4) | norm(f"{trunk}.blocks.0.norm1") | norm(f"{trunk}.blocks.0.norm2")
    folder = seeds("clip_checkpoint")
    for name, state in (("vit", vit), ("resnet", resnet), ("siglip", siglip)):
        write_tensors(folder / f"{name}.safetensors", state, {})
        sl.encoders.CLIP(folder / f"{name}.safetensors")   # each is one that loads


def onnx_file() -> None:
    """A convolution, folded shapes, an attention-like block."""
    from onnx import TensorProto, helper, numpy_helper

    folder, node = seeds("onnx_file"), helper.make_node
    constants = {"w": RNG.standard_normal((2, 3, 3, 3)).astype(np.float32), "v": np.ones((8, 2), np.float32), "z": np.array(0),
                 "r": np.array([-1])}
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Clip", ["c"], ["d"]),
        node("Shape", ["d"], ["s"]),
        node("Gather", ["s", "z"], ["n"]),
        node("Unsqueeze", ["n", "u"], ["n1"]),
        node("Concat", ["n1", "r"], ["to"], axis=0),
        node("Reshape", ["d", "to"], ["f"]),
        node("MatMul", ["f", "v"], ["m"]),
        node("Softmax", ["m"], ["y"], axis=-1),
    ]
    constants["u"] = np.array([0])
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, 4, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    (folder / "small.onnx").write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())


def tensors() -> None:
    folder = seeds("tensors")
    write_tensors(folder / "two.safetensors", {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(3)}, {"k": "v"})
    write_tensors(folder / "empty.safetensors", {})
    write_tensors(folder / "scalar.safetensors", {"s": np.float64(1).reshape(()), "e": np.zeros((0, 4), np.int8), "t": np.array([True])})
    header = json.dumps({"h": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (folder / "bfloat16.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\x80\x3f\x00\x40")


def small_network() -> sl.Network:
    """One node of many kinds, a few parameters."""
    def values(*shape: int) -> np.ndarray:
        return RNG.standard_normal(shape).astype(np.float32)

    params = {"c.w": values(4, 3, 3, 3), "c.b": values(4), "d.w": values(4, 1, 3, 3), "m": values(4), "v": np.ones(4, np.float32),
              "f.w": values(2, 4), "f.b": values(2)}
    nodes = [
        Node("c", "conv2d", ("input",), {"weight": "c.w", "bias": "c.b"},
             {"stride": [2, 2], "padding": [1, 1, 1, 1], "dilation": [1, 1], "groups": 1}),
        Node("n", "batch_norm", ("c",), {"mean": "m", "var": "v"}, {"eps": 1e-5}),
        Node("r", "relu6", ("n",), {}, {}),
        Node("d", "conv2d", ("r",), {"weight": "d.w"}, {"stride": [1, 1], "padding": "same", "dilation": [1, 1], "groups": 4}),
        Node("s", "add", ("r", "d"), {}, {}),
        Node("p", "max_pool2d", ("s",), {},
             {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0], "dilation": [1, 1], "ceil_mode": True}),
        Node("g", "mean", ("p",), {}, {"axes": [2, 3], "keepdims": False}),
        Node("f", "dense", ("g",), {"weight": "f.w", "bias": "f.b"}, {}),
        Node("y", "softmax", ("f",), {}, {}),
    ]
    return sl.Network(nodes, params, input_shape=(3, 8, 8), name="tiny", aliases={"features.0": "c"}, labels=["no", "yes"],
                      preprocess=Preprocess(size=(8, 8), resize="crop", short=8))


def networks() -> None:
    net = small_network()
    net.save(seeds("network") / "tiny.safetensors")
    from semanticlens.nn.load.bundle import graph_dict

    (seeds("graph") / "tiny.json").write_text(json.dumps(graph_dict(net)))
    (seeds("graph") / "least.json").write_text('{"input":{"shape":[2]},"output":"y","nodes":[{"name":"y","op":"relu","inputs":["input"]}]}')


def weights() -> None:
    for name in ("checkpoint_zip.pth", "checkpoint_legacy.pth", "module_pickled.pth"):
        shutil.copy(GOLDEN / name, seeds("checkpoint") / name)
    np.savez(seeds("npz") / "two.npz", a=np.arange(6, dtype=np.float32).reshape(2, 3), b=np.arange(3))
    np.savez_compressed(seeds("npz") / "compressed.npz", a=np.asfortranarray(np.ones((3, 4), ">f8")), **{"module.b": np.array([True])})


def quantised() -> None:
    """A stem, a depthwise and a linear convolution with a sum, a mean over places and a classifier, in eight bits."""
    arrays, nodes = {}, []
    for name, op, inputs, shape, more in (
        ("a", "conv", ["input"], (4, 3, 3, 3), {"stride": 2, "pad": "same", "groups": 1, "act": "relu6"}),
        ("b", "dwconv", ["a"], (4, 1, 3, 3), {"stride": 1, "pad": 1, "groups": 4, "act": "relu"}),
        ("c", "conv", ["b"], (4, 4, 1, 1), {"act": "none"}), ("d", "add", ["a", "c"], None, {}), ("e", "gap", ["d"], None, {}),
        ("f", "conv", ["e"], (3, 4, 1, 1), {"act": "none"}),
    ):
        nodes.append({"name": name, "op": op, "inputs": inputs, **more})
        if shape is not None:
            arrays.update({f"{name}.q": RNG.integers(0, 255, shape, np.uint8), f"{name}.zp": np.array(128, np.int32),
                           f"{name}.scale": np.array([0.01], np.float32), f"{name}.bias": np.zeros(shape[0], np.float32)})
    np.savez_compressed(QUANTISED, **arrays)
    graph = {"nodes": nodes, "output": "f", "resolution": 9, "classes": 3, "labels": ["x", "y", "z"]}
    folder = seeds("quantised")
    (folder / "words.json").write_text(json.dumps({**graph, "input": "NCHW float32, RGB, x/127.5-1"}))
    (folder / "preprocess.json").write_text(json.dumps({**graph, "preprocess": Preprocess(size=(9, 9)).to_dict()}))
    (folder / "found-resolution.json").write_text(json.dumps({**graph, "input": "NCHW float32, RGB, x/127.5-1", "resolution": 0}))


def vectors() -> None:
    folder = seeds("vectors")
    images, texts = RNG.standard_normal((3, 4)).astype(np.float32), RNG.standard_normal((2, 4)).astype(np.float32)
    np.savez(folder / "both.npz", images=images, texts=texts, names=np.array(["a", "b"]))
    np.savez_compressed(folder / "texts.npz", texts=texts, names=np.array(["a", "b"]))
    (folder / "found-cut.npz").write_bytes((folder / "both.npz").read_bytes()[:-30])


def databases() -> None:
    images = ImageArray(RNG.integers(0, 255, (6, 8, 8, 3), np.uint8), labels=[0, 1, 0, 1, 0, 1], class_names=["no", "yes"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = sl.collect(small_network(), images, ["c", "g"], top=3)
    found.save(seeds("examples") / "tiny.safetensors")
    checkpoint.write(seeds("resume") / "tiny.safetensors", MADE_OF, {"next": 3}, {"ids": np.arange(3)})
    encoder = Arrays(images=RNG.standard_normal((6, 3)).astype(np.float32), texts={"a": np.ones(3, np.float32)})
    sl.ConceptDB.build(found, images, encoder, thumbnails=8).save(seeds("database") / "tiny.sldb")


def pictures() -> None:
    folder, content = seeds("picture"), {}
    colours = Image.fromarray(RNG.integers(0, 255, (5, 4, 3), np.uint8))
    for name, image, options in (
        ("rgb.png", colours, {}), ("palette.png", colours.convert("P"), {"transparency": 0}),
        ("grey16.png", Image.new("I;16", (3, 2), 999), {}),
        ("photo.jpg", colours, {"quality": 50, "exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"}),
        ("alpha.webp", colours.convert("RGBA"), {}), ("two.gif", colours.convert("P"), {}), ("scan.tiff", colours.convert("L"), {}),
        ("raw.bmp", colours, {}), ("ascii.ppm", colours, {})):
        stream = io.BytesIO()
        image.save(stream, Path(name).suffix[1:].replace("jpg", "jpeg"), **options)
        content[name] = stream.getvalue()
        (folder / name).write_bytes(content[name])
    with tempfile.TemporaryFile() as file:
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            file.seek(0)
            file.truncate()
            with zipfile.ZipFile(file, "w", method) as archive:
                for name in ("rgb.png", "photo.jpg"):
                    archive.writestr(zipfile.ZipInfo(f"class/{name}"), content[name], method)
            file.seek(0)
            (seeds("archive") / f"method{method}.zip").write_bytes(file.read())


if __name__ == "__main__":
    tensors()
    networks()
    weights()
    quantised()
    vectors()
    databases()
    pictures()
    language()
    texts()
    onnx_file()
