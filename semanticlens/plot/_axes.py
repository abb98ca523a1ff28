"""Maps on somebody's own axes. Whoever has axes has matplotlib: nothing else of this package imports it, and pyplot never."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from semanticlens.plot._drawing import check_axes
from semanticlens.plot._heat import F64, ColourMap, heat_colours, heat_limit, overlay, two_sided

__all__ = ["heat_on", "map_on"]

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


def map_on(
    ax: Any,
    places: Any,
    colours: F64,
    names: Sequence[tuple[str, float, float, int]],
    fitted: Callable[..., Any],
    *,
    key: Sequence[tuple[str, Any]],
    bar: tuple[F64, float, float] | None,
    title: str,
) -> Any:
    """Dots on axes with names among them, and a key of kinds or a colour bar; ``fitted`` says where names find room. Returns the axes."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.patheffects import withStroke

    check_axes(ax).scatter(places[:, 0], places[:, 1], s=min(24.0, max(2.0, 3000 / len(places))), c=colours, linewidths=0)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)
    if bar is None:
        for name, colour in key:
            ax.scatter([], [], s=24, color=[colour], label=name, linewidths=0)
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=min(4, len(key)), title=title)
    else:
        shade = ScalarMappable(Normalize(bar[1], bar[2]), ListedColormap(bar[0]))
        ax.figure.colorbar(shade, ax=ax, fraction=0.046, pad=0.02, label=title)
    ax.apply_aspect()
    halo = [withStroke(linewidth=2.5, foreground="white")]
    written = [
        ax.text(x, y, text, ha="center", va="center", fontsize=8 if level else 11, path_effects=halo)
        for text, x, y, level in names
    ]
    extents = [text.get_window_extent() for text in written]
    middles = [((e.x0 + e.x1) / 2, (e.y0 + e.y1) / 2) for e in extents]
    boxes = [(n[0], x, y, e.width, e.height) for n, (x, y), e in zip(names, middles, extents, strict=True)]
    room = {i: (x, y) for i, x, y in fitted(boxes, ax.get_window_extent().extents, ax.transData.transform(places))}
    for i, text in enumerate(written):
        if i not in room:
            text.remove()
        else:
            text.set_position(ax.transData.inverted().transform(room[i]))
    return ax
