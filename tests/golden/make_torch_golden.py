"""Makes torch_export.npz: a small torch module that uses what the export translates, as a bundle and with torch's values.

    python tests/golden/make_torch_golden.py        (extra "peers"; the seed fixes everything)

The light test run reads the file, so that the meaning of exported networks is checked where torch is not installed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from semanticlens.nn import Preprocess
from semanticlens.nn.export import from_torch

TARGET = Path(__file__).with_name("torch_export.npz")
RECORDED = ["stem", "stem.0", "stem.1", "squeeze", "block", "mixed", "head", "relu", "relu_1", "fc"]


class Squeeze(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool, self.down, self.up = nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.up(F.silu(self.down(self.pool(x))))) * x


class Mixed(nn.Module):
    """Two branches, joined; every second row and column, channels padded with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.MaxPool2d(3, 2, (0, 1), ceil_mode=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        thin = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2))
        return torch.cat([self.a(F.pad(x, (1, 0), value=0.5)), self.b(x), thin], 1)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).reshape(1, 3, 1, 1))
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, (4, 3), (2, 1), padding=(1, 2), bias=False),
            nn.BatchNorm2d(8, eps=1e-3),
            nn.ReLU6(inplace=True),
        )
        self.depthwise, self.bn, self.relu = (
            nn.Conv2d(8, 8, 3, padding="same", dilation=2, groups=8),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
        )
        self.squeeze = Squeeze(8)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Hardswish(), nn.Dropout(0.3), nn.Hardsigmoid(), nn.Identity())
        self.mixed, self.head = Mixed(), nn.Conv2d(27, 12, 1, groups=3)
        self.fc = nn.Linear(12 * 4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem((x - self.mean) / 0.25)
        y = self.relu(self.bn(self.depthwise(x)))
        y += x
        y = self.relu(self.squeeze(y) + y * 0.5)
        y = self.head(self.mixed(self.block(y) * y))
        y = F.adaptive_avg_pool2d(y, (2, 2)).view(y.size(0), -1)
        return torch.softmax(self.fc(F.dropout(y, training=self.training)), dim=1)


def module() -> nn.Module:
    torch.manual_seed(20)
    net = Small()
    with torch.no_grad():
        net.train()
        for _ in range(5):  # running statistics that are not 0 and 1
            net(torch.rand(8, 3, 21, 19))
    return net.eval()


def example(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 21, 19, generator=torch.Generator().manual_seed(21))


def values(net: nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Output of each recorded module, taken by hooks; calls after the first get _1, _2."""
    kept: dict[str, np.ndarray] = {}

    def keep(path: str):
        def hook(_module, _inputs, out):
            name = path
            while name in kept:
                name = f"{path}_{int(name.removeprefix(path).strip('_') or 0) + 1}"
            kept[name] = out.detach().clone().numpy()

        return hook

    hooks = [part.register_forward_hook(keep(path)) for path, part in net.named_modules() if path]
    with torch.no_grad():
        kept["output"] = net(x).numpy()
    for hook in hooks:
        hook.remove()
    return kept


def main() -> None:
    net, x = module(), example()
    exported = from_torch(net, x[:1], name="small", preprocess=Preprocess(size=(21, 19)), labels=list("abcdef"))
    with tempfile.TemporaryDirectory() as folder:
        exported.save(Path(folder) / "small.safetensors")
        bundle = np.frombuffer((Path(folder) / "small.safetensors").read_bytes(), np.uint8)
    kept = values(net, x)
    np.savez_compressed(
        TARGET,
        bundle=bundle,
        x=x.numpy(),
        torch=np.array(torch.__version__),
        output=kept["output"],
        **{f"value:{name}": kept[name] for name in RECORDED},
    )
    print(f"{TARGET.name}: {TARGET.stat().st_size:,} bytes, torch {torch.__version__}")


if __name__ == "__main__":
    main()
