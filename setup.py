"""Build of the one extension module: sources, flags, instruction-set tiers.  Everything else is in pyproject.toml.

Environment: SEMANTICLENS_OPENMP=1|0|auto (default 1: no OpenMP is an error, not a slow build) · SEMANTICLENS_MARCH_NATIVE=1 (this machine
only, announced) · SEMANTICLENS_EMULATE_AMX=1 (for tests: the tiers amx-emulated and amx3-emulated) · SEMANTICLENS_DEBUG=1 ·
SEMANTICLENS_SANITIZE=address,undefined · SEMANTICLENS_WERROR=1.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

import numpy as np
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

X86 = platform.machine().lower() in ("x86_64", "amd64")
NATIVE = os.environ.get("SEMANTICLENS_MARCH_NATIVE") == "1"
DEBUG = os.environ.get("SEMANTICLENS_DEBUG") == "1"

AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]
AMX = ["-mamx-tile", "-mamx-bf16"]
AMX_PROBE = "#include <immintrin.h>\nint main(void) { _tile_dpbf16ps(0, 1, 2); return 0; }\n"

# One translation unit per tier holds everything that is worth compiling more than once; see csrc/core/sl_tier.h.
TIER_FLAGS = {
    "csrc/core/tier_avx2.c": ["-mavx2", "-mfma"],     # what runs_here() in sl_cpu.c asks the processor for, and no more
    "csrc/core/tier_avx512.c": AVX512,
    "csrc/core/tier_amx.c": [*AVX512, *AMX],          # where the compiler has them, see accepts(); else as an empty tier
    "csrc/core/tier_amx_emulated.c": ["-mavx2", "-mfma"],
}
FLAGS = ["-std=c11", "-fvisibility=hidden", "-fno-strict-aliasing", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wsign-conversion", "-Wstrict-prototypes", "-Wmissing-prototypes",
            "-Wcast-qual", "-Wundef", "-Wvla", "-Wformat=2", "-Wdouble-promotion"]
SERIAL = ["-Wno-unknown-pragmas", "-Wno-unused-parameter", "-Wno-unused-variable", "-Wno-unused-but-set-variable"]   # used in pragmas only
GLUE_WARNINGS = ["-Wno-missing-prototypes", "-Wno-cast-qual", "-Wno-undef"]   # CPython and NumPy headers


def compile_flags() -> list[str]:
    """Flags every source gets."""
    sanitize = os.environ.get("SEMANTICLENS_SANITIZE")
    flags = FLAGS + (["-O1", "-g", "-UNDEBUG"] if DEBUG or sanitize else ["-O3", "-g0", "-DNDEBUG"]) + WARNINGS
    if os.environ.get("SEMANTICLENS_WERROR") == "1":
        flags.append("-Werror")
    if sanitize:
        # Python's own -fwrapv would hide signed overflow, and takes minutes on the unrolled loops; so would variables in -g
        flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-fno-wrapv", "-g1"]
    if os.environ.get("SEMANTICLENS_EMULATE_AMX") == "1":
        flags.append("-DSL_EMULATE_AMX=1")
    if NATIVE:
        print("semanticlens: SEMANTICLENS_MARCH_NATIVE=1, this build runs on this kind of machine only", file=sys.stderr)
        flags += ["-march=native", "-DSL_MARCH_NATIVE=1"]
    return flags


class BuildExt(build_ext):
    """Compiles every source on its own (in parallel), so that a tier's file gets the tier's flags."""

    def build_extension(self, ext: Extension) -> None:
        """Compile, then link with the flags the compilation had."""
        openmp = self._openmp_flags()
        common = compile_flags() + openmp
        sanitize = os.environ.get("SEMANTICLENS_SANITIZE")
        tier_flags = {**TIER_FLAGS, "csrc/core/tier_amx.c": []} if not X86 or not self._has_tiles() else TIER_FLAGS

        def compile_one(source: str) -> list[str]:
            name = source.replace(os.sep, "/")
            flags = common + (tier_flags.get(name, []) if X86 else []) + (GLUE_WARNINGS if "/glue/" in name else [])
            objects: list[str] = self.compiler.compile(
                [source], output_dir=self.build_temp, include_dirs=ext.include_dirs + self.include_dirs, macros=ext.define_macros,
                extra_postargs=flags, depends=ext.depends)
            return objects

        compile_one(ext.sources[0])                       # creates the output folders before the threads start
        longest_first = sorted(ext.sources, key=lambda source: "/tier_" not in source.replace(os.sep, "/"))
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            objects = [o for group in pool.map(compile_one, longest_first) for o in group]
        target = self.get_ext_fullpath(ext.name)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(
            objects, target, libraries=self.get_libraries(ext), library_dirs=ext.library_dirs,
            extra_postargs=openmp + ([f"-fsanitize={sanitize}"] if sanitize else []), build_temp=self.build_temp)

    def _has_tiles(self) -> bool:
        """Whether the compiler knows tile instructions; without them the tier is left out, and asking for it says so."""
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder, "probe.c")
            probe.write_text(AMX_PROBE)
            try:
                self.compiler.compile([str(probe)], output_dir=folder, extra_postargs=AMX)
            except CompileError:
                print("semanticlens: the C compiler has no tile instructions, the tier 'amx' is left out", file=sys.stderr)
                return False
        return True

    def _openmp_flags(self) -> list[str]:
        wanted = os.environ.get("SEMANTICLENS_OPENMP", "1")
        if wanted == "0":
            return SERIAL
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder, "probe.c")
            probe.write_text("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n")
            try:
                objects = self.compiler.compile([str(probe)], output_dir=folder, extra_postargs=["-fopenmp"])
                self.compiler.link_executable(objects, str(Path(folder, "probe")), extra_postargs=["-fopenmp"])
            except Exception as error:
                if wanted == "auto":
                    print("semanticlens: no OpenMP, building a serial extension", file=sys.stderr)
                    return SERIAL
                raise SystemExit("semanticlens: the C compiler cannot build OpenMP programs (install GCC, or set "
                                 "SEMANTICLENS_OPENMP=0 for a serial build)") from error
        return ["-fopenmp"]


if __name__ == "__main__":
    setup(
        ext_modules=[Extension(
            "semanticlens._core",
            sources=sorted(glob("csrc/core/*.c")) + sorted(glob("csrc/glue/*.c")),
            depends=sorted(glob("csrc/**/*.h", recursive=True)),
            include_dirs=["csrc/include", "csrc/core", "csrc/glue", np.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_23_API_VERSION"), ("NPY_TARGET_VERSION", "NPY_1_23_API_VERSION")],
        )],
        cmdclass={"build_ext": BuildExt},
    )
