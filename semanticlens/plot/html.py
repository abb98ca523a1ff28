"""Small pieces of HTML: what result objects show in a notebook, and the frame of a page that stands alone.

Everything that comes from outside is escaped unless it is an :class:`Html`, which only the functions of this package make.
A page carries a Content-Security-Policy that forbids every external resource and every script but the one it was made with.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, features

from semanticlens.plot import _style

__all__ = [
    "Html",
    "bar",
    "code",
    "escape",
    "fragment",
    "histogram",
    "image_bytes",
    "image_uri",
    "note",
    "number",
    "page",
    "short_hash",
    "strip",
    "table",
    "title",
]

_NUMERIC = ' class="sl-num"'

# Characters that no HTML document may hold: controls but tab and line ends, lone surrogates, non-characters at the end of the plane.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class Html(str):
    """Text that is HTML already and is inserted as it stands; every other value is escaped."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return str(self)


def escape(value: object) -> Html:
    """``value`` as text that is safe between tags and inside quoted attributes; an :class:`Html` comes back unchanged.

    Characters that HTML forbids (controls, lone surrogates) become U+FFFD, so that the result always encodes as UTF-8.
    """
    if isinstance(value, Html):
        return value
    return Html(html.escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(value)), quote=True))


def number(value: float | int | None, digits: int = 3, *, signed: bool = False) -> str:
    """A number for people: ``0.123``, ``12 800``, a dash for None and NaN, a real minus sign, and no ``-0.000``."""
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return "–"
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        text = f"{int(value):,}".replace(",", "\u202f")
    elif math.isinf(value):
        text = "∞" if value > 0 else "-∞"
    elif abs(value) >= 1e5 or 0 < abs(value) < 10.0 ** -(digits + 2):
        text = f"{value:.{max(digits - 1, 1)}e}"
    else:
        text = f"{value:.{digits}f}"
        if float(text) == 0:
            text = text.lstrip("-")
    if signed and not text.startswith("-"):
        text = "+" + text
    return text.replace("-", "\N{MINUS SIGN}")


def code(value: object) -> Html:
    """A name (layer, component, file) in fixed-width type."""
    return Html(f"<code>{escape(value)}</code>")


def short_hash(fingerprint: object, length: int = 12) -> Html:
    """The first characters of a fingerprint, with the whole of it shown on hovering; a dash for None."""
    if not fingerprint:
        return Html("–")
    text = str(fingerprint)
    return Html(f'<code title="{escape(text)}">{escape(text[:length])}</code>')


def fragment(*parts: object) -> Html:
    """Wrap parts for a notebook: the style sheet once, then each part (escaped unless :class:`Html`)."""
    return Html(f'<div class="sl-out"><style>{_style.FRAGMENT}</style>{"".join(escape(part) for part in parts)}</div>')


def note(text: object) -> Html:
    """A line of quiet text below a table."""
    return Html(f'<div class="sl-note">{escape(text)}</div>')


def title(text: object) -> Html:
    """A line above a table."""
    return Html(f'<div class="sl-title">{escape(text)}</div>')


def _is_number(cell: object) -> bool:
    return isinstance(cell, (int, float, np.integer, np.floating)) and not isinstance(cell, (bool, np.bool_))


def table(
    headers: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    caption: object = None,
    limit: int | None = None,
    digits: int = 3,
    style: bool = True,
) -> Html:
    """An HTML table; columns that hold only numbers (or nothing) are aligned right.

    Parameters
    ----------
    headers : sequence
        Column titles; their count is the width of the table.
    rows : iterable of sequences
        Cells: numbers are written by :func:`number`, None as a dash, :class:`Html` as it stands, anything else escaped.
    caption : object, optional
        A line above the table.
    limit : int, optional
        Show at most this many rows and say how many were left out.
    digits : int
        Decimals of floating-point cells.
    style : bool
        True: complete with style sheet, for a notebook.  False: the bare table, to be put inside :func:`fragment`.

    Raises
    ------
    ValueError
        A row is not as long as ``headers``.
    """
    body = [list(row) for row in rows]
    for i, row in enumerate(body):
        if len(row) != len(headers):
            raise ValueError(f"row {i} of the table has {len(row)} cells, but there are {len(headers)} headers")
    left_out = 0 if limit is None else max(0, len(body) - limit)
    body = body[: len(body) - left_out]
    columns = [[row[j] for row in body] for j in range(len(headers))]
    right = [any(map(_is_number, column)) and all(_is_number(x) or x is None for x in column) for column in columns]

    def cell(value: object, j: int) -> str:
        text = number(value, digits) if _is_number(value) else "–" if value is None else value  # type: ignore[arg-type]
        return f"<td{_NUMERIC if right[j] else ''}>{escape(text)}</td>"

    head = "".join(f'<th scope="col"{_NUMERIC if right[j] else ""}>{escape(text)}</th>' for j, text in enumerate(headers))
    lines = "".join(f"<tr>{''.join(cell(value, j) for j, value in enumerate(row))}</tr>" for row in body)
    above = "" if caption is None else f"<caption>{escape(caption)}</caption>"
    result = Html(f'<table class="sl-table">{above}<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>')
    if left_out:
        result = Html(result + note(f"{left_out} more rows are not shown"))
    return fragment(result) if style else result


def bar(value: float | None, low: float = 0.0, high: float = 1.0, digits: int = 3) -> Html:
    """A number with a short bar that shows where it lies between ``low`` and ``high``."""
    if value is None or math.isnan(value):
        return Html("–")
    share = 0.0 if high <= low else min(1.0, max(0.0, (value - low) / (high - low)))
    return Html(
        f'<span class="sl-bar" aria-hidden="true"><i style="width:{100 * share:.0f}%"></i></span>{escape(number(value, digits))}'
    )


