"""OpenEnv's environments, on servers made with its own package."""

import asyncio
import json

import msgspec
import pytest

pytest.importorskip("websockets")
pytest.importorskip("openenv")

from app_server import Cut, guarded, served
from openenv_games import Warmer, columns_app, listed_app, mcp_app, one_number_app, warmer_app

from ludus.authoring.loading import load_environment
from ludus.environments.openenv import OpenEnv
from ludus.environments.remote import Earned
from ludus.errors import ConfigError, ModelCallFailed, RolloutError, UsageError
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.types import MAIN_ROLE, Reply, ToolCall


class Says:
    """A model that says what a function of the conversation says."""

    name = "script"

    def __init__(self, what):
        self.what = what
        self.tools = []

    async def complete(self, messages, tools, sampling):
        self.tools = tools
        said = self.what(messages) if callable(self.what) else self.what
        if asyncio.iscoroutine(said):
            said = await said
        return said if isinstance(said, Reply) else Reply({"role": "assistant", "content": said})


def called(name, **arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    message = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c", "type": "function", "function": function}],
    }
    return Reply(message, (ToolCall("c", name, arguments),), "tool_calls")


def halving(messages):
    """Halve what is left of 0 to 6."""
    low, high = 0, 6
    for before, after in zip(messages[1::2], messages[2::2], strict=True):
        guess = int(before["content"])
        low, high = (guess + 1, high) if after["content"] == "higher" else (low, guess - 1)
    return str((low + high) // 2)


async def rollouts(env, model, num=1, split="train", **plan):
    plan = Plan(**{"max_retries": 0, "split": split, "timeout_s": 60.0, **plan})
    tasks = [(task, 0) for task in list(env.tasks(split))[:num]]
    async with Scheduler(env, {MAIN_ROLE: model}, plan) as scheduler:
        groups = [group async for group in scheduler.groups(tasks, 1)]
    return sorted((group.rollouts[0] for group in groups), key=lambda r: int(r.task.id.rpartition("-")[2]))


@pytest.fixture(scope="module")
def warmer():
    with served(warmer_app()) as url:
        yield url


async def test_observations_are_text_replies_are_actions_and_rewards_add_up(warmer):
    played = await rollouts(OpenEnv(warmer), Says(halving), 7)
    assert [r.failure for r in played] == [None] * 7
    steps = {3: 1, 1: 2, 5: 2, 0: 3, 2: 3, 4: 3, 6: 3}  # how often 0 to 6 is halved before a number is found
    for hidden, rollout in enumerate(played):
        assert rollout.reward == pytest.approx(1.0 - 0.1 * (steps[hidden] - 1))
        assert rollout.metrics["ended"] == 1.0 and rollout.num_turns == steps[hidden]
    said = [message["content"] for message in played[1].messages]
    assert said == ["0 to 6", "3", "lower", "1", "found"]


async def test_the_last_reward_may_be_the_one_that_counts(warmer):
    (found,) = await rollouts(OpenEnv(warmer, reward="last"), Says(halving), 1)
    assert found.reward == 1.0


async def test_train_and_test_share_no_seed(warmer):
    env = OpenEnv(warmer, num_tasks=50)
    train, test = ({task.info["reset"]["seed"] for task in env.tasks(split)} for split in env.splits)
    assert len(train) == len(test) == 50 and not train & test


async def test_an_episode_that_is_left_has_what_it_earned(warmer):
    (left,) = await rollouts(OpenEnv(warmer, max_turns=2), Says("9"), 1)
    assert (left.failure, left.stop, left.metrics["ended"]) == (None, "max_turns", 0.0)
    assert left.reward == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("said", "why"), [("boom", "the game broke"), ("nan", "without giving a reward"), ("quiet", "without giving")]
)
async def test_what_the_server_does_wrong_is_the_environments_fault_and_never_a_reward(warmer, said, why):
    (failed,) = await rollouts(OpenEnv(warmer), Says(said), 1)
    assert failed.failure.blame == "environment" and why in failed.failure.error
    assert failed.rewards == []


async def test_no_answer_in_time_is_infrastructures_fault(warmer):
    (failed,) = await rollouts(OpenEnv(warmer, timeout_s=0.2), Says("sleep"), 1)
    assert (failed.failure.boundary, failed.failure.blame) == ("timeout", "infrastructure")


async def test_hundreds_of_rollouts_at_once(warmer):
    Warmer.most_open = 0
    played = await rollouts(OpenEnv(warmer, sessions=300), Says(halving), 200, concurrency=200)
    assert len(played) == 200 and all(r.failure is None and r.reward > 0.7 for r in played)
    assert Warmer.most_open <= 64, "the server holds no more, and says so"
    for _ in range(100):
        if Warmer.open_now == 0:
            break
        await asyncio.sleep(0.05)
    assert Warmer.open_now == 0


