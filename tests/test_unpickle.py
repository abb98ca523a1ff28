"""Checkpoints read without torch: what torch writes is read exactly, what is hostile or damaged is refused and nothing runs."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticlens import ModelFileError
from semanticlens.nn.load.pickle_machine import PickleMachine, PickleRefused
from semanticlens.nn.load.state_dict import load_state_dict, read_npz
from semanticlens.nn.load.unpickle import LEGACY_MAGIC, read_checkpoint

GOLDEN = Path(__file__).parent / "golden"


# what torch writes

@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_golden_checkpoints(form):
    state = load_state_dict(GOLDEN / f"checkpoint_{form}.pth")
    expected = np.load(GOLDEN / "checkpoint_expected.npz")
    assert list(state) == [name for name in expected if "num_batches" not in name]
    for name, array in state.items():
        assert array.dtype == expected[name].dtype, name
        assert array.shape == expected[name].shape, name
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
        assert not array.flags.writeable or name in ("bfloat16", "empty")


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_other_contents_come_along(form):
    content = read_checkpoint(GOLDEN / f"checkpoint_{form}.pth")
    assert {k: v for k, v in content.items() if k != "state_dict"} == {
        "epoch": 3, "best": 0.5, "arch": "tiny", "done": True, "history": [0.5, (1, None)]}


def test_pickled_module_is_refused_by_name():
    with pytest.raises(ModelFileError, match=r"module_pickled\.pth.*torch\.nn\.modules\.linear\.Linear.*nothing was executed"):
        load_state_dict(GOLDEN / "module_pickled.pth")


@settings(max_examples=100, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats(allow_nan=False) | st.text() | st.binary(),
                    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner), max_leaves=20),
       st.integers(0, 5))
def test_plain_data_reads_as_pickle_reads_it(value, protocol):
    data = pickle.dumps(value, protocol)
    if (protocol < 3 and b"_codecs" in data) or b"bytearray" in data or b"__builtin__" in data:
        return                                        # bytes of the old protocols are calls; covered by the golden files
    machine = PickleMachine(data)
    assert machine.load() == pickle.loads(data)
    assert machine.position == len(data)


# building hostile files by hand

def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return stream.getvalue()


def checkpoint(body: bytes, storages: dict[str, bytes] | None = None, **more: bytes) -> bytes:
    """A zip checkpoint around a pickle's body (without PROTO and STOP)."""
    return archive({"a/data.pkl": b"\x80\x02" + body + b".", "a/byteorder": b"little",
                    **{f"a/data/{k}": v for k, v in (storages or {}).items()}, **{k.replace("__", "/"): v for k, v in more.items()}})


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if abs(value) < 2**31 else b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def integers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def persistent(key: str = "0", numel: int = 6, kind: str = "torch\nFloatStorage\n") -> bytes:
    return b"(" + text("storage") + b"c" + kind.encode() + text(key) + text("cpu") + integer(numel) + b"tQ"


def tensor(offset=0, shape=(2, 3), strides=(3, 1), storage: bytes | None = None) -> bytes:
    return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + (persistent() if storage is None else storage) + integer(offset) + integers(shape)
            + integers(strides) + b"\x89ccollections\nOrderedDict\n)RtR")


