"""Does a network use what it should? Components sorted into valid, spurious and unexpected, beside what they do.

With prompts of what may be used (P_v) and of what must not be (P_s), concept vectors theta_k and the score ``s_p(k)`` of
:mod:`semanticlens.lens.probe` (``null="score"``: ``cos(theta_k, p) - cos(theta_k, empty text)``):

``a_k(P) = max of s_p(k) over P``; a component is *valid* where ``a_k(P_v) >= t`` and ``a_k(P_v) >= a_k(P_s)``, *spurious* where
``a_k(P_s) >= t`` and is larger, else *unexpected*. Its share of a class is ``max(R_k(y), 0) / sum over j of max(R_j(y), 0)``, with
R_k(y) its mean relevance over the pictures of the class. (SemanticLens, Nature Machine Intelligence 2025.)

**Labels are not causes.** What a component is called says what its examples show; where an artefact comes with one class only, the
component of the class has the same examples. So the audit has three columns, label, relevance and effect, the last measured by taking
the component out (:mod:`semanticlens.lens.effects`), and marks where they disagree. Shares are of relevance, not of components.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError, LayerNotFoundError, MismatchError, ModelFileError
from semanticlens.io import atomic_write
from semanticlens.lens.effects import Effects, answers, effects
from semanticlens.lens.probe import probe, text_queries
from semanticlens.lens.results import number, text_table

if TYPE_CHECKING:
    from semanticlens.attribution.roles import Roles
    from semanticlens.lens.database import ConceptDB
    from semanticlens.nn.network import Network

__all__ = ["Audit", "Finding", "LayerAudit", "audit"]

F64 = NDArray[np.float64]
NUMBERS = ("alignment", "share", "effect", "error", "pull", "separation", "through", "through_error")
CATEGORIES = ("valid", "spurious", "unexpected")
DECISIONS = (*CATEGORIES, "unclear")
SHOWN = 24
SURE = 2.0  # standard errors from which an effect counts
ANSWERS = 0.75  # share of pairs from which a component answers


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Finding:
    """One component for one class.

    Attributes
    ----------
    layer, component : str, int
    target : int
        The class.
    category : {"valid", "spurious", "unexpected"}
        By its label.
    prompt : str
        The closest one.
    alignment : float
        Its score.
    share : float
        Of the class's relevance in the layer.
    effect, error : float
        Mean of the class's log odds with the component less those without it over pictures of the class, and its standard error; NaN
        where it was not measured.
    pull : float
        The same over all other pictures.
    separation, through : float
        From pairs of pictures without and with the thing that must not be used: share of pairs in which the component is larger in
        the second, and how much of what the thing does to the class passes through it; NaN where no pairs were given.
    through_error : float
        Standard error of ``through``.
    decision : str or None
        What a person made of it.
    """

    layer: str
    component: int
    target: int
    category: str
    prompt: str
    alignment: float
    share: float
    effect: float
    error: float
    pull: float
    separation: float = float("nan")
    through: float = float("nan")
    through_error: float = float("nan")
    decision: str | None = None

    @property
    def acts(self) -> str:
        """ "for", "against" or "not at all", as far as the effect tells; "not measured"."""
        if np.isnan(self.effect):
            return "not measured"
        if not np.abs(self.effect) > SURE * self.error:
            return "not at all"
        return "for" if self.effect > 0 else "against"

    @property
    def answers(self) -> bool:
        """Whether it answers to the thing that the pairs differ in, and passes that on to the class: by more than two standard errors."""
        return bool(self.separation >= ANSWERS and self.through > SURE * self.through_error)

    @property
    def disagrees(self) -> bool:
        """Relevance speaks for the class and the experiment does not; or the label is a valid one, and it answers to what is not."""
        return (self.share > 0 and self.acts in ("against", "not at all")) or (self.category != "spurious" and self.answers)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        numbers = {name: number(getattr(self, name)) for name in NUMBERS}
        return {
            "layer": self.layer,
            "component": self.component,
            "class": self.target,
            "category": self.category,
            "prompt": self.prompt,
            **numbers,
            "acts": self.acts,
            "answers": self.answers,
            "disagrees": self.disagrees,
            "decision": self.decision,
        }


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LayerAudit:
    """One layer as arrays, K components and Y classes.

    Attributes
    ----------
    layer : str
    valid, spurious : ndarray (K,), float64
        ``a_k`` of each set of prompts; NaN for components without a vector.
    valid_prompt, spurious_prompt : ndarray (K,), int64
        Which prompt that was; -1 for components without a vector.
    shares : ndarray (Y, K), float64
        Of each class's relevance; rows sum to 1, or are 0 where nothing speaks for the class.
    effect, error, pull, through, through_error : ndarray (Y, K), float64
        See :class:`Finding`; NaN where not measured.
    separation : ndarray (K,), float64
        Likewise.
    """

    layer: str
    valid: F64
    spurious: F64
    valid_prompt: NDArray[np.int64]
    spurious_prompt: NDArray[np.int64]
    shares: F64
    effect: F64
    error: F64
    pull: F64
    separation: F64
    through: F64
    through_error: F64

    def categories(self, threshold: float) -> NDArray[np.int64]:
        """(K,): places in ``CATEGORIES``; -1 for components without a vector."""
        with np.errstate(invalid="ignore"):
            valid = (self.valid >= threshold) & (self.valid >= self.spurious)
            spurious = (self.spurious >= threshold) & (self.spurious > self.valid)
        found = np.where(valid, 0, np.where(spurious, 1, 2))
        return np.where(np.isnan(self.valid), -1, found).astype(np.int64)


@dataclass(frozen=True, eq=False, kw_only=True)
class Audit:
    """What :func:`audit` returns; prints as a table of shares and the components that carry them.

    Attributes
    ----------
    layers : mapping of str to LayerAudit
    classes : tuple of int
    class_names : tuple of str
        Of these classes.
    valid, spurious : tuple of str
        The prompts.
    threshold : float or None
    least : float
        Share below which a component is left out of lists.
    null : str
    record : mapping
        Fingerprints of network, data and encoder.
    decisions : dict of (layer, component) to (decision, note)
    """

    layers: Mapping[str, LayerAudit]
    classes: tuple[int, ...]
    class_names: tuple[str, ...]
    valid: tuple[str, ...]
    spurious: tuple[str, ...]
    threshold: float | None
    least: float
    null: str
    record: Mapping[str, Any]
    decisions: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)
    effects: Effects | None = field(default=None, repr=False)
    db: Any = field(default=None, repr=False)

    # ---------------------------------------------------------------- reading
    def at(self, threshold: float) -> Audit:
        """The same audit with another threshold; decisions are shared."""
        return replace(self, threshold=_threshold(threshold))

    def shares(self, layer: str | None = None) -> dict[str, dict[str, float]]:
        """Class name -> category -> share of its relevance (1 in all, or 0 where nothing speaks for the class)."""
        own, categories = self._layer(layer), self._categories(layer)
        return {
            name: {word: float(own.shares[i][categories == c].sum()) for c, word in enumerate(CATEGORIES)}
            for i, name in enumerate(self.class_names)
        }

    def counts(self, layer: str | None = None) -> dict[str, int]:
        """Category -> number of components: shares of relevance are not shares of these."""
        categories = self._categories(layer)
        return {word: int((categories == c).sum()) for c, word in enumerate(CATEGORIES)}

    def curve(self, layer: str | None = None, thresholds: Iterable[float] | None = None) -> dict[str, F64]:
        """What each threshold would give: ``threshold`` (T,), and by category the shares (Y, T) of the classes.

        Left out, thresholds go from the least to the largest ``a_k`` in 101 steps.
        """
        own = self._layer(layer)
        both = np.concatenate([own.valid, own.spurious])
        both = both[~np.isnan(both)]
        if thresholds is None:
            thresholds = np.linspace(both.min(), both.max(), 101) if both.size else np.zeros(1)
        steps = np.asarray(list(thresholds), np.float64)
        found = [own.categories(float(t)) for t in steps]
        result = {"threshold": steps}
        for c, word in enumerate(CATEGORIES):
            result[word] = np.stack([(own.shares * (categories == c)).sum(axis=1) for categories in found], axis=1)
        return result

    def findings(
        self, target: int | str | None = None, category: str | None = None, layer: str | None = None
    ) -> list[Finding]:
        """Components with a share of at least ``least``, of one class and category or of all.

        First what answers to the thing that pairs differ in, by how much passes through it; then what the experiment says acts for
        the class, by effect; then what was not measured, and what does not act, by share.
        """
        if category is not None and category not in CATEGORIES:
            raise ValueError(f"category={category!r}: must be one of {', '.join(map(repr, CATEGORIES))}")
        places = range(len(self.classes)) if target is None else [self._place(target)]
        found = []
        for name in self.layers if layer is None else [layer]:
            own, categories = self._layer(name), self._categories(name)
            for i in places:
                for k in np.flatnonzero((own.shares[i] >= max(self.least, 1e-12)) & (categories >= 0)):
                    if category is None or CATEGORIES[categories[k]] == category:
                        found.append(self._finding(own, i, int(k), int(categories[k])))
        return sorted(found, key=_order)

    def unexpected(self, target: int | str | None = None) -> list[Finding]:
        """What a person should look at: relevant components that neither set of prompts describes."""
        return self.findings(target, "unexpected")

    def _finding(self, own: LayerAudit, i: int, k: int, c: int) -> Finding:
        spurious = CATEGORIES[c] == "spurious" or (CATEGORIES[c] == "unexpected" and own.spurious[k] > own.valid[k])
        place = (own.spurious_prompt if spurious else own.valid_prompt)[k]
        return Finding(
            layer=own.layer,
            component=k,
            target=self.classes[i],
            category=CATEGORIES[c],
            prompt=(self.spurious if spurious else self.valid)[place],
            alignment=float((own.spurious if spurious else own.valid)[k]),
            share=float(own.shares[i, k]),
            effect=float(own.effect[i, k]),
            error=float(own.error[i, k]),
            pull=float(own.pull[i, k]),
            separation=float(own.separation[k]),
            through=float(own.through[i, k]),
            through_error=float(own.through_error[i, k]),
            decision=self.decisions.get((own.layer, k), (None, ""))[0],
        )

    def _layer(self, layer: str | None) -> LayerAudit:
        if layer is None:
            if len(self.layers) > 1:
                raise ValueError(f"layer is missing: the audit has {', '.join(map(repr, self.layers))}")
            return next(iter(self.layers.values()))
        if layer not in self.layers:
            raise LayerNotFoundError(layer, self.layers, "the audit")
        return self.layers[layer]

    def _categories(self, layer: str | None) -> NDArray[np.int64]:
        if self.threshold is None:
            raise DataError("the audit has no threshold, so no categories: look at a.curve(), then take a.at(0.2), say")
        return self._layer(layer).categories(self.threshold)

    def _place(self, target: int | str) -> int:
        known: dict[int | str, int] = {y: i for i, y in enumerate(self.classes)}
        known.update({name: i for i, name in enumerate(self.class_names)})
        if target not in known:
            raise DataError(f"class {target!r} was not audited; there are {', '.join(map(repr, self.class_names))}")
        return known[target]

    # ---------------------------------------------------------------- decisions
    def decide(self, layer: str, component: int, decision: str, note: str = "") -> None:
        """Record what a person made of a component; :meth:`save` keeps it."""
        own = self._layer(layer)
        if decision not in DECISIONS:
            raise ValueError(f"decision={decision!r}: must be one of {', '.join(map(repr, DECISIONS))}")
        if not 0 <= component < len(own.valid):
            raise DataError(f"component {component}: layer {layer!r} has components 0 to {len(own.valid) - 1}")
        self.decisions[layer, int(component)] = (decision, str(note))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write findings, settings and decisions as JSON, atomically."""
        with atomic_write(path, "w") as file:
            json.dump(self.to_dict(), file, indent=1, ensure_ascii=False, allow_nan=False)
        return Path(path)

    def load_decisions(self, path: str | os.PathLike[str]) -> int:
        """Take over the decisions of a saved audit of the same network; returns how many there were.

        Raises
        ------
        ModelFileError, MismatchError
            If the file is no saved audit, or one of another network.
        """
        try:
            given = json.loads(Path(path).read_text(encoding="utf-8"))
            entries = [
                (str(d["layer"]), int(d["component"]), str(d["decision"]), str(d["note"])) for d in given["decisions"]
            ]
            network = given["record"]["network"]
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFileError(f"{os.fspath(path)}: cannot be read ({error})") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ModelFileError(f"{os.fspath(path)}: not a saved audit ({type(error).__name__}: {error})") from None
        if network != self.record["network"]:
            raise MismatchError(f"{os.fspath(path)}: the decisions are about another network")
        for entry in entries:
            self.decide(*entry)
        return len(entries)

    # ---------------------------------------------------------------- showing
    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        result: dict[str, Any] = {
            "classes": [{"class": y, "name": name} for y, name in zip(self.classes, self.class_names, strict=True)],
            "valid": list(self.valid),
            "spurious": list(self.spurious),
            "null": self.null,
            "threshold": self.threshold,
            "least": self.least,
            "record": dict(self.record),
            "decisions": [
                {"layer": layer, "component": k, "decision": decision, "note": note}
                for (layer, k), (decision, note) in sorted(self.decisions.items())
            ],
        }
        if self.threshold is not None:
            result["shares"] = {layer: self.shares(layer) for layer in self.layers}
            result["counts"] = {layer: self.counts(layer) for layer in self.layers}
            result["findings"] = [finding.to_dict() for finding in self.findings()]
        return result

    def table(self) -> str:
        """The findings, see :meth:`findings`."""
        headers = [
            "class",
            "layer",
            "component",
            "category",
            "prompt",
            "alignment",
            "share",
            "effect",
            "error",
            "acts",
            "decision",
        ]
        return text_table(headers, [self.row(finding) for finding in self.findings()], SHOWN)

    def row(self, f: Finding) -> list[object]:
        """A finding as the table has it."""
        name = self.class_names[self.classes.index(f.target)]
        acts = f"{f.acts}, answers" if f.answers else f.acts
        acts = f"{acts} (!)" if f.disagrees else acts
        return [
            name,
            f.layer,
            f.component,
            f.category,
            f.prompt,
            f.alignment,
            f.share,
            f.effect,
            f.error,
            acts,
            f.decision or "",
        ]

    def __repr__(self) -> str:
        if self.threshold is None:
            return f"Audit of {', '.join(self.class_names)}: no threshold yet, see .curve() and .at(threshold)"
        rows = [
            [layer, name, *(shares[word] for word in CATEGORIES)]
            for layer in self.layers
            for name, shares in self.shares(layer).items()
        ]
        counts = ", ".join(
            f"{layer}: " + ", ".join(f"{n} {word}" for word, n in self.counts(layer).items()) for layer in self.layers
        )
        head = text_table(["layer", "class", *CATEGORIES], rows)
        return f"Shares of relevance at threshold {self.threshold:g} ({counts})\n{head}\n\n{self.table()}"

    def _repr_html_(self) -> str:
        from semanticlens.plot import audit as drawing

        return str(drawing.fragment_of(self))

    def plot(self, ax: Any = None, *, target: int | str | None = None, layer: str | None = None) -> Any:
        """Alignment with the valid prompts against share of relevance, by category; see :func:`semanticlens.plot.audit.scatter`."""
        from semanticlens.plot import audit as drawing

        return drawing.scatter(self, ax, target=target, layer=layer)

    def report(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """One self-contained HTML page; see :func:`semanticlens.plot.audit.report`."""
        from semanticlens.plot import audit as drawing

        return drawing.report(self, path, **options)


def audit(
    db: ConceptDB,
    *,
    classes: Sequence[int | str],
    valid: str | Sequence[str],
    spurious: str | Sequence[str],
    threshold: float | None = None,
    layers: str | Sequence[str] | None = None,
    templates: str | Sequence[str] | None = None,
    null: str = "score",
    least: float = 0.01,
    roles: Roles | None = None,
    network: Network | None = None,
    images: Any = None,
    targets: Any = None,
    measure: int = 10,
    how: str = "zero",
    pairs: tuple[Any, Any] | None = None,
    n_threads: int | None = None,
    progress: bool = False,
) -> Audit:
    """Sort a network's components by what they may and must not show, and measure what they do.

    Parameters
    ----------
    db : ConceptDB
        With its encoder. A network attached to it (``db.attach(network=...)``) and its pictures are used where ``network`` and
        ``images`` are left out.
    classes : sequence of int or str
        Outputs of the network, by number or name.
    valid, spurious : str or sequence of str
        What may be used for these classes, and what must not be.
    threshold : float, optional
        From which score a prompt describes a component. There is no default that fits all encoders: left out, the audit has no categories
        yet; look at :meth:`Audit.curve`, then take :meth:`Audit.at`.
    layers : str or sequence of str, optional
    templates, null
        As for :meth:`ConceptDB.search`.
    least : float
        Share of relevance from which a component is listed.
    roles : Roles, optional
        Mean relevance by class, from :func:`semanticlens.attribution.roles`; computed from network and pictures if left out.
    network : Network, optional
    images : Dataset or array, optional
        Pictures for roles and effects, with labels (or ``targets``) as the network counts its outputs.
    targets : array (n,) of int, optional
    measure : int
        Effects are measured for so many components per class and layer, those with the largest shares; 0 measures none.
    how : {"zero", "mean"}
        See :func:`semanticlens.lens.effects`.
    pairs : (data set, data set), optional
        The same pictures without and with the thing that must not be used, for :func:`semanticlens.lens.answers` of the same components.
        They find components that answer to it whatever their examples show: where it comes with one class only, labels cannot.
    n_threads : int, optional
    progress : bool

    Returns
    -------
    Audit

    Raises
    ------
    DataError
        For empty prompts, classes that do not exist or have no pictures, and where network or pictures are needed and missing.
    MismatchError
        If the network is not the one the database was made from.
    """
    prompts = [_prompts(valid, "valid"), _prompts(spurious, "spurious")]
    both = sorted(set(prompts[0]) & set(prompts[1]))
    if both:
        raise DataError(f"{both[0]!r} is among the valid and the spurious prompts: it can be one of them only")
    level = None if threshold is None else _threshold(threshold)
    if not 0 <= least <= 1:
        raise ValueError(f"least={least!r}: must be a share, 0 to 1")
    if isinstance(measure, bool) or not isinstance(measure, int) or measure < 0:
        raise ValueError(f"measure={measure!r}: must be a whole number of at least 0")
    if pairs is not None and not measure:
        raise ValueError("pairs are given, but measure=0 measures no component: leave out one of them")
    names = db._chosen(layers)
    net = db.network if network is None else network
    pictures = db.images if images is None else images
    if network is not None:
        db.check_network(network)
    if roles is None or measure:
        _needed(net, pictures, roles is None)
    if roles is None:
        from semanticlens.attribution.roles import roles as role_of

        assert net is not None
        roles = role_of(net, pictures, layers=names, targets=targets, n_threads=n_threads, progress=progress)
    numbers, words = _class_numbers(classes, net, roles, names)
    encoder = db._needed_encoder("an audit by prompts")
    found = [text_queries(encoder, group, templates, null) for group in prompts]
    made = {}
    for name in names:
        scores = [probe(queries, db[name].vectors, n_threads=n_threads).astype(np.float64) for queries in found]
        made[name] = _sorted_in(name, scores, _shares(roles[name].mean[numbers], numbers, words, len(db[name])))
    result = Audit(
        layers=made,
        classes=tuple(numbers),
        class_names=tuple(words),
        valid=prompts[0],
        spurious=prompts[1],
        threshold=level,
        least=float(least),
        null=found[0].null,
        record={key: db.record.get(key) for key in ("network", "data", "encoder")},
        db=db,
    )
    if not measure:
        return result
    chosen = [(name, int(k)) for name in names for k in _strongest(made[name].shares, measure)]
    if not chosen:
        return result
    assert net is not None
    measured = effects(
        net, pictures, chosen, classes=numbers, targets=targets, how=how, n_threads=n_threads, progress=progress
    )
    if pairs is not None:
        tried = answers(net, *pairs, chosen, classes=numbers, n_threads=n_threads, progress=progress)
        for row, (name, k) in enumerate(tried.components):
            made[name].separation[k], made[name].through[:, k] = tried.separation[row], tried.through[row]
            made[name].through_error[:, k] = tried.through_error[row]
    for row, (name, k) in enumerate(measured.components):
        made[name].effect[:, k], made[name].error[:, k] = measured.own[row], measured.own_error[row]
        made[name].pull[:, k] = measured.others[row]
    return replace(result, effects=measured)


def _order(f: Finding) -> tuple[Any, ...]:
    acts = {"for": 1, "not measured": 2, "not at all": 3, "against": 4}[f.acts]
    by = -f.through if f.answers else -f.effect if f.acts == "for" else -f.share
    return (0 if f.answers else acts, by, f.layer, f.component, f.target)


def _sorted_in(layer: str, scores: list[F64], shares: F64) -> LayerAudit:
    best, place = [], []
    for table in scores:
        gone = np.isnan(table).any(axis=0)
        filled = np.where(gone, -np.inf, table)
        best.append(np.where(gone, np.nan, filled.max(axis=0)))
        place.append(np.where(gone, -1, filled.argmax(axis=0)).astype(np.int64))
    effect, error, pull, through, through_error = (np.full(shares.shape, np.nan) for _ in range(5))
    return LayerAudit(
        layer=layer,
        valid=best[0],
        spurious=best[1],
        valid_prompt=place[0],
        spurious_prompt=place[1],
        shares=shares,
        effect=effect,
        error=error,
        pull=pull,
        separation=np.full(shares.shape[1], np.nan),
        through=through,
        through_error=through_error,
    )


def _shares(relevance: F64, numbers: Sequence[int], words: Sequence[str], components: int) -> F64:
    if relevance.shape[1] != components:
        raise MismatchError(
            f"roles are of {relevance.shape[1]} components, the database has {components} in this layer"
        )
    for row, y, word in zip(relevance, numbers, words, strict=True):
        if np.isnan(row).any():
            raise DataError(
                f"class {y} ({word}) has no pictures, so its relevance is unknown: add some, or leave it out"
            )
    positive = np.maximum(relevance, 0)
    total = positive.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, positive / np.where(total > 0, total, 1), 0.0), np.float64)


