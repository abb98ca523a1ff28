"""Random edits of valid networks, each loaded and, if it loads, run and differentiated: an error of the package or a right result.

    python tests/fuzz/mutate_graphs.py --count 100000                       # resumes with --start; --jobs processes
    python tests/fuzz/mutate_graphs.py --only 1234                          # one mutation again, with its traceback

The networks are the ones that test every operation, and random small graphs.  A mutation changes nodes, attributes, shapes, edges or
names of the graph, shapes and values of tensors, or bytes of the file.  What loads is run three ways: as users do, with every value
recorded, and in float64 by the plain NumPy forms; every node's result is compared with its NumPy form of the very same inputs, every
adjoint with the float64 adjoint, the gradient in segments with the gradient.  A result counts as right where the difference is one that
perturbing the inputs by their last digits explains.  For crashes and reads outside of buffers build with SEMANTICLENS_SANITIZE.
Each mutation has 60 seconds of processor time and 4 MB of values.  Ends with a line of counts, and exit code 1 if there was a finding.
"""

from __future__ import annotations

import argparse
import collections
import copy
import faulthandler
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
os.environ.setdefault("SEMANTICLENS_MAX_MEMORY", str(4 << 20))  # larger values only take longer
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("SEMANTICLENS_NUM_THREADS", "1")  # starting threads costs more than these networks; some trials do

import numpy as np  # noqa: E402
from network_cases import random_network, tiny_network  # noqa: E402
from test_operations import CASES  # noqa: E402

from semanticlens._errors import SemanticLensError  # noqa: E402
from semanticlens.io import sha256_of_arrays, write_tensors  # noqa: E402
from semanticlens.nn import Network, backward, segments  # noqa: E402
from semanticlens.nn.load import bundle  # noqa: E402
from semanticlens.nn.ops import OPS, Call  # noqa: E402

SECONDS = 60  # for one mutation
EXTREME = 1e12  # beyond it sums of float32 may overflow, and digits cancel
LARGE = (1 << 16, (1 << 31) - 1, 1 << 31, 1 << 40, 1 << 63)
NUMBERS = (0, 1, -1, 2, 3, 5, 7, 8, 13, 64, 255, 1000, *LARGE, -2, -(1 << 31), 0.5, -0.0, 1e30, 1e-30)
OTHERS = (None, True, False, "", "same", "input", "output", [], [1], [1, 1], [0, 0, 0, 0], {}, "0")
ROLES = sorted({role for op in OPS.values() for role in op.params + op.optional})
ATTRS = sorted({name for op in OPS.values() for name in op.attrs})
ACCEPTED = (SemanticLensError,)


def seeds() -> list[Network]:
    """The networks that are mutated."""
    return [*(net for nets in CASES.values() for net in nets), tiny_network(), *(random_network(seed, 6) for seed in range(24))]


def changed(value: Any, rng: random.Random) -> Any:
    """Another value in place of one of the graph's."""
    if isinstance(value, list) and value and rng.random() < 0.8:
        new = list(value)
        at = rng.randrange(len(new))
        kind = rng.randrange(4)
        if kind == 0:
            del new[at]
        elif kind == 1:
            new.insert(at, new[at])
        else:
            new[at] = changed(new[at], rng)
        return new
    if isinstance(value, (int, float)) and not isinstance(value, bool) and rng.random() < 0.7:
        return value + rng.choice((-2, -1, 1, 2)) if rng.random() < 0.6 else value * rng.choice((-1, 0, 2, 3))
    return copy.deepcopy(rng.choice(NUMBERS if rng.random() < 0.7 else OTHERS))


