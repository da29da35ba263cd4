"""Every rollout's own OpenAI-compatible address: in process or over a socket, streaming or not, for its holder only."""

import asyncio
import json
from contextlib import asynccontextmanager

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from ludus.authoring.calling import call
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.errors import ModelCallFailed
from ludus.recording.backend import TokenBackend
from ludus.recording.gateway import Gateway
from ludus.recording.model import RecordedModel
from ludus.recording.recorder import Recorder
from ludus.types import MAIN_ROLE

ASK = [{"role": "user", "content": "go"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CALL = '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'


def echo(prompt: str, rng) -> str:
    """Says how many messages it saw."""
    return f"<think>hm</think>seen {prompt.count('<|end|>')}"


@asynccontextmanager
async def rollout(script=echo, gateway=None, backend=None, role=MAIN_ROLE):
    """One rollout's model, and its end."""
    backend = backend or TokenBackend("fake", FakeEngine(script), fake_renderer())
    own = gateway or Gateway()
    recorder = Recorder({MAIN_ROLE: backend, role: backend})
    model = RecordedModel(recorder, role, own)
    try:
        yield model
    finally:
        model.close()
        recorder.close()
        if gateway is None:
            await own.close()


def client_of(model: RecordedModel, **changes) -> AsyncOpenAI:
    return AsyncOpenAI(**{"base_url": model.base_url, "api_key": model.api_key, "max_retries": 0, **changes})


@asynccontextmanager
async def connected(model: RecordedModel, way: str):
    """A client in process, or over a socket."""
    if way == "in process":
        yield model.openai
    else:
        async with client_of(model) as client:
            yield client


both_ways = pytest.mark.parametrize("way", ["in process", "socket"])


@both_ways
async def test_a_conversation_through_a_client_is_one_sequence(way):
    async with rollout() as model, connected(model, way) as client:
        messages = list(ASK)
        for turn in range(3):
            answer = await client.chat.completions.create(model="any", messages=messages)
            choice = answer.choices[0]
            assert (choice.message.content, choice.finish_reason) == (f"seen {2 * turn + 1}", "stop")
            assert choice.message.reasoning_content == "hm"
            messages += [{"role": "assistant", "content": choice.message.content}, {"role": "user", "content": "on"}]
        assert answer.model == "fake"
        (sequence,) = model.recorder.sequences
        assert answer.usage.completion_tokens == len("<think>hm</think>seen 5") + 1
        assert answer.usage.total_tokens == len(sequence.tokens)
        assert [call.parent for call in model.recorder.calls] == [None, 0, 1]


@both_ways
async def test_streams_say_the_same(way):
    async with rollout() as model, connected(model, way) as client:
        stream = await client.chat.completions.create(
            model="any", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == "seen 1"
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[-1].usage.completion_tokens == model.recorder.calls[0].usage.completion_tokens
        assert model.recorder.calls[0].reply["content"] == text
        assert model.recorder.calls[0].reply["reasoning_content"] == "hm"


@both_ways
@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls(way, stream):
    async with rollout(lambda prompt, rng: "ok " + CALL) as model, connected(model, way) as client:
        answer = await client.chat.completions.create(model="any", messages=ASK, tools=[TOOL], stream=stream)
        if stream:
            deltas = [chunk.choices[0] async for chunk in answer if chunk.choices]
            called = [call for choice in deltas for call in choice.delta.tool_calls or ()]
            finish = deltas[-1].finish_reason
        else:
            called, finish = answer.choices[0].message.tool_calls, answer.choices[0].finish_reason
        assert [(c.function.name, c.function.arguments) for c in called] == [("f", '{"x": 1}')]
        assert finish == "tool_calls"


@both_ways
async def test_logprobs_are_those_recorded(way):
    async with rollout(lambda prompt, rng: "ab") as model, connected(model, way) as client:
        answer = await client.chat.completions.create(model="any", messages=ASK, logprobs=True, temperature=0.5)
        (sequence,) = model.recorder.sequences
        sampled = [p for p, mask in zip(sequence.logprobs, sequence.sampled_mask, strict=True) if mask]
        content = answer.choices[0].logprobs.content
        assert [token.token for token in content] == ["a", "b", "<|end|>"]
        assert [token.logprob for token in content] == pytest.approx(sampled)
        assert model.recorder.calls[0].sampling.temperature == 0.5


async def test_a_synchronous_client_in_a_thread():
    async with rollout() as model:
        address = {"base_url": model.base_url, "api_key": model.api_key, "max_retries": 0}

        def agent() -> str:
            with OpenAI(**address) as client:
                return client.chat.completions.create(model="any", messages=ASK).choices[0].message.content

        assert await call(agent) == "seen 1"


async def test_models_are_listed():
    async with rollout() as model, client_of(model) as client:
        assert [each.id async for each in client.models.list()] == ["fake"]


async def test_parallel_requests_fork():
    async with rollout() as model, client_of(model) as client:
        await asyncio.gather(*(client.chat.completions.create(model="any", messages=ASK) for _ in range(3)))
        assert len(model.recorder.sequences) == 3
        assert [s.num_sampled for s in model.recorder.sequences] == [len("<think>hm</think>seen 1") + 1] * 3


# --- whose address it is ------------------------------------------------------------------------------------------


async def test_a_wrong_key_is_refused():
    async with rollout() as model:
        for changes in ({"api_key": "wrong"}, {"base_url": model.base_url.replace(model.api_key, "wrong")}):
            async with client_of(model, **changes) as client:
                with pytest.raises(openai.AuthenticationError, match="belong to no running rollout"):
                    await client.chat.completions.create(model="any", messages=ASK)
                with pytest.raises(openai.AuthenticationError):
                    await client.models.list()
        assert model.recorder.calls == []


async def test_one_rollouts_key_does_not_open_anothers_address():
    gateway = Gateway()
    async with rollout(gateway=gateway) as mine, rollout(gateway=gateway) as theirs:
        async with client_of(mine, api_key=theirs.api_key) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="any", messages=ASK)
        async with client_of(theirs) as client:
            await client.chat.completions.create(model="any", messages=ASK)
        assert (len(mine.recorder.calls), len(theirs.recorder.calls)) == (0, 1)
    await gateway.close()


async def test_roles_have_addresses_of_their_own():
    async with rollout(role="judge") as model, client_of(model) as client:
        await client.chat.completions.create(model="any", messages=ASK)
        assert [call.role for call in model.recorder.calls] == ["judge"]


async def test_after_the_rollout_the_address_is_dead():
    gateway = Gateway()
    async with rollout(gateway=gateway) as model:
        inside, address = model.openai, {"base_url": model.base_url, "api_key": model.api_key, "max_retries": 0}
        await inside.chat.completions.create(model="any", messages=ASK)
    with pytest.raises(openai.AuthenticationError):
        await inside.chat.completions.create(model="any", messages=ASK)
    async with AsyncOpenAI(**address) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="any", messages=ASK)
        await gateway.close()
        with pytest.raises(openai.APIConnectionError):
            await client.chat.completions.create(model="any", messages=ASK)
    assert len(model.recorder.calls) == 1


# --- what goes wrong ----------------------------------------------------------------------------------------------


@both_ways
async def test_requests_that_cannot_be_honoured_are_the_clients_fault(way):
    async with rollout() as model, connected(model, way) as client:
        for request in ({"n": 2}, {"temperature": -1}, {"response_format": {"type": "json_object"}}, {"messages": []}):
            with pytest.raises(openai.BadRequestError):
                await client.chat.completions.create(**{"model": "any", "messages": ASK, **request})
        assert model.recorder.calls == []


@pytest.mark.parametrize(
    ("blame", "expected"), [("policy", openai.BadRequestError), ("infrastructure", openai.InternalServerError)]
)
@both_ways
async def test_failures_of_the_model_have_their_status(way, blame, expected):
    class Broken:
        name = "broken"

        async def complete(self, messages, tools, sampling):
            raise ModelCallFailed("out of order", blame)

    async with rollout(backend=Broken()) as model, connected(model, way) as client:
        with pytest.raises(expected, match="out of order"):
            await client.chat.completions.create(model="any", messages=ASK)
        with pytest.raises(openai.APIError, match="out of order"):
            async for _ in await client.chat.completions.create(model="any", messages=ASK, stream=True):
                pass
        assert model.recorder.failed.blame == blame


async def test_a_stream_that_is_closed_cancels_the_call():
    cancelled = asyncio.Event()

    class Endless(FakeEngine):
        async def sample(self, request):
            try:
                async for chunk in super().sample(request):
                    yield chunk if chunk.finish_reason is None else await asyncio.Event().wait()
            finally:
                cancelled.set()

    backend = TokenBackend("endless", Endless(lambda prompt, rng: "ab"), fake_renderer())
    async with rollout(backend=backend) as model, client_of(model) as client:
        stream = await client.chat.completions.create(model="any", messages=ASK, stream=True)
        async for _ in stream:
            break
        await stream.close()
        await asyncio.wait_for(cancelled.wait(), 5)
        assert model.recorder.calls == []


async def test_closing_a_gateway_that_never_served():
    await Gateway().close()


# --- what strangers and programs send -----------------------------------------------------------------------------


@asynccontextmanager
async def plain(model: RecordedModel):
    """HTTP without a client library."""
    import httpx2

    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {model.api_key}"}, timeout=30) as http:
        yield http


@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages", "messages/count_tokens"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "JSON object"),
        (b"", "JSON"),
    ],
)
async def test_bodies_that_are_no_requests(path, content, words):
    async with rollout() as model, plain(model) as http:
        answer = await http.post(f"{model.base_url}/{path}", content=content)
        assert answer.status_code == 400 and words in answer.json()["error"]["message"]


