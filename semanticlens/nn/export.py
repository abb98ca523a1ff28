"""From a live torch module to a :class:`semanticlens.nn.Network`: the only place of this package that imports torch.

``torch.export`` traces the module into a flat graph of ATen operations without side effects; each is translated by
one small function below.  What depends on parameters alone is computed once, dropout and other identities vanish, and
whatever has no counterpart is an error that names the operation, the node and the module it came from.  Before the
network is returned it is run beside the module.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError, MissingExtraError, NumericalError, UnsupportedOperationError
from semanticlens.nn.aten import IDENTITIES, OPERATIONS, SHAPES_ONLY, Parts, Refused, Traced
from semanticlens.nn.aten.moves import part
from semanticlens.nn.network import Network, Node
from semanticlens.nn.ops import OPS
from semanticlens.nn.preprocess import Preprocess

__all__ = ["from_torch"]

F32 = NDArray[np.float32]
_BATCH = 13  # traced with, so that the batch is told from every other size; no layer has 13 of anything
_TOLERANCE = 1e-3  # of the largest value; rounding stays below 1e-5, a wrong translation does not


def from_torch(
    module: Any,
    example: Any,
    *,
    name: str | None = None,
    preprocess: Preprocess | None = None,
    labels: Sequence[str] | None = None,
) -> Network:
    """Translate a torch module.

    Parameters
    ----------
    module : torch.nn.Module
        Exported in evaluation mode; its training flags are put back.  Parameters are copied as float32.
    example : torch.Tensor or ndarray of shape (B, C, H, W) or (B, D)
        An input as the module takes it; fixes all sizes but the batch.
    name : str, optional
        The network's name; the module's class if left out.
    preprocess : Preprocess, optional
        How pictures become inputs.
    labels : sequence of str, optional
        Class names.

    Returns
    -------
    Network
        Nodes are called by their module paths (``layer1.0.conv1``, ``layer1.0.add``; a module called again gets
        ``_1``, ``_2``), and the path of a module that holds others (``layer1.0``) is an alias of the node that
        computes its output.

    Raises
    ------
    MissingExtraError
        If torch is not installed.
    UnsupportedOperationError
        If the module uses an operation this package does not have, cannot be traced, or does not give exactly one
        tensor.
    NumericalError
        If the translated network does not give what the module gives.
    """
    torch = _import_torch()
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, not {type(module).__name__}")
    tensor = _example(torch, example)
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            graph = Translator(torch, module, tensor).translate()
            net = Network(
                graph.nodes,
                graph.params,
                input_shape=tuple(tensor.shape[1:]),
                output=graph.output,
                name=name or type(module).__name__,
                aliases=graph.aliases,
                preprocess=preprocess,
                labels=labels,
            )
            return _compare(torch, net, module, tensor, graph.layouts)
    finally:
        for part, flag in training.items():
            part.training = flag


def _import_torch() -> Any:
    try:
        import torch
        import torch.export
    except ImportError:
        raise MissingExtraError("torch", "torch", "export from torch") from None
    return torch


def _example(torch: Any, example: Any) -> Any:
    if isinstance(example, tuple) and len(example) == 1:
        example = example[0]
    tensor = torch.as_tensor(example)
    if tensor.ndim < 2 or tensor.numel() == 0 or tensor.dtype in (torch.bool, torch.uint8) or tensor.is_complex():
        raise DataError(
            "example must be a floating-point batch such as (1, 3, 224, 224), or whole numbers (int64) such as token "
            f"ids (1, 32), not {tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    return tensor.detach()


def _compare(torch: Any, net: Network, module: Any, tensor: Any, layouts: Mapping[str, Traced]) -> Network:
    """Run both on a batch of two, and drop the aliases of modules whose output is no single node's value."""
    whole = not tensor.is_floating_point()
    batch = torch.cat([tensor[:1], tensor[:1].flip(-1) if whole else tensor[:1].flip(-1) * 0.5])
    outputs: dict[str, list[Any]] = {}

    def keep(path: str) -> Any:
        return lambda _module, _inputs, out: outputs.setdefault(path, []).append(
            out.detach().clone() if torch.is_tensor(out) else None
        )

    hooks = [
        part.register_forward_hook(keep(path))
        for path, part in module.named_modules()
        if path in net.aliases or not path
    ]
    try:
        module(batch)
    finally:
        for hook in hooks:
            hook.remove()
    tolerance = _TOLERANCE if whole or tensor.dtype in (torch.float32, torch.float64) else 50 * _TOLERANCE
    values = net.run(batch.numpy() if whole else _array(batch), ["output", *net.aliases])
    wrong = {
        path
        for path, value in values.items()
        if path in net.aliases and not _agree(value, outputs.get(path, []), tolerance, layouts[path])
    }
    if not _agree(values["output"], outputs[""], tolerance):
        want = _array(outputs[""][0])
        raise NumericalError(
            "the translated network differs from the module by "
            f"{np.abs(values['output'] - want).max():g} (largest output "
            f"{np.abs(want).max():g}); its computation may depend on the values or on the size "
            "of the batch"
        )
    if not wrong:
        return net
    return Network(
        net.nodes,
        net.params,
        input_shape=net.input_shape,
        output=net.output,
        name=net.name,
        preprocess=net.preprocess,
        labels=net.labels,
        aliases={path: target for path, target in net.aliases.items() if path not in wrong},
    )