async def test_rollouts_wait_for_the_one_session_that_a_server_has():
    with served(warmer_app(sessions=1)) as url:
        played = await rollouts(OpenEnv(url), Says(halving), 12, concurrency=12)
    assert all(r.failure is None for r in played)
    assert Warmer.most_open <= 2, "one is played; the server may still be closing the one before"


async def test_several_fields_are_a_tool_and_mistakes_are_told():
    turns = iter([called("act", column=9, drop=True), "{}", "nothing", called("act", column=3, drop=True)])
    model = Says(lambda messages: next(turns))
    with served(columns_app()) as url:
        (rollout,) = await rollouts(OpenEnv(url, prompt="Play."), model, 1)
    assert rollout.failure is None and rollout.reward == 1.0
    opening, *answers = [m["content"] for m in rollout.messages if m["role"] != "assistant"]
    assert opening == "Play.\n\nboard: [[0, 0]]\nnote: drop into 3"
    assert answers[0].startswith("Error:") and "column" in answers[0] and "less than or equal to 6" in answers[0]
    assert answers[1].startswith("Error:") and "drop" in answers[1]
    assert answers[2].startswith("Error: expected a JSON object with the fields column, drop")
    assert answers[3] == "[[1, 0]]"
    assert (
        [tool["function"]["name"] for tool in rollout.tools] == ["act"] == [t["function"]["name"] for t in model.tools]
    )


async def test_an_action_may_be_json_in_the_reply():
    with served(columns_app()) as url:
        (rollout,) = await rollouts(OpenEnv(url), Says('```json\n{"column": 3, "drop": true}\n```'), 1)
    assert rollout.reward == 1.0


async def test_one_field_that_is_no_text_is_read_as_json():
    turns = iter(["three", "3"])
    with served(one_number_app()) as url:
        (rollout,) = await rollouts(OpenEnv(url, show=["note"]), Says(lambda messages: next(turns)), 1)
    assert rollout.reward == 3.0
    assert rollout.messages[0]["content"] == "drop into 3"
    assert "value of column as JSON" in rollout.messages[2]["content"]


async def test_the_tools_of_a_server_are_the_models():
    pytest.importorskip("fastmcp")
    turns = iter([called("add", a=1, b="x"), called("nothing"), called("add", a=2, b=3)])
    model = Says(lambda messages: next(turns))
    with served(mcp_app()) as url:
        (rollout,) = await rollouts(OpenEnv(url, prompt="Reach 5."), model, 1)
    assert rollout.failure is None and rollout.reward == 1.0
    (tool,) = model.tools
    assert tool["function"]["description"] == "Add two numbers." and tool["function"]["parameters"]["required"] == [
        "a",
        "b",
    ]
    results = [m["content"] for m in rollout.messages if m["role"] == "tool"]
    assert results[0].startswith("Error:") and "no tool 'nothing'" in results[1] and results[2] == "5"


async def test_a_lost_connection_is_opened_again_and_the_episode_replayed(warmer):
    async with Cut(warmer) as line:

        def cutting(messages):
            if len(messages) in (3, 5):
                line.cut()
            return halving(messages)

        (rollout,) = await rollouts(await asyncio.to_thread(OpenEnv, line.url), Says(cutting), 1)
    assert rollout.failure is None and rollout.reward == pytest.approx(0.8)
    assert [m["content"] for m in rollout.messages] == ["0 to 6", "3", "lower", "1", "lower", "0", "found"]


async def test_without_replay_a_lost_connection_is_infrastructures_fault(warmer):
    async with Cut(warmer) as line:

        def cutting(messages):
            if len(messages) == 3:
                line.cut()
            return halving(messages)

        (rollout,) = await rollouts(await asyncio.to_thread(OpenEnv, line.url, replay=False), Says(cutting), 1)
    assert rollout.failure.blame == "infrastructure" and rollout.rewards == []


async def test_an_episode_that_cannot_be_played_again_is_infrastructures_fault(warmer):
    async with Cut(warmer) as line:

        def cutting(messages):
            if len(messages) == 3:
                line.cut()
            return "dice"

        (rollout,) = await rollouts(await asyncio.to_thread(OpenEnv, line.url), Says(cutting), 1)
    assert rollout.failure.blame == "infrastructure" and "can't be played again" in rollout.failure.error


