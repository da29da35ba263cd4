"""What rollouts share is started once in each process that plays some, and always stopped."""

import asyncio
import os
from pathlib import Path

import pytest
from playground import Says, Small, run

from ludus.authoring.loading import load_environment
from ludus.errors import UsageError
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.types import MAIN_ROLE

FILE = """
import os
from pathlib import Path
import ludus

class Shared(ludus.Environment):
    def __init__(self, diary: str, fails: bool = False):
        self.diary, self.fails = Path(diary), fails

    def write(self, what):
        with self.diary.open("a") as file:
            file.write(f"{what} {os.getpid()}\\n")

    async def open(self):
        self.write("open")
        if self.fails:
            raise OSError("the port is taken")

    async def close(self):
        self.write("close")

    def tasks(self, split):
        return [ludus.Task(prompt=str(i)) for i in range(4)]

    @ludus.reward
    def fine(self, rollout):
        self.write("score")
        return 1.0
"""


class Diary(Small):
    """Writes down what is done to it."""

    def __init__(self):
        self.said = []

    async def open(self):
        self.said.append("open")
        await asyncio.sleep(0)

    async def close(self):
        await asyncio.sleep(0)
        self.said.append("close")


async def test_opened_once_for_all_who_use_it_at_once():
    env = Diary()
    plan, backends = Plan(), {MAIN_ROLE: Says()}
    async with Scheduler(env, backends, plan):
        async with Scheduler(env, backends, plan):
            assert env.said == ["open"]
        assert env.said == ["open"]
    assert env.said == ["open", "close"]
    async with Scheduler(env, backends, plan):
        assert env.said == ["open", "close", "open"]


async def test_nobody_enters_before_it_is_open():
    env = Diary()

    async def enter():
        async with env.opened():
            assert env.said == ["open"]
            await asyncio.sleep(0)

    await asyncio.gather(*(enter() for _ in range(5)))
    assert env.said == ["open", "close"]


async def test_what_fails_to_open_is_closed_and_ends_the_run():
    class Broken(Diary):
        async def open(self):
            await super().open()
            raise OSError("the port is taken")

    env = Broken()
    with pytest.raises(OSError, match="the port is taken"):
        await run(env)
    assert env.said == ["open", "close"]


@pytest.mark.slow
async def test_each_worker_opens_its_own(tmp_path):
    (tmp_path / "shared.py").write_text(FILE)
    diary = tmp_path / "diary"
    env = load_environment(str(tmp_path / "shared.py"), {"diary": str(diary)})
    await run(env, tasks=4, workers=2)
    lines = [line.split() for line in diary.read_text().splitlines()]
    assert {process for _, process in lines}.isdisjoint({str(os.getpid())})
    for process in {process for _, process in lines}:
        said = [what for what, owner in lines if owner == process]
        assert (said[0], said[-1], said.count("open"), said.count("close")) == ("open", "close", 1, 1)


async def test_a_worker_that_cannot_open_says_why(tmp_path):
    (tmp_path / "shared.py").write_text(FILE)
    env = load_environment(str(tmp_path / "shared.py"), {"diary": str(tmp_path / "diary"), "fails": True})
    with pytest.raises(UsageError, match="the port is taken"):
        await run(env, workers=1)


@pytest.mark.slow
async def test_workers_that_nobody_waits_for_any_more_end(tmp_path):
    slow = """
    async def open(self):
        with open(self.diary, "a") as diary:
            diary.write(f"{os.getpid()}\\n")
        time.sleep(600)
"""
    (tmp_path / "slow.py").write_text("import time\n" + FILE + slow)
    diary = tmp_path / "diary"
    env = load_environment(str(tmp_path / "slow.py"), {"diary": str(diary)})
    running = asyncio.create_task(run(env, workers=2))
    while not diary.exists() or len(diary.read_text().split()) < 2:
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    for process in diary.read_text().split():
        assert not Path(f"/proc/{process}").exists()


@pytest.mark.slow
async def test_what_a_worker_started_ends_with_it(tmp_path):
    started = """
    async def open(self):
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.diary.write_text(str(child.pid))

    async def close(self):
        pass
"""
    (tmp_path / "shared.py").write_text(FILE + started)
    env = load_environment(str(tmp_path / "shared.py"), {"diary": str(tmp_path / "diary")})
    await run(env, workers=1)
    process = int((tmp_path / "diary").read_text().split("score")[0])
    while Path(f"/proc/{process}").exists() and "Z" not in Path(f"/proc/{process}/stat").read_text().split()[2]:
        await asyncio.sleep(0.01)
