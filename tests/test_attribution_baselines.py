"""Baselines of relevance: against closed forms, against loops written out here, and in what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attribution_cases import draw, resnet_like

from semanticlens import attribution
from semanticlens._errors import DataError, UnsupportedOperationError
from semanticlens.attribution import (
    attention_rollout,
    class_attention,
    gradient_rollout,
    gradient_x_input,
    integrated_gradients,
    occlusion,
    smooth_grad,
)
from semanticlens.nn import Network, Node

X = np.random.default_rng(0).standard_normal((3, 3, 12, 12)).astype(np.float32)
TARGETS = [1, 0, 4]


def linear() -> Network:
    nodes = [Node("flat", "flatten", "input"), Node("fc", "dense", "flat", {"weight": "w", "bias": "b"})]
    rng = np.random.default_rng(1)
    return Network(nodes, {"w": draw(rng, 5, 432), "b": draw(rng, 5)}, input_shape=(3, 12, 12))


def by_hand(net: Network) -> np.ndarray:
    return net.params["w"][TARGETS].reshape(3, 3, 12, 12) * X


def total(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).sum(axis=1, dtype=np.float64)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (gradient_x_input, {}),
        (integrated_gradients, {"steps": 1}),
        (integrated_gradients, {"steps": 7, "rule": "trapezoid"}),
        (smooth_grad, {"n": 3, "times_input": True}),
    ],
)
def test_of_a_linear_network_all_gradients_are_the_same(method: Any, options: dict[str, Any]) -> None:
    got = method(linear(), X, TARGETS, **options)
    assert np.abs(got.input - by_hand(linear())).max() < 1e-5
    assert got.output.tobytes() == linear()(X).tobytes()
    assert np.asarray(got).tobytes() == got.input.tobytes()


def test_integrated_gradients_are_complete() -> None:
    """The gap falls with the number of steps; each rule equals its sum written out."""
    net, origin = resnet_like(), 0.3 * X[:1]
    gaps = []
    for steps in (2, 16, 256):
        got = integrated_gradients(net, X, TARGETS, baseline=origin, steps=steps)
        difference = (net(X) - net(np.repeat(origin, 3, axis=0)))[np.arange(3), TARGETS]
        assert got.gap == pytest.approx(total(got.input) - difference, abs=1e-5)
        gaps.append(np.abs(got.gap).max())
    assert gaps[2] < 1e-2 * np.abs(difference).max()
    assert gaps[2] < gaps[1] < gaps[0]
    got = integrated_gradients(net, X, TARGETS, steps=4, rule="trapezoid")
    weights = [0.125, 0.25, 0.25, 0.25, 0.125]
    want = sum(w * net.gradient(np.float32(i / 4) * X, TARGETS)["input"].astype(float) for i, w in enumerate(weights))
    assert np.abs(got.input - want * X).max() < 1e-5 * np.abs(got.input).max()


def test_smooth_grad() -> None:
    net = resnet_like()
    plain = net.gradient(X, TARGETS)["input"]
    assert np.abs(smooth_grad(net, X, TARGETS, noise=0, n=2).input - plain).max() < 1e-6
    assert not smooth_grad(net, X, TARGETS, noise=0, n=3, kind="variance").input.any()
    draws = []
    for k in range(4):
        noise = np.stack([np.random.default_rng([5, i, k]).standard_normal(X[0].shape, np.float32) for i in range(3)])
        level = 0.2 * (X.max(axis=(1, 2, 3)) - X.min(axis=(1, 2, 3)))
        draws.append(net.gradient(X + level[:, None, None, None].astype(np.float32) * noise, TARGETS)["input"].astype(float))
    for kind, want in (("mean", np.mean(draws, 0)), ("square", np.mean(np.square(draws), 0)), ("variance", np.var(draws, 0, ddof=1))):
        got = smooth_grad(net, X, TARGETS, noise=0.2, n=4, kind=kind, seed=5)
        assert np.abs(got.input - want).max() < 1e-4 * np.abs(want).max(), kind
    one = smooth_grad(net, X[1:2], 0, n=4)
    assert one.parameters == {"noise": 0.15, "n": 4, "kind": "mean", "times_input": False, "seed": 0}


# ---------------------------------------------------------------- occlusion


@pytest.mark.parametrize(("window", "stride"), [(4, None), ((3, 5), (2, 4)), (12, 1), (1, 1)])
@pytest.mark.parametrize("fill", [0.0, "mean", X.max(axis=(0, 2, 3)).reshape(1, 3, 1, 1)])
def test_occlusion_is_the_mean_fall(window: Any, stride: Any, fill: Any) -> None:
    net = linear()
    got = occlusion(net, X, TARGETS, window=window, stride=stride, fill=fill, batch_size=7)
    height, width = (window, window) if isinstance(window, int) else window
    down, across = (max(1, height // 2), max(1, width // 2)) if stride is None else (stride, stride) if isinstance(stride, int) else stride
    put = np.broadcast_to(X.mean(axis=(2, 3), keepdims=True) if isinstance(fill, str) else fill, X.shape)
    contributions = (net.params["w"][TARGETS].reshape(X.shape) * (X - put)).sum(axis=1, dtype=np.float64)
    falls, count = np.zeros((3, 12, 12)), np.zeros((12, 12))
    for y in sorted({*range(0, 12 - height, down), 12 - height}):
        for x in sorted({*range(0, 12 - width, across), 12 - width}):
            part = (slice(None), slice(y, y + height), slice(x, x + width))
            falls[part] += contributions[part].sum(axis=(1, 2), keepdims=True)
            count[part[1:]] += 1
    assert got.input.shape == (3, 12, 12)
    assert np.abs(got.input - falls / count).max() < 1e-4
    assert got.heatmap() is got.input


@pytest.mark.parametrize(
    ("method", "options"),
    [(gradient_x_input, {}), (integrated_gradients, {"steps": 5}), (smooth_grad, {"n": 3}), (occlusion, {"window": 6})],
)
def test_batches_and_threads(method: Any, options: dict[str, Any]) -> None:
    net = resnet_like()
    one = method(net, X, TARGETS, **options, batch_size=4)
    for threads in (2, 3):
        assert method(net, X, TARGETS, **options, batch_size=4, n_threads=threads).input.tobytes() == one.input.tobytes()
    for size in (1, 32):
        assert np.abs(method(net, X, TARGETS, **options, batch_size=size).input - one.input).max() < 1e-5 * np.abs(one.input).max()
    factors = np.eye(5, dtype=np.float32)[TARGETS]
    assert method(net, X, factors, **options, batch_size=4).input.tobytes() == one.input.tobytes()


def test_results_are_judged_drawn_and_printed(tmp_path: Any) -> None:
    net = resnet_like()
    judged = attribution.evaluate(net, X, gradient_x_input, targets=TARGETS, metrics="sparseness")
    same = attribution.evaluate(net, X, gradient_x_input(net, X, TARGETS), targets=TARGETS, metrics="sparseness")
    assert judged.scores["gini"].tobytes() == same.scores["gini"].tobytes()
    got = occlusion(net, X, TARGETS, window=6)
    assert got.save(tmp_path / "map.png").stat().st_size > 1000
    assert got._repr_png_().startswith(b"\x89PNG")
    assert repr(got) == "Baseline(occlusion: window=(6, 6), stride=(3, 3), fill=0.0; map (3, 12, 12))"
    with pytest.raises(KeyError, match="explains the input only"):
        got.heatmap("conv0")


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    [
        (gradient_x_input, {"target": None}, ValueError, "target is missing"),
        (gradient_x_input, {"target": 9}, ValueError, "target=9 is out of range"),
        (gradient_x_input, {"target": np.ones_like}, TypeError, "not a function"),
        (gradient_x_input, {"batch_size": 0}, ValueError, "batch_size=0"),
        (gradient_x_input, {"x": np.full_like(X, np.nan)}, DataError, "NaN"),
        (integrated_gradients, {"steps": 0}, ValueError, "steps=0"),
        (integrated_gradients, {"steps": 2.5}, ValueError, "steps=2.5"),
        (integrated_gradients, {"rule": "simpson"}, ValueError, "rule='simpson'"),
        (integrated_gradients, {"baseline": np.zeros(7)}, ValueError, r"baseline of shape \(7,\)"),
        (integrated_gradients, {"baseline": np.nan}, ValueError, "baseline holds NaN"),
        (smooth_grad, {"noise": -1}, ValueError, "noise=-1"),
        (smooth_grad, {"n": 1, "kind": "variance"}, ValueError, "n=1: must be a whole number of at least 2"),
        (smooth_grad, {"kind": "median"}, ValueError, "kind='median'"),
        (occlusion, {"window": 13}, ValueError, "window=13 is larger than the picture, 12 x 12"),
        (occlusion, {"window": 4, "stride": 5}, ValueError, "stride=5 leaves gaps"),
        (occlusion, {"window": (4, 4, 4)}, ValueError, "a number or"),
        (occlusion, {"window": 6, "fill": "blur"}, ValueError, "fill=.blur.: must be"),
    ],
)
def test_bad_input(method: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"x": X, "target": 1, **options}
    with pytest.raises(error, match=message):
        method(resnet_like(), given.pop("x"), given.pop("target"), **given)


# ---------------------------------------------------------------- attention

T, D, HEADS = 10, 8, 2  # nine tokens of the picture and the class token


def transformer(seed: int = 0, class_token: bool = True) -> Network:
    """Two layers of attention over 3 x 3 tokens of 4 x 4 pixels."""
    rng = np.random.default_rng(seed)
    params = {"patch": 0.2 * draw(rng, D, 3, 4, 4), "fc": draw(rng, 5, D)}
    nodes = [
        Node("patches", "conv2d", "input", {"weight": "patch"}, {"stride": (4, 4)}),
        Node("flat", "reshape", "patches", attrs={"shape": [D, 9]}),
        Node("tokens", "permute", "flat", attrs={"axes": (2, 1)}),
    ]
    at, n = "tokens", 9
    if class_token:
        params["cls"], n = draw(rng, 1, D), T
        nodes += [Node("cls", "constant", "input", {"value": "cls"}), Node("all", "concat", ("cls", "tokens"), attrs={"axis": 1})]
        at = "all"
    for layer in "ab":
        for role in "qkvo":
            params[layer + role] = 0.4 * draw(rng, D, D)
        for role in "qkv":
            name = f"{layer}.{role}"
            nodes += [
                Node(name, "dense", at, {"weight": layer + role}),
                Node(f"{name}.heads", "reshape", name, attrs={"shape": [n, HEADS, D // HEADS]}),
                Node(f"{name}.split", "permute", f"{name}.heads", attrs={"axes": (2, 1, 3)}),
            ]
        nodes += [
            Node(f"{layer}.attend", "attention", tuple(f"{layer}.{role}.split" for role in "qkv")),
            Node(f"{layer}.back", "permute", f"{layer}.attend", attrs={"axes": (2, 1, 3)}),
            Node(f"{layer}.joined", "reshape", f"{layer}.back", attrs={"shape": [n, D]}),
            Node(f"{layer}.out", "dense", f"{layer}.joined", {"weight": layer + "o"}),
            Node(f"{layer}.sum", "add", (at, f"{layer}.out")),
        ]
        at = f"{layer}.sum"
    nodes += [Node("mean", "mean", at, attrs={"axes": [1], "keepdims": False}), Node("head", "dense", "mean", {"weight": "fc"})]
    return Network(nodes, params, input_shape=(3, 12, 12), name="small")


def attend(net: Network, layer: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(A, V, O, dO) of a layer, in double."""
    names = [f"{layer}.{role}.split" for role in "qkv"]
    values = net.run(X, record=[*names, f"{layer}.attend"])
    q, k, v = (values[name].astype(float) for name in names)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(D / HEADS)
    a = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    assert np.abs(a @ v - values[f"{layer}.attend"]).max() < 1e-5
    slope = net.gradient(X, TARGETS, wrt=f"{layer}.attend")[f"{layer}.attend"].astype(float)
    return a, v, a @ v, slope


