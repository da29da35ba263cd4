"""The chat templates that the TRL library carries, and what each does when a conversation goes on. Not a test itself.

`python tests/renderers/published.py` prints the table of docs/templates.md.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from ludus.errors import UsageError
from ludus.renderers.chat import ChatRenderer
from ludus.renderers.formats.tagged import TaggedFormat
from ludus.renderers.template import ChatTemplate
from ludus.renderers.tokenizer import ByteTokenizer

_TRL = importlib.util.find_spec("trl")  # looked up, not imported: that would take seconds
FOLDER = Path(_TRL.origin).parent / "chat_templates" if _TRL is not None and _TRL.origin else None
SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.jinja"))} if FOLDER else {}

FAMILIAR = (
    "cohere2", "deepseekv3", "gemma3", "gemma4", "glm4moe", "gptoss", "lfm2_2_5", "llama3_1", "phi3_5", "qwen2_5", "qwen3",
    "qwen3_6",
)  # fmt: skip
"""Of each format one; the others are in the slow suite."""
EACH = [pytest.param(name, marks=() if name in FAMILIAR else pytest.mark.slow) for name in SOURCES]

BOS, EOS = "<s>", "</s>"
VARIABLES = {"bos_token": BOS, "eos_token": EOS}
# Every special token that stands in a template, and the tags that models have tokens for.
_SPECIAL = re.compile(
    r"<\|[^\s<>|'\"]+\|>|<｜[^\s<>｜]+｜>|</?(?:think|tool_call)>|<\|\"\|>|<[a-z_]+(?:\||_of_[a-z]+)>|<\|[a-z_]+>"
)
SPECIAL = list(dict.fromkeys([BOS, EOS, *(token for source in SOURCES.values() for token in _SPECIAL.findall(source))]))

PARAMETERS = {
    "query": {"type": "string", "description": "What to look for."},
    "limit": {"type": "integer", "description": "Most results."},
    "exact": {"type": "boolean", "description": "Nothing similar."},
    "pages": {"type": "array", "items": {"type": "string"}, "description": "Where."},
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Find <pages> & 'more'.",
            "parameters": {"type": "object", "properties": PARAMETERS, "required": ["query"]},
        },
    }
]
QUESTION = [{"role": "user", "content": "who?"}]
MORE = [{"role": "user", "content": "sure?"}]
RESULT = [{"role": "tool", "tool_call_id": "call_0", "name": "search", "content": "it was Ada"}]
THOUGHT = "let me see"


def call(i=0, **arguments):
    return {"id": f"call_{i}", "type": "function", "function": {"name": "search", "arguments": arguments}}


ANSWER = {"role": "assistant", "content": "Ada"}
CALL = {"role": "assistant", "content": "", "tool_calls": [call(query="ada", limit=3, exact=True, pages=["a", "b"])]}
CASES = {
    "answer": (ANSWER, MORE),
    "thought, answer": ({**ANSWER, "reasoning_content": THOUGHT}, MORE),
    "call": (CALL, RESULT),
    "thought, call": ({**CALL, "reasoning_content": THOUGHT}, RESULT),
}


@cache
def renderer_of(name, keep_thinking=None):
    """Of a published template, with a tokenizer that has all their special tokens."""
    template = ChatTemplate(SOURCES[name], VARIABLES)
    return ChatRenderer(ByteTokenizer(SPECIAL, eos_token=EOS), template, keep_thinking=keep_thinking)


def honours(name, keep_thinking):
    try:
        renderer_of(name, keep_thinking)
    except UsageError:
        return False
    return True


def tools_of(renderer):
    return TOOLS if renderer.format.calls_style else []


def written(renderer, messages, reply):
    """What a model writes for a reply after these messages, as texts: the template's own way, and other ways if any."""
    tools = tools_of(renderer)
    prompt = renderer.template.render(messages, tools, add_generation_prompt=True)
    shown = renderer.template.render([*messages, reply], tools).removesuffix(renderer.ends.of(reply).text)
    thought = reply.get("reasoning_content", "")
    if shown.startswith(prompt) and thought in shown:
        text = shown.removeprefix(prompt)
        return list(dict.fromkeys([text, renderer.format.without_empty_thinking(text)]))
    if not isinstance(renderer.format, TaggedFormat):  # the reply changes what stood before it, but is written as ever
        return written(renderer, QUESTION, reply)
    # The template shows the reply without its thinking, or changes the block that its prompt opens.
    tags = renderer.format.thinking
    opened = renderer.format.opened_by(prompt)
    before = prompt if shown.startswith(prompt) else prompt.rpartition(tags.open.rstrip())[0]
    _, _, rest = shown.removeprefix(before).rpartition(tags.close)
    block = f"{thought}\n{tags.close}" if opened else f"{tags.open}{thought}\n{tags.close}"
    return [block + rest if thought or opened else rest]


