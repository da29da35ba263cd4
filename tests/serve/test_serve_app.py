import json
import math

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.errors import ModelCallFailed
from ludus.recording.backend import TokenBackend
from ludus.serve.app import make_app
from ludus.types import Reply

TOOLS = [
    {
        "type": "function",
        "function": {"name": "price", "parameters": {"type": "object", "properties": {"item": {"type": "string"}}}},
    }
]
CALL = '<tool_call>{"name": "price", "arguments": {"item": "tea"}}</tool_call>'
HI = [{"role": "user", "content": "hi"}]


def http(backend):
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(make_app(backend)), base_url="http://server")


@pytest.fixture
def engine():
    return FakeEngine(lambda prompt, rng: "héllo 🙂 world", context=256)


@pytest.fixture
async def client(engine):
    async with http(TokenBackend("fake", engine, fake_renderer())) as found:
        yield found


@pytest.fixture
def api(client):
    return AsyncOpenAI(base_url="http://server/v1", api_key="none", http_client=client, max_retries=0)


class Echo:
    """A model that knows no tokens."""

    name = "echo"

    async def complete(self, messages, tools, sampling):
        if messages[-1]["content"] == "fail":
            raise ModelCallFailed("the line is dead")
        return Reply({"role": "assistant", "content": messages[-1]["content"]})


async def test_chat_is_answered_by_the_model_and_its_caches_freed(api, engine):
    answer = await api.chat.completions.create(model="whatever", messages=HI)
    assert answer.choices[0].message.content == "héllo 🙂 world"
    assert (answer.model, answer.choices[0].finish_reason) == ("fake", "stop")
    assert answer.usage.completion_tokens > 0
    assert len(engine.releases) == 1


async def test_a_chat_streams_while_it_is_sampled(api, engine):
    stream = await api.chat.completions.create(
        model="m", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == "héllo 🙂 world"
    assert len([piece for piece in pieces if piece]) > 5 and not any("\ufffd" in piece for piece in pieces)
    assert chunks[-1].usage.completion_tokens > 0
    assert len(engine.releases) == 1


async def test_tools_are_offered_and_called():
    seen = []

    def script(prompt, rng):
        seen.append(prompt)
        return CALL

    async with http(TokenBackend("fake", FakeEngine(script), fake_renderer())) as client:
        api = AsyncOpenAI(base_url="http://server/v1", api_key="none", http_client=client)
        whole = await api.chat.completions.create(model="m", messages=HI, tools=TOOLS)
        stream = await api.chat.completions.create(model="m", messages=HI, tools=TOOLS, stream=True)
        deltas = [chunk.choices[0].delta async for chunk in stream]
    (call,) = whole.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("price", {"item": "tea"})
    assert whole.choices[0].finish_reason == "tool_calls"
    assert [d.tool_calls[0].function.name for d in deltas if d.tool_calls] == ["price"]


async def test_requests_without_a_seed_differ_and_with_one_agree():
    async with http(TokenBackend("fake", FakeEngine(), fake_renderer())) as client:
        bodies = [{"messages": HI, "max_tokens": 20, **seed} for seed in ({}, {}, {"seed": 1}, {"seed": 1})]
        answers = [(await client.post("/v1/chat/completions", json=body)).json() for body in bodies]
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert texts[0] != texts[1] and texts[2] == texts[3]


# --- completions --------------------------------------------------------------------------------------------------


async def test_a_completion_continues_the_text_as_it_is(api, engine):
    answer = await api.completions.create(model="m", prompt="once", max_tokens=100)
    assert answer.choices[0].text == "héllo 🙂 world"
    assert (answer.choices[0].finish_reason, answer.usage.prompt_tokens) == ("stop", 4)
    assert len(engine.releases) == 1


async def test_a_completion_has_sixteen_tokens_unless_it_says_otherwise(api):
    answer = await api.completions.create(model="m", prompt="once")
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (16, "length")


async def test_a_prompt_may_be_token_ids(api):
    answer = await api.completions.create(model="m", prompt=[65, 66], max_tokens=3)
    assert (answer.choices[0].text, answer.usage.prompt_tokens) == ("hé", 2)


async def test_a_completion_streams_a_chunk_a_token(api):
    stream = await api.completions.create(
        model="m", prompt="once", max_tokens=100, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    pieces = [chunk.choices[0].text for chunk in chunks if chunk.choices]
    assert "".join(pieces) == "héllo 🙂 world"
    assert len(pieces) > 10 and not any("\ufffd" in piece for piece in pieces)
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-2:] == [None, "stop"]
    assert chunks[-1].usage.prompt_tokens == 4


@pytest.mark.parametrize("stream", [False, True])
async def test_the_text_ends_before_a_stop_string(client, stream):
    body = {"prompt": "once", "max_tokens": 100, "stop": [" wo", "xyz"], "stream": stream}
    answer = await client.post("/v1/completions", json=body)
    text = "".join(choices(answer, "text")) if stream else answer.json()["choices"][0]["text"]
    assert text == "héllo 🙂"


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_come_with_every_token(client, stream):
    body = {"prompt": "once", "max_tokens": 5, "logprobs": 1, "stream": stream}
    answer = await client.post("/v1/completions", json=body)
    parts = choices(answer, "logprobs") if stream else [answer.json()["choices"][0]["logprobs"]]
    found = [value for part in parts if part for value in part["token_logprobs"]]
    assert found == pytest.approx([-math.log(261)] * 5)


def choices(answer, field):
    """A field of the choices of every event."""
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    return [choice[field] for event in events for choice in json.loads(event)["choices"]]


async def test_a_model_without_tokens_completes_nothing():
    async with http(Echo()) as client:
        answer = await client.post("/v1/completions", json={"prompt": "a"})
        assert answer.status_code == 400 and "/v1/chat/completions" in answer.json()["error"]["message"]
        assert (await client.post("/v1/chat/completions", json={"messages": HI})).status_code == 200


# --- the rest -----------------------------------------------------------------------------------------------------


async def test_health_is_a_token(client, engine):
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()["status"], answer.json()["model"]) == (200, "ok", "fake")
    assert len(engine.releases) == 1


