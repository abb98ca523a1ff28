"""From a picture to a network's input: the steps a network was trained with, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semanticlens._errors import DataError, ModelFileError

__all__ = ["Preprocess"]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_RESIZE = ("crop", "stretch", "none")
_MODES = {"RGB": 3, "BGR": 3, "L": 1}
_MAX_SIDE = 1 << 15
_MAX_PIXELS = 1 << 26  # of a scaled picture before it is cropped


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop and normalise a picture: ``(pixel * scale - mean) / std`` per channel.

    With ``resize="crop"``, ``scale=1/255`` and the same settings it gives what torchvision's ``Resize(short)``,
    ``CenterCrop(size)``, ``ToTensor`` and ``Normalize(mean, std)`` give for a PIL image.

    Attributes
    ----------
    size : (int, int)
        Height and width of the result.
    resize : {"crop", "stretch", "none"}
        Scale the short side to ``short`` and cut the centre out; scale to ``size`` whatever the shape; or take only
        pictures of that size.
    short : int, optional
        Length of the short side before the crop; None is the larger of ``size``.
    interpolation : {"bilinear", "bicubic", "nearest"}
        Pillow's filters, which widen when they shrink a picture.
    mode : {"RGB", "BGR", "L"}
        Channels and their order.
    scale : float
        Factor on the 8-bit pixel, before the mean is taken off.
    mean, std : tuple of float
        One per channel.
    """

    size: tuple[int, int] = (224, 224)
    resize: Literal["crop", "stretch", "none"] = "crop"
    short: int | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    mode: Literal["RGB", "BGR", "L"] = "RGB"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        for name, known in (("resize", _RESIZE), ("interpolation", _FILTERS), ("mode", _MODES)):
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {str(getattr(self, name))[:60]!r}")
        object.__setattr__(self, "size", self._sides(self.size))
        if self.short is not None:
            short = self._sides((self.short, self.short))[0]
            if short < max(self.size):
                raise ValueError(
                    f"short={short} must be at least the larger of size={self.size}, or the crop would leave "
                    "the picture"
                )
            object.__setattr__(self, "short", short)
        object.__setattr__(self, "scale", _numbers("scale", (self.scale,), 1, positive=True)[0])
        object.__setattr__(self, "mean", _numbers("mean", self.mean, self.channels))
        object.__setattr__(self, "std", _numbers("std", self.std, self.channels, positive=True))

    @staticmethod
    def _sides(size: Any) -> tuple[int, int]:
        if (
            not isinstance(size, Sequence)
            or isinstance(size, str)
            or len(size) != 2
            or not all(_is_side(side) for side in size)
        ):
            raise ValueError(f"size and short must be whole numbers from 1 to {_MAX_SIDE}, not {str(size)[:60]}")
        return int(size[0]), int(size[1])

    @property
    def channels(self) -> int:
        """Channels of the result."""
        return _MODES[self.mode]

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the result."""
        return (self.channels, *self.size)

    @cached_property
    def _tables(self) -> NDArray[np.float32]:
        """(C, 256): the result for each pixel value, computed in double."""
        levels = np.arange(256) * self.scale
        table: NDArray[np.float32] = ((levels - np.array(self.mean)[:, None]) / np.array(self.std)[:, None]).astype(
            np.float32
        )
        return table

    def picture(self, image: Image.Image | NDArray[np.uint8]) -> Image.Image:
        """The resized and cropped picture, before it becomes numbers: what the network looks at."""
        image = _as_picture(image)
        if image.mode != ("L" if self.mode == "L" else "RGB"):
            image = image.convert("L" if self.mode == "L" else "RGB")
        height, width = self.size
        if self.resize == "none":
            if image.size != (width, height):
                raise DataError(
                    f"the picture is {image.width} x {image.height}, the network takes {width} x {height}; use "
                    "resize='crop' or 'stretch'"
                )
            return image
        if self.resize == "stretch":
            return (
                image if image.size == (width, height) else image.resize((width, height), _FILTERS[self.interpolation])
            )
        return self._crop(image)

    def _crop(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        short, narrow = self.short or max(self.size), min(image.size)
        # integer division, as torchvision cuts the long side off to a whole number
        scaled = (
            (short, short * image.height // narrow) if image.width == narrow else (short * image.width // narrow, short)
        )
        left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
        if scaled[0] * scaled[1] > _MAX_PIXELS:  # a ribbon: scale only what the crop keeps
            across, down = image.width / scaled[0], image.height / scaled[1]
            box = (left * across, top * down, (left + width) * across, (top + height) * down)
            return image.resize((width, height), _FILTERS[self.interpolation], box=box)
        if image.size != scaled:
            image = image.resize(scaled, _FILTERS[self.interpolation])
        return image.crop((left, top, left + width, top + height))

    def __call__(self, image: Image.Image | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn a PIL image or a uint8 array (H, W, 3), (H, W, 1) or (H, W) into (C, H, W) float32.

        Raises
        ------
        DataError
            If the picture is empty, of another type, or with ``resize="none"`` of another size.
        """
        pixels = np.asarray(self.picture(image))
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if self.mode == "BGR":
            pixels = pixels[:, :, ::-1]
        result = np.empty(self.output_shape, np.float32)
        for channel, table in enumerate(self._tables):
            np.take(table, pixels[:, :, channel], out=result[channel], mode="clip")
        return result

    def to_dict(self) -> dict[str, Any]:
        """Settings as JSON can hold them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: Any) -> Preprocess:
        """The inverse of :meth:`to_dict`; ``ModelFileError`` for anything else."""
        if not isinstance(settings, Mapping):
            raise ModelFileError(f"preprocess must be an object, not {type(settings).__name__}")
        known = {item.name for item in fields(cls)}
        unknown = sorted(str(name)[:60] for name in set(settings) - known)
        if unknown:
            raise ModelFileError(f"preprocess: {unknown[0]!r} is not known; known are {', '.join(sorted(known))}")
        try:
            values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
            return cls(**values)
        except ValueError as error:
            raise ModelFileError(f"preprocess: {error}") from None

    def __str__(self) -> str:
        height, width = self.size
        how = {
            "crop": f"short side to {self.short or max(self.size)}, centre crop",
            "stretch": "stretched to size",
            "none": "size as it is",
        }[self.resize]
        numbers = f"(pixel * {self.scale:.6g} - {list(self.mean)}) / {list(self.std)}"
        return f"{self.mode} {height} x {width} ({how}, {self.interpolation}), {numbers}"


def _is_side(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 1 <= int(value) <= _MAX_SIDE


def _numbers(name: str, values: Any, count: int, positive: bool = False) -> tuple[float, ...]:
    what = f"{name} must be {count} finite {'positive ' if positive else ''}number{'s' if count > 1 else ''}"
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != count:
        raise ValueError(f"{what}, not {str(values)[:60]}")
    for value in values:
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float, np.floating))
            or not -1e30 <= value <= 1e30
            or (positive and value < 1e-30)
        ):
            raise ValueError(f"{what}, not {str(values)[:60]}")
    if any(math.isnan(value) for value in values):
        raise ValueError(f"{what}, not {str(values)[:60]}")
    return tuple(float(value) for value in values)


def _as_picture(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        if min(image.size) < 1:
            raise DataError(f"the picture is empty ({image.width} x {image.height})")
        return image
    array = np.asarray(image)
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] not in (1, 3))
        or array.size == 0
    ):
        raise DataError(
            f"a picture must be a PIL image or a uint8 array (H, W, 3), (H, W, 1) or (H, W), not {array.dtype} "
            f"of shape {array.shape}"
        )
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else np.ascontiguousarray(array))