def normalised(m: np.ndarray) -> np.ndarray:
    return m / m.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("heads", ["mean", "max", "min"])
def test_rollout(heads: str) -> None:
    net = transformer()
    first, second = (normalised(getattr(attend(net, layer)[0], heads)(axis=1) + np.eye(T)) for layer in "ab")
    want = (second @ first)[:, 0, 1:]
    got = attention_rollout(net, X, heads=heads, batch_size=2)
    assert np.abs(got.tokens - want).max() < 1e-5
    assert got.input.shape == (3, 12, 12)
    one = attention_rollout(net, X, heads=heads, layers=["b.attend"], row="mean")
    assert np.abs(one.tokens - second.mean(axis=1)[:, 1:]).max() < 1e-5
    assert attention_rollout(net, X, heads=heads, row=3).tokens == pytest.approx((second @ first)[:, 3, 1:], abs=1e-5)
    bare = transformer(class_token=False)
    first, second = (normalised(getattr(attend(bare, layer)[0], heads)(axis=1) + np.eye(9)) for layer in "ab")
    assert attention_rollout(bare, X, heads=heads).tokens == pytest.approx((second @ first).mean(axis=1), abs=1e-5)


def test_rollout_discards_the_smallest() -> None:
    net = transformer()
    joined = [attend(net, layer)[0].mean(axis=1) for layer in "ab"]
    for matrices in joined:
        for m in matrices:
            rest = np.sort(m[:, 1:].ravel())
            m[:, 1:][m[:, 1:] < rest[45]] = 0  # half of the 90 that are not the class token's
    first, second = (normalised(m + np.eye(T)) for m in joined)
    assert attention_rollout(net, X, discard=0.5).tokens == pytest.approx((second @ first)[:, 0, 1:], abs=1e-5)


