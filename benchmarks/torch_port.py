"""What transformers need beside convolutions, for the eager torch port of a graph in bench_forward.py."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "tanh": torch.tanh,
}


def step(node: Any, a: dict[str, Any], xs: list[torch.Tensor], p: dict[str, torch.Tensor]) -> torch.Tensor:
    """One node as torch users write it: slices, heads and turned axes are views."""
    x = xs[0]
    if node.op in ACTIVATIONS:
        return ACTIVATIONS[node.op](x)
    return {
        "layer_norm": lambda: F.layer_norm(x, x.shape[-1:], p.get("weight"), p.get("bias"), a["eps"]),
        "attention": lambda: F.scaled_dot_product_attention(*xs, is_causal=a["causal"], scale=a["scale"]),
        "matmul": lambda: torch.matmul(
            x.transpose(-1, -2) if a["transpose_a"] else x, xs[1].transpose(-1, -2) if a["transpose_b"] else xs[1]
        ),
        "permute": lambda: x.permute(0, *a["axes"]),
        "slice": lambda: x.narrow(a["axis"], a["start"], min(a["stop"], x.shape[a["axis"]]) - a["start"]),
        "select": lambda: x.select(a["axis"], a["index"]),
        "concat": lambda: torch.cat(xs, a["axis"]),
        "constant": lambda: p["value"].expand(len(x), *p["value"].shape),
        "scale_shift": lambda: x + p["shift"] if "scale" not in p else x * p["scale"] + p["shift"],
        "embedding": lambda: F.embedding(x.long(), p["weight"]),
        "positions": lambda: x + p["weight"][a["offset"] : a["offset"] + x.shape[1]],
        "l2_normalize": lambda: F.normalize(x, dim=-1),
    }[node.op]()
