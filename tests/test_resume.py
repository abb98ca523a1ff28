"""A build that is killed, interrupted or runs out of disk: no half-written results, and a re-run ends in the same bytes."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import semanticlens as sl
from semanticlens import ConceptExamples, DataError, MismatchError, ModelFileError
from semanticlens._errors import ConceptWarning
from semanticlens.data import ImageFolder
from semanticlens.lens import checkpoint as checkpoints

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes and limits files as POSIX does")

# The build that is disturbed: decode, forward, collect, encode, database.  As text, because processes of their own run it.
BUILD = """
import os, signal, sys, time, warnings
from pathlib import Path
import numpy as np
import semanticlens as sl
from semanticlens.data import ImageArray
from semanticlens.lens import embed
from semanticlens.nn.network import Network, Node
from semanticlens.nn.preprocess import Preprocess

embed.CHECKPOINT_SECONDS = 0.0
rng = np.random.default_rng(0)
NET = Network([Node("conv", "conv2d", ("input",), {"weight": "w"}, {}), Node("bend", "relu", ("conv",), {}, {})],
              {"w": rng.random((24, 3, 3, 3), dtype=np.float32)}, input_shape=(3, 16, 16), name="tiny",
              preprocess=Preprocess(size=(16, 16), resize="stretch"))
IMAGES = ImageArray(rng.integers(0, 256, (96, 16, 16, 3), dtype=np.uint8), labels=rng.integers(0, 3, 96),
                    name="noise")

def colours(pictures):
    return np.stack([np.asarray(p.resize((2, 2)), np.float32).ravel() for p in pictures])

ENCODER = sl.encoders.Callable(images=colours, dim=12, name="colours")

def build(folder):
    examples = sl.collect(NET, IMAGES, layers=["conv", "bend"], top=5, batch_size=4, checkpoint=folder / "collect.part", checkpoint_every=0)
    examples.save(folder / "result.examples")
    db = sl.ConceptDB.build(examples, IMAGES, ENCODER, batch_size=8, thumbnails=8, checkpoint=folder / "encode.part")
    db.save(folder / "result.sldb")
