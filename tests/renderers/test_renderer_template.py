"""Templates: the same text as transformers' `apply_chat_template`, and clear errors."""

import json
from pathlib import Path

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from ludus.errors import ModelFolderError, UsageError
from ludus.renderers.template import ChatTemplate

TEMPLATES = Path(__file__).parent.parent / "data" / "templates"
NAMES = ["qwen3", "qwen3_training", "qwen2_5", "llama3"]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Find <pages> & 'more'",
            "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
        },
    }
]


def tool_call(**arguments):
    return {"id": "call_0", "type": "function", "function": {"name": "search", "arguments": arguments}}


CONVERSATIONS = [
    [{"role": "user", "content": "hi"}],
    [{"role": "system", "content": "Be <brief> & kind."}, {"role": "user", "content": "  Zoë\n"}],
    [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4", "reasoning_content": "easy"},
        {"role": "user", "content": "sure?"},
        {"role": "assistant", "content": "yes", "thinking": "still easy"},
    ],
    [
        {"role": "system", "content": "You search."},
        {"role": "user", "content": "who?"},
        {"role": "assistant", "content": "", "tool_calls": [tool_call(query='é < "q"'), tool_call(query="b")]},
        {"role": "tool", "tool_call_id": "call_0", "content": "one"},
        {"role": "tool", "tool_call_id": "call_0", "content": "two"},
        {"role": "assistant", "content": "it is <think>odd</think> text"},
    ],
]


def hugging_face(source, messages, tools, add_generation_prompt, **variables):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()), bos_token="<s>", chat_template=source
    )
    return tokenizer.apply_chat_template(
        messages, tools=tools or None, add_generation_prompt=add_generation_prompt, tokenize=False, **variables
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("add_generation_prompt", [False, True])
def test_same_text_as_transformers(name, messages, add_generation_prompt):
    source = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    for tools in ([], TOOLS):
        for variables in ({}, {"enable_thinking": False}):
            template = ChatTemplate(source, {"bos_token": "<s>", **variables})
            ours = template.render(messages, tools, add_generation_prompt=add_generation_prompt)
            assert ours == hugging_face(source, messages, tools, add_generation_prompt, **variables)


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
        "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
        "  {% if true %}\n  a\n  {% endif %}\n b",
        "{{ messages | tojson(indent=2) }}|{{ {'b': 1, 'a': '<é>'} | tojson(sort_keys=true) }}",
        "{% set ns = namespace(a=1) %}{% set ns.a = ns.a + 1 %}{{ ns.a }}{{ ns.missing }}",
        "{{ dict(a=1).items() | list }}",
        "{{ messages[0].missing is defined }}{{ messages[0].items() | list }}{{ messages[0]['content'].upper() }}",
        "{{ messages[0].keys }}|{{ strftime_now('%Y') }}|{{ tools is none }}{{ documents is none }}",
        "{% for m in messages %}{{ loop.previtem }}{{ loop.last }}{{ loop.nope is defined }}{% endfor %}",
    ],
)
@pytest.mark.slow
def test_same_jinja_as_transformers(source):
    messages = CONVERSATIONS[1]
    ours = ChatTemplate(source, {"bos_token": "<s>"}).render(messages)
    theirs = hugging_face(source, messages, [], False)
    strip = lambda text: text.split(" at 0x")[0]  # noqa: E731 - addresses of bound methods differ
    assert strip(ours) == strip(theirs)


def test_openai_messages_are_made_ready():
    source = "{% for m in messages %}[{{ m.content }}{{ m.tool_calls[0].function.arguments.query }}]{% endfor %}"
    call = tool_call()
    call["function"]["arguments"] = '{"query": "x"}'
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert ChatTemplate(source).render([message]) == "[x]"
    assert message["content"] is None, "the caller's message must stay as it is"


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[7].content }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__ }}{{ ''.__class__.__mro__ }}",
        "{{ namespace(_x=1) }}",
        "{{ messages + 1 }}",
    ],
)
def test_what_a_template_can_not_do_is_a_usage_error(source):
    with pytest.raises(UsageError, match="the chat template can't render this conversation"):
        ChatTemplate(source).render([{"role": "user", "content": "hi"}])


def test_bad_syntax_names_the_line():
    with pytest.raises(UsageError, match="line 2"):
        ChatTemplate("a\n{% if %}")


def test_template_of_a_folder(tmp_path):
    config = {
        "bos_token": "<s>",
        "eos_token": {"content": "</s>"},
        "chat_template": "{{ bos_token }}old{{ eos_token }}",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert ChatTemplate.from_folder(tmp_path).render([]) == "<s>old</s>"
    (tmp_path / "chat_template.jinja").write_text("{{ x }}{{ eos_token }}")
    assert ChatTemplate.from_folder(tmp_path, {"x": "new"}).render([]) == "new</s>"


def test_named_templates(tmp_path):
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    template = ChatTemplate.from_folder(tmp_path)
    assert template.render([]) == "plain"
    assert template.render([], TOOLS) == "tools"


@pytest.mark.parametrize("config", [{}, {"chat_template": [{"name": "rag", "template": ""}]}, {"chat_template": 3}])
def test_a_folder_without_a_template(tmp_path, config):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match="no chat template; expected chat_template"):
        ChatTemplate.from_folder(tmp_path)


def test_a_folder_with_a_broken_template(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(ModelFolderError, match=r"chat_template\.jinja: the chat template is not valid Jinja"):
        ChatTemplate.from_folder(tmp_path)
