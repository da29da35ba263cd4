"""What other people's code does: it raises, exits, hangs, dies and prints, and nobody else is hurt."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from verifiers_kit import Script, play, saying, v0

from ludus.environments.verifiers import VerifiersEnvironment
from ludus.errors import UsageError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("raises_at_import", "RuntimeError: the licence server is down"),
        ("exits_at_import", "SystemExit: 3"),
        ("dies_at_import", "exit status 7: going down"),
        ("nothing_here", "neither a function load_environment nor a Taskset"),
    ],
)
def test_what_cannot_be_loaded_says_why_in_one_line(module, why):
    with pytest.raises(UsageError, match=why) as raised:
        v0(module, "bad")
    assert "\n" not in str(raised.value)


def test_a_module_that_hangs_is_given_up():
    with pytest.raises(UsageError, match="not loaded within 8 s"):
        v0("hangs_at_import", "bad", load_s=8.0)


def test_a_python_without_verifiers_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match="install="):
        VerifiersEnvironment("anything", python=sys.executable)


def orders(**by_task):
    """A model that says what is ordered for the task, and `fine` in all others."""

    def say(said, messages):
        task = next(message["content"] for message in messages if message["role"] == "user")
        return by_task.get(task.replace(" ", "_"), "loop fine")

    return Script(say)


def failures(groups):
    return [(r.failure.boundary, r.failure.blame) if r.failure else None for group in groups for r in group.rollouts]


ORDERS = {
    "Task_1": ("loop raise", "environment", "LookupError: as told"),
    "Task_2": ("loop exit", "environment", "sys.exit(3)"),
    "Task_3": ("reward raise", "scorer", "the reward function obeyed raised LookupError: as told"),
    "Task_4": ("reward exit", "scorer", "SystemExit: 3"),
    "Task_5": ("reward nothing", "scorer", "TypeError"),
    "Task_6": ("reward nan", "scorer", "finite"),
}


async def test_what_goes_wrong_fails_one_rollout_and_the_others_go_on():
    here, env = Path.cwd(), v0("misbehaves", "bad")
    model = orders(Task_7="loop print", Task_8="loop meddle", **{task: order for task, (order, *_) in ORDERS.items()})
    groups = await play(env, model, tasks=12, concurrency=12)
    for number, group in enumerate(groups):
        failure = group.rollouts[0].failure
        if f"Task_{number}" not in ORDERS:
            assert failure is None
            continue
        _, boundary, text = ORDERS[f"Task_{number}"]
        assert (failure.boundary, failure.blame) == (boundary, "environment")
        assert text in failure.error and "\n" not in failure.error
    assert Path.cwd() == here and "LUDUS_MEDDLED" not in os.environ


@pytest.mark.parametrize("where", ["loop", "reward"])
async def test_whoever_kills_the_process_fails_and_the_others_are_played_again(where):
    env = v0("misbehaves", "bad")
    groups = await play(env, orders(Task_3=f"{where} die"), tasks=12, concurrency=12)
    assert [number for number, failure in enumerate(failures(groups)) if failure] == [3]
    rollout = groups[3].rollouts[0]
    assert "exit status 9" in rollout.failure.error and rollout.failure.blame == "environment"
    for group in groups:
        if group is not groups[3]:
            assert len(group.rollouts[0].calls) == 1  # of the life that was lost, nothing is left


async def test_whoever_hangs_is_killed_and_the_others_are_played_again():
    env = v0("misbehaves", "bad", stall_s=6.0)
    groups = await play(env, orders(Task_2="loop hang"), tasks=6, concurrency=6)
    assert [number for number, failure in enumerate(failures(groups)) if failure] == [2]
    assert "held up everything else for 6 s" in groups[2].rollouts[0].failure.error


async def test_zero_for_what_raises_where_that_is_asked_for():
    env = v0("misbehaves", "bad", reward_errors="zero")
    rollout = (await play(env, saying("reward raise")))[0].rollouts[0]
    assert (rollout.failure, rollout.reward) == (None, 0.0)


async def test_a_group_scorer_that_raises_fails_the_group():
    (group,) = await play(v0("compared", raises=True), saying("x"), size=3)
    assert failures([group]) == [("scorer", "environment")] * 3
    assert "nobody to compare" in group.rollouts[0].failure.error


async def test_a_rollout_out_of_time_is_cancelled_over_there():
    class Slow(Script):
        async def complete(self, messages, tools, sampling):
            await asyncio.Event().wait()

    (group,) = await play(v0("misbehaves", "bad"), Slow(None), timeout_s=1.0)
    assert failures([group]) == [("timeout", "infrastructure")]


async def test_nothing_is_left_behind():
    env = v0("misbehaves", "bad")
    first = env._reader._process.pid
    await play(env, orders(Task_1="loop die"), tasks=4, concurrency=4)
    assert env._pool is None and env._reader is None
    assert _processes_of(first) == []
    assert len(asyncio.all_tasks()) == 1


def test_an_environment_that_nobody_opened_ends_with_its_object():
    env = v0("misbehaves", "bad")
    pid = env._reader._process.pid
    del env
    assert _processes_of(pid) == []


def _processes_of(group):
    listed = subprocess.run(["ps", "-o", "pid=", "-g", str(group)], capture_output=True, text=True)
    return listed.stdout.split()


async def test_secrets_do_not_get_into_errors(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "LookupError")
    rollout = (await play(v0("misbehaves", "bad"), saying("loop raise")))[0].rollouts[0]
    assert "LookupError" not in rollout.failure.error and "$SOME_API_KEY" in rollout.failure.error
