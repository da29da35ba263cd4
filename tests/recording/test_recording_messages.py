"""Anthropic's protocol at a rollout's address, spoken by Anthropic's own client."""

import pytest
from speaking import TWICE, check_one_sequence, rollout

from ludus.errors import ModelCallFailed

anthropic = pytest.importorskip("anthropic")

ASK = [{"role": "user", "content": "go"}]
TOOL = {
    "name": "look_up",
    "description": "What the book says.",
    "input_schema": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
}


def client_of(model, **changes):
    settings = {"base_url": model.base_url.removesuffix("/v1"), "api_key": model.api_key, "max_retries": 0, **changes}
    return anthropic.AsyncAnthropic(**settings)


async def say(client, stream=False, **request):
    """A message, streamed or not."""
    request = {"model": "any", "max_tokens": 300, "messages": ASK, **request}
    if not stream:
        return await client.messages.create(**request)
    async with client.messages.stream(**request) as events:
        return await events.get_final_message()


both = pytest.mark.parametrize("stream", [False, True])


@both
async def test_an_agent_with_tools_is_one_sequence(stream):
    async with rollout() as model, client_of(model) as client:
        messages = list(ASK)
        first = await say(client, stream, system="Be brief.", messages=messages, tools=[TOOL])
        thought, text, called = first.content
        assert (thought.type, thought.thinking) == ("thinking", "let me see")
        assert (text.text, called.name, called.input) == ("One moment.", "look_up", {"word": "tea"})
        assert (first.stop_reason, first.model, first.role) == ("tool_use", "fake", "assistant")
        result = {"type": "tool_result", "tool_use_id": called.id, "content": [{"type": "text", "text": "a drink"}]}
        messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        second = await say(client, stream, system="Be brief.", messages=messages, tools=[TOOL])
        assert [block.type for block in second.content] == ["thinking", "text"]
        assert (second.content[1].text, second.stop_reason) == ("seen 4", "end_turn")
        messages += [{"role": "assistant", "content": [second.content[1]]}, {"role": "user", "content": "on"}]
        third = await say(client, stream, system="Be brief.", messages=messages, tools=[TOOL])
        check_one_sequence(model, 3)
        calls = model.recorder.calls
        assert [m["role"] for m in calls[0].messages] == ["system", "user"]
        assert calls[1].messages == [{"role": "tool", "tool_call_id": called.id, "content": "a drink"}]
        assert third.usage.input_tokens + third.usage.output_tokens == len(model.recorder.sequences[0].tokens)


@both
async def test_several_calls_in_one_reply_and_their_results_in_one_message(stream):
    script = lambda prompt, rng: "<think>all</think>done" if "<|tool|>" in prompt else f"<think>x</think>{TWICE}"  # noqa: E731
    async with rollout(script) as model, client_of(model) as client:
        first = await say(client, stream, tools=[TOOL])
        called = [block for block in first.content if block.type == "tool_use"]
        assert [block.input for block in called] == [{"word": "a"}] * 2
        blocks = [{"type": "tool_result", "tool_use_id": block.id, "content": "no"} for block in called]
        blocks[1]["is_error"] = True
        blocks.append({"type": "text", "text": "go on"})
        messages = [*ASK, {"role": "assistant", "content": first.content}, {"role": "user", "content": blocks}]
        await say(client, stream, messages=messages, tools=[TOOL])
        check_one_sequence(model, 2)
        said = [(m["role"], m["content"]) for m in model.recorder.calls[1].messages]
        assert said == [("tool", "no"), ("tool", "Error: no"), ("user", "go on")]


async def test_events_come_in_anthropics_order_while_the_reply_is_sampled():
    async with rollout() as model, client_of(model) as client:
        request = {"model": "m", "max_tokens": 300, "messages": ASK, "tools": [TOOL]}
        events = [event async for event in await client.messages.create(**request, stream=True)]
        kinds = [event.type for event in events]
        assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
        blocks = [event for event in events if event.type.startswith("content_block")]
        starts = [(e.index, e.content_block.type) for e in blocks if e.type == "content_block_start"]
        assert starts == [(0, "thinking"), (1, "text"), (2, "tool_use")]
        assert [e.index for e in blocks if e.type == "content_block_stop"] == [0, 1, 2]
        pieces = [e.delta.text for e in blocks if e.type == "content_block_delta" and e.delta.type == "text_delta"]
        assert len(pieces) > 3 and "".join(pieces) == "One moment."


