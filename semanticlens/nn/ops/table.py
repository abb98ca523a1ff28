"""What an operation is to the engine, and the table of them.

An entry says which parameters and attributes an operation has, which shape it gives, how it is computed, how it is
walked backwards and what other formats call it.  Adding an operation is adding one entry, in NumPy if one likes::

    nn.register_op(nn.Op("square", numpy=lambda call, xs: xs[0] ** 2, shape=lambda attrs, params, shapes: shapes[0]))

Shapes are without the batch; a size is None where the network accepts any.  Shape rules raise ``ValueError`` with the
reason; the caller names the node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import ModelFileError, UnsupportedOperationError
from semanticlens._kernels.contract import Finish
from semanticlens.nn import attrs as check
from semanticlens.nn.shapes import Attrs, Shape, Shapes

F32 = NDArray[np.float32]
Array = NDArray[Any]

ACTIVATIONS = (  # what the kernels can apply while they write a result
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "hardsigmoid",
    "hardswish",
    "gelu",
    "gelu_tanh",
    "quick_gelu",
    "tanh",
)
NOTHING: frozenset[str] = frozenset()
INPUTS, RESULT = frozenset({"inputs"}), frozenset({"output"})  # what ``Op.keeps`` can name
_REQUIRED = object()


@dataclass(frozen=True)
class Attr:
    """One attribute: how it is checked, and its default (none: it must be given)."""

    check: check.Check
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        """Whether a node must give it."""
        return self.default is _REQUIRED


@dataclass(frozen=True)
class Call:
    """What a forward function needs beside its inputs: fixed when a plan is made, shared by all runs and threads.

    Attributes
    ----------
    attrs : mapping
        Checked, with defaults filled in and everything that depends on sizes resolved.
    params : mapping of str to ndarray
        Role -> array: float32 for ``forward``, the dtype of the inputs for ``numpy``.
    activation : str
        An activation the executor merged into this call, or "none".
    prepared : Any
        What ``Op.prepare`` made of the parameters; None for ``numpy``.
    """

    attrs: Attrs
    params: Mapping[str, Array]
    activation: str = "none"
    prepared: Any = None


Forward = Callable[[Call, Sequence[F32], "F32 | None", int], F32]
Plain = Callable[[Call, Sequence[Array]], Array]
Adjoint = Callable[[Call, Sequence[Array], Array, Array, Sequence[bool], int], "Sequence[Array | None]"]
Parameter = Callable[[Call, Sequence[Array], Array, Array, int], Mapping[str, Array]]
Through = Callable[[Call, Array, tuple[int, ...], Any, Finish | None, int], Array]
Bind = Callable[[Call, Sequence[F32], F32, int], "Callable[[], Any] | None"]
ShapeRule = Callable[[Attrs, Shapes, Sequence[Shape]], Shape]
Flops = Callable[[Attrs, Shapes, Sequence["tuple[int, ...]"], "tuple[int, ...]"], int]


@dataclass(frozen=True)
class Op:
    """An operation.

    Attributes
    ----------
    name : str
    forward : callable (call, xs, out, n_threads) -> ndarray, optional
        ``xs`` are C-contiguous float32 arrays (B, ...); ``out``, where given, has the result's shape and is written
        and returned.  Left out, ``numpy`` does its work.
    shape : callable (attrs, parameter shapes, input shapes) -> shape
        Raises ``ValueError`` where inputs, parameters and attributes do not fit together.
    params, optional : tuple of str
        Roles of the parameters.
    attrs : mapping of str to Attr
    inputs : (int, int)
        Fewest and most inputs.
    inplace : tuple of int
        Inputs that ``out`` may be.
    view : bool
        The result shares the first input's memory.
    takes_out : bool
        Whether ``forward`` can write into ``out``.
    fuses_activation, fuses_add : bool
        Whether ``call.activation`` is applied, and whether a second input is added before it.
    resolve : callable (attrs, parameter shapes, input shapes) -> attrs, optional
        Fills in what depends on sizes.
    prepare : callable (params, attrs) -> Any, optional
        Work on the parameters that is done once per network, for example packing.
    values : callable (params, attrs) -> None, optional
        Raises ``ValueError`` where finite parameter values make no sense, for example a negative variance.
    numpy : callable (call, xs) -> ndarray, optional
        The operation in plain NumPy for any floating dtype, the same for every entry of the batch: what runs in float64,
        and what the tests compare ``forward`` with.
    adjoint : callable (call, xs, out, grad, needed, n_threads) -> sequence of (ndarray or None), optional
        The transposed Jacobian times ``grad``, one array of the input's shape per input; None where ``needed`` is
        False.  Works for float32 and float64.  What ``keeps`` does not name of ``xs`` and ``out`` has its shape, but
        NaN for every value.  An operation without it cannot be differentiated, and walking back through it is an error
        that names the node.
    parameter : callable (call, xs, out, grad, n_threads) -> mapping of str to ndarray, optional
        Gradient of ``<grad, op(xs)>`` by each parameter, role -> array of its shape, summed over the batch; ``xs`` hold
        the values of the forward run.
    keeps : frozenset of {"inputs", "output"}
        What ``adjoint`` reads of the forward run.
    through : callable (call, grad, shape, prepared, finish, n_threads) -> ndarray, optional
        The adjoint of the first input, of ``shape``, in float32, with elementwise work on the result: the walk hands
        sums and the slope of a ReLU over where it can.
    prepare_through : callable (call, shape) -> Any, optional
        What ``through`` gets as ``prepared``: work on the parameters that is done once per network and ``shape[1:]``.
    flops : callable (attrs, parameter shapes, input shapes, output shape) -> int, optional
        Arithmetic operations for one sample, a multiply-add counted as two; one per value of the result if left out.
    ids : tuple of int
        Inputs that may hold whole numbers, such as the tokens of a text; they arrive as float32.
    bind : callable (call, xs, out, n_threads) -> (callable () -> Any) or None, optional
        ``forward`` with everything it takes, to be called once per run: for arrays that stay in their places from run to
        run, where looking up attributes would cost as much as a small kernel.  None where that cannot be.
    aten, onnx : tuple of str
        What the operation is called in the graphs of torch.export and in ONNX.
    """

    name: str
    forward: Forward | None = None
    shape: ShapeRule = lambda attrs, params, shapes: shapes[0]
    params: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    inputs: tuple[int, int] = (1, 1)
    inplace: tuple[int, ...] = ()
    view: bool = False
    takes_out: bool = True
    fuses_activation: bool = False
    fuses_add: bool = False
    resolve: Callable[[Attrs, Shapes, Sequence[Shape]], Attrs] | None = None
    prepare: Callable[[Mapping[str, F32], Attrs], Any] | None = None
    values: Callable[[Mapping[str, F32], Attrs], None] | None = None
    numpy: Plain | None = None
    adjoint: Adjoint | None = None
    parameter: Parameter | None = None
    keeps: frozenset[str] = NOTHING
    flops: Flops | None = None
    ids: tuple[int, ...] = ()
    aten: tuple[str, ...] = ()
    onnx: tuple[str, ...] = ()
    through: Through | None = None
    prepare_through: Callable[[Call, tuple[int, ...]], Any] | None = None
    bind: Bind | None = None

    def __post_init__(self) -> None:
        if self.forward is None and self.numpy is None:
            raise ValueError(f"operation {self.name!r} needs forward= or numpy=, it has neither")
        if not self.keeps <= INPUTS | RESULT:
            raise ValueError(f"keeps={set(self.keeps)}: must hold only 'inputs' and 'output'")

    @property
    def kernel(self) -> Forward:
        """``forward``, or ``numpy`` in its form."""
        return _in_numpy(self) if self.forward is None else self.forward


def _in_numpy(op: Op) -> Forward:
    def forward(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
        assert op.numpy is not None
        y = np.asarray(op.numpy(call, xs))
        if out is None or y.shape != out.shape or y.dtype != out.dtype:
            return y  # of another shape or dtype: the executor says so
        np.copyto(out, y)
        return out

    return forward


OPS: dict[str, Op] = {}


def register_op(op: Op, *, replace: bool = False) -> None:
    """Add an operation to the table for this process.

    Raises
    ------
    ValueError
        If the name is taken and ``replace`` is not set.
    """
    if op.name in OPS and not replace:
        raise ValueError(f"operation {op.name!r} exists; pass replace=True to put another in its place")
    OPS[op.name] = op


def differentiate(
    name: str,
    adjoint: Adjoint,
    *,
    keeps: frozenset[str] = NOTHING,
    parameter: Parameter | None = None,
    through: Through | None = None,
    prepare_through: Callable[[Call, tuple[int, ...]], Any] | None = None,
) -> None:
    """Complete an entry by what the walk back needs; see :class:`Op`."""
    OPS[name] = replace(
        OPS[name],
        adjoint=adjoint,
        keeps=keeps,
        parameter=parameter,
        through=through,
        prepare_through=prepare_through,
    )


def lookup(name: Any, node: str) -> Op:
    """The entry of an operation, or an error that names the node which asks for it."""
    if not isinstance(name, str) or name not in OPS:
        raise UnsupportedOperationError(
            f"node {node!r}: operation {str(name)[:80]!r} is not known here; known are {', '.join(sorted(OPS))} "
            "(semanticlens.nn.register_op adds one)"
        )
    return OPS[name]


def attributes(op: Op, given: Attrs, node: str) -> Attrs:
    """``given`` checked, with defaults filled in; errors name node and attribute."""
    unknown = sorted(set(given) - set(op.attrs))
    if unknown:
        raise UnsupportedOperationError(
            f"node {node!r} ({op.name}): attribute {unknown[0]!r} is not known; known are "
            f"{', '.join(op.attrs) or 'none'}"
        )
    result = {}
    for name, attr in op.attrs.items():
        if name not in given and attr.required:
            raise ModelFileError(f"node {node!r} ({op.name}): attribute {name!r} is missing")
        try:
            result[name] = attr.check(given[name]) if name in given else attr.default
        except ValueError as error:
            raise ModelFileError(f"node {node!r} ({op.name}): attribute {name!r} {error}") from None
    return MappingProxyType(result)


def output_shape(op: Op, attrs: Attrs, params: Shapes, inputs: Sequence[Shape], node: str) -> Shape:
    """The operation's shape rule, with errors that name the node."""
    try:
        return op.shape(attrs, params, inputs)
    except ValueError as error:
        raise ModelFileError(f"node {node!r} ({op.name}): {error}") from None
