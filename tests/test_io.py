"""semanticlens.io: files that appear whole or not at all, tensor files that do not trust their header, hashes."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semanticlens import ModelFileError
from semanticlens.io import atomic_write, read_tensors, sha256_of_arrays, sha256_of_file, write_tensors

SHARED_TMP = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    made = {f"of {code}": (rng.random((3, 5)) * 100).astype(code) for code in DTYPES}
    return {**made, "scalar": np.float32(2.5).reshape(()), "empty": np.zeros((0, 7), np.float32),
            "größe/ключ": np.arange(6).reshape(1, 2, 3),
            "strided": np.arange(40, dtype=np.float32).reshape(8, 5)[::2, ::-1], "fortran": np.asfortranarray(rng.random((4, 3)))}


def raw(path: Path, header: Any, body: bytes = b"", length: int | None = None) -> Path:
    """A file with this header (an object, or the bytes themselves) and body."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + body)
    return path


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


# ---- tensor files ----------------------------------------------------------------------------------------------------------------------

def test_round_trip(tmp_path: Path) -> None:
    made, metadata = arrays(), {"b": "2", "a": "ä\n\"quoted\""}
    write_tensors(tmp_path / "x.safetensors", made, metadata)
    file = read_tensors(tmp_path / "x.safetensors")
    assert file.metadata == metadata
    assert set(file) == set(made)
    for name, array in made.items():
        assert file[name].dtype == array.dtype
        assert file[name].shape == array.shape
        np.testing.assert_array_equal(file[name], array)
        assert not file[name].flags.writeable
        assert file[name].flags.aligned
    assert "x.safetensors" in repr(file)


def test_reading_copies_nothing(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {"a": np.ones((100, 100), np.float32)})
    file = read_tensors(tmp_path / "x")
    assert np.shares_memory(file["a"], file.data)
    assert np.shares_memory(file["a"], file["a"])


