"""The only importer of the extension: thread policy here, one function per kernel in the modules of this package.

The kernels take C-contiguous arrays of an exact dtype; the functions here convert where that is free of meaning (layout, lists) and refuse
where it is not (float64 is never narrowed unasked).
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    from semanticlens import _core
except ImportError as error:
    if error.name != "semanticlens":                  # the extension is there and says itself what is wrong
        raise
    raise ImportError(
        f"the C extension semanticlens._core cannot be imported ({error}). In a source tree, install the package (pip install .) and start "
        f"Python in another folder, or build the extension in place (python setup.py build_ext --inplace)") from error

__all__ = ["as_float32", "build_info", "get_num_threads", "num_threads", "resolve_threads", "set_num_threads"]

_chosen: int | None = None


def build_info() -> dict[str, Any]:
    """What this build is and what this machine runs.

    Returns
    -------
    dict
        ``compiler`` (str), ``tier`` (active instruction-set tier), ``tiers`` (compiled), ``supported`` (of those, runnable here),
        ``by_name`` (runnable here, but used only when ``SEMANTICLENS_TIER`` names them: products from bfloat16 tiles),
        ``openmp`` (bool), ``march_native`` (bool), ``debug`` (bool), ``threads`` (default thread count).
    """
    return {**_core.build_info(), "threads": get_num_threads()}


@functools.cache
def _cgroup_cpus() -> int | None:
    """Processors a container may use (cgroup v2, then v1), rounded up; None where no quota is set."""
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        return None if quota == "max" else max(1, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    try:
        with open("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") as file:
            quota_us = int(file.read())
        with open("/sys/fs/cgroup/cpu/cpu.cfs_period_us") as file:
            period_us = int(file.read())
        return None if quota_us <= 0 else max(1, -(-quota_us // period_us))
    except (OSError, ValueError):
        return None


def _available() -> int:
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:                            # not every platform has affinities
        cpus = os.cpu_count() or 1
    quota = _cgroup_cpus()
    return cpus if quota is None else min(cpus, quota)


def get_num_threads() -> int:
    """Threads used where ``n_threads=None``.

    The first of: :func:`set_num_threads`; environment variable ``SEMANTICLENS_NUM_THREADS``; ``OMP_NUM_THREADS``; the processors this
    process may use (affinity and container quota).
    """
    if _chosen is not None:
        return _chosen
    for name in ("SEMANTICLENS_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").split(",")[0].strip()
        if text:
            try:
                value = int(text)
            except ValueError:
                value = 0
            if value >= 1:
                return value
            raise ValueError(f"environment variable {name}={text!r} must be a whole number of at least 1")
    return _available()


def set_num_threads(n_threads: int | None) -> None:
    """Set the default thread count of this process; None returns to the environment's."""
    global _chosen
    _chosen = None if n_threads is None else resolve_threads(n_threads)


@contextlib.contextmanager
def num_threads(n_threads: int | None) -> Iterator[None]:
    """Use ``n_threads`` threads inside a ``with`` block."""
    global _chosen
    before = _chosen
    set_num_threads(n_threads)
    try:
        yield
    finally:
        _chosen = before


def resolve_threads(n_threads: int | None) -> int:
    """Thread count for a call: None is the default, -1 all processors, -2 all but one; 0 is an error."""
    if n_threads is None:
        return get_num_threads()
    if isinstance(n_threads, bool) or not isinstance(n_threads, (int, np.integer)):
        raise TypeError(f"n_threads must be an int or None, not {type(n_threads).__name__}")
    if n_threads == 0:
        raise ValueError("n_threads=0: must be at least 1, None for the default, or negative to count back from all processors")
    return int(n_threads) if n_threads > 0 else max(1, _available() + 1 + int(n_threads))


def as_float32(values: ArrayLike, name: str, ndim: int | None = None) -> NDArray[np.float32]:
    """``values`` as a float32 array: borrowed where possible; float64 arrays raise, because narrowing loses digits silently."""
    array = np.asarray(values)
    if array.dtype == np.float64 and not isinstance(values, np.ndarray):
        array = array.astype(np.float32)              # a list of Python floats has no float32 form
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype != np.float32:
        raise TypeError(f"{name} must be float32, not {array.dtype}: convert with {name}.astype(np.float32) if the loss of digits is meant")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, not {array.ndim} (shape {array.shape})")
    return array
