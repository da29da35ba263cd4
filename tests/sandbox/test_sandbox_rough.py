"""Rough handling: of files and sessions by code in a sandbox, and of sandboxes by the host."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ludus.errors import ConfigError, SandboxFailed, SandboxFileError, UsageError
from ludus.sandbox import LocalSandbox, SandboxSpec, open_sandbox, run

# --- files --------------------------------------------------------------------------------------------------------

DEEP = """
import os
for _ in range(3000): os.mkdir("d"); os.chdir("d")
open("x", "w").close()
"""


@pytest.mark.slow
async def test_folders_too_deep_to_be_reached(tmp_path):
    async with open_sandbox() as sandbox:
        await sandbox.run(DEEP)
        for work in (sandbox.list("."), sandbox.download("d", tmp_path / "d"), sandbox.read("d/" * 3000 + "x")):
            with pytest.raises(SandboxFileError, match="File name too long"):
                await work
        assert (await sandbox.run("print(1)")).stdout == "1\n"


NAMES = """
import os
for number in range(300): open(f"{number:03}" + "\\n\\x1b[0m" * 40, "w").close()
os.mkdir(b"\\xff")
open(b"\\xff/\\xfe", "w").close()
os.mkdir("closed")
os.chmod("closed", 0)
"""


async def test_names_that_are_no_text(tmp_path):
    async with open_sandbox() as sandbox:
        await sandbox.run(NAMES)
        assert len(await sandbox.list(".")) == 301
        await sandbox.download(".", tmp_path / "all")
        assert len([path for path in (tmp_path / "all").rglob("*") if path.is_file()]) == 301
        assert (tmp_path / "all" / os.fsdecode(b"\xff/\xfe")).exists()


async def test_a_list_that_is_too_long():
    async with open_sandbox() as sandbox:
        await sandbox.run("import os\nfor n in range(60): os.mkdir(str(n))")
        with pytest.raises(SandboxFileError, match="more than 50 files or folders"):
            await sandbox.list(".", max_files=50)


SWAP = """
import os
os.mkdir("kept")
open("kept/environ", "w").write("mine")
os.rename("kept", "d")
while not os.path.exists("stop"):
    os.rename("d", "kept")
    os.symlink("/proc/self", "d")
    os.remove("d")
    os.rename("kept", "d")
