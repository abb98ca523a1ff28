"""Data sets: what is decoded, what is refused, fingerprints, labels, batches in threads."""

import io
import os
import struct
import threading
import time
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

import semanticlens as sl
from semanticlens import DataError
from semanticlens.data import ImageArchive, ImageArray, ImageFolder, batches, decode, to_rgb


def picture(seed=0, size=(8, 6), mode="RGB"):
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0], len(mode)) if mode in ("RGB", "RGBA") else (size[1], size[0])
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode=None)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    for name in ("b/two.png", "a/one.JPG", "a/deep/er.png", "b/.hidden.png", "a/notes.txt", ".git/x.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(len(name)), "JPEG" if name.endswith("JPG") else "PNG"))
    return tmp_path / "photos"


# ---------------------------------------------------------------- decoding


def test_png_is_decoded_exactly():
    image = picture(1)
    assert np.array_equal(np.asarray(decode(encoded(image), "x")), np.asarray(image))


def test_exif_orientation_is_applied():
    image = picture(2, (8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    got = decode(encoded(image, "PNG", exif=exif), "x")
    assert got.size == (4, 8)
    assert np.array_equal(np.asarray(got), np.rot90(np.asarray(image), -1))


def test_transparency_is_laid_on_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (255, 0, 0, 255)
    rgba[0, 1] = (0, 0, 0, 0)
    rgba[1, 0] = (0, 0, 0, 128)
    got = np.asarray(decode(encoded(Image.fromarray(rgba)), "x"))
    assert got[0, 0].tolist() == [255, 0, 0]
    assert got[0, 1].tolist() == [255, 255, 255]
    assert abs(int(got[1, 0, 0]) - 127) <= 1


def test_palettes_and_grey():
    palette = picture(3).quantize(16)
    assert np.array_equal(np.asarray(decode(encoded(palette), "x")), np.asarray(palette.convert("RGB")))
    transparent = Image.new("P", (2, 1))
    transparent.putpalette([0, 0, 0, 10, 20, 30])
    transparent.putdata([0, 1])
    got = np.asarray(decode(encoded(transparent, transparency=0), "x"))
    assert got.tolist() == [[[255, 255, 255], [10, 20, 30]]]
    grey = picture(4, mode="L")
    assert np.array_equal(np.asarray(decode(encoded(grey), "x"))[..., 1], np.asarray(grey))
    cmyk = picture(5).convert("CMYK")
    assert decode(encoded(cmyk, "JPEG"), "x").mode == "RGB"
    assert decode(encoded(Image.new("1", (3, 3), 1)), "x").getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_keeps_the_upper_bits():
    values = np.array([[0, 255, 256], [32768, 65535, 513]], np.uint16)
    got = np.asarray(decode(encoded(Image.fromarray(values)), "x"))
    assert got[..., 0].tolist() == [[0, 0, 1], [128, 255, 2]]


def test_animations_give_their_first_frame():
    frames = [picture(i) for i in range(3)]
    got = decode(encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]), "x")
    assert np.array_equal(np.asarray(got), np.asarray(frames[0]))


def test_float_pictures_are_refused():
    with pytest.raises(DataError, match="scan: floating-point pixels have no defined range"):
        to_rgb(Image.fromarray(np.zeros((2, 2), np.float32)), "scan")


def _png(width, height):
    """A PNG that claims a size and holds a few bytes."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"name.png: the file is empty \(0 bytes\); remove or repair it, or pass on_error='skip'"),
        (b"not a picture", "name.png: cannot be read as a picture: its bytes are of no known picture format; remove"),
        (encoded(picture(0, (64, 64)))[:700], "name.png: cannot be read as a picture"),
        (encoded(picture(0, (64, 64)), "JPEG")[:300], "name.png: cannot be read as a picture"),
        (_png(0, 4), "name.png: cannot be read as a picture"),
        (_png(20, 4), "name.png: cannot be read as a picture"),
        (_png(100_000, 100_000), r"name.png: .*decompression bomb.* raise PIL.Image.MAX_IMAGE_PIXELS \(now [\d,]+\)"),
    ],
)
def test_bad_pictures_are_named(content, message):
    with pytest.raises(DataError, match=message):
        decode(content, "name.png")


def test_bit_flips_never_escape_as_another_error():
    whole = bytearray(encoded(picture(7, (16, 16)), "JPEG") * 1)
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            damaged[at] ^= 1 << int(rng.integers(8))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
                assert decode(bytes(damaged), "x").mode == "RGB"
        except DataError:
            pass


# ---------------------------------------------------------------- folder, archive, array


def test_folder_is_recursive_sorted_and_lazy(folder):
    images = ImageFolder(folder)
    assert images.names == ["a/deep/er.png", "a/one.JPG", "b/two.png"]
    assert len(images) == 3
    assert images.name == "photos"
    assert images.labels is None
    assert images[2].size == (8, 6)
    assert np.array_equal(np.asarray(images[-1]), np.asarray(images[2]))
    assert isinstance(images, sl.data.Dataset)
    with pytest.raises(IndexError, match="3 pictures; there is none at 3"):
        images[3]


def test_folder_labels(folder):
    images = ImageFolder(folder, labels="folders")
    assert images.class_names == ("a", "b")
    assert images.labels.tolist() == [0, 0, 1]
    (folder / "top.png").write_bytes(encoded(picture()))
    with pytest.raises(DataError, match=r"top.png lies directly in .*put every picture into the folder of its class"):
        ImageFolder(folder, labels="folders")
    with pytest.raises(ValueError, match="labels='classes': must be 'none' or 'folders'"):
        ImageFolder(folder, labels="classes")


def test_fingerprint_follows_names_and_contents(folder):
    first = ImageFolder(folder).fingerprint
    assert first == ImageFolder(folder, labels="folders", name="other").fingerprint
    after_reading = ImageFolder(folder)
    for i in range(3):
        after_reading[i]
    assert after_reading.fingerprint == first
    (folder / "b/two.png").rename(folder / "b/three.png")
    renamed = ImageFolder(folder).fingerprint
    (folder / "b/three.png").write_bytes(encoded(picture(99)))
    assert len({first, renamed, ImageFolder(folder).fingerprint}) == 3


def test_a_fingerprint_after_reading_reads_nothing(folder, monkeypatch):
    images = ImageFolder(folder)
    for i in range(3):
        images[i]
    monkeypatch.setattr(ImageFolder, "_read", lambda *_: pytest.fail("read again"))
    assert len(images.fingerprint) == 64


def test_folders_that_cannot_be_used(tmp_path, folder):
    with pytest.raises(DataError, match="is not a folder"):
        ImageFolder(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"there is no picture in .*empty: looked for .bmp"):
        ImageFolder(tmp_path / "empty")
    images = ImageFolder(folder)
    (folder / "b/two.png").unlink()
    with pytest.raises(DataError, match=r"two.png: cannot be read \(No such file or directory\)"):
        images[2]
    os.mkfifo(folder / "b/two.png")
    with pytest.raises(DataError, match=r"two.png: not a regular file"):
        images[2]


def archive(path, entries, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's remark on repeated names
        with zipfile.ZipFile(path, "w", **options) as file:
            for name, content in entries:
                file.writestr(name, content)
    return path


def test_archive_equals_folder(tmp_path, folder):
    names = ["b/two.png", "a/one.JPG", "a/deep/er.png"]
    path = archive(
        tmp_path / "photos.zip",
        [*((name, (folder / name).read_bytes()) for name in names), ("a/", b""), ("__MACOSX/x.png", b"")],
    )
    with ImageArchive(path, labels="folders") as images:
        assert images.names == sorted(names)
        assert images.labels.tolist() == [0, 0, 1]
        assert images.fingerprint == ImageFolder(folder).fingerprint
        assert np.array_equal(np.asarray(images[0]), np.asarray(ImageFolder(folder)[0]))
    with pytest.raises(DataError, match=r"photos.zip is not a folder.*ImageArchive"):
        ImageFolder(path)


def test_archive_is_read_by_many_threads(tmp_path):
    path = archive(
        tmp_path / "x.zip", [(f"{i:03}.png", encoded(picture(i))) for i in range(60)], compression=zipfile.ZIP_DEFLATED
    )
    with ImageArchive(path) as images:
        got = [x for _, x in batches(images, to_chw, batch_size=7, workers=4)]
    assert np.array_equal(np.concatenate(got)[59], to_chw(picture(59)))


def test_hostile_archives(tmp_path):
    with pytest.raises(DataError, match=r"absent.zip: cannot be read"):
        ImageArchive(tmp_path / "absent.zip")
    (tmp_path / "plain.zip").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(DataError, match=r"plain.zip: not a zip archive, or damaged"):
        ImageArchive(tmp_path / "plain.zip")
    with pytest.raises(DataError, match="there is no picture in"):
        ImageArchive(archive(tmp_path / "empty.zip", [("readme.txt", b"")]))
    with pytest.raises(DataError, match=r"'a.png' occurs twice"):
        ImageArchive(archive(tmp_path / "twice.zip", [("a.png", b"1"), ("a.png", b"2")]))
    outside = ImageArchive(
        archive(tmp_path / "outside.zip", [("../../evil.png", encoded(picture())), ("/abs.png", encoded(picture()))])
    )
    assert outside[0].size == (8, 6)  # a name is only a name: nothing is extracted
    assert not (tmp_path.parent.parent / "evil.png").exists()
    outside.close()


def test_archive_entries_that_lie(tmp_path):
    path = archive(tmp_path / "x.zip", [("a.png", encoded(picture())), ("b.png", encoded(picture(1)))])
    whole = path.read_bytes()
    central = whole.index(b"PK\x01\x02")
    for offset, value, message in [
        (8, struct.pack("<H", 1), "'a.png' is encrypted"),
        (24, struct.pack("<I", 0xFFFFFFF0), "claims 4,294,967,280 bytes, more than a picture may have"),
    ]:
        damaged = bytearray(whole)
        damaged[central + offset : central + offset + len(value)] = value
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=message):
            ImageArchive(path)
    damaged = bytearray(whole)
    damaged[60] ^= 255  # in the data: the checksum does not fit
    path.write_bytes(damaged)
    with ImageArchive(path) as images, pytest.raises(DataError, match=r"a.png: the entry is damaged"):
        images[0]
    for cut in range(0, len(whole), 37):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError):
            ImageArchive(path)


def test_array():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    images = ImageArray(pixels, labels=[0, 1, -1, 1, 0], class_names=["x", "y"], name="five")
    assert np.array_equal(np.asarray(images[3]), pixels[3])
    assert images.class_names == ("x", "y")
    assert images.labels.tolist() == [0, 1, -1, 1, 0]
    assert repr(images) == "ImageArray('five', 5 pictures, 2 classes)"
    assert (
        ImageArray(pixels).fingerprint
        == ImageArray(np.asfortranarray(pixels)).fingerprint
        != ImageArray(pixels[::-1]).fingerprint
    )
    grey = ImageArray(pixels[..., 0])
    assert grey[0].mode == "RGB"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ImageArray(np.zeros((2, 4, 4, 3))), r"images must be uint8 \(0 to 255\), not float64"),
        (lambda: ImageArray(np.zeros((2, 3, 4, 4), np.uint8)), r"not \(2, 3, 4, 4\); move the colour axis last"),
        (lambda: ImageArray(np.zeros((4, 4), np.uint8)), r"not \(4, 4\)"),
        (lambda: ImageArray(np.zeros((0, 4, 4, 3), np.uint8)), "there is no pixel in it"),
        (lambda: ImageArray(np.zeros((2, 4, 4, 3), np.uint8), labels=[1]), "labels must be 2 whole numbers"),
        (
            lambda: ImageArray(np.zeros((2, 4, 4, 3), np.uint8), labels=[0.0, 1.0]),
            "labels must be 2 whole numbers, one per picture, not float64",
        ),
        (lambda: ImageArray(np.zeros((2, 4, 4, 3), np.uint8), labels=[0, -2]), "labels must lie between -1"),
        (
            lambda: ImageArray(np.zeros((2, 4, 4, 3), np.uint8), labels=[0, 2], class_names=["a", "b"]),
            "the last of class_names; found 0 to 2",
        ),
        (lambda: ImageArray(np.zeros((2, 4, 4, 3), np.uint8), class_names=["a"]), "class_names without labels"),
        (lambda: array(3).subset([]), "indices is empty"),
        (lambda: array(3).subset([0, 0]), "an index occurs twice"),
        (lambda: array(3).subset([0, -3]), "an index occurs twice"),
        (lambda: array(3).subset([0.5]), "indices must be a list of whole numbers"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(DataError, match=message):
        call()


def array(n, **options):
    return ImageArray(np.random.default_rng(n).integers(0, 256, (n, 5, 5, 3), dtype=np.uint8), **options)


def test_subset(folder):
    images = ImageFolder(folder, labels="folders")
    part = images.subset([2, 0])
    assert part.names == ["b/two.png", "a/deep/er.png"]
    assert part.labels.tolist() == [1, 0]
    assert part.class_names == images.class_names
    assert part.name == "photos (2 of 3)"
    assert np.array_equal(np.asarray(part[0]), np.asarray(images[2]))
    assert images.subset([0, 1, 2]).fingerprint == images.fingerprint != part.fingerprint


# ---------------------------------------------------------------- batches


def to_chw(image):
    return np.asarray(image, np.float32).transpose(2, 0, 1)


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("batch_size", [1, 3, 10, 50])
def test_batches_in_order(workers, batch_size):
    images = array(10)
    got = list(batches(images, to_chw, batch_size=batch_size, start=1, workers=workers))
    assert [len(ids) for ids, _ in got] == [min(batch_size, 10 - s) for s in range(1, 10, batch_size)]
    ids, x = np.concatenate([i for i, _ in got]), np.concatenate([x for _, x in got])
    assert ids.dtype == np.int64
    assert ids.tolist() == list(range(1, 10))
    assert np.array_equal(x, np.stack([to_chw(images[i]) for i in range(1, 10)]))


@pytest.mark.parametrize("workers", [0, 2])
def test_unusable_pictures(tmp_path, workers):
    for i in range(9):
        (tmp_path / f"{i}.png").write_bytes(b"" if i in (1, 3, 4, 5) else encoded(picture(i)))
    images = ImageFolder(tmp_path)
    with pytest.raises(DataError, match=r"1.png: the file is empty"):
        list(batches(images, to_chw, batch_size=3, workers=workers))
    skipped = []
    got = list(batches(images, to_chw, batch_size=3, workers=workers, on_error="skip", skipped=skipped))
    assert [ids.tolist() for ids, _ in got] == [[0, 2], [6, 7, 8]]
    assert [x.shape for _, x in got] == [(2, 3, 6, 8), (3, 3, 6, 8)]
    assert [s.id for s in skipped] == [1, 3, 4, 5]
    assert "1.png" in skipped[0].reason


def test_transforms_that_cannot_be_used():
    images = array(4)
    with pytest.raises(TypeError, match=r"transform must return a float32 array \(C, H, W\), not float64"):
        list(batches(images, lambda image: to_chw(image).astype(np.float64), batch_size=2))
    with pytest.raises(DataError, match="picture 0 of array has values that are not finite"):
        list(batches(images, lambda image: to_chw(image) * np.float32(np.nan), batch_size=2))
    sizes = iter([5, 5, 5, 4])
    with pytest.raises(
        DataError, match=r"picture 3 of array is \(3, 4, 5\) after the transform, but those before it are \(3, 5, 5\)"
    ):
        list(batches(images, lambda image: to_chw(image)[:, : next(sizes)], batch_size=2, workers=0))

    def broken(_image):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):  # a fault of the transform is not a fault of the picture
        list(batches(images, broken, batch_size=2, on_error="skip"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"workers": -1}, "workers=-1"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"start": 5}, "start=5, stop=4"),
        ({"stop": 9}, "start=0, stop=9"),
        ({"start": -1}, "start=-1"),
    ],
)
def test_bad_batch_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        batches(array(4), to_chw, **{"batch_size": 2, **options})


def decoders():
    return [t for t in threading.enumerate() if t.name.startswith("semanticlens-decode")]


def test_closing_and_errors_stop_the_threads():
    images = array(200)
    stream = batches(images, to_chw, batch_size=4, workers=3)
    next(stream)
    assert decoders()
    stream.close()
    assert not decoders()
    with pytest.raises(ZeroDivisionError):
        for _ in batches(images, lambda image: 1 / 0, batch_size=4, workers=3):
            pass
    assert not decoders()


def test_memory_is_bounded():
    """A slow consumer finds no more than two batches decoded ahead."""
    decoded = []
    images = array(300)

    def count(image):
        decoded.append(1)
        return to_chw(image)

    stream = batches(images, count, batch_size=5, workers=2)
    next(stream)
    time.sleep(0.1)
    assert 5 <= len(decoded) <= 5 + 2 * 5 + 1 + 2
    stream.close()
