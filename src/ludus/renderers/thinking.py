"""Whether earlier replies keep their reasoning: told to templates that can choose, checked, and written into an export.

Templates know the setting by different names. Whether one honours it is tried, not looked up: some read a variable and
drop the thinking of answers all the same.
"""

from __future__ import annotations

from ludus.errors import UsageError
from ludus.renderers.formats.probes import ANSWER, PROBE_TOOLS, QUESTION, RESULT, THOUGHT, THOUGHTFUL
from ludus.renderers.template import ChatTemplate
from ludus.types import Message

KEEPS = {
    "keep_thinking": True,
    "preserve_thinking": True,
    "clear_thinking": False,
    "truncate_history_thinking": False,
}
"""Variables that templates read, with the value that keeps old reasoning."""


def with_thinking(template: ChatTemplate, keep: bool | None) -> ChatTemplate:
    """The template, told whether to keep the reasoning of earlier replies.

    Args:
        template: the model's own.
        keep: None leaves it at the template's default.

    Raises:
        UsageError: the template can't do what is asked.
    """
    if keep is None:
        return template
    settings = {name: keeps == keep for name, keeps in KEEPS.items() if template.reads(name)}
    chosen = ChatTemplate(template.source, {**template.variables, **settings}, tool_source=template.tool_source)
    kept = [_is_kept(chosen, reply) for reply in THOUGHTFUL if _is_shown(chosen, [*QUESTION, reply])]
    if keep and not kept:
        raise UsageError("keep_thinking = true can't be honoured: the chat template shows no thinking")
    if kept != [keep] * len(kept):
        does = "drops the thinking of earlier replies" if keep else "shows the thinking of all replies"
        names = " and ".join(settings) or f"any of {', '.join(KEEPS)}"
        told = f"whatever {names} says" if settings else f"and does not read {names}"
        raise UsageError(f"keep_thinking = {str(keep).lower()} can't be honoured: the chat template {does}, {told}")
    return chosen


def with_defaults(source: str, template: ChatTemplate) -> str:
    """A template's source with the setting that it was told as its default: callers may still say otherwise."""
    names = [name for name in KEEPS if name in template.variables]
    lines = [
        f"{{%- set {name} = {name} if {name} is defined else {str(template.variables[name]).lower()} %}}\n"
        for name in names
    ]
    return "".join(lines) + source


def _is_kept(template: ChatTemplate, reply: Message) -> bool:
    rest = [RESULT, ANSWER] if reply.get("tool_calls") else []
    return _is_shown(template, [*QUESTION, reply, *rest, *QUESTION])


def _is_shown(template: ChatTemplate, messages: list[Message]) -> bool:
    tools = PROBE_TOOLS if any(message.get("tool_calls") for message in messages) else ()
    try:
        return THOUGHT in template.render(messages, tools)
    except UsageError:
        return False