def change_node(graph: dict[str, Any], rng: random.Random, keys: list[str]) -> None:
    """One edit of a node or an edge."""
    nodes = graph["nodes"]
    at = rng.randrange(len(nodes))
    node, names = nodes[at], ["input", *(n["name"] for n in nodes)]
    kind = rng.randrange(9)
    if kind == 0:
        node["op"] = rng.choice(sorted(OPS))
    elif kind == 1 and node["inputs"]:
        node["inputs"][rng.randrange(len(node["inputs"]))] = rng.choice(names)
    elif kind == 2:
        node["inputs"] = [rng.choice(names) for _ in range(rng.randrange(4))]
    elif kind == 3:
        nodes.insert(rng.randrange(len(nodes) + 1), {**copy.deepcopy(node), "name": rng.choice([*names, "new", "x y"])})
    elif kind == 4 and len(nodes) > 1:
        del nodes[at]
    elif kind == 5:
        node["params"][rng.choice(ROLES)] = rng.choice(keys or ["w"])
    elif kind == 6 and node["params"]:
        del node["params"][rng.choice(sorted(node["params"]))]
    elif kind == 7:
        op = rng.choice(sorted(OPS))
        nodes.append({"name": f"more {len(nodes)}", "op": op, "inputs": [rng.choice(names)], "params": {}, "attrs": {}})
        graph["output"] = nodes[-1]["name"]
    else:
        graph["output"] = rng.choice(names)


def change_attr(graph: dict[str, Any], rng: random.Random) -> None:
    """One edit of a node's attributes, or of the input's shape."""
    if rng.random() < 0.2:
        graph["input"]["shape"] = changed(graph["input"]["shape"], rng)
        return
    attrs = rng.choice([node for node in graph["nodes"] if node["attrs"]] or graph["nodes"])["attrs"]
    if attrs and rng.random() < 0.85:
        name = rng.choice(sorted(attrs))
        attrs[name] = changed(attrs[name], rng)
    else:
        attrs[rng.choice(ATTRS)] = changed(1, rng)


def change_tensor(arrays: dict[str, np.ndarray], rng: random.Random) -> None:
    """One edit of a tensor: its shape, its size or its values."""
    if not arrays:
        return
    key = rng.choice(sorted(arrays))
    array = arrays[key].copy()
    kind = rng.randrange(6)
    if kind == 0:
        array = np.ascontiguousarray(array.T)
    elif kind == 1 and array.ndim:
        array = array.take(range(rng.randrange(2), array.shape[0]), axis=0)
    elif kind == 2:
        array = np.repeat(array, 2, axis=rng.randrange(array.ndim)) if array.ndim else array.reshape(1)
    elif kind == 3:
        array = array.reshape(rng.choice(((-1,), (1, *array.shape), (*array.shape, 1))))
    elif array.size:
        flat = array.reshape(-1)
        raw = flat[rng.randrange(array.size) :][:4].view(np.uint8)
        raw[rng.randrange(raw.size)] = rng.randrange(256)
        if kind == 5:
            flat[rng.randrange(array.size)] = rng.choice((0.0, -0.0, np.inf, np.nan, 1e-42, 3e38, -1e20, 1e-20))
    arrays[key] = np.ascontiguousarray(array)


def mutate(net: Network, rng: random.Random, path: Path) -> bool:
    """Write a changed bundle; returns whether its hash is still to be believed."""
    graph = json.loads(json.dumps(bundle.graph_dict(net)))
    arrays = {key: np.array(array) for key, array in net.params.items()}
    graph.update(preprocess=None, labels=None)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.random()
        if kind < 0.4:
            change_attr(graph, rng)
        elif kind < 0.75 and graph["nodes"]:
            change_node(graph, rng, sorted(arrays))
        else:
            change_tensor(arrays, rng)
    used = {key for node in graph["nodes"] for key in node["params"].values()}
    if rng.random() < 0.9:
        arrays = {key: array for key, array in arrays.items() if key in used}
    text = json.dumps(graph)
    digest = bundle._digest(text, sha256_of_arrays(arrays))
    write_tensors(path, arrays, {"format": bundle.FORMAT, "version": bundle.VERSION, "graph": text, "sha256": digest})
    if rng.random() > 0.15:
        return True
    content = bytearray(path.read_bytes())  # bytes of the file: the header's shapes, types and offsets, or the values
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(content))
        if rng.random() < 0.5:
            digits = [i for i, c in enumerate(content) if 48 <= c < 58]
            at = rng.choice(digits) if digits else at
            content[at] = rng.randrange(48, 58)
        else:
            content[at] = rng.randrange(256)
    path.write_bytes(content[: rng.randrange(len(content))] if rng.random() < 0.05 else content)
    return False


