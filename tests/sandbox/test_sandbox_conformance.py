"""One behaviour for all kinds of sandboxes: this machine's own, and every adapter on a fake of its service.

The fakes are servers that the real clients speak to (of Modal's, which is gRPC, the client's own surface); the computers
behind them are local sandboxes, so that all scripts really run.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack

import pytest
from fake_kit import forget_clients

from ludus.errors import ConfigError, FileProblem, SandboxFailed, SandboxFileError
from ludus.protocols import Sandbox
from ludus.sandbox import Limits, SandboxSpec, create
from ludus.sandbox.spec import REMOTE

KINDS = ["namespaces", *(pytest.param(kind, marks=pytest.mark.slow) for kind in REMOTE)]
"""Adapters differ in a few lines, which test_sandbox_remote.py looks at for each."""


@pytest.fixture(params=KINDS)
async def kind(request, tmp_path, monkeypatch):
    """A tier, with a fake of what it needs."""
    async with AsyncExitStack() as stack:
        if request.param != "namespaces":
            pytest.importorskip(request.param)
        if request.param in ("docker", "podman"):
            from fake_engine import fake_engine

            await stack.enter_async_context(fake_engine(str(tmp_path / "socket")))
            monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/socket")
            monkeypatch.setenv("CONTAINER_HOST", f"http+unix://{tmp_path}/socket")
        elif request.param == "kubernetes":
            from fake_kubernetes import fake_cluster

            await stack.enter_async_context(fake_cluster(tmp_path / "config"))
            monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        elif request.param == "e2b":
            from fake_e2b import fake_e2b

            await stack.enter_async_context(fake_e2b(monkeypatch))
        elif request.param == "daytona":
            from fake_daytona import fake_daytona

            await stack.enter_async_context(fake_daytona(monkeypatch))
        elif request.param == "modal":
            from fake_modal import fake_modal

            stack.enter_context(fake_modal(monkeypatch))
        yield request.param
        await forget_clients()


@pytest.fixture
async def sandbox(kind):
    limits = Limits(output_bytes=100_000)
    made = await create(SandboxSpec(tier=kind, limits=limits, env={"COLOUR": "red"}, files={"a/b.txt": "text"}))
    yield made
    await made.kill()


async def test_it_is_a_sandbox_and_says_how_it_is_contained(sandbox, kind):
    assert isinstance(sandbox, Sandbox) and sandbox.tier == kind
    assert (await sandbox.exec("true")).tier == kind


async def test_commands(sandbox):
    result = await sandbox.exec(
        ["sh", "-c", "echo $COLOUR $SIZE; pwd; cat; echo wrong >&2; exit 3"],
        stdin="in",
        env={"SIZE": "9 'x'"},
        cwd="/tmp",
    )
    assert (result.stdout, result.stderr, result.exit_code) == ("red 9 'x'\n/tmp\nin", "wrong\n", 3)
    assert (await sandbox.exec("echo a | tr a b && cat a/b.txt")).stdout == "b\ntext"
    assert (await sandbox.exec("kill -TERM $$")).exit_code == -15
    missing = await sandbox.exec(["no-such-program"])
    assert missing.exit_code == 127 and "no-such-program" in missing.stderr
    assert (await sandbox.exec(["/usr"])).exit_code == 126
    assert (await sandbox.exec("true", cwd="/no/such")).exit_code == 127
    for argv in (["echo", "A=B", "-n", "$x", "it's", "\\"], ["printf", "%s\n", "", "a b"]):
        assert (await sandbox.exec(argv)).exit_code == 0
    assert (await sandbox.exec(["echo", "it's", "$x\\", "a\nb"])).stdout == "it's $x\\ a\nb\n"


async def test_bytes_in_and_out(sandbox):
    data = bytes(range(256)) * 300
    counted = await sandbox.exec("wc -c; head -c 6 a/raw | wc -c", stdin=data)
    assert counted.stdout.split()[0] == str(len(data))
    assert (await sandbox.exec(["printf", "\\372\\373"])).stdout == "\ufffd\ufffd"


@pytest.mark.parametrize("command", [[], [b"ls"], ["a\0b"]])
async def test_what_is_no_command(sandbox, command):
    with pytest.raises(ConfigError, match="expected a program"):
        await sandbox.exec(command)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
async def test_a_time_out_must_be_a_time(sandbox, timeout_s):
    with pytest.raises(ConfigError, match="timeout_s must be more than 0"):
        await sandbox.exec("true", timeout_s=timeout_s)


async def test_what_a_command_leaves_running_can_be_used_by_the_next(sandbox):
    result = await sandbox.exec("(while [ ! -e stop ]; do sleep 0.01; done; echo done > log) & echo started")
    assert result.stdout == "started\n"
    await sandbox.exec("touch stop; while [ ! -s log ]; do sleep 0.01; done")
    assert await sandbox.read("log") == b"done\n"


async def test_calls_run_at_the_same_time(sandbox):
    waits = asyncio.create_task(sandbox.exec("while [ ! -e go ]; do sleep 0.01; done; echo went"))
    await sandbox.exec("touch go")
    assert (await waits).stdout == "went\n"


@pytest.mark.slow
async def test_a_time_out_kills_everything_and_keeps_files_and_output(sandbox):
    await sandbox.exec("sleep 600 >/dev/null 2>&1 & echo $! > left")
    assert (await sandbox.exec("kill -0 $(cat left)")).exit_code == 0
    result = await sandbox.exec("echo begun; echo 1 > kept; sleep 60", timeout_s=0.5)
    assert result.timed_out and result.exit_code == -9 and result.stdout == "begun\n"
    assert (await sandbox.exec("kill -0 $(cat left)")).exit_code != 0
    assert (await sandbox.exec("ls")).stdout == "a\nkept\nleft\n"


async def test_output_without_end_is_dropped_and_said(sandbox):
    result = await sandbox.exec("head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2")
    assert result.truncated and len(result.stdout) == 100_000 and result.stderr == "end\n" and result.exit_code == 0
    exact = await sandbox.exec("head -c 100000 /dev/zero | tr '\\0' x")
    assert not exact.truncated and len(exact.stdout) == 100_000


async def test_it_may_kill_all_of_its_own_processes(sandbox):
    result = await sandbox.exec("echo said; sleep 0.2; kill -9 -1; exit 5")
    assert result.stdout == "said\n" and result.exit_code in (5, -9) and not result.timed_out
    assert (await sandbox.exec("echo lives")).stdout == "lives\n"


async def test_a_python_session_keeps_its_variables(sandbox):
    assert (await sandbox.python("x = 20")).stdout == ""
    assert (await sandbox.python("print('hi')\nx + 1")).stdout == "hi\n21\n"
    failed = await sandbox.python("1/0")
    assert failed.exit_code == 1 and "ZeroDivisionError" in failed.stderr and "<python 3>" in failed.stderr
    assert (await sandbox.python("def f():\n    return x\nf()")).stdout == "20\n"
    assert (await sandbox.python(f"len({'é' * 60_000!r})")).stdout == "60000\n"


@pytest.mark.slow
async def test_a_time_out_ends_the_session_and_says_so(sandbox):
    await sandbox.python("x = 1")
    result = await sandbox.python("while True: pass", timeout_s=0.5)
    assert result.timed_out and "[the Python session was killed after 0.5 s; its variables are gone]" in result.stderr
    assert (await sandbox.python("'x' in globals()")).stdout == "False\n"


async def test_an_exit_or_a_crash_ends_the_session_and_says_so(sandbox):
    result = await sandbox.python("import sys; sys.exit(4)")
    assert result.exit_code == 4 and "ended with exit code 4; its variables are gone" in result.stderr
    assert (await sandbox.python("2")).stdout == "2\n"
    result = await sandbox.python("import os; os.kill(os.getpid(), 9)")
    assert result.exit_code == -9 and "ended with exit code -9" in result.stderr
    assert (await sandbox.python("3")).stdout == "3\n"


async def test_one_piece_of_code_at_a_time(sandbox):
    busy = asyncio.create_task(
        sandbox.python("import time\nwhile not __import__('os').path.exists('go'): time.sleep(.01)")
    )
    await asyncio.sleep(0)
    with pytest.raises(SandboxFailed, match="runs other code"):
        await sandbox.python("1")
    await sandbox.write("go", b"")
    assert (await busy).exit_code == 0


async def test_files(sandbox):
    assert await sandbox.read("a/b.txt") == b"text"
    large = os.urandom(300_000)
    await sandbox.write("deep/er/it's large", large, mode=0o755)
    assert await sandbox.read("deep/er/it's large") == large
    assert (await sandbox.exec(["test", "-x", "deep/er/it's large"])).exit_code == 0
    await sandbox.write("deep/er/it's large", b"")
    assert await sandbox.read("deep/er/it's large") == b""
    with pytest.raises(SandboxFileError, match="larger than the 3 bytes"):
        await sandbox.read("a/b.txt", max_bytes=3)
    with pytest.raises(SandboxFileError, match="can't read nothing in the sandbox: No such file"):
        await sandbox.read("nothing")
    with pytest.raises(SandboxFileError, match="can't read a in the sandbox"):
        await sandbox.read("a")
    with pytest.raises(SandboxFileError, match="can't write /usr/x in the sandbox: Read-only"):
        await sandbox.write("/usr/x", b"")
    with pytest.raises(ConfigError, match="expected the path"):
        await sandbox.read("a\0b")


async def test_links_and_pipes_are_no_files(sandbox):
    await sandbox.exec("ln -s /etc/passwd link; mkfifo pipe; ln -s a folder")
    for name in ("link", "pipe"):
        with pytest.raises(SandboxFileError, match=f"can't read {name}"):
            await sandbox.read(name)
    with pytest.raises(SandboxFileError, match="can't write link"):
        await sandbox.write("link", b"x")


async def test_folders_between_host_and_sandbox(sandbox, tmp_path):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (source / "run.sh").chmod(0o755)
    (source / "sub" / "data").write_bytes(os.urandom(100_000))
    (source / "link").symlink_to("/etc/passwd")
    await sandbox.upload(source, "project")
    listed = await sandbox.exec("project/run.sh; ls -R project")
    assert listed.stdout == "ran\nproject:\nrun.sh\nsub\n\nproject/sub:\ndata\n"
    await sandbox.exec("ln -s /etc/passwd project/out; mkfifo project/pipe; ln project/run.sh project/same")
    await sandbox.download("project", tmp_path / "back")
    found = sorted(path.relative_to(tmp_path / "back").as_posix() for path in (tmp_path / "back").rglob("*"))
    assert found == ["run.sh", "same", "sub", "sub/data"]
    assert (tmp_path / "back/sub/data").read_bytes() == (source / "sub" / "data").read_bytes()
    assert (tmp_path / "back/same").read_text() == "#!/bin/sh\necho ran\n"
    await sandbox.download("project/run.sh", tmp_path / "one")
    assert (tmp_path / "one").read_text().startswith("#!")
    with pytest.raises(FileProblem, match="exists already"):
        await sandbox.download("project", tmp_path / "back")
    with pytest.raises(FileProblem, match="is not there"):
        await sandbox.upload(tmp_path / "nowhere", "x")
    with pytest.raises(FileProblem, match="is a link"):
        await sandbox.upload(source / "link", "x")
    with pytest.raises(SandboxFileError, match="larger than"):
        await sandbox.download("project", tmp_path / "much", max_bytes=5)
    with pytest.raises(SandboxFileError, match="No such file"):
        await sandbox.download("nothing", tmp_path / "none")


async def test_a_cancelled_call_is_stopped_and_the_sandbox_lives(sandbox):
    call = asyncio.create_task(sandbox.exec("touch begun; sleep 61; touch ended"))
    await sandbox.exec("while [ ! -e begun ]; do sleep 0.01; done")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gone = await sandbox.exec("while pgrep -f 'sleep 6[1]'; do sleep 0.01; done; true", timeout_s=5)
    assert not gone.timed_out


async def test_killed_is_killed(sandbox):
    waits = asyncio.create_task(sandbox.exec("sleep 60"))
    await asyncio.sleep(0.1)
    await asyncio.gather(sandbox.kill(), sandbox.kill())
    with pytest.raises(SandboxFailed, match="was killed"):
        await waits
    with pytest.raises(SandboxFailed, match="was killed"):
        await sandbox.exec("true")
    await sandbox.kill()


@pytest.mark.slow
async def test_many_at_once_and_some_of_them_cancelled(kind):
    async def one(number):
        made = await create(SandboxSpec(tier=kind))
        try:
            return (await made.exec(["echo", str(number)])).stdout
        finally:
            await made.kill()

    tasks = [asyncio.create_task(one(number)) for number in range(8)]
    await asyncio.sleep(0.1)
    tasks[3].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [outcome for outcome in outcomes if isinstance(outcome, str)] >= [f"{number}\n" for number in (0, 1, 2)]
    assert all(isinstance(outcome, str | asyncio.CancelledError) for outcome in outcomes)
