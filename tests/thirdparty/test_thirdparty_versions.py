"""Tests of packages that need other versions than ours run here, each set of them in an environment that has those."""

import os
import subprocess

import pytest

from peer_pythons import ROOT, python_of

pytestmark = pytest.mark.slow

SERVERS = (
    "environments/test_environments_openenv.py",
    "environments/test_environments_ors.py",
    "serve/test_serve_openenv.py",
    "serve/test_serve_ors.py",
)
SERVICES = (
    "sandbox/test_sandbox_conformance.py",
    "sandbox/test_sandbox_harbor.py",
    "sandbox/test_sandbox_reach.py",
    "sandbox/test_sandbox_remote.py",
)
INSPECT = ("programs/test_programs_export_inspect.py", "cli/test_cli_mixtures.py")


@pytest.mark.parametrize(("peer", "files"), [("servers", SERVERS), ("services", SERVICES), ("inspect", INSPECT)])
def test_what_is_skipped_elsewhere(peer, files):
    names = [f"tests/{name}" for name in files]
    command = [python_of(peer), "-m", "pytest", "-rs", "-m", "", "-p", "no:cacheprovider", "-p", "no:xdist", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, env=_environ())
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout, done.stdout[-4000:]


def _environ():
    """Ours without what pytest leaves in it for its own processes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
