"""OpenAI's wire format: requests honoured or refused, responses of OpenAI's own types, mangled copies equal."""

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from ludus.errors import UnknownName, UsageError
from ludus.recording import wire
from ludus.types import Reply, Usage

HEAD = {"id": "chatcmpl-1", "model": "tiny", "created": 1}
CALL = {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
ASK = [{"role": "user", "content": "hi"}]


# --- requests -----------------------------------------------------------------------------------------------------


def test_a_full_request():
    asked = wire.parse_chat(
        {
            "model": "m",
            "messages": ASK,
            "tools": [TOOL],
            "tool_choice": "auto",
            "temperature": 0,
            "top_p": 0.5,
            "top_k": 4,
            "max_completion_tokens": 9,
            "stop": "END",
            "seed": 3,
            "n": 1,
            "user": "u",
            "metadata": {"a": "b"},
            "stream": True,
            "stream_options": {"include_usage": True},
            "logprobs": True,
            "presence_penalty": 0.0,
            "response_format": {"type": "text"},
            "frequency_penalty": None,
        }
    )
    assert asked == wire.ChatRequest(
        model="m",
        messages=ASK,
        tools=[TOOL],
        sampling={"temperature": 0.0, "top_p": 0.5, "top_k": 4, "seed": 3, "max_tokens": 9, "stop": ("END",)},
        stream=True,
        include_usage=True,
        logprobs=True,
    )


def test_a_small_request_sets_nothing():
    asked = wire.parse_chat({"messages": ASK})
    assert (asked.sampling, asked.tools, asked.stream, asked.logprobs) == ({}, [], False, False)


def test_messages_are_normalised():
    asked = wire.parse_chat(
        {
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]},
                {"role": "user", "content": "hi", "name": None},
                {
                    "role": "assistant",
                    "content": None,
                    "refusal": None,
                    "audio": None,
                    "annotations": [],
                    "reasoning_content": "hm",
                    "tool_calls": [{**CALL, "index": 0}],
                },
                {"role": "tool", "tool_call_id": "call_0", "content": "1"},
                {"role": "assistant", "content": "done", "tool_calls": []},
            ]
        }
    )
    assert asked.messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_0", "content": "1"},
        {"role": "assistant", "content": "done"},
    ]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"messages": []}, "expected messages to be a list with at least one message, got"),
        ({"messages": "hi"}, "expected messages to be a list"),
        ({"messages": ["hi"]}, r"expected messages\[0\] to be an object, got 'hi'"),
        ({"messages": [{"role": "robot", "content": ""}]}, r"messages\[0\].role to be one of system, developer"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content is missing"),
        ({"messages": [{"role": "user", "content": 3}]}, "to be a string or a list of parts, got 3"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "only parts of type 'text'.*'image_url'",
        ),
        ({"messages": [{"role": "assistant", "tool_calls": [3]}]}, r"tool_calls\[0\] to be a call of type 'function'"),
        ({"messages": [{"role": "assistant", "tool_calls": 3}]}, "tool_calls to be a list, got 3"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}, "to have a name and arguments"),
        ({"tools": {}, "n": 2}, "n = 2 can't be honoured here; leave it out, or send 1"),
        ({"tools": "f"}, "expected tools to be a list"),
        ({"tools": [{"type": "web_search"}]}, r"expected tools\[0\] to be of type 'function'"),
        ({"tool_choice": "required"}, "tool_choice = 'required' can't be honoured"),
        ({"tool_choice": "none", "tools": [TOOL]}, "tool_choice = 'none' can't be honoured"),
        ({"response_format": {"type": "json_object"}}, "response_format = .* can't be honoured"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"top_logprobs": 3}, "top_logprobs = 3 can't be honoured"),
        ({"temperature": "hot"}, "sampling parameters are not valid.*temperature"),
        ({"temperature": -1}, "temperature must be >= 0"),
        ({"max_tokens": 0}, "max_tokens must be >= 1"),
        ({"stop": [1]}, "sampling parameters are not valid"),
    ],
)
def test_what_can_not_be_honoured_is_refused(fields, problem):
    with pytest.raises(UsageError, match=problem):
        wire.parse_chat({"model": "m", "messages": ASK, **fields})


def test_an_unknown_field_is_refused_with_its_neighbour():
    with pytest.raises(UnknownName, match="did you mean 'temperature'"):
        wire.parse_chat({"messages": ASK, "temprature": 1})


