"""The renderer: turn by turn gives the ids of the whole conversation, or None; demonstrations agree with it."""

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ludus.errors import UsageError
from ludus.protocols import Renderer
from ludus.renderers.chat import ChatRenderer
from ludus.renderers.template import ChatTemplate
from ludus.renderers.tokenizer import ByteTokenizer, HFTokenizer

TEMPLATES = Path(__file__).parent.parent / "data" / "templates"
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|begin|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
SPECIAL += ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>", "<|pad|>", "<think>", "</think>"]

TINY = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}"
    "{% for c in m.tool_calls or [] %}{{ '\n' if not loop.first or m.content }}"
    '{{ \'<tool_call>\n{"name": "\' + c.function.name + \'", "arguments": \' }}{{ c.function.arguments | tojson }}'
    "{{ '}\n</tool_call>' }}{% endfor %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
THINKING = (  # opens the block in the prompt, and drops old thinking unless told to keep it
    "{% for m in messages %}{{ '<|' + m.role + '|>' }}"
    "{% if m.role == 'assistant' and (keep_thinking or loop.last) %}"
    "{{ '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}"
)
TOOLS = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}]


def source_of(name):
    path = TEMPLATES / f"{name}.jinja"
    return {"tiny": TINY, "thinking": THINKING}.get(name) or path.read_text(encoding="utf-8")


def renderer_of(name, keep_thinking=None, **variables):
    template = ChatTemplate(source_of(name), {"bos_token": "<|begin|>", **variables})
    return ChatRenderer(ByteTokenizer(SPECIAL, eos_token="<|pad|>"), template, keep_thinking=keep_thinking)


