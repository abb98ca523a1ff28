"""From the bytes of a picture file to an upright RGB picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from semanticlens._errors import DataError

EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)
REMEDY = "remove or repair it, or pass on_error='skip'"


def decode(content: bytes, name: str) -> Image.Image:
    """The picture in ``content``: first frame, EXIF orientation applied, 8-bit RGB.

    Transparency is laid on white; greyscale, palette and CMYK are converted; 16-bit grey keeps its upper 8 bits.

    Raises
    ------
    DataError
        Naming ``name``: empty, not a picture, truncated, of no pixels, or beyond ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    if not content:
        raise DataError(f"{name}: the file is empty (0 bytes); {REMEDY}")
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{name}: {error} If the file is to be trusted, raise PIL.Image.MAX_IMAGE_PIXELS (now "
            f"{Image.MAX_IMAGE_PIXELS:,}); else {REMEDY}"
        ) from None
    except MemoryError:
        raise
    except UnidentifiedImageError:  # Pillow's own text names the buffer, not the file
        raise DataError(f"{name}: cannot be read as a picture: its bytes are of no known picture format; {REMEDY}") from None
    except (
        Exception
    ) as error:  # Pillow's plug-ins raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        raise DataError(f"{name}: cannot be read as a picture ({type(error).__name__}: {error}); {REMEDY}") from None


def to_rgb(image: Image.Image, name: str = "picture") -> Image.Image:
    """``image`` as 8-bit RGB by the rules of :func:`decode`; errors name ``name``."""
    try:
        return _to_rgb(image)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.width < 1 or image.height < 1:
        raise ValueError(f"it has no pixels (size {image.width} x {image.height})")
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image if type(image) is Image.Image else image.copy()
    if mode.startswith("I"):  # I, I;16, I;16B, I;16L: grey of 16 bits; Pillow's own conversion clips at 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"grey values from {values.min()} to {values.max()} do not fit 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if mode == "F":
        raise ValueError("floating-point pixels have no defined range: convert the picture to 8 or 16 bits")
    if mode in ("RGBA", "LA", "La", "PA", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")
