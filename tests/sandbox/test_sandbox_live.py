"""A sandbox that goes on: commands, a Python session, files, and its end."""

from __future__ import annotations

import asyncio
import os

import pytest

from ludus.errors import ConfigError, FileProblem, SandboxFailed, SandboxFileError, UnknownName
from ludus.protocols import Sandbox
from ludus.sandbox import Limits, LocalSandbox, SandboxSpec, open_sandbox


async def test_it_is_what_the_protocol_says():
    async with open_sandbox() as sandbox:
        assert isinstance(sandbox, Sandbox)


async def test_commands():
    async with open_sandbox(SandboxSpec(env={"COLOUR": "red"})) as sandbox:
        result = await sandbox.exec(
            ["sh", "-c", "echo $COLOUR $SIZE; pwd; cat; exit 3"], stdin="in", env={"SIZE": "9"}, cwd="/tmp"
        )
        assert (result.stdout, result.exit_code) == ("red 9\n/tmp\nin", 3)
        assert (await sandbox.exec("echo a | tr a b && ls -A")).stdout == "b\n"
        assert (await sandbox.exec("kill -TERM $$")).exit_code == -15
        missing = await sandbox.exec(["no-such-program"])
        assert missing.exit_code == 127 and "no-such-program" in missing.stderr
        assert (await sandbox.exec(["/usr"])).exit_code == 126


@pytest.mark.parametrize("command", [[], [b"ls"], ["a\0b"]])
async def test_what_is_no_command(command):
    async with open_sandbox() as sandbox:
        with pytest.raises(ConfigError, match="expected a program"):
            await sandbox.exec(command)


async def test_what_a_command_leaves_running_can_be_used_by_the_next():
    async with open_sandbox() as sandbox:
        result = await sandbox.exec("(while [ ! -e stop ]; do sleep 0.01; done; echo done > log) & echo started")
        assert result.stdout == "started\n"
        await sandbox.exec("touch stop; while [ ! -s log ]; do sleep 0.01; done")
        assert await sandbox.read("log") == b"done\n"


async def test_calls_run_at_the_same_time():
    async with open_sandbox() as sandbox:
        waits = asyncio.create_task(sandbox.exec("while [ ! -e go ]; do sleep 0.01; done; echo went"))
        await sandbox.exec("touch go")
        assert (await waits).stdout == "went\n"


async def test_a_python_session_keeps_its_variables():
    async with open_sandbox() as sandbox:
        assert (await sandbox.python("x = 20")).stdout == ""
        assert (await sandbox.python("print('hi')\nx + 1")).stdout == "hi\n21\n"
        failed = await sandbox.python("1/0")
        assert failed.exit_code == 1 and "ZeroDivisionError" in failed.stderr
        assert (await sandbox.python("def f():\n    return x\nf()")).stdout == "20\n"


async def test_a_time_out_ends_the_session_and_says_so():
    async with open_sandbox() as sandbox:
        await sandbox.python("x = 1")
        await sandbox.write("kept", b"1")
        result = await sandbox.python("while True: pass", timeout_s=0.2)
        assert (
            result.timed_out and "[the Python session was killed after 0.2 s; its variables are gone]" in result.stderr
        )
        again = await sandbox.python("import os; 'x' in globals(), os.path.exists('kept')")
        assert again.stdout == "(False, True)\n"


async def test_an_exit_ends_the_session_and_says_so():
    async with open_sandbox() as sandbox:
        result = await sandbox.python("import sys; sys.exit(4)")
        assert result.exit_code == 4 and "ended with exit code 4; its variables are gone" in result.stderr
        assert (await sandbox.python("2")).stdout == "2\n"


async def test_one_piece_of_code_at_a_time():
    async with open_sandbox() as sandbox:
        busy = asyncio.create_task(
            sandbox.python("import time\nwhile not __import__('os').path.exists('go'): time.sleep(.01)")
        )
        await asyncio.sleep(0)
        with pytest.raises(SandboxFailed, match="runs other code"):
            await sandbox.python("1")
        await sandbox.write("go", b"")
        assert (await busy).exit_code == 0


async def test_files():
    async with open_sandbox(SandboxSpec(files={"a.txt": "text", "b/c.bin": b"\0\xff"})) as sandbox:
        assert await sandbox.read("a.txt") == b"text"
        assert await sandbox.read("/work/b/c.bin") == b"\0\xff"
        large = os.urandom(3_000_000)
        await sandbox.write("deep/er/large", large)
        assert await sandbox.read("deep/er/large") == large
        await sandbox.write("deep/er/large", b"small")
        assert await sandbox.read("deep/er/large") == b"small"
        assert await sandbox.list(".") == [("a.txt", 4), ("b/c.bin", 2), ("deep/er/large", 5)]
        with pytest.raises(SandboxFileError, match="larger than the 3 bytes"):
            await sandbox.read("a.txt", max_bytes=3)
        with pytest.raises(SandboxFileError, match="can't read nothing in the sandbox: No such file"):
            await sandbox.read("nothing")
        with pytest.raises(SandboxFileError, match="can't write /usr/x in the sandbox: Read-only"):
            await sandbox.write("/usr/x", b"")


async def test_folders_between_host_and_sandbox(tmp_path):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (source / "run.sh").chmod(0o755)
    (source / "sub" / "data").write_bytes(b"\1\2")
    (source / "link").symlink_to("/etc/passwd")
    async with open_sandbox() as sandbox:
        await sandbox.upload(source, "project")
        assert (
            await sandbox.exec("project/run.sh; ls -R project")
        ).stdout == "ran\nproject:\nrun.sh\nsub\n\nproject/sub:\ndata\n"
        await sandbox.download("project", tmp_path / "back")
        assert (tmp_path / "back" / "sub" / "data").read_bytes() == b"\1\2"
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


async def test_killed_is_killed():
    sandbox = await LocalSandbox.create()
    waits = asyncio.create_task(sandbox.exec("sleep 60"))
    await asyncio.sleep(0)
    await asyncio.gather(sandbox.kill(), sandbox.kill())
    with pytest.raises(SandboxFailed, match="was killed"):
        await waits
    with pytest.raises(SandboxFailed, match="was killed"):
        await sandbox.exec("true")
    await sandbox.kill()


async def test_a_cancelled_call_is_stopped_and_the_sandbox_lives():
    async with open_sandbox() as sandbox:
        call = asyncio.create_task(sandbox.exec("touch begun; sleep 60; touch ended"))
        await sandbox.exec("while [ ! -e begun ]; do sleep 0.01; done")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await sandbox.exec("while pgrep sleep; do sleep 0.01; done; true", timeout_s=5)
        assert not (await sandbox.exec("pgrep -x sleep")).stdout


async def test_cancelled_while_it_starts():
    tasks = [asyncio.create_task(LocalSandbox.create()) for _ in range(10)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, LocalSandbox):
            await outcome.kill()


@pytest.mark.slow
async def test_many_at_once():
    async def one(number):
        async with open_sandbox(SandboxSpec(limits=Limits(memory_bytes=64 << 20))) as sandbox:
            return (await sandbox.run(f"print({number})")).stdout

    assert await asyncio.gather(*(one(number) for number in range(40))) == [f"{number}\n" for number in range(40)]


def test_specs_are_checked():
    with pytest.raises(ConfigError, match="expected 'none' or names of hosts"):
        SandboxSpec(network="pypi.org")
    with pytest.raises(UnknownName, match="did you mean 'landlock'"):
        SandboxSpec(tier="landlok")
    with pytest.raises(ConfigError, match="env: expected names without '='"):
        SandboxSpec(env={"A=B": "c"})
