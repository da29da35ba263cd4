"""Which format a chat template's replies have, found by what it writes.

A few replies are rendered, and the format is the one that reads most of them back as they were. What a template never
shows (reasoning, tool calls) can't be read back, so it is no part of its format: there the reply is plain text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from ludus.errors import UsageError
from ludus.renderers.ends import Ends
from ludus.renderers.formats.atem import ATEM
from ludus.renderers.formats.base import CallSyntax, ReplyFormat
from ludus.renderers.formats.deepseek import DEEPSEEK_V3, DEEPSEEK_V3_1
from ludus.renderers.formats.gemma4 import GEMMA4
from ludus.renderers.formats.glm import GLM
from ludus.renderers.formats.harmony import HARMONY
from ludus.renderers.formats.hermes import HERMES
from ludus.renderers.formats.lfm import LFM
from ludus.renderers.formats.llama3 import LLAMA3
from ludus.renderers.formats.mistral import MISTRAL, MISTRAL_V11
from ludus.renderers.formats.probes import ANSWER, PROBE_TOOLS, QUESTION, REPLIES, TEXT, THOUGHT, TOOL
from ludus.renderers.formats.qwen_xml import QWEN_XML
from ludus.renderers.formats.tagged import TaggedFormat, Tags
from ludus.renderers.parsing import arguments_of
from ludus.renderers.template import ChatTemplate
from ludus.types import Message

THINKING = (
    Tags("<think>", "</think>"),
    Tags("<|channel>thought\n", "<channel|>"),
    Tags("[THINK]", "[/THINK]"),
)
CALLS: tuple[CallSyntax, ...] = (
    HERMES, QWEN_XML, GLM, LLAMA3, DEEPSEEK_V3, DEEPSEEK_V3_1, MISTRAL, MISTRAL_V11, LFM, GEMMA4,
)  # fmt: skip
# Plain text first: what explains no more than something before it is not chosen.
FORMATS: tuple[ReplyFormat, ...] = (
    *(TaggedFormat(tags, calls) for calls, tags in product((None, *CALLS), (None, *THINKING))),
    HARMONY,
    ATEM,
)


@dataclass(frozen=True)
class Shown:
    """A reply as a template shows it at the end of a conversation."""

    message: Message
    text: str
    """From where the prompt ends, or from the thinking block that it has opened, to what ends the reply."""
    opened: bool


def find_format(template: ChatTemplate, ends: Ends) -> ReplyFormat:
    """The format of a template's replies; plain text where nothing more can be told apart."""
    shown = [one for message in REPLIES if (one := _show(template, ends, message)) is not None]
    known = _known_tags(template)
    candidates = [
        format
        for format in FORMATS
        if known is None or not isinstance(format, TaggedFormat) or format.thinking == known
    ]
    return max(candidates, key=lambda format: sum(_reads(format, one) for one in shown))


def _show(template: ChatTemplate, ends: Ends, message: Message) -> Shown | None:
    """None where the template refuses the message, or moves it."""
    tools = PROBE_TOOLS if message.get("tool_calls") else ()
    try:
        prompt = template.render(QUESTION, tools, add_generation_prompt=True)
        whole = template.render([*QUESTION, message], tools)
    except UsageError:
        return None
    for start, opened in _starts(prompt):
        if whole.startswith(start):
            return Shown(message, whole[len(start) :].removesuffix(ends.of(message).text), opened)
    return None


def _starts(prompt: str) -> Iterator[tuple[str, bool]]:
    """Where a reply may begin: where the prompt ends, or before the thinking block at the prompt's end."""
    yield prompt, any(TaggedFormat(tags).opened_by(prompt) for tags in THINKING)
    for tags in THINKING:
        before, opened, inside = prompt.rpartition(tags.open.rstrip())
        if opened and not inside.replace(tags.close, "").strip():
            yield before, False


def _known_tags(template: ChatTemplate) -> Tags | None:
    """The tags that the template opens in its prompt, or takes out of a message's text with all between them."""
    try:
        prompt = template.render(QUESTION, add_generation_prompt=True)
        for tags in THINKING:
            if TaggedFormat(tags).opened_by(prompt):
                return tags
            content = f"{tags.open}{THOUGHT}{tags.close}{TEXT}"
            whole = template.render([*QUESTION, {**ANSWER, "content": content}, *QUESTION])
            if THOUGHT not in whole and TEXT in whole:
                return tags
    except UsageError:
        return None
    return None


def _reads(format: ReplyFormat, shown: Shown) -> bool:
    """Whether the format reads back all that the template shows of a reply, and no more."""
    message, text = shown.message, shown.text
    thought = message.get("reasoning_content") if THOUGHT in text else None
    content = message["content"] if TEXT in text else ""
    calls = message.get("tool_calls", ()) if TOOL in text else ()
    read, _ = format.parse(text, opened=shown.opened)
    return (
        (read.get("reasoning_content") or "").strip() == (thought or "")
        and read["content"].strip() == content
        and _functions(read.get("tool_calls", ())) == _functions(calls)
    )


def _functions(calls: Any) -> list[tuple[str, Any]]:
    return [(call["function"]["name"], arguments_of(call["function"])) for call in calls]