"""


async def test_a_folder_that_keeps_turning_into_a_link():
    async with open_sandbox() as sandbox:
        turning = asyncio.create_task(sandbox.run(SWAP))
        for _ in range(100):
            for work in (sandbox.read("d/environ"), sandbox.list("d")):
                try:
                    assert await work in (b"mine", b"", [("environ", 4)], [])
                except SandboxFileError:
                    pass
        await sandbox.write("stop", b"")
        assert (await turning).exit_code == 0


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800", None, 5])
async def test_what_is_no_path(path):
    async with open_sandbox() as sandbox:
        for work in (sandbox.read(path), sandbox.write(path, b""), sandbox.list(path)):
            with pytest.raises(ConfigError, match="expected the path"):
                await work
        assert (await sandbox.exec("echo 1")).stdout == "1\n"


async def test_files_of_the_kernel_are_none():
    async with open_sandbox() as sandbox:
        await sandbox.exec("ln -s /proc/1 p; ln -s /dev d")
        for path in ("p/mem", "p/environ", "p/status", "/proc/self/maps", "d/zero", "d/stdin", "/proc/self/fd/0"):
            with pytest.raises(SandboxFileError):
                await sandbox.read(path, max_bytes=1000)
        for path in ("p/mem", "p/oom_score_adj", "p/timerslack_ns", "d/new", "d/full"):
            with pytest.raises(SandboxFileError):
                await sandbox.write(path, b"1")


# --- programs and sessions ----------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_input_that_nobody_reads():
    async with open_sandbox() as sandbox:
        assert (await sandbox.exec("echo over", stdin=bytes(9_000_000))).stdout == "over\n"
        assert (await sandbox.exec("sleep 60 & echo over", stdin=bytes(9_000_000), timeout_s=30)).stdout == "over\n"
        assert (await sandbox.exec("sleep 60", stdin=bytes(9_000_000), timeout_s=0.2)).timed_out


@pytest.mark.slow
async def test_orphans_that_die_by_the_dozen():
    code = "import os\nfor _ in range(60):\n  if os.fork() == 0: os.fork(); os._exit(0)\n  os.wait()"
    async with open_sandbox() as sandbox:
        assert (await sandbox.run(code)).exit_code == 0
        assert (await sandbox.exec("ls -d /proc/[0-9]* | wc -l")).stdout.strip() in ("3", "4")


MEDDLING = [
    "import builtins; builtins.print = builtins.exec = builtins.compile = builtins.isinstance = builtins.len = None",
    "import sys; sys.stdout = sys.stderr = sys.stdin = None",
    "import sys; sys.modules.clear()",
    "import sys; sys.setrecursionlimit(20)",
    "import json, struct; json.dumps = json.loads = struct.Struct = None",
    "import sys; sys.settrace(lambda *words: 1 / 0)",
    "import sys; sys.excepthook = sys.displayhook = None",
    "import threading; threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()",
    "import gc; [thing.close() for thing in gc.get_objects() if type(thing).__name__ == 'socket']",
    "class E(Exception):\n  def __str__(self): raise SystemExit(5)\nraise E",
    "raise GeneratorExit",
    "import os; os.closerange(0, 100)",
    "import signal; signal.raise_signal(9)",
    "import atexit; atexit.register(lambda: [0 for _ in iter(int, 1)]); exit()",
]


@pytest.mark.parametrize("code", MEDDLING)
async def test_a_session_whose_interpreter_is_broken_ends_with_its_code(code):
    async with open_sandbox() as sandbox:
        await sandbox.python(code, timeout_s=2)
        await sandbox.python("1", timeout_s=2)
        await sandbox.python("import os; os._exit(0)", timeout_s=2)
        again = await sandbox.python("import sys; len(sys.argv)", timeout_s=2)
        if again.timed_out or again.exit_code:  # it was still the broken one
            await sandbox.exec("pkill -9 python; true")
            again = await sandbox.python("import sys; len(sys.argv)")
        assert again.stdout == "1\n", again


async def test_a_time_out_of_a_command_ends_the_session_too():
    async with open_sandbox() as sandbox:
        await sandbox.python("x = 1")
        busy = asyncio.create_task(sandbox.python("while True: pass", timeout_s=30))
        assert (await sandbox.exec("sleep 60", timeout_s=0.3)).timed_out
        assert (await busy).exit_code == -9
        assert (await sandbox.python("'x' in globals()")).stdout == "False\n"


@pytest.mark.parametrize("command", [None, 5, b"ls", {"ls"}, ["\ud800"], "echo \ud800", [1]])
async def test_what_is_no_command(command):
    async with open_sandbox() as sandbox:
        with pytest.raises(ConfigError, match="expected a program"):
            await sandbox.exec(command)
        with pytest.raises(ConfigError, match="expected a folder"):
            await sandbox.exec("true", cwd=5)
        with pytest.raises(ConfigError, match="timeout_s must be"):
            await sandbox.exec("true", timeout_s="9")


# --- the host's own mistakes --------------------------------------------------------------------------------------


async def test_the_kill_during_everything():
    async with open_sandbox(SandboxSpec(network=())) as sandbox:
        await sandbox.exec("touch there")
        calls = (
            sandbox.exec("sleep 60"), sandbox.python("while True: pass"), sandbox.read("there"), sandbox.list("/usr"),
            sandbox.write("large", bytes(30_000_000)), sandbox.reach("http://127.0.0.1:1/"), sandbox.run("input()"),
        )  # fmt: skip
        tasks = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0.01)
        await sandbox.kill()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert not isinstance(outcome, BaseException) or isinstance(outcome, SandboxFailed), outcome


@pytest.mark.slow
def test_a_sandbox_ends_with_its_event_loop():
    async def forget() -> list[LocalSandbox]:
        made = [await LocalSandbox.create(), await LocalSandbox.create(SandboxSpec(network=("a.example",)))]
        await made[1].reach("http://127.0.0.1:1/")
        await made[0].exec("sleep 600 >/dev/null 2>&1 &")
        return made

    left = asyncio.run(forget())
    for sandbox in left:
        asyncio.run(sandbox.kill())
        with pytest.raises(UsageError, match="the event loop that it was made in"):
            asyncio.run(sandbox.exec("true"))
    del sandbox, left
    gc.collect()


async def test_another_loop_may_end_it_but_not_use_it():
    sandbox = await LocalSandbox.create()

    async def elsewhere() -> None:
        with pytest.raises(UsageError, match="make one in this loop"):
            await sandbox.exec("true")
        await sandbox.kill()

    await asyncio.to_thread(asyncio.run, elsewhere())
    with pytest.raises(SandboxFailed, match="was killed"):
        await sandbox.exec("true")


def test_threads_side_by_side():
    said: list[str] = []
    threads = [threading.Thread(target=lambda n=n: said.append(run(f"print({n})").stdout)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == [f"{number}\n" for number in range(8)]


@pytest.mark.slow
async def test_hundreds_at_once():
    before = len(list(Path("/proc/self/fd").iterdir()))
    sandboxes = await asyncio.gather(*(LocalSandbox.create(SandboxSpec(network=())) for _ in range(300)))
    results = await asyncio.gather(*(sandbox.run("print(1)") for sandbox in sandboxes))
    assert {result.stdout for result in results} == {"1\n"}
    await asyncio.gather(*(sandbox.kill() for sandbox in sandboxes))
    await asyncio.sleep(0)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


def test_a_session_outlives_whoever_is_slow_to_close_its_pipe(tmp_path):
    """Between two calls: the writer of the first one has the pipe open until the session waits for the second."""
    os.mkfifo(tmp_path / "in")
    program = "import sys; from ludus.sandbox.inside.session import main; main(sys.argv[1])"
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) as session:
        try:
            first, said = ask(session, tmp_path, "first", "x = 20")
            assert said == b"ended 0\n"
            while not any(
                os.path.realpath(fd) == str(tmp_path / "in") for fd in Path(f"/proc/{session.pid}/fd").iterdir()
            ):
                time.sleep(0.001)
            os.close(first)
            second, said = ask(session, tmp_path, "second", "assert x == 20")
            assert said == b"ended 0\n"
            os.close(second)
        finally:
            session.kill()


def ask(session, folder, name, code):
    """The writer's end of the pipe of calls, still open, and what the session says of a call."""
    call = folder / name
    call.mkdir()
    (call / "code").write_text(code)
    ends = []
    for pipe in ("o", "e", "done"):
        os.mkfifo(call / pipe)
        ends.append(os.open(call / pipe, os.O_RDWR))
    writer = None
    while writer is None and session.poll() is None:
        with suppress(OSError):  # nobody reads yet
            writer = os.open(folder / "in", os.O_WRONLY | os.O_NONBLOCK)
    assert writer is not None, "the session has ended"
    os.write(writer, f"{call}\n".encode())
    said = os.read(ends[2], 100)
    for end in ends:
        os.close(end)
    return writer, said