# ---- what must hold of what loads --------------------------------------------------------------------------------------------


class Wrong(Exception):
    """A finding."""


def close(got: np.ndarray, want: np.ndarray) -> bool:
    return bool(np.abs(got - want).max(initial=0) <= 1e-4 * np.abs(want).max(initial=0) + 1e-30)


def extreme(*arrays: np.ndarray) -> bool:
    """Numbers at which float32 and float64 part company: not finite, so large that sums overflow, or below what float32 divides by."""
    for array in arrays:
        size = np.abs(array)
        if not np.isfinite(size).all() or size.max(initial=0) > EXTREME or ((size > 0) & (size < 1e-30)).any():
            return True
    return False


def explained(got: np.ndarray, want: np.ndarray, again: Any) -> bool:
    """Whether perturbing the inputs in their last digits changes the result as much."""
    spread = np.zeros(want.shape)
    for seed in range(4):
        other = np.asarray(again(np.random.default_rng(seed)))
        if not np.isfinite(other).all():
            return True
        spread = np.maximum(spread, np.abs(other - want))
    return bool((np.abs(got - want) <= 1e-4 * np.abs(want).max(initial=0) + 1e3 * spread.max(initial=0) + 1e-30).all())


def perturbed(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return array * (1 + 1e-7 * rng.standard_normal(array.shape))


def check_node(item: Any, call: Call, xs: list[np.ndarray], y: np.ndarray, counts: collections.Counter[str]) -> None:
    """A node's float32 result against its plain form over the same inputs."""
    with np.errstate(all="ignore"):
        want = np.asarray(item.op.numpy(call, xs))
        if want.shape != y.shape:
            raise Wrong(f"{item.op.name}: shape {y.shape}, its plain form has {want.shape}")
        if extreme(want, y.astype(np.float64), *xs, *call.params.values()):
            counts["extreme"] += 1
            return

        def again(rng: np.random.Generator) -> Any:
            points = [x if i in item.op.ids else perturbed(x, rng) for i, x in enumerate(xs)]
            params = {role: perturbed(param, rng) for role, param in call.params.items()}
            return item.op.numpy(Call(call.attrs, params), points)

        if not close(y, want) and not explained(y, want, again):
            raise Wrong(f"{item.op.name}: differs from its plain form by {np.abs(y - want).max()} of {np.abs(want).max()}")
    counts["values"] += 1


def check_adjoint(item: Any, narrow: Call, wide: Call, xs: list[np.ndarray], y: np.ndarray, counts: collections.Counter[str]) -> None:
    """A node's float32 adjoint against the float64 one over the same values."""
    rng = np.random.default_rng(0)
    grad = rng.standard_normal(y.shape).astype(np.float32)
    needed = [i not in item.op.ids for i in range(len(xs))]
    with np.errstate(all="ignore"):
        got = item.op.adjoint(narrow, [x.astype(np.float32) for x in xs], y, grad, needed, 1)
        want = item.op.adjoint(wide, xs, y.astype(np.float64), grad.astype(np.float64), needed, 1)
        # a gradient that is nothing but a difference of equal terms (attention to a single key) keeps a rounding of those
        rounding = 1e-6 * max((np.abs(b).max(initial=0) for i, b in enumerate(want) if needed[i] and b is not None), default=0)
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            if not needed[i] or a is None:
                continue
            if a.shape != xs[i].shape or b.shape != xs[i].shape:
                raise Wrong(f"adjoint of {item.op.name}: shape {a.shape} for an input of shape {xs[i].shape}")
            if extreme(a.astype(np.float64), b, y.astype(np.float64), *xs, *wide.params.values()):
                counts["extreme"] += 1
                continue

            def again(rng: np.random.Generator, i: int = i) -> Any:
                points = [x if k in item.op.ids else perturbed(x, rng) for k, x in enumerate(xs)]
                params = {role: perturbed(param, rng) for role, param in wide.params.items()}
                out = item.op.numpy(Call(wide.attrs, params), points)
                return item.op.adjoint(Call(wide.attrs, params), points, out, grad.astype(np.float64), needed, 1)[i]

            if not np.abs(a - b).max(initial=0) <= rounding and not close(a, b) and not explained(a, b, again):
                raise Wrong(f"adjoint of {item.op.name}: differs by {np.abs(a - b).max()} of {np.abs(b).max()}")
            counts["adjoints"] += 1


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a, b, equal_nan=True))