def test_same_content_same_bytes(tmp_path: Path) -> None:
    made = arrays()
    write_tensors(tmp_path / "a", made, {"x": "1", "y": "2"})
    write_tensors(tmp_path / "b", dict(reversed(made.items())), {"y": "2", "x": "1"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_safetensors_package_reads_ours(tmp_path: Path) -> None:
    made = arrays()
    write_tensors(tmp_path / "x", made, {"k": "v"})
    theirs = safetensors.numpy.load_file(tmp_path / "x")
    assert set(theirs) == set(made)
    for name, array in made.items():
        np.testing.assert_array_equal(theirs[name], array)
    with safetensors.safe_open(tmp_path / "x", framework="np") as file:
        assert file.metadata() == {"k": "v"}


def test_ours_reads_the_safetensors_package(tmp_path: Path) -> None:
    made = {name: np.ascontiguousarray(array) for name, array in arrays().items()}
    safetensors.numpy.save_file(made, tmp_path / "x", metadata={"k": "v"})
    file = read_tensors(tmp_path / "x")
    assert file.metadata == {"k": "v"}
    assert set(file) == set(made)
    for name, array in made.items():
        np.testing.assert_array_equal(file[name], array)


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, np.inf, 3.0e38], np.float32)
    upper = (values.view(np.uint32) >> 16).astype("<u2")
    file = read_tensors(raw(tmp_path / "x", {"a": entry("BF16", [4], [0, 8])}, upper.tobytes()))
    expected = (upper.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(file["a"], expected)
    assert file["a"].dtype == np.float32


def test_big_endian_arrays_are_written_little_endian(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {"a": np.arange(5, dtype=">f4")})
    np.testing.assert_array_equal(read_tensors(tmp_path / "x")["a"], np.arange(5, dtype=np.float32))


@pytest.mark.parametrize(("array", "message"), [
    (np.zeros(2, np.complex64), "complex64"), (np.array(["a"]), "<U1"), (np.array([object()]), "object")])
def test_dtypes_without_a_place_are_refused(tmp_path: Path, array: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        write_tensors(tmp_path / "x", {"a": array})
    assert list(tmp_path.iterdir()) == []


def test_metadata_and_reserved_name_are_checked(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="texts"):
        write_tensors(tmp_path / "x", {}, {"a": 1})   # type: ignore[dict-item]
    with pytest.raises(ValueError, match="__metadata__"):
        write_tensors(tmp_path / "x", {"__metadata__": np.zeros(1)})


@pytest.mark.parametrize(("header", "body", "message"), [
    ([], b"", "not an object"),
    (b"{", b"", "not valid JSON"),
    (b"\xff\xfe", b"", "not valid JSON"),
    (b"[" * 100_000, b"", "not valid JSON"),
    (b'{"a": 1, "a": 2}', b"", "twice"),
    ({"a": 3}, b"", "exactly dtype, shape and data_offsets"),
    ({"a": {**entry(), "more": 1}}, b"01234567", "exactly dtype, shape and data_offsets"),
    ({"a": entry("F31")}, b"01234567", "F31"),
    ({"a": entry(["F32"])}, b"01234567", "dtype"),
    ({"a": entry(shape=2)}, b"01234567", "malformed shape"),
    ({"a": entry(shape=[-2])}, b"01234567", "malformed shape"),
    ({"a": entry(shape=[2.0])}, b"01234567", "malformed shape"),
    ({"a": entry(shape=[True, 2])}, b"01234567", "malformed shape"),
    ({"a": entry(shape=[1] * 33 + [2])}, b"01234567", "malformed shape"),
    ({"a": entry(shape=[2**62, 2**62])}, b"01234567", "malformed shape"),
    ({"a": entry(shape=[0, 2**61], offsets=[0, 0])}, b"", "malformed shape"),
    ({"a": entry(shape=[2**32, 2**29], offsets=[0, 8])}, b"01234567", "malformed shape|does not fit"),
    ({"a": entry(offsets=[0])}, b"01234567", "data_offsets"),
    ({"a": entry(offsets=[8, 0])}, b"01234567", "data_offsets"),
    ({"a": entry(offsets=[-8, 0])}, b"01234567", "data_offsets"),
    ({"a": entry(offsets=[0, 2**63])}, b"01234567", "data_offsets"),
    ({"a": entry(shape=[3], offsets=[0, 12])}, b"01234567", "truncated"),
    ({"a": entry(shape=[1])}, b"01234567", "does not fit"),
    ({"a": entry()}, b"0123456789", "belong to no tensor"),
    ({}, b"0", "belong to no tensor"),
    ({"a": entry(), "b": entry(offsets=[4, 12])}, b"0123456789ab", "overlap"),
    ({"a": entry(), "b": entry(offsets=[12, 20])}, b"0" * 20, "belong to no tensor"),
    ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
    ({"__metadata__": []}, b"", "__metadata__"),
])
def test_hostile_headers(tmp_path: Path, header: Any, body: bytes, message: str) -> None:
    with pytest.raises(ModelFileError, match=message) as caught:
        read_tensors(raw(tmp_path / "hostile.safetensors", header, body))
    assert "hostile.safetensors" in str(caught.value)


@pytest.mark.parametrize("content", [
    b"", b"\0" * 7, b"\0" * 8, b"\xff" * 16, (1 << 40).to_bytes(8, "little") + b"{}", b"PK\x03\x04" + b"\0" * 40])
def test_files_that_are_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"x\.bin"):
        read_tensors(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_tensors(tmp_path / "nowhere")
    with pytest.raises(ModelFileError, match="folder"):
        read_tensors(tmp_path)


@SHARED_TMP
@given(st.data())
def test_damaged_files_are_refused_or_hold_what_they_say(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever a few changed or lost bytes do, the reader raises ModelFileError or gives arrays inside the file."""
    path = tmp_path / "x"
    write_tensors(path, {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(3)}, {"k": "v"})
    content = bytearray(path.read_bytes())
    for position, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=0, max_size=4)):
        content[position] = value
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        file = read_tensors(path)
    except ModelFileError:
        return
    assert sum(array.nbytes for array in file.values()) <= len(content)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=12)
ENTRY = st.fixed_dictionaries({"dtype": st.sampled_from(["F32", "I8", "BF16", "x"]) | JSON,
                               "shape": st.lists(st.integers(0, 2**64), max_size=5) | JSON,
                               "data_offsets": st.lists(st.integers(0, 40) | st.integers(), min_size=2, max_size=2) | JSON})


@SHARED_TMP
@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ENTRY | JSON, max_size=3) | JSON, st.binary(max_size=40))
def test_any_json_header(tmp_path: Path, header: Any, body: bytes) -> None:
    try:
        file = read_tensors(raw(tmp_path / "x", header, body))
    except ModelFileError:
        return
    assert sum(array.size for array in file.values()) <= len(body)


# ---- atomic writes ---------------------------------------------------------------------------------------------------------------------

def test_atomic_write_replaces(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for mode, content in (("wb", b"one"), ("w", "zwölf"), ("wb", b"")):
        with atomic_write(path, mode) as file:
            file.write(content)
        assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert os.listdir(tmp_path) == ["x"]


def test_atomic_write_keeps_the_old_file_on_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    for error in (ValueError("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)), atomic_write(path) as file:   # noqa: PT012, the block is the subject
            file.write(b"half")
            raise error
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["x"]


def test_atomic_write_obeys_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "x") as file:
            file.write(b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_atomic_write_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_atomic_write_bad_targets(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"folder .*nowhere does not exist"), atomic_write(tmp_path / "nowhere" / "x"):
        pass
    with pytest.raises(IsADirectoryError, match="it is a folder"), atomic_write(tmp_path):
        pass
    with pytest.raises(ValueError, match="mode"), atomic_write(tmp_path / "x", "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path: Path) -> None:
    """The size limit of a process stands in for the full disk: the same write fails, with EFBIG instead of ENOSPC."""
    path = tmp_path / "x.sldb"
    path.write_bytes(b"old")
    code = ("import numpy as np, resource, sys; from semanticlens.io import write_tensors\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
            "write_tensors(sys.argv[1], {'a': np.zeros(100_000)})")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot write" in done.stderr.splitlines()[-1]
    assert "x.sldb" in done.stderr.splitlines()[-1]
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.sldb"]


def test_a_killed_writer_leaves_old_or_new(tmp_path: Path) -> None:
    path = tmp_path / "x"
    code = ("import numpy as np, sys; from semanticlens.io import write_tensors\n"
            "for i in range(10**6): write_tensors(sys.argv[1], {'a': np.full(200_000, i)}, {'i': str(i)}); print(i, flush=True)")
    for delay in np.random.default_rng(5).uniform(0, 0.02, 5):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        writer.stdout.readline()                      # from here on there is a whole file at every moment
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        file = read_tensors(path)
        np.testing.assert_array_equal(file["a"], np.full(200_000, int(file.metadata["i"])))


# ---- hashes ----------------------------------------------------------------------------------------------------------------------------

def test_sha256_of_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_sha256_of_arrays_sees_content_only() -> None:
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    same = [{"a": a, "b": a}, {"b": a, "a": a}, {"a": np.asfortranarray(a), "b": a.astype(">f4")},
            {"a": np.repeat(a, 2, axis=1)[:, ::2], "b": a}]
    assert len({sha256_of_arrays(one) for one in same}) == 1
    other = [{"a": a}, {"a": a.reshape(4, 3)}, {"a": a.astype(np.float64)}, {"b": a}, {"a": a + 1}, {"a": a.reshape(1, 3, 4)}, {},
             {"a": np.float32(0)}, {"a": np.zeros(1, np.float32)}, {"a": np.zeros(0, np.float32)}]
    assert len({sha256_of_arrays(one) for one in [*same[:1], *other]}) == len(other) + 1
