"""Edits: what is done to a value of a network while it runs, at any node, in part or whole.

>>> import numpy as np
>>> import semanticlens as sl
>>> without = sl.edit.scale("blocks.3", component=17, factor=0.0)
>>> without.node, without.to_dict()["factor"]
('blocks.3', 0.0)

Which part of a value is meant: ``component`` (channels of pictures, features of tokens), ``token`` (places of a
sequence) or ``position`` (rows and columns of a picture); all of it where neither is given.  With ``direction`` the
edit concerns the part of each place's vector along that direction.  Edits of one node are applied in the order given;
what runs later sees the edited value, and so does a record of the node.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError

__all__ = ["Edit", "ablate", "add", "project", "replace", "scale", "set"]

Array = NDArray[Any]
KINDS = ("scale", "add", "set", "ablate", "replace", "project")


@dataclass(frozen=True)
class Edit:
    """One edit; made by the functions of this module.

    Attributes
    ----------
    node : str
        Name or alias of a node, or "input".
    kind : str
    components, tokens : tuple of int, or None for all
    positions : tuple of (row, column), or None for all
    direction : ndarray of shape (components,), or None
        Of unit length.
    factor : float
        Of "scale".
    value : ndarray or None
        What "add", "set" and "replace" put in, and what "ablate" leaves; None for "ablate" to the mean.
    axis : int or None
        The axis of the components, the batch counted; None for axis 1 of pictures (B, C, H, W) and vectors (B, D), the
        last of sequences (B, T, D) and all else.
    """

    node: str
    kind: str
    components: tuple[int, ...] | None = None
    tokens: tuple[int, ...] | None = None
    positions: tuple[tuple[int, int], ...] | None = None
    direction: Array | None = field(default=None, repr=False)
    factor: float = 1.0
    value: Array | None = field(default=None, repr=False)
    axis: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """What is recorded of it: everything, arrays by shape and SHA-256."""
        result: dict[str, Any] = {"node": self.node, "kind": self.kind}
        if self.kind == "scale":
            result["factor"] = self.factor
        for name in ("components", "tokens", "positions", "axis"):
            if getattr(self, name) is not None:
                result[name] = json.loads(json.dumps(getattr(self, name)))
        for name in ("direction", "value"):
            array = getattr(self, name)
            if array is not None:
                digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
                result[name] = {"shape": list(array.shape), "sha256": digest}
        return result

    def apply(self, values: Array) -> Array:
        """An edited copy of a node's value (B, ...).

        Raises
        ------
        DataError
            If the edit names what the value does not have; the message names node and argument.
        """
        result: Array = values.copy(order="C")
        try:
            self._edit(result)
        except _Wrong as wrong:
            raise DataError(f"{self.kind} at {self.node!r}: {wrong} (its value has shape {values.shape[1:]})") from None
        return result

    def _mean_along(self, view: Array, rank: int) -> Array:
        """The mean over all places of each sample, of the part along the direction; as an array of ``rank`` axes."""
        assert self.direction is not None
        whole = view if self.components is None else view[..., _within(self.components, view.shape[-1], "component")]
        along = whole.astype(np.float64) @ self.direction.astype(np.float64)
        means = along.reshape(len(view), -1).mean(axis=1)
        return np.asarray(means.reshape(-1, *[1] * (rank - 1)))

    def adjoint(self, grad: Array) -> Array:
        """The transposed Jacobian of :meth:`apply` times a gradient (B, ...) by the edited value.

        An edit is linear in the value but for a constant, so that no value is needed; what it puts in is constant.
        """
        result: Array = grad.copy(order="C")
        view = np.moveaxis(result, self._component_axis(result.ndim), -1)
        place = self._index(view, result.ndim)
        whole: Any = slice(None) if place is None else place
        part = view[whole]
        if self.direction is not None:
            if self.kind != "add":
                factor = self.factor - 1.0 if self.kind == "scale" else -1.0
                along = part.astype(np.float64) @ self.direction.astype(np.float64)
                if self.kind == "ablate" and self.value is None:
                    self._mean_along_adjoint(view, whole, part, along)
                else:
                    view[whole] = part + factor * along[..., None] * self.direction
        elif self.kind == "scale":
            view[whole] = part * part.dtype.type(self.factor)
        elif self.kind == "ablate" and self.value is None:
            self._mean_adjoint(view, whole, part)
        elif self.kind != "add":
            view[whole] = 0
        return result

    def _mean_adjoint(self, view: Array, whole: Any, part: Array) -> None:
        """Each place of the edited part was the mean of all places."""
        axes = tuple(range(1, view.ndim - 1))
        if not axes:
            return
        edited = np.zeros_like(view)
        edited[whole] = part
        view[whole] = 0
        places = view.size // (len(view) * view.shape[-1])
        view += (edited.sum(axis=axes, keepdims=True, dtype=np.float64) / places).astype(view.dtype)

    def _mean_along_adjoint(self, view: Array, whole: Any, part: Array, along: Array) -> None:
        if view.ndim == 2:
            return
        view[whole] = part - along[..., None] * self.direction
        share = along.reshape(len(view), -1).sum(axis=1) / (view.size // (len(view) * view.shape[-1]))
        chosen = slice(None) if self.components is None else _within(self.components, view.shape[-1], "component")
        view[..., chosen] += (share.reshape(-1, *[1] * (view.ndim - 1)) * self.direction).astype(view.dtype)

    # ------------------------------------------------------------ the work

    def _edit(self, result: Array) -> None:
        view = np.moveaxis(result, self._component_axis(result.ndim), -1)
        place = self._index(view, result.ndim)
        part = view if place is None else view[place]
        new = self._new(part, view, place)
        if place is None:
            view[...] = new
        else:
            view[place] = new

    def _component_axis(self, rank: int) -> int:
        if self.axis is None:
            return 1 if rank in (2, 4) else rank - 1
        if not 1 <= self.axis < rank:
            raise _Wrong(f"axis={self.axis} does not exist beside the batch")
        return self.axis

    def _index(self, view: Array, rank: int) -> tuple[Any, ...] | None:
        """What selects the part in a view whose components are last; None for all of it."""
        parts = None if self.components is None else _within(self.components, view.shape[-1], "component")
        if self.tokens is not None:
            if view.ndim < 3:
                raise _Wrong("token is given, the value has no tokens")
            tokens = _within(self.tokens, view.shape[-2], "token")
            return (..., tokens, slice(None)) if parts is None else (..., tokens[:, None], parts[None, :])
        if self.positions is not None:
            if view.ndim != 4:
                raise _Wrong("position is given, the value is no picture")
            rows = _within([row for row, _ in self.positions], view.shape[1], "position, row")
            columns = _within([column for _, column in self.positions], view.shape[2], "position, column")
            if parts is None:
                return slice(None), rows, columns
            return slice(None), rows[:, None], columns[:, None], parts[None, :]
        return None if parts is None else (..., parts)

    def _new(self, part: Array, view: Array, place: tuple[Any, ...] | None) -> Array:
        if self.direction is not None:
            return self._along(part, view, place)
        if self.kind == "scale":
            return np.asarray(part * part.dtype.type(self.factor))
        if self.kind == "ablate" and self.value is None:
            axes = tuple(range(1, view.ndim - 1))
            means = view.mean(axis=axes, keepdims=True, dtype=np.float64).astype(part.dtype) if axes else view
            spread = np.broadcast_to(means, view.shape)
            return spread if place is None else spread[place]
        assert self.value is not None
        if self.kind == "replace":
            return self._replacement(part, view, place)
        value = self.value.astype(part.dtype)
        if self.kind == "ablate" and value.ndim and value.shape[-1] == view.shape[-1] and self.components is not None:
            value = value[..., list(self.components)]
        try:
            return np.broadcast_to(part + value if self.kind == "add" else value, part.shape)
        except ValueError:
            raise _Wrong(f"a value of shape {value.shape} does not fit the part of shape {part.shape[1:]}") from None

    def _replacement(self, part: Array, view: Array, place: tuple[Any, ...] | None) -> Array:
        """The same part of another value of this node, one sample or one per sample."""
        assert self.value is not None
        whole = self.value
        axis = self._component_axis(view.ndim)
        shape = np.moveaxis(view, -1, axis).shape
        if whole.shape == shape[1:]:
            whole = whole[None]
        if whole.shape[1:] != shape[1:] or len(whole) not in (1, shape[0]):
            raise _Wrong(
                f"values have shape {whole.shape}; as the node's for one sample or for all {shape[0]} is needed"
            )
        other = np.moveaxis(np.broadcast_to(whole, shape), axis, -1)
        return np.asarray(other if place is None else other[place], dtype=part.dtype)

    def _along(self, part: Array, view: Array, place: tuple[Any, ...] | None) -> Array:
        """Changes of the part along the direction: h + (new - <h, d>) d."""
        assert self.direction is not None
        if self.direction.shape != part.shape[-1:]:
            raise _Wrong(f"the direction has {self.direction.size} components, {part.shape[-1]} are needed")
        direction = self.direction.astype(np.float64)
        now = part.astype(np.float64) @ direction
        if self.kind == "scale":
            change = (self.factor - 1.0) * now
        elif self.kind == "project":
            change = -now
        elif self.kind == "replace":
            change = self._replacement(part, view, place).astype(np.float64) @ direction - now
        elif self.value is None:
            change = self._mean_along(view, now.ndim) - now if view.ndim > 2 else np.zeros_like(now)
        elif self.kind == "add":
            change = np.broadcast_to(np.float64(self.value), now.shape)
        else:
            change = np.float64(self.value) - now
        return np.asarray(part + change[..., None] * direction).astype(part.dtype)


class _Wrong(Exception):
    """Why an edit does not fit a value."""


def _within(indices: Sequence[int], size: int, what: str) -> NDArray[np.intp]:
    for index in indices:
        if not -size <= index < size:
            raise _Wrong(f"{what} {index} does not exist among {size}")
    if not what.startswith("position") and len({index % size for index in indices}) != len(indices):
        raise _Wrong(f"{what}: {list(indices)} name one of {size} twice")
    return np.asarray([index % size for index in indices], np.intp)


def _indices(given: Any, what: str) -> tuple[int, ...] | None:
    if given is None:
        return None
    items = np.asarray(given)
    if items.size == 0 or items.ndim > 1 or not np.issubdtype(items.dtype, np.integer):
        raise ValueError(f"{what}={given!r}: must be a whole number or a list of them")
    if np.unique(items).size != items.size:
        raise ValueError(f"{what}={given!r}: names one twice")
    return tuple(int(index) for index in items.ravel())


def _positions(given: Any) -> tuple[tuple[int, int], ...] | None:
    if given is None:
        return None
    items = np.asarray(given)
    if items.ndim == 1:
        items = items[None]
    if items.ndim != 2 or items.shape[1] != 2 or not np.issubdtype(items.dtype, np.integer) or len(items) == 0:
        raise ValueError(f"position={given!r}: must be (row, column) or a list of such pairs")
    return tuple((int(row), int(column)) for row, column in items)


def _array(values: ArrayLike, what: str) -> Array:
    if hasattr(values, "detach"):  # a torch tensor, without importing torch
        values = values.detach().cpu()
    array = np.array(values)
    if not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating):
        raise TypeError(f"{what} must hold numbers, not {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} holds NaN or infinite values")
    array = array.astype(np.float64 if array.dtype == np.float64 else np.float32)
    array.flags.writeable = False
    return array


def _make(
    kind: str,
    node: str,
    component: Any,
    token: Any,
    position: Any,
    direction: ArrayLike | None,
    axis: int | None,
    factor: float = 1.0,
    value: Array | None = None,
) -> Edit:
    if not isinstance(node, str):
        raise TypeError(f"node must be the name of a node, not {type(node).__name__}")
    if token is not None and position is not None:
        raise ValueError("give token (of a sequence) or position (of a picture), not both")
    unit = None
    if direction is not None:
        unit = _array(direction, "direction").astype(np.float64)
        length = float(np.linalg.norm(unit))
        if unit.ndim != 1 or length == 0.0:
            raise ValueError(f"direction must be a vector that is not zero, not of shape {unit.shape}")
        unit = unit / length
        unit.flags.writeable = False
        if value is not None and value.ndim and kind != "replace":
            raise ValueError(f"along a direction the value is one number, not of shape {value.shape}")
    return Edit(
        node,
        kind,
        _indices(component, "component"),
        _indices(token, "token"),
        _positions(position),
        unit,
        factor,
        value,
        axis,
    )


def scale(
    node: str,
    factor: float,
    *,
    component: Any = None,
    token: Any = None,
    position: Any = None,
    direction: ArrayLike | None = None,
    axis: int | None = None,
) -> Edit:
    """Multiply by ``factor``; along a direction only the part in it: ``h + (factor - 1) <h, d> d``.

    Parameters
    ----------
    node : str
        Name or alias of a node, or "input".
    factor : float
    component, token : int or list of int, optional
        Channels or features; places of a sequence.  Negative ones count from the end.
    position : (row, column) or list of such, optional
        Places of a picture.
    direction : ndarray of shape (components,), optional
        Brought to unit length.
    axis : int, optional
        The axis of the components, where it is not 1 (pictures, vectors) or the last (sequences).

    Returns
    -------
    Edit
    """
    if not np.isfinite(factor):
        raise ValueError(f"factor={factor}: must be a finite number")
    return _make("scale", node, component, token, position, direction, axis, factor=float(factor))


def add(
    node: str,
    value: ArrayLike,
    *,
    component: Any = None,
    token: Any = None,
    position: Any = None,
    direction: ArrayLike | None = None,
    axis: int | None = None,
) -> Edit:
    """Add a number, a vector over the (named) components, or ``value`` times a direction: ``h + value d``.

    Parameters and result as in :func:`scale`; ``value`` is spread over the part, its last axis the components.
    """
    return _make("add", node, component, token, position, direction, axis, value=_array(value, "value"))


def set(
    node: str,
    value: ArrayLike,
    *,
    component: Any = None,
    token: Any = None,
    position: Any = None,
    direction: ArrayLike | None = None,
    axis: int | None = None,
) -> Edit:
    """Put a number or vector in place of the part; along a direction ``h + (value - <h, d>) d``.

    Parameters and result as in :func:`add`.
    """
    return _make("set", node, component, token, position, direction, axis, value=_array(value, "value"))


def ablate(
    node: str,
    *,
    to: str | ArrayLike = "zero",
    component: Any = None,
    token: Any = None,
    position: Any = None,
    direction: ArrayLike | None = None,
    axis: int | None = None,
) -> Edit:
    """Take the part out; along a direction as :func:`project` does, or to the mean along it, or to a number.

    Parameters
    ----------
    to : {"zero", "mean"} or ndarray
        What is left: 0; the component's mean over all places of the same sample; or the given number or vector over all
        components, for example their means over a data set; one number along a direction.
    node, component, token, position, direction, axis
        As in :func:`scale`.

    Returns
    -------
    Edit
    """
    if isinstance(to, str) and to not in ("zero", "mean"):
        raise ValueError(f"to={to!r}: must be 'zero', 'mean' or an array of means")
    value = None if isinstance(to, str) and to == "mean" else _array(0.0 if isinstance(to, str) else to, "to")
    return _make("ablate", node, component, token, position, direction, axis, value=value)


def replace(
    node: str,
    values: ArrayLike,
    *,
    component: Any = None,
    token: Any = None,
    position: Any = None,
    direction: ArrayLike | None = None,
    axis: int | None = None,
) -> Edit:
    """Put the same part of another value of this node in: activation patching; along a direction only what lies in it.

    Parameters
    ----------
    values : ndarray of the node's shape, or with a batch of 1 or of the run's size before it
        What the node gave for another input.
    node, component, token, position, direction, axis
        As in :func:`scale`.

    Returns
    -------
    Edit
    """
    return _make("replace", node, component, token, position, direction, axis, value=_array(values, "values"))


def project(
    node: str, direction: ArrayLike, *, token: Any = None, position: Any = None, axis: int | None = None
) -> Edit:
    """Project a direction out: ``h - <h, d> d``.

    Parameters and result as in :func:`scale`.
    """
    return _make("project", node, None, token, position, direction, axis)


def by_node(edits: Iterable[Edit], resolve: Any) -> dict[str, list[Edit]]:
    """Edits by the node that their names stand for, in their order."""
    result: dict[str, list[Edit]] = {}
    for number, one in enumerate((edits,) if isinstance(edits, Edit) else edits):
        if not isinstance(one, Edit):
            raise TypeError(f"edits[{number}] must be an Edit (see semanticlens.edit), not {type(one).__name__}")
        result.setdefault(resolve(one.node), []).append(one)
    return result


def apply_all(edits: Sequence[Edit], values: Array) -> Array:
    """A node's value after its edits."""
    for one in edits:
        values = one.apply(values)
    return values


Edits = Mapping[str, Sequence[Edit]]
