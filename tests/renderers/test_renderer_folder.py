"""Model folders: files that do not belong together are named in one line; exports keep the thinking setting."""

import json

import pytest
import tokenizers
from transformers import AutoTokenizer

from ludus.errors import ModelFolderError, UsageError
from ludus.renderers.chat import ChatRenderer
from ludus.renderers.template import ChatTemplate
from ludus.renderers.tokenizer import ByteTokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and m.reasoning_content and (preserve_thinking or loop.last) %}"
    "{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>"]


def folder_of(path, template=CHATML, special=SPECIAL, vocab_size=400):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(["the cat"], trainer)
    tokenizer.save(str(path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": special[-1] if special else None}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "config.json").write_text(json.dumps({"vocab_size": vocab_size}))
    (path / "chat_template.jinja").write_text(template)
    return path


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_files_that_belong_together(tmp_path):
    renderer = ChatRenderer.from_folder(folder_of(tmp_path))
    assert renderer.stop_token_ids == set(renderer.tokenizer.encode("<|im_end|>"))


def test_a_template_of_another_model(tmp_path):
    folder_of(tmp_path, special=["<|eot_id|>"])
    with pytest.raises(ModelFolderError) as error:
        ChatRenderer.from_folder(tmp_path)
    text = one_line(error)
    assert str(tmp_path) in text
    assert "writes '<|im_start|>' (and 1 more), which tokenizer.json does not have as one token" in text


def test_what_ends_a_reply_has_to_be_one_token_whatever_its_brackets(tmp_path):
    folder_of(tmp_path, "{% for m in messages %}{{ m.role + ': ' + m.content + '</s>' }}{% endfor %}")
    with pytest.raises(ModelFolderError, match=r"writes '</s>', which tokenizer\.json does not have as one token"):
        ChatRenderer.from_folder(tmp_path)


def test_a_tokenizer_of_a_larger_model(tmp_path):
    folder_of(tmp_path, vocab_size=100)
    with pytest.raises(ModelFolderError) as error:
        ChatRenderer.from_folder(tmp_path)
    assert "tokens, but the embedding has 100 rows (vocab_size in config.json)" in one_line(error)
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"vocab_size": 100}}))
    with pytest.raises(ModelFolderError, match="the embedding has 100 rows"):
        ChatRenderer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ raise_exception('no\nuse') }}", "the chat template can't render this conversation: no use"),
        ("{{ 1 / 0 }}", "the chat template can't render this conversation: division by zero"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "the chat template can't render this conversation"),
        ("{{ messages[0].content }}", "does not show the text of an assistant message"),
    ],
)
def test_a_template_that_fails(tmp_path, template, problem):
    folder_of(tmp_path, template)
    with pytest.raises(ModelFolderError) as error:
        ChatRenderer.from_folder(tmp_path)
    text = one_line(error)
    assert text.startswith(str(tmp_path))
    assert problem in text


# --- keep_thinking ------------------------------------------------------------------------------------------------

CONVERSATION = [
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "reasoning_content": "easy", "content": "4"},
    {"role": "user", "content": "sure?"},
]


@pytest.mark.parametrize("keep", [None, True, False])
def test_an_exported_folder_renders_the_same(tmp_path, keep):
    renderer = ChatRenderer.from_folder(folder_of(tmp_path), keep_thinking=keep)
    renderer.save_template(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        CONVERSATION, add_generation_prompt=True, tokenize=False
    )
    assert theirs == renderer.tokenizer.decode(renderer.render(CONVERSATION))
    assert ("easy" in theirs) == bool(keep)
    assert ChatRenderer.from_folder(tmp_path).render(CONVERSATION) == renderer.render(CONVERSATION)
    if keep is None:
        assert (tmp_path / "chat_template.jinja").read_text() == CHATML


def test_a_template_for_tools_is_exported_too(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("tools" + CHATML)
    ChatRenderer.from_folder(tmp_path, keep_thinking=True).save_template(tmp_path)
    tools = [{"type": "function", "function": {"name": "f", "description": "F.", "parameters": {}}}]
    theirs = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(CONVERSATION, tools=tools, tokenize=False)
    assert theirs == ChatTemplate.from_folder(tmp_path).render(CONVERSATION, tools)
    assert theirs.startswith("tools<|im_start|>")
    assert "easy" in theirs


@pytest.mark.parametrize(
    ("template", "keep", "problem"),
    [
        (
            CHATML.replace("preserve_thinking or ", ""),
            True,
            "drops the thinking of earlier replies, and does not read any",
        ),
        (CHATML.replace("preserve_thinking or loop.last", "true"), False, "shows the thinking of all replies"),
        (CHATML.replace("(preserve_thinking or loop.last)", "preserve_thinking and false"), True, "shows no thinking"),
        (
            CHATML.replace("preserve_thinking or", "preserve_thinking and false or"),
            True,
            "whatever preserve_thinking says",
        ),
    ],
)
def test_what_a_template_can_not_do_is_refused(tmp_path, template, keep, problem):
    folder_of(tmp_path, template)
    with pytest.raises(UsageError) as error:
        ChatRenderer.from_folder(tmp_path, keep_thinking=keep)
    text = one_line(error)
    assert text.startswith(f"keep_thinking = {str(keep).lower()} can't be honoured: the chat template ")
    assert problem in text


# --- templates that want messages in their own way ------------------------------------------------------------------

MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}"
    "{% elif m.role == 'tool' %}"
    "{% if m.tool_call_id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}"
    "{{ '[TOOL_RESULTS]' + m.tool_call_id + ':' + m.content + '[/TOOL_RESULTS]' }}"
    "{% elif m.tool_calls %}{{ '[TOOL_CALLS] [' }}{% for c in m.tool_calls %}"
    "{% if c.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}"
    "{{ (c.function | tojson)[:-1] + ', \"id\": \"' + c.id + '\"}' + (']' if loop.last else ', ') }}"
    "{% endfor %}{{ eos_token }}"
    "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(("id", "kept"), [(', "id": "abc123def"', "abc123def"), ("", None)])
def test_mistral(id, kept):
    tokens = ["<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"]
    template = ChatTemplate(MISTRAL, {"bos_token": "<s>", "eos_token": "</s>"})
    renderer = ChatRenderer(ByteTokenizer(tokens, eos_token="</s>"), template)
    assert renderer.format.calls_style == "Mistral"
    question = CONVERSATION[:1]
    sampled = renderer.tokenizer.encode(f'[TOOL_CALLS] [{{"name": "f", "arguments": {{"q": "x"}}{id}}}]</s>')
    reply, _ = renderer.parse(sampled, "stop")
    result = {"role": "tool", "tool_call_id": reply["tool_calls"][0]["id"], "content": "5"}
    inserted = renderer.extend([*question, reply], [result], ended_by=sampled[-1])
    shown = renderer.tokenizer.decode(inserted)
    if kept:
        assert shown == "[TOOL_RESULTS]abc123def:5[/TOOL_RESULTS]"
        assert [*renderer.render(question), *sampled, *inserted] == renderer.render([*question, reply, result])
    else:
        assert len(shown.removeprefix("[TOOL_RESULTS]").partition(":")[0]) == 9
