"""Data sets larger than memory: constant memory, decoding beside computing in a bounded queue, and going on where it ended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from network_cases import tiny_network
from PIL import Image

import semanticlens as sl
from semanticlens._errors import ConceptWarning
from semanticlens.data import ImageArray, ImageFolder, batches
from semanticlens.nn import Network, Node

SIDE = 160

MEMORY = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np
import semanticlens as sl
from semanticlens.data import ImageFolder, batches
from semanticlens.nn import Network, Node, Preprocess

rng = np.random.default_rng(0)
net = Network([Node("conv", "conv2d", "input", {"weight": "w"}, {"stride": (2, 2)}), Node("bend", "relu", "conv")],
              {"w": rng.standard_normal((8, 3, 3, 3)).astype(np.float32)}, input_shape=(3, 160, 160), name="tiny",
              preprocess=Preprocess(size=(160, 160), resize="stretch"))
images = ImageFolder(sys.argv[1])
if sys.argv[2] == "collect":
    examples = sl.collect(net, images, layers=["conv", "bend"], top=5, batch_size=8)
else:
    total = 0.0
    for ids, values in net.stream(batches(images, net.preprocess, batch_size=8), "bend"):
        total += float(values["bend"].sum())
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
print(len(images), int(peak.split()[1]) * 1024)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """60 and 600 pictures; the 600 would take 180 MB as inputs of the network, and 240 MB as its values."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    files = []
    for i in range(10):
        files.append(root / f"source{i}.jpg")
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(files[-1])
    few, many = root / "few", root / "many"
    for folder, count in ((few, 60), (many, 600)):
        folder.mkdir()
        for i in range(count):
            os.link(files[i % 10], folder / f"{i:05d}.jpg")
    return few, many


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory where Linux shows it")
@pytest.mark.parametrize("how", ["collect", "stream"])
def test_ten_times_the_pictures_take_the_same_memory(folders: tuple[Path, Path], how: str) -> None:
    peaks = []
    for folder in folders:
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(folder), how], capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr
        peaks.append([int(n) for n in done.stdout.split()])
    (n, few), (m, many) = peaks
    assert m == 10 * n
    assert many - few < 24 << 20, peaks


class Watched:
    """Counts what is decoded, and a network that waits, within a batch, for the pictures of the next."""

    def __init__(self, n: int, size: int, depth: int) -> None:
        self.n, self.size, self.depth = n, size, depth
        self.decoded, self.begun, self.ahead = 0, 0, 0
        self.more = threading.Condition()

    def transform(self, picture: Image.Image) -> np.ndarray:
        with self.more:
            self.decoded += 1
            self.more.notify_all()
        return np.zeros((3, 4, 4), np.float32)

    def run(self) -> None:
        """Go on only when a picture of the next batch was decoded beside this one."""
        self.begun += 1
        want = min(self.n, self.begun * self.size + 1)
        with self.more:
            assert self.more.wait_for(lambda: self.decoded >= want, 60), "nothing was decoded while the network computed"
            self.more.wait_for(lambda: self.decoded > self.begun * self.size + self.depth, 0.05)
            self.ahead = max(self.ahead, self.decoded - self.begun * self.size)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_pictures_are_decoded_while_the_network_computes(workers: int) -> None:
    images = ImageArray(np.zeros((64, 4, 4, 3), np.uint8))
    watched = Watched(64, 4, 8)
    for _ids, _x in batches(images, watched.transform, batch_size=4, workers=workers):
        watched.run()
    assert (watched.begun, watched.decoded) == (16, 64)
    assert 1 <= watched.ahead <= 2 * 4 + 1  # two batches, and the one that is handed over next


def test_collecting_overlaps_too() -> None:
    images = ImageArray(np.random.default_rng(0).integers(0, 256, (32, 4, 4, 3), dtype=np.uint8))
    watched = Watched(32, 4, 8)
    net = Network([Node("a", "relu")], {}, input_shape=(3, 4, 4))

    class Waiting:
        name, layers, preprocess, fingerprint = net.name, net.layers, None, net.fingerprint
        resolve = staticmethod(net.resolve)

        @staticmethod
        def run(x: np.ndarray, record: object = ("output",), *, n_threads: int | None = None) -> object:
            watched.run()
            return net.run(x, record, n_threads=n_threads)  # type: ignore[arg-type]

    source = sl.lens.NetworkSource(Waiting(), images, ["a"], batch_size=4, transform=watched.transform)
    with pytest.warns(ConceptWarning):
        sl.collect(source, images, top=2)
    assert watched.begun == 8


def test_a_stream_goes_on_where_it_ended(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    net = tiny_network()
    images = ImageFolder(folders[0])
    whole = [(ids, got["output"]) for ids, got in net.stream(batches(images, net.preprocess, batch_size=7))]  # type: ignore[arg-type]
    taken = []
    stream = net.stream(batches(images, net.preprocess, batch_size=7), progress=True, total=9)  # type: ignore[arg-type]
    for ids, got in stream:
        taken.append((ids, got["output"]))
        if len(taken) == 4:
            break
    stream.close()  # type: ignore[attr-defined]
    assert "batch" in capsys.readouterr().err
    position = int(taken[-1][0][-1]) + 1
    rest = net.stream(batches(images, net.preprocess, batch_size=7, start=position))  # type: ignore[arg-type]
    taken += [(ids, got["output"]) for ids, got in rest]
    assert len(taken) == len(whole) == 9
    for (ids, got), (other, want) in zip(taken, whole, strict=True):
        assert np.array_equal(ids, other)
        assert np.array_equal(got, want)
    assert not [t for t in threading.enumerate() if t.name.startswith("semanticlens-decode")]


@pytest.mark.filterwarnings("ignore::semanticlens._errors.ConceptWarning")
def test_what_is_collected_from_an_edited_network_records_the_edits() -> None:
    images = ImageArray(np.random.default_rng(0).integers(0, 256, (12, 13, 11, 3), dtype=np.uint8))
    net = tiny_network()
    change = sl.edit.scale("stem", 0.5, component=1)
    record = sl.collect(net.edited(change), images, layers=["block"], top=2).record
    assert record["network"]["edits"] == [change.to_dict()]
    assert "edits" not in sl.collect(net, images, layers=["block"], top=2).record["network"]