def check(net: Network, n_threads: int, counts: collections.Counter[str]) -> None:
    """Run, record, compare, differentiate."""
    rng = np.random.default_rng(7)
    shape = tuple(dim or int(rng.integers(1, 9)) for dim in net.input_shape)
    ids = net.takes_ids
    x: Any = rng.integers(0, 4, (2, *shape)) if ids else rng.standard_normal((2, *shape)).astype(np.float32)
    plain = net.run(x, n_threads=1)["output"]
    if not same(plain, net.run(x, n_threads=n_threads)["output"]):
        raise Wrong("the number of threads changes the output")
    counts["run"] += 1
    known = net.run(x, ["input", *net.layers.names], n_threads=1)
    if not same(known[net.output], plain):
        raise Wrong("recording every value changes the output")
    whole = net.run(x, dtype="float64")["output"]
    if whole.shape != plain.shape:
        raise Wrong(f"the output has shape {plain.shape}, in float64 {whole.shape}")
    graph = net._graph if None not in net.input_shape else bundle_graph(net, shape)
    wides = {}
    for item in graph:
        xs = [known[name].astype(np.float64) for name in item.node.inputs]
        wides[item.node.name] = segments.call_double(net, item, [x.shape[1:] for x in xs])
        check_node(item, wides[item.node.name], xs, known[item.node.name], counts)
    differentiate(net, graph, x, plain, known, wides, n_threads, counts)


def bundle_graph(net: Network, shape: tuple[int, ...]) -> Any:
    from semanticlens.nn.graph import check_graph

    return check_graph(net.nodes, net.params, shape)


def differentiate(
    net: Network, graph: Any, x: Any, plain: np.ndarray, known: Any, wides: Any, n_threads: int, counts: collections.Counter[str]
) -> None:
    """Gradients by input and parameters: whole and in segments, in float64, and every adjoint by itself."""
    wrt = () if net.takes_ids or not depends(net) else ("input",)
    params = bool(net.params)
    if not wrt and not params:
        return
    target = np.random.default_rng(1).standard_normal(plain.shape)
    one = net.gradient(x, target, wrt, params=params, n_threads=1)
    other = net.gradient(x, target, wrt, params=params, n_threads=n_threads, segments=2)
    if not same(one.value, plain) or not all(same(one[n], other[n]) for n in wrt):
        raise Wrong("segments or threads change the gradient")
    if not all(same(one.params[key], other.params[key]) for key in one.params):
        raise Wrong("segments or threads change the gradient by the parameters")
    net.gradient(x if net.takes_ids else x.astype(np.float64), target, wrt, params=params, dtype="float64")
    counts["differentiated"] += 1
    forward = segments.Single(net, graph, frozenset(known) - {"input"}, frozenset(known), x.shape[1:], 1)
    calls = {link.name: link.call for link in forward.links}
    for item in graph:
        if item.op.adjoint is not None and item.node.name in calls:
            xs = [known[name].astype(np.float64) for name in item.node.inputs]
            check_adjoint(item, calls[item.node.name], wides[item.node.name], xs, known[item.node.name], counts)


def depends(net: Network) -> bool:
    """Whether a gradient passes from the output to the input."""
    try:
        route = backward.plan_route(net._graph, net.output, ("input",), False)
    except (ValueError, SemanticLensError):
        return False
    reached = {"input"}
    for item in route.graph:
        if any(name in reached and i not in item.op.ids for i, name in enumerate(item.node.inputs)):
            reached.add(item.node.name)
    return net.output in reached and net.output != "input"