def _agree(value: F32, outputs: Sequence[Any], tolerance: float, layout: Traced | None = None) -> bool:
    if len(outputs) != 1 or outputs[0] is None:
        return False
    want = _array(outputs[0])
    if layout is not None and value.size == want.size:
        value = layout.back(value, want.shape)
    return want.shape == value.shape and bool(
        np.abs(value - want).max() <= tolerance * max(float(np.abs(want).max()), 1e-30)
    )


def _array(tensor: Any) -> F32:
    result: F32 = np.ascontiguousarray(tensor.detach().cpu().float().numpy())
    return result


class Translator:
    """One pass over the traced graph: a value is a node of ours and the place of its batch, or a tensor that depends on
    parameters alone."""

    def __init__(self, torch: Any, module: Any, tensor: Any) -> None:
        self.torch, self.batch = torch, _BATCH
        self.program = _trace(torch, module, tensor[:1].repeat(_BATCH, *[1] * (tensor.ndim - 1)))
        self.leaves = {path for path, part in module.named_modules() if path and not any(True for _ in part.children())}
        self.nodes: list[Node] = []
        self.params: dict[str, NDArray[Any]] = {}
        self.aliases: dict[str, str] = {}
        self.layouts: dict[str, Traced] = {}
        self.output = ""
        self.values: dict[Any, Any] = {}
        self.keys: dict[int, str] = {}  # id of a parameter tensor -> its key, so that shared ones stay shared
        self.sources: dict[int, str] = {}
        self.kept: list[Any] = []  # keeps those ids unique
        self.taken = {"input", "output"}
        self.names = _node_names(self.program.graph.nodes, self.leaves)

    def translate(self) -> Translator:
        constants = _constants(self.program)
        for fx in self.program.graph.nodes:
            if fx.op == "placeholder":
                if fx.name in constants:
                    key, tensor = constants[fx.name]
                    self.values[fx] = tensor
                    self.sources[id(tensor)] = key
                elif any(isinstance(known, Traced) for known in self.values.values()):
                    raise UnsupportedOperationError(
                        "the module takes more than one input; wrap it in one that takes a single tensor"
                    )
                else:
                    self.values[fx] = Traced("input")
            elif fx.op == "output":
                self._finish(fx)
            elif fx.op == "call_function":
                try:
                    self.values[fx] = self._call(fx)
                except Refused as refusal:
                    raise self._error(fx, f"torch operation {str(fx.target)!r}: {refusal}") from None
            else:
                raise self._error(fx, f"graph entry {fx.op!r} is not supported")
        return self

    def _finish(self, fx: Any) -> None:
        outputs = fx.args[0]
        result = self.values.get(outputs[0]) if isinstance(outputs, (tuple, list)) and len(outputs) == 1 else None
        if isinstance(result, Traced) and not result.plain:
            raise UnsupportedOperationError(
                f"the module's result has shape {self.shape(outputs[0])}, which does not keep the batch of {self.batch} "
                "as its first axis"
            )
        if not isinstance(result, Traced) or not self.nodes:
            raise UnsupportedOperationError(
                "the module must give one tensor that depends on its input; wrap it in a module that returns only that"
            )
        self.output = result.node
        if self.output == "input":
            raise UnsupportedOperationError("the module gives its input back; there is nothing to export")
        self._prune()
        taken = {node.name for node in self.nodes}
        for item, value in self.values.items():
            for path in _module_paths(item):
                if isinstance(value, Traced) and value.node in taken and value.leading and path not in taken:
                    self.aliases[path] = value.node  # the last value computed inside wins
                    self.layouts[path] = value

    def _prune(self) -> None:
        """Leave out what the result does not need, such as pieces that nobody reads."""
        needed = {self.output}
        for node in reversed(self.nodes):
            if node.name in needed:
                needed.update(node.inputs)
        self.nodes = [node for node in self.nodes if node.name in needed]
        used = {key for node in self.nodes for key in node.params.values()}
        self.params = {key: array for key, array in self.params.items() if key in used}

    def _call(self, fx: Any) -> Any:
        if fx.target is operator.getitem:  # (value, statistics) of batch normalisation, (value, indices) of pooling
            source, index = self.values[fx.args[0]], fx.args[1]
            if isinstance(source, Parts):
                self.names[fx] = f"{self.names[fx.args[0]]}.{index}"
                return part(self, fx, source, index)
            if not isinstance(source, Traced):
                return source[index]
            if index != 0:
                raise self._error(fx, "only the first result of an operation can be used")
            return source
        schema: Any = getattr(fx.target, "_schema", None)
        kind = schema.name.removeprefix("aten::") if schema is not None else str(fx.target)
        if not any(isinstance(self.values.get(source), (Traced, Parts)) for source in fx.all_input_nodes):
            arguments = self.torch.fx.node.map_arg((fx.args, fx.kwargs), lambda source: self.values[source])
            return fx.target(*arguments[0], **arguments[1])
        if kind.startswith(("_assert", "sym_")):
            return None
        if kind.rstrip("_") in IDENTITIES:
            return self.values[fx.args[0]]
        arguments = _arguments(schema, fx)
        if kind in SHAPES_ONLY:
            fill = SHAPES_ONLY[kind]
            like = fx.meta["val"]
            return self.torch.full(
                tuple(like.shape), arguments["fill_value"] if fill is None else fill, dtype=like.dtype
            )
        if kind not in OPERATIONS:
            return self._by_table(fx, kind)
        return OPERATIONS[kind](self, fx, arguments)

    def _by_table(self, fx: Any, kind: str) -> Traced:
        """An operation that somebody registered with a name in ATen, on one value and without attributes."""
        for op in OPS.values():
            if (
                kind in op.aten
                and op.inputs == (1, 1)
                and not op.params
                and not any(a.required for a in op.attrs.values())
            ):
                if len(fx.args) + len(fx.kwargs) != 1:
                    raise Refused(f"only its plain form is known as {op.name!r}")
                return self.emit(fx, op.name, [self.plain(fx.args[0])])
        raise self._error(fx, f"torch operation {str(fx.target)!r} has no counterpart here")

    def _error(self, fx: Any, text: str) -> UnsupportedOperationError:
        path = _path(fx)
        return UnsupportedOperationError(f"node {fx.name!r} (module {path or '(the outermost)'!r}): {text}")

    # ------------------------------------------------------------ what the translations use

    def emit(
        self,
        fx: Any,
        op: str,
        inputs: Sequence[Traced],
        params: Mapping[str, Any] | None = None,
        *,
        layout: Traced | None = None,
        suffix: str = "",
        **attrs: Any,
    ) -> Traced:
        """Append a node; its batch lies where it does in ``layout``, or in the first input."""
        name = f"{self.names[fx]}.{suffix}" if suffix else self.names[fx]
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        keys = {role: self.param(name, role, tensor) for role, tensor in (params or {}).items() if tensor is not None}
        self.nodes.append(Node(name, op, tuple(source.node for source in inputs), keys, attrs))
        return (layout or inputs[0]).at(name)

    def param(self, name: str, role: str, value: Any) -> str:
        """Key of a parameter: its name in the module where it has one."""
        tensor = self.values[value] if isinstance(value, self.torch.fx.Node) else value
        if isinstance(tensor, Traced):
            raise Refused(f"its {role} depends on the input")
        if id(tensor) not in self.keys:
            key = self.sources.get(id(tensor), f"{name}.{role}")
            while key in self.params:
                key += "_"
            self.params[key] = _array(tensor).copy()
            self.keys[id(tensor)] = key
            self.kept.append(tensor)
        return self.keys[id(tensor)]

    def traced(self, source: Any) -> Traced:
        """A value that depends on the input."""
        found = self.values.get(source) if isinstance(source, self.torch.fx.Node) else None
        if not isinstance(found, Traced):
            raise Refused("an input that is a constant")
        return found

    def plain(self, source: Any) -> Traced:
        """A value whose batch stands alone in front."""
        found = self.traced(source)
        if not found.plain:
            raise Refused("on a value whose batch is mixed with other axes or not the first")
        return found

    def picture(self, source: Any) -> Traced:
        """A plain value (B, C, H, W)."""
        if len(self.shape(source)) != 4:
            raise Refused(f"its input has {len(self.shape(source))} dimensions; only pictures (4) are supported")
        return self.plain(source)

    def constant(self, value: Any) -> Any:
        """A number or a tensor that depends on parameters alone; None if the value depends on the input."""
        if isinstance(value, (int, float)):
            return self.torch.tensor(float(value), dtype=self.torch.float64)
        if not isinstance(value, self.torch.fx.Node):
            return value
        return None if isinstance(self.values[value], (Traced, Parts)) else self.values[value]

    def own_constant(self, tensor: Any, like: Traced, rank: int, *, whole: bool = False) -> Any:
        """A constant that meets traced tensors of ``rank`` axes, in the axes of our values.

        Leading axes of 1 are left out, unless ``whole``.
        """
        shape = [1] * (rank - tensor.ndim) + list(tensor.shape)
        tensor, size = tensor.reshape(shape), shape[like.axis]
        parts = [n for n in (like.outer, like.inner) if n > 1]
        if size == 1:
            middle = [1] * len(parts)
        elif size == like.outer * self.batch * like.inner:
            spread = tensor.reshape(*shape[: like.axis], like.outer, self.batch, like.inner, *shape[like.axis + 1 :])
            first = spread.narrow(like.axis + 1, 0, 1)
            if not bool((spread == first).all()):
                raise Refused("a constant that differs along the batch")
            tensor, middle = first, parts
        else:
            raise Refused(f"a constant of shape {tuple(tensor.shape)} along the batch")
        dims = [*shape[: like.axis], *middle, *shape[like.axis + 1 :]]
        while not whole and len(dims) > 1 and dims[0] == 1:
            dims = dims[1:]
        return tensor.reshape(dims or [1])

    def widened(self, fx: Any, source: Any, rank: int) -> Traced:
        """A value with axes of 1 in front, so that its traced tensor has ``rank`` of them."""
        layout, shape = self.traced(source), self.shape(source)
        missing = rank - len(shape)
        if missing == 0:
            return layout
        layout = self.moved(layout, layout.axis + missing)
        return self.emit(
            fx, "reshape", [layout], suffix="widened", shape=list(layout.dims([1] * missing + list(shape)))
        )

    def aligned(self, fx: Any, sources: Sequence[Any]) -> list[Traced]:
        """Values of one rank whose batches lie in the same place."""
        rank = max(len(self.shape(source)) for source in sources)
        layouts = [self.widened(fx, source, rank) for source in sources]
        if not all(layouts[0].same(other) for other in layouts):
            raise Refused("of values whose batch lies in different places")
        return layouts

    def moved(self, value: Traced, axis: int) -> Traced:
        """The same node, its batch at another traced axis."""
        return Traced(value.node, axis, value.outer, value.inner)

    def shape(self, source: Any) -> tuple[int, ...]:
        """Traced shape, with the batch."""
        return tuple(int(dim) for dim in source.meta["val"].shape)


