"""Replies to actions and observations to text, by the schemas of a server."""

import pytest

from ludus.environments.openenv_forms import (
    Forms,
    action_of,
    greeting,
    messages_of,
    read_schema,
    text_of,
    tool_result,
    tools_of,
)
from ludus.errors import ConfigError, RolloutError, ToolError
from ludus.types import Reply

TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
META = {"metadata": {"type": "object"}}


def schema(observation=(), required=None, **action):
    described = {"type": "object", "properties": {**META, **action}}
    if required is not None:
        described["required"] = required
    return {"action": described, "observation": {"properties": dict.fromkeys(observation, TEXT)}}


def said(text):
    return Reply({"role": "assistant", "content": text})


@pytest.mark.parametrize(
    ("found", "style", "fills"),
    [
        (schema(message=TEXT), "text", "message"),
        (schema(code=TEXT, timeout=NUMBER, required=["code"]), "text", "code"),
        (schema(note={"anyOf": [TEXT, {"type": "null"}]}), "text", "note"),
        (schema(column=NUMBER), "text", "column"),
        (schema(x=NUMBER, y=NUMBER), "object", ""),
        (schema(x=NUMBER, y=NUMBER, required=["x", "y"]), "object", ""),
        (schema(), "tools", ""),
        (schema(type=TEXT, tool_name=TEXT, arguments={}, required=["tool_name"]), "tools", ""),
        (schema(content=TEXT, tool_calls={}, finish_reason=TEXT), "chat", ""),
    ],
)
def test_the_action_decides_how_the_model_acts(found, style, fills):
    forms = read_schema(found)
    assert (forms.style, forms.fills) == (style, fills)
    assert "metadata" not in forms.parameters.get("properties", {})


def test_one_field_takes_the_reply():
    assert action_of(read_schema(schema(message=TEXT)), said(" go left\n")) == {"message": "go left"}
    assert action_of(read_schema(schema(column=NUMBER)), said("3")) == {"column": 3}
    with pytest.raises(ToolError, match="expected the value of column as JSON"):
        action_of(read_schema(schema(column=NUMBER)), said("three"))


@pytest.mark.parametrize("text", ['{"x": 1, "y": 2}', '```json\n{"x": 1,\n "y": 2}\n```', '```\n{"x": 1, "y": 2}\n```'])
def test_several_fields_take_an_object(text):
    assert action_of(read_schema(schema(x=NUMBER, y=NUMBER)), said(text)) == {"x": 1, "y": 2}


@pytest.mark.parametrize("text", ["", "x", "[1, 2]", "1", "[" * 100_000])
def test_what_is_no_object_is_told_with_the_fields(text):
    with pytest.raises(ToolError, match="a JSON object with the fields x, y"):
        action_of(read_schema(schema(x=NUMBER, y=NUMBER)), said(text))


def test_observations_are_text_in_the_order_of_the_schema():
    forms = read_schema(schema(observation=["board", "note"], message=TEXT))
    envelope = {"done": False, "reward": 1.0, "metadata": {"a": 1}}
    assert text_of(forms, {**envelope, "note": "go", "board": None}) == "go"
    assert text_of(forms, {**envelope, "note": "go\non", "board": [[0, 1]]}) == "board: [[0, 1]]\nnote:\ngo\non"
    assert text_of(forms, {**envelope, "score": 3}) == "3"
    assert text_of(forms, {**envelope, "note": "", "lives": 0, "won": False}) == "lives: 0\nwon: false"
    assert text_of(forms, envelope) == ""
    assert greeting(envelope) == "1" and greeting({}) == ""


def test_fields_may_be_chosen():
    found = schema(observation=["board", "note"], message=TEXT)
    assert text_of(read_schema(found, ["note"]), {"board": "....", "note": "go", "more": 1}) == "go"
    with pytest.raises(ConfigError, match="show names bord; an observation has board, note"):
        read_schema(found, ["bord"])


@pytest.mark.parametrize("answer", [None, [], {}, {"action": []}, {"action": {}, "observation": 1}])
def test_what_is_no_schema_is_refused(answer):
    with pytest.raises(ConfigError, match="no OpenEnv server: /schema should describe"):
        read_schema(answer)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "image", "data": ""}]}, "a\n[image, left out]"),
        ({"content": ["odd"]}, "odd"),
        ({"sum": 5}, '{"sum": 5}'),
        ("plain", "plain"),
        (None, "null"),
    ],
)
def test_results_of_tools_are_text(result, text):
    assert tool_result({"result": result}) == text


def test_what_tools_complain_of_is_told_and_what_stops_them_is_not():
    with pytest.raises(ToolError, match="too big"):
        tool_result({"result": {"content": [{"text": "too big"}], "is_error": True}})
    with pytest.raises(ToolError, match="no such thing"):
        tool_result({"error": {"error_type": "execution_error", "message": "no such thing"}})
    with pytest.raises(RolloutError, match="late") as error:
        tool_result({"error": {"error_type": "timeout", "message": "late"}})
    assert error.value.blame == "infrastructure"


@pytest.mark.parametrize("wrong", [{}, {"messages": "hi"}, {"messages": ["hi"]}, {"messages": [{"role": "king"}]}])
def test_what_is_no_conversation_is_the_servers_fault(wrong):
    with pytest.raises(RolloutError, match="chat messages"):
        messages_of(wrong)
    with pytest.raises(RolloutError, match="list its tools"):
        tools_of({"tools": [{"description": "nameless"}]})


def test_a_conversation_gets_the_whole_message():
    reply = Reply(
        {"role": "assistant", "content": "hm", "reasoning_content": "why"}, finish_reason="length", malformed="?"
    )
    wanted = {"content": "hm", "reasoning_content": "why", "malformed": "?", "finish_reason": "length"}
    assert action_of(Forms("chat"), reply) == wanted
