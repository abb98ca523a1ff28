"""The network: a checked graph with its parameters, run on batches, recorded at any node."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import LayerNotFoundError, ModelFileError
from semanticlens._kernels import resolve_threads
from semanticlens._progress import track
from semanticlens.io import sha256_of_arrays
from semanticlens.nn.edit import Edit, by_node
from semanticlens.nn.graph import (
    INPUT,
    OUTPUT,
    Checked,
    Node,
    check_graph,
    check_input_shape,
    check_name,
    check_params,
    check_reached,
    check_values,
)
from semanticlens.nn.inputs import check_double, check_extras, check_input
from semanticlens.nn.layers import LayerInfo, Layers, shape_text
from semanticlens.nn.plan import Plan, Scratch, compile_plan
from semanticlens.nn.preprocess import Preprocess
from semanticlens.nn.summary import Summary

if TYPE_CHECKING:
    from semanticlens.nn.backward import Gradients, Target

__all__ = ["Network", "Node"]

F32 = NDArray[np.float32]
MAX_PLANS = 64  # kept per network; sets of records rarely change


class Network:
    """A network that can be run, recorded and saved.

    Everything is checked here: names, references, attributes, shapes, sizes and that parameters are finite float32.
    A network is not changed after that, so threads may share it.

    Parameters
    ----------
    nodes : sequence of Node
        In execution order; the network's input is called "input".
    params : mapping of str to ndarray, float32
        Borrowed, not copied, where C-contiguous; must not be changed afterwards.
    input_shape : tuple of int or None
        (C, H, W) or (D,), without the batch; None for a size that may differ from run to run.
    output : str, optional
        The node that is the network's answer; the last one if left out.
    name : str
        What users read.
    aliases : mapping of str to str, optional
        Further names for nodes, such as module paths of the framework the network came from.
    preprocess : Preprocess, optional
        How a picture becomes an input.
    labels : sequence of str, optional
        Class names of the output.
    folded : mapping of str to str, optional
        Names whose values no longer exist -> the node they were merged into (see
        :func:`semanticlens.nn.fold.fold_batch_norm`).
    allow_nonfinite : bool
        Accept parameters that hold NaN or infinity.

    Raises
    ------
    UnsupportedOperationError
        If an operation or attribute is not in the table.
    ModelFileError
        If the graph is wrong; the message names the node.
    NumericalError
        If a parameter is not finite.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        params: Mapping[str, NDArray[Any]],
        *,
        input_shape: Sequence[int | None],
        output: str | None = None,
        name: str = "",
        aliases: Mapping[str, str] | None = None,
        preprocess: Preprocess | None = None,
        labels: Sequence[str] | None = None,
        folded: Mapping[str, str] | None = None,
        allow_nonfinite: bool = False,
    ) -> None:
        self.nodes: tuple[Node, ...] = tuple(nodes)
        self.input_shape = check_input_shape(input_shape)
        arrays = check_params(params)
        self._graph = check_graph(self.nodes, arrays, self.input_shape)
        if not allow_nonfinite:
            check_values(self._graph, arrays)
        self.params: Mapping[str, F32] = MappingProxyType(arrays)
        self._by_name = {item.node.name: item for item in self._graph}
        self.output = self.nodes[-1].name if output is None else output
        if self.output not in self._by_name:
            raise ModelFileError(f"the output {str(output)[:80]!r} is not the name of a node")
        self.name = str(name)
        self.aliases, self.folded = self._check_aliases(aliases or {}, folded or {})
        self.preprocess = preprocess
        self.labels = None if labels is None else tuple(str(label) for label in labels)
        check_extras(self)
        self._allow_nonfinite = allow_nonfinite
        self._start_caches({}, None)

    # ------------------------------------------------------------ construction

    def _start_caches(self, prepared: dict[str, Any], arrays_hash: str | None) -> None:
        self._lock = threading.Lock()
        self._plans: dict[tuple[Any, ...], Plan] = {}
        self._assignments: dict[Any, Any] = {}  # of relevance rules, kept by semanticlens.attribution
        self.edits: tuple[Edit, ...] = ()  # that every run applies: see :meth:`edited`
        self._prepared = prepared
        self._scratch = Scratch()
        self._arrays_hash = arrays_hash
        self._fingerprint: str | None = None

    def _check_aliases(
        self, aliases: Mapping[str, str], folded: Mapping[str, str]
    ) -> tuple[Mapping[str, str], Mapping[str, str]]:
        for what, table in (("alias", aliases), ("folded name", folded)):
            for name, target in table.items():
                check_name(name, f"an {what}" if what == "alias" else f"a {what}")
                if target not in self._by_name:
                    raise ModelFileError(f"{what} {name!r} stands for {str(target)[:80]!r}, which is not a node")
                if name in (INPUT, OUTPUT) or (name in self._by_name and (what != "alias" or target != name)):
                    raise ModelFileError(f"{what} {name!r} is already the name of something else")
        both = sorted(set(aliases) & set(folded))
        if both:
            raise ModelFileError(f"{both[0]!r} is both an alias and a folded name")
        return MappingProxyType({name: target for name, target in aliases.items() if name != target}), MappingProxyType(
            dict(folded)
        )

    def with_input_size(self, height: int | None, width: int | None) -> Network:
        """The same network for pictures of another size, or of any size (None); shares the parameters.

        Raises
        ------
        ModelFileError
            If a layer depends on the size, as a dense layer after a flatten does; the message names it.
        """
        if len(self.input_shape) != 3:
            raise ModelFileError(
                f"with_input_size is for networks of pictures; this one takes {shape_text(self.input_shape)}"
            )
        preprocess = self.preprocess
        if preprocess is not None and height is not None and width is not None:
            short = (
                None
                if preprocess.short is None
                else max(round(preprocess.short * max(height, width) / max(preprocess.size)), height, width)
            )
            preprocess = Preprocess.from_dict({**preprocess.to_dict(), "size": [height, width], "short": short})
        other = Network(
            self.nodes,
            self.params,
            input_shape=(self.input_shape[0], height, width),
            output=self.output,
            name=self.name,
            aliases=self.aliases,
            preprocess=preprocess,
            labels=self.labels,
            folded=self.folded,
            allow_nonfinite=True,
        )
        other._allow_nonfinite = self._allow_nonfinite
        other._start_caches(self._prepared, self._arrays_hash)
        other.edits = self.edits
        return other

    # ------------------------------------------------------------ looking

    @property
    def layers(self) -> Layers:
        """The nodes in order, with shapes and parameter counts; prints as a table, and knows ``name in net.layers``."""
        others: dict[str, list[str]] = {}
        for alias, target in self.aliases.items():
            others.setdefault(target, []).append(alias)
        return Layers(
            [
                LayerInfo(
                    item.node.name,
                    item.node.op,
                    item.shape,
                    sum(self.params[key].size for key in item.node.params.values()),
                    item.node.inputs,
                    tuple(others.get(item.node.name, ())),
                )
                for item in self._graph
            ],
            self.aliases,
        )

    def summary(self, input_shape: Sequence[int] | None = None) -> Summary:
        """Nodes with shapes, parameters and operations for one sample; prints as a table.

        Parameters
        ----------
        input_shape : sequence of int, optional
            The input without the batch, where the network takes any size: operations depend on it.
        """
        from semanticlens.nn.summary import summarise

        if input_shape is None:
            return summarise(self, self._graph, self.input_shape)
        shape = tuple(input_shape)
        if len(shape) != len(self.input_shape) or any(
            dim not in (None, got) for dim, got in zip(self.input_shape, shape, strict=True)
        ):
            raise ValueError(f"input_shape={shape}: the network takes {shape_text(self.input_shape)}")
        return summarise(self, check_graph(self.nodes, self.params, shape), shape)

    @property
    def n_params(self) -> int:
        """Number of parameter values."""
        return sum(array.size for array in self.params.values())

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Shape of the output, without the batch."""
        return self._by_name[self.output].shape

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of graph, preprocessing, parameters and edits; name, aliases and labels do not enter."""
        if self._fingerprint is None:
            self._fingerprint = hashlib.sha256(
                f"{json.dumps(self._identity(), sort_keys=True)}\n{self._hash_arrays()}".encode()
            ).hexdigest()
        return self._fingerprint

    def _identity(self) -> dict[str, Any]:
        from semanticlens.nn.load.bundle import graph_dict

        graph = graph_dict(self)
        identity = {key: graph[key] for key in ("input", "output", "nodes", "preprocess")}
        return {**identity, "edits": [edit.to_dict() for edit in self.edits]} if self.edits else identity

    def _hash_arrays(self) -> str:
        if self._arrays_hash is None:
            self._arrays_hash = sha256_of_arrays(self.params)
        return self._arrays_hash

    @cached_property
    def takes_ids(self) -> bool:
        """Whether the input holds whole numbers, such as the tokens of texts (B, T), instead of measurements."""
        readers = [
            (item.op, place) for item in self._graph for place, name in enumerate(item.node.inputs) if name == INPUT
        ]
        return any(op.name == "embedding" for op, _ in readers) and all(place in op.ids for op, place in readers)

    def resolve(self, name: str) -> str:
        """The node a name or alias stands for; "output" is the output, "input" the input.

        Raises
        ------
        LayerNotFoundError
            If there is none; the message offers the nearest names.
        """
        if not isinstance(name, str):
            raise TypeError(f"the name of a layer must be a text, not {type(name).__name__}")
        if name == OUTPUT:
            return self.output
        if name == INPUT or name in self._by_name:
            return name
        if name in self.aliases:
            return self.aliases[name]
        if name in self.folded:
            raise LayerNotFoundError(
                name,
                [self.folded[name]],
                f"the network: batch normalisation was folded into it and its values exist only as "
                f"{self.folded[name]!r}; load the network with fold=False to record it",
            )
        raise LayerNotFoundError(name, [*self._by_name, *self.aliases])

    # ------------------------------------------------------------ running

    def __call__(self, x: ArrayLike, *, n_threads: int | None = None) -> F32:
        """The output for a batch: (B, C, H, W) float32 -> (B, n)."""
        return self.run(x, n_threads=n_threads)[OUTPUT]

    def run(
        self,
        x: ArrayLike,
        record: str | Iterable[str] = (OUTPUT,),
        *,
        edits: Iterable[Edit] = (),
        dtype: str = "float32",
        n_threads: int | None = None,
    ) -> dict[str, F32]:
        """Run a batch and return the values at some nodes; computes only what they need.

        Parameters
        ----------
        x : ndarray of shape (B, *input_shape), float32
            What ``net.preprocess`` gives for each picture, stacked; token ids (B, T) as integers for networks of texts.
        record : str or iterable of str
            Names or aliases of nodes, or "output" (the default).
        edits : iterable of Edit
            What is changed on the way (see :mod:`semanticlens.edit`); records show edited values.
        dtype : {"float32", "float64"}
            "float64" computes in plain NumPy, node by node, from ``x`` as float64: slow, for verification.
        n_threads : int, optional
            See :func:`semanticlens.get_num_threads`; the values are the same for every number.

        Returns
        -------
        dict of str to ndarray, float32 (float64 where asked for)
            Under the names that were asked for, in their order.  Arrays of different nodes share no memory with each
            other or with ``x``; two names of one node give one array.

        Raises
        ------
        LayerNotFoundError
            If a name is not known or was folded away.
        DataError
            If the shape is wrong, the batch is empty, a value is NaN or infinite, or an edit does not fit.
        ValueError
            If an edit is at a node that none of the records depends on.
        TypeError
            If ``x`` is not float32.
        """
        targets = self._targets(record)
        wanted = frozenset(targets.values())
        threads = resolve_threads(n_threads)
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype={dtype!r}: must be 'float32' or 'float64'")
        changed = by_node((*self.edits, *((edits,) if isinstance(edits, Edit) else edits)), self.resolve)
        if changed:
            check_reached(self._graph, changed, wanted, (INPUT,))
        if dtype == "float64":
            from semanticlens.nn.double import evaluate

            wide = check_double(self, x)
            graph = self._graph if None not in self.input_shape else check_graph(self.nodes, self.params, wide.shape[1:])
            values: dict[str, Any] = dict(evaluate(graph, self.params, wide, wanted, changed))
        else:
            batch = check_input(self, x)
            plan = self._plan(wanted, batch.shape[1:], edited=frozenset(changed))
            values = dict(plan.execute((batch,), threads, self._scratch, changed))
        return {name: values[target] for name, target in targets.items()}

    def run_from(
        self,
        node: str,
        value: ArrayLike,
        record: str | Iterable[str] = (OUTPUT,),
        *,
        given: Mapping[str, ArrayLike] | None = None,
        edits: Iterable[Edit] = (),
        n_threads: int | None = None,
    ) -> dict[str, F32]:
        """Resume at a node from a stored value: run once to an edited node, then go on as often as needed.

        Parameters
        ----------
        node : str
            Name or alias, or "input".
        value : ndarray of shape (B, *shape of the node), float32
            What :meth:`run` recorded there, or anything of its shape.
        record : str or iterable of str
            As in :meth:`run`; nodes that come after ``node``, or itself.
        given : mapping of str to ndarray, optional
            Values of other nodes that are needed as well, where a branch passes by ``node``; the error that asks for
            them names them, as :meth:`frontier` does.
        edits : iterable of Edit
            As in :meth:`run`.
        n_threads : int, optional

        Returns
        -------
        dict of str to ndarray, float32

        Raises
        ------
        DataError
            If values have the wrong shape, or a branch is missing; the message names the nodes.
        """
        from semanticlens.nn.resume import resume

        return resume(self, {node: value, **(given or {})}, self._targets(record), edits, resolve_threads(n_threads))

    def frontier(self, node: str, record: str | Iterable[str] = (OUTPUT,)) -> tuple[str, ...]:
        """The other nodes whose values :meth:`run_from` needs to get from ``node`` to ``record``."""
        from semanticlens.nn.resume import missing

        return missing(self, (self.resolve(node),), frozenset(self._targets(record).values()))

    def patch(
        self,
        x: ArrayLike,
        source: ArrayLike,
        sites: Iterable[Edit | str],
        record: str = OUTPUT,
        *,
        n_threads: int | None = None,
    ) -> F32:
        """Activation patching: run ``x`` once per site, with what ``source`` gives there put in its place.

        Parameters
        ----------
        x, source : ndarray of shape (B, *input_shape), float32
            The inputs that are run and that values are taken from, sample by sample (or one source for all).
        sites : iterable of str or Edit
            Nodes, or parts of them as :func:`semanticlens.edit.ablate` names parts (``sl.edit.ablate(node, token=3)``).
        record : str
            The node whose value is returned.
        n_threads : int, optional

        Returns
        -------
        ndarray of shape (sites, B, *shape of the record), float32
        """
        from semanticlens.nn.resume import patch

        return patch(self, x, source, sites, record, n_threads)

    def edited(self, *edits: Edit) -> Network:
        """This network with edits that every run applies (before those of the run); its fingerprint names them."""
        other = copy.copy(self)
        other.edits = (*self.edits, *edits)
        by_node(other.edits, self.resolve)
        other._lock, other._fingerprint, other._assignments = threading.Lock(), None, {}
        return other

    def baked(self) -> Network:
        """This network with its edits as nodes of the graph, so that it can be saved; itself where there are no edits.

        The added node takes the name of the edited one, which becomes ``NAME.unedited``. The result has a fingerprint of its own.

        Raises
        ------
        ValueError
            For edits that are not one affine map of the components at every place: of single tokens or positions, replaced values, the mean
            of each sample, edits of the input.
        """
        from semanticlens.nn.baked import baked

        return baked(self)

    def _targets(self, record: str | Iterable[str]) -> dict[str, str]:
        names = (record,) if isinstance(record, str) else tuple(record)
        if not names:
            raise ValueError("record is empty: name at least one node, or leave it out for the output")
        return {name: self.resolve(name) for name in names}

    def gradient(
        self,
        x: ArrayLike,
        target: Target | None = None,
        wrt: str | Iterable[str] = (INPUT,),
        *,
        of: str = OUTPUT,
        params: bool = False,
        edits: Iterable[Edit] = (),
        dtype: str = "float32",
        segments: int | str = 1,
        n_threads: int | None = None,
    ) -> Gradients:
        """Gradients of outputs by the input, inner values and parameters: vector-Jacobian products, one per sample.

        Parameters
        ----------
        x : ndarray of shape (B, *input_shape), float32 (or float64 with ``dtype="float64"``)
        target : int, sequence of B ints, ndarray of the output's shape, or callable
            The factor of each output: 1 for a class and 0 for the others, a class per sample, real numbers, or a
            function of the output (B, n) that returns them.
        wrt : str or iterable of str
            Values to differentiate by: names or aliases of nodes, or "input".
        of : str
            The value that is differentiated, if it is not the output.
        params : bool
            Also by the parameters, summed over the batch.
        edits, dtype
            As in :meth:`run`; the gradient by an edited node is the one by its edited value, what edits put in is constant.
        segments : int or "auto"
            Keep less: compute all but the last of so many segments twice; same bits. "auto" takes as many as keep the
            least, working memory not counted: compare the reported peaks where a few layers are far larger than the others.
        n_threads : int, optional

        Returns
        -------
        Gradients
            ``result["input"]``, ..., ``result.params``, ``.value`` and ``.peak_bytes``.

        Raises
        ------
        UnsupportedOperationError
            If an operation on the way has no adjoint; the message names the node.
        MemoryLimitError
            If more memory would be needed than :func:`semanticlens.nn.memory.allowed` says.
        ValueError
            If ``target`` does not fit, or ``of`` does not depend on a name in ``wrt``; else as :meth:`run`.
        """
        from semanticlens.nn import backward

        threads = resolve_threads(n_threads)
        return backward.gradient(self, x, target, wrt, of, params, edits, dtype, segments, threads)

    def stream(
        self,
        batches: Iterable[tuple[Any, ArrayLike]],
        record: str | Iterable[str] = (OUTPUT,),
        *,
        n_threads: int | None = None,
        progress: bool = False,
        total: int | None = None,
    ) -> Iterator[tuple[Any, dict[str, F32]]]:
        """Run batch after batch: yields ``(ids, {name: values})`` for each ``(ids, x)``.

        Holds one batch at a time; may be interrupted between any two kernels.
        """
        for ids, x in track(batches, progress=progress, total=total, what=self.name or "network", unit="batch"):
            yield ids, self.run(x, record, n_threads=n_threads)

    def _plan(
        self,
        records: frozenset[str],
        input_shape: tuple[int, ...],
        *,
        sources: Mapping[str, tuple[int, ...]] | None = None,
        edited: frozenset[str] = frozenset(),
        graph: Sequence[Checked] | None = None,
    ) -> Plan:
        key = (records, input_shape, tuple((sources or {}).items()), edited)
        plan = self._plans.get(key)
        if plan is None:
            if graph is None:
                fixed = None not in self.input_shape
                graph = self._graph if fixed else check_graph(self.nodes, self.params, input_shape)
            plan = compile_plan(graph, records, input_shape, self.params, self._prepare, sources=sources, edited=edited)
            with self._lock:
                if len(self._plans) >= MAX_PLANS:
                    self._plans.pop(next(iter(self._plans)))
                self._plans[key] = plan
        return plan

    def _prepare(self, item: Checked) -> Any:
        """Packed or otherwise prepared parameters of a node, made once."""
        if item.op.prepare is None:
            return None
        with self._lock:
            if item.node.name not in self._prepared:
                self._prepared[item.node.name] = item.op.prepare(
                    {role: self.params[key] for role, key in item.node.params.items()}, item.attrs
                )
            return self._prepared[item.node.name]

    # ------------------------------------------------------------ saving and showing

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network as one bundle file (safetensors with the graph in its metadata), atomically."""
        from semanticlens.nn.load.bundle import write_bundle

        if self.edits:
            raise ValueError("a bundle holds a network, not edits: save net.baked(), which has them as nodes, or the network without them")
        write_bundle(self, path)

    def __repr__(self) -> str:
        return (
            f"Network({self.name!r}: {shape_text(self.input_shape)} -> {shape_text(self.output_shape)}, "
            f"{len(self.nodes)} nodes, {self.n_params:,} parameters"
            f"{f', {len(self.labels)} labels' if self.labels else ''})"
        )

    def _repr_html_(self) -> str:
        from semanticlens.plot import html

        return str(html.fragment(html.title(repr(self)), self.layers._html_table()))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (
            self.nodes,
            {key: np.asarray(array) for key, array in self.params.items()},
            {
                "input_shape": self.input_shape,
                "output": self.output,
                "name": self.name,
                "aliases": dict(self.aliases),
                "preprocess": self.preprocess,
                "labels": self.labels,
                "folded": dict(self.folded),
                "allow_nonfinite": self._allow_nonfinite,
            },
            self.edits,
        )

    def values_per_sample(self) -> int:
        """Values of all nodes for one sample: what recording everything would hold."""
        return sum(math.prod(dim or 0 for dim in item.shape) for item in self._graph)


def _rebuild(nodes: tuple[Node, ...], params: dict[str, F32], options: dict[str, Any], edits: Sequence[Edit] = ()) -> Network:
    net = Network(nodes, params, **options)
    return net.edited(*edits) if edits else net