@both
@pytest.mark.parametrize(
    ("script", "request_", "expected"),
    [
        ("abcdef", {"max_tokens": 3}, ("max_tokens", None, "abc")),
        ("ab END cd", {"stop_sequences": ["END"]}, ("stop_sequence", "END", "ab ")),
        ("ab", {}, ("end_turn", None, "ab")),
    ],
)
async def test_why_it_stopped(stream, script, request_, expected):
    async with rollout(lambda prompt, rng: script) as model, client_of(model) as client:
        message = await say(client, stream, **request_)
        assert (message.stop_reason, message.stop_sequence, message.content[0].text) == expected


@both
async def test_an_empty_reply(stream):
    async with rollout(lambda prompt, rng: "") as model, client_of(model) as client:
        message = await say(client, stream)
        assert (message.content, message.stop_reason) == ([], "end_turn")
        messages = [*ASK, {"role": "assistant", "content": []}, {"role": "user", "content": "on"}]
        await say(client, stream, messages=messages)
        assert len(model.recorder.sequences) == 1


async def test_tokens_are_counted():
    async with rollout() as model, client_of(model) as client:
        counted = await client.messages.count_tokens(model="m", messages=ASK, system="s", tools=[TOOL])
        message = await say(client, system="s", tools=[TOOL])
        assert counted.input_tokens == message.usage.input_tokens
        assert len(model.recorder.calls) == 1


async def test_what_does_not_change_a_reply_is_ignored():
    system = [
        {"type": "text", "text": "x-anthropic-billing-header: cch=1;"},
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
    ]
    extra = {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}}
    async with rollout() as model, client_of(model) as client:
        await say(
            client, system=system, metadata={"user_id": "u"}, thinking={"type": "enabled", "budget_tokens": 1024},
            extra_body={**extra, "temperature": 0.5}, tool_choice={"type": "auto"},
        )  # fmt: skip
        (call,) = model.recorder.calls
        assert call.messages[0] == {"role": "system", "content": "Be brief."}
        assert (call.sampling.temperature, call.sampling.max_tokens) == (0.5, 300)


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "'image'"),
        ({"messages": []}, "at least one message"),
        ({"messages": [*ASK, {"role": "assistant", "content": "I"}]}, "prefilled"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role"),
        ({"messages": ["hi"]}, "an object"),
        ({"messages": [{"role": "user", "content": ["hi"]}]}, "a block"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "input_schema"),
        ({"tool_choice": {"type": "any"}, "tools": [TOOL]}, "tool_choice"),
        ({"extra_body": {"temprature": 1}}, "temperature"),
        ({"extra_body": {"mcp_servers": [{"type": "url"}]}}, "mcp_servers"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"extra_body": {"stop_sequences": [3]}}, "sampling parameters"),
        ({"extra_body": {"output_config": {"format": {"type": "json_schema"}}}}, "output_config"),
        ({"extra_body": {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}}, "not edited"),
    ],
)
async def test_what_can_not_be_honoured_is_refused_in_one_line(request_, words):
    async with rollout() as model, client_of(model) as client:
        with pytest.raises(anthropic.BadRequestError) as refused:
            await say(client, **request_)
        error = refused.value.body["error"]
        assert error["type"] == "invalid_request_error" and words in error["message"] and "\n" not in error["message"]
        assert model.recorder.calls == []
        assert model.recorder.failed.blame == "environment"


@pytest.mark.parametrize(
    ("blame", "status", "kind"), [("policy", 400, "invalid_request_error"), ("infrastructure", 503, "api_error")]
)
@both
async def test_failures_of_the_model(stream, blame, status, kind):
    class Broken:
        name = "broken"

        async def complete(self, messages, tools, sampling):
            raise ModelCallFailed("out of order", blame)

    async with rollout(backend=Broken()) as model, client_of(model) as client:
        with pytest.raises(anthropic.APIStatusError, match="out of order") as failed:
            await say(client, stream)
        assert (failed.value.status_code, failed.value.body["error"]["type"]) == (status, kind)


async def test_either_header_opens_the_address_and_no_other_key_does():
    import httpx2

    async with rollout() as model, httpx2.AsyncClient() as http:
        url, body = f"{model.base_url}/messages", {"model": "m", "max_tokens": 9, "messages": ASK}
        for headers in ({"x-api-key": model.api_key}, {"authorization": f"Bearer {model.api_key}"}):
            assert (await http.post(url, json=body, headers=headers)).status_code == 200
        for headers in ({}, {"x-api-key": "wrong"}):
            answer = await http.post(url, json=body, headers=headers)
            assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