def _flat(image: Image.Image) -> Image.Image:
    """``image`` as RGB; transparency is laid on white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def image_bytes(
    image: Image.Image, *, size: int | None = None, format: str | None = None, quality: int = 75
) -> tuple[bytes, str]:
    """``image`` encoded (WebP where Pillow has it, else JPEG), its longer side at most ``size``: the bytes and the MIME type."""
    chosen = (format or ("webp" if features.check("webp") else "jpeg")).lower()
    if chosen not in ("webp", "jpeg", "png"):
        raise ValueError(f"format={format!r}: must be 'webp', 'jpeg', 'png' or None")
    small = _flat(image)
    if size is not None and max(small.size) > size:
        if small is image:
            small = small.copy()
        small.thumbnail((size, size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    lossy: dict[str, Any] = {"quality": quality, "optimize": True} if chosen == "jpeg" else {"quality": quality, "method": 4}
    small.save(buffer, chosen.upper(), **({"optimize": True} if chosen == "png" else lossy))
    return buffer.getvalue(), f"image/{chosen}"


def image_uri(image: Image.Image, *, size: int | None = None, format: str | None = None, quality: int = 75) -> Html:
    """A picture as a ``data:`` URI for ``src=`` or CSS ``url()``.

    Parameters
    ----------
    image : PIL.Image.Image
        Any mode; transparency is laid on white.
    size : int, optional
        Longest side in pixels; larger pictures are reduced, smaller ones left alone.
    format : {"webp", "jpeg", "png"}, optional
        None: WebP if this Pillow can write it, else JPEG.
    quality : int
        Of WebP and JPEG, 1 to 100.
    """
    raw, mime = image_bytes(image, size=size, format=format, quality=quality)
    return Html(f"data:{mime};base64,{base64.b64encode(raw).decode('ascii')}")


def strip(
    images: Iterable[Image.Image | None], captions: Iterable[object] | None = None, *, size: int = 64, alt: str = "example"
) -> Html:
    """A row of thumbnails for a notebook, ``size`` pixels wide and high, wrapping where it must; None is left out with its caption."""
    words = list(captions) if captions is not None else None
    figures = []
    for i, image in enumerate(images):
        if image is None:
            continue
        line = "" if words is None else f"<figcaption>{escape(words[i])}</figcaption>"
        source = image_uri(image, size=2 * size)
        figures.append(f'<figure><img src="{source}" width="{size}" height="{size}" alt="{escape(alt)} {i + 1}">{line}</figure>')
    return Html(f'<div class="sl-strip">{"".join(figures)}</div>')


def histogram(
    values: ArrayLike, *, low: float, high: float, bins: int = 24, width: int = 132, height: int = 30, label: str = ""
) -> Html:
    """A small inline SVG histogram, coloured by ``currentColor``; values outside the range count in the outer bins, NaN nowhere.

    The picture has a text for screen readers: number of values, mean, and range.
    """
    if not high > low or bins < 1:
        raise ValueError(f"histogram needs low < high and bins >= 1, not low={low}, high={high}, bins={bins}")
    data = np.asarray(values, dtype=np.float64).ravel()
    data = data[np.isfinite(data)]
    if len(data) == 0:
        return Html('<span class="muted">–</span>')
    place = np.clip(((data - low) / (high - low) * bins).astype(np.int64), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    step, top = width / bins, counts.max()
    heights = np.maximum(1.0, (height - 2) * counts / top)
    path = "".join(
        f"M{i * step:.1f} {height}h{step - 1:.1f}v-{heights[i]:.1f}h-{step - 1:.1f}z" for i in range(bins) if counts[i]
    )
    text = f"{label + ': ' if label else ''}{len(data)} values from {data.min():.3f} to {data.max():.3f}, mean {data.mean():.3f}"
    return Html(
        f'<svg class="histogram" role="img" aria-label="{escape(text)}" viewBox="0 0 {width} {height + 1}" width="{width}" '
        f'height="{height + 1}"><title>{escape(text)}</title><path d="{path}" fill="currentColor"/>'
        f'<path d="M0 {height + 0.5}h{width}" stroke="currentColor" stroke-opacity=".35"/></svg>'
    )


def page(title: str, body: str, *, style: str = "", script: str = "", language: str = "en", description: str = "") -> str:
    """One HTML document that needs nothing from outside and can do nothing outside.

    Parameters
    ----------
    title : str
        Escaped; shown in the browser's tab.
    body : str
        HTML of the body; the caller has escaped what came from outside.
    style : str
        CSS added to the shared style sheet.
    script : str
        JavaScript run after the body; the page's policy admits exactly this text and no other script.
    language, description : str
        ``lang`` attribute and summary of the document.

    Returns
    -------
    str
        The document, to be written as UTF-8.
    """
    for name, text, end in (("style", style, "</style"), ("script", script, "</script")):
        if end in text.lower():
            raise ValueError(f"{name} must not contain {end!r}: it would end the element early")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    allowed = f"'sha256-{digest}'" if script else "'none'"
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; form-action 'none'"
    )
    about = f'<meta name="description" content="{escape(description)}">' if description else ""
    code_ = f"<script>{script}</script>" if script else ""
    return (
        f'<!DOCTYPE html>\n<html lang="{escape(language)}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n{about}'
        f"<title>{escape(title)}</title>\n<style>{_style.TOKENS}{_style.PAGE}{style}</style>\n</head>\n<body>\n{body}\n{code_}</body>\n</html>\n"
    )
