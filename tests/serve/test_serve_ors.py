"""Our environments over the Open Reward Standard: with its own client, with ours, and with bad manners."""

import asyncio
import json

import httpx2
import pytest
from served_worlds import Breaks, Echo, Shop, served

from ludus.environments.ors import ORS
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.serve.ors import make_app
from ludus.serve.ors_messages import PIECE, pieces
from ludus.types import MAIN_ROLE, Reply, ToolCall


def serving(env, **options):
    return served(env, make_app, **options)


@pytest.fixture
async def shop():
    async with serving(Shop()) as (url, floor), httpx2.AsyncClient(base_url=url) as http:
        yield http, floor


async def begin(http, sid="s", **body):
    body = body or {"split": "train", "index": 0}
    return await http.post("/create", headers={"X-Session-ID": sid}, json=body)


async def call(http, name, sid="s", env="shop", **arguments):
    events = []
    body = {"name": name, "input": arguments}
    async with http.sse(f"/{env}/call", method="POST", headers={"X-Session-ID": sid}, json=body) as source:
        async for event in source:
            events.append((event.event, event.data))
    kind, _ = events[-1]
    if kind == "error":
        return events[-1]
    return json.loads("".join(data for kind, data in events if kind in ("chunk", "end")))


async def test_the_standards_own_client_plays_an_episode():
    client = pytest.importorskip("ors.client")
    async with serving(Shop()) as (url, floor):
        ors = client.AsyncORS(base_url=url)
        env = ors.environment("shop")
        assert await env.list_splits() == ["train", "test"]
        assert await env.num_tasks("train") == 1
        (task,) = await env.list_tasks("train")
        assert [tool.name for tool in await env.list_tools()] == ["price", "reply"]
        async with env.session(task=task) as session:
            assert [block.text for block in await session.get_prompt()] == ["What do tea and soap cost together?"]
            assert [tool.name for tool in await session.list_tools()] == ["price", "reply"]
            price = await session.call_tool("price", {"item": "tea"})
            assert (price.blocks[0].text, price.reward, price.finished) == ("561", None, False)
            last = await session.call_tool("reply", {"content": "779"})
            assert (last.reward, last.finished, last.metadata["metrics"]) == (1.0, True, {"correct": 1.0})
        assert not floor._episodes
        async with env.session(split="test", index=0) as session:
            with pytest.raises(Exception, match="not a valid tool"):
                await session.call_tool("prize", {})
        await env.client.close()


async def test_what_the_model_calls_wrongly_it_is_told(shop):
    http, _ = shop
    assert (await begin(http)).status_code == 200
    assert "not a valid tool" in (await call(http, "prize"))["error"]
    assert '{"content": text}' in (await call(http, "reply", words="hi"))["error"]
    wrong = await call(http, "price", thing="tea")
    assert wrong["output"]["blocks"][0]["text"].startswith("Error: bad arguments for price")
    assert (await call(http, "reply", content="1"))["output"]["reward"] == 0.0
    assert (await call(http, "reply", content="1")) == {"ok": False, "error": "the episode is over"}


async def test_a_failure_is_an_error_and_never_a_reward():
    async with serving(Breaks()) as (url, _), httpx2.AsyncClient(base_url=url) as http:
        await begin(http)
        kind, text = await call(http, "reply", env="breaks", content="exit")
        assert kind == "error" and "sys.exit(3)" in text
        await begin(http, sid="t")
        assert (await call(http, "reply", sid="t", env="breaks", content="mine"))["output"]["reward"] == -1.0


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/create", {}, 422),
        ("/create", {"split": "train"}, 422),
        ("/create", {"split": "trian", "index": 0}, 400),
        ("/create", {"split": "train", "index": 7}, 400),
        ("/create", {"split": "train", "index": 0, "env_name": "ship"}, 404),
        ("/create", {"split": "train", "index": 0, "secrets": {"a": "b"}}, 400),
        ("/create", {"task_spec": {"id": "nobody", "split": "train"}}, 400),
        ("/shop/tasks", {"split": "trian"}, 400),
        ("/shop/tasks", ["train"], 422),
        ("/ping", {}, 404),
        ("/shop/call", {"name": "price", "input": {}}, 404),
        ("/ship/tasks", {"split": "train"}, 404),
    ],
)
async def test_bad_requests_are_refused_with_a_reason(shop, path, body, status):
    http, floor = shop
    answer = await http.post(path, headers={"X-Session-ID": "s"}, json=body)
    assert answer.status_code == status and answer.json()["detail"]
    assert not floor._episodes