def test_completion_requests():
    assert wire.parse_completion({"prompt": "hi", "max_tokens": 2, "logprobs": 0}) == wire.CompletionRequest(
        model="", prompt="hi", sampling={"max_tokens": 2}, logprobs=True
    )
    assert wire.parse_completion({"prompt": [1, 2]}).prompt == [1, 2]
    assert wire.parse_completion({"prompt": ["hi"]}).prompt == "hi"
    assert wire.parse_completion({"prompt": [[1, 2]]}).prompt == [1, 2]


@pytest.mark.parametrize("fields", [{}, {"prompt": ["a", "b"]}, {"prompt": [-1]}, {"prompt": [True]}, {"prompt": []}])
def test_bad_prompts(fields):
    with pytest.raises(UsageError, match="expected prompt to be one text or one list of token ids"):
        wire.parse_completion(fields)


@pytest.mark.parametrize("fields", [{"echo": True}, {"suffix": "x"}, {"logprobs": 5}, {"best_of": 2}])
def test_completion_fields_that_can_not_be_honoured(fields):
    with pytest.raises(UsageError):
        wire.parse_completion({"prompt": "hi", **fields})


# --- messages -----------------------------------------------------------------------------------------------------

words = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
calls = st.builds(
    lambda id, name, arguments: {
        "id": id,
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments)},
    },
    words,
    words,
    st.dictionaries(words, values, max_size=3),
)


@st.composite
def messages(draw):
    role = draw(st.sampled_from(["system", "user", "assistant", "tool"]))
    message = {"role": role, "content": draw(words)}
    if role == "assistant" and draw(st.booleans()):
        message["tool_calls"] = draw(st.lists(calls, min_size=1, max_size=2))
    if role == "assistant" and draw(st.booleans()):
        message["reasoning_content"] = draw(words)
    if role == "tool":
        message["tool_call_id"] = draw(words)
    return message


def reordered(value):
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


def mangled(draw, message):
    """The message as a client may send it back."""
    out = {k: v for k, v in message.items() if k not in ("reasoning_content", "tool_calls")}
    for name in ("refusal", "audio", "function_call", "name", "annotations"):
        if draw(st.booleans()):
            out[name] = None
    if draw(st.booleans()):
        out["thinking"] = draw(words)
    if "tool_calls" in message:
        out["tool_calls"] = [
            {
                "index": i,
                "function": {
                    "arguments": json.dumps(
                        reordered(json.loads(call["function"]["arguments"])),
                        indent=draw(st.none() | st.just(2)),
                        ensure_ascii=draw(st.booleans()),
                    ),
                    "name": call["function"]["name"],
                },
                "id": call["id"],
            }
            for i, call in enumerate(message["tool_calls"])
        ]
    if not out["content"] and "tool_calls" in out:
        out["content"] = draw(st.sampled_from([None, ""]))
    elif draw(st.booleans()):
        half = len(out["content"]) // 2
        out["content"] = [
            {"type": "text", "text": out["content"][:half]},
            {"type": "text", "text": out["content"][half:]},
        ]
    return reordered(out)


@given(message=messages(), data=st.data())
@settings(max_examples=100, deadline=None)
@pytest.mark.slow
def test_a_mangled_copy_has_the_same_key(message, data):
    assert wire.canonical(mangled(data.draw, message)) == wire.canonical(message)


def meaning(message):
    called = [
        (c["id"], c["function"]["name"], json.loads(c["function"]["arguments"])) for c in message.get("tool_calls", ())
    ]
    return json.dumps(
        [message["role"], message["content"], message.get("tool_call_id") or None, called], sort_keys=True
    )


@given(messages(), messages())
@settings(max_examples=200, deadline=None)
@pytest.mark.slow
def test_different_messages_have_different_keys(one, other):
    assume(meaning(one) != meaning(other))
    assert wire.canonical(one) != wire.canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"x": 1}', '{"x": 2}'),
        ('{"x": 1}', '{"x": "1"}'),
        ('{"x": 1}', '{"x": 1'),
        ('"{}"', "{}"),
        ("{", "["),
        ("", "{}"),
    ],
)
def test_different_arguments_have_different_keys(one, other):
    def message(arguments):
        return {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}

    assert wire.canonical(message(one)) != wire.canonical(message(other))


def test_the_name_counts():
    message = {"role": "user", "content": "hi"}
    assert wire.canonical({**message, "name": "ann"}) != wire.canonical(message)
    assert wire.canonical({**message, "name": ""}) == wire.canonical(message)


# --- responses ----------------------------------------------------------------------------------------------------