def test_gradient_rollout_and_class_attention() -> None:
    net = transformer()
    plain, specific = np.eye(T), np.eye(T)
    kept = attribution.attribute(
        net,
        X,
        np.eye(5, dtype=np.float32)[TARGETS],
        composite=attribution.Composite.attn_lrp().with_rule(type="linear", rule=attribution.rules.AlphaBeta(1, 0)),
        record=["a.attend", "b.attend"],
    )
    for layer in "ab":
        a, v, o, slope = attend(net, layer)
        d = slope @ v.swapaxes(-1, -2)
        plain = normalised(np.maximum(a * d, 0).mean(axis=1) + np.eye(T)) @ plain
        r = a * ((kept[f"{layer}.attend"] / (2 * o + 1e-9 * np.sign(o))) @ v.swapaxes(-1, -2))
        assert total(r) == pytest.approx(total(kept[f"{layer}.attend"]) / 2, rel=1e-3)  # half goes to the weights
        specific = (np.eye(T) + np.maximum(d * r, 0).mean(axis=1)) @ specific
    got = gradient_rollout(net, X, TARGETS, discard=0.0)
    assert got.tokens == pytest.approx(plain[:, 0, 1:], abs=1e-4)
    found = class_attention(net, X, TARGETS)
    assert np.abs(found.tokens - specific[:, 0, 1:]).max() < 1e-3 * specific[:, 0, 1:].max()
    assert not np.allclose(class_attention(net, X, 2).tokens, found.tokens)
    assert class_attention(net, X, TARGETS, first=1).tokens.shape == (3, 9)
    for method in (attention_rollout, gradient_rollout, class_attention):
        one = method(net, X, TARGETS)
        assert method(net, X, TARGETS, n_threads=3).tokens.tobytes() == one.tokens.tobytes()
        assert method(net, X, TARGETS, batch_size=1).tokens == pytest.approx(one.tokens, rel=1e-3, abs=1e-6)
        assert one.plot().image.width > 100


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    [
        (attention_rollout, {"heads": "sum"}, ValueError, "heads='sum'"),
        (attention_rollout, {"discard": 1.0}, ValueError, "discard=1.0"),
        (attention_rollout, {"row": 10}, ValueError, "row=10"),
        (attention_rollout, {"row": "last"}, ValueError, "row='last'"),
        (attention_rollout, {"layers": ["a.sum"]}, DataError, "'a.sum' is no such"),
        (attention_rollout, {"layers": []}, DataError, "name attention nodes"),
        (attention_rollout, {"grid": (4, 4)}, ValueError, "the network has 10 tokens"),
        (attention_rollout, {"batch_size": 0}, ValueError, "batch_size=0"),
        (gradient_rollout, {"target": None}, ValueError, "target is missing"),
        (class_attention, {"target": None}, ValueError, "target is missing"),
        (class_attention, {"first": 2}, ValueError, "first=2: must be a whole number below 2"),
        (class_attention, {"target": np.ones_like}, TypeError, "not a function"),
    ],
)
def test_bad_input_of_attention(method: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"target": 1, **options}
    with pytest.raises(error, match=message):
        method(transformer(), X, given.pop("target"), **given)


