"""Write the small checkpoints of test_unpickle.py with PyTorch: ``python tests/golden/make_checkpoints.py`` (needs torch)."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent


def tensors() -> OrderedDict[str, torch.Tensor]:
    """One tensor of every type, and the layouts that occur in checkpoints."""
    base = torch.arange(24, dtype=torch.float32) / 8
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 2 * 3 * 2 * 2).reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    return OrderedDict([
        ("module.conv.weight", weight),
        ("module.conv.bias", torch.nn.Parameter(torch.tensor([0.25, -0.5]))),
        ("module.bn.num_batches_tracked", torch.tensor(7)),
        ("module.tied", base), ("module.view", base[4:16].reshape(3, 4)), ("module.transposed", base.reshape(4, 6).T),
        ("module.strided", base[1::3]),
        ("module.half", base[:3].half()), ("module.bfloat16", torch.tensor([1.0, -2.5, 3.140625]).bfloat16()),
        ("module.double", base[:4].double() / 3), ("module.int64", torch.tensor([[-1, 2**40]])),
        ("module.int32", torch.tensor([5], dtype=torch.int32)),
        ("module.int16", torch.tensor([-300], dtype=torch.int16)), ("module.int8", torch.tensor([-7], dtype=torch.int8)),
        ("module.uint8", torch.tensor([200], dtype=torch.uint8)), ("module.bool", torch.tensor([True, False, True])),
        ("module.scalar", torch.tensor(2.5)), ("module.empty", torch.empty(0, 3)),
    ])


def main() -> None:
    """Write the zip and the legacy checkpoint, a pickled module, and what their tensors hold."""
    state = tensors()
    content = {"epoch": 3, "best": np.float64(0.5), "arch": "tiny", "done": True, "history": [0.5, (1, None)], "state_dict": state}
    torch.save(content, HERE / "checkpoint_zip.pth")
    torch.save(content, HERE / "checkpoint_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(1, 1), HERE / "module_pickled.pth")
    expected = {name.removeprefix("module."): tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
                for name, tensor in state.items()}
    np.savez(HERE / "checkpoint_expected.npz", **{name: tensor.numpy() for name, tensor in expected.items()})


if __name__ == "__main__":
    main()
