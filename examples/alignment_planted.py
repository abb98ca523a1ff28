"""Alignment on data whose truth is known: does it find what was planted, and does it see what a scalar measure misses?

    python examples/alignment_planted.py [--table FILE.json] [--figure FILE.png] [--report FILE.html]

First, two representations of the same samples with concepts that are shared, split, merged, or on one side only: the relations that are
reported against those that were planted, over several seeds.  Second, two representations that place the samples in the same coarse
groups, but disagree, for a growing share of the samples, about the concepts inside them: the adjusted index falls, linear CKA stays
where it is, because the coarse groups hold nearly all variance.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semanticlens import alignment

SIZE = 80  # samples of a planted concept
SHARED, SPLIT, MERGED, ONLY_A, ONLY_B = 5, 2, 2, 3, 2


@dataclass(frozen=True)
class Planted:
    """Features (n, F) of both sides, the concept of each sample on each (-1: none), and the relations between them."""

    a: np.ndarray
    b: np.ndarray
    concept_a: np.ndarray
    concept_b: np.ndarray
    relations: frozenset[tuple[str, frozenset[int], frozenset[int]]]


def place(concepts: np.ndarray, rng: np.random.Generator, dim: int = 12, noise: float = 0.4) -> np.ndarray:
    """Features: a ball around a centre for each concept, wide scatter for samples without one."""
    centres = 4.0 * rng.standard_normal((concepts.max() + 1, dim))
    features = centres[concepts] + noise * rng.standard_normal((len(concepts), dim))
    none = concepts < 0
    features[none] = 6.0 * rng.standard_normal((int(none.sum()), dim))
    return features.astype(np.float32)


def planted(seed: int) -> Planted:
    """Shared, split, merged and one-sided concepts, and samples that belong nowhere; rows in random order."""
    rng = np.random.default_rng(seed)
    a, b, relations = [], [], set()
    next_a = next_b = 0

    def add(kind: str, parts_a: int, parts_b: int) -> None:
        nonlocal next_a, next_b
        parts = max(parts_a, parts_b, 1)
        own_a, own_b = range(next_a, next_a + parts_a), range(next_b, next_b + parts_b)
        for i in range(parts):
            a.extend([own_a[i % parts_a] if parts_a else -1] * SIZE)
            b.extend([own_b[i % parts_b] if parts_b else -1] * SIZE)
        relations.add((kind, frozenset(own_a), frozenset(own_b)))
        next_a, next_b = next_a + parts_a, next_b + parts_b

    kinds = [("shared", SHARED, 1, 1), ("split", SPLIT, 1, 2), ("merged", MERGED, 2, 1), ("only P", ONLY_A, 1, 0), ("only Q", ONLY_B, 0, 1)]
    for kind, count, parts_a, parts_b in kinds:
        for _ in range(count):
            add(kind, parts_a, parts_b)
    a.extend([-1] * 2 * SIZE)
    b.extend([-1] * 2 * SIZE)
    order = rng.permutation(len(a))
    concept_a, concept_b = np.array(a)[order], np.array(b)[order]
    return Planted(place(concept_a, rng), place(concept_b, rng), concept_a, concept_b, frozenset(relations))


def compare(data: Planted) -> alignment.Comparison:
    """The comparison of both sides by density clustering, without an embedding: these features need none."""
    discover = alignment.NLMCD("none", min_cluster_size=30, min_samples=8)
    return alignment.compare({"features": data.a}, {"features": data.b}, discover=discover, quality=False)


def reported(data: Planted, found: alignment.Comparison) -> frozenset[tuple[str, frozenset[int], frozenset[int]]]:
    """The reported relations in terms of the planted concepts: each found concept is the one most of its samples belong to."""
    names = []
    for layer, truth in zip(found.representations, (data.concept_a, data.concept_b), strict=True):
        names.append([int(np.bincount(truth[layer.labels == k] + 1).argmax()) - 1 for k in range(layer.memberships.shape[1])])
    return frozenset((r.kind, frozenset(names[0][p] for p in r.p), frozenset(names[1][q] for q in r.q)) for r in found.pairs[0].relations)


# ---- growing disagreement


def disagreeing(share: float, seed: int, coarse: int = 6, fine: int = 4, size: int = 50, dim: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Two placings of the same samples in the same coarse groups; for ``share`` of them, another concept inside the group."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(coarse), fine * size)
    concepts = np.tile(np.repeat(np.arange(fine), size), coarse)
    moved = rng.permutation(len(groups))[: round(share * len(groups))]
    other = concepts.copy()
    other[moved] = (concepts[moved] + rng.integers(1, fine, len(moved))) % fine
    far, near = 12.0 * rng.standard_normal((coarse, dim)), rng.standard_normal((coarse, fine, dim))
    noise = 0.12 * rng.standard_normal((2, len(groups), dim))
    x, y = (far[groups] + near[groups, c] + e for c, e in zip((concepts, other), noise, strict=True))
    return x.astype(np.float32), y.astype(np.float32)


def measured(share: float, seed: int = 0) -> dict[str, float]:
    """Index and CKA at one share of disagreement."""
    x, y = disagreeing(share, seed)
    discover = alignment.NLMCD("none", min_cluster_size=25, min_samples=5)
    found = alignment.align(discover.clone().fit_transform(x), discover.clone().fit_transform(y))
    return {
        "share": share,
        "aci": found.aci,
        "ndc": found.ndc,
        "stderr": found.stderr / (1 - found.ndc_null),
        "cka": alignment.measures.cka(x, y),
    }


def figure(rows: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    share = [row["share"] for row in rows]
    drawn, axis = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    axis.plot(share, [row["cka"] for row in rows], "s-", color="#b0562b", ms=4)
    axis.errorbar(share, [row["aci"] for row in rows], [1.96 * row["stderr"] for row in rows], fmt="o-", color="#275d91", ms=4, capsize=2)
    axis.text(share[-1], rows[-1]["cka"] - 0.06, "linear CKA", color="#b0562b", ha="right")
    axis.text(share[-1], rows[-1]["aci"] + 0.06, "adjusted index", color="#275d91", ha="right")
    axis.set_xlabel("share of samples in another concept on the other side")
    axis.set_ylim(0, 1.03)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    drawn.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    recovered = []
    for seed in range(args.seeds):
        data = planted(seed)
        found = compare(data)
        got = reported(data, found)
        recovered.append(
            {"seed": seed, "planted": len(data.relations), "right": len(got & data.relations), "wrong": len(got - data.relations)}
        )
        print(
            f"seed {seed}: {recovered[-1]['right']} of {recovered[-1]['planted']} planted relations reported, "
            f"{recovered[-1]['wrong']} others"
        )
        if seed == 0 and args.report is not None:
            found.report(args.report)
    rows = [measured(share) for share in np.round(np.linspace(0, 0.75, 16), 3).tolist()]
    print("\nshare  adjusted index      CKA")
    for row in rows:
        print(f"{row['share']:5.2f}  {row['aci']:.4f} ± {1.96 * row['stderr']:.4f}  {row['cka']:.4f}")
    if args.table is not None:
        args.table.write_text(json.dumps({"recovered": recovered, "disagreement": rows}, indent=1) + "\n")
    if args.figure is not None:
        figure(rows, args.figure)


if __name__ == "__main__":
    main()