class Step(NamedTuple):
    """One reply of a recording, and what follows it."""

    prompt: list[int]
    sampled: list[int]
    message: dict
    inserted: list[int] | None


def step(renderer, messages, text, reply, new):
    """Record a reply that a model wrote: sample it, read it, go on."""
    tools = tools_of(renderer)
    end = renderer.ends.of(reply).token_id
    prompt = renderer.render(messages, tools)
    sampled = [*renderer.tokenizer.encode(text), end]
    message, malformed = renderer.parse(sampled, "stop", tools, prompt=prompt)
    assert malformed == ""
    return Step(prompt, sampled, message, renderer.extend([*messages, message], new, tools, ended_by=end))


def why(renderer, messages, reply, new):
    """Why a recording forks, seen in what the template writes."""
    tools = tools_of(renderer)
    prompt = renderer.template.render(messages, tools, add_generation_prompt=True)
    whole = renderer.template.render([*messages, reply, *new], tools, add_generation_prompt=True)
    if (thought := reply.get("reasoning_content")) and thought not in whole:
        return "drops earlier thinking"
    if not whole.startswith(prompt):
        return "shows the prompt's thinking block differently later"
    return "ends earlier replies with another token"


class Row(NamedTuple):
    """What is measured of one template: its styles, and `extends`, `forks` or `–` for each case."""

    calls: str
    thinking: str
    cells: tuple[str, ...]
    reasons: str


def measure(name, keep_thinking=None):
    """See `Row`. What was inserted is compared with the whole conversation, token for token."""
    renderer = renderer_of(name, keep_thinking)
    cells, reasons = [], []
    for reply, new in CASES.values():
        if (reply.get("tool_calls") and not renderer.format.calls_style) or (
            reply.get("reasoning_content") and not renderer.format.thinking_style
        ):
            cells.append("–")
            continue
        extends = False
        for text in written(renderer, QUESTION, reply):
            one = step(renderer, QUESTION, text, reply, new)
            if one.inserted is not None:
                whole = renderer.render([*QUESTION, one.message, *new], tools_of(renderer))
                assert [*one.prompt, *one.sampled, *one.inserted] == whole
                extends = True
        cells.append("extends" if extends else "forks")
        if not extends:
            reasons.append(why(renderer, QUESTION, reply, new))
    format = renderer.format
    thinking = format.thinking_style.replace("|", "\\|")
    thinking = f"`{thinking}`" if thinking else "–"
    return Row(format.calls_style or "–", thinking, tuple(cells), "; ".join(dict.fromkeys(reasons)))


def table():
    """Lines of a Markdown table: templates that do the same share a row."""
    rows = {}
    for name in SOURCES:
        default = measure(name)
        rows.setdefault(default, []).append(f"`{name}`")
        for keep in (True, False):
            if honours(name, keep) and (row := measure(name, keep)) != default:
                rows.setdefault(row, []).append(f"`{name}` with `keep_thinking = {str(keep).lower()}`")
    lines = ["| template | tool calls | thinking | " + " | ".join(CASES) + " | forks because it |"]
    lines += ["| --- " * (len(CASES) + 4) + "|"]
    for row in sorted(rows):
        cells = [", ".join(rows[row]), row.calls, row.thinking, *row.cells, row.reasons]
        lines.append("|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
