"""How the gradient of a whole network is compared with torch without a comparison that has to forgive anything.

A ReLU or a maximum whose inputs lie within a rounding of its corner may fall to different sides in two correct float32
runs, and then the gradients of that sample differ by far more than a rounding.  Instead of forgiving that, the float32
gradient is taken apart into claims that are each exact:

1. ``double``: our gradient in float64 equals torch's in float64 (1e-9): graph, adjoints and sums are the right formulas.
2. ``values``: every value the float32 walk back reads equals the float64 run's (1e-4 of the largest of that value).
3. ``linear``: the walk back is linear in the gradient that it starts with, once the values are given.  The float32 walk
   equals the same walk in float64 over *the same* values (1e-4): kernels, merged steps, masks, memory.  No corner can
   fall to two sides.
4. ``single``: where no corner lies between the two runs (``flips`` is 0: smooth networks always, others on some samples), the float32
   gradient equals torch's of float64 itself (1e-4).  ``flips`` counts, over all kept values, signs and maxima that differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from coverage_cases import module

from semanticlens.nn import backward
from semanticlens.nn.ops.back_pointwise import slope
from semanticlens.nn.segments import Double, Single

TABLE = Path(__file__).parents[1] / "docs" / "gradients.json"
CORNERED = frozenset({"relu", "relu6", "leaky_relu", "hardswish", "hardsigmoid", "clamp", "abs", "max", "max_pool2d"})


def prepared(name: str, size: int | None = None, batch: int = 1) -> tuple[Any, Any, Any]:
    """Torch's network, an input, ours."""
    import torch

    from semanticlens.nn import export

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net, x = module(name)
        for part in net.modules():                                     # heads that begin as zeros have no gradient
            if isinstance(part, torch.nn.Linear) and not part.weight.any():
                torch.nn.init.normal_(part.weight, 0, 0.05)
        x = torch.randn(batch, 3, *x.shape[2:]) if size is None else torch.randn(batch, 3, size, size)
        return net, x, export.from_torch(net, x[:1], name=name)


def classes_of(x: Any, n: int) -> list[int]:
    return [(3 + 4 * i) % n for i in range(len(x))]


def of_torch(net: Any, x: Any) -> tuple[list[int], np.ndarray, dict[str, np.ndarray]]:
    """Gradient of class 3 of the first sample, 7 of the second, ... by the input and, summed, by the parameters."""
    import torch

    x = x.clone().requires_grad_(True)
    y = net(x)
    classes = classes_of(x, y.shape[1])
    net.zero_grad()
    y[torch.arange(len(x)), torch.tensor(classes)].sum().backward()
    return classes, x.grad.numpy(), {key: p.grad.numpy() for key, p in net.named_parameters() if p.grad is not None}


@contextlib.contextmanager
def staying_double() -> Any:
    """Modules that compute a part in float32 whatever their dtype (timm's linear attention) keep to float64."""
    import torch

    before = torch.Tensor.float
    torch.Tensor.float = lambda self, *args, **kwargs: self  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.Tensor.float = before  # type: ignore[method-assign]


def relative(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference of any sample, relative to the sample's largest value."""
    both = [(g.astype(np.float64), w.astype(np.float64)) for g, w in zip(got, want, strict=True)]
    return max(float(np.abs(g - w).max() / max(np.abs(w).max(), 1e-30)) for g, w in both)


def walked(net: Any, route: Any, links: Any, values: dict[str, np.ndarray], classes: list[int]) -> np.ndarray:
    """The walk back over given links and values, in the dtype of the values."""
    some = values[net.output]
    shapes = {"input": (len(some), *net.input_shape), **{i.node.name: (len(some), *i.shape) for i in route.graph}}
    walk = backward.Walk(
        route, frozenset(("input",)), False, 2, backward.Meter(0), shapes, dict(values), prepare=partial(backward._prepared, net)
    )
    walk.meter.add(*values.values())
    walk.expect(links)
    walk.cotangents[net.output] = backward._Cotangent(backward.cotangent(np.asarray(classes), some), True)
    walk.meter.add(walk.cotangents[net.output].array)
    walk.back(links)
    return walk.cotangents["input"].array


def corners(links: Any, values: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> int:
    """At how many places the slope of a piecewise operation differs between two runs: another side of a corner, another maximum."""
    count = 0
    for link in links:
        name, op, of = link.name, link.head.op, link.call.activation
        for kind in {of, op.name} & CORNERED:
            slopes = []
            for run in (values, exact):
                known = {key: run[key].astype(np.float64) for key in (name, *link.sources) if key in run}
                ones = np.ones((len(next(iter(run.values()))), *link.head.shape))
                if kind == of:
                    slopes.append(slope(kind, known[name], np.ones_like(known[name]), 2))
                else:
                    assert op.adjoint is not None
                    nothing = np.full(1, np.nan)
                    xs = [known.get(source, nothing) for source in link.sources[:1]]
                    slopes.append(op.adjoint(link.call, xs, known.get(name, nothing), ones, (True,), 2)[0])
            count += int((np.abs(slopes[0] - slopes[1]) > 0.01).sum())
    return count


def compare(name: str, size: int | None = None) -> dict[str, float | int]:
    """The errors of the four claims, and the number of corners between the two runs."""
    torch_net, x, net = prepared(name, size)
    narrow = x.numpy()
    with staying_double():
        classes, want, _ = of_torch(torch_net.double(), x.double())
    route = backward.plan_route(net._graph, net.output, ("input",), False)
    kept = route.keep | {net.output}
    exact = Double(net, route.graph, narrow.shape[1:]).execute(0, len(route.graph), {"input": narrow.astype(np.float64)}, kept)
    double = net.gradient(narrow.astype(np.float64), classes, dtype="float64")["input"]
    forward = Single(net, route.graph, kept, frozenset(("input",)), narrow.shape[1:], 2)
    links = forward.links
    values = {key: value.copy() for key, value in forward.execute(0, len(links), {"input": narrow}, kept).items()}
    wide = [
        replace(link, call=replace(link.call, params={r: p.astype(np.float64) for r, p in link.call.params.items()}, prepared=None))
        for link in links
    ]
    linear = walked(net, route, wide, {key: value.astype(np.float64) for key, value in values.items()}, classes)
    single = net.gradient(narrow, classes)["input"]
    assert np.array_equal(single, walked(net, route, links, values, classes))
    assert set(values) == set(exact)
    return {
        "double": relative(double, want),
        "values": max(relative(values[key], exact[key]) for key in values),
        "linear": relative(single, linear),
        "single": relative(single, want),
        "flips": corners(wide, values, exact),
    }


def note(name: str, errors: dict[str, float | int]) -> None:
    """Write a row of docs/gradients.json, where the test run is asked to."""
    if os.environ.get("SEMANTICLENS_WRITE_COVERAGE") != "1":
        return
    rows = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    rows[name] = {key: value if isinstance(value, int) else float(f"{value:.1e}") for key, value in errors.items()}
    TABLE.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", encoding="utf-8")
