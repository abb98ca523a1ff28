"""The bundle: one safetensors file, the graph as JSON in its metadata, read by memory map.

``metadata = {"format": "semanticlens-network", "version": "1", "graph": JSON, "sha256": hex}`` with ``sha256`` over
the graph's text and the hash of the arrays.  The graph is ``{"name", "input": {"shape"}, "output", "nodes": [{"name",
"op", "inputs", "params", "attrs"}], "aliases", "folded", "preprocess", "labels"}``.  Text is checked for form and
size here, meaning (shapes, attributes, references) by :class:`semanticlens.nn.Network`; both before anything of the
weights' size is allocated.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import ModelFileError, SemanticLensError
from semanticlens.io import TensorFile, read_tensors, sha256_of_arrays, write_tensors
from semanticlens.nn.graph import MAX_NAME, MAX_NODES, Node, check_input_shape, check_name
from semanticlens.nn.preprocess import Preprocess

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

FORMAT, VERSION = "semanticlens-network", "1"
MAX_TEXT = 32 << 20  # bytes of graph JSON; ImageNet's labels and 1000 nodes take 0.3 MB
EXTRA = frozenset({"language.tokenizer"})  # arrays beside the parameters; the metadata's entry "language" says what they are
MAX_NESTING = 8
MAX_ITEMS = 4096  # inputs, parameters or attribute entries of one node
MAX_LABELS = 1_000_000

__all__ = ["Graph", "graph_dict", "is_bundle", "parse_graph", "read_bundle", "write_bundle"]


@dataclass(frozen=True)
class Graph:
    """What the graph text says, checked for form."""

    name: str
    input_shape: tuple[int | None, ...]
    output: str
    nodes: tuple[Node, ...]
    aliases: Mapping[str, str]
    folded: Mapping[str, str]
    preprocess: Preprocess | None
    labels: tuple[str, ...] | None


def is_bundle(metadata: Mapping[str, str]) -> bool:
    """Whether a safetensors file says that it is a network of this package."""
    return metadata.get("format") == FORMAT


def read_bundle(path: str | os.PathLike[str], *, verify: bool = True, allow_nonfinite: bool = False) -> Network:
    """Read a network from a bundle file; its parameters stay in the file until they are used.

    Parameters
    ----------
    path : path-like
    verify : bool
        Compare the SHA-256 in the file with its contents, which reads all of it once.
    allow_nonfinite : bool
        Accept parameters that hold NaN or infinity.

    Raises
    ------
    ModelFileError
        If the file is not a bundle, is of a newer version, or is damaged; the message names the file and what to do.
    """
    from semanticlens.nn.network import Network

    tensors = read_tensors(path)
    text = _graph_text(tensors)
    try:
        arrays_hash = _verify(tensors, text + tensors.metadata.get("language", "")) if verify else None
        graph = parse_graph(text)
        extra = EXTRA & set(tensors)  # not the network's own
        net = Network(
            graph.nodes,
            {key: tensors[key] for key in tensors if key not in EXTRA} if extra else tensors,
            input_shape=graph.input_shape,
            output=graph.output,
            name=graph.name,
            aliases=graph.aliases,
            folded=graph.folded,
            preprocess=graph.preprocess,
            labels=graph.labels,
            allow_nonfinite=allow_nonfinite,
        )
    except SemanticLensError as error:
        error.args = (f"{path}: {error.args[0]}",)
        raise
    net._arrays_hash = None if extra else arrays_hash
    return net


def _graph_text(tensors: TensorFile) -> str:
    metadata, path = tensors.metadata, tensors.path
    if not is_bundle(metadata):
        raise ModelFileError(
            f"{path}: a safetensors file without a network in it; if it holds the weights of a known "
            "architecture, load it with arch=..."
        )
    if metadata.get("version") != VERSION:
        raise ModelFileError(
            f"{path}: bundle version {metadata.get('version', 'none')[:20]!r}, this package reads version "
            f"{VERSION!r}; update semanticlens-native"
        )
    if "graph" not in metadata:
        raise ModelFileError(f"{path}: the bundle holds no graph; export the network again")
    return metadata["graph"]


def _digest(text: str, arrays_hash: str) -> str:
    return hashlib.sha256(f"{text}\n{arrays_hash}".encode()).hexdigest()


def _verify(tensors: TensorFile, text: str) -> str:
    if "sha256" not in tensors.metadata:
        raise ModelFileError(
            "the bundle holds no SHA-256; export the network again, or pass verify=False to read it all the same"
        )
    arrays_hash = sha256_of_arrays(tensors)
    if _digest(text, arrays_hash) != tensors.metadata["sha256"]:
        raise ModelFileError(
            "the contents do not match the SHA-256 in the file: it was damaged or changed; copy or export it again "
            "(verify=False reads it all the same)"
        )
    return arrays_hash


def write_bundle(
    net: Network, path: str | os.PathLike[str], *, language: str = "", extra: Mapping[str, NDArray[Any]] = MappingProxyType({})
) -> None:
    """Write a network as a bundle, atomically; the same network always gives the same bytes.

    ``language`` and ``extra`` (arrays whose names are in `EXTRA`) are what a model of texts adds to its network.
    """
    text = json.dumps(graph_dict(net), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    if len(text.encode()) > MAX_TEXT:
        raise ModelFileError(
            f"the graph of {net.name!r} takes more than {MAX_TEXT:,} bytes of text; a bundle cannot hold it"
        )
    arrays: dict[str, NDArray[Any]] = {**net.params, **extra}
    digest = _digest(text + language, sha256_of_arrays(arrays) if extra else net._hash_arrays())
    metadata = {"format": FORMAT, "version": VERSION, "graph": text, "sha256": digest}
    write_tensors(Path(path), arrays, {**metadata, "language": language} if language else metadata)


def graph_dict(net: Network) -> dict[str, Any]:
    """The graph of a network as JSON can hold it."""
    nodes = [
        {
            "name": node.name,
            "op": node.op,
            "inputs": list(node.inputs),
            "params": dict(node.params),
            "attrs": {key: _plain(value) for key, value in node.attrs.items()},
        }
        for node in net.nodes
    ]
    return {
        "name": net.name,
        "input": {"shape": list(net.input_shape)},
        "output": net.output,
        "nodes": nodes,
        "aliases": dict(net.aliases),
        "folded": dict(net.folded),
        "preprocess": None if net.preprocess is None else net.preprocess.to_dict(),
        "labels": None if net.labels is None else list(net.labels),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


# ---------------------------------------------------------------- parsing


def parse_graph(text: str) -> Graph:
    """Read graph text.  Whatever the text, the result is a Graph or a ``ModelFileError`` that says what is wrong."""
    if len(text) > MAX_TEXT:
        raise ModelFileError(f"the graph is {len(text):,} characters long; at most {MAX_TEXT:,} are read")
    try:
        raw = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        _check_nesting(raw)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"the graph is not valid JSON: {str(error)[:200]}") from None
    top = _object(
        raw,
        "the graph",
        required=("input", "output", "nodes"),
        optional=("name", "aliases", "folded", "preprocess", "labels"),
    )
    shape = _object(top["input"], "the graph's input", required=("shape",))["shape"]
    preprocess = top.get("preprocess")
    return Graph(
        _text(top.get("name", ""), "the graph's name", empty=True),
        check_input_shape(shape),
        check_name(top["output"], "the graph's output"),
        tuple(_node(item, i) for i, item in enumerate(_list(top["nodes"], "the graph's nodes", MAX_NODES))),
        _names(top.get("aliases", {}), "the graph's aliases"),
        _names(top.get("folded", {}), "the graph's folded names"),
        None if preprocess is None else Preprocess.from_dict(preprocess),
        _labels(top.get("labels")),
    )


def _node(item: Any, position: int) -> Node:
    where = f"node {position} of the graph"
    entry = _object(item, where, required=("name", "op", "inputs"), optional=("params", "attrs"))
    name = check_name(entry["name"], f"the name of {where}")
    where = f"node {name!r}"
    inputs = tuple(
        _text(text, f"an input of {where}") for text in _list(entry["inputs"], f"the inputs of {where}", MAX_ITEMS)
    )
    attrs = entry.get("attrs", {})
    if not isinstance(attrs, dict) or len(attrs) > MAX_ITEMS:
        raise ModelFileError(f"the attrs of {where} must be an object of at most {MAX_ITEMS} entries")
    return Node(
        name,
        _text(entry["op"], f"the op of {where}"),
        inputs,
        _names(entry.get("params", {}), f"the params of {where}", MAX_ITEMS),
        attrs,
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number of JSON")


def _check_nesting(value: Any) -> None:
    level = [value]
    for _ in range(MAX_NESTING):
        level = [
            inner
            for item in level
            if isinstance(item, (list, dict))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_NESTING} levels")


def _object(value: Any, what: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ModelFileError(f"{what} must be an object, not {type(value).__name__}")
    missing = [key for key in required if key not in value]
    unknown = [key for key in value if key not in required + optional]
    if missing or unknown:
        raise ModelFileError(
            f"{what} lacks {missing[0]!r}"
            if missing
            else f"{what} has the unknown entry {unknown[0][:60]!r}; the file may need a newer version"
        )
    return value


def _list(value: Any, what: str, limit: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > limit:
        raise ModelFileError(f"{what} must be a list of at most {limit:,} entries")
    return value


def _text(value: Any, what: str, empty: bool = False) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME or not (value or empty):
        raise ModelFileError(f"{what} must be a text of at most {MAX_NAME} characters, not {str(value)[:60]!r}")
    return value


def _names(value: Any, what: str, limit: int = 2 * MAX_NODES) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > limit:
        raise ModelFileError(f"{what} must be an object of at most {limit:,} entries")
    return {_text(key, f"a name in {what}"): _text(item, f"an entry of {what}") for key, item in value.items()}


def _labels(value: Any) -> tuple[str, ...] | None:
    return (
        None
        if value is None
        else tuple(_text(item, "a label", empty=True) for item in _list(value, "the graph's labels", MAX_LABELS))
    )
