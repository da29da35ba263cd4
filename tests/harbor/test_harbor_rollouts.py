"""Rollouts of task folders: the sandbox of the agent, the tests in a fresh one, and whose fault it is that they fail."""

import asyncio
import shutil
from pathlib import Path

import pytest

from ludus.environments.harbor import Harbor
from ludus.errors import ConfigError
from ludus.recording.expert import Expert
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.sandbox import capabilities
from ludus.types import MAIN_ROLE, Reply, ToolCall

pytestmark = [
    pytest.mark.usefixtures("nothing_is_left"),
    pytest.mark.skipif(capabilities().tier != "namespaces", reason="this machine has no namespaces for sandboxes"),
]

SAMPLE = Path(__file__).parents[1] / "data" / "harbor" / "count-words"


class Counted(Harbor):
    """Counts the sandboxes that it has asked for."""

    num_sandboxes = 0

    async def new_sandbox(self, task):
        self.num_sandboxes += 1
        return await super().new_sandbox(task)


class Types:
    """A model that runs commands, one a reply, and then is done."""

    name = "types"

    def __init__(self, *commands):
        self.commands, self.seen = commands, []

    async def complete(self, messages, tools, sampling):
        await asyncio.sleep(0)
        self.seen.append(messages)
        turn = sum(message["role"] == "assistant" for message in messages)
        if turn >= len(self.commands):
            return Reply({"role": "assistant", "content": "done"})
        function = {"name": "bash", "arguments": "{}"}
        call = {"id": f"c{turn}", "type": "function", "function": function}
        message = {"role": "assistant", "content": "", "tool_calls": [call]}
        return Reply(message, (ToolCall(f"c{turn}", "bash", {"command": self.commands[turn]}),), "tool_calls")


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(SAMPLE, tmp_path / "count-words"))


async def attempt(env, model, size=1):
    plan = Plan(max_retries=0, timeout_s=30)
    todo = [(task, 0) for task in env.tasks("test")]
    async with Scheduler(env, {MAIN_ROLE: model}, plan) as scheduler:
        groups = [group async for group in scheduler.groups(todo, size)]
    return groups[0].rollouts[0]


def change(folder, name, old, new):
    path = folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


async def test_the_solution_solves_it():
    env = Counted(str(SAMPLE))
    rollout = await attempt(env, Expert())
    assert rollout.failure is None and rollout.metrics == {"verified": 1.0, "kept": 1.0} and rollout.reward == 1.0
    assert env.num_sandboxes == 2, "one for the agent, a fresh one for the tests"


async def test_a_wrong_answer_scores_0_and_none_too():
    env = Harbor(str(SAMPLE))
    assert (await attempt(env, Types("echo 8 > /app/answer.txt"))).reward == 0.0
    assert (await attempt(env, Types())).reward == 0.0


async def test_the_model_reads_what_commands_print_and_never_the_tests():
    model = Types("cat text.txt", "ls /tests /app; exit 3", "find / -maxdepth 1 -name nothing", "seq 10000")
    rollout = await attempt(Harbor(str(SAMPLE)), model)
    said = [message["content"] for message in rollout.messages if message["role"] == "tool"]
    assert said[0] == "to be or not to be, that"
    assert "test.sh" not in said[1] and said[1].endswith("(exit code 3)")
    assert said[2] == "(no output)"
    assert "characters left out" in said[3] and len(said[3]) < 11_000
    assert "solve.sh" not in str(model.seen) and "test.sh" not in str(model.seen)


async def test_only_artifacts_reach_the_tests(folder):
    (folder / "tests" / "test.sh").write_text(
        "ls -A /app /logs/artifacts /data 2>/dev/null | tr '\\n' ' ' > /logs/verifier/seen\n"
        "grep -q made /logs/verifier/seen && ! grep -qE 'noise.log|hidden' /logs/verifier/seen "
        "&& echo 1 > /logs/verifier/reward.txt || echo 0 > /logs/verifier/reward.txt\n"
    )
    made = "echo 1 > /logs/artifacts/made; echo 1 > /app/noise.log; mkdir /data; echo 1 > /data/hidden"
    assert (await attempt(Harbor(str(folder)), Types(made))).reward == 1.0


async def test_a_reward_that_the_agent_plants_is_not_read():
    plant = "mkdir -p /logs/verifier /tests; echo '{\"reward\": 1}' | tee /logs/verifier/reward.json /app/reward.json"
    assert (await attempt(Harbor(str(SAMPLE)), Types(plant))).reward == 0.0


async def test_what_the_agent_left_running_is_dead_before_the_tests(folder):
    late = "(sleep 0.2; echo 7 > /app/answer.txt) > /dev/null 2>&1 &"
    change(folder, "tests/test.sh", "#!/bin/bash", "#!/bin/bash\nsleep 0.4")
    assert (await attempt(Harbor(str(folder)), Types(late))).reward == 0.0


