"""Interpreters with other people's packages, for tests: made once in `.bench/`, as those of the benchmarks are."""

import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from benchmarks import peers  # noqa: E402


def python_of(name):
    """The interpreter of a peer; skips where it would have to be installed and there is no package index."""
    python = _made(name)
    if python is None:
        pytest.skip(f"{name} is not installed in .bench, and the package index can't be reached")
    return str(python)


@functools.cache
def _made(name):
    try:
        return peers.python_of(name)
    except subprocess.CalledProcessError:
        asked = [sys.executable, "-m", "pip", "index", "versions", "pip"]
        if subprocess.run(asked, capture_output=True).returncode == 0:
            raise  # it answers: these versions don't go together any more
        return None
