"""Networks from ONNX files (extra ``onnx``).

Every operation is translated into our table by one small function of :mod:`semanticlens.nn.load.onnx_operations`; what
depends on constants alone, shapes included, is computed once.  An operation, attribute or form that is not known is an
error that names the node and the attribute: nothing is passed over.  Where the batch of the file is free, the graph is
read with a batch of 13, so that the batch is told from every other size (see :mod:`semanticlens.nn.traced`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import MissingExtraError, ModelFileError, SemanticLensError, UnsupportedOperationError
from semanticlens.nn.graph import MAX_NODES, Node, all_finite
from semanticlens.nn.network import Network
from semanticlens.nn.ops import OPS, attributes, lookup, output_shape
from semanticlens.nn.traced import Refused, Traced

__all__ = ["Reader", "read_onnx"]

Array = NDArray[Any]
MAX_BYTES = 2 << 30  # what the format itself allows
MAX_FOLDED = 1 << 27  # values of one constant that is computed
_BATCH = 13
_DOMAINS = ("", "ai.onnx")
_OPSETS = range(7, 27)
_FOLDED = {
    *("Add", "And", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Cos", "Div", "Equal", "Exp", "Expand"),
    *("Flatten", "Floor", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "MatMul", "Max"),
    *("Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceProd"),
    *(
        "ReduceSum",
        "Reshape",
        "ScatterND",
        "Shape",
        "Sin",
        "Size",
        "Slice",
        "Softmax",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
    ),
    *("Tanh", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where"),
}


def read_onnx(
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | None = None,
    allow_nonfinite: bool = False,
) -> Network:
    """Read a network with one input and one output.

    Parameters
    ----------
    path : path-like
    input_shape : sequence of int, optional
        The input's shape without the batch, where the file leaves sizes open.
    allow_nonfinite : bool
        Accept parameters that hold NaN or infinity.

    Returns
    -------
    Network
        Nodes are called as in the file, or by their operation and number; the names of their results are aliases.

    Raises
    ------
    MissingExtraError
        If the package ``onnx`` is not installed.
    UnsupportedOperationError
        If an operation, attribute or form is not known; the message names node and attribute.
    ModelFileError
        If the file is damaged.
    """
    from semanticlens.nn.load.onnx_moves import OPERATIONS

    model = _parse(Path(path))
    try:
        reader = Reader(model, OPERATIONS, input_shape)
        reader.run()
        return Network(
            reader.nodes,
            reader.params,
            input_shape=reader.input_shape,
            output=reader.output,
            name=Path(path).stem,
            aliases=reader.aliases,
            allow_nonfinite=allow_nonfinite,
        )
    except SemanticLensError as error:
        error.args = (f"{path}: {error.args[0]}",)
        raise


def _import() -> Any:
    try:
        import onnx
        import onnx.numpy_helper
        import onnx.reference
    except ImportError:
        raise MissingExtraError("onnx", "onnx", "reading ONNX files") from None
    return onnx


def _parse(path: Path) -> Any:
    onnx = _import()
    if path.stat().st_size > MAX_BYTES:
        raise ModelFileError(f"{path}: {path.stat().st_size:,} bytes; an ONNX file has at most {MAX_BYTES:,}")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise ModelFileError(f"{path}: not an ONNX file: {str(error)[:120]}") from None
    if not model.graph.node or len(model.graph.node) > MAX_NODES:
        raise ModelFileError(f"{path}: {len(model.graph.node)} nodes; 1 to {MAX_NODES} are read")
    return model


class Reader:
    """One pass over the nodes: a value is one of ours and the place of its batch, or a constant array."""

    def __init__(self, model: Any, operations: Mapping[str, Any], input_shape: Sequence[int] | None) -> None:
        self.onnx, self.model, self.operations = _import(), model, operations
        self.opset = self._opset()
        self.nodes: list[Node] = []
        self.params: dict[str, Array] = {}
        self.keys: dict[int, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}  # of our nodes, without the batch
        self.values: dict[str, tuple[Traced, tuple[int, ...]]] = {}
        self.constants: dict[str, Array] = {}
        self.aliases: dict[str, str] = {}
        self.taken = {"input", "output"}
        self.name = ""
        for tensor in model.graph.initializer:
            self.constants[tensor.name] = self._array(tensor)
        self.known = {id(array): name for name, array in self.constants.items()}
        self.batch, self.input_shape = self._input(input_shape)
        self.output = ""

    def _opset(self) -> int:
        version = 0
        for entry in self.model.opset_import:
            if entry.domain not in _DOMAINS:
                if any(node.domain == entry.domain for node in self.model.graph.node):
                    raise UnsupportedOperationError(f"the operations of {entry.domain[:80]!r} are not known here")
                continue
            version = entry.version
        if version not in _OPSETS:
            raise UnsupportedOperationError(f"opset {version}: {_OPSETS.start} to {_OPSETS.stop - 1} are known here")
        return int(version)

    def _array(self, tensor: Any) -> Array:
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            raise UnsupportedOperationError(
                f"initializer {tensor.name[:80]!r} lies in another file; save the model as a single file"
            )
        if any(dim < 0 for dim in tensor.dims) or math.prod(tensor.dims) * 16 > MAX_BYTES * 16:
            raise ModelFileError(f"initializer {tensor.name[:80]!r} has the shape {list(tensor.dims)[:8]}")
        try:
            return np.asarray(self.onnx.numpy_helper.to_array(tensor))
        except Exception as error:
            raise ModelFileError(f"initializer {tensor.name[:80]!r} cannot be read: {str(error)[:120]}") from None

    def _input(self, given: Sequence[int] | None) -> tuple[int, tuple[int, ...]]:
        inputs = [value for value in self.model.graph.input if value.name not in self.constants]
        if len(inputs) != 1 or len(self.model.graph.output) != 1:
            raise UnsupportedOperationError(
                f"the graph has {len(inputs)} inputs ({', '.join(value.name[:40] for value in inputs)}) and "
                f"{len(self.model.graph.output)} outputs; one of each is supported"
            )
        dims = list(inputs[0].type.tensor_type.shape.dim)
        if len(dims) < 2:
            raise UnsupportedOperationError(
                f"the input {inputs[0].name[:80]!r} has {len(dims)} axes; a batch and more are needed"
            )
        sizes = [int(dim.dim_value) for dim in dims]
        shape = tuple(sizes[1:]) if given is None else tuple(given)
        if len(shape) != len(dims) - 1 or any(
            size and size != want for size, want in zip(sizes[1:], shape, strict=False)
        ):
            raise ValueError(f"input_shape={shape}: the file says {tuple(sizes[1:])} (0 for any)")
        if min(shape) < 1:
            raise UnsupportedOperationError(
                f"the input {inputs[0].name[:80]!r} leaves sizes open ({tuple(sizes[1:])}, 0 for any): pass input_shape="
            )
        if sizes[0] > 1:
            raise UnsupportedOperationError(f"the batch is fixed to {sizes[0]}; export with a free batch, or with 1")
        batch = sizes[0] or _BATCH
        self.values[inputs[0].name] = (Traced("input"), (batch, *shape))
        self.shapes["input"] = shape
        return batch, shape

    # ------------------------------------------------------------ the pass

    def run(self) -> None:
        """Translate all nodes, then leave out what the output does not need."""
        for number, node in enumerate(self.model.graph.node):
            self.name = self._fresh(node.name or f"{node.op_type}_{number}")
            where = f"node {self.name!r} ({node.op_type})"
            try:
                self._node(node)
            except Refused as refusal:
                raise UnsupportedOperationError(f"{where}: {refusal}") from None
            except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
                if isinstance(error, (ModelFileError, UnsupportedOperationError)):
                    raise
                raise ModelFileError(f"{where}: its inputs or attributes do not fit: {str(error)[:160]}") from None
        name = self.model.graph.output[0].name
        if name not in self.values or self.values[name][0].node == "input":
            raise UnsupportedOperationError(f"the output {name[:80]!r} does not depend on the input")
        layout = self.values[name][0]
        if not layout.plain and not (self.batch == 1 and layout.leading):
            raise UnsupportedOperationError(f"the output {name[:80]!r} does not keep the batch as its first axis")
        self.output = layout.node
        self._prune()

    def _fresh(self, name: str) -> str:
        name = "".join(char if char.isprintable() else "_" for char in name)[:200] or "node"
        base, number = name, 0
        while name in self.taken:
            number += 1
            name = f"{base}_{number}"
        return name

    def _node(self, node: Any) -> None:
        if node.domain not in _DOMAINS:
            raise Refused(f"operations of {node.domain[:80]!r} are not known here")
        for name in node.input:
            if name and name not in self.values and name not in self.constants:
                raise ModelFileError(
                    f"node {self.name!r}: its input {name[:80]!r} is not the result of an earlier node"
                )
        if node.op_type == "Shape" and node.input[0] in self.values and not node.attribute:
            self.constants[node.output[0]] = np.asarray(self.values[node.input[0]][1], np.int64)
            return
        if not any(name in self.values for name in node.input):
            self._fold(node)
            return
        if node.op_type not in self.operations:
            self._by_table(node)
            return
        known, function = self.operations[node.op_type]
        attrs = dict(known)
        for attribute in node.attribute:
            if attribute.name not in known:
                raise Refused(
                    f"attribute {attribute.name[:80]!r} is not known here; known are {', '.join(known) or 'none'}"
                )
            value = self.onnx.helper.get_attribute_value(attribute)
            attrs[attribute.name] = value.decode() if isinstance(value, bytes) else value
        function(self, node, attrs)

    def _by_table(self, node: Any) -> None:
        """An operation that somebody registered with a name in ONNX, on one value; attributes by their own names."""
        op = next(
            (op for op in OPS.values() if node.op_type in op.onnx and op.inputs == (1, 1) and not op.params), None
        )
        if op is None:
            raise Refused("the operation is not known here (semanticlens.nn.register_op adds one)")
        attrs = {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}
        layout, shape = self.value(node.input[0])
        unknown = [name for name in attrs if name not in op.attrs]
        if unknown or not layout.plain:
            raise Refused(
                f"attribute {unknown[0][:80]!r} is not known here"
                if unknown
                else "on a value whose batch is not the first axis"
            )
        self.emit(node, op.name, [layout], (shape[0], *self._after(op.name, attrs, [shape[1:]])), **attrs)

    def _after(self, op: str, attrs: Mapping[str, Any], inputs: Sequence[tuple[int, ...]]) -> tuple[Any, ...]:
        entry = lookup(op, self.name)
        return output_shape(entry, attributes(entry, attrs, self.name), {}, inputs, self.name)

    def _fold(self, node: Any) -> None:
        if node.op_type not in _FOLDED:
            raise Refused("of constants; only simple operations are computed beforehand")
        inputs = {name: self.constants[name] for name in node.input if name}
        if node.op_type in ("ConstantOfShape", "Expand", "Tile", "Range"):
            self._check_growth(node, inputs)
        try:
            graph = self.onnx.helper.make_graph(
                [node],
                "one",
                [self.onnx.helper.make_value_info(name, self.onnx.TypeProto()) for name in inputs],
                [self.onnx.helper.make_value_info(name, self.onnx.TypeProto()) for name in node.output],
            )
            imports = [self.onnx.helper.make_opsetid("", self.opset)]
            results = self.onnx.reference.ReferenceEvaluator(
                self.onnx.helper.make_model(graph, opset_imports=imports)
            ).run(None, inputs)
        except Exception as error:
            raise ModelFileError(
                f"node {self.name!r} ({node.op_type}) of constants cannot be computed: {str(error)[:120]}"
            ) from None
        for name, result in zip(node.output, results, strict=True):
            self.constants[name] = np.asarray(result)

    def _check_growth(self, node: Any, inputs: Mapping[str, Array]) -> None:
        arrays = [inputs[name] for name in node.input]
        if node.op_type == "Range":
            start, stop, step = (float(array.reshape(-1)[0]) for array in arrays)
            size = (stop - start) / step if step else math.inf
        else:
            sizes = arrays[-1].astype(np.float64).reshape(-1)
            size = float(np.prod(np.abs(sizes))) * (arrays[0].size if node.op_type == "Tile" else 1.0)
        if not abs(size) <= MAX_FOLDED:
            raise ModelFileError(f"node {self.name!r} ({node.op_type}) would make a constant of {size:.3g} values")

    def _prune(self) -> None:
        needed = {self.output}
        for node in reversed(self.nodes):
            if node.name in needed:
                needed.update(node.inputs)
        self.nodes = [node for node in self.nodes if node.name in needed]
        used = {key for node in self.nodes for key in node.params.values()}
        self.params = {key: array for key, array in self.params.items() if key in used}
        names = {node.name for node in self.nodes}
        self.aliases = {
            alias: node
            for alias, node in self.aliases.items()
            if node in names
            and alias not in names
            and alias not in ("input", "output")
            and alias.isprintable()
            and alias
        }

    # ------------------------------------------------------------ what the translations use

    def value(self, name: str) -> tuple[Traced, tuple[int, ...]]:
        """A value that depends on the input, and its shape in the file."""
        if name not in self.values:
            raise Refused(f"its input {name[:80]!r} is a constant")
        return self.values[name]

    def plain(self, name: str, rank: int | None = None) -> tuple[Traced, tuple[int, ...]]:
        """A value whose batch stands alone in front."""
        layout, shape = self.value(name)
        if not layout.plain or (rank is not None and len(shape) != rank):
            raise Refused(f"on a value of shape {shape} whose batch is not the first axis, or of another rank")
        return layout, shape

    def constant(self, name: str) -> Array | None:
        """A constant; None if the value depends on the input."""
        return self.constants.get(name)

    def whole(self, node: Any, position: int, what: str) -> list[int] | None:
        """Whole numbers from a constant input; None where it is left out."""
        if position >= len(node.input) or not node.input[position]:
            return None
        array = self.constant(node.input[position])
        if array is None or array.dtype.kind not in "iu":
            raise Refused(f"its {what} must be constant whole numbers")
        return [int(n) for n in array.reshape(-1)]

    def emit(
        self,
        node: Any,
        op: str,
        inputs: Sequence[Traced],
        shape: Sequence[int],
        params: Mapping[str, Array | None] | None = None,
        /,
        *,
        layout: Traced | None = None,
        suffix: str = "",
        output: int | None = 0,
        **attrs: Any,
    ) -> Traced:
        """Append a node of ours that gives a result of ``shape`` in the file; the result number ``output``, where not None."""
        name = self._fresh(f"{self.name}.{suffix}" if suffix else self.name)
        self.taken.add(name)
        keys = {role: self.param(name, role, array) for role, array in (params or {}).items() if array is not None}
        ours = Node(name, op, tuple(source.node for source in inputs), keys, attrs)
        self.nodes.append(ours)
        entry = lookup(op, name)
        roles = {role: self.params[key].shape for role, key in keys.items()}
        checked = {attr: spec.default for attr, spec in entry.attrs.items()} | attrs
        got = output_shape(entry, checked, roles, [self.shapes[source.node] for source in inputs], name)
        self.shapes[name] = tuple(int(dim) for dim in got if dim is not None)
        result = (layout or inputs[0]).at(name)
        if result.dims(tuple(shape)) != self.shapes[name]:
            raise ModelFileError(
                f"node {name!r} ({op}) gives {self.shapes[name]}, {result.dims(tuple(shape))} is expected"
            )
        if output is not None:
            self.set(node, result, shape, output)
        return result

    def set(self, node: Any, result: Traced, shape: Sequence[int], output: int = 0) -> None:
        """A result of the file's node."""
        self.values[node.output[output]] = (result, tuple(int(n) for n in shape))
        if result.leading:  # ours is the file's value as it is, but for windows that are folded into its batch
            self.aliases[node.output[output]] = result.node

    def param(self, name: str, role: str, array: Array) -> str:
        """Key of a parameter: its name in the file where it has one."""
        if array.dtype.kind not in "fiub":
            raise Refused(f"its {role} holds {array.dtype}")
        if id(array) not in self.keys:
            key = self.known.get(id(array), "") or f"{name}.{role}"
            key = key if key.isprintable() else f"{name}.{role}"
            while key in self.params:
                key += "_"
            self.params[key] = np.ascontiguousarray(array, dtype=np.float32)
            self.keys[id(array)] = key
            self.known.setdefault(id(array), key)
            self._alive = [*getattr(self, "_alive", []), array]  # keeps the id unique
        return self.keys[id(array)]

    def spread(self, array: Array, like: Traced, rank: int, *, whole: bool = False) -> Array:
        """A constant that meets values of ``rank`` axes, in the axes of ours; leading axes of 1 left out unless ``whole``."""
        if array.ndim > rank:
            raise Refused(f"with a constant of {array.ndim} axes on a value of {rank}")
        shape = [1] * (rank - array.ndim) + list(array.shape)
        array, size = array.reshape(shape), shape[like.axis]
        parts = [n for n in (like.outer, like.inner) if n > 1]
        full = like.outer * self.batch * like.inner
        if size == 1 and not (full == 1 and parts):
            middle = [1] * len(parts)
        elif size == full:
            split = array.reshape(*shape[: like.axis], like.outer, self.batch, like.inner, *shape[like.axis + 1 :])
            array = split.take([0], axis=like.axis + 1)
            if not np.array_equal(np.broadcast_to(array, split.shape), split):
                raise Refused("with a constant that differs along the batch")
            middle = parts
        else:
            raise Refused(f"with a constant of shape {tuple(shape)} along the batch")
        dims = [*shape[: like.axis], *middle, *shape[like.axis + 1 :]]
        while not whole and len(dims) > 1 and dims[0] == 1:
            dims = dims[1:]
        result = array.reshape(dims or [1])
        if not all_finite(np.asarray(result, np.float32)):
            result = np.clip(result, -1e30, 1e30)
        return result

    def aligned(self, node: Any, names: Sequence[str]) -> tuple[list[Traced], list[tuple[int, ...]]]:
        """Values of one rank whose batches lie in the same place."""
        rank = max(len(self.value(name)[1]) for name in names)
        layouts, shapes = [], []
        for number, name in enumerate(names):
            layout, shape = self.value(name)
            missing = rank - len(shape)
            if missing:
                shape = (*[1] * missing, *shape)
                layout = Traced(layout.node, layout.axis + missing, layout.outer, layout.inner)
                layout = self.emit(
                    node,
                    "reshape",
                    [layout],
                    shape,
                    suffix=f"widened_{number}",
                    output=None,
                    shape=list(layout.dims(shape)),
                )
            layouts.append(layout)
            shapes.append(shape)
        if not all(layouts[0].same(other) for other in layouts):
            raise Refused("of values whose batch lies in different places")
        return layouts, shapes
