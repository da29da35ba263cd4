"""Every template that the TRL library carries renders whole conversations as `apply_chat_template` does, or not at all."""

import functools
import json

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from published import BOS, EACH, EOS, SOURCES, TOOLS, VARIABLES, call, honours
from transformers import PreTrainedTokenizerFast

from ludus.errors import UsageError
from ludus.renderers.template import ChatTemplate
from ludus.renderers.thinking import KEEPS, with_defaults, with_thinking

if not SOURCES:
    pytest.skip("the library trl is not installed", allow_module_level=True)

# What these read is not what OpenAI's format says, and is made of it.
READ_PARTS = {"idefics3", "smolvlm", "llava_next"}
READ_TEXT_ARGUMENTS = {"deepseekv3"}

text = st.text(st.characters(codec="utf-8"), max_size=12)
values = (
    text | st.integers(-9, 9) | st.booleans() | st.lists(text, max_size=2) | st.dictionaries(text, text, max_size=2)
)
calls = st.lists(
    st.dictionaries(st.sampled_from(["query", "limit", "exact"]), values, max_size=2), min_size=1, max_size=2
)


@st.composite
def conversations(draw):
    messages = [{"role": "system", "content": draw(text)}] if draw(st.booleans()) else []
    messages.append({"role": "user", "content": draw(text)})
    for _ in range(draw(st.integers(0, 3))):
        thought = {"reasoning_content": draw(text)} if draw(st.booleans()) else {}
        if draw(st.booleans()):
            made = [call(i, **arguments) for i, arguments in enumerate(draw(calls))]
            messages.append({"role": "assistant", **thought, "content": draw(st.just("") | text), "tool_calls": made})
            for one in made:
                messages.append({"role": "tool", "tool_call_id": one["id"], "name": "search", "content": draw(text)})
        else:
            messages.append({"role": "assistant", **thought, "content": draw(text)})
            messages.append({"role": "user", "content": draw(text)})
    return messages if draw(st.booleans()) else messages[:-1] or messages


@functools.cache
def hugging_face(source):
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()),
        bos_token=BOS,
        eos_token=EOS,
        chat_template=source,
    )


def as_read(name, messages):
    """The conversation as the template wants it."""
    family = name.removesuffix("_training")
    if family in READ_PARTS:
        return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]
    if name in READ_TEXT_ARGUMENTS:

        def textual(one):
            function = one["function"]
            return {**one, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}

        return [
            {**message, "tool_calls": [textual(one) for one in message["tool_calls"]]}
            if "tool_calls" in message
            else message
            for message in messages
        ]
    return messages


def agree(name, source, variables, messages, tools, add_generation_prompt):
    try:
        template = ChatTemplate(source, {**VARIABLES, **variables})
        ours = template.render(messages, tools, add_generation_prompt=add_generation_prompt)
    except UsageError:
        ours = None
    try:
        theirs = hugging_face(source).apply_chat_template(
            as_read(name, messages),
            tools=tools or None,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
            **variables,
        )
    except Exception:
        theirs = None
    return ours == theirs


@given(
    name=st.sampled_from(list(SOURCES)),
    messages=conversations(),
    tools=st.sampled_from([[], TOOLS]),
    prompt=st.booleans(),
    variables=st.fixed_dictionaries({}, optional={name: st.booleans() for name in ("enable_thinking", *KEEPS)}),
)
@settings(max_examples=150, deadline=None)
@pytest.mark.slow
def test_same_text_or_both_refuse(name, messages, tools, prompt, variables):
    # Some templates write today's date: asked once more, both have the same day.
    arguments = (name, SOURCES[name], variables, messages, tools, prompt)
    assert agree(*arguments) or agree(*arguments)


WHOLE = [
    {"role": "user", "content": "who?"},
    {
        "role": "assistant",
        "reasoning_content": "let me see",
        "content": "",
        "tool_calls": [call(query="ada", exact=True)],
    },
    {"role": "tool", "tool_call_id": "call_0", "name": "search", "content": "it was Ada"},
    {"role": "assistant", "reasoning_content": "so", "content": "Ada"},
    {"role": "user", "content": "sure?"},
    {"role": "assistant", "content": "yes"},
]


@pytest.mark.parametrize("name", EACH)
def test_same_text_for_every_template(name):
    for messages in (WHOLE, WHOLE[:3], WHOLE[4:], WHOLE[:1] + WHOLE[3:]):
        for tools in ([], TOOLS):
            for prompt in (False, True):
                arguments = (name, SOURCES[name], {}, messages, tools, prompt)
                assert agree(*arguments) or agree(*arguments)
    template = ChatTemplate(SOURCES[name], VARIABLES)
    assert "sure?" in template.render(WHOLE[:1] + WHOLE[3:]), "no template refuses this one"


@pytest.mark.parametrize("name", EACH)
def test_an_exported_template_keeps_thinking_as_told(name):
    for keep in (True, False):
        if honours(name, keep):
            assert_keeps_thinking(name, keep)


def assert_keeps_thinking(name, keep):
    template = with_thinking(ChatTemplate(SOURCES[name], VARIABLES), keep)
    source = with_defaults(SOURCES[name], template)
    told = {name: value for name, value in template.variables.items() if name in KEEPS}
    for tools in ([], TOOLS):
        for messages in (WHOLE, WHOLE[:1] + WHOLE[3:]):
            try:
                ours = template.render(messages, tools, add_generation_prompt=True)
            except UsageError:
                continue
            theirs = hugging_face(source).apply_chat_template(
                as_read(name, messages), tools=tools or None, add_generation_prompt=True, tokenize=False
            )
            assert theirs == ours
            again = hugging_face(SOURCES[name]).apply_chat_template(
                as_read(name, messages), tools=tools or None, add_generation_prompt=True, tokenize=False, **told
            )
            assert again == ours


def test_an_exported_template_can_still_be_told_otherwise():
    template = with_thinking(ChatTemplate(SOURCES["qwen3_6"], VARIABLES), True)
    tokenizer = hugging_face(with_defaults(SOURCES["qwen3_6"], template))
    messages = [WHOLE[0], *WHOLE[3:]]
    kept, dropped = (
        tokenizer.apply_chat_template(messages, tokenize=False, **told) for told in ({}, {"preserve_thinking": False})
    )
    assert "<think>\nso\n</think>" in kept
    assert "<think>\nso\n</think>" not in dropped
