"""Maps read off attention: rollout, its gradient form, and class-specific attention.

With the attention weights A of a layer (heads x T x T, rows sum to 1), their gradient dA of what is explained, and their relevance R_A:

========================  =====================================================================================================
method                    matrix of a layer M_l; the map is a row of ``M_L ... M_2 M_1``
========================  =====================================================================================================
attention rollout         ``rownorm(mean over heads of A + I)`` (Abnar & Zuidema 2020)
gradient rollout          ``rownorm(F + I)``, ``F`` the mean over heads of ``(A dA)+``, all but its largest entries 0
class-specific attention  ``I + mean over heads of (dA R_A)+`` (Chefer, Gur & Wolf 2021)
========================  =====================================================================================================

Rollout knows nothing of the class. The row is the class token's where there is one, else the mean of all rows. In networks with windows or
with keys that are pooled there is no such product, and these functions say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, NumericalError, UnsupportedOperationError
from semanticlens._kernels import resolve_threads
from semanticlens._progress import track
from semanticlens.attribution.attribute import attribute
from semanticlens.attribution.baselines import Baseline
from semanticlens.attribution.composites import Composite
from semanticlens.attribution.products import stabilised_quotient
from semanticlens.attribution.rules import AlphaBeta, Stabiliser
from semanticlens.nn.backward import cotangent
from semanticlens.nn.graph import Checked
from semanticlens.nn.inputs import check_input
from semanticlens.nn.ops import Call
from semanticlens.nn.ops.tokens import score_bias, score_scale

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["attention_rollout", "class_attention", "gradient_rollout"]

Array = NDArray[Any]
HEADS = ("mean", "max", "min")
STABILISER = Stabiliser(1e-9)


def attention_rollout(
    net: Network,
    x: ArrayLike,
    target: Any = None,
    *,
    heads: str = "mean",
    discard: float = 0.0,
    layers: Sequence[str] | None = None,
    row: str | int = "auto",
    grid: tuple[int, int] | None = None,
    batch_size: int = 16,
    n_threads: int | None = None,
    progress: bool = False,
) -> Baseline:
    """Attention multiplied through the layers, half of each layer passing by.

    Parameters
    ----------
    net : Network
        With attention over all tokens, the same number in every layer.
    x : array_like (B, ...), float32
    target : int, (B,) ints, array (B, Y), or None
        Kept for the record: the map does not depend on it.
    heads : {"mean", "max", "min"}
        How heads become one matrix.
    discard : float
        Share of the smallest entries of each matrix that are set to 0, the first column (the class token) left out; 0 to 1.
    layers : sequence of str, optional
        Attention nodes, in the network's order; all of them if left out.
    row : "auto", "mean" or int
        Which token asks: the class token or the mean; or its number.
    grid : (int, int), optional
        Rows and columns of the picture's tokens, where the network does not tell.
    batch_size : int
    n_threads : int, optional
    progress : bool

    Returns
    -------
    Baseline
        ``tokens`` (B, T') is the map of the picture's tokens (of all tokens, for texts), ``input`` (B, H, W) the same, enlarged.

    Raises
    ------
    UnsupportedOperationError
        If the network has no attention, or attention over windows or pooled keys.
    """
    if heads not in HEADS:
        raise ValueError(f"heads={heads!r}: must be one of {', '.join(map(repr, HEADS))}")
    _share(discard)
    case = _Tokens.of(net, layers, row, grid)

    def matrices(batch: Array, start: Array, threads: int) -> list[Array]:
        found = []
        for weights in case.weights(batch, threads):
            joined = getattr(weights.astype(np.float64), heads)(axis=1)
            found.append(_row_normalised(_discarded(joined, discard) + np.eye(joined.shape[-1])))
        return found

    settings = {"heads": heads, "discard": float(discard)}
    return case.run("attention rollout", matrices, x, target, settings, batch_size, n_threads, progress)


def gradient_rollout(
    net: Network,
    x: ArrayLike,
    target: Any = None,
    *,
    discard: float = 0.9,
    layers: Sequence[str] | None = None,
    row: str | int = "auto",
    grid: tuple[int, int] | None = None,
    batch_size: int = 16,
    n_threads: int | None = None,
    progress: bool = False,
) -> Baseline:
    """Rollout of attention times its gradient, negative parts cut off.

    Parameters and result as in :func:`attention_rollout`; ``target`` is needed.
    """
    _share(discard)
    case = _Tokens.of(net, layers, row, grid)

    def matrices(batch: Array, start: Array, threads: int) -> list[Array]:
        found = []
        for weights, slopes in zip(case.weights(batch, threads), case.slopes(batch, start, threads), strict=True):
            joined = np.maximum(weights.astype(np.float64) * slopes, 0).mean(axis=1)
            found.append(_row_normalised(_discarded(joined, discard) + np.eye(joined.shape[-1])))
        return found

    return case.run(
        "gradient rollout", matrices, x, target, {"discard": float(discard)}, batch_size, n_threads, progress, True
    )


def class_attention(
    net: Network,
    x: ArrayLike,
    target: Any = None,
    *,
    composite: Composite | None = None,
    first: int = 0,
    layers: Sequence[str] | None = None,
    row: str | int = "auto",
    grid: tuple[int, int] | None = None,
    batch_size: int = 16,
    n_threads: int | None = None,
    progress: bool = False,
) -> Baseline:
    """Class-specific attention: gradient times relevance of the attention weights, multiplied through the layers.

    Parameters
    ----------
    net, x, layers, row, grid, batch_size, n_threads, progress
        As in :func:`attention_rollout`.
    target : int, (B,) ints, or array (B, Y)
        Of what; relevance starts from 1 at the class, as in the published method.
    composite : Composite, optional
        What brings relevance to the results of attention; AlphaBeta(1, 0) at linear layers in AttnLRP, if left out. The weights get
        ``R_A = A ((R_O / st(2 O)) V^T)``, half of the relevance of the result O = A V.
    first : int
        Layers before this one are left out.

    Returns
    -------
    Baseline
    """
    case = _Tokens.of(net, layers, row, grid)
    if isinstance(first, bool) or not isinstance(first, int) or not 0 <= first < len(case.nodes):
        raise ValueError(
            f"first={first!r}: must be a whole number below {len(case.nodes)}, the number of attention layers"
        )
    chosen = Composite.attn_lrp().with_rule(type="linear", rule=AlphaBeta(1.0, 0.0)) if composite is None else composite
    case = _Tokens(case.net, case.nodes[first:], case.row, case.grid)

    def matrices(batch: Array, start: Array, threads: int) -> list[Array]:
        names = [item.node.name for item in case.nodes]
        relevance = attribute(net, batch, start, composite=chosen, record=names, start="one", n_threads=threads)
        values = net.run(
            batch,
            record=list(dict.fromkeys([*names, *(item.node.inputs[2] for item in case.nodes)])),
            n_threads=threads,
        )
        found = []
        weights, slopes = case.weights(batch, threads), case.slopes(batch, start, threads)
        for item, a, d in zip(case.nodes, weights, slopes, strict=True):
            name = item.node.name
            s = stabilised_quotient(relevance[name], np.ascontiguousarray(2 * values[name]), STABILISER, threads)
            r = a.astype(np.float64) * (s @ values[item.node.inputs[2]].swapaxes(-1, -2))
            found.append(np.eye(a.shape[-1]) + np.maximum(d * r, 0).mean(axis=1))
        return found

    settings = {"composite": chosen.name, "first": first}
    return case.run("class-specific attention", matrices, x, target, settings, batch_size, n_threads, progress, True)


# ---------------------------------------------------------------- attention of a network


@dataclass(frozen=True)
class _Tokens:
    """The attention nodes of a network, and where the tokens of its picture lie.

    Attributes
    ----------
    row : str or int
    grid : (rows, columns) or None
        Of the picture's tokens, the last of them all; None for texts.
    """

    net: Network
    nodes: tuple[Checked, ...]
    row: str | int
    grid: tuple[int, int] | None

    @classmethod
    def of(cls, net: Network, layers: Sequence[str] | None, row: str | int, grid: tuple[int, int] | None) -> _Tokens:
        named = (
            None
            if layers is None
            else {net.resolve(name) for name in ([layers] if isinstance(layers, str) else layers)}
        )
        nodes = [
            item for item in net._graph if item.op.name == "attention" and (named is None or item.node.name in named)
        ]
        missing = sorted((named or set()) - {item.node.name for item in nodes})
        if missing or (named is not None and not named):
            raise DataError(
                f"layers={list(layers or [])!r}: name attention nodes; {', '.join(map(repr, missing)) or 'none'} is no such"
            )
        if not nodes:
            raise UnsupportedOperationError(
                f"network {net.name!r} has no attention nodes, so there is no attention to roll out"
            )
        shapes = {item.node.name: item.shape for item in net._graph}
        sizes = set()
        for item in nodes:
            q, k = (shapes[source] for source in item.node.inputs[:2])
            if len(q) != 3 or q[-2] != k[-2]:
                raise UnsupportedOperationError(
                    f"node {item.node.name!r}: attention of {q} over {k} is not over all tokens but over windows or pooled keys: "
                    "it cannot be rolled out"
                )
            sizes.add(q[-2])
        if len(sizes) != 1:
            raise UnsupportedOperationError(
                f"attention layers have {sorted(map(str, sizes))} tokens: their matrices cannot be multiplied"
            )
        (tokens,) = sizes
        chosen = _grid(net, tokens, grid)
        if row not in ("auto", "mean") and (isinstance(row, (bool, str)) or not 0 <= row < (tokens or row + 1)):
            raise ValueError(f"row={row!r}: must be 'auto', 'mean' or the number of a token, 0 to {(tokens or 0) - 1}")
        return cls(net, tuple(nodes), row, chosen)

    def weights(self, x: Array, n_threads: int) -> list[Array]:
        """Of each layer, attention weights (B, heads, T, T)."""
        values = self.net.run(x, record=self._sources(), n_threads=n_threads)
        return [self._weights(item, values) for item in self.nodes]

    def slopes(self, x: Array, start: Array, n_threads: int) -> list[Array]:
        """Of each layer, the gradient of what is explained by the attention weights: that by the result, times the values."""
        names = [item.node.name for item in self.nodes]
        back = self.net.gradient(x, start, wrt=names, n_threads=n_threads)
        values = self.net.run(
            x, record=list(dict.fromkeys(item.node.inputs[2] for item in self.nodes)), n_threads=n_threads
        )
        return [
            back[item.node.name].astype(np.float64) @ values[item.node.inputs[2]].swapaxes(-1, -2)
            for item in self.nodes
        ]

    def _sources(self) -> list[str]:
        return list(dict.fromkeys(source for item in self.nodes for i, source in enumerate(item.node.inputs) if i != 2))

    def _weights(self, item: Checked, values: Any) -> Array:
        params = {role: self.net.params[key] for role, key in item.node.params.items()}
        call = Call(item.attrs, params)
        q, k = (values[source] for source in item.node.inputs[:2])
        extra = [values[source] for source in item.node.inputs[3:]]
        scores = np.float64(score_scale(call, q)) * (q @ k.swapaxes(-1, -2)).astype(np.float64)
        bias = score_bias(call, [q, k, k, *extra])
        if bias is not None:
            flat = scores.reshape(-1, *scores.shape[-2:])
            flat += bias[np.arange(len(flat)) % len(bias)]
        if call.attrs["causal"]:
            queries, keys = scores.shape[-2:]
            scores[..., ~np.tri(queries, keys, keys - queries, dtype=bool)] = -np.inf
        e = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.asarray(e / e.sum(axis=-1, keepdims=True))

    def run(
        self,
        method: str,
        matrices: Any,
        x: ArrayLike,
        target: Any,
        settings: dict[str, Any],
        batch_size: int,
        n_threads: int | None,
        progress: bool,
        needs_target: bool = False,
    ) -> Baseline:
        """Batch by batch: matrices, their product, its row."""
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r}: must be a whole number of at least 1")
        if callable(target):
            raise TypeError("target must be class numbers or a factor for each output, not a function")
        inputs, threads = check_input(self.net, x), resolve_threads(n_threads)
        output = np.concatenate(
            [self.net(inputs[i : i + batch_size], n_threads=threads) for i in range(0, len(inputs), batch_size)]
        )
        start = np.zeros_like(output) if target is None and not needs_target else cotangent(target, output)
        rows = []
        for i in track(range(0, len(inputs), batch_size), progress=progress, what=method, unit="batch"):
            part = slice(i, i + batch_size)
            product: Array | None = None
            for matrix in matrices(inputs[part], start[part], threads):
                product = matrix if product is None else matrix @ product
            assert product is not None
            rows.append(self._read(product))
        tokens = np.concatenate(rows)
        if not np.isfinite(tokens).all():
            raise NumericalError(f"{method}: the map holds NaN or infinity")
        made = tokens.astype(np.float32) if self.grid is None else _enlarged(tokens, self.grid, inputs.shape[2:])
        return Baseline(
            method, made, output, start, {**settings, "row": self.row}, tokens=tokens, net=self.net, x=inputs
        )

    def _read(self, product: Array) -> Array:
        """(B, T'): the row that asks, the picture's tokens of it."""
        patches = product.shape[-1] if self.grid is None else self.grid[0] * self.grid[1]
        ahead = product.shape[-1] - patches
        if self.row == "mean" or (self.row == "auto" and not ahead and self.grid is not None):
            asked = product.mean(axis=1)
        else:
            number = (
                self.row if isinstance(self.row, int) else -1 if self.grid is None else 0
            )  # in a text the last token asks
            asked = product[:, number]
        return np.asarray(asked[:, ahead:])


def _grid(net: Network, tokens: int | None, given: tuple[int, int] | None) -> tuple[int, int] | None:
    """Rows and columns of the picture's tokens."""
    if len(net.input_shape) != 3:
        if given is not None:
            raise ValueError(f"grid={given!r}: the network takes {net.input_shape}, not pictures")
        return None
    if given is not None:
        rows, columns = given
        if rows < 1 or columns < 1 or (tokens is not None and rows * columns > tokens):
            raise ValueError(f"grid={given!r}: the network has {tokens} tokens")
        return int(rows), int(columns)
    for item in net._graph:
        if item.op.name == "conv2d" and len(item.shape) == 3 and None not in item.shape:
            size = [int(side or 0) for side in item.shape[1:]]
            if tokens is not None and 0 <= tokens - size[0] * size[1] <= 8:
                return size[0], size[1]
    raise DataError(f"cannot tell how the {tokens} tokens lie in the picture: pass grid=(rows, columns)")


def _enlarged(tokens: Array, grid: tuple[int, int], size: tuple[int, ...]) -> NDArray[np.float32]:
    from PIL import Image

    maps = tokens.reshape(len(tokens), *grid).astype(np.float32)
    wide = [np.asarray(Image.fromarray(one).resize((size[1], size[0]), Image.Resampling.BILINEAR)) for one in maps]
    return np.stack(wide).astype(np.float32)


def _share(value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"discard={value!r}: must be at least 0 and below 1")


def _discarded(matrices: Array, share: float) -> Array:
    """The smallest entries of each matrix set to 0; the first column is kept, and does not count."""
    number = int(share * matrices.shape[-1] * (matrices.shape[-1] - 1))
    if number == 0:
        return matrices
    result = matrices.copy()
    rest = result[:, :, 1:].reshape(len(result), -1)
    order = np.argsort(rest, axis=1, kind="stable")[:, :number]
    np.put_along_axis(rest, order, 0.0, axis=1)
    result[:, :, 1:] = rest.reshape(len(result), matrices.shape[-1], -1)
    return np.asarray(result)


def _row_normalised(matrices: Array) -> Array:
    result: Array = matrices / matrices.sum(axis=-1, keepdims=True)
    return result
