"""What is fuzzed: one function per parser of bytes from outside.

A target takes any bytes and returns None.  It lets only the errors pass silently that the parser's contract names; anything else (another
exception, a crash, a hang, too much memory) is a finding.  The targets need no fuzzer: tests/test_fuzz.py runs them over the committed
corpus and over seeded mutations of it, tests/fuzz/run.py lets atheris search.

Files that carry a SHA-256 are signed anew before they are read: whoever makes a hostile file can sign it.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import semanticlens as sl
from semanticlens._errors import DataError, MismatchError, MissingExtraError, ModelFileError, SemanticLensError
from semanticlens.cli import commands
from semanticlens.data import ImageArchive
from semanticlens.data.decode import decode
from semanticlens.io import TensorFile, read_tensors, write_tensors
from semanticlens.lens import checkpoint as collect_checkpoint
from semanticlens.lens import examples as concept_examples
from semanticlens.lens import store
from semanticlens.lens.database import ConceptDB
from semanticlens.lens.examples import ConceptExamples
from semanticlens.nn.language import JsonTokenizer, LanguageModel, Llama2cTokenizer, SentencePiece, TextModel, WordPiece
from semanticlens.nn.language.tokenizer_json import gpt2_files
from semanticlens.nn.load import bundle
from semanticlens.nn.load.state_dict import load_state_dict

FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
QUANTISED = Path(__file__).resolve().parent / "corpus" / "quantised.npz"      # the weights that every fuzzed graph stands beside
SLACK = 1 << 20
MADE_OF = {"network": {"fingerprint": "0"}, "parameters": {"top": 3}}


@contextmanager
def file_of(content: bytes, suffix: str = "") -> Iterator[Path]:
    """The bytes as a file in memory."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        path = Path(folder, f"fuzzed{suffix}")
        path.write_bytes(content)
        yield path


@contextmanager
def signed(content: bytes, digest: Callable[[TensorFile], str], suffix: str = "") -> Iterator[Path | None]:
    """The bytes as a tensor file whose ``sha256`` is right; None if they are no tensor file."""
    with file_of(content, suffix) as path:
        try:
            file = read_tensors(path)
            again = path.with_name(f"signed{suffix}")
            write_tensors(again, dict(file), {**file.metadata, "sha256": digest(file)})
        except (ModelFileError, UnicodeEncodeError):
            yield None
        else:
            yield again


def _names(error: Exception, *what: str) -> None:
    """A message must name what it is about: one of these."""
    assert any(one in str(error) for one in what), f"the message does not name {' or '.join(what)}: {error}"


def tensors(content: bytes) -> None:
    """io.read_tensors: every array lies inside the file."""
    with file_of(content) as path:
        try:
            file = read_tensors(path)
        except ModelFileError:
            return
        assert sum(file._arrays[name].nbytes for name in file) <= len(content)
        for array in file.values():
            array.tobytes()


def graph(content: bytes) -> None:
    """nn.load.bundle.parse_graph, over any text."""
    try:
        bundle.parse_graph(content.decode("utf-8", "surrogateescape"))
    except ModelFileError:
        return


def network(content: bytes) -> None:
    """A whole bundle: graph, shapes, parameters; what loads can be described and saved."""
    with signed(content, lambda f: bundle._digest(f.metadata.get("graph", ""), bundle.sha256_of_arrays(f)), ".safetensors") as path:
        if path is None:
            return
        try:
            net = bundle.read_bundle(path)
        except SemanticLensError as error:
            _names(error, str(path))
            return
        repr(net.layers)
        assert net.fingerprint


def _state_dict(content: bytes, suffix: str) -> None:
    with file_of(content, suffix) as path:
        try:
            state = load_state_dict(path)
        except ModelFileError as error:
            _names(error, str(path))
            return
        for array in state.values():
            if array.size < SLACK:                    # a view of stride 0 may be far larger than its bytes, which costs nothing until read
                array.tobytes()


def checkpoint(content: bytes) -> None:
    """A .pth file: the pickle machine and its zip or legacy container."""
    _state_dict(content, ".pth")


def npz(content: bytes) -> None:
    """An .npz file of weights."""
    _state_dict(content, ".npz")


