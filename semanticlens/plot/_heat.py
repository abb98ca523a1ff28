"""Relevance as colours: the field's usual colour maps, with zero always in one place, and pictures under a map."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

__all__ = ["COLOUR_MAPS", "as_picture", "enlarged", "heat_colours", "heat_limit", "overlay", "stops", "two_sided"]

F64 = NDArray[np.float64]
RGB = NDArray[np.uint8]

COLOUR_MAPS: dict[str, tuple[str, ...]] = {
    "bwr": ("#0000ff", "#ffffff", "#ff0000"),
    "seismic": ("#00004c", "#0000ff", "#ffffff", "#ff0000", "#800000"),
    "coldnhot": ("#00ffff", "#0000ff", "#000000", "#ff0000", "#ffff00"),
    "hot": ("#000000", "#ff0000", "#ffff00", "#ffffff"),
    "reds": ("#ffffff", "#ff0000"),
    "grey": ("#000000", "#ffffff"),
}
"""Colours at equal steps. The first three have 0 in their middle, the others at their beginning."""
DIVERGING = frozenset({"bwr", "seismic", "coldnhot"})
ColourMap = str | Sequence[str]


def stops(cmap: ColourMap) -> F64:
    """(n, 3) colours of a map, in 0 to 255.

    Raises
    ------
    ValueError
        If there is no map of that name, or a colour is not written ``#rrggbb``.
    """
    if isinstance(cmap, str):
        if cmap not in COLOUR_MAPS:
            raise ValueError(f"cmap={cmap!r}: must be one of {', '.join(COLOUR_MAPS)}, or a sequence of colours '#rrggbb'")
        cmap = COLOUR_MAPS[cmap]
    if len(cmap) < 2:
        raise ValueError(f"cmap has {len(cmap)} colours: it needs at least 2")
    try:
        if any(len(colour) != 7 or colour[0] != "#" for colour in cmap):
            raise ValueError
        return np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in cmap], np.float64)
    except (ValueError, TypeError):
        raise ValueError(f"cmap={cmap!r}: colours must be written '#rrggbb'") from None


def two_sided(cmap: ColourMap, symmetric: bool | None) -> bool:
    """Whether values of both signs get colours: as asked, else what the map is made for (a sequence of colours: both signs).

    Raises
    ------
    ValueError
        If both signs are asked for in a map that begins at 0.
    """
    diverging = not isinstance(cmap, str) or cmap in DIVERGING
    if symmetric is None:
        return diverging
    if symmetric and not diverging:
        raise ValueError(
            f"symmetric=True, but 0 is at the beginning of cmap={cmap!r}: take one of {', '.join(sorted(DIVERGING))}"
        )
    return bool(symmetric)


def finite(r: ArrayLike, argument: str = "r") -> F64:
    """As float64; an error that says where, if a value is NaN or infinite."""
    values = np.asarray(r)
    if values.dtype.kind not in "fiub":
        raise TypeError(f"{argument} must hold real numbers, not {values.dtype}")
    values = values.astype(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{argument} holds {int(bad.sum())} NaN or infinite values, the first at {first}: no colour is right for "
            "them; find out where they come from (r.ledger()), or replace them"
        )
    return values


def heat_limit(r: ArrayLike, percentile: float = 99.5, *, two_sided: bool = True) -> float:
    """The value that gets the outermost colour: a percentile of ``|r|``, or of ``max(r, 0)`` where only one side is drawn.

    Where that percentile is 0 (few values differ from 0) it is the largest; where all are 0 it is 0.
    """
    if not (isinstance(percentile, numbers.Real) and 0 < percentile <= 100):
        raise ValueError(f"percentile={percentile!r}: must be above 0 and at most 100")
    values = finite(r)
    sizes = np.abs(values) if two_sided else np.maximum(values, 0)
    if sizes.size == 0:
        raise ValueError(f"r of shape {values.shape} is empty: there is nothing to draw")
    return float(np.percentile(sizes, percentile)) or float(sizes.max())


def heat_colours(
    r: ArrayLike,
    percentile: float = 99.5,
    cmap: ColourMap = "bwr",
    symmetric: bool | None = None,
    *,
    limit: float | None = None,
) -> RGB:
    """Colours of relevance.

    The value v is drawn at ``t = clip(v / limit, -1, 1)`` of a map with 0 in its middle, or at ``clip(v / limit, 0, 1)`` of one that
    begins at 0; colours between two stops are mixed linearly and rounded to the nearest, halves up. 0 has the same colour in every
    picture drawn with a map.

    Parameters
    ----------
    r : array_like (...)
        Drawn with one scale.
    percentile : float
        Of ``|r|`` (of ``max(r, 0)`` for one side): what lies beyond is drawn in the outermost colour.
    cmap : str or sequence of str
        ``"bwr"``, ``"seismic"``, ``"coldnhot"`` (both signs); ``"hot"``, ``"reds"``, ``"grey"`` (positive values; negative ones look
        like 0); or colours ``"#rrggbb"`` at equal steps.
    symmetric : bool, optional
        Draw both signs; left out, what the map is made for. False with a map for both signs takes its upper half.
    limit : float, optional
        The value of the outermost colour, instead of the percentile's: for pictures that share a scale.

    Returns
    -------
    ndarray (..., 3), uint8

    Raises
    ------
    ValueError
        For NaN and infinite values, and arguments that do not fit.
    """
    values = finite(r)
    both = two_sided(cmap, symmetric)
    colours = stops(cmap)
    if limit is None:
        limit = heat_limit(values, percentile, two_sided=both) if values.size else 0.0
    elif not (isinstance(limit, numbers.Real) and math.isfinite(limit) and limit >= 0):
        raise ValueError(f"limit={limit!r}: must be a finite number of at least 0")
    # a limit may be so small that a quotient overflows: clip before dividing
    place = np.zeros_like(values) if limit == 0 else np.clip(values, -limit, limit) / limit
    diverging = not isinstance(cmap, str) or cmap in DIVERGING
    place = np.clip(place, -1.0 if both else 0.0, 1.0)
    place = 0.5 + 0.5 * place if diverging else place
    at = np.linspace(0, 1, len(colours))
    mixed = np.stack([np.interp(place, at, colours[:, c]) for c in range(3)], axis=-1)
    return np.floor(mixed + 0.5).astype(np.uint8)


def as_picture(picture: Any, argument: str = "picture") -> Image.Image:
    """A PIL image, or a uint8 array (H, W, 3), (H, W, 1) or (H, W), as an RGB image.

    Raises
    ------
    TypeError, ValueError
        For anything else: floating-point arrays do not say which number is white.
    """
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    pixels = np.asarray(picture)
    if pixels.dtype != np.uint8:
        raise TypeError(
            f"{argument} must be a PIL image or a uint8 array (H, W, 3) or (H, W), not {pixels.dtype} of shape {pixels.shape}"
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)) or 0 in pixels.shape:
        raise ValueError(f"{argument} has shape {pixels.shape}: must be (H, W, 3) or (H, W)")
    return Image.fromarray(pixels).convert("RGB")


def enlarged(picture: Image.Image, width: int, height: int) -> Image.Image:
    """A picture of a map in another size: enlarged pixels stay squares, reduced ones are averaged."""
    if (width, height) == picture.size:
        return picture
    grows = width >= picture.width and height >= picture.height
    return picture.resize((width, height), Image.Resampling.NEAREST if grows else Image.Resampling.BOX)


def overlay(
    picture: Any,
    r: ArrayLike,
    *,
    alpha: float = 0.85,
    fade: bool = True,
    grey: bool = True,
    percentile: float = 99.5,
    cmap: ColourMap = "bwr",
    symmetric: bool | None = None,
    limit: float | None = None,
) -> Image.Image:
    """A map of relevance laid on the picture that it explains.

    Parameters
    ----------
    picture : PIL image or uint8 array (H, W, 3) or (H, W)
    r : array_like (h, w)
        Brought to the picture's size, bilinearly where the sizes differ.
    alpha : float
        Opacity of the map, 0 to 1.
    fade : bool
        Opacity grows with ``|r|``, and colours come from the outer half of the map, so that the picture is seen where there is no
        relevance; else opacity is the same everywhere.
    grey : bool
        Show the picture in pale grey, so that only relevance has colours.
    percentile, cmap, symmetric, limit
        As in :func:`heat_colours`.

    Returns
    -------
    PIL.Image.Image
        RGB, of the picture's size.
    """
    if not (isinstance(alpha, numbers.Real) and 0 <= alpha <= 1):
        raise ValueError(f"alpha={alpha!r}: must be between 0 and 1")
    values = finite(r)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"r has shape {values.shape}: a map (H, W) is laid on a picture")
    under = as_picture(picture)
    both = two_sided(cmap, symmetric)
    top = heat_limit(values, percentile, two_sided=both) if limit is None else limit
    if values.shape != (under.height, under.width):
        small = Image.fromarray((values / (top or 1.0)).astype(np.float32))
        values = np.asarray(small.resize(under.size, Image.Resampling.BILINEAR), np.float64) * (top or 1.0)
    ground = np.asarray(under, np.float64)
    if grey:
        ground = 0.65 * np.asarray(under.convert("L"), np.float64)[..., None].repeat(3, axis=2) + 0.35 * 255
    place = np.zeros_like(values) if top == 0 else np.clip(values, -top if both else 0, top) / top
    share = np.full(values.shape, float(alpha))
    if fade:  # what is faint keeps its hue: the outer half of the map's colours
        share *= np.abs(place)
        place = np.sign(place) * (0.5 + 0.5 * np.abs(place))
    colours = heat_colours(place, cmap=cmap, symmetric=symmetric, limit=1.0).astype(np.float64)
    mixed = ground + share[..., None] * (colours - ground)
    return Image.fromarray(np.floor(np.clip(mixed, 0, 255) + 0.5).astype(np.uint8))
