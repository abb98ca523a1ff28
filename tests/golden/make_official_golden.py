"""Writes official_scores.npz: what the published package gives where it is right.

Run in an environment of its own, because it has the same import name as this package:

    python -m venv official && official/bin/pip install semanticlens==0.2.1
    official/bin/python tests/golden/make_official_golden.py

Polysemanticity is on data whose clusters are clear, because on others the published score depends on its seed.  Probing is with one
template and several queries, or several templates and one query: with several of both the published code mixes up the queries' vectors.
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from semanticlens.scores import clarity_score, polysemanticity_score, redundancy_score, similarity_score

from semanticlens.lens import text_probing

TEMPLATES = ["a {}", "a photo of a {}", "{} texture"]
QUERIES = ["dog", "striped", "red"]


class Model:
    """A text tower that looks vectors up."""

    device = "cpu"

    def __init__(self, table):
        self.table = table

    def tokenize(self, texts):
        return torch.tensor([list(self.table).index(text) for text in texts])

    def encode_text(self, tokens):
        return torch.from_numpy(np.stack([self.table[list(self.table)[i]] for i in tokens.tolist()]))


def two_groups(rng, n_components, m, d, spread):
    """Examples around two far-apart directions, and a third of the components with one example alone."""
    v = np.empty((n_components, m, d), np.float32)
    for k in range(n_components):
        centres = rng.standard_normal((2, d)) + 0.7
        first = 1 if k % 3 == 0 else rng.integers(2, m - 1)
        groups = rng.permutation(np.arange(m) < first).astype(int)
        v[k] = centres[groups] + spread * rng.standard_normal((m, d))
    return v


def main():
    rng = np.random.default_rng(20250819)
    out = {"version": np.array(version("semanticlens"))}
    out["clarity_v"] = (rng.standard_normal((12, 9, 32)) + 0.5).astype(np.float32)
    out["clarity"] = clarity_score(torch.from_numpy(out["clarity_v"])).numpy()
    out["redundancy_v"] = (rng.standard_normal((60, 24)) + 0.3).astype(np.float32)
    out["redundancy"] = redundancy_score(torch.from_numpy(out["redundancy_v"])).numpy()
    out["example_redundancy"] = redundancy_score(torch.from_numpy(out["clarity_v"])).numpy()
    out["polysemanticity_v"] = two_groups(rng, 18, 14, 24, 0.2)
    out["polysemanticity"] = polysemanticity_score(torch.from_numpy(out["polysemanticity_v"])).numpy()
    out["similarity_a"], out["similarity_b"] = (rng.standard_normal((n, 16)).astype(np.float32) for n in (5, 7))
    out["similarity"] = similarity_score(torch.from_numpy(out["similarity_a"]), torch.from_numpy(out["similarity_b"])).numpy()
    texts = [t.format(q) for t in ["{}", *TEMPLATES] for q in ["", *QUERIES]]
    table = {text: (rng.standard_normal(20) + 0.4).astype(np.float32) for text in texts}
    out["texts"], out["text_vectors"] = np.array(texts), np.stack([table[text] for text in texts])
    out["concepts"] = (rng.standard_normal((11, 20)) + 0.2).astype(np.float32)
    model, concepts = Model(table), torch.from_numpy(out["concepts"])
    out["probe_plain"] = text_probing(model, QUERIES, concepts).numpy()
    out["probe_one_template"] = text_probing(model, QUERIES, concepts, templates=TEMPLATES[1:2]).numpy()
    out["probe_one_query"] = text_probing(model, QUERIES[:1], concepts, templates=TEMPLATES).numpy()
    out["probe_mixed_up"] = text_probing(model, QUERIES, concepts, templates=TEMPLATES).numpy()
    np.savez_compressed(Path(__file__).with_name("official_scores.npz"), **out)


if __name__ == "__main__":
    main()