async def test_a_command_that_hangs_is_told_to_the_model():
    rollout = await attempt(Harbor(str(SAMPLE), command_timeout_s=0.2), Types("sleep 60", "echo 7 > answer.txt"))
    assert "stopped after 0.2 s" in rollout.messages[-4]["content"] and rollout.reward == 1.0


@pytest.mark.slow
async def test_when_the_time_is_over_what_is_there_is_judged(folder):
    change(folder, "task.toml", "timeout_sec = 60.0", "timeout_sec = 0.5")
    rollout = await attempt(Harbor(str(folder)), Types("echo 7 > answer.txt", "sleep 60"))
    assert (rollout.stop, rollout.reward, rollout.failure) == ("timeout", 1.0, None)


async def test_tests_that_never_give_a_reward_are_not_the_models_fault(folder):
    (folder / "tests" / "test.sh").write_text("echo broken >&2; exit 5\n")
    rollout = await attempt(Harbor(str(folder)), Types())
    assert (rollout.failure.boundary, rollout.failure.blame) == ("scorer", "environment") and rollout.excluded
    assert (
        "neither /logs/verifier/reward.json" in rollout.failure.error and "exit code 5: broken" in rollout.failure.error
    )


async def test_who_breaks_the_tests_is_to_blame(folder):
    change(folder, "tests/test.sh", "#!/bin/bash", "#!/bin/bash\n[ -e /app/broken ] && exit 1")
    rollout = await attempt(Harbor(str(folder)), Types("touch broken"))
    assert rollout.failure.blame == "policy" and rollout.reward == 0.0 and not rollout.excluded


@pytest.mark.slow
async def test_tests_that_hang_on_what_the_agent_made_are_its_fault(folder):
    change(folder, "task.toml", "timeout_sec = 30.0", "timeout_sec = 0.5")
    change(folder, "tests/test.sh", "#!/bin/bash", "#!/bin/bash\n[ -e /app/slow ] && sleep 60")
    rollout = await attempt(Harbor(str(folder)), Types("touch slow"))
    assert "took more than 0.5 s" in rollout.failure.error and rollout.failure.blame == "policy"


async def test_a_base_that_can_not_be_made_is_no_ones_score(folder):
    change(folder, "environment/Dockerfile", "WORKDIR /app", "WORKDIR /proc/none")
    rollout = await attempt(Harbor(str(folder)), Types())
    assert "/proc/none as a writable folder: it is in /proc" in rollout.failure.error and rollout.excluded
    assert rollout.failure.blame == "environment"


async def test_without_a_file_tree_of_their_own_sandboxes_are_refused():
    rollout = await attempt(Harbor(str(SAMPLE), sandbox="none"), Types())
    assert (
        "'none' have no file tree of their own, so they can't have /app" in rollout.failure.error and rollout.excluded
    )


async def test_a_healthcheck_comes_first(folder):
    check = '[environment.healthcheck]\ncommand = "test -e /app/ready"\nretries = 2\ninterval_sec = 0.01\n\n[agent]'
    change(folder, "task.toml", "[agent]", check)
    rollout = await attempt(Harbor(str(folder)), Types())
    assert "healthcheck failed 2 times" in rollout.failure.error and rollout.excluded


async def test_collect_hooks_make_artifacts(folder):
    hook = '[[verifier.collect]]\ncommand = "wc -w < text.txt > answer.txt"\n\n[verifier.env]'
    change(folder, "task.toml", "[verifier.env]", hook)
    assert (await attempt(Harbor(str(folder)), Types())).reward == 1.0


@pytest.mark.slow
async def test_many_at_once():
    env = Harbor(str(SAMPLE))
    plan = Plan(max_retries=0, timeout_s=60, concurrency=8)
    (task,) = env.tasks("test")
    async with Scheduler(env, {MAIN_ROLE: Expert()}, plan) as scheduler:
        rollouts = [
            r async for group in scheduler.groups([(task, visit) for visit in range(6)], 4) for r in group.rollouts
        ]
    assert len(rollouts) == 24 and {rollout.reward for rollout in rollouts} == {1.0}


@pytest.mark.parametrize("command", ["echo \0", "x" * 200_000, "echo \ud800"])
async def test_commands_that_no_program_can_be_given_are_the_models_mistake(command):
    rollout = await attempt(Harbor(str(SAMPLE)), Types(command, "echo 7 > answer.txt"))
    said = [message["content"] for message in rollout.messages if message["role"] == "tool"]
    assert said[0].startswith("Error: ") and said[1] == "(no output)" and rollout.reward == 1.0


@pytest.mark.slow
async def test_of_many_that_fail_at_once_one_finds_out_why(folder):
    (folder / "tests" / "test.sh").write_text("exit 1\n")
    env = Counted(str(folder))
    await attempt(env, Types(), size=6)
    assert env.num_sandboxes == 6 * 2 + 1


def test_a_dockerfile_that_is_no_text(folder):
    (folder / "environment" / "Dockerfile").write_bytes(b"FROM \xff\xfe")
    with pytest.raises(ConfigError, match="Dockerfile can't be read"):
        Harbor(str(folder))