"""

# Forks one process per attempt (no import each time) and kills it: from outside after a random time, or from inside while it writes a file.
HARNESS = (
    BUILD
    + '''
import json

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Torn:
    """A file that is killed half-way through its n-th write."""
    def __init__(self, file, countdown):
        self.file, self.countdown = file, countdown
    def __getattr__(self, name):
        return getattr(self.file, name)
    def __enter__(self):
        return self
    def __exit__(self, *exc):
        return self.file.__exit__(*exc)
    def write(self, data):
        self.countdown[0] -= 1
        if self.countdown[0] == 0:
            view = memoryview(data).cast("B")
            self.file.write(view[: len(view) // 2])
            self.file.flush()
            die()
        return self.file.write(data)

def attempt(folder, how, when):
    pid = os.fork()
    if pid == 0:
        countdown = [int(when)]
        if how == "write":
            fdopen = os.fdopen
            os.fdopen = lambda *a, **k: Torn(fdopen(*a, **k), countdown)
        if how in ("fsync", "replace"):
            call = getattr(os, how)
            def counted(*a):
                countdown[0] -= 1
                if countdown[0] == 0 and how == "fsync":
                    die()
                call(*a)
                if countdown[0] == 0:
                    die()
            setattr(os, how, counted)
        try:
            build(folder)
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    if how == "time":
        time.sleep(when)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

root, seed = Path(sys.argv[1]), int(sys.argv[2])
for name in ("calm", "wild"):
    (root / name).mkdir()
start = time.perf_counter()
assert attempt(root / "calm", "none", 0) == 0
duration = time.perf_counter() - start
rng = np.random.default_rng(seed)
plan = rng.permutation(["time"] * 8 + ["write"] * 4 + ["fsync"] * 4 + ["replace"] * 4)
log, kills = [], 0
while kills < 20:
    how = str(plan[kills])
    when = rng.uniform(0, 0.6 * duration) if how == "time" else int(rng.integers(1, 25 if how == "write" else 9))
    code = attempt(root / "wild", how, when)
    parts = {p.name: p.stat().st_size for p in (root / "wild").iterdir() if not p.name.endswith(".tmp")}
    log.append([how, when, code, sorted(parts)])
    assert code in (0, -signal.SIGKILL), log[-1]
    kills += code != 0
    for name in ("result.examples", "collect.part"):
        if (root / "wild" / name).exists():
            from semanticlens.lens import examples, checkpoint
            kind = examples if name.startswith("result") else checkpoint
            examples.read_recorded(root / "wild" / name, kind.FORMAT, kind.SCHEMA, name)       # whole, or it raises
    if (root / "wild" / "result.sldb").exists():
        assert (root / "wild" / "result.sldb").read_bytes() == (root / "calm" / "result.sldb").read_bytes()
    if code == 0:                                     # it got through: start again, there are kills left
        for path in (root / "wild").iterdir():
            path.unlink()
assert attempt(root / "wild", "none", 0) == 0
print(json.dumps(log))
'''
)


def run(script, *arguments, **options):
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore::semanticlens._errors.ConceptWarning",
            "-c",
            script,
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


def test_twenty_kills_change_nothing(tmp_path):
    done = run(HARNESS, tmp_path, 7)
    assert done.returncode == 0, done.stderr
    log = json.loads(done.stdout.splitlines()[-1])
    assert sum(code == -signal.SIGKILL for _, _, code, _ in log) == 20
    assert {how for how, _, code, _ in log if code} == {"time", "write", "fsync", "replace"}
    assert any("collect.part" in parts for *_, parts in log)
    for name in ("result.examples", "result.sldb", "collect.part"):
        assert (tmp_path / "wild" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes(), name
    left = [p.name for p in (tmp_path / "wild").glob(".collect.part.*.tmp")]
    assert left == []  # the next run sweeps up what a killed writer left


# ---------------------------------------------------------------- in this process


def batches(n=12, width=5, size=3, stop=None):
    values = np.random.default_rng(0).standard_normal((n, width)).astype(np.float32) + 3
    for start in range(0, n, size):
        if stop is not None and start >= stop:
            raise KeyboardInterrupt
        ids = np.arange(start, min(n, start + size))
        yield ids, {"z": values[ids], "a": values[ids, :2]}


def saved(examples, path):
    examples.save(path)
    return path.read_bytes()


@pytest.mark.parametrize("stop", [3, 6, 9])
def test_an_interrupted_iterator_resumes(tmp_path, stop):
    whole = saved(sl.collect(batches(), top=4), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        sl.collect(batches(stop=stop), top=4, checkpoint=tmp_path / "c")
    state, _ = checkpoints.read(tmp_path / "c", json.loads(json.dumps(made_of(tmp_path / "c"))))
    assert state["samples"] == [[0, stop]]
    assert not state["finished"]
    # gone through again, in other batches: what was counted is passed over
    assert saved(sl.collect(batches(size=5), top=4, checkpoint=tmp_path / "c"), tmp_path / "again") == whole
    # finished: nothing is asked of the source any more
    assert saved(sl.collect(iter(()), top=4, checkpoint=tmp_path / "c"), tmp_path / "third") == whole


def made_of(path):
    from semanticlens.lens.examples import read_recorded

    return read_recorded(path, checkpoints.FORMAT, checkpoints.SCHEMA, "a checkpoint")[0]["made_of"]


def test_an_error_of_the_source_leaves_a_checkpoint(tmp_path):
    def failing():
        yield from list(batches())[:2]
        raise RuntimeError("the GPU fell off the bus")

    with pytest.raises(RuntimeError, match="fell off"):
        sl.collect(failing(), top=4, checkpoint=tmp_path / "c")
    got = sl.collect(batches(), top=4, checkpoint=tmp_path / "c")
    assert saved(got, tmp_path / "x") == saved(sl.collect(batches(), top=4), tmp_path / "y")


def test_a_half_counted_batch_is_never_saved(tmp_path):
    """Any other way out of the middle of a batch (a signal handler of the caller, say): the checkpoint before it stays."""
    from semanticlens._kernels.collect import TopM

    update, calls = TopM.update, []

    def failing(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 6:  # the second layer of the third batch
            raise SystemExit(143)
        update(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TopM, "update", failing)
        with pytest.raises(SystemExit):
            sl.collect(batches(), top=4, checkpoint=tmp_path / "c", checkpoint_every=0)
    got = sl.collect(batches(), top=4, checkpoint=tmp_path / "c")
    assert saved(got, tmp_path / "x") == saved(sl.collect(batches(), top=4), tmp_path / "y")


def test_an_unreadable_picture_is_mended_by_skipping(tmp_path, small):
    """The run fails at a bad picture with what it had; the same call with on_error="skip" goes on from there."""
    net, images, folder = small
    (folder / "07.png").write_bytes(b"")
    images = ImageFolder(folder)
    options = {"layers": "conv", "top": 3, "batch_size": 2, "checkpoint": tmp_path / "c"}
    with pytest.raises(DataError, match=r"07.png: the file is empty"):
        sl.collect(net, images, **options)
    assert made_of(tmp_path / "c")["data"]["fingerprint"] == images.fingerprint
    with pytest.warns(UserWarning, match="1 pictures were left out"):
        resumed = sl.collect(net, images, on_error="skip", **options)
    with pytest.warns(UserWarning, match="1 pictures were left out"):
        straight = sl.collect(net, images, on_error="skip", **{**options, "checkpoint": None})
    assert saved(resumed, tmp_path / "x") == saved(straight, tmp_path / "y")
    with pytest.warns(UserWarning, match="1 pictures were left out"):  # finished: the list is still there
        assert saved(sl.collect(net, images, on_error="skip", **options), tmp_path / "z") == saved(
            straight, tmp_path / "y"
        )


@pytest.fixture
def small(tmp_path):
    """A network and twelve pictures in a folder."""
    scope: dict = {}
    exec(BUILD, scope)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(12):
        scope["IMAGES"][i].save(folder / f"{i:02}.png")
    return scope["NET"], ImageFolder(folder), folder


def test_checkpoints_of_another_run_are_refused(tmp_path, small):
    net, images, folder = small
    options = {"layers": ["conv"], "top": 3, "checkpoint": tmp_path / "c"}
    sl.collect(net, images, **options)
    before = (tmp_path / "c").read_bytes()
    other = type(net)(
        net.nodes, {"w": net.params["w"] * 2}, input_shape=net.input_shape, name="doubled", preprocess=net.preprocess
    )
    for changed, message in [
        ({"top": 4}, "parameters.top was 3, now 4"),
        ({"layers": ["bend"]}, r"layers was \['conv'\], now \['bend'\]"),
        ({"pool": "max"}, "parameters.pool was 'auto', now 'max'"),
        ({"batch_size": 5}, "parameters.batch_size was 32, now 5"),
        ({"shard": (0, 6)}, r"shard was \[0, 12\], now \[0, 6\]"),
        ({"labels": [0] * 12}, "labels was None, now"),
    ]:
        with pytest.raises(MismatchError, match=rf"checkpoint .*c is of another run: .*{message}"):
            sl.collect(net, images, **{**options, **changed})
    with pytest.raises(
        MismatchError, match=r"network.fingerprint was '.*', now '.*'; network.name was 'tiny', now 'doubled'"
    ):
        sl.collect(other, images, **options)
    (folder / "03.png").write_bytes((folder / "04.png").read_bytes())
    with pytest.raises(
        MismatchError, match=r"data.fingerprint was '.*', now '.*'. Delete it, or give this run a file of its own"
    ):
        sl.collect(net, ImageFolder(folder), **options)
    assert (tmp_path / "c").read_bytes() == before


def test_damaged_checkpoints_are_refused(tmp_path):
    path = tmp_path / "c"
    sl.collect(batches(), top=4, checkpoint=path)
    whole = path.read_bytes()
    for damaged in (whole[:-8], whole[:4], b"", whole[:-1] + bytes([whole[-1] ^ 1]), b"nothing of the kind" * 9):
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError, match=str(path)):
            sl.collect(batches(), top=4, checkpoint=path)
        assert path.read_bytes() == damaged
    sl.collect(batches(), top=4).save(path)
    with pytest.raises(ModelFileError, match="holds 'semanticlens-examples', not a checkpoint"):
        sl.collect(batches(), top=4, checkpoint=path)


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(OSError, match="the checkpoint could not be written"):
        sl.collect(batches(), top=4, checkpoint=tmp_path / "none" / "c", checkpoint_every=0)


# A disk that is full: files of this process cannot grow beyond a limit (EFBIG where a full disk gives ENOSPC; the same road in the code).
FULL = """
import resource, sys, warnings
from pathlib import Path
import numpy as np
import semanticlens as sl

