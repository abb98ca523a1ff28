"""Seeded parameters for architectures of the zoo, shared by its tests and the script that makes its golden values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from semanticlens.nn import zoo
from semanticlens.nn.zoo.builder import Builder

GOLDEN = Path(__file__).parent / "golden" / "zoo.npz"
PERIOD = 262_139                                      # large matrices repeat themselves; a prime, so that their rows differ
CASES = {                                             # a member of each family -> size of its picture
    "alexnet": 80, "densenet121": 64, "mobilenet_v3_large": 64, "mobilenet_v3_small": 64, "efficientnet_b0": 64, "efficientnet_b1": 64,
    "convnext_tiny": 64, "regnet_y_400mf": 64, "regnet_x_400mf": 64, "shufflenet_v2_x0_5": 64, "shufflenet_v2_x1_0": 64, "googlenet": 64,
    "swin_t": 224, "vit_tiny_patch16_224_features": 224, "vit_base_patch32_clip_quickgelu_224": 224,
    "pvt_v2_b0": 224, "mobilevitv2_050": 256, "efficientvit_b0": 224, "maxvit_nano_rw_256": 256}


def random_state(arch: str, classes: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    """Parameters of an architecture: the right names and shapes, values that keep activations in range."""
    rng = np.random.default_rng(seed)
    builder = Builder()
    zoo._ARCHITECTURES[arch].define(builder)
    state = {}
    for key, shape in builder.expected.items():
        shape = tuple(classes if n == zoo.ANY else n for n in shape)
        if key in builder.buffers:
            state[key] = builder.buffers[key]
        elif key.endswith("running_var"):
            state[key] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        elif len(shape) == 1:
            state[key] = (rng.normal(size=shape) * 0.1 + (key.endswith("weight"))).astype(np.float32)
        else:
            values = rng.standard_normal(min(math.prod(shape), PERIOD), np.float32) * np.float32(math.sqrt(2 / math.prod(shape[1:])))
            state[key] = np.resize(values, shape)
    return state


def picture(size: int) -> np.ndarray:
    """(1, 3, size, size)."""
    return np.random.default_rng(7).standard_normal((1, 3, size, size), np.float32)


def picked(value: np.ndarray, count: int = 12) -> np.ndarray:
    """Values at evenly spaced places."""
    flat = value.ravel()
    return flat[np.linspace(0, flat.size - 1, min(count, flat.size)).astype(int)]