def quantised(content: bytes) -> None:
    """The graph beside quantised weights (nn.zoo.quantised): any text, with the weights of the committed seed."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        weights = Path(folder, "net.npz")
        weights.write_bytes(QUANTISED.read_bytes())
        weights.with_suffix(".json").write_bytes(content)
        try:
            net = sl.load(weights)
        except SemanticLensError as error:
            _names(error, "net.json")
            return
        repr(net.layers)


def onnx_file(content: bytes) -> None:
    """nn.load.onnx: any bytes; what loads can be described.  Where the package onnx is missing there is nothing to fuzz."""
    with file_of(content, ".onnx") as path:
        try:
            net = sl.load(path)
        except MissingExtraError:
            return
        except SemanticLensError as error:
            _names(error, str(path))
            return
        repr(net.summary())


def llama2c(content: bytes) -> None:
    """A checkpoint of llama2.c: header and size."""
    with file_of(content, ".bin") as path:
        try:
            model = sl.load(path)
        except SemanticLensError:
            return
        if isinstance(model, LanguageModel) and model.net.n_params < SLACK:
            model.logits([0])


def llama2c_tokenizer(content: bytes) -> None:
    """Its tokeniser: what loads turns texts into ids and back."""
    with file_of(content) as path:
        try:
            tokenizer = Llama2cTokenizer(path, 262)
        except ModelFileError as error:
            _names(error, str(path))
            return
        tokenizer.decode(tokenizer.encode("a b\u00e9"))


def vocabulary(content: bytes) -> None:
    """BERT's vocab.txt."""
    with file_of(content) as path:
        try:
            tokenizer = WordPiece(path)
        except ModelFileError:
            return
        tokenizer.encode("unaffable caf\u00e9 \u4e2d")


def model_config(content: bytes) -> None:
    """The config.json beside the weights of a language model."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        weights = Path(folder, "model.safetensors")
        write_tensors(weights, {"wte.weight": np.zeros((4, 4), np.float32)}, {})
        weights.with_name("config.json").write_bytes(content)
        with suppress(SemanticLensError):
            sl.load(weights)


SPOKEN = "un  affable caf\u00e9 \u4e2d 12 <s>\n"


def tokenizer_json(content: bytes) -> None:
    """A tokenizer.json: what loads turns texts into ids and back."""
    with file_of(content, ".json") as path:
        try:
            tokenizer = JsonTokenizer(path)
            ids = tokenizer.encode(SPOKEN)
        except SemanticLensError as error:
            _names(error, str(path), "the map of characters")
            return
        tokenizer.decode(ids)


def sentencepiece(content: bytes) -> None:
    """A .model file of SentencePiece: its protocol buffer, its map of characters, both segmentations."""
    with file_of(content, ".model") as path:
        try:
            tokenizer = SentencePiece(path, begin=True, end=True)
            ids = tokenizer.encode(SPOKEN)
        except SemanticLensError as error:
            _names(error, str(path), "the map of characters")
            return
        tokenizer.decode(ids)


def merges(content: bytes) -> None:
    """merges.txt beside a fixed vocab.json."""
    with suppress(SemanticLensError):
        JsonTokenizer(gpt2_files(b'{"a": 0, "b": 1, "ab": 2, "\xc4\xa0": 3}', content)).encode("ab ba")


def shards(content: bytes) -> None:
    """model.safetensors.index.json of a folder."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        write_tensors(Path(folder, "a.safetensors"), {"wte.weight": np.zeros((4, 4), np.float32)}, {})
        Path(folder, "config.json").write_text('{"model_type": "gpt2", "n_head": 2}')
        Path(folder, "model.safetensors.index.json").write_bytes(content)
        with suppress(SemanticLensError):
            sl.load(folder)


def clip_checkpoint(content: bytes) -> None:
    """A checkpoint of CLIP or SigLIP in OpenCLIP's names: what loads can be described."""
    with file_of(content, ".safetensors") as path:
        try:
            clip = sl.encoders.CLIP(path)
        except SemanticLensError as error:
            _names(error, str(path), "parameter", "network", "node")
            return
        repr(clip.image_tower.layers)


