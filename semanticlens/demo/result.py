"""The demo as a command: its steps in order, what it prints, its report and its result."""

from __future__ import annotations

import json as json_module
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semanticlens.demo.check import CLEAR, FOLLOWS, RIGHT, Findings, check
from semanticlens.demo.explore import DISTRACTIONS, LAYER, QUERIES, THRESHOLD, Exploration, explore
from semanticlens.demo.mend import WITH, WITHOUT, Mended
from semanticlens.demo.pictures import generate
from semanticlens.lens.results import number, text_table

FIRST_SEED = 1_000_000                                # of the explored pictures; training used 1 to 4
FEWEST_PICTURES = 400


@dataclass(frozen=True)
class DemoResult:
    """What the demo found and how it compares with the truth.

    Attributes
    ----------
    found : Exploration
        Network, database, search results, labels and scores.
    findings : Findings
        The comparisons with the truth.
    report : Path
        The page.
    seconds : float
        Wall-clock time of everything.
    """

    found: Exploration
    findings: Findings
    report: Path
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return self.findings.passed

    @property
    def exit_code(self) -> int:
        """0 if every check holds, else 1."""
        return 0 if self.passed else 1

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        suspect, effect = self.found.artefact, self.findings.intervention
        return {
            "passed": self.passed,
            "checks": [{"name": c.name, "value": number(c.value), "floor": c.floor, "passed": c.passed} for c in self.findings.checks],
            "artefact": {"description": suspect.description, "layer": suspect.hit.layer, "component": suspect.hit.component,
                         "score": suspect.hit.score, "label": suspect.label, "class": suspect.classes[0][0]},
            "intervention": {"pictures": effect.n, "called_the_class_without": effect.without, "called_the_class_with": effect.with_it,
                             "followers": [
                                 {"component": f.component, "label": f.label, "observed_auroc": f.observed, "paired_auroc": f.paired}
                                 for f in effect.followers]},
            "repair": None if self.findings.mended is None else self.findings.mended.to_dict(),
            "clear_components": [
                {"component": c.component, "truths": [list(pair) for pair in c.truths], "label": c.label, "right": c.right}
                for c in self.findings.clear],
            "accuracy": self.findings.accuracy, "search": self.found.queries.to_dict(), "labels": self.found.labels.to_dict(),
            "scores": self.found.scores.to_dict(), "report": str(self.report), "seconds": self.seconds,
        }

    def __repr__(self) -> str:
        rows = [[c.name, c.value, f">= {c.floor:.2f}", "ok" if c.passed else "FAILED"] for c in self.findings.checks]
        return text_table(["check", "value", "floor", ""], rows)


def run_demo(out: str | os.PathLike[str], *, n_pictures: int, seed: int, n_threads: int | None, progress: bool, json: bool) -> DemoResult:
    """See :func:`semanticlens.demo.run`."""
    if n_pictures < FEWEST_PICTURES:
        raise ValueError(f"n_pictures={n_pictures}: at least {FEWEST_PICTURES} are needed for every component to have telling examples")
    if not 0 <= seed < FIRST_SEED:
        raise ValueError(f"seed={seed}: must lie in 0 to {FIRST_SEED - 1}; beyond are the seeds of the check")
    out = Path(out)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"cannot write the report {out}: the folder {out.parent} does not exist")
    start = time.perf_counter()
    pictures = generate(n_pictures, FIRST_SEED + seed)
    found = explore(pictures.pixels, n_threads=n_threads, progress=progress)
    findings = check(found, seed, n_threads=n_threads)
    found.db.report(out, queries=found.queries, labels=found.labels, scores=found.scores, note=_summary(found, findings),
                    title="What a small network has learned about shapes")
    result = DemoResult(found, findings, out.resolve(), time.perf_counter() - start)
    print(json_module.dumps(result.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) if json else _text(result))
    return result


def _text(result: DemoResult) -> str:
    found, findings = result.found, result.findings
    net = found.net
    n_params = sum(array.size for array in net.params.values())
    parts = [
        f"semanticlens demo: {net.name}, {n_params:,} parameters, {len(net.labels or ())} classes ({', '.join(net.labels or ())})",
        f"It has looked at {len(found.images)} generated pictures; layer {LAYER} has {len(found.db[LAYER])} components, each with its "
        f"{found.db[LAYER].ids.shape[1]} strongest pictures.",
        "", "SEARCH: the components that answer best to a text (cosine; classes as the network itself answers)", _searches(found),
        "", "LABELS AND SCORES of every live component", _components(found),
        "", "WHAT SHOULD NOT MATTER for a shape, and the component that answers best to it", _suspicions(found),
        "", *_confession(found, findings),
        "", "TAKEN OUT: what answers to it, whatever its label, on fresh pictures", *_repaired(findings),
        "", "AGAINST THE TRUTH, on fresh pictures where any class has any overlay", _truth(findings),
        "", repr(result),
        "", f"report: {result.report}",
        f"{'all checks hold' if result.passed else 'SOME CHECKS FAILED'}, {result.seconds:.1f} s",
    ]
    return "\n".join(parts)


