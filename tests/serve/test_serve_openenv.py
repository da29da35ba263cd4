"""Our environments over OpenEnv: with its own client, with ours, and with bad manners."""

import asyncio
import json

import httpx2
import pytest

pytest.importorskip("websockets")

from served_worlds import Breaks, Duel, Echo, Shop, TwoDrafts, served
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from ludus.authoring.tasks import take
from ludus.environments.guess import Guess
from ludus.environments.openenv import OpenEnv
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.serve.openenv import make_app
from ludus.types import MAIN_ROLE, Reply, ToolCall


def serving(env, **options):
    return served(env, make_app, websockets=True, **options)


class Line:
    """A raw socket."""

    def __init__(self, url):
        self.url = url.replace("http", "ws") + "/ws"

    async def __aenter__(self):
        self.socket = await connect(self.url)
        return self

    async def __aexit__(self, *exc):
        await self.socket.close()

    async def say(self, kind, **data):
        return await self.raw(json.dumps({"type": kind, "data": data}))

    async def raw(self, text):
        await self.socket.send(text)
        return json.loads(await self.socket.recv())


async def test_openenvs_own_client_plays_an_episode():
    openenv = pytest.importorskip("openenv.core.generic_client")
    async with serving(Echo()) as (url, _), openenv.GenericEnvClient(base_url=url) as client:
        first = await client.reset(seed=3)
        assert [m["content"] for m in first.observation["messages"]] == ["You are an echo.", "train 3"]
        assert (first.done, first.reward) == (False, None)
        last = await client.step({"content": "train 3"})
        assert (last.done, last.reward, last.observation["metrics"]) == (True, 1.0, {"same": 1.0})
        again = await client.reset(seed=4)
        assert again.observation["messages"][-1]["content"] == "train 4"
        assert (await client.step({"content": "what?"})).reward == 0.0
        state = await client.state()
        assert (state["step_count"], state["task"], state["seed"]) == (1, "train-4", 4)


async def test_health_metadata_and_schemas():
    async with serving(Echo()) as (url, _), httpx2.AsyncClient(base_url=url) as http:
        assert (await http.get("/health")).json() == {"status": "healthy"}
        about = (await http.get("/metadata")).json()
        assert (about["name"], about["description"]) == ("echo", "Say it again.")
        schema = (await http.get("/schema")).json()
        assert set(schema) == {"action", "observation", "state"}
        assert "content" in schema["action"]["properties"] and "messages" in schema["observation"]["required"]
        missing = await http.post("/reset")
        assert missing.status_code == 404 and "WebSocket /ws" in missing.json()["detail"]


async def test_a_task_may_be_named():
    async with serving(Echo(), split="test") as (url, _), Line(url) as line:
        for asked, expected in (({"task": 2}, "test 2"), ({"task": "train-1", "split": "train"}, "train 1")):
            answer = await line.say("reset", **asked)
            assert answer["data"]["observation"]["messages"][-1]["content"] == expected
        for asked in ({"task": 99}, {"task": "nobody"}, {"split": "trian"}, {"seed": -1}, {"seed": "x"}):
            answer = await line.say("reset", **asked)
            assert (answer["type"], answer["data"]["code"]) == ("error", "VALIDATION_ERROR")


async def test_tools_are_offered_called_and_answered():
    async with serving(Shop()) as (url, _), Line(url) as line:
        first = (await line.say("reset"))["data"]["observation"]
        assert [tool["function"]["name"] for tool in first["tools"]] == ["price"]
        call = {"function": {"name": "price", "arguments": {"item": "tea"}}}
        second = (await line.say("step", tool_calls=[call]))["data"]["observation"]
        assert second["continues"] and [(m["role"], m["content"]) for m in second["messages"]] == [("tool", "561")]
        broken = {"id": "x", "function": {"name": "price", "arguments": "{"}}
        third = (await line.say("step", tool_calls=[broken]))["data"]["observation"]
        assert "not valid JSON" in third["messages"][0]["content"] and third["messages"][0]["tool_call_id"] == "x"
        last = (await line.say("step", content="779"))["data"]
        assert (last["done"], last["reward"]) == (True, 1.0)


async def test_an_agent_of_its_own_is_played_call_by_call():
    async with serving(TwoDrafts()) as (url, _), Line(url) as line:
        first = (await line.say("reset"))["data"]["observation"]
        second = (await line.say("step", content="7"))["data"]["observation"]
        third = (await line.say("step", content="12"))["data"]["observation"]
        last = (await line.say("step", content="12!"))["data"]
    assert [m["content"] for o in (first, second, third) for m in o["messages"]] == ["7 or 12?", "Are you sure?", "So?"]
    assert [o["continues"] for o in (first, second, third)] == [False, True, False]
    assert (last["done"], last["reward"]) == (True, 1.0)


async def test_roles_take_turns_even_where_they_speak_at_once():
    async with serving(Duel()) as (url, _), Line(url) as line:
        first = (await line.say("reset"))["data"]["observation"]
        second = (await line.say("step", content="9"))["data"]["observation"]
        assert (first["role"], second["role"]) == ("policy", "rival")
        assert (await line.say("step", content="4"))["data"]["reward"] == 1.0