def state(*pairs: tuple[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in pairs) + b"u"


SIX = np.arange(6, dtype="<f4").tobytes()


def write(tmp_path: Path, data: bytes, name: str = "x.pth") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def test_hand_made_checkpoint_is_sound(tmp_path):
    loaded = load_state_dict(write(tmp_path, checkpoint(state(("w", tensor())), {"0": SIX})))
    np.testing.assert_array_equal(loaded["w"], np.arange(6, dtype=np.float32).reshape(2, 3))


def canary_bodies(canary: str) -> dict[str, bytes]:
    """Pickle bodies that create the file ``canary`` if anything in them runs."""
    command = f"touch {canary}"
    code = f"open({canary!r}, 'w').close()"
    lookup = b"c__builtin__\ngetattr\n"
    return {
        "os.system": b"cos\nsystem\n" + text(command) + b"\x85R",
        "posix.system": b"cposix\nsystem\n" + text(command) + b"\x85R",
        "builtins.eval": b"cbuiltins\neval\n" + text(code) + b"\x85R",
        "builtins.exec": text("builtins") + text("exec") + b"\x93" + text(code) + b"\x85R",
        "stack global from memo": text("os") + b"q\x00" + text("system") + b"q\x01" + b"00h\x00h\x01\x93" + text(command) + b"\x85R",
        "getattr chain": (lookup + b"c__builtin__\n__import__\n" + text("os") + b"\x85R" + text("system") + b"\x86R" + text(command)
                          + b"\x85R"),
        "getattr on allowed": lookup + b"ccollections\nOrderedDict\n" + text("__init__") + b"\x86R",
        "dotted name": text("collections") + text("OrderedDict.__init__") + b"\x93)R",
        "dotted torch": b"ctorch\nserialization.os.system\n" + text(command) + b"\x85R",
        "torch.load": b"ctorch\nload\n" + text(canary) + b"\x85R",
        "torch rebuild of a type": b"ctorch._utils\n_rebuild_from_type_v2\n(cos\nsystem\n" + text(command) + b"tR",
        "subprocess": b"csubprocess\nPopen\n" + text(command) + b"\x85R",
        "inst": b"(" + text(command) + b"ios\nsystem\n",
        "obj": b"(cos\nsystem\n" + text(command) + b"o",
        "newobj": b"cos\nsystem\n" + text(command) + b"\x85\x81",
        "newobj of allowed": b"ccollections\nOrderedDict\n)\x81",
        "reduce of a text": text("os.system") + text(command) + b"\x85R",
        "build": b"ccollections\nOrderedDict\n)R}" + text("__setstate__") + b"cos\nsystem\nsb",
        "build of a tensor": tensor() + b"}" + text("storage") + text("x") + b"sb",
        "extension": b"\x82\x01",
        "persistent text": b"Pos.system\n",
        "persistent call": b"(" + text("module") + b"cos\nsystem\n" + text(command) + b"tQ",
        "codecs": b"c_codecs\ndecode\n" + text(command) + text("rot13") + b"\x86R",
        "numpy object": b"cnumpy\ndtype\n" + text("O8") + b"\x85R",
        "numpy reconstruct": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85Cbtbt",
        "pickle loads": b"c_pickle\nloads\nC\x01.\x85R",
        "functools": b"cfunctools\npartial\ncos\nsystem\n" + text(command) + b"\x86R",
        "hidden behind a value": state(("w", tensor()), ("x", b"cos\nsystem\n" + text(command) + b"\x85R")),
    }


NAMED = {"os.system": "os.system", "builtins.exec": "builtins.exec", "stack global from memo": "os.system", "torch.load": "torch.load",
         "getattr chain": "__builtin__.getattr", "inst": "os.system", "obj": "os.system", "newobj": "os.system",
         "dotted name": "collections.OrderedDict.__init__", "hidden behind a value": "os.system", "subprocess": "subprocess.Popen",
         "torch rebuild of a type": "torch._utils._rebuild_from_type_v2", "dotted torch": "torch.serialization.os.system"}


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("name", list(canary_bodies("x")))
def test_nothing_runs(tmp_path, name, form):
    canary = tmp_path / "canary"
    body = canary_bodies(str(canary))[name]
    data = checkpoint(body, {"0": SIX}) if form == "zip" else legacy(body, [])
    with pytest.raises(ModelFileError) as caught:
        load_state_dict(write(tmp_path, data))
    assert not canary.exists()
    assert "x.pth" in str(caught.value)
    assert NAMED.get(name, "") in str(caught.value)


def test_the_canary_would_sing(tmp_path):
    """The same bytes do run under Python's own unpickler: the test above is not empty."""
    canary = tmp_path / "canary"
    pickle.loads(b"\x80\x02" + canary_bodies(str(canary))["os.system"] + b".")
    assert canary.exists()


def legacy(body: bytes, storages: list[tuple[str, int, bytes]], *, little: bool = True, magic: int = LEGACY_MAGIC,
           keys: list | None = None) -> bytes:
    system = {"protocol_version": 1001, "little_endian": little, "type_sizes": {}}
    head = b"".join(pickle.dumps(value, 2) for value in (magic, 1001, system))
    names = [key for key, _, _ in storages] if keys is None else keys
    return head + b"\x80\x02" + body + b"." + pickle.dumps(names, 2) + b"".join(struct.pack("<q", n) + raw for _, n, raw in storages)


def test_hand_made_legacy_checkpoint_is_sound(tmp_path):
    loaded = load_state_dict(write(tmp_path, legacy(state(("w", tensor())), [("0", 6, SIX)])))
    np.testing.assert_array_equal(loaded["w"], np.arange(6, dtype=np.float32).reshape(2, 3))


BAD_TENSORS = {
    "negative stride": (tensor(strides=(3, -1)), "negative"),
    "negative offset": (tensor(offset=-1), "negative"),
    "negative size": (tensor(shape=(-2, 3)), "negative"),
    "offset beyond": (tensor(offset=1), "outside"),
    "shape beyond": (tensor(shape=(3, 3)), "outside"),
    "stride beyond": (tensor(strides=(4, 1)), "outside"),
    "huge": (tensor(shape=(2**40, 2**40), strides=(0, 0)), "overlaps"),
    "huge stride": (tensor(strides=(2**62, 1)), "huge"),
    "expanded": (tensor(shape=(1000, 1000), strides=(0, 0)), "overlaps"),
    "overlapping itself": (tensor(shape=(2, 3), strides=(1, 1)), "overlaps"),
    "interleaved": (tensor(shape=(2, 2), strides=(2, 2)), "overlaps"),
    "fewer strides": (tensor(strides=(1,)), "malformed"),
    "strange shape": (tensor(shape=()).replace(b"(t(t", b"N(t"), "malformed"),
    "no storage": (tensor(storage=text("0")), "not a storage"),
    "missing storage": (tensor(storage=persistent("7")), "'7'"),
    "wrong size": (tensor(storage=persistent(numel=7)), "7 values"),
    "wrong type": (tensor(storage=persistent(kind="torch\nDoubleStorage\n")), "float64"),
    "negative numel": (tensor(storage=persistent(numel=-6)), "no checkpoint has"),
    "climbing key": (tensor(storage=persistent("../0")), "no checkpoint has"),
    "absolute key": (tensor(storage=persistent("/etc/passwd")), "no checkpoint has"),
    "two types": (tensor() + b"0" + tensor(storage=persistent(kind="torch\nIntStorage\n")), "declared twice"),
    "short reference": (tensor(storage=text("storage") + b"\x85Q"), "persistent id"),
    "module reference": (tensor(storage=b"(" + text("module") + b"NNNNtQ"), "'module'"),
    "function as value": (b"ccollections\nOrderedDict\n", "as a value"),
}


@pytest.mark.parametrize("name", list(BAD_TENSORS))
def test_bad_tensors(tmp_path, name):
    body, message = BAD_TENSORS[name]
    with pytest.raises(ModelFileError, match=message):
        load_state_dict(write(tmp_path, checkpoint(state(("w", body)), {"0": SIX})))


def test_bad_archives(tmp_path):
    good = state(("w", tensor()))
    duplicate = io.BytesIO()
    with zipfile.ZipFile(duplicate, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02" + good + b".")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a/data.pkl", b"\x80\x02" + good + b".")
    two_roots = checkpoint(good, {"0": SIX}, b__data=b"")
    overlapping = bytearray(checkpoint(good, {"0": SIX, "1": SIX}))
    directory = overlapping.rindex(b"PK\x01\x02")
    first = overlapping.index(b"PK\x01\x02", overlapping.index(b"PK\x01\x02") + 1)
    overlapping[directory + 42 : directory + 46] = overlapping[first + 42 : first + 46]
    flipped = bytearray(checkpoint(good, {"0": SIX}))
    flipped[flipped.index(SIX) + 5] ^= 1
    cases = {
        "occurs twice": duplicate.getvalue(),
        "exactly one folder": two_roots,
        "overlap|another name": bytes(overlapping),
        "checksum": bytes(flipped),
        "compressed": archive({"a/data.pkl": b"\x80\x02" + good + b".", "a/data/0": bytes(10**6)}, zipfile.ZIP_DEFLATED),
        "big-endian": archive({"a/data.pkl": b"\x80\x02" + good + b".", "a/byteorder": b"big", "a/data/0": SIX}),
        "TorchScript": checkpoint(good, {"0": SIX}, a__constants_pkl=b"").replace(b"constants_pkl", b"constants.pkl"),
        "outside the archive": archive({"a/data.pkl": b"\x80\x02" + good + b".", "a/../../../etc/cron": b""}),
        "outside the archive ": archive({"/a/data.pkl": b"\x80\x02" + good + b"."}),
        "not a checkpoint": archive({"a/x.txt": b""}),
        "too few": b"",
        "neither a zip": bytes(range(200)),
        "truncated": checkpoint(good, {"0": SIX})[:-30],
    }
    for message, data in cases.items():
        with pytest.raises(ModelFileError, match=message.strip()):
            load_state_dict(write(tmp_path, data))


def test_bad_legacy_files(tmp_path):
    good = state(("w", tensor()))
    cases = {
        "big-endian": legacy(good, [("0", 6, SIX)], little=False),
        "magic number": legacy(good, [("0", 6, SIX)], magic=5),
        "list of storages": legacy(good, [("1", 6, SIX)]),
        "list of storages ": legacy(good, [("0", 6, SIX)], keys=["0", "0"]),
        "claims 7": legacy(good, [("0", 7, SIX)]),
        "truncated in storage": legacy(good, [("0", 6, SIX[:-1])]),
        "belong to nothing": legacy(good, [("0", 6, SIX)]) + b"x",
        "outside": legacy(state(("w", tensor(offset=2**30))), [("0", 6, SIX)]),
        "truncated in storage ": legacy(state(("w", tensor(storage=persistent(numel=2**31 - 1)))), [("0", 2**31 - 1, SIX)]),
    }
    for message, data in cases.items():
        with pytest.raises(ModelFileError, match=message.strip()):
            load_state_dict(write(tmp_path, data))


BOMBS = {
    "memo index": b"]r\xff\xff\xff\xff" * 1000,
    "nested lists": b"]" * 50_000 + b"a" * 49_999,
    "nested tuples as a key": b")" + b"\x85" * 50_000 + b"q\x00}h\x00Ns",
    "self-containing list": b"]q\x00h\x00a",
    "many opcodes": b"N0" * 1_100_000,
    "long text": b"\x8d" + struct.pack("<Q", 2**62) + b"abc",
    "long bytes": b"B\xff\xff\xff\xffabc",
    "long integer": b"\x8b" + struct.pack("<i", 2**30) + b"abc",
    "negative long": b"\x8b\xff\xff\xff\xff",
    "frame": b"\x95" + struct.pack("<Q", 2**62) + b"0",
    "copied text": text("x" * 100_000) + b"q\x000" + b"c_codecs\nencode\nq\x010" + b"h\x01h\x00" + text("latin1") + b"\x86R" * 10_000,
    "copied list": b"](" + b"N" * 100_000 + b"eq\x000ccollections\nOrderedDict\nq\x010" + b"h\x01h\x00\x85R" * 10_000,
    "no stack": b"0" * 100,
    "marks": b"(" * 100_000,
    "mark missing": b"u",
    "digits": b"I" + b"9" * 900 + b"\n",
    "bad float": b"Fabc\n",
    "odd dictionary": b"}(" + text("x") + b"u",
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_bombs_are_small(tmp_path, name):
    path = write(tmp_path, checkpoint(BOMBS[name]))
    if len(BOMBS[name]) > 1_000_000:                  # tracing would slow the many opcodes down
        with pytest.raises(ModelFileError, match="operations"):
            load_state_dict(path)
        return
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError):
            load_state_dict(path)
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_truncated_anywhere(tmp_path, form):
    data = (GOLDEN / f"checkpoint_{form}.pth").read_bytes()
    steps = range(0, len(data), 7) if form == "legacy" else range(0, len(data), 41)
    for n in steps:
        with pytest.raises(ModelFileError):
            load_state_dict(write(tmp_path, data[:n]))


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_flipped_bytes_give_an_error_or_numbers(tmp_path, form):
    data = (GOLDEN / f"checkpoint_{form}.pth").read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(250):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[at] ^= 1 << rng.integers(8)
        try:
            loaded = load_state_dict(write(tmp_path, bytes(damaged)))
        except ModelFileError:
            continue
        assert all(isinstance(array, np.ndarray) for array in loaded.values())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_machine_on_noise(data):
    with contextlib.suppress(PickleRefused):
        PickleMachine(data).load()


# dictionaries of parameters

def test_unwrapping_and_prefixes(tmp_path):
    inner = state(("module._orig_mod.w", tensor()), ("module._orig_mod.num_batches_tracked", tensor()))
    for body in (inner, state(("state_dict", inner)), state(("epoch", integer(3)), ("model", inner))):
        assert list(load_state_dict(write(tmp_path, checkpoint(body, {"0": SIX})))) == ["w"]
    mixed = state(("module.w", tensor()), ("v", tensor()))
    assert list(load_state_dict(write(tmp_path, checkpoint(mixed, {"0": SIX})))) == ["module.w", "v"]


def test_what_is_no_state_dict(tmp_path):
    cases = {"a single tensor": tensor(), "a list": b"](" + tensor() + b"e", "empty": b"}",
             "epoch": state(("epoch", integer(3)), ("w", tensor())), "no parameters": state(("num_batches_tracked", tensor()))}
    for message, body in cases.items():
        with pytest.raises(ModelFileError, match=message):
            load_state_dict(write(tmp_path, checkpoint(body, {"0": SIX})))


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_state_dict(tmp_path / "nowhere.pth")
    with pytest.raises(ModelFileError, match="suffix"):
        load_state_dict(write(tmp_path, b"x", "x.txt"))
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(ModelFileError, match="folder"):
        load_state_dict(tmp_path / "folder.pth")


def test_safetensors(tmp_path):
    from semanticlens.io import write_tensors

    write_tensors(tmp_path / "x.safetensors", {"module.a": np.ones((2, 3), np.float32), "module.num_batches_tracked": np.array(3)})
    assert {k: v.shape for k, v in load_state_dict(tmp_path / "x.safetensors").items()} == {"a": (2, 3)}


def npy(array: np.ndarray, **kwargs) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **kwargs)
    return stream.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_equals_numpy(tmp_path, compressed):
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(3, 4)).astype(np.float32), "module.b": np.asfortranarray(rng.normal(size=(5, 2))),
              "c": np.int8([[1, -2]]), "d": np.array(3.5),
              "e": np.empty((0, 4), np.float16), "f": np.array([True, False]), "g": rng.normal(size=4).astype(">f4")}
    (np.savez_compressed if compressed else np.savez)(tmp_path / "x.npz", **arrays)
    loaded = load_state_dict(tmp_path / "x.npz")
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype.newbyteorder("=")


