"""What a map is drawn from: colours of its dots, and everything that its page holds, packed."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from semanticlens.plot.atlas import COLOURS
from semanticlens.plot.html import image_bytes

if TYPE_CHECKING:
    from semanticlens.lens.map import Colouring, SemanticMap
    from semanticlens.lens.regions import Region

__all__ = [
    "RAMP",
    "UNDEFINED",
    "example_sheets",
    "kind_colours",
    "limits",
    "on_ramp",
    "page_data",
    "point_colours",
    "script_json",
    "written",
]

RAMP = ("#5b5fc7", "#2f8fc0", "#35a67c", "#a9a832", "#e07f33")  # from low to high, to be seen on white and on black
UNDEFINED = "#b4bac1"
CLIP = 1.0  # percent at both ends of the values that take the end colours, from CLIPPED components on
CLIPPED = 200
WRITTEN = 0.15  # share of a region's members from which their name is written
CLASSES = 24  # colourings by class that the page offers
SHEET = 16  # pictures across and down a sheet of the page
SIDES = ((1500, 64), (6000, 48), (1 << 62, 40))  # up to so many pictures, of this many pixels


def limits(colouring: Colouring) -> tuple[float, float]:
    """Values of the first and the last colour of an amount: the least and the largest, from 200 on the 1st and 99th percentile."""
    values = colouring.values[~np.isnan(colouring.values)]
    if len(values) < CLIPPED:
        return float(values.min()), float(values.max())
    low, high = np.percentile(values, [CLIP, 100 - CLIP])
    return float(low), float(high)


def _rgb(colour: str) -> NDArray[np.int64]:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def on_ramp(share: Any) -> NDArray[np.uint8]:
    """Colours (..., 3) of shares from 0 to 1."""
    stops = np.stack([_rgb(c) for c in RAMP]).astype(np.float64)
    at = np.clip(np.asarray(share, np.float64), 0, 1) * (len(stops) - 1)
    found = np.stack([np.interp(at, np.arange(len(stops)), stops[:, c]) for c in range(3)], axis=-1)
    return np.asarray(found.round(), np.uint8)


def kind_colours(count: int) -> NDArray[np.uint8]:
    """Colours (count, 3) of kinds: told apart by hue, and along the ramp where there are more of them than hues."""
    if count > len(COLOURS):
        return on_ramp(np.linspace(0, 1, count))
    return np.stack([_rgb(c) for c in COLOURS[: max(count, 1)]]).astype(np.uint8)[:count]


def point_colours(colouring: Colouring) -> NDArray[np.uint8]:
    """(K, 3): what each component is drawn in."""
    values = colouring.values
    if colouring.names is not None:
        return kind_colours(len(colouring.names))[values.astype(np.int64)]
    low, high = limits(colouring)
    with np.errstate(invalid="ignore"):
        found = on_ramp(np.nan_to_num((values - low) / ((high - low) or 1.0)))
    return np.asarray(np.where(np.isnan(values)[:, None], _rgb(UNDEFINED), found), np.uint8)


def _packed(values: Any, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode("ascii")


def _colouring(c: Colouring) -> dict[str, Any]:
    """A colouring in 16 bits per component; 65535 is undefined."""
    undefined = np.isnan(c.values)
    if c.names is not None:
        return {"name": c.name, "kinds": list(c.names), "kind": c.kind, "about": c.about, "min": 0, "max": 65534,
                "q": _packed(c.values, "<u2"), "undefined": 0}  # fmt: skip
    least, most = float(np.nanmin(c.values)), float(np.nanmax(c.values))
    q = np.where(
        undefined, 65535, np.round((np.nan_to_num(c.values, nan=least) - least) / ((most - least) or 1.0) * 65534)
    )
    low, high = limits(c)
    return {"name": c.name, "kind": c.kind, "about": c.about, "min": least, "max": most, "low": low, "high": high,
            "q": _packed(q, "<u2"), "undefined": int(undefined.sum())}  # fmt: skip


def _offered(m: SemanticMap) -> list[Colouring]:
    """The chosen colouring, the layers, the scores, and of the classes those that are the strongest of most components."""
    classes = [c for c in m.colourings if c.kind == "class"]
    kept = classes
    if len(classes) > CLASSES:
        best = np.nan_to_num(np.stack([c.values for c in classes]), nan=-1.0).argmax(axis=0)
        count = np.bincount(best, minlength=len(classes))
        kept = [classes[y] for y in sorted(np.argsort(-count, kind="stable")[:CLASSES])]
    return [c for i, c in enumerate(m.colourings) if i == 0 or c.kind != "class" or any(c is k for k in kept)]


def _thumbnail(m: SemanticMap, sample: int) -> Image.Image | None:
    found: Image.Image | None = m.db.thumbnail(sample)
    if found is None and m.db.images is not None:
        found = m.db.images[sample]
    return found


def example_sheets(m: SemanticMap, each: int, budget: int) -> dict[str, Any] | None:
    """Sheets of example pictures: first the best example of every component, then the second, until ``budget`` bytes are full."""
    if m.db is None or not each or not budget:
        return None
    ids = np.full((len(m), each), -1, np.int64)
    for i, (layer, k) in enumerate(m):
        own = m.db[layer].examples(k)[:each]
        ids[i, : len(own)] = own
    wanted = list(dict.fromkeys(int(v) for v in ids.T.reshape(-1) if v >= 0))
    if not wanted or _thumbnail(m, wanted[0]) is None:
        return None
    side = next(pixels for most, pixels in SIDES if len(wanted) <= most)
    sheets: list[str] = []
    used, per, place_of = 0, SHEET * SHEET, {}
    for start in range(0, len(wanted), per):
        part = wanted[start : start + per]
        sheet = Image.new("RGB", (SHEET * side, -(-len(part) // SHEET) * side), "white")
        for j, sample in enumerate(part):
            one = _thumbnail(m, sample)
            if one is not None:
                sheet.paste(ImageOps.fit(one.convert("RGB"), (side, side)), (j % SHEET * side, j // SHEET * side))
        raw, mime = image_bytes(sheet, quality=66)
        uri = f"data:{mime};base64,{base64.b64encode(raw).decode('ascii')}"
        if used + len(uri) > budget:
            break
        used += len(uri)
        sheets.append(uri)
        place_of.update({sample: start + j for j, sample in enumerate(part)})
    if not sheets:
        return None
    table_ = np.array([place_of.get(int(v), -1) for v in ids.reshape(-1)])
    return {"side": side, "columns": SHEET, "rows": SHEET, "each": each, "sheets": sheets, "examples": _packed(table_, "<i4"),
            "shown": len(place_of), "wanted": len(wanted)}  # fmt: skip


def written(m: SemanticMap) -> list[Region]:
    """Regions whose name says something: at least 15 % of their members have it."""
    return [region for region in m.regions if region.name is not None and region.share >= WRITTEN]


def page_data(m: SemanticMap, pictures: dict[str, Any] | None) -> dict[str, Any]:
    names = list(dict.fromkeys(name for name in m.labels if name is not None))
    at = {name: i for i, name in enumerate(names)}
    low, high = m.positions.min(axis=0), m.positions.max(axis=0)
    return {
        "n": len(m),
        "x": _packed(m.positions[:, 0], "<f4"),
        "y": _packed(m.positions[:, 1], "<f4"),
        "box": [float(low[0]), float(low[1]), float(high[0]), float(high[1])],
        "layer": _packed(m.layer_index, "<u2"),
        "component": _packed(m.components, "<u4"),
        "label": _packed([-1 if name is None else at[name] for name in m.labels], "<i4"),
        "names": names,
        "layers": list(m.layers),
        "colourings": [_colouring(c) for c in _offered(m)],
        "regions": [[r.level, at[str(r.name)], round(r.x, 5), round(r.y, 5), len(r.members)] for r in written(m)],
        "levels": max((r.level for r in m.regions), default=0),
        "ramp": list(RAMP),
        "kinds": list(COLOURS),
        "pictures": pictures,
    }


def script_json(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or opens a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