async def test_a_model_that_does_not_answer_is_not_healthy():
    engine = FakeEngine(context=4)
    async with http(TokenBackend("fake", engine, fake_renderer())) as client:
        assert (await client.get("/health")).status_code == 503


async def test_models_lists_the_one_there_is(api):
    assert [model.id for model in (await api.models.list()).data] == ["fake"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("chat/completions", b"{", "not JSON"),
        ("chat/completions", b"\xff", "not JSON"),
        ("chat/completions", b"[" * 100_000, "not JSON"),
        ("chat/completions", b"[1]", "expected a JSON object"),
        ("completions", b"3", "expected a JSON object"),
        ("chat/completions", b"{}", "messages"),
        ("chat/completions", b'{"messages": [{"role": "usr", "content": "x"}]}', "role"),
        ("chat/completions", b'{"messages": [{"role": "user", "content": "x"}], "temprature": 1}', "temperature"),
        ("chat/completions", b'{"messages": [{"role": "user", "content": "x"}], "n": 2}', "n = 2"),
        ("completions", b'{"prompt": ["a", "b"]}', "prompt"),
        ("completions", b'{"prompt": "a", "temperature": -1}', "temperature"),
    ],
)
async def test_a_bad_request_is_told_what_is_wrong_with_it(client, path, body, words):
    answer = await client.post(f"/v1/{path}", content=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_is_too_long_is_the_callers_fault(client, path, stream):
    text = "x" * 300
    body = {"prompt": text, "messages": [{"role": "user", "content": text}]}
    body.pop("messages" if path == "completions" else "prompt")
    answer = await client.post(f"/v1/{path}", json={**body, "stream": stream})
    assert "no room" in answer.text
    assert answer.status_code == 400


async def test_a_model_that_fails_is_the_servers_fault():
    async with http(Echo()) as client:
        answer = await client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "fail"}]})
    assert answer.status_code == 503 and "the line is dead" in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("POST", "/v1/embeddings", 404), ("GET", "/v1/completions", 405)]
)
async def test_unknown_paths_are_json_that_says_what_there_is(client, method, path, status):
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert "POST /v1/chat/completions" in answer.json()["error"]["message"]


async def test_errors_are_what_clients_expect(api):
    with pytest.raises(openai.BadRequestError, match="n = 3"):
        await api.chat.completions.create(model="m", messages=HI, n=3)