async def test_a_body_that_would_fill_the_memory(monkeypatch):
    from ludus.recording import endpoint

    monkeypatch.setattr(endpoint, "MAX_BODY_BYTES", 1000)
    async with rollout() as model, plain(model) as http:
        answer = await http.post(f"{model.base_url}/chat/completions", content=b'{"messages": "' + b"x" * 2000)
        assert answer.status_code == 413 and "1,000 bytes" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "embeddings", 404),
        ("GET", "chat/completions", 405),
        ("DELETE", "models", 405),
        ("GET", "messages/x", 404),
    ],
)
async def test_other_paths_say_what_there_is(method, path, status):
    async with rollout() as model, plain(model) as http:
        answer = await http.request(method, f"{model.base_url}/{path}")
        assert answer.status_code == status and "POST /v1/responses" in answer.json()["error"]["message"]
        assert (await http.get(model.base_url.removesuffix("/v1"))).status_code in (401, 404)
        assert (await http.get(model.base_url.replace(f"/{model.api_key}", ""))).status_code == 401


async def test_half_of_a_surrogate_pair_is_text_like_any_other():
    async with rollout() as model, plain(model) as http:
        body = b'{"messages": [{"role": "user", "content": "a\\ud83d"}]}'
        answer = await http.post(f"{model.base_url}/chat/completions", content=body)
        assert answer.status_code in (200, 400)  # a tokenizer may have no tokens for it
        assert (answer.status_code == 200) == bool(model.recorder.calls)


