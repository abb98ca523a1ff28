"""Elementwise work of relevance propagation: values, rows of one sample, threads, aliasing, errors."""

from __future__ import annotations

import numpy as np
import pytest

from semanticlens._kernels import relevance as kernels
from semanticlens._reference import contract as twin

RNG = np.random.default_rng
WIDTHS = (1, 2, 3, 7, 15, 16, 17, 31, 33, 65, 97, 8193)


def arrays(n: int, repeats: int = 3, batch: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = RNG(n)
    r, z = (rng.standard_normal(shape).astype(np.float32) for shape in ((batch * repeats, n), (batch, n)))
    r[:, ::7], z[:, ::5], z[:, 1::10] = 0, 0, -0.0
    return r, z


@pytest.mark.parametrize("n", WIDTHS)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eps", [0.0, 0.25])
def test_quotient(n: int, clip: bool, eps: float) -> None:
    r, z = arrays(n)
    kept = r.copy(), z.copy()
    t = np.repeat(twin.stabilised(z, eps, clip), 3, axis=0)
    with np.errstate(all="ignore"):
        want = np.where((r == 0) | (t == 0), np.float32(0), r / t)
    got = kernels.quotient(r, z, eps=eps, clip=clip, n_threads=1)
    assert np.array_equal(got, want)
    for n_threads in (2, 3, 8):
        assert kernels.quotient(r, z, eps=eps, clip=clip, n_threads=n_threads).tobytes() == got.tobytes()
    assert np.array_equal(r, kept[0])
    assert np.array_equal(z, kept[1])
    assert kernels.quotient(r, z, eps=eps, clip=clip, out=r) is r
    assert np.array_equal(r, want)


@pytest.mark.parametrize("n", WIDTHS)
@pytest.mark.parametrize("part", ["plain", "positive", "negative"])
def test_times(n: int, part: str) -> None:
    g, x = arrays(n)
    before = RNG(0).standard_normal(g.shape).astype(np.float32)
    product = np.float32(-2.5) * (np.repeat(twin.variant(x, part), 3, axis=0) * g)
    kept = g.copy(), x.copy(), before.copy()
    for added, want in ((None, product), (before, product + before)):
        got = kernels.times(g, x, part=part, scale=-2.5, sum=added, n_threads=1)
        assert np.array_equal(got, want)
        for n_threads in (2, 3, 8):
            assert kernels.times(g, x, part=part, scale=-2.5, sum=added, n_threads=n_threads).tobytes() == got.tobytes()
    assert all(np.array_equal(a, b) for a, b in zip(kept, (g, x, before), strict=True))
    assert np.array_equal(kernels.times(g, x, part=part, scale=-2.5, sum=before, out=before), product + kept[2])


def test_many_values_on_several_threads() -> None:
    r, z = arrays(50_000, repeats=2)
    one = kernels.quotient(r, z, eps=0.1, n_threads=1)
    assert all(kernels.quotient(r, z, eps=0.1, n_threads=n).tobytes() == one.tobytes() for n in (2, 3, 8))


def test_nan_stays_nan() -> None:
    r, z = np.array([[np.nan, 1, 0]], np.float32), np.array([[1, np.nan, np.nan]], np.float32)
    got = kernels.quotient(r, z, eps=0.1)
    assert np.isnan(got[0, :2]).all()
    assert got[0, 2] == 0  # no relevance, no share


@pytest.mark.parametrize(
    ("r", "z", "message"),
    [
        (np.ones((3, 4), np.float32), np.ones((2, 4), np.float32), "z must be"),
        (np.ones((2, 4), np.float32), np.ones((2, 5), np.float32), "z must be"),
        (np.ones((2, 4), np.float32), np.ones((2, 4, 1), np.float32), "z must be"),
    ],
)
def test_shapes_that_do_not_fit(r: np.ndarray, z: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernels.quotient(r, z, eps=0.1)
    with pytest.raises(ValueError, match="x must be"):
        kernels.times(r, z)


def test_overlaps_and_kinds_are_refused() -> None:
    r, z = arrays(8)
    with pytest.raises(ValueError, match="out shares memory with z"):
        kernels.quotient(r[:2], z, eps=0.1, out=z)
    with pytest.raises((TypeError, ValueError)):
        kernels.quotient(r.astype(np.float64), z, eps=0.1)
    with pytest.raises(KeyError):
        kernels.times(r, z, part="some")
    with pytest.raises(ValueError, match="part must be plain, positive or negative"):
        kernels.times(r, z, part="square")
    with pytest.raises(ValueError, match="sum"):
        kernels.times(r, z, sum=z)