def bpe_folder(folder):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    tokenizer.train_from_iterator([source_of("qwen3"), source_of("qwen2_5")], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|pad|>", "bos_token": "<|begin|>"}))
    (folder / "chat_template.jinja").write_text(source_of("qwen3_training"), encoding="utf-8")
    return folder


# Text that templates leave as it is: no white space at its ends, no tags.
text = st.text(st.characters(codec="utf-8", exclude_characters="<", exclude_categories=["C", "Z"]), min_size=1)
arguments = st.dictionaries(text, st.integers(0, 9) | text, max_size=2)


@st.composite
def turns(draw, tools, thinking):
    """Replies as a model writes them, each with the messages that come after it."""
    out = []
    for _ in range(draw(st.integers(1, 3))):
        calls = draw(st.lists(arguments, max_size=2)) if tools else []
        content = draw(text if not calls else st.just("") | text)
        reply = f"<think>\n{draw(text)}\n</think>\n\n" if thinking else ""
        reply += content
        for i, values in enumerate(calls):
            body = json.dumps({"name": "search", "arguments": values}, ensure_ascii=False)
            reply += ("\n" if i or content else "") + f"<tool_call>\n{body}\n</tool_call>"
        answers = [{"role": "tool", "tool_call_id": f"call_{i}", "content": draw(text)} for i in range(len(calls))]
        out.append((reply, answers or [{"role": "user", "content": draw(text)}]))
    return out


def play(renderer, first, turns, tools, *, stopped=True):
    """What a recording does: render once, then only insert. Returns messages, ids and who wrote them."""
    messages, ids = list(first), renderer.render(first, tools)
    mask = [0] * len(ids)
    stop = [min(renderer.stop_token_ids - set(renderer.tokenizer.encode("<|pad|>")))] if stopped else []
    for reply, new in turns:
        sampled = renderer.tokenizer.encode(reply) + stop
        message, malformed = renderer.parse(sampled, "stop" if stopped else "length")
        assert malformed == ""
        messages.append(message)
        inserted = renderer.extend(messages, new, tools, ended_by=stop[0] if stop else None)
        assert inserted is not None
        ids = ids + sampled + inserted
        mask += [1] * len(sampled) + [0] * len(inserted)
        messages += new
    return messages, ids, mask


@pytest.mark.parametrize("stopped", [True, False])
@pytest.mark.parametrize(
    ("name", "tools", "thinking"),
    [
        ("tiny", TOOLS, False),
        ("qwen2_5", TOOLS, False),
        ("qwen3_training", TOOLS, True),
        ("llama3", [], False),
    ],
)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_turn_by_turn_is_the_whole_conversation(name, tools, thinking, stopped, data):
    renderer = renderer_of(name)
    first = [{"role": "user", "content": data.draw(text)}]
    messages, ids, mask = play(renderer, first, data.draw(turns(tools, thinking)), tools, stopped=stopped)
    assert renderer.tokenizer.decode(ids) == renderer.template.render(messages, tools, add_generation_prompt=True)
    assert ids == renderer.render(messages, tools)
    if stopped:  # up to the generation prompt
        shown, shown_mask = renderer.demonstration(messages, tools)
        assert ids[: len(shown)] == shown
        assert mask[: len(shown)] == shown_mask
        assert sum(shown_mask) == sum(mask)


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_thinking_is_kept_while_one_question_is_answered(data):
    """Qwen3 keeps the thinking of tool turns until the next question."""
    renderer = renderer_of("qwen3")
    played = [(reply, new) for reply, new in data.draw(turns(TOOLS, True)) if new[0]["role"] == "tool"]
    assume(played)
    messages, ids, _ = play(renderer, [{"role": "user", "content": "who?"}], played, TOOLS)
    assert ids == renderer.render(messages, TOOLS)


@pytest.fixture(scope="module")
def merging(tmp_path_factory):
    return ChatRenderer.from_folder(bpe_folder(tmp_path_factory.mktemp("bpe")))


@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_turn_by_turn_with_merged_tokens(merging, data):
    renderer = merging
    messages, ids, mask = play(renderer, [{"role": "user", "content": "who?"}], data.draw(turns(TOOLS, True)), TOOLS)
    assert ids == renderer.render(messages, TOOLS)
    shown, shown_mask = renderer.demonstration(messages, TOOLS)
    assert (shown, shown_mask) == (ids[: len(shown)], mask[: len(shown)])


QUESTION = [{"role": "user", "content": "2 + 2?"}]
MORE = [{"role": "user", "content": "sure?"}]
ANSWER = [{"role": "tool", "tool_call_id": "call_0", "content": "5"}]


def reply(content="4", **fields):
    return {"role": "assistant", **fields, "content": content}


@pytest.mark.parametrize(
    ("name", "message", "new"),
    [
        ("qwen3", reply(reasoning_content="hm"), MORE),  # old thinking goes
        ("qwen3", reply(reasoning_content=""), ANSWER),  # so does an empty block that was sampled
        ("qwen3_training", reply(), MORE),  # an empty block appears that was not sampled
        ("qwen2_5", reply(reasoning_content="hm"), MORE),  # never shows thinking
        ("qwen3", reply("a </think> b"), MORE),  # taken for thinking
        ("thinking", reply(reasoning_content="hm"), MORE),
        ("qwen3_training", reply("", reasoning_content="cut off"), MORE),  # the block was not closed
        ("tiny", reply(), [{"role": "user", "content": 3}]),  # the template fails
    ],
)
def test_what_does_not_extend_is_none(name, message, new):
    renderer = renderer_of(name)
    assert renderer.extend([*QUESTION, message], new, ended_by=renderer.ends.answer.token_id) is None


def test_a_plain_reply_extends_although_the_last_one_shows_an_empty_block():
    renderer = renderer_of("qwen3")
    ids = renderer.extend([*QUESTION, reply()], MORE, ended_by=renderer.ends.answer.token_id)
    assert renderer.tokenizer.decode(ids) == "\n<|im_start|>user\nsure?<|im_end|>\n<|im_start|>assistant\n"


def test_what_the_prompt_says_about_thinking_must_stay_too():
    renderer = renderer_of("qwen3", enable_thinking=False)
    assert renderer.tokenizer.decode(renderer.render(QUESTION)).endswith("<think>\n\n</think>\n\n")
    assert renderer.extend([*QUESTION, reply()], MORE, ended_by=renderer.ends.answer.token_id) is None


def test_keep_thinking_is_told_to_the_template():
    renderer = renderer_of("thinking", keep_thinking=True)
    assert renderer.keep_thinking is True
    sampled = renderer.tokenizer.encode("hm\n</think>\n\n4<|end|>")
    message, _ = renderer.parse(sampled, "stop")
    assert message == reply(reasoning_content="hm")
    ids = (
        renderer.render(QUESTION)
        + sampled
        + renderer.extend([*QUESTION, message], MORE, ended_by=renderer.ends.answer.token_id)
    )
    assert ids == renderer.render([*QUESTION, message, *MORE])


def test_the_system_message_can_not_move():
    source = "{{ messages | length }}" + TINY
    renderer = ChatRenderer(ByteTokenizer(SPECIAL), ChatTemplate(source))
    assert renderer.extend([*QUESTION, reply()], MORE, ended_by=renderer.ends.answer.token_id) is None


def test_stop_tokens_are_the_template_s_and_the_folder_s():
    tokenizer = ByteTokenizer(SPECIAL)
    for name, token in (("tiny", "<|end|>"), ("qwen3", "<|im_end|>"), ("llama3", "<|eot_id|>")):
        assert renderer_of(name).stop_token_ids == {*tokenizer.encode(token), *tokenizer.encode("<|pad|>")}


@pytest.mark.parametrize("stop", ["", "<|end|>", "<|pad|>"])
def test_the_stop_token_is_not_text(stop):
    renderer = renderer_of("tiny")
    assert renderer.parse(renderer.tokenizer.encode("hi" + stop), "stop")[0]["content"] == "hi"


@given(st.lists(st.integers(0, 300)))
@settings(max_examples=50, deadline=None)
def test_any_ids_parse(ids):
    assert renderer_of("tiny").parse(ids, "length")[0]["role"] == "assistant"


def test_lone_surrogates_render():
    renderer = renderer_of("tiny")
    assert (
        renderer.tokenizer.decode(renderer.render([{"role": "user", "content": "\ud800"}]))
        == "<|user|>?<|end|><|assistant|>"
    )


def test_a_template_without_an_end_of_reply_does_not_extend():
    plain = ChatTemplate("{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}")
    renderer = ChatRenderer(ByteTokenizer(SPECIAL, eos_token="<|pad|>"), plain)
    assert renderer.extend([*QUESTION, reply()], MORE, ended_by=min(renderer.stop_token_ids)) is None
    with pytest.raises(UsageError):
        renderer.demonstration([*QUESTION, reply(), *MORE])


def test_a_template_that_hides_replies_is_refused():
    with pytest.raises(UsageError, match="does not show the text of an assistant message"):
        ChatRenderer(ByteTokenizer(SPECIAL), ChatTemplate("{{ messages[0].content }}"))


def test_a_demonstration_marks_content_reasoning_calls_and_stop_tokens():
    renderer = renderer_of("qwen3_training")
    call = {"id": "call_0", "type": "function", "function": {"name": "search", "arguments": '{"q": "x"}'}}
    messages = [*QUESTION, reply("", reasoning_content="hm", tool_calls=[call]), *ANSWER, reply(reasoning_content="ok")]
    ids, mask = renderer.demonstration(messages, TOOLS)
    written = renderer.tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])
    assert written == (
        '<think>\nhm\n</think>\n\n<tool_call>\n{"name": "search", "arguments": {"q": "x"}}\n</tool_call><|im_end|>'
        "<think>\nok\n</think>\n\n4<|im_end|>"
    )
    assert renderer.tokenizer.decode(ids) == renderer.template.render(messages, TOOLS).removesuffix("\n")


