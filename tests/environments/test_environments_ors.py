"""Environments of the Open Reward Standard, on a server made with its own package."""

import asyncio
import json
import threading

import msgspec
import pytest

pytest.importorskip("ors")

from app_server import Cut, guarded, served
from ors import Environment, Server, Split, TextBlock, ToolOutput, tool
from ors.types import ImageBlock
from pydantic import BaseModel

from ludus.authoring.tasks import take
from ludus.environments.ors import ORS
from ludus.errors import ConfigError, UnknownName, UsageError
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.types import MAIN_ROLE, Reply, ToolCall


class Guess(BaseModel):
    number: int


class Warm(Environment):
    """Find the number; each miss costs 0.1."""

    open_now = 0
    may_end = threading.Event()
    slow_calls = 0

    def setup(self):
        if self.task_spec["hidden"] == 99:
            raise RuntimeError("no such number")
        Warm.open_now += 1
        self.misses = 0

    def teardown(self):
        Warm.open_now -= 1

    @classmethod
    def list_splits(cls):
        return [Split(name="train", type="train"), "hard"]

    @classmethod
    def list_tasks(cls, split):
        return [{"hidden": hidden} for hidden in ((99,) if split == "hard" else range(7))]

    def get_prompt(self):
        return [TextBlock(text="0 to 6"), ImageBlock(data="", mimeType="image/png"), TextBlock(text="Guess.")]

    @tool
    async def guess(self, params: Guess) -> ToolOutput:
        """Say a number."""
        if params.number == 50:
            Warm.slow_calls += 1
            await asyncio.to_thread(Warm.may_end.wait)
        if params.number == 13:
            raise RuntimeError("the game broke")
        if params.number == 14:
            return ToolOutput(blocks=[], finished=True)
        if params.number == self.task_spec["hidden"]:
            return ToolOutput(blocks=[TextBlock(text="found " + "é " * 5000)], reward=1.0, finished=True)
        return ToolOutput(blocks=[TextBlock(text="no")], reward=-0.1)


class Counted(Warm):
    """Only counts its tasks."""

    @classmethod
    def list_tasks(cls, split):
        raise NotImplementedError

    @classmethod
    async def num_tasks(cls, split):
        return 250

    @classmethod
    async def get_task(cls, split, index):
        return {"hidden": index}


class Calls:
    """A model that guesses number after number, then says something."""

    name = "script"

    def __init__(self, *numbers):
        self.numbers = numbers

    async def complete(self, messages, tools, sampling):
        await asyncio.sleep(0)
        turn = sum(message["role"] == "assistant" for message in messages)
        if turn == len(self.numbers):
            return Reply({"role": "assistant", "content": "I give up."})
        arguments = {"number": self.numbers[turn]}
        function = {"name": "guess", "arguments": json.dumps(arguments)}
        calls = [{"id": f"c{turn}", "type": "function", "function": function}]
        message = {"role": "assistant", "content": "", "tool_calls": calls}
        return Reply(message, (ToolCall(f"c{turn}", "guess", arguments),), "tool_calls")


async def rollouts(env, model, num=1, split="train"):
    plan = Plan(max_retries=0, split=split, timeout_s=60.0)
    tasks = [(task, 0) for task in take(env, split, num)]
    async with Scheduler(env, {MAIN_ROLE: model}, plan) as scheduler:
        groups = [group async for group in scheduler.groups(tasks, 1)]
    return sorted((group.rollouts[0] for group in groups), key=lambda r: [t.id for t, _ in tasks].index(r.task.id))


@pytest.fixture(scope="module")
def warm():
    with served(Server([Warm, Counted]).app) as url:
        yield url


@pytest.fixture
def env(warm):
    Warm.open_now = 0
    return ORS(warm, environment="warm")


async def test_tools_tasks_and_rewards_are_the_servers(env):
    played = await rollouts(env, Calls(2, 5), 7)
    assert [r.failure for r in played] == [None] * 7
    assert [round(r.reward, 3) for r in played] == [-0.2, -0.2, 1.0, -0.2, -0.2, 0.9, -0.2]
    assert [r.metrics["ended"] for r in played] == [0, 0, 1, 0, 0, 1, 0]
    assert played[0].messages[0] == {"role": "user", "content": "0 to 6\n[image/png, left out]\nGuess."}
    assert played[0].tools[0]["function"]["name"] == "guess" and "number" in str(played[0].tools)
    assert played[2].messages[-1]["content"] == "found " + "é " * 5000
    assert Warm.open_now == 0


async def test_splits_are_the_servers_and_a_setup_that_raises_is_its_fault(env):
    assert env.splits == ("train", "hard")
    (failed,) = await rollouts(env, Calls(1), split="hard")
    assert failed.failure.blame == "environment" and "no such number" in failed.failure.error