async def test_a_server_that_has_gone_is_infrastructures_fault(warmer):
    async with Cut(warmer) as line:

        def leaving(messages):
            if len(messages) > 1:
                line.server.close()
                line.cut()
            return halving(messages)

        (rollout,) = await rollouts(await asyncio.to_thread(OpenEnv, line.url, timeout_s=1.0), Says(leaving), 1)
    assert rollout.failure.blame == "infrastructure" and rollout.rewards == []
    assert "was lost" in rollout.failure.error


async def test_a_server_that_is_away_for_a_while_is_waited_for(warmer):
    async with Cut(warmer) as line:
        port, left = int(line.url.rpartition(":")[2]), []

        async def come_back():
            await asyncio.sleep(0.6)
            line.server = await asyncio.start_server(line.accept, "127.0.0.1", port)

        def leaving(messages):
            if len(messages) > 1 and not left:
                line.server.close()
                line.cut()
                left.append(asyncio.create_task(come_back()))
            return halving(messages)

        found = await rollouts(await asyncio.to_thread(OpenEnv, line.url), Says(leaving), 5)
    assert [rollout.failure for rollout in found] == [None] * 5


async def test_cancelling_leaves_no_session(warmer):
    waiting = asyncio.Event()

    async def hangs(messages):
        waiting.set()
        await asyncio.Event().wait()

    playing = asyncio.create_task(rollouts(OpenEnv(warmer), Says(hangs), 20))
    await waiting.wait()
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    for _ in range(100):
        if Warmer.open_now == 0:
            break
        await asyncio.sleep(0.05)
    assert Warmer.open_now == 0


async def test_a_model_that_fails_leaves_no_session(warmer):
    def fails(messages):
        raise ModelCallFailed("no credit")

    (rollout,) = await rollouts(OpenEnv(warmer), Says(fails), 1)
    assert rollout.failure.boundary == "model"


def test_where_no_server_is_there_is_one_line(warmer):
    with pytest.raises(UsageError, match="no server to play on at http:"):
        OpenEnv("http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="no OpenEnv server: /schema should describe"):
        OpenEnv(f"{warmer}/elsewhere")


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://127.0.0.1",
        "http://",
        "http://host:port",
        "http://me:hunter2@host",
        "http://h/?k=hunter2",
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused(url):
    with pytest.raises(ConfigError) as error:
        OpenEnv(url)
    assert "hunter2" not in str(error.value)


def test_a_key_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("WARMER_KEY", raising=False)
    with pytest.raises(ConfigError, match="WARMER_KEY, which is not set"):
        OpenEnv("http://127.0.0.1:1", key_env="WARMER_KEY")


async def test_tasks_are_the_servers_where_it_lists_any():
    with served(listed_app()) as url:
        env = OpenEnv(url)
        assert env.splits == ("easy", "hard")
        assert [(task.id, task.info["reset"]["index"]) for task in env.tasks("hard")] == [("hard-0", 0), ("hard-1", 1)]
        played = await rollouts(env, Says("hard 1"), 2, split="hard")
    assert [r.reward for r in played] == [0.0, 1.0]
    assert played[0].messages[0]["content"] == "say the name"


async def test_workers_play_on_the_server_too(warmer):
    env = load_environment("ludus.environments.openenv:OpenEnv", {"url": warmer, "num_tasks": 4})
    played = await rollouts(env, Says(halving), 4, workers=1)
    assert [r.failure for r in played] == [None] * 4 and played[3].reward == 1.0


def test_what_is_no_finite_number_is_no_reward():
    for value in ("1", [1], float("inf"), 10**400):
        with pytest.raises(RolloutError, match="expected a finite number or null"):
            Earned().note(value, False)
    earned = Earned()
    for value in (None, True, 0.5):
        earned.note(value, False)
    assert earned.rewards == [1.0, 0.5]


@pytest.mark.parametrize("options", [{"reward": "mean"}, {"num_tasks": 0}, {"timeout_s": -1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        OpenEnv("http://127.0.0.1:1", **options)


async def test_a_key_opens_the_server_and_is_recorded_nowhere(monkeypatch):
    with served(guarded(warmer_app(), "authorization", "Bearer hunter2")) as url:
        with pytest.raises(UsageError, match="HTTP 401; name the environment variable that holds its key"):
            OpenEnv(url)
        monkeypatch.setenv("WARMER_KEY", "hunter2")
        env = OpenEnv(url, key_env="WARMER_KEY")
        (rollout,) = await rollouts(env, Says("3"), 1)
        async with env.opened():
            assert "hunter2" not in repr(env._line)
    assert rollout.failure is None and b"hunter2" not in msgspec.json.encode(rollout)
