"""Parsing replies: what was rendered is read back, and nothing a model writes raises."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ludus.renderers.formats.hermes import HERMES
from ludus.renderers.formats.tagged import TaggedFormat, Tags
from ludus.renderers.parsing import tool_calls_of

parse_reply = TaggedFormat(Tags("<think>", "</think>"), HERMES).parse

FRAGMENTS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    '{"name": "f"',
    ', "arguments": {}}',
    "\n",
    "hi",
    "[",
]
plain = st.text(st.characters(codec="utf-8", exclude_characters="<"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=5,
)
calls = st.lists(st.tuples(plain.filter(bool), st.dictionaries(plain, values, max_size=3)), max_size=3)


def write(thought, content, calls):
    """A reply as Qwen's template writes it."""
    text = "" if thought is None else f"<think>\n{thought}\n</think>\n\n"
    text += content
    for i, (name, arguments) in enumerate(calls):
        text += "\n" if i or content else ""
        call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
        text += f"<tool_call>\n{call}\n</tool_call>"
    return text


@given(st.none() | plain.map(lambda t: t.strip("\n")), plain.map(lambda t: t.lstrip("\n")), calls)
@settings(max_examples=100, deadline=None)
def test_reading_inverts_writing(thought, content, calls):
    message, malformed = parse_reply(write(thought, content, calls))
    assert malformed == ""
    assert message.get("reasoning_content") == thought
    assert message["content"] == content
    read = tool_calls_of(message)
    assert [(call.name, call.arguments) for call in read] == calls
    assert [call.id for call in read] == [f"call_{i}" for i in range(len(calls))]


@given(
    st.text() | st.lists(st.sampled_from(FRAGMENTS)).map("".join), st.booleans(), st.sampled_from(["stop", "length"])
)
@example("<tool_call>" + "[" * 100_000 + "</tool_call>", False, "stop")
@example('<tool_call>{"name": "f", "arguments": {"x": 1e999}}</tool_call>', False, "stop")
@example('<tool_call>{"name": "f", "arguments": {"x": "\ud800"}}</tool_call>', False, "stop")
@example('<tool_call>{"name": "f", "arguments": {"x": ' + "1" * 5000 + "}}</tool_call>", False, "stop")
@settings(max_examples=200, deadline=None)
def test_nothing_raises(text, thinking, finish_reason):
    message, malformed = parse_reply(text, opened=thinking, finish_reason=finish_reason)
    assert message["role"] == "assistant"
    assert isinstance(message["content"], str)
    assert not (malformed and "tool_calls" in message)


@given(st.text(st.characters(exclude_characters="<")))
@settings(max_examples=50, deadline=None)
def test_plain_text_is_kept_exactly(text):
    assert parse_reply(text) == ({"role": "assistant", "content": text}, "")


def test_a_prompt_that_opened_the_thinking():
    message, _ = parse_reply("hm\n</think>\n\nyes", opened=True)
    assert message == {"role": "assistant", "reasoning_content": "hm", "content": "yes"}
    assert parse_reply("<think>\nhm\n</think>\n\nyes", opened=True)[0] == message


def test_thinking_that_never_ends_is_not_shown_as_text():
    for text, thinking in (("<think>\n42 is", False), ("42 is", True)):
        message, malformed = parse_reply(text, opened=thinking, finish_reason="length")
        assert message == {"role": "assistant", "reasoning_content": "42 is", "content": ""}
        assert malformed == ""


def test_an_empty_thinking_block_leaves_a_trace():
    assert parse_reply("<think>\n\n</think>\n\nhi")[0]["reasoning_content"] == ""
    assert "reasoning_content" not in parse_reply("hi")[0]


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ("<tool_call>{'name': 'f'}</tool_call>", "it is not valid JSON"),
        ("<tool_call>[]</tool_call>", "expected a JSON object, got a list"),
        ('<tool_call>{"arguments": {}}</tool_call>', 'the key "name" is missing'),
        ('<tool_call>{"name": ""}</tool_call>', 'expected "name" to be a string, got an empty string'),
        (
            '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
            'expected "arguments" to be a JSON object, got a list',
        ),
        ('<tool_call>{"name": "f"}', "the tag </tool_call> is missing"),
        ('<tool_call>{"name": "f"}</tool_call><tool_call>{', "tool call 1 is not finished"),
    ],
)
def test_a_malformed_call_is_explained_and_left_in_the_text(block, problem):
    message, malformed = parse_reply(f"so: {block}")
    assert problem in malformed
    assert "The form is:\n<tool_call>" in malformed
    assert message == {"role": "assistant", "content": f"so: {block}"}


def test_a_cut_call_is_explained_by_the_token_limit():
    assert "hit its token limit" in parse_reply('<tool_call>{"na', finish_reason="length")[1]


def test_text_around_calls_stays():
    text = 'a\n<tool_call>{"name": "f"}</tool_call>\n<tool_call>{"name": "g"}</tool_call>\nb'
    message, _ = parse_reply(text)
    assert message["content"] == "a\nb"
    assert [call.name for call in tool_calls_of(message)] == ["f", "g"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [("{", "the arguments of f are not valid JSON"), ("[1]", "expected a JSON object, got a list")],
)
def test_bad_arguments_are_explained(arguments, error):
    message = {"tool_calls": [{"id": "x", "function": {"name": "f", "arguments": arguments}}]}
    (call,) = tool_calls_of(message)
    assert call.arguments is None
    assert error in call.error
