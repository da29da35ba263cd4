"""Compile `kernels.c` where there is a C compiler: a second or two, once for a machine.

The library lies in the user's cache folder, under a name that changes with the source, the compiler's options and the
processor. Without a compiler, or with LUDUS_KERNELS=off, everything runs on PyTorch's operators.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.c")
OPTIONS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
"""Vectors, but no liberty with the order of sums or with NaN."""
BEST_FIRST = (("-march=native", "-fopenmp"), ("-march=native", "-fopenmp-simd"), ("-fopenmp-simd",))
"""More options, as far as the compiler has them; with OpenMP, kernels share PyTorch's threads."""
SWITCH = "LUDUS_KERNELS"


@functools.cache
def kernel_library(*defines: str) -> ctypes.CDLL | None:
    """The compiled kernels, or None, said once in the log, where they can't be had."""
    if os.environ.get(SWITCH, "on") == "off":
        return None
    compiler = shlex.split(os.environ.get("CC", "")) or [*filter(shutil.which, ("cc", "gcc", "clang"))][:1]
    if not compiler:
        log.warning("no C compiler (cc, gcc, clang) is installed: sampling takes PyTorch's operators, and is slower")
        return None
    for more in BEST_FIRST:
        options = [*OPTIONS, *more, *(f"-D{name}" for name in defines)]
        try:
            return ctypes.CDLL(str(_compiled([*compiler, *options])))
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip()
    log.warning(
        f"{compiler[0]} could not compile {SOURCE.name}; sampling is slower ({SWITCH}=off ends this line): {said}"
    )
    return None


def _compiled(command: list[str]) -> Path:
    source = SOURCE.read_bytes()
    name = hashlib.sha256(b"\0".join([source, " ".join(command).encode(), _processor()])).hexdigest()[:20]
    library = _folder() / f"kernels-{name}.so"
    if not library.exists():
        handle, unfinished = tempfile.mkstemp(".so", "kernels-", library.parent)
        os.close(handle)
        try:
            subprocess.run(
                [*command, "-o", unfinished, str(SOURCE), "-lm"],
                check=True,
                capture_output=True,
                text=True,
                timeout=120,
            )
            Path(unfinished).replace(library)
        finally:
            Path(unfinished).unlink(missing_ok=True)
    return library


def _folder() -> Path:
    """Where libraries are kept; nobody else may write there."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ludus"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # no home, or none to write to
        return _folder_of_this_process()


@functools.cache
def _folder_of_this_process() -> Path:
    return Path(tempfile.mkdtemp(prefix="ludus-"))


def _processor() -> bytes:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features"))).encode()
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}".encode()
