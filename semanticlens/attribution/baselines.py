"""What relevance propagation is compared with: gradients, perturbations, and (in :mod:`.attention_maps`) attention.

=======================  ============================================================================================
method                   relevance of input i for the value f
=======================  ============================================================================================
gradient x input         ``x_i df/dx_i`` (Shrikumar et al. 2016)
integrated gradients     ``(x_i - x0_i) int_0^1 df/dx_i(x0 + a (x - x0)) da`` (Sundararajan et al. 2017)
SmoothGrad               mean over draws e of ``df/dx_i(x + e)`` (Smilkov et al. 2017); its squares, or their variance (Adebayo et al. 2018)
occlusion                mean of ``f(x) - f(x with a window filled)`` over the windows that cover i (Zeiler & Fergus 2014)
=======================  ============================================================================================

All run on the engine in batches of ``batch_size`` inputs, whatever the number of steps or draws, and their results do not depend on it but
for the rounding of the network itself. What they return can be judged by :func:`semanticlens.attribution.evaluate` as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, NumericalError
from semanticlens._kernels import resolve_threads
from semanticlens._progress import track
from semanticlens.nn.backward import cotangent
from semanticlens.nn.graph import INPUT
from semanticlens.nn.inputs import check_input

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["Baseline", "gradient_x_input", "integrated_gradients", "occlusion", "smooth_grad"]

Array = NDArray[Any]
F32 = NDArray[np.float32]
RULES = ("midpoint", "trapezoid")
KINDS = ("mean", "square", "variance")


@dataclass(frozen=True, repr=False, eq=False)
class Baseline:
    """A map that is not made by relevance propagation; ``np.asarray`` of it is the map.

    Attributes
    ----------
    method : str
    input : ndarray (B, ...)
        The map: in the shape of the network's input, or (B, H, W) where channels are not told apart.
    output : ndarray (B, Y)
        What the network said.
    start : ndarray (B, Y)
        Factors of the outputs: the value that is explained is ``sum of start output``.
    parameters : mapping
        All settings.
    gap : ndarray (B,), float64, or None
        For integrated gradients: what the map sums to, less the difference of the values at input and baseline.
    tokens : ndarray (B, T), or None
        For attention: the map by tokens, those in front of the picture's left out.
    net : Network, optional
    x : ndarray (B, ...), optional
    """

    method: str
    input: Array
    output: Array
    start: Array
    parameters: Mapping[str, Any]
    gap: Array | None = None
    tokens: Array | None = None
    net: Network | None = None
    x: Array | None = None
    arrays: Mapping[str, Array] = field(default_factory=dict)

    def heatmap(self, name: str = INPUT) -> Array:
        """The map (B, H, W), channels summed; or (B, T), features summed."""
        if name != INPUT:
            raise KeyError(f"{name!r} was not recorded: {self.method} explains the input only")
        if self.x is not None and self.input.ndim < self.x.ndim:
            return self.input
        if self.input.ndim < 3:
            raise ValueError(f"the map has shape {self.input.shape}: there is nothing to sum over")
        return np.asarray(self.input.sum(axis=1 if self.input.ndim == 4 else -1))

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """As :meth:`semanticlens.attribution.Attribution.plot`."""
        from semanticlens.plot import attribution

        return attribution.plot(self, ax, **options)  # type: ignore[arg-type]

    def save(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the picture that :meth:`plot` draws."""
        written: Path = self.plot(**options).save(path)
        return written

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The map."""
        return np.array(self.input, dtype=dtype, copy=True) if copy else np.asarray(self.input, dtype=dtype)

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={value!r}" for key, value in self.parameters.items())
        return f"Baseline({self.method}: {settings}; map {self.input.shape})"

    def _repr_png_(self) -> bytes:
        png: bytes = self.plot()._repr_png_()
        return png


# ---------------------------------------------------------------- gradients


def gradient_x_input(
    net: Network,
    x: ArrayLike,
    target: Any = None,
    *,
    batch_size: int = 32,
    n_threads: int | None = None,
    progress: bool = False,
) -> Baseline:
    """``x df/dx``.

    Parameters
    ----------
    net : Network
    x : array_like (B, ...), float32
    target : int, (B,) ints, or array (B, Y)
        The class, one per sample, or a factor for each output.
    batch_size : int
        Inputs that the network gets at a time.
    n_threads : int, optional
    progress : bool

    Returns
    -------
    Baseline

    Raises
    ------
    ValueError, TypeError
        For targets and inputs that do not fit.
    """
    case = _Case.of(net, x, target, batch_size, n_threads)
    grads = np.concatenate([g for _, g, _ in case.gradients(_alone(case), progress, "gradient")])
    return case.result("gradient x input", case.x * grads, {})


def integrated_gradients(
    net: Network,
    x: ArrayLike,
    target: Any = None,
    *,
    baseline: ArrayLike = 0.0,
    steps: int = 50,
    rule: str = "midpoint",
    batch_size: int = 32,
    n_threads: int | None = None,
    progress: bool = False,
) -> Baseline:
    """Gradients along the straight line from a baseline to the input.

    Parameters
    ----------
    net, x, target, batch_size, n_threads, progress
        As in :func:`gradient_x_input`.
    baseline : array_like
        Where the line begins, in the network's units: a number, or what broadcasts to ``x``.
    steps : int
        Gradients per sample; with rule="trapezoid" one more.
    rule : {"midpoint", "trapezoid"}
        Of integration.

    Returns
    -------
    Baseline
        ``gap`` says by how much the map's sum misses the difference of the values: more steps make it smaller.
    """
    if rule not in RULES:
        raise ValueError(f"rule={rule!r}: must be one of {', '.join(map(repr, RULES))}")
    _whole(steps, "steps")
    case = _Case.of(net, x, target, batch_size, n_threads)
    origin = _spread(baseline, case.x, "baseline")
    if rule == "midpoint":
        places, weights = (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    else:
        places, weights = np.arange(steps + 1) / steps, np.full(steps + 1, 1 / steps)
        weights[[0, -1]] /= 2
    along = case.x - origin

    def points() -> Iterator[tuple[int, int, F32]]:
        for i in range(len(case.x)):
            for j, a in enumerate(places):
                yield i, j, (origin[i] + np.float32(a) * along[i]).astype(np.float32)

    total = np.zeros(case.x.shape)
    for (owners, numbers), grads, _ in case.gradients(points(), progress, "integrated gradients", len(places)):
        for i, j, g in zip(owners, numbers, grads, strict=True):
            total[i] += weights[j] * g
    result = total * along
    before = np.concatenate(
        [net(origin[i : i + batch_size], n_threads=case.n_threads) for i in range(0, len(origin), batch_size)]
    )
    difference = (case.start * (case.output.astype(np.float64) - before)).reshape(len(before), -1).sum(axis=1)
    gap = result.reshape(len(result), -1).sum(axis=1) - difference
    shown = float(np.asarray(baseline)) if np.ndim(baseline) == 0 else f"array {np.shape(baseline)}"
    return case.result(
        "integrated gradients", result.astype(np.float32), {"baseline": shown, "steps": steps, "rule": rule}, gap=gap
    )


def smooth_grad(
    net: Network,
    x: ArrayLike,
    target: Any = None,
    *,
    noise: float = 0.15,
    n: int = 50,
    kind: str = "mean",
    times_input: bool = False,
    seed: int = 0,
    batch_size: int = 32,
    n_threads: int | None = None,
    progress: bool = False,
) -> Baseline:
    """Gradients at the input with noise added, averaged.

    Parameters
    ----------
    net, x, target, batch_size, n_threads, progress
        As in :func:`gradient_x_input`.
    noise : float
        Standard deviation of the Gaussian noise, over each sample's range of values.
    n : int
        Draws per sample.
    kind : {"mean", "square", "variance"}
        Of the gradients (SmoothGrad), of their squares (SmoothGrad-squared), or their variance over the draws (VarGrad, n - 1).
    times_input : bool
        Multiply by the input.
    seed : int
        The noise of a draw depends on it, on the sample's place and on the draw's number, and on nothing else.

    Returns
    -------
    Baseline
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: must be one of {', '.join(map(repr, KINDS))}")
    if not np.isfinite(noise) or noise < 0:
        raise ValueError(f"noise={noise!r}: must be a finite number of at least 0")
    _whole(n, "n", 2 if kind == "variance" else 1)
    case = _Case.of(net, x, target, batch_size, n_threads)
    flat = case.x.reshape(len(case.x), -1)
    level = noise * (flat.max(axis=1) - flat.min(axis=1)).astype(np.float64)

    def points() -> Iterator[tuple[int, int, F32]]:
        for i, one in enumerate(case.x):
            for draw in range(n):
                e = np.random.default_rng([seed, i, draw]).standard_normal(one.shape, np.float32)
                yield i, draw, one + np.float32(level[i]) * e

    sums, squares = np.zeros(case.x.shape), np.zeros(case.x.shape)
    for (owners, _), grads, _ in case.gradients(points(), progress, "smooth grad", n):
        for i, g in zip(owners, grads, strict=True):
            wide = g.astype(np.float64)
            sums[i] += wide
            if kind != "mean":
                squares[i] += wide * wide
    made = {"mean": sums / n, "square": squares / n}.get(kind)
    if made is None:
        made = np.maximum(squares - sums * sums / n, 0) / (n - 1)
    if times_input:
        made = made * case.x
    settings = {"noise": float(noise), "n": n, "kind": kind, "times_input": bool(times_input), "seed": seed}
    return case.result("SmoothGrad", made.astype(np.float32), settings)