def trial(number: int, seed: int, networks: list[Network], path: Path, counts: collections.Counter[str]) -> None:
    """One mutation: an error of the package, or everything that :func:`check` asks."""
    rng = random.Random(f"{seed} {number}")
    try:
        verify = mutate(networks[rng.randrange(len(networks))], rng, path)
    except (SemanticLensError, UnicodeEncodeError):
        counts["not written"] += 1
        return
    try:
        net = bundle.read_bundle(path, verify=verify, allow_nonfinite=rng.random() < 0.3)
        counts["loaded"] += 1
        check(net, 3 if rng.random() < 0.1 else 1, counts)
    except ACCEPTED as error:
        if not str(error):
            raise Wrong("an error without a message") from error
        counts[f"refused: {type(error).__name__}"] += 1
    except ValueError as error:
        if "has no gradient" not in str(error) and "does not depend" not in str(error):
            raise
        counts["refused: no gradient"] += 1


# ---- driving ---------------------------------------------------------------------------------------------------------------


def work(start: int, stop: int, step: int, seed: int, state: Path, only: bool = False) -> int:
    """The mutations of one process; ``state`` always holds the number that is under way."""
    warnings.simplefilter("error")
    faulthandler.enable()
    networks, counts, findings = seeds(), collections.Counter[str](), 0
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=folder) as place, state.open("w") as at:
        path, begun = Path(place, "m.safetensors"), time.monotonic()
        for number in range(start, stop, step):
            at.seek(0)
            at.write(f"{number:12d}")
            at.flush()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process, wherever it is; processor time: machines are shared
            try:
                trial(number, seed, networks, path, counts)
            except Exception:
                findings += 1
                print(f"FINDING in mutation {number} of seed {seed}:\n{traceback.format_exc()}", flush=True)
            if only:
                print(path.read_bytes()[:4000])
            if (number - start) // step % 2000 == 1999:
                print(f"at {number}: {(time.monotonic() - begun):.0f} s, {findings} findings", flush=True)
        signal.setitimer(signal.ITIMER_PROF, 0)
    print("COUNTS " + json.dumps(counts), flush=True)
    return findings


def drive(options: argparse.Namespace) -> int:
    """Run the processes; a crash or a hang is a finding, and the process goes on behind it."""
    total, failures = collections.Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        ends = options.start + options.count
        waiting = [(options.start + j, Path(folder, f"{j}")) for j in range(options.jobs)]
        running: list[tuple[Any, Path, Path]] = []
        while waiting or running:
            while waiting:
                begin, state = waiting.pop()
                log = state.with_suffix(f".{begin}.log")
                command = [sys.executable, __file__, "--worker", str(state), "--start", str(begin), "--count", str(max(0, ends - begin))]
                command += ["--seed", str(options.seed), "--jobs", str(options.jobs)]
                running.append((subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT), state, log))
            process, state, log = running.pop(0)
            try:
                code = process.wait(30)
            except subprocess.TimeoutExpired:
                running.append((process, state, log))
                print(f"  under way: {state.read_text().strip() if state.exists() else '-'}", flush=True)
                continue
            text = log.read_text(errors="replace")
            failures += text.count("FINDING in mutation")
            counted = [line for line in text.splitlines() if line.startswith("COUNTS ")]
            print("\n".join(line for line in text.splitlines() if not line.startswith(("COUNTS ", "at "))), flush=True)
            if counted:
                total.update(json.loads(counted[0][7:]))
            else:
                number = int(state.read_text())
                failures += 1
                print(f"CRASH OR HANG in mutation {number} of seed {options.seed} (exit code {code})", flush=True)
                waiting.append((number + options.jobs, state))
    print(f"{options.count} mutations from {options.start} of seed {options.seed}: {dict(sorted(total.items()))}; {failures} findings")
    return 1 if failures else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--start", type=int, default=0, help="number of the first mutation: to resume")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", type=int, help="this one mutation")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            return int(work(options.only, options.only + 1, 1, options.seed, Path(folder, "state"), True) > 0)
    if options.worker is not None:
        work(options.start, options.start + options.count, options.jobs, options.seed, options.worker)
        return 0
    return drive(options)


if __name__ == "__main__":
    sys.exit(main())
