"""One family beside hilrp, in a process of its own because hilrp changes timm's classes: python hilrp_case.py NAME SIZE CONV_GAMMA INPLACE.

Prints JSON: largest error of the output, sums of both maps, their relative difference and cosine.
"""

import json
import sys
import warnings

import numpy as np


def weights(torch, model):
    """Seeded statistics and biases; as initialised, most of them would be 0 or 1."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2, generator=g)
                module.running_var.uniform_(0.5, 1.5, generator=g)
                module.weight.uniform_(0.5, 1.5, generator=g)
                module.bias.normal_(0, 0.1, generator=g)
            elif isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and module.bias is not None:
                module.bias.normal_(0, 0.05, generator=g)
    return g


def main(name: str, size: int, conv_gamma: float, inplace: bool, fold: bool) -> None:
    import hilrp
    import timm
    import torch

    import semanticlens as sl
    from semanticlens.attribution import Composite
    from semanticlens.nn.export import from_torch
    from semanticlens.nn.fold import fold_batch_norm

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = timm.create_model(name, pretrained=False).eval()
    g = weights(torch, model)
    for module in model.modules():
        if hasattr(module, "inplace") and not inplace:
            module.inplace = False
    x = torch.randn(1, 3, size, size, generator=g)
    net = from_torch(model, x)
    net = fold_batch_norm(net) if fold else net
    given, wanted = x.numpy(), model(x).detach().numpy()
    out = net(given)
    target = int(out.argmax())
    composite = Composite.cp_lrp(gamma=0.25, conv_gamma=conv_gamma)
    ours = {t: np.asarray(sl.attribute(net, given, target=target, composite=composite, dtype=t).input[0].sum(0), np.float64)
            for t in ("float64", "float32")}  # fmt: skip
    theirs = hilrp.attribute(model.double(), x.double(), target=target, arch=name)["pixel_map"].numpy()
    lengths = np.linalg.norm(theirs), np.linalg.norm(ours["float64"])
    print(json.dumps({
        "output": float(np.abs(out - wanted).max() / np.abs(wanted).max()),
        "ours": float(ours["float64"].sum()), "theirs": float(theirs.sum()),
        **{t: float(np.linalg.norm(ours[t] - theirs) / lengths[0]) for t in ours},
        "cosine": float((ours["float64"] * theirs).sum() / lengths[0] / lengths[1])}))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "inplace", sys.argv[5] == "fold")
