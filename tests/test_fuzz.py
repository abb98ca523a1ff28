"""The fuzz targets over their committed corpus and over seeded mutations of it: what the light test run can do without a fuzzer."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parent / "fuzz"
sys.path.insert(0, str(FUZZ))

from targets import TARGETS  # noqa: E402

CORPUS = [(name, path) for name in TARGETS for path in sorted((FUZZ / "corpus" / name).iterdir())]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """A few of: overwritten bytes, a lost, doubled or inserted piece, a cut end, a number at its limit."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        size = rng.choice((1, 1, 2, 4, 8, rng.randrange(1, 64)))
        kind = rng.randrange(6)
        if kind == 0:
            data[at : at + size] = rng.randbytes(len(data[at : at + size]))
        elif kind == 1:
            del data[at : at + size]
        elif kind == 2:
            data[at:at] = data[at : at + size]
        elif kind == 3:
            data[at:at] = rng.randbytes(size)
        elif kind == 4:
            del data[at:]
        else:
            data[at : at + 8] = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1)).to_bytes(8, "little")
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_a_corpus(name: str) -> None:
    assert any((FUZZ / "corpus" / name).iterdir())
    assert sum(path.stat().st_size for path in (FUZZ / "corpus" / name).iterdir()) < 100_000


@pytest.mark.parametrize(("name", "path"), CORPUS, ids=lambda v: v.name if isinstance(v, Path) else v)
def test_corpus_and_mutations(name: str, path: Path) -> None:
    target, content, rng = TARGETS[name], path.read_bytes(), random.Random(f"{name} {path.name}")
    target(content)
    for _ in range(100):
        changed = mutate(content, rng)
        try:
            target(changed)
        except BaseException as error:
            pytest.fail(f"{name}: {changed!r} raised {type(error).__name__}: {error}")
