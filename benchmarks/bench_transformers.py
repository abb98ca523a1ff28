"""Relevance of vision transformers: AttnLRP, CP-LRP and CP-LRP with Gamma, against lxt on ViT-B/16 and hilrp on the hierarchical families.

    python benchmarks/bench_transformers.py --peer lxt      # needs torch, torchvision, lxt 2.1, zennit 0.5.1, transformers 4.52.4
    python benchmarks/bench_transformers.py --peer hilrp    # needs Python 3.12, torch, timm, hilrp 0.2.0

Batch 1, one thread, random weights; the whole attribution, its forward run among it; every row in a process of its own, because both
peers change classes for good; ours and the peer's in turn, processor time, medians.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

METHODS = ("attn_lrp", "cp_lrp", "cp_lrp gamma")
FAMILIES = {"swin_tiny_patch4_window7_224": (224, 0.25), "pvt_v2_b0": (224, 0.25), "mobilevitv2_050": (256, 0.25),
            "efficientvit_b0": (224, 0.05), "maxvit_tiny_tf_224": (224, 0.25), "vit_small_patch16_224": (224, 0.25)}


def with_lxt(method: str) -> tuple[Any, Any, Any, Callable[[], Any]]:
    import torch
    import torchvision
    from lxt.efficient import monkey_patch, monkey_patch_zennit
    from lxt.efficient.models.vit_torch import cp_LRP
    from lxt.efficient.patches import patch_method
    from lxt.efficient.rules import divide_gradient
    from torch import nn
    from torchvision.models import vision_transformer
    from zennit import rules as theirs
    from zennit.composites import LayerMapComposite

    from semanticlens.attribution import Composite, rules
    from semanticlens.nn.export import from_torch

    module = torchvision.models.vit_b_16(weights=None).eval()
    nn.init.normal_(module.heads.head.weight, std=0.05)
    x = torch.randn(1, 3, 224, 224)
    net = from_torch(module, x)
    composite = getattr(Composite, method)() if method != "cp_lrp gamma" else Composite.cp_lrp(gamma=0.05, conv_gamma=0.25).with_rule(
        "*self_attention.linear*", rule=rules.Epsilon(1e-9))

    def attend(self, query, key, value, *args, **kwargs):
        return self.original_forward(divide_gradient(query, 4), divide_gradient(key, 4), divide_gradient(value, 2), *args, **kwargs)

    changed = {nn.MultiheadAttention: partial(patch_method, attend, keep_original=True)} if method == "attn_lrp" else {}
    monkey_patch(vision_transformer, {**cp_LRP, **changed})
    if method == "cp_lrp gamma":
        monkey_patch_zennit()
        LayerMapComposite([(nn.Conv2d, theirs.Gamma(0.25)), (nn.Linear, theirs.Gamma(0.05))]).register(module)

    def call():
        given = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(module(given)[0, 0], given)
        return (given * grad).detach().numpy()

    return net, x.numpy(), composite, call


def with_hilrp(name: str) -> tuple[Any, Any, Any, Callable[[], Any]]:
    import timm
    import torch

    from semanticlens.attribution import Composite
    from semanticlens.nn.export import from_torch
    from semanticlens.nn.fold import fold_batch_norm

    size, conv_gamma = FAMILIES[name]
    model = timm.create_model(name, pretrained=False).eval()
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    x = torch.randn(1, 3, size, size)
    net = fold_batch_norm(from_torch(model, x))
    import hilrp

    composite = Composite.cp_lrp(gamma=0.25, conv_gamma=conv_gamma)
    return net, x.numpy(), composite, lambda: hilrp.attribute(model, x, target=0, arch=name)["pixel_map"]


def row(peer: str, what: str, repeats: int) -> dict[str, Any]:
    """One row, in this process."""
    import torch
    from common import compare

    import semanticlens as sl

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net, x, composite, theirs = (with_lxt if peer == "lxt" else with_hilrp)(what)
    calls = {"forward": lambda: net.run(x, n_threads=1), "ours": lambda: sl.attribute(net, x, target=0, composite=composite, n_threads=1),
             peer: theirs}  # fmt: skip
    times = compare(calls, repeats=repeats, clock="cpu")
    own, other = times["ours"]["seconds"], times[peer]["seconds"]
    return {"what": what, "peer": peer, "times": times, "forwards": own / times["forward"]["seconds"], "peer_takes": other / own}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", choices=("lxt", "hilrp"), required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--no-record", action="store_true", help="print only")
    args = parser.parse_args()
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    if args.row:
        print(json.dumps(row(args.peer, args.row, args.repeats)))
        return
    from common import record

    results = []
    for what in METHODS if args.peer == "lxt" else FAMILIES:
        done = subprocess.run([sys.executable, __file__, "--peer", args.peer, "--row", what, "--repeats", str(args.repeats)],
                              capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{what}: {done.stderr[-2000:]}")
        results.append(json.loads(done.stdout.splitlines()[-1]))
        own = results[-1]
        print(f"{what:32s} {own['forwards']:.2f} of our forward run; {args.peer} takes {own['peer_takes']:.1f} x", flush=True)
    if not args.no_record:
        record(f"transformers_{args.peer}", results)


if __name__ == "__main__":
    main()