def batches():
    values = np.random.default_rng(0).standard_normal((400, 64)).astype(np.float32) + 5
    for start in range(0, 400, 40):
        yield np.arange(start, start + 40), {"a": values[start : start + 40]}

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

folder = Path(sys.argv[1])
straight = sl.collect(batches(), top=30)
limit(4000)
try:
    sl.collect(batches(), top=30, checkpoint=folder / "c", checkpoint_every=0)
except OSError as error:
    assert "the checkpoint could not be written" in str(error) and "make room and try again" in str(error), error
else:
    raise SystemExit("no error")
assert list(folder.iterdir()) == [], list(folder.iterdir())
with warnings.catch_warnings(record=True) as caught:                        # only the last write fails: the result is worth more
    warnings.simplefilter("always")
    got = sl.collect(batches(), top=30, checkpoint=folder / "c", checkpoint_every=1e9)
assert "the checkpoint could not be written" in str(caught[0].message) and len(caught) == 1, caught
np.testing.assert_array_equal(got["a"].ids, straight["a"].ids)
try:
    got.save(folder / "x.examples")
except OSError as error:
    print(error)
else:
    raise SystemExit("no error")
assert list(folder.iterdir()) == [], list(folder.iterdir())
limit(resource.RLIM_INFINITY)
got.save(folder / "x.examples")
whole = (folder / "x.examples").read_bytes()
limit(4000)
try:
    got.save(folder / "x.examples")                                         # the old file stays what it was
except OSError:
    pass
assert (folder / "x.examples").read_bytes() == whole
"""


def test_a_full_disk_is_a_clean_error(tmp_path):
    done = run(FULL, tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.examples"]
    assert ConceptExamples.load(tmp_path / "x.examples").n_samples == 400


def test_a_device_without_space(tmp_path):
    """The same with ENOSPC itself, from a device that is always full."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    from semanticlens.io import files

    def full(descriptor, *_args, **_options):
        os.close(descriptor)
        return open("/dev/full", "wb", buffering=0)

    sl.collect(batches(), top=4, checkpoint=tmp_path / "c")
    before = (tmp_path / "c").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "fdopen", full)
        with pytest.raises(
            OSError, match=r"checkpoint could not be written .*No space left on device: .*make room and try again"
        ):
            checkpoints.write(tmp_path / "c", {}, {}, {})
    assert (tmp_path / "c").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_limits_of_this_process_are_untouched():
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert issubclass(ConceptWarning, UserWarning)