def clip_config(content: bytes) -> None:
    """config.json beside Hugging Face's weights, of which the needed ones are missing."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        write_tensors(Path(folder, "model.safetensors"), {"vision_model.head.probe": np.zeros((1, 1, 4), np.float32)}, {})
        Path(folder, "config.json").write_bytes(content)
        with suppress(SemanticLensError):
            sl.encoders.CLIP(folder)


def text_model(content: bytes) -> None:
    """A bundle of a network with its tokeniser: what loads turns a text into ids and back."""

    def digest(f: TensorFile) -> str:
        return bundle._digest(f.metadata.get("graph", "") + f.metadata.get("language", ""), bundle.sha256_of_arrays(f))

    with signed(content, digest, ".safetensors") as path:
        if path is None:
            return
        try:
            model = sl.load(path)
        except SemanticLensError as error:
            _names(error, str(path))
            return
        if isinstance(model, TextModel) and model.tokenizer is not None:
            with suppress(SemanticLensError):
                model.decode(model.encode(SPOKEN))


def vectors(content: bytes) -> None:
    """The .npz of image and text vectors that the shell commands read."""
    with file_of(content, ".npz") as path:
        try:
            encoder = commands.encoder_at(str(path))
        except DataError as error:
            _names(error, str(path), "images", "texts")
            return
        assert encoder.fingerprint


def examples(content: bytes) -> None:
    """lens.ConceptExamples.load."""
    with signed(content, lambda f: concept_examples.digest(f.metadata.get("record", ""), f)) as path:
        if path is None:
            return
        try:
            loaded = ConceptExamples.load(path)
        except ModelFileError as error:
            _names(error, str(path))
            return
        for layer in loaded.values():
            assert layer.ids.shape == layer.scores.shape


def resume(content: bytes) -> None:
    """The checkpoint of a collection."""
    with signed(content, lambda f: concept_examples.digest(f.metadata.get("record", ""), f)) as path:
        if path is None:
            return
        try:
            collect_checkpoint.read(path, MADE_OF)
        except (ModelFileError, MismatchError) as error:
            _names(error, str(path))


def database(content: bytes) -> None:
    """lens.ConceptDB.load, then a search by a vector and every thumbnail."""
    with signed(content, lambda f: store._digest(f, f.metadata.get("record", ""))) as path:
        if path is None:
            return
        try:
            db = ConceptDB.load(path)
        except ModelFileError as error:
            _names(error, str(path))
            return
        _use(db)


def _use(db: ConceptDB) -> None:
    repr(db)
    dim = db.embeddings.shape[1]
    if 0 < dim < 1000 and len(db.layers):
        with suppress(SemanticLensError):
            db.search(np.ones(dim, np.float32), top=2)
    for sample in db.sample_ids[:5]:
        with suppress(DataError, ModelFileError):
            db.thumbnail(int(sample))


def archive(content: bytes) -> None:
    """data.ImageArchive and the pictures in it."""
    with file_of(content, ".zip") as path, _small_pictures():
        try:
            pictures = ImageArchive(path, labels="none")
        except DataError as error:
            _names(error, str(path))
            return
        with pictures:
            for i in range(min(len(pictures), 5)):
                try:
                    image: Any = pictures[i]
                except DataError:
                    continue
                assert image.mode == "RGB"


def picture(content: bytes) -> None:
    """data.decode, which every picture from outside goes through."""
    with _small_pictures():
        try:
            image = decode(content, "fuzzed")
        except DataError as error:
            _names(error, "fuzzed")
            return
        assert image.mode == "RGB"
        assert min(image.size) >= 1


@contextmanager
def _small_pictures() -> Iterator[None]:
    """Pillow's own limit against decompression bombs, lowered so that the search stays quick."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = 1 << 18
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")           # Pillow's remarks on odd files
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


TARGETS: dict[str, Callable[[bytes], None]] = {target.__name__: target for target in (
    tensors, graph, network, checkpoint, npz, quantised, onnx_file, llama2c, llama2c_tokenizer, vocabulary, model_config,
    tokenizer_json, sentencepiece, merges, shards, clip_checkpoint, clip_config, text_model,
    vectors, examples, resume, database, archive, picture)}
