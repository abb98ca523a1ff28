"""The package Quantus on our networks and maps: a function that explains, and a network in the form of a PyTorch module.

Quantus judges any array of attributions; metrics that ask for predictions or new maps call a model, which has to be a
``torch.nn.Module``, and a function ``explain_func(model=, inputs=, targets=, **explain_func_kwargs)``. Neither Quantus nor
torch is imported here: the module's class is made from the base class that the caller passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens.attribution.composites import Composite
from semanticlens.attribution.metrics.case import MapFunction, check_batch_size, check_maps, map_function
from semanticlens.attribution.metrics.randomisation import learned_nodes, randomised

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["explain", "module"]

Array = NDArray[Any]


def explain(
    model: Any,
    inputs: ArrayLike,
    targets: ArrayLike,
    *,
    method: str | Composite | MapFunction = "epsilon_plus_flat",
    channels: bool = False,
    batch_size: int = 16,
    n_threads: int | None = None,
    **ignored: Any,
) -> Array:
    """Relevance maps as Quantus asks for them: pass it as ``explain_func``, the settings as ``explain_func_kwargs``.

    Parameters
    ----------
    model : Network, or what :func:`module` returns
    inputs : array_like (B, C, H, W)
        Any real dtype; a torch tensor too.
    targets : array_like (B,)
    method : Composite, its name, or callable
        See :func:`semanticlens.attribution.evaluate`.
    channels : bool
        Keep the channels; else maps are summed over them and have one, as Quantus expects.
    batch_size : int
    n_threads : int, optional
    **ignored
        Quantus adds ``device``; nothing else is accepted.

    Returns
    -------
    ndarray (B, 1, H, W) or (B, C, H, W), float64

    Raises
    ------
    TypeError
        If ``model`` is neither, or for a keyword that is not known.
    DataError
        If inputs or targets do not fit the network.
    """
    unknown = set(ignored) - {"device"}
    if unknown:
        raise TypeError(f"explain got keywords it does not know: {', '.join(sorted(unknown))}")
    net = _network(model)
    x = np.ascontiguousarray(_array(inputs), dtype=np.float32)
    classes = np.atleast_1d(_array(targets)).astype(np.int64)
    if classes.shape != (len(x),):
        raise DataError(f"targets of shape {classes.shape}: must be one class per input, {len(x)} of them")
    check_batch_size(batch_size)
    function = map_function(method, n_threads)
    parts = []
    for i in range(0, len(x), batch_size):
        part = x[i : i + batch_size]
        made = check_maps(function(net, part, classes[i : i + batch_size]), part, "what the map function returned")
        made = made[:, None] if made.ndim == 3 else made
        parts.append(made if channels else made.sum(axis=1, keepdims=True))
    return np.concatenate(parts)


def module(net: Network, base: type, *, n_threads: int | None = None) -> Any:
    """The network as a module of PyTorch, for Quantus and whatever else calls modules.

    Parameters
    ----------
    net : Network
    base : type
        ``torch.nn.Module``.
    n_threads : int, optional

    Returns
    -------
    instance of a subclass of ``base``, in evaluation mode
        It takes and gives tensors; no gradient passes it. Each node with parameters is a submodule with
        ``reset_parameters()``, from the input to the output, so that Quantus' parameter randomisation works; ``state_dict()``
        and ``load_state_dict()`` carry which nodes were drawn anew.

    Raises
    ------
    TypeError
        If ``base`` is not a class like ``torch.nn.Module``.

    Examples
    --------
    ``quantus.PixelFlipping()(model=module(net, torch.nn.Module), x_batch=x, y_batch=y, a_batch=None, device="cpu",
    explain_func=explain, explain_func_kwargs={"method": "epsilon_plus_flat"})``
    """
    if not isinstance(base, type) or not hasattr(base, "add_module") or not hasattr(base, "named_modules"):
        raise TypeError(f"base={base!r}: must be torch.nn.Module")
    state = _State(net)
    whole = type(
        "SemanticlensNetwork", (base,), {"forward": _forward, "get_extra_state": _state, "set_extra_state": _set_state}
    )()
    whole.semanticlens = state
    whole.n_threads = n_threads
    layer = type("SemanticlensLayer", (base,), {"reset_parameters": _reset})
    for name in reversed(learned_nodes(net)):
        part = layer()
        part.semanticlens, part.node = state, name
        whole.add_module(name.replace(".", "/"), part)
    return whole.eval()


class _State:
    """A network some of whose nodes were drawn anew; shared by a module and its parts, copied with them."""

    def __init__(self, net: Network) -> None:
        self.original = net
        self.net = net
        self.drawn: tuple[tuple[str, int], ...] = ()

    def set(self, drawn: tuple[tuple[str, int], ...]) -> None:
        net = self.original
        for name, seed in drawn:
            net = randomised(net, (name,), seed)
        self.drawn, self.net = drawn, net

    def draw(self, name: str) -> None:
        times = sum(1 for known, _ in self.drawn if known == name)
        self.drawn, self.net = (*self.drawn, (name, times)), randomised(self.net, (name,), times)

    def __deepcopy__(self, memo: dict[int, Any]) -> _State:
        other = _State(self.original)  # networks do not change: they are shared
        other.net, other.drawn = self.net, self.drawn
        memo[id(self)] = other
        return other


def _forward(self: Any, x: Any) -> Any:
    output = self.semanticlens.net(np.ascontiguousarray(_array(x), dtype=np.float32), n_threads=self.n_threads)
    return x.new_tensor(output) if hasattr(x, "new_tensor") else output


def _reset(self: Any) -> None:
    self.semanticlens.draw(self.node)


def _state(self: Any) -> tuple[tuple[str, int], ...]:
    return tuple(self.semanticlens.drawn)


def _set_state(self: Any, drawn: tuple[tuple[str, int], ...]) -> None:
    self.semanticlens.set(drawn)


def _network(model: Any) -> Network:
    from semanticlens.nn.network import Network

    state = getattr(model, "semanticlens", None)
    if isinstance(state, _State):
        return state.net
    if isinstance(model, Network):
        return model
    raise TypeError(
        f"model: {type(model).__name__}; must be a Network or what attribution.quantus.module(net, torch.nn.Module) returns"
    )


def _array(given: Any) -> Array:
    return np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
