"""Reply formats: what is written is read back, nothing a model writes raises, malformed calls are explained."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.renderers.formats.atem import ATEM
from ludus.renderers.formats.deepseek import DEEPSEEK_V3, DEEPSEEK_V3_1
from ludus.renderers.formats.detect import CALLS, FORMATS
from ludus.renderers.formats.gemma4 import GEMMA4
from ludus.renderers.formats.glm import GLM
from ludus.renderers.formats.harmony import HARMONY
from ludus.renderers.formats.hermes import HERMES
from ludus.renderers.formats.lfm import LFM
from ludus.renderers.formats.llama3 import LLAMA3
from ludus.renderers.formats.mistral import MISTRAL, MISTRAL_V11
from ludus.renderers.formats.qwen_xml import QWEN_XML
from ludus.renderers.formats.tagged import TaggedFormat, Tags
from ludus.renderers.formats.typed import typed

MARKS = [
    "<think>", "</think>", "<tool_call>", "</tool_call>", '{"name": "f"', ', "arguments": {}}', ', "parameters": {}}',
    "<function=f>", "</function>", "<parameter=q>", "</parameter>", "<arg_key>", "</arg_key>", "<arg_value>",
    "</arg_value>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "function<｜tool▁sep｜>f\n```json\n{}\n```",
    "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[]", "[{", "}]", "{}",
    "<|tool_call_start|>", "<|tool_call_end|>", "[f(q='", "')]", "\\", "\\u12", "<|tool_call>", "<tool_call|>", "call:f{",
    '<|"|>', "<|channel>thought\n", "<channel|>", "<|start|>assistant", "<|channel|>analysis", "<|channel|>final",
    "<|channel|>commentary json", " to=functions.f", "<|message|>", "<|end|>", "<|call|>", " to=self", " to=user",
    " to=f", "<|eom|>", '<atem:function_calls>\n<atem:invoke name="f">', "</atem:invoke>\n</atem:function_calls>",
    "\n", ":", ",", "=", "x", "[" * 2000, "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: f"{format.calls_style}-{format.thinking_style}")
@given(pieces=st.lists(st.sampled_from(MARKS) | st.text(max_size=5), max_size=12), opened=st.booleans())
@settings(max_examples=15, deadline=None)
def test_nothing_a_model_writes_raises(format, pieces, opened):
    for finish_reason in ("stop", "length"):
        message, malformed = format.parse("".join(pieces), opened=opened, finish_reason=finish_reason)
        assert message["role"] == "assistant"
        assert isinstance(message["content"], str)
        assert isinstance(message.get("reasoning_content", ""), str)
        for call in message.get("tool_calls", []):
            assert malformed == ""
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
            assert call["function"]["name"]


# --- what is written is read back ---------------------------------------------------------------------------------

plain = st.text(st.characters(codec="utf-8", exclude_characters="<>[]|｜"))
word = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=6)
constants = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
nested = st.recursive(
    constants | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(word, inner, max_size=3),
    max_leaves=5,
)
made = st.lists(st.tuples(word, st.dictionaries(word, nested, max_size=3)), min_size=1, max_size=3)


def dumps(value):
    return json.dumps(value, ensure_ascii=False)


def as_text(value):
    return value if isinstance(value, str) else dumps(value)


def python(value):
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r") + "'"
    return dumps(value) if isinstance(value, list | dict) else str(value)


def gemma(value):
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{gemma(v)}" for k, v in value.items()) + "}"
    return "[" + ",".join(map(gemma, value)) + "]" if isinstance(value, list) else dumps(value)


def xml(name, arguments):
    body = "".join(f"<parameter={k}>\n{as_text(v)}\n</parameter>\n" for k, v in arguments.items())
    return f"<tool_call>\n<function={name}>\n{body}</function>\n</tool_call>"


def glm(name, arguments):
    body = "".join(f"<arg_key>{k}</arg_key>\n<arg_value>{as_text(v)}</arg_value>\n" for k, v in arguments.items())
    return f"<tool_call>{name}\n{body}</tool_call>"


def fenced(name, arguments):
    return f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{dumps(arguments)}\n```<｜tool▁call▁end｜>"


def bare(name, arguments):
    return f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{dumps(arguments)}<｜tool▁call▁end｜>"


def deepseek(one):
    return lambda calls: "<｜tool▁calls▁begin｜>" + "\n".join(one(*call) for call in calls) + "<｜tool▁calls▁end｜>"


def lfm(calls):
    made = [f"{name}({', '.join(f'{k}={python(v)}' for k, v in arguments.items())})" for name, arguments in calls]
    return "<|tool_call_start|>[" + ", ".join(made) + "]<|tool_call_end|>"


WRITERS = {
    HERMES: lambda calls: "\n".join(
        f"<tool_call>\n{dumps({'name': name, 'arguments': arguments})}\n</tool_call>" for name, arguments in calls
    ),
    QWEN_XML: lambda calls: "\n".join(xml(*call) for call in calls),
    GLM: lambda calls: "\n".join(glm(*call) for call in calls),
    DEEPSEEK_V3: deepseek(fenced),
    DEEPSEEK_V3_1: deepseek(bare),
    MISTRAL: lambda calls: (
        "[TOOL_CALLS] " + dumps([{"name": name, "arguments": arguments} for name, arguments in calls])
    ),
    MISTRAL_V11: lambda calls: "".join(f"[TOOL_CALLS]{name}[ARGS]{dumps(arguments)}" for name, arguments in calls),
    LFM: lfm,
    GEMMA4: lambda calls: "".join(
        f"<|tool_call>call:{name}{gemma(arguments)}<tool_call|>" for name, arguments in calls
    ),
}
TYPES = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}


def tools_for(name, arguments):
    properties = {key: {"type": TYPES[type(value)]} for key, value in arguments.items()}
    return [{"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}]


@pytest.mark.parametrize("syntax", WRITERS, ids=lambda syntax: syntax.name)
@given(content=plain.map(str.strip), calls=made)
@settings(max_examples=30, deadline=None)
def test_calls_are_read_as_they_were_written(syntax, content, calls):
    calls = list(dict(calls).items())  # one of each name, as its types are told by the name
    tools = [tool for call in calls for tool in tools_for(*call)]
    message, malformed = TaggedFormat(None, syntax).parse(content + WRITERS[syntax](calls), tools=tools)
    assert malformed == ""
    assert message["content"] == content
    read = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in message["tool_calls"]]
    assert read == calls


@given(name=word, arguments=st.dictionaries(word, nested, max_size=3), thought=st.none() | plain)
@settings(max_examples=30, deadline=None)
def test_messages_in_frames_are_read_as_they_were_written(name, arguments, thought):
    before = "" if thought is None else f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant"
    for header in (
        f" to=functions.{name}<|channel|>commentary json",
        f"<|channel|>commentary to=functions.{name} <|constrain|>json",
    ):
        message, malformed = HARMONY.parse(f"{before}{header}<|message|>{dumps(arguments)}")
        assert malformed == ""
        assert message.get("reasoning_content") == thought
        (call,) = message["tool_calls"]
        assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == (name, arguments)

    before = "" if thought is None else f" to=self<|message|>{thought}<|eom|><|start|>assistant"
    body = "".join(f'<atem:parameter name="{k}">{as_text(v)}</atem:parameter>\n' for k, v in arguments.items())
    block = f'<atem:function_calls>\n<atem:invoke name="{name}">\n{body}</atem:invoke>\n</atem:function_calls>'
    frame = f" to={name}<|message|>{block}"
    text = f"{before}{frame}<|eom|><|start|>assistant{frame}" if name not in ("self", "user") else before
    message, malformed = ATEM.parse(text.removesuffix("<|start|>assistant"), tools=tools_for(name, arguments))
    assert malformed == ""
    assert message.get("reasoning_content") == thought
    for call in message.get("tool_calls", []):
        assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == (name, arguments)


# --- what is special about some of them -----------------------------------------------------------------------------


def test_llama_calls_are_the_whole_reply():
    read = TaggedFormat(None, LLAMA3).parse
    assert read('{"name": "f", "parameters": {"q": 1}}')[0]["tool_calls"][0]["function"]["name"] == "f"
    assert read('<|python_tag|>{"name": "f", "parameters": {}}')[0]["tool_calls"]
    for text in ('{"city": "Paris"}', '{"name": "Paris"}', 'it is {"name": "f", "parameters": {}}'):
        assert read(text) == ({"role": "assistant", "content": text}, "")
    assert "nothing after it" in read('{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}')[1]
    assert "hit its token limit" in read('{"name": "f", "par', finish_reason="length")[1]


def test_mistral_keeps_the_ids_that_the_model_wrote():
    message, _ = TaggedFormat(None, MISTRAL).parse('[TOOL_CALLS] [{"name": "f", "arguments": {}, "id": "abc123def"}]')
    assert message["tool_calls"][0]["id"] == "abc123def"
    message, _ = TaggedFormat(None, MISTRAL_V11).parse("[TOOL_CALLS]f[CALL_ID]abc123def[ARGS]{}[TOOL_CALLS]g[ARGS]{}")
    assert [call["id"] for call in message["tool_calls"]] == ["abc123def", "call_1"]


@pytest.mark.parametrize("syntax", CALLS, ids=lambda syntax: syntax.name)
def test_the_form_that_is_shown_begins_like_a_call(syntax):
    _, malformed = TaggedFormat(None, syntax).parse(syntax.form.replace("{...}", "{..."))
    assert "The form is:\n" + syntax.form in malformed or TaggedFormat(None, syntax).parse(syntax.form)[0]["tool_calls"]


HARMONY_CALL = " to=functions.f<|channel|>commentary json<|message|>"


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("<|channel|>final<|message|>4", None, "4"),
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>4", "hm", "4"),
        ("<|channel|>analysis<|message|>cut", "cut", ""),
        (f"{HARMONY_CALL}{{bad", None, f"{HARMONY_CALL}{{bad"),
        ("no frame", None, "<|start|>assistant" + "no frame"),
        ("<|channel|>commentary<|message|>hello", None, "<|channel|>commentary<|message|>hello"),
        # the template raises where a text has these headers
        ("x<|channel|>final<|message|>4<|end|><|start|>assistant", None,
         "x<|channel|> final<|message|>4<|end|><|start|>assistant"),
    ],
)  # fmt: skip
def test_harmony(text, reasoning, content):
    message, _ = HARMONY.parse(text)
    assert (message.get("reasoning_content"), message["content"]) == (reasoning, content)


def test_harmony_explains_malformed_calls():
    assert "not valid JSON" in HARMONY.parse(HARMONY_CALL + "{bad")[1]
    assert "hit its token limit" in HARMONY.parse(HARMONY_CALL + "{}", finish_reason="length")[1]
    assert (
        "expected to=functions.TOOL, got to=python" in HARMONY.parse(HARMONY_CALL.replace("functions.f", "python"))[1]
    )


def test_thinking_blocks():
    read = TaggedFormat(Tags("<|channel>thought\n", "<channel|>"))
    assert read.parse("<|channel>thought\nhm\n<channel|>4")[0] == {
        "role": "assistant", "reasoning_content": "hm", "content": "4",
    }  # fmt: skip
    assert read.opened_by("...<|channel>thought\n")
    assert not read.opened_by("...<|turn>model\n")
    assert read.without_empty_thinking("<|channel>thought\n\n<channel|>4") == "4"
    assert TaggedFormat().parse("<think>a</think>b")[0]["content"] == "<think>a</think>b"


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("75001", {"type": "string"}, "75001"),
        ("75001", {"type": "integer"}, 75001),
        ("75001", {"type": "number"}, 75001),
        ("75001", {}, 75001),
        ("75001", {"type": ["string", "null"]}, "75001"),
        ("None", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ("null", {"anyOf": [{"type": "string"}, {"type": "null"}]}, None),
        ("True", {"type": "boolean"}, True),
        ("true", {"type": "boolean"}, True),
        ("true", {"enum": ["true", "false"]}, "true"),
        ("[1]", {"type": "array"}, [1]),
        ("[1]", {"type": "object"}, "[1]"),
        ("many", {"type": "integer"}, "many"),
        ('"quoted"', {}, '"quoted"'),
        ("{", {}, "{"),
        ("5", "no schema", 5),
        ("5", {"anyOf": [{"type": "string"}, {}]}, 5),
    ],
)
def test_bare_text_has_the_type_that_the_tool_says(text, schema, value):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"p": schema}}}}]
    assert typed(text, tools, "f", "p") == value
    assert type(typed(text, tools, "f", "p")) is type(value)


@pytest.mark.parametrize(
    ("syntax", "block", "problem"),
    [
        (QWEN_XML, "<tool_call>{}</tool_call>", "does not begin with <function="),
        (QWEN_XML, "<tool_call><function=f></tool_call>", "the tag </function> is missing"),
        (QWEN_XML, "<tool_call><function=></function></tool_call>", "the name after <function= is missing"),
        (QWEN_XML, "<tool_call><function=f><parameter=q>x</function></tool_call>", "</parameter> of q is missing"),
        (
            QWEN_XML,
            "<tool_call><function=f>x</function></tool_call>",
            "expected <parameter=NAME> or </function>, got 'x'",
        ),
        (GLM, '<tool_call>{"name": "f"}</tool_call>', "expected the tool's name"),
        (GLM, "<tool_call>f<arg_key>k</tool_call>", "the tag </arg_key> is missing"),
        (GLM, "<tool_call>f<arg_key>k</arg_key>v</tool_call>", "expected <arg_value> after the key 'k'"),
        (GLM, "<tool_call>f<arg_key>k</arg_key><arg_value>v</tool_call>", "the tag </arg_value> of 'k' is missing"),
        (GLM, "<tool_call>f<arg_key>k</arg_key><arg_value>v</arg_value>x</tool_call>", "expected <arg_key> or the end"),
        (LFM, "<|tool_call_start|>[]<|tool_call_end|>", "expected one list of calls"),
        (LFM, "<|tool_call_start|>[f(q=x)]<|tool_call_end|>", "'x' is not a value"),
        (LFM, "<|tool_call_start|>[f(q='x]<|tool_call_end|>", "is not closed"),
        (LFM, "<|tool_call_start|>[f()", "the tag <|tool_call_end|> is missing"),
        (GEMMA4, "<|tool_call>f{}<tool_call|>", "expected call:, got 'f{}'"),
        (GEMMA4, "<|tool_call>call:f{a:hello}<tool_call|>", "'hello' is not a value"),
        (GEMMA4, "<|tool_call>call:f{}{}<tool_call|>", "nothing after it, got '{}'"),
        (GEMMA4, "<|tool_call>call:f{a:" + "[" * 5000 + "<tool_call|>", "nested too deeply"),
        (DEEPSEEK_V3, "<｜tool▁calls▁begin｜>f<｜tool▁calls▁end｜>", "expected <｜tool▁call▁begin｜>"),
        (
            DEEPSEEK_V3,
            "<｜tool▁calls▁begin｜>" + bare("f", {}) + "<｜tool▁calls▁end｜>",
            "do not stand between ```json",
        ),
        (MISTRAL, "[TOOL_CALLS] {}", "expected a JSON list of calls, got an object"),
        (MISTRAL, "[TOOL_CALLS] []", "expected a JSON list of calls, got nothing in it"),
        (MISTRAL, '[TOOL_CALLS] [{"name": "f"}, 3]', "tool call 1 can't be read: expected a JSON object, got a number"),
        (MISTRAL_V11, "[TOOL_CALLS]f{}", "[ARGS] is missing"),
        (MISTRAL_V11, "[TOOL_CALLS][ARGS]{}", "the tool's name is missing"),
    ],
)
def test_malformed_calls_are_explained_and_left_in_the_text(syntax, block, problem):
    message, malformed = TaggedFormat(None, syntax).parse(f"so: {block}")
    assert problem in malformed
    assert message == {"role": "assistant", "content": f"so: {block}"}
