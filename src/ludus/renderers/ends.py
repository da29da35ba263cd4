"""What ends a reply of a chat template: the text it writes after one, and the token that a model stops at.

It may depend on the reply: gpt-oss ends an answer with `<|return|>` and a call with `<|call|>`, and GLM writes nothing
at all, so that its models stop at the first token of the message that comes next.
"""

from __future__ import annotations

from dataclasses import dataclass

from ludus.errors import UsageError
from ludus.renderers.formats.probes import ANSWER, CALL, PROBE_TOOLS, QUESTION, RESULT, TEXT
from ludus.renderers.template import ChatTemplate
from ludus.renderers.tokenizer import ChatTokenizer
from ludus.types import Message


@dataclass(frozen=True)
class End:
    """What stands after a reply at the end of a conversation, and the token that a model ends such replies with."""

    text: str
    token_id: int | None


@dataclass(frozen=True)
class Ends:
    """Of replies with and without tool calls."""

    answer: End
    call: End

    def of(self, message: Message) -> End:
        """What ends this reply."""
        return self.call if message.get("tool_calls") else self.answer


def find_ends(template: ChatTemplate, tokenizer: ChatTokenizer) -> Ends:
    """What ends the replies of a template. Raises UsageError: the template can't render a question and an answer."""
    suffix = check_renders(template)
    longer = _rendered(template, [*QUESTION, ANSWER, *QUESTION])
    following = longer.partition(TEXT)[2] if longer else ""
    answer = End(suffix, _special(tokenizer, suffix + following if not suffix.strip() else suffix))
    return Ends(answer, _end_of_call(template, tokenizer, answer))


def check_renders(template: ChatTemplate) -> str:
    """What stands after an answer. Raises UsageError: the template can't render a question and an answer."""
    _, found, suffix = template.render([*QUESTION, ANSWER]).rpartition(TEXT)
    if not found:
        raise UsageError("the chat template does not show the text of an assistant message")
    return suffix


def _end_of_call(template: ChatTemplate, tokenizer: ChatTokenizer, answer: End) -> End:
    shown = _rendered(template, [*QUESTION, CALL])
    if not shown:
        return answer
    if answer.text and shown.endswith(answer.text):
        return answer
    following = _rendered(template, [*QUESTION, CALL, RESULT])
    if not answer.text and following.startswith(shown):
        return End("", _special(tokenizer, following[len(shown) :]))
    ids = tokenizer.encode(shown)
    last = max((k for k, i in enumerate(ids) if i in tokenizer.special_ids), default=None)
    return answer if last is None else End(tokenizer.decode(ids[last:]), ids[last])


def _rendered(template: ChatTemplate, messages: list[Message]) -> str:
    """ "" where the template refuses the conversation."""
    try:
        return template.render(messages, PROBE_TOOLS if CALL in messages else ())
    except UsageError:
        return ""


def _special(tokenizer: ChatTokenizer, text: str) -> int | None:
    """The first special token in a text."""
    return next((i for i in tokenizer.encode(text) if i in tokenizer.special_ids), None)