def test_bad_npz(tmp_path, monkeypatch):
    def header(descr: str, shape: str, extra: bytes = b"") -> bytes:
        body = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body + extra

    objects = npy(np.array([{}, None], object), allow_pickle=True)
    cases = {
        "plain number": {"a.npy": objects},
        "plain number ": {"a.npy": npy(np.array(["text"]))},
        "plain number  ": {"a.npy": npy(np.zeros(2, [("x", "f4")]))},
        "needs 4,000,000,000,000 bytes": {"a.npy": header("'<f4'", "(1000000, 1000000)", b"1234")},
        "impossible": {"a.npy": header("'<f4'", "(-1,)")},
        "header": {"a.npy": header("'<f4'", "__import__('os')")},
        "not an array": {"a.txt": b""},
        "outside": {"../a.npy": npy(np.zeros(2))},
        "truth": {"a.npy": header("'|b1'", "(2,)", b"\x02\x01")},
        "header ": {"a.npy": b"\x93NUMPY\x09\x00"},
    }
    for message, members in cases.items():
        with pytest.raises(ModelFileError, match=message.strip()):
            read_npz(write(tmp_path, archive(members), "x.npz"))
    monkeypatch.setattr("semanticlens.nn.load.zip_members.FREE", 1 << 16)
    bomb = write(tmp_path, archive({"a.npy": header("'<f4'", "(1000000,)") + bytes(4_000_000)}, zipfile.ZIP_DEFLATED), "bomb.npz")
    with pytest.raises(ModelFileError, match="bomb"):
        read_npz(bomb)
    data = archive({"a.npy": npy(np.arange(100.0))}, zipfile.ZIP_DEFLATED)
    for n in range(0, len(data), 11):
        with pytest.raises(ModelFileError):
            read_npz(write(tmp_path, data[:n], "cut.npz"))


def test_ordered_dict_of_pairs(tmp_path):
    """Python 2 wrote an OrderedDict as a call with a list of pairs."""
    body = b"ccollections\nOrderedDict\n](]" + b"(" + text("w") + tensor() + b"e" + b"e\x85R"
    assert list(load_state_dict(write(tmp_path, checkpoint(body, {"0": SIX})))) == ["w"]
    assert OrderedDict([("a", 1)]) == PickleMachine(pickle.dumps({"a": 1})).load()
