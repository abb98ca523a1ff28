"""Pictures: lazily decoded data sets with a content hash, and batches of network inputs made ahead of use."""

from semanticlens.data.batches import Skipped, batches, network_inputs
from semanticlens.data.dataset import Dataset, Pictures, Subset
from semanticlens.data.decode import decode, to_rgb
from semanticlens.data.images import ImageArchive, ImageArray, ImageFolder

__all__ = [
    "Dataset",
    "ImageArchive",
    "ImageArray",
    "ImageFolder",
    "Pictures",
    "Skipped",
    "Subset",
    "batches",
    "decode",
    "network_inputs",
    "to_rgb",
]