async def test_a_failure_is_an_error_unless_it_is_the_policys_own():
    Breaks.left = 0
    async with serving(Breaks()) as (url, _), Line(url) as line:
        for said, why in (("exit", "sys.exit(3)"), ("x", "nonsense")):
            await line.say("reset")
            answer = await line.say("step", content=said)
            assert (answer["type"], answer["data"]["code"]) == ("error", "EXECUTION_ERROR")
            assert why in answer["data"]["message"]
        await line.say("reset")
        answer = await line.say("step", content="mine")
        assert (answer["data"]["done"], answer["data"]["reward"]) == (True, -1.0)
    assert Breaks.left == 3


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "INVALID_JSON"),
        ("[" * 100_000, "INVALID_JSON"),
        ("[]", "VALIDATION_ERROR"),
        ('{"type": "reset", "data": 5}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"content": 5}}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"contents": "x"}}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"content": "x"}}', "EXECUTION_ERROR"),
        ('{"type": "dance"}', "UNKNOWN_TYPE"),
        ("{}", "UNKNOWN_TYPE"),
        (b"\xff\xfe", "INVALID_JSON"),
    ],
)
async def test_bad_frames_are_answered_and_the_session_goes_on(text, code):
    async with serving(Echo()) as (url, _), Line(url) as line:
        answer = await line.raw(text)
        assert (answer["type"], answer["data"]["code"]) == ("error", code)
        assert (await line.say("reset", seed=0))["type"] == "observation"


async def test_no_more_sessions_than_there_are():
    async with serving(Echo(), most=2) as (url, _), Line(url) as one, Line(url) as two:
        assert (await one.say("reset"))["type"] == (await two.say("reset"))["type"] == "observation"
        async with Line(url) as three:
            answer = json.loads(await three.socket.recv())
            assert answer["data"]["code"] == "CAPACITY_REACHED" and answer["data"]["max_sessions"] == 2


@pytest.mark.parametrize("last", [None, {"content": "hang"}])
async def test_who_leaves_is_cleaned_up_after(last):
    """Between two turns, and while the environment works."""
    Breaks.left = 0
    async with serving(Breaks()) as (url, floor):
        async with Line(url) as line:
            await line.say("reset")
            if last:
                await line.socket.send(json.dumps({"type": "step", "data": last}))
        while floor._episodes:
            await asyncio.sleep(0.01)
        assert Breaks.left == 1


async def test_a_server_that_stops_leaves_nothing_open():
    Echo.left = 0
    async with serving(Echo()) as (url, _):
        lines = [await connect(url.replace("http", "ws") + "/ws") for _ in range(3)]
        for line in lines:
            await line.send('{"type": "reset"}')
            await line.recv()
    assert Echo.left == 3
    for line in lines:
        await line.wait_closed()


class Halving:
    """Halves what is left."""

    name = "halving"

    async def complete(self, messages, tools, sampling):
        low, high = map(int, messages[0]["content"].split(" to "))
        for before, after in zip(messages[1::2], messages[2::2], strict=True):
            guess = int(before["content"])
            low, high = (guess + 1, high) if after["content"] == "higher" else (low, guess - 1)
        return Reply({"role": "assistant", "content": str((low + high) // 2)})


class Buys:
    """Asks for both prices in turn, and adds them up."""

    name = "buys"

    async def complete(self, messages, tools, sampling):
        turn = sum(message["role"] == "assistant" for message in messages)
        if turn == 2:
            return Reply({"role": "assistant", "content": "779"})
        arguments = {"item": ("tea", "soap")[turn]}
        function = {"name": "price", "arguments": json.dumps(arguments)}
        calls = [{"id": f"c{turn}", "type": "function", "function": function}]
        message = {"role": "assistant", "content": "", "tool_calls": calls}
        return Reply(message, (ToolCall(f"c{turn}", "price", arguments),), "tool_calls")


class Cut:
    """Is cut off at once."""

    name = "cut"

    async def complete(self, messages, tools, sampling):
        return Reply({"role": "assistant", "content": "train 0"}, finish_reason="length")


async def played(env, model, split, num):
    tasks = [(task, 0) for task in take(env, split, num)]
    async with Scheduler(env, {MAIN_ROLE: model}, Plan(max_retries=0, split=split)) as scheduler:
        groups = [group async for group in scheduler.groups(tasks, 1)]
    order = [task.id for task, _ in tasks]
    return sorted((group.rollouts[0] for group in groups), key=lambda r: order.index(r.task.id))


@pytest.mark.parametrize(
    ("env", "model", "split", "num"),
    [
        (Guess(), Halving(), "test", 60),
        (Shop(), Buys(), "train", 1),
        (Echo(), Cut(), "train", 5),
        (TwoDrafts(), Cut(), "train", 1),
    ],
    ids=["conversation", "tools", "cut off", "own agent"],
)
@pytest.mark.slow
async def test_rewards_are_the_same_near_and_far(env, model, split, num):
    near = await played(env, model, split, num)
    async with serving(env) as (url, _):
        far = await played(await asyncio.to_thread(OpenEnv, url), model, split, num)
    assert [r.failure for r in far] == [None] * num
    assert [r.reward for r in far] == [r.reward for r in near]
    assert [r.conversation(MAIN_ROLE) for r in far] == [r.conversation(MAIN_ROLE) for r in near]
    assert [r.tools for r in far] == [r.tools for r in near]


async def test_pages_in_a_browser_are_turned_away():
    async with serving(Echo()) as (url, _):
        with pytest.raises(InvalidStatus, match="403"):
            await connect(url.replace("http", "ws") + "/ws", origin="http://example.com")


async def test_openenvs_own_validation_passes():
    validation = pytest.importorskip("openenv.cli._validation")
    async with serving(Echo()) as (url, _):
        report = await asyncio.to_thread(validation.validate_running_environment, url)
    assert report["passed"], report["summary"]


async def test_tools_are_not_called_over_mcp():
    async with serving(Shop()) as (url, _), httpx2.AsyncClient(base_url=url) as http:
        answer = (await http.post("/mcp", json={"jsonrpc": "2.0", "method": "tools/list", "id": 1})).json()
        assert answer["error"]["code"] == -32601 and "over /ws" in answer["error"]["message"]
