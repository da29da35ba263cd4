"""The tiers below the best one, and what is said of them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ludus.errors import SandboxFailed, SandboxFileError, SandboxUnavailable
from ludus.sandbox import Limits, SandboxSpec, capabilities, open_sandbox, run


def works(tier):
    try:
        return run("", tier=tier).exit_code == 0
    except SandboxUnavailable:
        return False


needs_landlock = pytest.mark.skipif(not works("landlock"), reason="Landlock is too old, or this Python is root's alone")


def test_what_this_machine_can_do():
    found = capabilities()
    assert found.tier == "namespaces" and found.problems == {}


@needs_landlock
@pytest.mark.parametrize(
    "attempt",
    [
        "open('/etc/passwd')",
        f"open({__file__!r})",
        "import os; os.listdir('/proc')",
        "open('/tmp/x', 'w')",
        "open('/usr/bin/x', 'w')",
        "import socket; socket.create_connection(('127.0.0.1', 1))",
        "import socket; socket.socket(socket.AF_UNIX)",
        "import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
        pytest.param(f"import os, signal; os.kill({os.getpid()}, 0)", id="the host's processes"),
    ],
)
def test_landlock_refuses(attempt):
    result = run(f"try: {attempt}\nexcept OSError: print('refused')", tier="landlock")
    assert (result.stdout, result.tier) == ("refused\n", "landlock"), result.stderr


@needs_landlock
async def test_landlock_is_a_sandbox_as_well():
    async with open_sandbox(SandboxSpec(tier="landlock", files={"in/a.txt": "hello"})) as sandbox:
        assert (await sandbox.exec("cat in/a.txt; echo more > out.txt")).stdout == "hello"
        assert await sandbox.read("out.txt") == b"more\n"
        await sandbox.python("x = 1")
        assert (await sandbox.python("x + 1")).stdout == "2\n"
        await sandbox.exec("setsid sleep 600 >/dev/null 2>&1 &")
        assert (await sandbox.exec("sleep 600", timeout_s=0.2)).timed_out


@needs_landlock
async def test_landlock_s_links_lead_nowhere_for_the_host_either(tmp_path):
    tmp_path.chmod(0o777)
    (tmp_path / "secret").write_text("x")
    async with open_sandbox(SandboxSpec(tier="landlock")) as sandbox:
        await sandbox.exec(f"ln -s {tmp_path} out; ln -s /etc etc; mkdir in; echo 1 > in/f; ln -s in inner")
        for path in ("out/secret", "etc/passwd", str(tmp_path / "secret"), "/etc/passwd", "etc"):
            with pytest.raises(SandboxFileError):
                await sandbox.read(path)
        for path in ("out/planted", "out/deep/planted", str(tmp_path / "planted"), "/tmp/planted"):
            with pytest.raises(SandboxFileError, match="Permission denied"):
                await sandbox.write(path, b"1")
        assert await sandbox.read("inner/f") == b"1\n"
        await sandbox.write("new/deep/f", b"22")
        assert await sandbox.list(".") == [("in/f", 2), ("new/deep/f", 2)]
        with pytest.raises(SandboxFileError):
            await sandbox.list("out")
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@needs_landlock
def test_landlock_limits_memory_of_all_processes_together():
    code = "import os, time\nfor _ in range(6):\n  if os.fork() == 0:\n"
    code += "    x = bytearray(b'x') * (40 << 20); time.sleep(60)\nos.wait()"
    assert run(code, tier="landlock", limits=Limits(memory_bytes=96 << 20)).oom_killed


def test_without_containment_the_first_process_can_be_killed_and_yet_nothing_is_left():
    code = "import os, signal, time\nif os.fork() == 0:\n  os.setsid(); os.fork(); time.sleep(600)\n"
    with pytest.raises(SandboxFailed, match="the sandbox ended"):
        run(code + "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(600)", tier="none")


REFUSED = """
from ludus.sandbox.inside import filters, linux
linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
linux.install_filter(filters.program(linux.MACHINE, counted=True))
from ludus.errors import SandboxUnavailable
from ludus.sandbox import capabilities, run
found = capabilities()
print(found.problems["namespaces"])
try:
    print(run("print('ran')").tier)
except SandboxUnavailable as error:
    print(error)
try:
    run("print('ran')", tier="namespaces")
except SandboxUnavailable as error:
    print(error)
"""


@pytest.mark.slow
def test_where_namespaces_are_refused_the_next_tier_or_an_error_says_so():
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, check=True, timeout=60)
    why, then, asked = done.stdout.splitlines()
    assert why == asked and "don't work here" in why and "unshare: Operation not permitted" in why
    assert then == ("landlock" if works("landlock") else then)
    assert then == "landlock" or then.startswith("this machine can't contain code: sandboxes of the tier 'namespaces'")


def test_no_tier_at_all_is_only_used_by_name():
    result = run("print(1)", tier="none")
    assert (result.stdout, result.tier) == ("1\n", "none")