async def test_a_client_that_hangs_up_cancels_its_call():
    cancelled, began = asyncio.Event(), asyncio.Event()

    class Waits:
        name = "waits"

        async def complete(self, messages, tools, sampling):
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    async with rollout(backend=Waits()) as model, plain(model) as http:
        body = {"messages": ASK}
        asked = asyncio.create_task(http.post(f"{model.base_url}/chat/completions", json=body))
        await began.wait()
        assert model.recorder.waiting
        asked.cancel()
        await asyncio.wait_for(cancelled.wait(), 10)
        while model.recorder.waiting:
            await asyncio.sleep(0)
        assert model.recorder.calls == []


async def test_text_ends_before_a_stop_string_and_is_recognised():
    async with rollout(lambda prompt, rng: "thought. Observation: made up") as model, client_of(model) as client:
        messages = list(ASK)
        for stream in (False, True):
            answer = await client.chat.completions.create(
                model="any", messages=messages, stop=["Observation:"], stream=stream
            )
            if stream:
                text = "".join([c.choices[0].delta.content or "" async for c in answer if c.choices])
            else:
                text = answer.choices[0].message.content
            assert text == "thought. "
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "on"}]
        (sequence,) = model.recorder.sequences
        decoded = fake_renderer().tokenizer.decode(sequence.tokens)
        assert decoded.count("thought. Observation:<|end|>") == 1  # what was sampled stays, stop string and all


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_breaks_in_its_own_way_is_answered_for(stream, caplog):
    class Bug:
        name = "bug"

        async def complete(self, messages, tools, sampling):
            raise KeyError("nobody expected this")

    async with rollout(backend=Bug()) as model, client_of(model) as client:
        with pytest.raises(openai.InternalServerError, match="nobody expected this"):
            await client.chat.completions.create(model="any", messages=ASK, stream=stream)
        assert (model.recorder.failed.blame, "nobody expected this" in caplog.text) == ("infrastructure", True)


@pytest.mark.slow
async def test_many_rollouts_at_once_do_not_mix():
    import httpx2

    gateway, renderer, limits = Gateway(), fake_renderer(), httpx2.Limits(max_connections=None)

    async def one(number: int, http) -> None:
        backend = TokenBackend("fake", FakeEngine(lambda prompt, rng: f"I am {number}"), renderer)
        async with rollout(gateway=gateway, backend=backend) as model:
            headers, body = {"authorization": f"Bearer {model.api_key}"}, {"messages": ASK, "stream": True}
            answer = await http.post(f"{model.base_url}/chat/completions", json=body, headers=headers)
            lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
            deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
            assert "".join(delta.get("content") or "" for delta in deltas) == f"I am {number}"
            assert len(model.recorder.calls) == 1

    async with httpx2.AsyncClient(limits=limits, timeout=60) as http:
        await asyncio.gather(*(one(number, http) for number in range(200)))
    await gateway.close()
    assert not gateway._admitted
