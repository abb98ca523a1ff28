"""Maps on somebody's own axes. Whoever has axes has matplotlib: nothing else of this package imports it, and pyplot never."""

from __future__ import annotations

from typing import Any

import numpy as np

from semanticlens.plot._drawing import check_axes
from semanticlens.plot._heat import F64, ColourMap, heat_colours, heat_limit, overlay, two_sided

__all__ = ["heat_on"]

LINE = "#d5dade"
LEVELS = 511  # colours of a map: an odd number, so that 0 has one of its own


def heat_on(
    ax: Any,
    values: F64,
    *,
    picture: Any = None,
    percentile: float = 99.5,
    cmap: ColourMap = "bwr",
    symmetric: bool | None = None,
    limit: float | None = None,
    title: str = "",
    bar: bool = False,
) -> Any:
    """One map (H, W) on axes, over a picture if there is one; ``bar`` puts a colour bar beside it. The axes are returned."""
    from matplotlib.colors import ListedColormap

    both = two_sided(cmap, symmetric)
    top = heat_limit(values, percentile, two_sided=both) if limit is None else limit
    edge = top or 1.0
    levels = np.linspace(-1, 1, LEVELS) if both else np.linspace(0, 1, LEVELS)
    colours = ListedColormap(heat_colours(levels, cmap=cmap, symmetric=symmetric, limit=1.0) / 255)
    image = check_axes(ax).imshow(values, cmap=colours, vmin=-edge if both else 0.0, vmax=edge, interpolation="nearest")
    if picture is not None:
        laid = overlay(picture, values, cmap=cmap, symmetric=symmetric, limit=top)
        ax.imshow(np.asarray(laid), extent=image.get_extent())
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_color(LINE)
    if title:
        ax.set_title(title)
    if bar:
        ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.04)
    return ax