def _arguments(schema: Any, fx: Any) -> dict[str, Any]:
    """Arguments of a traced call by name, defaults included."""
    named = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    named.update(zip((argument.name for argument in schema.arguments), fx.args, strict=False))
    named.update(fx.kwargs)
    return named


def _trace(torch: Any, module: Any, tensor: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its own insides
        try:
            return torch.export.export(module, (tensor,)).run_decompositions({})
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UnsupportedOperationError(f"torch.export cannot trace this module: {reason}") from error


def _constants(program: Any) -> dict[str, tuple[str, Any]]:
    """Placeholder -> (name in the module, tensor) for parameters, buffers and lifted constants."""
    signature, result = program.graph_signature, {}
    for table in (
        signature.inputs_to_parameters,
        signature.inputs_to_buffers,
        signature.inputs_to_lifted_tensor_constants,
    ):
        for placeholder, key in table.items():
            result[placeholder] = (
                key,
                program.state_dict[key] if key in program.state_dict else program.constants[key],
            )
    return result


def _stack(fx: Any) -> list[str]:
    """Module paths around a traced node, outermost first; a second call of a module carries @1."""
    return [str(entry[0]) for entry in (getattr(fx, "meta", {}).get("nn_module_stack") or {}).values()]


def _raw_path(fx: Any) -> str:
    stack = getattr(fx, "meta", {}).get("nn_module_stack") or {}
    return f"{_path(fx)}|{list(stack)[-1]}" if stack else ""


def _path(fx: Any) -> str:
    paths = _module_paths(fx)
    return paths[-1] if paths else ""


def _module_paths(fx: Any) -> list[str]:
    return [path.split("@")[0] for path in _stack(fx) if path]


def _node_names(traced: Any, leaves: set[str]) -> dict[Any, str]:
    """Names by module path: of a leaf module's last operation the path itself, of anything else path.operation; repeats get _1, _2."""
    calls = [fx for fx in traced if fx.op == "call_function"]
    names: dict[Any, str] = {}
    taken: dict[str, int] = {}
    for fx, after in zip(calls, [*calls[1:], None], strict=False):
        path = _path(fx)
        kind = getattr(fx.target, "__name__", str(fx.target)).split(".")[0].strip("_")
        last = path in leaves and not (
            after is not None and _raw_path(after) == _raw_path(fx) and fx in after.all_input_nodes
        )
        if path in leaves and after is not None and after.target is operator.getitem:
            last = True  # a getitem is no node of ours
        base = path if last else ".".join(filter(None, (path, kind)))
        if fx.target is operator.getitem:
            continue
        if base in ("input", "output"):
            base += "_"
        count = taken.get(base, 0)
        taken[base] = count + 1
        name = base if count == 0 else f"{base}_{count}"
        while count and name in names.values():
            name += "_"
        names[fx] = name
    return names
