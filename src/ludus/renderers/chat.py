"""Messages <-> token ids for one chat template and tokenizer.

The incremental property, that a conversation's ids are the recorded ids followed by those of the new messages, is
proven for each call on the template's own text, never assumed: templates drop old thinking, add empty thinking blocks,
or move the system message. Recorded ids are never rendered again; where the proof fails, `extend` returns None.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ludus.errors import UsageError
from ludus.protocols import Tokenizer
from ludus.renderers.parsing import parse_reply
from ludus.renderers.template import ChatTemplate, arguments_of, reasoning
from ludus.renderers.tokenizer import ChatTokenizer, HFTokenizer
from ludus.types import FinishReason, Message

_PROBE = "Xprobe7X"  # no template contains it, trims it or rewrites it
_EMPTY_THINKING = "<think>\n\n</think>\n\n"
_MAX_PROMPTS = 512  # about as many as there are rollouts in flight


class ChatRenderer:
    """Renders conversations with a chat template, and parses replies in the Hermes format.

    Args:
        tokenizer: encodes what the template writes.
        template: the model's own.
        keep_thinking: whether earlier replies keep their reasoning, for templates that can choose; None is the
            template's default.

    Raises:
        UsageError: the template can't render one question and one reply.
    """

    def __init__(self, tokenizer: ChatTokenizer, template: ChatTemplate, *, keep_thinking: bool | None = None) -> None:
        self.tokenizer: Tokenizer = tokenizer
        self.keep_thinking = keep_thinking
        variables = {**template.variables, **_thinking_variables(keep_thinking)}
        self.template = ChatTemplate(template.source, variables, tool_source=template.tool_source)
        question = [{"role": "user", "content": "hi"}]
        shown = self.template.render([*question, {"role": "assistant", "content": _PROBE}])
        _, found, self._suffix = shown.rpartition(_PROBE)
        if not found:
            raise UsageError("the chat template does not show the text of an assistant message")
        prompt = self.template.render(question, add_generation_prompt=True)
        self._thinking = prompt.rstrip().endswith("<think>")
        # What ends a reply: the suffix up to and including its first special token.
        self.end_token_id = next((i for i in tokenizer.encode(self._suffix) if i in tokenizer.special_ids), None)
        own_stop = () if self.end_token_id is None else (self.end_token_id,)
        self.stop_token_ids: frozenset[int] = frozenset((*own_stop, *tokenizer.eos_token_ids))
        self._stop = [*own_stop, *tokenizer.eos_token_ids][:1]
        self._prompts: dict[bytes, str] = {}

    @classmethod
    def from_folder(cls, folder: Path, keep_thinking: bool | None = None) -> ChatRenderer:
        """The renderer of a Hugging Face model folder. Raises ModelFolderError, MissingExtra."""
        return cls(HFTokenizer(folder), ChatTemplate.from_folder(folder), keep_thinking=keep_thinking)

    def render(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Ids of the whole conversation, ready for the assistant's next reply. Raises UsageError."""
        return self.tokenizer.encode(self._prompt(messages, tools))

    def extend(
        self,
        messages: Sequence[Message],
        new: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        *,
        ended_by: int | None,
    ) -> list[int] | None:
        """Ids that follow a recorded reply when `new` messages come after it; see `protocols.Renderer`.

        None where the template, shown the longer conversation, does not begin with the prompt of the reply, then what
        the reply says (up to white space at the ends of its parts), then what ends a reply.
        """
        reply = messages[-1]
        if ended_by is not None and ended_by != self.end_token_id:  # another end-of-text token than the template's own
            return None
        # The template would close the thinking block of a reply that ended in it; the recorded tokens did not.
        if reasoning(reply) and not reply.get("content") and not reply.get("tool_calls"):
            return None
        try:
            turn = self._turn(messages, self._prompt([*messages, *new], tools), tools)
        except UsageError:
            return None
        if turn is None or _meaning(parse_reply(turn[0], thinking=self._thinking)[0]) != _meaning(reply):
            return None
        return self._after(turn[1], stopped=ended_by is not None)

    def parse(self, ids: Sequence[int], finish_reason: FinishReason) -> tuple[Message, str]:
        """The assistant message in sampled ids (stop token or not), and why a tool call in it was malformed, or ""."""
        end = len(ids) - 1 if ids and ids[-1] in self.stop_token_ids else len(ids)
        text = self.tokenizer.decode(ids[:end])
        return parse_reply(text, thinking=self._thinking, finish_reason=finish_reason)

    def demonstration(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()
    ) -> tuple[list[int], list[int]]:
        """Ids of a whole conversation and a mask that is 1 on what the assistant wrote, stop tokens included.

        The ids are those that sampling the replies one by one would have recorded.

        Raises:
            UsageError: the template can't render the conversation, or changes earlier replies when more follows.
        """
        replies = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not replies:
            ids = self.tokenizer.encode(self.template.render(messages, tools))
            return ids, [0] * len(ids)
        ids = self.render(messages[: replies[0]], tools)
        mask = [0] * len(ids)
        for i, following in zip(replies, [*replies[1:], None], strict=True):
            whole = (
                self.template.render(messages, tools)
                if following is None
                else self._prompt(messages[:following], tools)
            )
            turn = self._turn(messages[: i + 1], whole, tools)
            if turn is None:
                raise UsageError(_not_extended(i, following))
            written = self.tokenizer.encode(turn[0]) + self._stop
            is_end = i == len(messages) - 1
            inserted = [] if is_end else self._after(turn[1], stopped=True)
            if inserted is None:
                raise UsageError(_not_extended(i, following))
            ids += written + inserted
            mask += [1] * len(written) + [0] * len(inserted)
        return ids, mask

    def _prompt(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> str:
        """The conversation as text, up to where the next reply begins."""
        # What one turn ends with, the next one begins with; recognised by content, as callers build lists anew.
        key = _content_key(messages, tools)
        text = self._prompts.pop(key, None)
        if text is None:
            text = self.template.render(messages, tools, add_generation_prompt=True)
            if len(self._prompts) >= _MAX_PROMPTS:
                del self._prompts[next(iter(self._prompts))]
        self._prompts[key] = text
        return text

    def _turn(self, messages: Sequence[Message], whole: str, tools: Sequence[dict[str, Any]]) -> tuple[str, str] | None:
        """The last message of `messages`, a reply, as it stands in the longer text `whole`, and what follows its end.

        None if `whole` does not begin with the reply's prompt, the reply and the suffix.
        """
        prompt = self._prompt(messages[:-1], tools)
        shown = self.template.render(messages, tools)
        if not (shown.startswith(prompt) and shown.endswith(self._suffix)):
            return None
        reply = shown[len(prompt) : len(shown) - len(self._suffix)]
        if not whole.startswith(shown):
            # Some templates show an empty thinking block in the last message only.
            reply = reply.removeprefix(_EMPTY_THINKING)
            shown = prompt + reply + self._suffix
            if not whole.startswith(shown):
                return None
        return reply, whole[len(shown) :]

    def _after(self, tail: str, *, stopped: bool) -> list[int] | None:
        """Ids of what ends a reply and the text after it, without the stop token if that was sampled."""
        # The suffix is encoded too where it is dropped: some tokenizers treat the start of a text in their own way.
        ids = self.tokenizer.encode(self._suffix + tail)
        if not stopped:
            return ids
        return None if self.end_token_id is None else ids[ids.index(self.end_token_id) + 1 :]


def _content_key(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> bytes:
    try:
        content = msgspec.json.encode((messages, tools))
    except UnicodeEncodeError:  # lone surrogates, which UTF-8 can't hold
        content = json.dumps((list(messages), list(tools))).encode()
    return hashlib.blake2b(content, digest_size=16).digest()


def _thinking_variables(keep_thinking: bool | None) -> dict[str, bool]:
    """The setting, under the names that templates know it by."""
    if keep_thinking is None:
        return {}
    return {
        "keep_thinking": keep_thinking,
        "preserve_thinking": keep_thinking,
        "clear_thinking": not keep_thinking,
        "truncate_history_thinking": not keep_thinking,
    }


def _meaning(message: Message) -> tuple[Any, ...]:
    """What has to be the same in a recorded reply and in the template's view of it."""
    thought, content = reasoning(message), message.get("content") or ""
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return (
        thought if thought is None else thought.strip(),
        content.strip() if isinstance(content, str) else content,
        [(call["name"], arguments_of(call)) for call in calls],
    )


def _not_extended(i: int, following: int | None) -> str:
    where = "what follows it" if following is None else f"message {following}"
    return (
        f"the chat template shows message {i} (assistant) differently once {where} comes after it, so the conversation "
        f"is not one sequence: use a template that keeps earlier replies as they were (keep_thinking, if it has it), "
        f"or split the conversation into one demonstration per reply"
    )