def test_a_demonstration_that_ends_with_another_message():
    ids, mask = renderer_of("tiny").demonstration([*QUESTION, reply(), *MORE])
    assert renderer_of("tiny").tokenizer.decode(ids) == "<|user|>2 + 2?<|end|><|assistant|>4<|end|><|user|>sure?<|end|>"
    assert sum(mask) == 2


def test_a_demonstration_without_replies_has_nothing_to_learn():
    ids, mask = renderer_of("tiny").demonstration(QUESTION)
    assert renderer_of("tiny").tokenizer.decode(ids) == "<|user|>2 + 2?<|end|>"
    assert mask == [0] * len(ids)


def test_a_demonstration_that_the_template_rewrites_is_refused():
    messages = [*QUESTION, reply(reasoning_content="hm"), *MORE, reply(reasoning_content="ok")]
    with pytest.raises(UsageError, match=r"message 1 \(assistant\) differently once message 3 comes after it"):
        renderer_of("qwen3").demonstration(messages)


def test_implements_the_protocol(tmp_path):
    renderer: Renderer = ChatRenderer.from_folder(bpe_folder(tmp_path), keep_thinking=True)
    assert isinstance(renderer, ChatRenderer)
    assert isinstance(renderer.tokenizer, HFTokenizer)
    assert renderer.keep_thinking is True


def test_another_end_of_text_token_than_the_template_s_does_not_extend():
    renderer = renderer_of("tiny")
    (other,) = renderer.stop_token_ids - {renderer.ends.answer.token_id}
    assert renderer.extend([*QUESTION, reply()], MORE, ended_by=other) is None