TALK = Reply({"role": "assistant", "content": "hi", "reasoning_content": "hm"}, usage=Usage(3, 2))
CALLED = Reply({"role": "assistant", "content": "", "tool_calls": [CALL, {**CALL, "id": "call_1"}]}, usage=Usage(3, 2))
CUT = Reply({"role": "assistant", "content": "hi"}, finish_reason="length")
LOGPROBS = [("h", -0.5), ("i", -1.0)]


def events(chunks):
    lines = [chunk.decode() for chunk in chunks]
    assert all(line.startswith("data: ") and line.endswith("\n\n") for line in lines)
    assert lines.pop() == "data: [DONE]\n\n"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_a_chat_response_is_openai_s():
    read = ChatCompletion.model_validate(wire.chat_response(TALK, token_logprobs=LOGPROBS, **HEAD), strict=True)
    choice = read.choices[0]
    assert (choice.message.content, choice.message.reasoning_content, choice.finish_reason) == ("hi", "hm", "stop")
    assert [(t.token, t.logprob, t.bytes) for t in choice.logprobs.content] == [("h", -0.5, [104]), ("i", -1.0, [105])]
    assert (read.usage.prompt_tokens, read.usage.completion_tokens, read.usage.total_tokens) == (3, 2, 5)


def test_a_response_with_tool_calls():
    choice = ChatCompletion.model_validate(wire.chat_response(CALLED, **HEAD)).choices[0]
    assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")
    assert [call.id for call in choice.message.tool_calls] == ["call_0", "call_1"]
    assert choice.message.tool_calls[0].function.arguments == '{"x": 1}'


@pytest.mark.parametrize(
    ("reason", "finish"), [("length", "length"), ("cancelled", "stop"), ("tool_calls", "tool_calls")]
)
def test_finish_reasons(reason, finish):
    reply = Reply({"role": "assistant", "content": ""}, finish_reason=reason)
    assert ChatCompletion.model_validate(wire.chat_response(reply, **HEAD)).choices[0].finish_reason == finish


@pytest.mark.parametrize("reply", [TALK, CALLED, CUT])
@pytest.mark.parametrize("include_usage", [False, True])
def test_a_stream_adds_up_to_the_response(reply, include_usage):
    chunks = [
        ChatCompletionChunk.model_validate(e)
        for e in events(wire.chat_chunks(reply, include_usage=include_usage, **HEAD))
    ]
    if include_usage:
        assert chunks.pop().usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    deltas = [chunk.choices[0].delta for chunk in chunks]
    whole = ChatCompletion.model_validate(wire.chat_response(reply, **HEAD)).choices[0]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == (whole.message.content or "")
    called = [call for delta in deltas for call in delta.tool_calls or ()]
    assert [(call.index, call.id) for call in called] == [
        (i, c.id) for i, c in enumerate(whole.message.tool_calls or ())
    ]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + [whole.finish_reason]


def test_a_stream_that_has_begun():
    chunks = [json.loads(wire.text_chunk("h", first=True, **HEAD).removeprefix(b"data: "))]
    chunks += events(wire.chat_chunks(CUT, sent=1, token_logprobs=LOGPROBS, **HEAD))
    read = [ChatCompletionChunk.model_validate(chunk).choices[0] for chunk in chunks]
    assert [(c.delta.role, c.delta.content, c.finish_reason) for c in read] == [
        ("assistant", "h", None),
        (None, "i", None),
        (None, None, "length"),
    ]
    assert len(read[1].logprobs.content) == 2


def test_completions_are_openai_s():
    arguments = ("hi", "length", Usage(3, 2))
    read = Completion.model_validate(wire.completion_response(*arguments, token_logprobs=LOGPROBS, **HEAD))
    assert (read.choices[0].text, read.choices[0].finish_reason, read.usage.total_tokens) == ("hi", "length", 5)
    assert read.choices[0].logprobs.token_logprobs == [-0.5, -1.0]
    assert read.choices[0].logprobs.text_offset == [0, 1]
    chunks = [
        Completion.model_validate(e) for e in events(wire.completion_chunks(*arguments, include_usage=True, **HEAD))
    ]
    assert [chunk.choices[0].text for chunk in chunks if chunk.choices] == ["hi"]
    assert chunks[-1].usage.total_tokens == 5
    assert len(events(wire.completion_chunks(*arguments, **HEAD))) == 1


def test_models_and_errors():
    listed = wire.models_response(["a", "b"])
    assert [Model.model_validate(model).id for model in listed["data"]] == ["a", "b"]
    assert wire.error_body("no", code="x") == {
        "error": {"message": "no", "type": "invalid_request_error", "param": None, "code": "x"}
    }
    assert b'"message":"oops"' in wire.error_event("oops")
