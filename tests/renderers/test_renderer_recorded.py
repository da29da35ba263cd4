"""Formats behind a recorder: tools give arguments their types, prompts open thinking, half a call is not shown."""

import asyncio
import json

from ludus.engine.fake import FakeEngine, fake_tokenizer
from ludus.recording.backend import TokenBackend
from ludus.recording.recorder import Recorder
from ludus.renderers.chat import ChatRenderer
from ludus.renderers.template import ChatTemplate
from ludus.types import MAIN_ROLE

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find",
            "description": "Find.",
            "parameters": {"type": "object", "properties": {"zip": {"type": "string"}, "limit": {"type": "integer"}}},
        },
    }
]
QUESTION = [{"role": "user", "content": "who?"}]
RESULT = {"role": "tool", "tool_call_id": "call_0", "content": "Ada"}

_CALLS_XML = (
    "{% for c in m.tool_calls or [] %}{{ '<tool_call>\n<function=' + c.function.name + '>\n' }}"
    "{% for k, v in c.function.arguments.items() %}{{ '<parameter=' + k + '>\n' + v | string + '\n</parameter>\n' }}"
    "{% endfor %}{{ '</function>\n</tool_call>' }}{% endfor %}"
)
# Opens a thinking block in the prompt, but not after a tool's result.
XML = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' }}"
    "{% if m.role == 'assistant' and not (loop.previtem and loop.previtem.role == 'tool') %}"
    "{{ '<think>' + (m.reasoning_content or '') + '</think>' }}{% endif %}"
    "{{ m.content }}" + _CALLS_XML + "{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' + ('' if messages[-1].role == 'tool' else '<think>') }}{% endif %}"
)
JSON = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' }}"
    "{% if m.tool_calls %}{% set c = m.tool_calls[0].function %}"
    "{{ '{\"name\": \"' + c.name + '\", \"parameters\": ' + c.arguments | tojson + '}' }}"
    "{% else %}{{ m.content }}{% endif %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def recorder_of(template, *said):
    replies = iter(said)
    renderer = ChatRenderer(fake_tokenizer(), ChatTemplate(template))
    backend = TokenBackend("fake", FakeEngine(lambda prompt, rng: next(replies)), renderer)
    return renderer, Recorder({MAIN_ROLE: backend}, session="r")


def test_one_sequence_with_typed_arguments_and_thinking_opened_by_the_prompt():
    parameters = "<parameter=zip>\n75001\n</parameter>\n<parameter=limit>\n3\n</parameter>\n"
    call = f"hm</think><tool_call>\n<function=find>\n{parameters}</function>\n</tool_call>"
    renderer, recorder = recorder_of(XML, call, "Ada", "so</think>sure")

    async def talk():
        messages = list(QUESTION)
        for new in (RESULT, {"role": "user", "content": "sure?"}, None):
            reply = await recorder.call(MAIN_ROLE, messages, TOOLS)
            messages += [reply.message, *([new] if new else [])]
        return messages

    messages = asyncio.run(talk())
    assert renderer.format.calls_style == "Qwen XML"
    arguments = json.loads(messages[1]["tool_calls"][0]["function"]["arguments"])
    assert arguments == {"zip": "75001", "limit": 3}
    assert [message.get("reasoning_content") for message in messages[1::2]] == ["hm", None, "so"]
    assert [message["content"] for message in messages[3::2]] == ["Ada", "sure"]
    (sequence,) = recorder.sequences
    assert renderer.tokenizer.decode(sequence.tokens) == renderer.template.render(messages, TOOLS)


def test_half_a_call_is_not_shown_while_it_is_sampled():
    _, recorder = recorder_of(JSON, '{"name": "find", "parameters": {"limit": 3}}', "well, {a: 1}")
    shown = []
    first = asyncio.run(recorder.call(MAIN_ROLE, QUESTION, TOOLS, on_text=shown.append))
    assert first.tool_calls[0].name == "find"
    assert shown == []
    asyncio.run(recorder.call(MAIN_ROLE, [*QUESTION, first.message, RESULT], TOOLS, on_text=shown.append))
    assert "".join(shown) == "well, {a: 1}"