async def test_a_session_needs_a_name_of_its_own(shop):
    http, _ = shop
    assert (await http.post("/create", json={"split": "train", "index": 0})).status_code == 400
    assert [(await begin(http)).status_code for _ in range(2)] == [200, 400]


async def test_a_call_is_taken_up_again_by_its_name(shop):
    http, _ = shop
    await begin(http)
    headers, body = {"X-Session-ID": "s"}, {"name": "price", "input": {"item": "tea"}}
    async with http.sse("/shop/call", method="POST", headers=headers, json=body) as source:
        async for event in source:
            name = event.data
            break
    async with http.sse("/shop/call", method="POST", headers=headers, json={**body, "task_id": name}) as source:
        events = [event async for event in source]
    assert json.loads(events[-1].data)["output"]["blocks"][0]["text"] == "561"
    assert (await call(http, "reply", content="779"))["output"]["reward"] == 1.0


async def test_sessions_are_limited_and_deleted():
    Echo.left = 0
    async with serving(Echo(), most=1) as (url, floor), httpx2.AsyncClient(base_url=url) as http:
        assert [(await begin(http, sid)).status_code for sid in "ab"] == [200, 503]
        await http.get("/echo/prompt", headers={"X-Session-ID": "a"})
        await http.post("/delete", headers={"X-Session-ID": "a"})
        assert not floor._episodes and Echo.left == 1
        assert (await begin(http, "b")).status_code == 200
        await http.get("/echo/prompt", headers={"X-Session-ID": "b"})
    assert Echo.left == 2


async def test_sessions_without_a_sign_of_life_end():
    def make(floor):
        return make_app(floor, stale_s=0.05)

    Echo.left = 0
    async with served(Echo(), make) as (url, floor), httpx2.AsyncClient(base_url=url) as http:
        await begin(http)
        while not Echo.left:
            await asyncio.sleep(0.01)
        assert not floor._episodes
        assert (await http.post("/ping", headers={"X-Session-ID": "s"})).status_code == 404


@pytest.mark.parametrize("text", ["", "a", "a" * PIECE + "  b" * PIECE, " " * (3 * PIECE) + "x"])
def test_pieces_add_up_and_none_but_the_first_begins_with_a_space(text):
    found = list(pieces(text))
    assert "".join(found) == text
    assert not any(piece.startswith(" ") for piece in found[1:])


class Buys:
    """Asks for both prices in turn, and says what they add up to."""

    name = "buys"

    async def complete(self, messages, tools, sampling):
        turn = sum(message["role"] == "assistant" for message in messages)
        name, arguments = [("price", {"item": "tea"}), ("price", {"item": "soap"}), ("reply", {"content": "779"})][turn]
        function = {"name": name, "arguments": json.dumps(arguments)}
        calls = [{"id": f"c{turn}", "type": "function", "function": function}]
        message = {"role": "assistant", "content": "", "tool_calls": calls}
        return Reply(message, (ToolCall(f"c{turn}", name, arguments),), "tool_calls")


async def test_our_own_client_gets_the_same_reward():
    async with serving(Shop()) as (url, floor):
        env = await asyncio.to_thread(ORS, url)
        task = (await asyncio.to_thread(list, env.tasks("train")))[0]
        async with Scheduler(env, {MAIN_ROLE: Buys()}, Plan(max_retries=0, split="train")) as scheduler:
            ((rollout,),) = [group.rollouts async for group in scheduler.groups([(task, 0)], 1)]
        assert (rollout.failure, rollout.reward, rollout.metrics["ended"]) == (None, 1.0, 1.0)
        assert not floor._episodes


@pytest.mark.slow
async def test_our_own_client_waits_for_a_free_place():
    async with serving(Shop(), most=2) as (url, floor):
        env = await asyncio.to_thread(ORS, url)
        task = (await asyncio.to_thread(list, env.tasks("train")))[0]
        async with Scheduler(env, {MAIN_ROLE: Buys()}, Plan(max_retries=0, split="train")) as scheduler:
            (rollouts,) = [group.rollouts async for group in scheduler.groups([(task, 0)], 8)]
        assert [rollout.reward for rollout in rollouts] == [1.0] * 8
        assert not floor._episodes