async def test_a_tool_that_raises_fails_the_rollout(env):
    (failed,) = await rollouts(env, Calls(13))
    assert (failed.failure.boundary, failed.failure.blame) == ("tool", "environment")
    assert "the game broke" in failed.failure.error and failed.rewards == []
    assert Warm.open_now == 0


async def test_an_end_without_any_reward_is_no_zero(env):
    (failed,) = await rollouts(env, Calls(14))
    assert failed.failure.boundary == "scorer" and failed.rewards == []


async def test_what_the_model_calls_wrongly_it_is_told(env):
    (rollout,) = await rollouts(env, Calls("many", 0))
    assert rollout.reward == 1.0
    told = [message["content"] for message in rollout.messages if message["role"] == "tool"]
    assert told[0].startswith("Error:") and "number" in told[0]


async def test_many_rollouts_at_once(warm):
    played = await rollouts(ORS(warm, environment="counted"), Calls(3, 4), 60)
    assert [r.failure for r in played] == [None] * 60
    assert [r.task.id for r in played if r.failure is None and r.reward > 0] == ["train-3", "train-4"]


def test_tasks_that_are_only_counted_are_fetched_bit_by_bit(warm):
    tasks = take(ORS(warm, environment="counted"), "train")
    assert [task.info["task_spec"]["hidden"] for task in tasks] == list(range(250))


def test_a_server_of_several_environments_wants_a_choice(warm):
    with pytest.raises(ConfigError, match="warm, counted; choose one"):
        ORS(warm)
    with pytest.raises(UnknownName, match="did you mean 'warm'"):
        ORS(warm, environment="warmm")


def test_where_no_server_is_there_is_one_line():
    with pytest.raises(UsageError, match="no server to play on at http:"):
        ORS("http://127.0.0.1:1")


async def test_a_server_that_has_gone_is_infrastructures_fault():
    with served(Server([Warm]).app) as url:
        env = ORS(url, timeout_s=1.0)
        (task,) = take(env, "train", 1)
    async with Scheduler(env, {MAIN_ROLE: Calls(0)}, Plan(max_retries=0, split="train")) as scheduler:
        ((failed,),) = [group.rollouts async for group in scheduler.groups([(task, 0)], 1)]
    assert failed.failure.blame == "infrastructure" and failed.rewards == []


async def test_a_server_that_is_away_for_a_while_is_waited_for():
    with served(Server([Warm]).app) as url:
        env = ORS(url)
        (task,) = take(env, "train", 1)
    async with Scheduler(env, {MAIN_ROLE: Calls(0)}, Plan(max_retries=0, split="train")) as scheduler:

        async def played():
            return [group.rollouts async for group in scheduler.groups([(task, 0)], 5)]

        playing = asyncio.create_task(played())
        await asyncio.sleep(0.3)
        with served(Server([Warm]).app, int(url.rpartition(":")[2])):
            (rollouts,) = await playing
    assert [(rollout.failure, rollout.reward) for rollout in rollouts] == [(None, 1.0)] * 5


async def test_cancelling_leaves_no_session(env):
    waiting = asyncio.Event()

    class Hangs(Calls):
        async def complete(self, messages, tools, sampling):
            waiting.set()
            await asyncio.Event().wait()

    playing = asyncio.create_task(rollouts(env, Hangs(), 5))
    await waiting.wait()
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert Warm.open_now == 0


async def test_a_call_whose_stream_broke_off_is_taken_up_again(warm):
    async with Cut(warm) as line:
        env = await asyncio.to_thread(ORS, line.url, environment="warm")
        (task,) = await asyncio.to_thread(take, env, "train", 1)

        async def play():
            async with Scheduler(env, {MAIN_ROLE: Calls(50, 0)}, Plan(max_retries=0, split="train")) as scheduler:
                ((rollout,),) = [group.rollouts async for group in scheduler.groups([(task, 0)], 1)]
            return rollout

        playing = asyncio.create_task(play())
        while line.answered.count(b"task_id") < 2:  # of the session, of the call
            await asyncio.sleep(0.01)
        line.cut()
        Warm.may_end.set()
        rollout = await playing
    assert rollout.failure is None and rollout.reward == pytest.approx(0.9)
    assert Warm.slow_calls == 1


async def test_a_key_opens_the_server_and_is_recorded_nowhere(monkeypatch):
    with served(guarded(Server([Warm]).app, "x-api-key", "hunter2")) as url:
        with pytest.raises(UsageError, match="HTTP 401; name the environment variable that holds its key"):
            ORS(url)
        monkeypatch.setenv("WARM_KEY", "hunter2")
        (rollout,) = await rollouts(ORS(url, key_env="WARM_KEY"), Calls(0))
    assert rollout.reward == 1.0 and b"hunter2" not in msgspec.json.encode(rollout)