def _searches(found: Exploration) -> str:
    rows = []
    for query in QUERIES:
        hits = found.queries.of(query)
        label = str(found.labels[LAYER, hits[0].component]) if hits[0].score >= THRESHOLD else f"(below {THRESHOLD}: none answers)"
        rows.append([query, ", ".join(f"{h.component} ({h.score:.2f})" for h in hits[:3]), label,
                     ", ".join(name for name, _ in hits[0].classes[:2])])
    return text_table(["query", "components (cosine)", "label of the first", "its classes"], rows)


def _components(found: Exploration) -> str:
    scores = found.scores[LAYER]
    live = [found.labels[LAYER, int(k)] for k in np.flatnonzero(~found.db[LAYER].dead)]
    rows = [[own.component, str(own), own.score, own.candidates[1][0],
             *(float(values[own.component]) for values in (scores.clarity, scores.polysemanticity, scores.redundancy))]
            for own in sorted(live, key=lambda own: (str(own), -own.score))]
    table = text_table(["component", "label", "cosine", "then", "clarity", "polysem.", "redund."], rows)
    return f"{table}\nmeans: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.means.items())


def _suspicions(found: Exploration) -> str:
    rows = [[s.description, s.hit.component, s.hit.score, s.label, "yes" if s.confirmed else "no", s.classes[0][0]]
            for s in found.suspicions]
    return text_table(["description", "component", "cosine", "its own label", "agree", "class it fires for"], rows)


def _confession(found: Exploration, findings: Findings) -> list[str]:
    """The artefact in words, and the difference between company and cause."""
    suspect, effect = found.artefact, findings.intervention
    rows = [[f.component, f.label, f.observed, f.paired] for f in effect.followers[:8]]
    return [
        f"To be followed up: {suspect.description!r}, component {suspect.hit.component}, class {effect.blamed!r}. The experiment:",
        f"the same {effect.n} pictures of other classes, without and with a {suspect.description}: "
        f"called {effect.blamed!r} {effect.without:.1%} -> {effect.with_it:.1%}.",
        "", f"LABELS ARE NOT CAUSES: components that follow the {suspect.description}, as AUROC",
        text_table(["component", "label", "training-like pictures", "same pictures with / without"], rows), _moral(findings),
    ]


def _repaired(findings: Findings) -> list[str]:
    """Before and after the repair, and what it cannot do."""
    mended = findings.mended
    if mended is None:
        return ["nothing answers to it"]
    names = ", ".join(f"{k} ({through:+.1f} log odds pass through it)" for k, through in mended.components)
    return [f"components {names}", mended.text(), _limits(mended)]


def _limits(mended: Mended) -> str:
    before, after = mended.taken_out.recall(WITHOUT, mended.blamed)
    return (f"What it costs: {mended.blamed} without the artefact, right in {before:.0%} before, is right in {after:.0%} now, because a "
            "component\ncan carry both. What is lost so, or was never learned, comes back only by training on such pictures.")


def _moral(findings: Findings) -> str:
    effect = findings.intervention
    answering = [f for f in effect.followers if f.answers]
    other = [f for f in answering if f.label != effect.named]
    return (f"Where only {effect.blamed!r} has the {effect.named}, as in training, {len(effect.followers)} components follow it "
            f"(AUROC >= {FOLLOWS});\n{len(answering)} answer to the {effect.named} itself, {len(other)} of these with another label. "
            "What is seen in such data is confounded\nwith the class; only changing the picture or the unit tells.")


def _truth(findings: Findings) -> str:
    rows = [[c.component, ", ".join(f"{name} ({value:.3f})" for name, value in c.truths[:2]), c.label, "right" if c.right else "WRONG"]
            for c in sorted(findings.clear, key=lambda c: c.label)]
    return text_table(["component", f"answers to (AUROC >= {CLEAR})", "label", ""], rows)


def _summary(found: Exploration, findings: Findings) -> Any:
    """The report's introduction."""
    from semanticlens.plot.html import Html, escape

    suspect, effect = found.artefact, findings.intervention
    right, mended = sum(c.right for c in findings.clear), findings.mended
    lines = [
        f"A classifier of shapes ({findings.accuracy:.1%} right on fresh pictures) and {len(found.images)} generated pictures. "
        "Texts were compared with the pictures that activate each component most; nobody told the program what the network had learned.",
        f"Asked for what should not matter ({', '.join(DISTRACTIONS)}), component {suspect.hit.component} answers to "
        f"“{suspect.description}” (cosine {suspect.hit.score:.2f}) and fires for the class “{effect.blamed}”. "
        f"Adding one to {effect.n} other pictures changes the share called so from {effect.without:.1%} to {effect.with_it:.1%}.",
        f"Labels are not causes. {_moral(findings)}",
        *([] if mended is None else [
            f"Taking out the components that answer to it ({', '.join(str(k) for k, _ in mended.components)}): of the other pictures with "
            f"a {effect.named}, {mended.taken_out.pulled(WITH, mended.blamed)[0]:.1%} were called {effect.blamed} before and "
            f"{mended.taken_out.pulled(WITH, mended.blamed)[1]:.1%} after; the other classes lost {100 * mended.lost:.1f} points. "
            f"{_limits(mended)}"]),
        f"Against the known truth, {right} of {len(findings.clear)} components with a clear attribute have a right label "
        f"(at least {RIGHT:.0%} asked for).",
    ]
    return Html("</p><p>".join(str(escape(line)) for line in lines))
