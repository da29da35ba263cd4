"""OpenAI's responses at a rollout's address, spoken by OpenAI's own client."""

import json

import openai
import pytest
from openai import AsyncOpenAI
from speaking import TWICE, check_one_sequence, rollout

from ludus.errors import ModelCallFailed

TOOL = {
    "type": "function",
    "name": "look_up",
    "description": "What the book says.",
    "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    "strict": False,
}


def client_of(model, **changes):
    return AsyncOpenAI(**{"base_url": model.base_url, "api_key": model.api_key, "max_retries": 0, **changes})


async def say(client, stream=False, **request):
    """A response, streamed or not."""
    request = {"model": "any", "input": "go", **request}
    if not stream:
        return await client.responses.create(**request)
    async with client.responses.stream(**request) as events:
        return await events.get_final_response()


both = pytest.mark.parametrize("stream", [False, True])


@both
async def test_an_agent_with_tools_is_one_sequence(stream):
    async with rollout() as model, client_of(model) as client:
        items = [{"role": "user", "content": "go"}]
        first = await say(client, stream, instructions="Be brief.", input=items, tools=[TOOL])
        thought, message, called = first.output
        assert thought.content[0].text == "let me see"
        assert (message.content[0].text, first.output_text) == ("One moment.", "One moment.")
        assert (called.name, json.loads(called.arguments), first.status) == ("look_up", {"word": "tea"}, "completed")
        items += [item.to_dict() for item in first.output]
        items.append({"type": "function_call_output", "call_id": called.call_id, "output": "a drink"})
        second = await say(client, stream, instructions="Be brief.", input=items, tools=[TOOL])
        assert second.output_text == "seen 4"
        items += [{"role": "assistant", "content": second.output_text}, {"role": "user", "content": "on"}]
        third = await say(client, stream, instructions="Be brief.", input=items, tools=[TOOL])
        check_one_sequence(model, 3)
        calls = model.recorder.calls
        assert [m["role"] for m in calls[0].messages] == ["system", "user"]
        assert calls[1].messages == [{"role": "tool", "tool_call_id": called.call_id, "content": "a drink"}]
        assert third.usage.total_tokens == len(model.recorder.sequences[0].tokens)


@both
async def test_going_on_from_an_earlier_response(stream):
    async with rollout() as model, client_of(model) as client:
        first = await say(client, stream, instructions="Be brief.", tools=[TOOL])
        output = {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "a drink"}
        more = {"instructions": "Be brief.", "tools": [TOOL]}
        second = await say(client, stream, previous_response_id=first.id, input=[output], **more)
        await say(client, stream, previous_response_id=second.id, input="on", **more)
        check_one_sequence(model, 3)
        await say(client, previous_response_id=first.id, input=[output])  # instructions are not carried over
        assert model.recorder.calls[-1].parent is None
        forgotten = await say(client, store=False)
        with pytest.raises(openai.BadRequestError, match="no stored response"):
            await say(client, previous_response_id=forgotten.id)


@both
async def test_several_calls_in_one_reply(stream):
    script = lambda prompt, rng: "<think>all</think>done" if "<|tool|>" in prompt else f"<think>x</think>{TWICE}"  # noqa: E731
    async with rollout(script) as model, client_of(model) as client:
        first = await say(client, stream, tools=[TOOL])
        assert [item.type for item in first.output] == ["reasoning", "function_call", "function_call"]
        items = [{"role": "user", "content": "go"}, *(item.to_dict() for item in first.output)]
        for called in first.output[1:]:
            parts = [{"type": "input_text", "text": "no"}]
            items.append({"type": "function_call_output", "call_id": called.call_id, "output": parts})
        await say(client, stream, input=items, tools=[TOOL])
        check_one_sequence(model, 2)


async def test_events_come_in_openais_order_while_the_reply_is_sampled():
    async with rollout() as model, client_of(model) as client:
        stream = await client.responses.create(model="m", input="go", tools=[TOOL], stream=True)
        events = [event async for event in stream]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        kinds = [event.type for event in events]
        assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed"
        added = [event.item.type for event in events if event.type == "response.output_item.added"]
        assert added == ["reasoning", "message", "function_call"]
        pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert len(pieces) > 3 and "".join(pieces) == "One moment."
        done = [event.item.id for event in events if event.type == "response.output_item.done"]
        assert done == [item.id for item in events[-1].response.output]


async def test_a_reply_that_was_cut_is_incomplete():
    async with rollout(lambda prompt, rng: "abcdef") as model, client_of(model) as client:
        response = await say(client, max_output_tokens=3)
        assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        assert response.output_text == "abc"
        events = [e async for e in await client.responses.create(
            model="m", input="go", max_output_tokens=3, stream=True)]  # fmt: skip
        assert events[-1].type == "response.incomplete" and events[-1].response.output_text == "abc"


@both
async def test_an_empty_reply_and_log_probabilities(stream):
    async with rollout(lambda prompt, rng: "") as model, client_of(model) as client:
        response = await say(client, stream, include=["message.output_text.logprobs"])
        (message,) = response.output
        assert message.content[0].text == ""
        (sequence,) = model.recorder.sequences
        assert [token.logprob for token in message.content[0].logprobs] == pytest.approx(sequence.logprobs[-1:])


async def test_what_does_not_change_a_reply_is_ignored():
    items = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"role": "user", "content": "go"},
    ]
    async with rollout() as model, client_of(model) as client:
        await say(
            client, input=items, reasoning={"effort": "low", "summary": "auto"}, text={"format": {"type": "text"}},
            include=["reasoning.encrypted_content"], parallel_tool_calls=True, temperature=0.5, metadata={"a": "b"},
        )  # fmt: skip
        (call,) = model.recorder.calls
        assert call.messages[0] == {"role": "system", "content": "Be brief."}
        assert call.sampling.temperature == 0.5


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "'input_image'"),
        ({"input": []}, "at least one item"),
        ({"input": ["hi"]}, "an object"),
        ({"input": [{"role": "robot", "content": "x"}]}, "role"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "item_reference"),
        ({"input": [{"type": "function_call", "call_id": "x"}]}, "name"),
        ({"tools": [{"type": "web_search"}]}, "'function'"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"previous_response_id": "resp_x"}, "no stored response"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"text": {"format": {"type": "json_object"}}}, "format"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"extra_body": {"temprature": 1}}, "temperature"),
        ({"extra_body": {"instructions": 3}}, "instructions"),
        ({"temperature": -1}, "temperature"),
    ],
)
async def test_what_can_not_be_honoured_is_refused_in_one_line(request_, words):
    async with rollout() as model, client_of(model) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await say(client, **request_)
        message = refused.value.body["message"]
        assert words in message and "\n" not in message
        assert model.recorder.calls == []
        assert model.recorder.failed.blame == "environment"


@pytest.mark.parametrize(("blame", "status"), [("policy", 400), ("infrastructure", 503)])
@both
async def test_failures_of_the_model(stream, blame, status):
    class Broken:
        name = "broken"

        async def complete(self, messages, tools, sampling):
            raise ModelCallFailed("out of order", blame)

    async with rollout(backend=Broken()) as model, client_of(model) as client:
        with pytest.raises(openai.APIStatusError, match="out of order") as failed:
            await say(client, stream)
        assert failed.value.status_code == status
