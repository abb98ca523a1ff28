"""One token after the other, cheaply: a causal network as a list of calls on arrays that are made once.

For one token of one text every value has a fixed shape, so its memory is fixed too: reshaping, splitting into heads and
turning axes become views that are made beforehand and cost nothing per token, and what is left is one kernel call per
layer part.  Keys and values go into arrays that grow by doubling.  The kernels and the order of sums are those of
:class:`semanticlens.nn.language.generate.Steps`; only rotations multiply complex numbers instead of pairs of reals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._kernels import nn as kernels
from semanticlens._kernels import transformer
from semanticlens.nn.graph import INPUT, Checked, check_graph
from semanticlens.nn.network import Network
from semanticlens.nn.ops import Call
from semanticlens.nn.ops.tokens import rotary_speeds, rotate, score_scale, whole_numbers
from semanticlens.nn.plan import _merge

__all__ = ["Decoder"]

F32 = NDArray[np.float32]
_FIRST = 32  # tokens that the arrays of keys and values hold at first


class _Cache:
    """Keys and values (heads, room, width) of the tokens so far."""

    def __init__(self, times: int) -> None:
        """``times``: how often the network repeats each head; here it is kept once."""
        self.times, self.count, self.parts = times, 0, []  # type: int, int, list[F32]

    def start(self, keys: F32, values: F32) -> None:
        """With what earlier tokens left, (1, heads, T, width) each, heads repeated."""
        self.count = keys.shape[2]
        self.parts = [self._grown(part[0, :: self.times], max(_FIRST, 2 * self.count)) for part in (keys, values)]

    @staticmethod
    def _grown(part: F32, room: int) -> F32:
        larger = np.empty((part.shape[0], room, part.shape[2]), np.float32)
        larger[:, : part.shape[1]] = part
        return larger

    def add(self, *fresh: F32) -> None:
        """One more token, (1, heads, 1, width) each."""
        if self.count == self.parts[0].shape[1]:
            self.parts = [self._grown(part, 2 * self.count) for part in self.parts]
        for part, new in zip(self.parts, fresh, strict=True):
            part[:, self.count] = new[0, :, 0]
        self.count += 1

    def seen(self) -> list[F32]:
        """Both, (heads, T, width): views."""
        return [part[:, : self.count] for part in self.parts]


class Decoder:
    """A network run by one token per call, after :meth:`start`; one text at a time.

    Parameters
    ----------
    net : Network
        Causal, without edits; :meth:`takes` says whether it can be run this way.
    n_threads : int
    """

    def __init__(self, net: Network, n_threads: int) -> None:
        self.net, self.place, self.n_threads = net, 0, n_threads
        self.caches: dict[str, _Cache] = {}
        self._values: dict[str, F32] = {INPUT: np.zeros((1, 1), np.float32)}
        self._calls: list[Callable[[], Any]] = []
        graph = check_graph(net.nodes, net.params, (1,))
        shapes: dict[str, Any] = {INPUT: (1,), **{item.node.name: item.shape for item in graph}}
        self._nodes = {item.node.name: item for item in graph}
        self._only_attended = _only_attended(graph, net.output)
        for group in _merge(graph, frozenset({net.output}), shapes, True):
            self._plan(group.head, group.tail, group.inputs, group.activation, shapes[group.tail])

    @staticmethod
    def takes(net: Network) -> bool:
        """Whether a network of texts has plain causal attention only: queries, keys and values, and no bias."""
        return net.input_shape == (None,) and all(
            len(node.inputs) == 3 and "bias" not in node.params for node in net.nodes if node.op == "attention"
        )

    def start(self, kept: Mapping[str, tuple[F32, F32]], place: int) -> None:
        """Go on after ``place`` tokens, whose keys and values (1, heads, T, width) of each attention node are given."""
        self.place = place
        for name, cache in self.caches.items():
            cache.start(*kept[name])

    def step(self, token: int) -> F32:
        """Logits (vocabulary,) behind one more token; the array is written again by the next call."""
        self._values[INPUT][0, 0] = token
        with np.errstate(all="ignore"):
            for call in self._calls:
                call()
        self.place += 1
        logits: F32 = self._values[self.net.output][0, 0]
        return logits

    def _plan(self, item: Checked, name: str, inputs: Sequence[str], activation: str, shape: tuple[int, ...]) -> None:
        """Make the array of a value and the call that fills it."""
        xs = [self._values[source] for source in inputs]
        attrs = item.attrs
        if item.op.resolve is not None:
            given = {role: self.net.params[key].shape for role, key in item.node.params.items()}
            attrs = item.op.resolve(attrs, given, [x.shape[1:] for x in xs])
        params = {role: self.net.params[key] for role, key in item.node.params.items()}
        call = Call(dict(attrs), params, activation, self.net._prepare(item))
        make = _CALLS.get(item.op.name)
        if name in self._only_attended:
            self._values[name] = xs[0]
            return
        if item.op.name in ("permute", "reshape", "flatten", "identity", "slice"):
            view = item.op.kernel(call, xs, None, 1) if item.op.view else _view(item, call, xs[0])
            if np.shares_memory(view, xs[0]):
                self._values[name] = view
                return
        out = self._values[name] = np.empty((1, *shape), np.float32)
        if make is not None:
            self._calls.append(make(self, item, call, xs, out))
        else:
            self._calls.append(partial(_general, item.op.kernel, call, xs, out, self.n_threads))


def _view(item: Checked, call: Call, x: F32) -> F32:
    """A value that only moves, as a view where it is dense then: for one token most are."""
    a = call.attrs
    if item.op.name == "permute":
        moved = x.transpose(0, *a["axes"])
    else:
        moved = x[(*[slice(None)] * a["axis"], slice(a["start"], a["stop"], a["step"]))]
    return moved if moved.flags.c_contiguous else np.empty(0, np.float32)


def _general(kernel: Any, call: Call, xs: list[F32], out: F32, n_threads: int) -> None:
    y = kernel(call, xs, out, n_threads)
    if y is not out:
        np.copyto(out, y)


def _embedding(decoder: Decoder, item: Checked, call: Call, xs: list[F32], out: F32) -> Callable[[], Any]:
    weight, ids = call.params["weight"], xs[0]

    def look_up() -> None:
        np.copyto(out, weight[whole_numbers(ids, len(weight), "token ids")])

    return look_up


def _positions(decoder: Decoder, item: Checked, call: Call, xs: list[F32], out: F32) -> Callable[[], Any]:
    weight, start = call.params["weight"], call.attrs["offset"]
    return lambda: np.add(xs[0], weight[start + decoder.place], out=out)


def _dense(decoder: Decoder, item: Checked, call: Call, xs: list[F32], out: F32) -> Callable[[], Any]:
    return kernels.bound_dense(
        xs[0],
        call.params["weight"],
        call.params.get("bias"),
        activation=call.activation,
        addend=xs[1] if len(xs) > 1 else None,
        out=out,
        n_threads=decoder.n_threads,
    )


def _norm(centred: bool) -> Callable[..., Callable[[], Any]]:
    def make(decoder: Decoder, item: Checked, call: Call, xs: list[F32], out: F32) -> Callable[[], Any]:
        p = call.params
        return transformer.bound_norm_rows(
            xs[0], p.get("weight"), p.get("bias"), eps=call.attrs["eps"], centred=centred, out=out, n_threads=1
        )

    return make


def _rotary(decoder: Decoder, item: Checked, call: Call, xs: list[F32], out: F32) -> Callable[[], Any]:
    attrs, start, magnitude = call.attrs, call.attrs["offset"], call.attrs["magnitude"]
    if not attrs["interleaved"]:
        return lambda: np.copyto(out, rotate(xs[0], {**attrs, "offset": start + decoder.place}))
    speeds = rotary_speeds(attrs, xs[0].shape[-1] // 2)
    x, y = xs[0].view(np.complex64), out.view(np.complex64)
    turns: list[NDArray[Any]] = []

    def turn() -> None:
        place = start + decoder.place
        while len(turns) <= place:
            turns.append((magnitude * np.exp(1j * (len(turns) * speeds))).astype(np.complex64))
        np.multiply(x, turns[place], out=y)

    return turn


def _only_attended(graph: Sequence[Checked], output: str) -> frozenset[str]:
    """Nodes that repeat heads for attention alone."""
    readers: dict[str, list[tuple[str, int]]] = {}
    for item in graph:
        for i, name in enumerate(item.node.inputs):
            readers.setdefault(name, []).append((item.node.op, i))
    return frozenset(
        item.node.name
        for item in graph
        if item.node.op == "repeat"
        and item.attrs["axis"] == 1
        and item.node.name != output
        and all(op == "attention" and i in (1, 2) for op, i in readers.get(item.node.name, ()))
    )


def _attention(decoder: Decoder, item: Checked, call: Call, xs: list[F32], out: F32) -> Callable[[], Any]:
    """Heads that share keys and values are queries of one pair: nothing is repeated."""
    q, keys, values = xs
    shared = keys.shape[1]
    times = q.shape[1] // shared
    queries, into = q.reshape(shared, times, q.shape[-1]), out.reshape(shared, times, out.shape[-1])
    cache = decoder.caches[item.node.name] = _Cache(times)
    attend = transformer.bound_attention(queries, scale=score_scale(call, q), out=into, n_threads=decoder.n_threads)

    def look() -> None:
        cache.add(keys, values)
        attend(*cache.seen())

    return look


def _pointwise(decoder: Decoder, item: Checked, call: Call, xs: list[F32], out: F32) -> Callable[[], Any]:
    if call.activation != "none" or len(xs) != 2:
        return partial(_general, item.op.kernel, call, xs, out, decoder.n_threads)
    return partial({"add": np.add, "mul": np.multiply}[item.op.name], xs[0], xs[1], out)


_CALLS: dict[str, Callable[..., Callable[[], Any]]] = {
    "embedding": _embedding,
    "positions": _positions,
    "dense": _dense,
    "layer_norm": _norm(True),
    "rms_norm": _norm(False),
    "rotary": _rotary,
    "attention": _attention,
    "add": _pointwise,
    "mul": _pointwise,
}