def _strongest(shares: F64, number_of: int) -> list[int]:
    found: dict[int, None] = {}
    for row in shares:
        order = np.argsort(-row, kind="stable")[:number_of]
        found.update(dict.fromkeys(int(k) for k in order if row[k] > 0))
    return list(found)


def _prompts(given: str | Sequence[str], what: str) -> tuple[str, ...]:
    found = (given,) if isinstance(given, str) else tuple(given)
    if not found:
        raise DataError(f"{what} is empty: name at least one thing, as a text")
    for one in found:
        if not isinstance(one, str) or not one.strip():
            raise TypeError(f"{what}: {one!r} must be a text")
    return tuple(dict.fromkeys(found))


def _threshold(value: Any) -> float:
    if isinstance(value, bool) or not np.isscalar(value) or not np.isfinite(value):
        raise ValueError(f"threshold={value!r}: must be a finite number, such as 0.2")
    return float(value)


def _needed(net: Any, pictures: Any, roles: bool) -> None:
    what = "relevance and effects need" if roles else "effects need"
    if net is None:
        raise DataError(
            f"{what} the network: pass network=, or db.attach(network=...)"
            + ("; or pass roles= and measure=0" if roles else "; or pass measure=0")
        )
    if pictures is None:
        raise DataError(f"{what} labelled pictures: pass images=, or db.attach(images=...)")


def _class_numbers(
    classes: Sequence[int | str], net: Network | None, roles: Roles, layers: Sequence[str]
) -> tuple[list[int], list[str]]:
    given: list[int | str] = [classes] if isinstance(classes, (int, str)) else list(classes)
    if not given:
        raise DataError("classes is empty: name at least one class")
    count = len(roles[layers[0]].counts)
    labels = None if net is None or net.labels is None else list(net.labels)
    numbers = []
    for one in given:
        if isinstance(one, str):
            if labels is None:
                raise DataError(f"class {one!r}: the network has no class names; pass numbers, 0 to {count - 1}")
            if one not in labels:
                raise DataError(f"class {one!r} is not among the network's {len(labels)} classes")
            numbers.append(labels.index(one))
        elif not 0 <= int(one) < count:
            raise DataError(f"class {one!r} is out of range: there are classes 0 to {count - 1}")
        else:
            numbers.append(int(one))
    numbers = list(dict.fromkeys(numbers))
    return numbers, [str(y) if labels is None else labels[y] for y in numbers]
