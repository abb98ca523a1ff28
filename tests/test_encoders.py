"""Encoders: protocol, precomputed arrays, functions, loading by name."""

import sys

import numpy as np
import pytest
from PIL import Image

import semanticlens as sl
from semanticlens import encoders
from semanticlens.encoders.protocol import check_encoder, check_vectors


def vectors(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


TEXTS = {"striped": vectors(1, 4, 1)[0], "spotted": vectors(1, 4, 2)[0], "": vectors(1, 4, 3)[0]}


def test_arrays_look_vectors_up():
    images = vectors(5, 4)
    encoder = encoders.Arrays(images=images, texts=TEXTS, name="clip")
    assert isinstance(encoder, encoders.Encoder)
    assert (encoder.name, encoder.dim, encoder.n_images) == ("clip", 4, 5)
    assert np.array_equal(encoder.image_vectors([3, 0, 3]), images[[3, 0, 3]])
    assert np.array_equal(encoder.encode_texts(["spotted", "striped"]), [TEXTS["spotted"], TEXTS["striped"]])
    assert "5 images" in repr(encoder)
    pair = encoders.Arrays(texts=(list(TEXTS), np.stack(list(TEXTS.values()))))
    assert np.array_equal(pair.encode_texts(["striped"]), [TEXTS["striped"]])


def test_the_fingerprint_is_the_content():
    images = vectors(5, 4)
    base = encoders.Arrays(images=images, texts=TEXTS)
    assert base.fingerprint == encoders.Arrays(images=images.copy(), texts=TEXTS, name="other").fingerprint
    assert base.fingerprint == encoders.Arrays(images=np.asfortranarray(images)).fingerprint  # words may be added later
    changed = images.copy()
    changed[4, 3] += 1
    assert base.fingerprint != encoders.Arrays(images=changed, texts=TEXTS).fingerprint
    assert encoders.Arrays(texts=TEXTS).fingerprint != base.fingerprint
    assert encoders.Arrays(texts=TEXTS, fingerprint=base.fingerprint).fingerprint == base.fingerprint


def test_arrays_from_a_memory_map_and_half_precision(tmp_path):
    np.save(tmp_path / "x.npy", vectors(6, 4))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.array_equal(encoders.Arrays(images=mapped).image_vectors([5]), vectors(6, 4)[[5]])
    assert encoders.Arrays(images=vectors(6, 4).astype(np.float16)).image_vectors([0]).dtype == np.float32


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: encoders.Arrays(), sl.DataError, "needs images"),
        (lambda: encoders.Arrays(images=vectors(3, 4).astype(float)), TypeError, "images must be float32"),
        (lambda: encoders.Arrays(images=vectors(3, 4)[0]), ValueError, "images must have 2 dimensions"),
        (lambda: encoders.Arrays(images=vectors(3, 0)), sl.DataError, "at least one dimension"),
        (lambda: encoders.Arrays(images=vectors(3, 5), texts=TEXTS), sl.DataError, "images have 5 dimensions, but texts have 4"),
        (lambda: encoders.Arrays(texts={}), sl.DataError, "texts is empty"),
        (lambda: encoders.Arrays(texts={"a": vectors(1, 4)[0], "b": vectors(1, 3)[0]}), sl.DataError, r"texts\['b'\] has 3 numbers"),
        (lambda: encoders.Arrays(texts={"a": np.zeros(4, np.float32)}), sl.DataError, "'a' is NaN, infinite or of length 0"),
        (lambda: encoders.Arrays(texts={"a": np.full(4, np.nan, np.float32)}), sl.DataError, "'a' is NaN"),
        (lambda: encoders.Arrays(texts=(["a"], vectors(2, 4))), sl.DataError, "1 names, but 2 vectors"),
        (lambda: encoders.Arrays(texts=(["a", "a"], vectors(2, 4))), sl.DataError, "'a' twice"),
        (lambda: encoders.Arrays(texts=["a"]), TypeError, "mapping of text to vector"),
        (lambda: encoders.Arrays(images=vectors(3, 4)).encode_texts(["a"]), sl.DataError, "no text vectors"),
        (lambda: encoders.Arrays(texts=TEXTS).image_vectors([0]), sl.DataError, "no image vectors"),
        (
            lambda: encoders.Arrays(images=vectors(3, 4)).image_vectors([0, 7]),
            sl.DataError,
            "no vector for picture 7: encoder 'arrays' has 3",
        ),
        (lambda: encoders.Arrays(texts=TEXTS).encode_texts(["stripes"]), sl.DataError, "'stripes'; nearest of its 3 texts: 'striped'"),
        (lambda: encoders.Arrays(texts={"a": vectors(1, 4)[0]}).encode_texts([""]), sl.DataError, "no vector for the empty text"),
        (lambda: encoders.Arrays(texts=TEXTS).encode_images([Image.new("RGB", (2, 2))]), sl.DataError, "cannot encode a picture"),
    ],
)
def test_arrays_refuse_what_does_not_fit(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_functions_as_an_encoder():
    encoder = encoders.Callable(
        images=lambda pictures: [[p.width, p.height] for p in pictures] * np.ones(1),
        texts=lambda texts: [[len(t), 1.0] for t in texts],
        dim=2,
        name="sizes",
    )
    assert isinstance(encoder, encoders.Encoder)
    assert encoder.encode_images([Image.new("RGB", (3, 5))]).tolist() == [[3, 5]]
    assert encoder.encode_texts(["abc"]).dtype == np.float32
    assert encoder.fingerprint != encoders.Callable(texts=len, dim=2, name="others").fingerprint
    assert encoders.Callable(texts=len, dim=2, name="x", fingerprint="weights").fingerprint == "weights"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: encoders.Callable(dim=2, name="x"), sl.DataError, "needs a function"),
        (lambda: encoders.Callable(images=vectors(2, 2), dim=2, name="x"), TypeError, "images must be a function, not ndarray"),
        (lambda: encoders.Callable(texts=len, dim=0, name="x"), sl.DataError, "dim=0"),
        (lambda: encoders.Callable(texts=len, dim=2, name=""), sl.DataError, "name must not be empty"),
        (
            lambda: encoders.Callable(texts=lambda t: np.ones((1, 3)), dim=2, name="x").encode_texts(["a"]),
            sl.DataError,
            r"must return .* shape \(1, 2\), not float64 of shape \(1, 3\)",
        ),
        (lambda: encoders.Callable(texts=lambda t: np.ones((2, 2)), dim=2, name="x").encode_texts(["a"]), sl.DataError, r"shape \(1, 2\)"),
        (lambda: encoders.Callable(texts=len, dim=2, name="x").encode_images([]), sl.DataError, "no function for images"),
        (lambda: encoders.Callable(images=len, dim=2, name="x").encode_texts([]), sl.DataError, "no function for texts"),
    ],
)
def test_functions_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_what_is_not_an_encoder():
    with pytest.raises(TypeError, match=r"is a text: .*encoders.load\('demo'\)"):
        check_encoder("demo")
    with pytest.raises(TypeError, match="lacks name, dim"):
        check_encoder(object())
    with pytest.raises(TypeError, match="encoder=Arrays is a class"):
        check_encoder(encoders.Arrays)
    with pytest.raises(sl.DataError, match="must return floating-point"):
        check_vectors([[1, 2]], 1, 2, "it")

    class Tensor:  # what a torch tensor looks like from here
        def detach(self):
            return self

        def cpu(self):
            return np.ones((1, 2), np.float16)

    assert check_vectors(Tensor(), 1, 2, "it").dtype == np.float32
    assert "torch" not in sys.modules


def test_only_what_comes_with_the_package_is_loaded_by_name():
    with pytest.raises(ValueError, match=r"'ViT-B-32'; there is 'demo'. Nothing is downloaded"):
        encoders.load("ViT-B-32")
