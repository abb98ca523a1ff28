"""Makes zoo.npz: torch's values at nine layers and the output of networks with seeded parameters.

    python tests/golden/make_zoo_golden.py [network ...]      (torchvision and timm; the seed fixes everything)

The light test run reads the file, so that the zoo is checked where torch is not installed.  A row holds values at evenly spaced places and,
last, the largest magnitude of the layer.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision

sys.path.insert(0, str(Path(__file__).parents[1]))
from coverage_cases import hooked
from zoo_states import CASES, GOLDEN, picked, picture, random_state

from semanticlens.nn import zoo


def module(arch: str) -> torch.nn.Module:
    """The network in torch."""
    if hasattr(torchvision.models, arch):
        options = {"aux_logits": False, "init_weights": False} if arch == "googlenet" else {}
        return getattr(torchvision.models, arch)(weights=None, num_classes=5, **options)
    return timm.create_model(arch.removesuffix("_features"), num_classes=0 if arch.endswith("_features") else 5)


def main() -> None:
    """Write the file, or only the rows of the networks that are named."""
    chosen, rows = sys.argv[1:] or list(CASES), {}
    if sys.argv[1:]:
        with np.load(GOLDEN) as old:
            rows = {key: old[key] for key in old.files if key.partition("/")[0] not in chosen}
    for arch, size in ((name, CASES[name]) for name in chosen):
        state, net = random_state(arch), module(arch).eval()
        missing, extra = net.load_state_dict({key: torch.tensor(value) for key, value in state.items()}, strict=False)
        assert not extra
        assert all("num_batches" in key for key in missing), missing
        values = hooked(net, torch.tensor(picture(size)))
        known = [name for name in values if name and name in zoo.build(arch, state).layers]
        names = [known[int(i)] for i in np.linspace(0, len(known) - 1, 9)]
        for name in (*names, ""):
            rows[f"{arch}/{name or 'output'}"] = np.append(picked(values[name]), np.abs(values[name]).max()).astype(np.float32)
    np.savez_compressed(GOLDEN, **rows)


if __name__ == "__main__":
    main()
