"""Bundles: what is written is read back, and no file, however damaged or hostile, does more than raise an error that says what is wrong."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import IMAGE, random_network, tiny_network, values

import semanticlens as sl
from semanticlens.io import read_tensors, write_tensors
from semanticlens.nn import Network, fold_batch_norm
from semanticlens.nn.load.bundle import graph_dict, parse_graph, read_bundle

CLEAN = (sl.ModelFileError, sl.UnsupportedOperationError, sl.NumericalError)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "tiny.safetensors"
    tiny_network().save(path)
    return path


def x() -> np.ndarray:
    return values(np.random.default_rng(3), 2, *IMAGE)


def rewrite(path: Path, target: Path, change: Any = None, **metadata: str | None) -> Path:
    """A copy of a bundle with a changed graph or metadata and the SHA-256 left as it was."""
    tensors = read_tensors(path)
    meta = dict(tensors.metadata)
    if change is not None:
        graph = json.loads(meta["graph"])
        changed = change(graph)
        meta["graph"] = json.dumps(graph if changed is None else changed)
    for key, value in metadata.items():
        if value is None:
            del meta[key]
        else:
            meta[key] = value
    write_tensors(target, {name: np.array(tensors[name]) for name in tensors}, meta)
    return target


# ---------------------------------------------------------------- round trip


def test_round_trip(bundle: Path) -> None:
    net, back = tiny_network(), sl.load(bundle, fold=False)
    assert np.array_equal(back(x()), net(x()))
    assert graph_dict(back) == json.loads(json.dumps(graph_dict(net)))
    assert back.fingerprint == net.fingerprint
    assert (back.labels, back.preprocess, back.name, dict(back.aliases)) == (
        net.labels,
        net.preprocess,
        net.name,
        dict(net.aliases),
    )
    assert repr(back.layers) == repr(net.layers)


@pytest.mark.parametrize("seed", range(12))
def test_round_trip_of_random_graphs(tmp_path: Path, seed: int) -> None:
    net = random_network(seed)
    net.save(tmp_path / "a.safetensors")
    back = sl.load(tmp_path / "a.safetensors", fold=False)
    assert np.array_equal(back(x()), net(x()))
    back.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_folded_networks_are_kept_with_their_folded_names(bundle: Path, tmp_path: Path) -> None:
    folded = sl.load(bundle)
    assert "conv1" not in folded.layers
    folded.save(tmp_path / "folded.safetensors")
    back = sl.load(tmp_path / "folded.safetensors")
    assert back.fingerprint == folded.fingerprint == fold_batch_norm(tiny_network()).fingerprint
    with pytest.raises(sl.LayerNotFoundError, match="folded"):
        back.run(x(), "conv1")


def test_parameters_stay_in_the_file(tmp_path: Path) -> None:
    big = np.zeros((512, 4096), np.float32)
    net = Network([sl.nn.Node("fc", "dense", "input", {"weight": "w"})], {"w": big}, input_shape=(4096,))
    net.save(tmp_path / "big.safetensors")
    tracemalloc.start()
    try:
        back = sl.load(tmp_path / "big.safetensors")
        assert tracemalloc.get_traced_memory()[1] < big.nbytes / 4
    finally:
        tracemalloc.stop()
    base: Any = back.params["w"]
    while not isinstance(base, np.memmap) and base is not None:
        base = base.base
    assert isinstance(base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        back.params["w"][0] = 1


def test_the_safetensors_package_reads_it(bundle: Path) -> None:
    from safetensors import safe_open

    with safe_open(bundle, "np") as file:
        assert file.metadata()["format"] == "semanticlens-network"
        assert np.array_equal(file.get_tensor("fc.bias"), tiny_network().params["fc.bias"])


def test_saving_over_a_file_that_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "n.safetensors"
    tiny_network().save(path)
    first = sl.load(path)
    want = first(x())
    tiny_network(params={"fc.bias": np.zeros(4, np.float32)}).save(path)
    assert np.array_equal(first(x()), want)
    assert not np.array_equal(sl.load(path)(x()), want)


def test_save_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        tiny_network().save(tmp_path / "none" / "n.safetensors")


# ---------------------------------------------------------------- damage


def test_truncated_anywhere(bundle: Path, tmp_path: Path) -> None:
    whole, path = bundle.read_bytes(), tmp_path / "cut.safetensors"
    for length in range(0, len(whole), 64):
        path.write_bytes(whole[:length])
        with pytest.raises(sl.ModelFileError, match=r"cut.safetensors"):
            sl.load(path)
    path.write_bytes(whole + b"\0" * 64)
    with pytest.raises(sl.ModelFileError, match="bytes that belong to no tensor"):
        sl.load(path)


def test_flipped_bits(bundle: Path, tmp_path: Path) -> None:
    whole, path, rng = bytearray(bundle.read_bytes()), tmp_path / "flipped.safetensors", np.random.default_rng(0)
    start = 8 + int.from_bytes(whole[:8], "little")
    places = [*rng.integers(0, len(whole), 300), *rng.integers(start, len(whole), 100)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        if (
            damaged[8:start].rstrip() == whole[8:start].rstrip()
            and damaged[:8] == whole[:8]
            and damaged[start:] == whole[start:]
        ):
            continue  # a space of the padding
        with pytest.raises(CLEAN, match=r"flipped.safetensors") as caught:
            sl.load(path)
        if place >= start:
            assert "do not match the SHA-256 in the file: it was damaged or changed; copy or export it again" in str(
                caught.value
            )


def test_flipped_bits_without_verification(bundle: Path, tmp_path: Path) -> None:
    """Then the checks of form are all there is: a network or a clean error, nothing else."""
    whole, path, rng = bytearray(bundle.read_bytes()), tmp_path / "flipped.safetensors", np.random.default_rng(1)
    for place in rng.integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            net = sl.load(path, verify=False)
        except CLEAN:
            continue
        assert net.output_shape == (4,)


WRONG_FILES = [
    ("missing", None, FileNotFoundError, "there is no file"),
    ("empty.safetensors", b"", sl.ModelFileError, "empty or truncated"),
    ("text.safetensors", b"not a network at all", sl.ModelFileError, "not a safetensors file, or truncated"),
    ("page.html", b"<html>", sl.ModelFileError, "the ending '.html' is not known"),
]


@pytest.mark.parametrize(("name", "content", "error", "text"), WRONG_FILES)
def test_other_files(tmp_path: Path, name: str, content: bytes | None, error: type[Exception], text: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=text):
        sl.load(tmp_path / name)


def test_folders_and_other_tensor_files(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(sl.ModelFileError, match="is a folder"):
        sl.load(tmp_path)
    with pytest.raises(sl.ModelFileError, match="holds its own graph; leave out arch='vgg16'"):
        sl.load(bundle, arch="vgg16")
    write_tensors(tmp_path / "weights.safetensors", {"w": np.zeros(3, np.float32)})
    with pytest.raises(sl.ModelFileError, match="a safetensors file without a network in it"):
        read_bundle(tmp_path / "weights.safetensors")
    with pytest.raises(sl.ModelFileError):
        sl.load(tmp_path / "weights.safetensors")


# ---------------------------------------------------------------- hostile graphs


def node(graph: dict, name: str) -> dict:
    return next(item for item in graph["nodes"] if item["name"] == name)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


HOSTILE = {
    "not an object": (lambda g: [1], "the graph must be an object, not list"),
    "no nodes": (lambda g: g.pop("nodes"), "lacks 'nodes'|must be an object"),
    "unknown entry": (lambda g: g.update(code="import os"), "the graph has the unknown entry 'code'"),
    "unknown node entry": (
        lambda g: g["nodes"][0].update(hook="x"),
        "node 0 of the graph has the unknown entry 'hook'",
    ),
    "nodes a map": (lambda g: g.update(nodes={}), "the graph's nodes must be a list"),
    "too many nodes": (lambda g: g.update(nodes=[0] * 10_001), "must be a list of at most 10,000 entries"),
    "name a number": (
        lambda g: g["nodes"][0].update(name=5),
        "the name of node 0 of the graph must be a printable text",
    ),
    "a very long name": (lambda g: g["nodes"][0].update(name="x" * 5000), "1 to 1024 characters"),
    "inputs a text": (lambda g: g["nodes"][0].update(inputs="input"), "the inputs of node 'conv1' must be a list"),
    "params a list": (lambda g: g["nodes"][0].update(params=["w"]), "the params of node 'conv1' must be an object"),
    "attrs a list": (lambda g: g["nodes"][0].update(attrs=[]), "the attrs of node 'conv1' must be an object"),
    "huge stride": (lambda g: node(g, "conv1")["attrs"].update(stride=[2**70, 1]), "attribute 'stride' must be"),
    "float stride": (lambda g: node(g, "conv1")["attrs"].update(stride=[1.0, 1.0]), "attribute 'stride' must be"),
    "deep attribute": (lambda g: node(g, "conv1")["attrs"].update(stride=deep(7)), "nested deeper than 8 levels"),
    "very deep": (lambda g: g.update(labels=deep(900)), "nested deeper than 8 levels|not valid JSON"),
    "a cycle": (lambda g: node(g, "conv1").update(inputs=["fc"]), "its input 'fc' is not the name of an earlier node"),
    "unknown operation": (lambda g: node(g, "relu1").update(op="eval"), "node 'relu1': operation 'eval' is not known"),
    "other weights": (
        lambda g: node(g, "conv1")["params"].update(weight="fc.weight"),
        "node 'conv1' .conv2d.: its weight must be",
    ),
    "missing weights": (
        lambda g: node(g, "conv1")["params"].update(weight="w"),
        "is not among the network's parameters",
    ),
    "huge input": (lambda g: g["input"].update(shape=[3, 2**24, 2**24]), "too large"),
    "negative input": (lambda g: g["input"].update(shape=[3, -1, 5]), "the input shape must be"),
    "output elsewhere": (lambda g: g.update(output="nowhere"), "the output 'nowhere' is not the name of a node"),
    "label a map": (lambda g: g.update(labels=[{}] * 4), "a label must be a text"),
    "wrong labels": (lambda g: g.update(labels=["a"]), "1 labels are given"),
    "preprocess a text": (lambda g: g.update(preprocess="resize"), "preprocess must be an object"),
    "preprocess unknown": (lambda g: g["preprocess"].update(run="x"), "preprocess: 'run' is not known"),
    "preprocess size": (
        lambda g: g["preprocess"].update(size=[2**40, 1]),
        "preprocess: size and short must be whole numbers",
    ),
    "preprocess std": (
        lambda g: g["preprocess"].update(std=[0, 1, 1]),
        "preprocess: std must be 3 finite positive numbers",
    ),
    "alias of nothing": (lambda g: g["aliases"].update(a="b"), "alias 'a' stands for 'b'"),
    "folded a list": (lambda g: g.update(folded=[]), "the graph's folded names must be an object"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_graphs(bundle: Path, tmp_path: Path, case: str) -> None:
    change, text = HOSTILE[case]
    path = rewrite(
        bundle,
        tmp_path / "hostile.safetensors",
        lambda g: (lambda r: r if isinstance(r, list) and case == "not an object" else None)(change(g)),
    )
    with pytest.raises(CLEAN, match=f"hostile.safetensors: .*({text})"):
        sl.load(path, verify=False)
    with pytest.raises(sl.ModelFileError, match="do not match the SHA-256"):
        sl.load(path)


def test_metadata(bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.safetensors"
    for changes, text in (
        ({"version": "2"}, "bundle version '2', this package reads version '1'; update"),
        ({"graph": None}, "the bundle holds no graph"),
        ({"sha256": None}, "the bundle holds no SHA-256"),
        ({"sha256": "0" * 64}, "do not match the SHA-256"),
        ({"graph": '{"a": 1, "a": 2}', "sha256": "0"}, "do not match"),
        ({"version": None}, "bundle version 'none'"),
    ):
        with pytest.raises(sl.ModelFileError, match=text):
            sl.load(rewrite(bundle, target, **changes))
    assert sl.load(rewrite(bundle, target, sha256=None), verify=False).name == "tiny"


BAD_TEXT = [
    "",
    "{",
    "[]",
    "null",
    "NaN",
    '{"a": 1, "a": 2}',
    '{"input": NaN}',
    "[" * 100_000,
    '"' + "x" * 100,
    "1" * 5000,
    '{"nodes": ' + "1" * 5000 + "}",
    "\ud800",
    "\0",
]


@pytest.mark.parametrize("text", BAD_TEXT, ids=[f"{i}" for i in range(len(BAD_TEXT))])
def test_graph_texts(text: str) -> None:
    with pytest.raises(sl.ModelFileError):
        parse_graph(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200)
@given(
    st.text()
    | JSON.map(json.dumps)
    | JSON.map(lambda v: json.dumps({"input": {"shape": v}, "output": v, "nodes": [v], "name": v}))
)
def test_any_text_is_a_graph_or_a_clean_error(text: str) -> None:
    with contextlib.suppress(sl.ModelFileError):
        parse_graph(text)


def spots(value: Any, path: tuple = ()) -> list[tuple]:
    """Paths of all entries of a JSON value."""
    result = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        result += spots(inner, (*path, key))
    return result


TREE = json.loads(json.dumps(graph_dict(tiny_network())))
SPOTS = spots(TREE)[1:]


def edit(tree: Any, path: tuple, kind: str, value: Any) -> None:
    for key in path[:-1]:
        tree = tree[key]
    if kind == "replace":
        tree[path[-1]] = value
    elif kind == "remove":
        del tree[path[-1]]
    elif isinstance(tree, list):
        tree.insert(path[-1], copy.deepcopy(tree[path[-1]]))
    else:
        tree[str(value)[:20]] = tree[path[-1]]


NEAR = st.sampled_from(
    [
        "input",
        "conv1",
        "fc",
        "relu",
        "conv2d",
        "same",
        "fc.weight",
        "output",
        0,
        1,
        -1,
        2,
        3,
        6,
        13,
        2**24,
        2**31,
        2**63,
        True,
        None,
        [],
        [1, 1],
        [0, 0],
        [1, 1, 1, 1],
        {},
        1e-5,
        1e39,
        "batch_norm",
        "flatten",
        "add",
        ["relu1", "relu1"],
    ]
)


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.sampled_from(SPOTS), st.sampled_from(["replace", "remove", "double"]), NEAR | JSON),
        min_size=1,
        max_size=3,
    )
)
def test_edited_graphs_run_or_give_a_clean_error(edits: list) -> None:
    tree = copy.deepcopy(TREE)
    for path, kind, value in edits:
        try:
            edit(tree, path, kind, value)
        except (KeyError, IndexError, TypeError):  # an earlier edit took the place away
            continue
    params = {key: np.array(array) for key, array in tiny_network().params.items()}
    try:
        graph = parse_graph(json.dumps(tree))
        net = Network(
            graph.nodes,
            params,
            input_shape=graph.input_shape,
            output=graph.output,
            name=graph.name,
            aliases=graph.aliases,
            folded=graph.folded,
            preprocess=graph.preprocess,
            labels=graph.labels,
        )
    except CLEAN:
        return
    if net.values_per_sample() < 1_000_000 and None not in net.input_shape:
        got = net(values(np.random.default_rng(0), 1, *net.input_shape))  # type: ignore[arg-type]
        assert got.shape == (1, *net.output_shape)


def test_copy_elsewhere_is_the_same_network(bundle: Path, tmp_path: Path) -> None:
    shutil.copy(bundle, tmp_path / "copy.safetensors")
    assert sl.load(tmp_path / "copy.safetensors").fingerprint == sl.load(bundle).fingerprint
