"""Runs the published package 0.2.1 on the cases of test_peers_official.py, with its own interpreter, since both have one import name.

    OFFICIAL_PYTHON tests/official_cases.py IN.npz OUT.npz
"""

import sys
import warnings

import numpy as np


def attempt(function):
    """What a function gives; NaN where it raises."""
    try:
        return np.asarray(function())
    except Exception as error:  # which one is what the test is about
        return np.array(f"raised {type(error).__name__}")


def main(source: str, target: str) -> None:
    import torch
    from semanticlens.component_visualization.activation_caching import ActMax
    from semanticlens.scores import clarity_score, polysemanticity_score, redundancy_score, similarity_score

    from semanticlens.lens import text_probing

    warnings.filterwarnings("ignore")
    given = dict(np.load(source))
    t = {name: torch.from_numpy(value) for name, value in given.items() if value.dtype.kind == "f"}
    out = {}
    for name in ("plain", "one", "zero_row", "all_zero", "nan_row", "tiny", "identical"):
        out[f"clarity_{name}"] = attempt(lambda name=name: clarity_score(t[name]).numpy())
    for name in ("plain", "nan_row", "identical", "clear"):
        out[f"polysemanticity_{name}"] = attempt(lambda name=name: polysemanticity_score(t[name]).numpy())
    for name in ("vectors", "single", "nan_vector"):
        out[f"redundancy_{name}"] = attempt(lambda name=name: redundancy_score(t[name]).numpy())
    for name in ("as_many", "square"):
        out[f"similarity_{name}"] = attempt(lambda name=name: similarity_score(t[f"{name}_a"], t[f"{name}_b"]).numpy())
    for name in ("few", "negative", "nan", "close"):
        store = ActMax(5)
        store.update(t[f"acts_{name}"], torch.arange(len(given[f"acts_{name}"])))
        out[f"ids_{name}"], out[f"scores_{name}"] = store.sample_ids.numpy(), store.activations.float().numpy()

    class Tower:
        """A text tower that looks vectors up."""

        device = "cpu"

        def tokenize(self, texts):
            return torch.tensor([given["texts"].tolist().index(text) for text in texts])

        def encode_text(self, tokens):
            return torch.from_numpy(given["text_vectors"][tokens.numpy()])

    queries, templates = given["queries"].tolist(), given["templates"].tolist()
    out["probe_plain"] = text_probing(Tower(), queries, t["concepts"]).numpy()
    out["probe_one_template"] = text_probing(Tower(), queries, t["concepts"], templates=templates[:1]).numpy()
    out["probe_several"] = text_probing(Tower(), queries, t["concepts"], templates=templates).numpy()
    np.savez(target, **out)


if __name__ == "__main__":
    main(*sys.argv[1:3])
