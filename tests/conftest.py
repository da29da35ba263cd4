"""What all tests need."""

import os
import signal
import sys

import pytest

# Several workers test at once: operators of one that spin on many threads would hold up the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# They start hundreds of interpreters, each of which would compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that starts the tests in the background has interrupts ignored, and some of them wait for one.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def nothing_is_left():
    """No process, file or control group of a sandbox is left on this machine afterwards."""
    from leftovers import left_at_last

    yield
    assert not left_at_last()