# ---------------------------------------------------------------- perturbation


def occlusion(
    net: Network,
    x: ArrayLike,
    target: Any = None,
    *,
    window: int | tuple[int, int] = 16,
    stride: int | tuple[int, int] | None = None,
    fill: str | ArrayLike = 0.0,
    batch_size: int = 32,
    n_threads: int | None = None,
    progress: bool = False,
) -> Baseline:
    """Cover parts of pictures and see how far the value falls.

    Parameters
    ----------
    net, target, batch_size, n_threads, progress
        As in :func:`gradient_x_input`.
    x : array_like (B, C, H, W), float32
    window : int or (int, int)
        Height and width of what is covered.
    stride : int or (int, int), optional
        From window to window; half a window if left out. The last window ends at the border.
    fill : "mean", or array_like
        What is put there, in the network's units: each sample's mean by channel, a number, or what broadcasts to (B, C, H, W).

    Returns
    -------
    Baseline
        Its map is (B, H, W).
    """
    case = _Case.of(net, x, target, batch_size, n_threads)
    if case.x.ndim != 4:
        raise DataError(f"x has shape {case.x.shape}: windows are for pictures (B, C, H, W)")
    size = case.x.shape[2:]
    high = _pair(window, "window")
    step = tuple(max(1, side // 2) for side in high) if stride is None else _pair(stride, "stride")
    if any(w > s for w, s in zip(high, size, strict=True)):
        raise ValueError(f"window={window!r} is larger than the picture, {size[0]} x {size[1]}")
    if any(s > w for s, w in zip(step, high, strict=True)):
        raise ValueError(
            f"stride={stride!r} leaves gaps between windows of {high[0]} x {high[1]}: make it at most that"
        )
    if isinstance(fill, str):
        if fill != "mean":
            raise ValueError(f"fill={fill!r}: must be 'mean', a number or an array")
        put = np.broadcast_to(
            case.x.mean(axis=(2, 3), keepdims=True, dtype=np.float64).astype(np.float32), case.x.shape
        )
    else:
        put = _spread(fill, case.x, "fill")
    corners = [_places(s, w, t) for s, w, t in zip(size, high, step, strict=True)]
    windows = [(slice(a, a + high[0]), slice(b, b + high[1])) for a in corners[0] for b in corners[1]]

    def points() -> Iterator[tuple[int, int, F32]]:
        for i, one in enumerate(case.x):
            for j, (rows, columns) in enumerate(windows):
                covered = one.copy()
                covered[:, rows, columns] = put[i][:, rows, columns]
                yield i, j, covered

    falls, count = np.zeros((len(case.x), *size)), np.zeros(size)
    for rows, columns in windows:
        count[rows, columns] += 1
    whole = case.values(case.output, range(len(case.x)))
    for owners, numbers, batch in case.batches(points(), progress, "occlusion", len(windows)):
        after = case.values(net(batch, n_threads=case.n_threads), owners)
        for i, j, value in zip(owners, numbers, after, strict=True):
            rows, columns = windows[j]
            falls[i, rows, columns] += whole[i] - value
    shown = (
        fill if isinstance(fill, str) else float(np.asarray(fill)) if np.ndim(fill) == 0 else f"array {np.shape(fill)}"
    )
    return case.result("occlusion", (falls / count).astype(np.float32), {"window": high, "stride": step, "fill": shown})


def _places(size: int, window: int, step: int) -> list[int]:
    return [*range(0, size - window, step), size - window]


# ---------------------------------------------------------------- what they share


@dataclass(frozen=True)
class _Case:
    """Checked inputs with what the network says and the factors of its outputs."""

    net: Network
    x: F32
    output: F32
    start: Array
    batch_size: int
    n_threads: int

    @classmethod
    def of(cls, net: Network, x: ArrayLike, target: Any, batch_size: int, n_threads: int | None) -> _Case:
        _whole(batch_size, "batch_size")
        if callable(target):
            raise TypeError(
                "target must be class numbers or a factor for each output, not a function: these methods explain one value"
            )
        inputs, threads = check_input(net, x), resolve_threads(n_threads)
        output = np.concatenate(
            [net(inputs[i : i + batch_size], n_threads=threads) for i in range(0, len(inputs), batch_size)]
        )
        return cls(net, inputs, output, cotangent(target, output), batch_size, threads)

    def batches(
        self, points: Iterator[tuple[int, int, F32]], progress: bool, what: str, each: int = 1
    ) -> Iterator[tuple[list[int], list[int], F32]]:
        """(samples, numbers, inputs) of points, a batch at a time."""
        held: list[tuple[int, int, F32]] = []
        for point in track(points, progress=progress, total=len(self.x) * each, what=what, unit="input"):
            held.append(point)
            if len(held) == self.batch_size:
                yield [h[0] for h in held], [h[1] for h in held], np.stack([h[2] for h in held])
                held = []
        if held:
            yield [h[0] for h in held], [h[1] for h in held], np.stack([h[2] for h in held])

    def gradients(
        self, points: Iterator[tuple[int, int, F32]], progress: bool, what: str, each: int = 1
    ) -> Iterator[tuple[tuple[list[int], list[int]], Array, Array]]:
        """((samples, numbers), gradients by the input, values) of points, a batch at a time."""
        for owners, numbers, batch in self.batches(points, progress, what, each):
            found = self.net.gradient(batch, self.start[owners], n_threads=self.n_threads)
            if not np.isfinite(found[INPUT]).all():
                raise NumericalError(f"{what}: the gradient of sample {owners[0]} or one after it is NaN or infinite")
            yield (owners, numbers), found[INPUT], found.value

    def values(self, output: Array, owners: Sequence[int]) -> Array:
        """(B,): the value that is explained, in double."""
        factors = self.start[np.asarray(owners, np.intp)].astype(np.float64)
        return np.asarray((factors * output).reshape(len(output), -1).sum(axis=1))

    def result(self, method: str, values: Array, parameters: Mapping[str, Any], **more: Any) -> Baseline:
        """Checked, with all that plots need."""
        if not np.isfinite(values).all():
            raise NumericalError(f"{method}: the map holds NaN or infinity")
        return Baseline(method, values, self.output, self.start, dict(parameters), net=self.net, x=self.x, **more)


def _alone(case: _Case) -> Iterator[tuple[int, int, F32]]:
    return ((i, 0, one) for i, one in enumerate(case.x))


def _spread(given: ArrayLike, x: F32, what: str) -> F32:
    try:
        array = np.broadcast_to(np.asarray(given, np.float32), x.shape)
    except (TypeError, ValueError):
        raise ValueError(f"{what} of shape {np.shape(given)} does not broadcast to the input's {x.shape}") from None
    if not np.isfinite(array).all():
        raise ValueError(f"{what} holds NaN or infinite values")
    return np.ascontiguousarray(array)


def _whole(value: Any, what: str, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{what}={value!r}: must be a whole number of at least {least}")
    return int(value)


def _pair(value: Any, what: str) -> tuple[int, int]:
    both = (value, value) if isinstance(value, (int, np.integer)) else tuple(value)
    if len(both) != 2:
        raise ValueError(f"{what}={value!r}: must be a number or (height, width)")
    return _whole(both[0], what), _whole(both[1], what)