def test_networks_without_attention_say_so() -> None:
    with pytest.raises(UnsupportedOperationError, match="has no attention nodes"):
        attention_rollout(resnet_like(), X)


# ---------------------------------------------------------------- captum


@pytest.mark.peers
def test_captum() -> None:
    """Integrated gradients (midpoint and trapezoid), occlusion and gradient x input of a small network in torch."""
    torch = pytest.importorskip("torch")
    attr = pytest.importorskip("captum.attr")

    net = resnet_like()
    p = {key: torch.from_numpy(np.array(value)) for key, value in linear().params.items()}

    def forward(x: Any) -> Any:
        z = torch.tanh(x.reshape(len(x), -1) @ p["w"].T / 10 + p["b"])
        return z * z

    nodes = [
        Node("flat", "flatten", "input"),
        Node("fc", "dense", "flat", {"weight": "w", "bias": "b"}),
        Node("bend", "tanh", "fc"),
        Node("square", "mul", ("bend", "bend")),
    ]
    net = Network(nodes, {"w": linear().params["w"] / 10, "b": linear().params["b"]}, input_shape=(3, 12, 12))
    x, target = torch.from_numpy(X), torch.tensor(TARGETS)
    assert np.abs(net(X) - forward(x).numpy()).max() < 1e-5
    origin = 0.2 * X[:1]
    # captum weighs the n points of its trapezoid rule by 1/n, the ends by half of that: in all (n - 1) / n, and its map misses as much
    for rule, ours, steps, whole in (("riemann_middle", "midpoint", 20, 1.0), ("riemann_trapezoid", "trapezoid", 21, 20 / 21)):
        want = attr.IntegratedGradients(forward).attribute(x, torch.from_numpy(origin), target=target, n_steps=steps, method=rule)
        got = integrated_gradients(net, X, TARGETS, baseline=origin, steps=20, rule=ours)
        assert np.abs(whole * got.input - want.numpy()).max() < 1e-5 * np.abs(want.numpy()).max(), rule
    want = attr.InputXGradient(forward).attribute(x.clone().requires_grad_(), target=target).detach().numpy()
    assert np.abs(gradient_x_input(net, X, TARGETS).input - want).max() < 1e-5 * np.abs(want).max()
    shaped = attr.Occlusion(forward).attribute(x, (3, 4, 4), (3, 2, 2), baselines=0.5, target=target).numpy()
    got = occlusion(net, X, TARGETS, window=4, stride=2, fill=0.5)
    assert np.abs(got.input - shaped[:, 0]).max() < 1e-5 * np.abs(shaped).max()
