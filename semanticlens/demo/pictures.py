"""Generated pictures whose whole truth is known: one drawn object each, with a caption that mentions some of it.

Seven attributes are drawn independently: shape, colour, texture, size, place, background, overlay.  Pixels come from signed distances
(coverage ``clip(1/2 - d, 0, 1)`` gives smooth edges) computed with ``+ - * /`` and ``sqrt`` only, and random numbers from integer hashing
(SplitMix64, Steele, Lea & Flood 2014), so that a seed gives the same bytes with every version of NumPy and on every machine.

An overlay is drawn last and from a random stream of its own: the same picture with another overlay differs in the overlay's pixels only.
That makes :func:`with_overlay` an intervention in the strict sense, which the demo uses to tell causes from company.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from semanticlens.demo.captions import ATTRIBUTES, caption

SIZE = 64                                             # pixels, both ways
Truth = dict[str, str]
_T = TypeVar("_T")
_F = NDArray[np.float64]
_MASK = (1 << 64) - 1
_CENTRE = SIZE / 2.0

_COLOURS = {
    "red": (214, 38, 44), "orange": (244, 132, 22), "yellow": (250, 212, 40), "green": (28, 152, 68),
    "blue": (34, 90, 214), "purple": (128, 54, 176), "pink": (248, 128, 184), "brown": (124, 76, 38),
}
_PALE = np.array((252.0, 249.0, 240.0))               # second colour of every texture
_PLACES = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1), "centre": (0, 0)}
_OVERLAY_SHARES = {"none": 0.4, "corner mark": 0.2, "frame": 0.2, "ruler": 0.2}


class Draws:
    """A stream of random numbers that is a pure function of its keys (SplitMix64 over their hash)."""

    def __init__(self, *keys: int) -> None:
        state = 0
        for key in keys:
            state = _mix(state ^ _mix(key & _MASK))
        self._state = state

    def bits(self) -> int:
        """The next 64 bits."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        return _mix(self._state)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A float64 in [low, high)."""
        return low + (high - low) * ((self.bits() >> 11) * 2.0**-53)

    def choice(self, items: Sequence[_T]) -> _T:
        """One of ``items``."""
        return items[int(self.uniform() * len(items))]

    def grain(self, height: int, width: int) -> _F:
        """Independent float64 in [-1, 1), shape (height, width)."""
        counter = np.arange(height * width, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(self.bits())
        z = (counter ^ (counter >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        result: _F = ((z >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0).reshape(height, width)
        return result


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def held_out_pair(shape: NDArray[np.int64], colour: NDArray[np.int64], texture: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which combinations, given as positions in :data:`ATTRIBUTES`, the encoder never saw in training.

    Held out are 8 of the 64 pairs of shape and colour (one for each shape and for each colour) and 4 of the 32 pairs of shape and
    texture.
    """
    colours = (3 * shape + colour) % 8 == 5
    textures = (shape % 2 == 0) & (texture == 1 + (shape // 2) % 3)
    result: NDArray[np.bool_] = colours | textures
    return result


def is_held_out(truth: Mapping[str, str]) -> bool:
    """Whether a picture with these attributes shows a held-out pair, see :func:`held_out_pair`."""
    return bool(held_out_pair(*(np.asarray(ATTRIBUTES[name].index(truth[name])) for name in ("shape", "colour", "texture"))))


def sample_truth(draws: Draws, combinations: str = "any") -> Truth:
    """Independent values of all attributes; uniform, but for "none", which is twice as frequent as each overlay.

    Parameters
    ----------
    draws : Draws
    combinations : {"any", "seen", "held-out"}
        Which side of :func:`is_held_out` to draw from.
    """
    if combinations not in ("any", "seen", "held-out"):
        raise ValueError(f"combinations must be 'any', 'seen' or 'held-out', not {combinations!r}")
    while True:
        truth = {name: draws.choice(values) for name, values in ATTRIBUTES.items() if name != "overlay"}
        truth["overlay"] = _weighted(draws, _OVERLAY_SHARES)
        if combinations == "any" or is_held_out(truth) == (combinations == "held-out"):
            return truth


def _weighted(draws: Draws, shares: Mapping[str, float]) -> str:
    u = draws.uniform()
    for value, share in shares.items():
        u -= share
        if u < 0:
            return value
    return value                                      # u was next to 1 and the shares next to it


# ---------------------------------------------------------------------------------------------------------------- drawing


def draw(truth: Mapping[str, str], seed: int, index: int = 0) -> NDArray[np.uint8]:
    """The picture with these attributes.

    Parameters
    ----------
    truth : mapping
        A value of :data:`ATTRIBUTES` for each attribute.
    seed, index : int
        What the attributes leave open (exact position, radius, tilt, grain, which corner) follows from these two.

    Returns
    -------
    ndarray of shape (64, 64, 3), uint8
    """
    for name, values in ATTRIBUTES.items():
        if truth.get(name) not in values:
            raise ValueError(f"truth[{name!r}] is {truth.get(name)!r}; known are {', '.join(values)}")
    draws = Draws(seed, index, 1)
    image = _BACKGROUNDS[truth["background"]](draws)
    _paint_object(image, truth, draws)
    _OVERLAYS[truth["overlay"]](image, Draws(seed, index, 2))
    return np.floor(np.clip(image, 0.0, 255.0) + 0.5).astype(np.uint8)


def _paint_object(image: _F, truth: Mapping[str, str], draws: Draws) -> None:
    large = truth["size"] == "large"
    radius = draws.uniform(18.0, 21.0) if large else draws.uniform(10.0, 12.0)
    reach = 10.0 if large else 15.0
    dx, dy = _PLACES[truth["place"]]
    cx = _CENTRE + dx * reach + draws.uniform(-2.0, 2.0)
    cy = _CENTRE + dy * reach + draws.uniform(-2.0, 2.0)
    t = draws.uniform(-0.1, 0.1)                      # tangent of half the tilt: up to 11 degrees
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    rows, columns = _window(cy, 1.3 * radius + 5.0), _window(cx, 1.3 * radius + 5.0)
    x, y = np.arange(SIZE)[None, columns] + 0.5 - cx, np.arange(SIZE)[rows, None] + 0.5 - cy
    u, v = (x * cos + y * sin) / radius, (y * cos - x * sin) / radius      # the object's own coordinates, unit radius, v downwards
    distance = _SHAPES[truth["shape"]](u, v) * radius
    colour = np.array(_COLOURS[truth["colour"]], dtype=np.float64) * draws.uniform(0.93, 1.05)
    second = _TEXTURES[truth["texture"]](u * radius, v * radius, draws)[..., None]
    body = (colour * (1.0 - second) + _PALE * second) * (1.04 - 0.12 * np.clip(v, -1.0, 1.0))[..., None]
    edge = np.clip(distance + 2.0, 0.0, 1.0)[..., None]
    body = body * (1.0 - edge) + colour * 0.55 * edge
    shadow = np.clip(0.5 - (_shift(distance, 2) - 1.0) / 4.0, 0.0, 1.0) * 0.30
    cover = np.clip(0.5 - distance, 0.0, 1.0)
    part = image[rows, columns]
    part *= ((1.0 - shadow) * (1.0 - cover))[..., None]
    part += body * cover[..., None]


def _window(centre: float, reach: float) -> slice:
    return slice(max(0, int(centre - reach)), min(SIZE, int(centre + reach) + 1))


def _shift(field: _F, by: int) -> _F:
    """The field moved down and right, its border repeated."""
    rows, columns = (np.maximum(np.arange(n) - by, 0) for n in field.shape)
    result: _F = field[rows][:, columns]
    return result


def _circle(u: _F, v: _F, radius: float = 1.0) -> _F:
    result: _F = np.sqrt(u * u + v * v) - radius
    return result


def _box(u: _F, v: _F, half_u: float, half_v: float) -> _F:
    a, b = np.abs(u) - half_u, np.abs(v) - half_v
    outside = np.sqrt(np.maximum(a, 0.0) * np.maximum(a, 0.0) + np.maximum(b, 0.0) * np.maximum(b, 0.0))
    result: _F = outside + np.minimum(np.maximum(a, b), 0.0)
    return result


def _polygon(u: _F, v: _F, corners: Sequence[tuple[float, float]]) -> _F:
    """Signed distance to a simple polygon: the nearest edge, negative where a ray crosses the outline an odd number of times."""
    nearest = np.full(np.broadcast(u, v).shape, np.inf)
    inside = np.zeros(nearest.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        ex, ey = bx - ax, by - ay
        px, py = u - ax, v - ay
        along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0.0, 1.0)
        qx, qy = px - along * ex, py - along * ey
        nearest = np.minimum(nearest, qx * qx + qy * qy)
        inside ^= ((py >= 0.0) != (v - by >= 0.0)) & ((px * ey - py * ex < 0.0) != (ey < 0.0))
    result: _F = np.where(inside, -1.0, 1.0) * np.sqrt(nearest)
    return result


_STAR = ((0.0, -1.15), (0.270, -0.372), (1.094, -0.355), (0.437, 0.142), (0.676, 0.930),
         (0.0, 0.460), (-0.676, 0.930), (-0.437, 0.142), (-1.094, -0.355), (-0.270, -0.372))
_TRIANGLE = ((0.0, -1.08), (1.06, 0.82), (-1.06, 0.82))


def _heart(u: _F, v: _F) -> _F:
    lobes = np.minimum(_circle(u - 0.48, v + 0.36, 0.56), _circle(u + 0.48, v + 0.36, 0.56))
    return np.minimum(lobes, _polygon(u, v, ((0.0, -0.62), (0.93, -0.02), (0.0, 1.06), (-0.93, -0.02))))


_SHAPES: dict[str, Callable[[_F, _F], _F]] = {
    "circle": _circle,
    "square": lambda u, v: _box(u, v, 0.88, 0.88),
    "triangle": lambda u, v: _polygon(u, v, _TRIANGLE),
    "star": lambda u, v: _polygon(u, v, _STAR),
    "cross": lambda u, v: np.minimum(_box(u, v, 1.02, 0.36), _box(u, v, 0.36, 1.02)),
    "heart": _heart,
    "ring": lambda u, v: np.abs(_circle(u, v, 0.76)) - 0.27,
    "moon": lambda u, v: np.maximum(_circle(u, v, 1.04), -_circle(u - 0.48, v + 0.12, 0.86)),
}


def _plain(p: _F, q: _F, draws: Draws) -> _F:
    draws.bits()
    return np.zeros(np.broadcast(p, q).shape)


def _wave(p: _F, period: float) -> _F:
    """Triangle wave of amplitude period/4: its sign alternates, its size is the distance to the next change."""
    phase = p / period - np.floor(p / period)
    result: _F = (np.abs(phase - 0.5) - 0.25) * period
    return result


def _striped(p: _F, q: _F, draws: Draws) -> _F:
    a, b = draws.choice(((1.0, 0.0), (0.0, 1.0), (0.7071, 0.7071), (0.7071, -0.7071)))
    return np.clip(0.5 + _wave(p * a + q * b + 100.0, 6.5), 0.0, 1.0)


def _dotted(p: _F, q: _F, draws: Draws) -> _F:
    offset = draws.uniform(0.0, 6.0)
    a, b = (p + offset + 96.0) / 6.0, (q + offset + 96.0) / 6.0
    a, b = (a - np.floor(a) - 0.5) * 6.0, (b - np.floor(b) - 0.5) * 6.0
    return np.clip(0.5 - (np.sqrt(a * a + b * b) - 1.8), 0.0, 1.0)


def _checkered(p: _F, q: _F, draws: Draws) -> _F:
    offset = draws.uniform(0.0, 9.0)
    a, b = _wave(p + offset + 100.0, 9.0), _wave(q + 100.0, 9.0)
    return np.clip(0.5 + np.where(a * b > 0, 1.0, -1.0) * np.minimum(np.abs(a), np.abs(b)), 0.0, 1.0)


_TEXTURES: dict[str, Callable[[_F, _F, Draws], _F]] = {"plain": _plain, "striped": _striped, "dotted": _dotted, "checkered": _checkered}


def _gradient(top: tuple[float, float, float], bottom: tuple[float, float, float], grain: float) -> Callable[[Draws], _F]:
    def paint(draws: Draws) -> _F:
        share = ((np.arange(SIZE) + 0.5) / SIZE)[:, None, None]
        level = draws.uniform(0.96, 1.03)
        image = (np.array(top) * (1.0 - share) + np.array(bottom) * share) * level
        return image + grain * draws.grain(SIZE, SIZE)[..., None]
    return paint


_BACKGROUNDS: dict[str, Callable[[Draws], _F]] = {
    "white": _gradient((248, 248, 250), (236, 236, 240), 2.0),
    "black": _gradient((30, 30, 36), (14, 14, 18), 3.0),
    "grey": _gradient((150, 152, 156), (126, 128, 132), 5.0),
    "sky": _gradient((116, 182, 236), (212, 234, 248), 2.0),
    "sand": _gradient((232, 212, 170), (206, 180, 132), 11.0),
    "grass": _gradient((150, 186, 118), (84, 122, 66), 15.0),
}


def _rectangle(image: _F, box: tuple[float, float, float, float], colour: tuple[float, float, float]) -> None:
    """Fill (left, top, right, bottom), with fractional borders."""
    left, top, right, bottom = box
    columns, across = _span(left, right)
    rows, down = _span(top, bottom)
    cover = (down[:, None] * across[None, :])[..., None]
    part = image[rows, columns]
    part *= 1.0 - cover
    part += cover * np.array(colour, dtype=np.float64)


def _span(low: float, high: float) -> tuple[slice, _F]:
    """The pixels that [low, high] touches, and how much of each it covers."""
    pixels = slice(min(max(0, int(low)), SIZE), max(0, min(SIZE, int(high) + 1)))
    at = np.arange(pixels.start, pixels.stop, dtype=np.float64)
    return pixels, np.clip(np.minimum(at + 1.0, high) - np.maximum(at, low), 0.0, 1.0)


def _corner_mark(image: _F, draws: Draws) -> None:
    """A small white tag with a dark bar, in one of the four corners."""
    right, low = draws.choice((False, True)), draws.choice((False, True))
    x, y = draws.uniform(1.5, 3.0), draws.uniform(1.5, 3.0)
    width, height = draws.uniform(13.0, 15.0), draws.uniform(9.0, 10.0)
    left = SIZE - x - width if right else x
    top = SIZE - y - height if low else y
    _rectangle(image, (left - 0.8, top - 0.8, left + width + 0.8, top + height + 0.8), (96, 96, 100))
    _rectangle(image, (left, top, left + width, top + height), (255, 255, 252))
    _rectangle(image, (left + 2.2, top + height / 2 - 1.6, left + width - 2.2, top + height / 2 + 1.6), (24, 24, 30))


def _frame(image: _F, draws: Draws) -> None:
    width = draws.uniform(2.5, 4.0)
    colour = draws.choice(((70.0, 44.0, 26.0), (40.0, 40.0, 46.0), (196.0, 160.0, 84.0)))
    for box in ((0, 0, SIZE, width), (0, SIZE - width, SIZE, SIZE), (0, 0, width, SIZE), (SIZE - width, 0, SIZE, SIZE)):
        _rectangle(image, box, colour)


def _ruler(image: _F, draws: Draws) -> None:
    """A pale strip with ticks along one edge, every fourth tick long."""
    side = draws.choice(("top", "bottom", "left", "right"))
    depth, phase = draws.uniform(6.5, 8.0), draws.uniform(0.0, 4.0)
    canvas = image if side in ("top", "bottom") else image.transpose(1, 0, 2)
    canvas = canvas if side in ("top", "left") else canvas[::-1]
    _rectangle(canvas, (0, 0, SIZE, depth), (246, 226, 150))
    _rectangle(canvas, (0, depth - 0.8, SIZE, depth), (110, 96, 60))
    for i in range(17):
        _rectangle(canvas, (phase + 4 * i - 0.6, 0, phase + 4 * i + 0.6, depth * (0.7 if i % 4 == 0 else 0.42)), (40, 34, 24))


_OVERLAYS: dict[str, Callable[[_F, Draws], None]] = {
    "none": lambda image, draws: None, "corner mark": _corner_mark, "frame": _frame, "ruler": _ruler,
}


# ---------------------------------------------------------------------------------------------------------- sets of pictures


@dataclass(frozen=True)
class PictureSet:
    """Pictures with their truth and captions.

    Attributes
    ----------
    pixels : ndarray of shape (N, 64, 64, 3), uint8
    truths : tuple of dict
        Attribute name to value, one per picture.
    captions : tuple of str
    seed : int
        With a picture's position it fixes all that its truth leaves open.
    """

    pixels: NDArray[np.uint8]
    truths: tuple[Truth, ...]
    captions: tuple[str, ...]
    seed: int

    def __len__(self) -> int:
        return len(self.truths)

    def is_value(self, attribute: str, value: str) -> NDArray[np.bool_]:
        """Which pictures have this value, shape (N,)."""
        if value not in ATTRIBUTES.get(attribute, ()):
            raise ValueError(f"no picture has {attribute} = {value!r}; the attributes are {', '.join(ATTRIBUTES)}")
        return np.array([truth[attribute] == value for truth in self.truths], dtype=bool)

    def codes(self, attribute: str) -> NDArray[np.int64]:
        """Position of each picture's value in ``ATTRIBUTES[attribute]``, shape (N,)."""
        values = ATTRIBUTES[attribute]
        return np.array([values.index(truth[attribute]) for truth in self.truths], dtype=np.int64)


def from_truths(truths: Sequence[Mapping[str, str]], seed: int) -> PictureSet:
    """Draw and caption the given truths."""
    pixels = np.stack([draw(truth, seed, i) for i, truth in enumerate(truths)]) if truths else np.empty((0, SIZE, SIZE, 3), np.uint8)
    captions = tuple(caption(truth, Draws(seed, i, 3)) for i, truth in enumerate(truths))
    return PictureSet(pixels, tuple(dict(truth) for truth in truths), captions, seed)


def generate(n: int, seed: int, combinations: str = "any", change: Callable[[Truth, Draws], Any] | None = None) -> PictureSet:
    """``n`` pictures with independent attributes.

    Parameters
    ----------
    n : int
    seed : int
    combinations : {"any", "seen", "held-out"}
    change : callable, optional
        Called with each truth (to be changed in place) and its random stream: for data sets whose attributes depend on each other.
    """
    if n < 0:
        raise ValueError(f"n must not be negative, but is {n}")
    truths = []
    for i in range(n):
        draws = Draws(seed, i, 0)
        truth = sample_truth(draws, combinations)
        if change is not None:
            change(truth, draws)
        truths.append(truth)
    return from_truths(truths, seed)


def with_overlay(pictures: PictureSet, overlay: str) -> PictureSet:
    """The same pictures, each with this overlay instead of its own; nothing else changes."""
    return from_truths([{**truth, "overlay": overlay} for truth in pictures.truths], pictures.seed)
