"""What a kill leaves behind, at every step: an action on a copy of a folder, in a process that dies one step later each
time. A step is whatever changes a name or a length on the disk; Python's audit events tell of them before they happen.

Run as a program, `killed.py MODULE:FUNCTION FOLDER`, because only a process without threads forks safely.
"""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
KILLED = 9


def kills(act: Callable[[Path], None], folder: Path) -> list[Path]:
    """Copies of a folder, in the order of the steps at which `act`, a function of a module, was killed in them; the last
    is the one where it came to its end."""
    subprocess.run([sys.executable, __file__, f"{act.__module__}:{act.__name__}", str(folder)], check=True)
    return sorted(folder.parent.glob(f"{folder.name}.*"))


def kill_everywhere(act: Callable[[Path], None], folder: Path) -> None:
    for step in itertools.count(1):
        copy = folder.with_name(f"{folder.name}.{step:03d}")
        shutil.copytree(folder, copy)
        child = os.fork()
        if child == 0:
            os._exit(_until(step, act, copy))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != KILLED:
            sys.exit(status)


def _until(step: int, act: Callable[[Path], None], folder: Path) -> int:
    steps = itertools.count(1)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (opened or event in CHANGES) and next(steps) == step:
            os._exit(KILLED)

    sys.addaudithook(hook)
    try:
        act(folder)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    kill_everywhere(getattr(importlib.import_module(module), name), Path(sys.argv[2]))
