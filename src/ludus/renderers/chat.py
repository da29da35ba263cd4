"""Messages <-> token ids for one chat template and tokenizer.

The incremental property, that a conversation's ids are the recorded ids followed by those of the new messages, is
proven for each call on the template's own text, never assumed: templates drop old thinking, add empty thinking blocks,
or move the system message. Recorded ids are never rendered again; where the proof fails, `extend` returns None. What
each of the published templates does stands in docs/templates.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ludus.errors import ModelFolderError, UsageError
from ludus.protocols import Tokenizer
from ludus.renderers.ends import check_renders, find_ends
from ludus.renderers.formats.detect import find_format
from ludus.renderers.formats.probes import ANSWER, QUESTION, TEXT
from ludus.renderers.parsing import arguments_of, reasoning
from ludus.renderers.template import TEMPLATE_FILE, TOOL_TEMPLATE_FILE, ChatTemplate
from ludus.renderers.thinking import with_defaults, with_thinking
from ludus.renderers.tokenizer import ChatTokenizer, HFTokenizer
from ludus.renderers.vocabulary import check_vocabulary
from ludus.types import FinishReason, Message

_MAX_PROMPTS = 512  # about as many as there are rollouts in flight
_PROMPT_END = 32  # tokens of a prompt that say whether it opens a thinking block


class ChatRenderer:
    """Renders conversations with a chat template, and parses replies in the format that the template writes.

    Args:
        tokenizer: encodes what the template writes.
        template: the model's own.
        keep_thinking: whether earlier replies keep their reasoning, for templates that can choose; None is the
            template's default.

    Raises:
        UsageError: the template can't render one question and one reply, or can't do what `keep_thinking` says.
    """

    def __init__(self, tokenizer: ChatTokenizer, template: ChatTemplate, *, keep_thinking: bool | None = None) -> None:
        self.tokenizer: Tokenizer = tokenizer
        self.keep_thinking = keep_thinking
        self.template = with_thinking(template, keep_thinking)
        self.ends = find_ends(self.template, tokenizer)
        self.format = find_format(self.template, self.ends)
        prompt = self.template.render(QUESTION, add_generation_prompt=True)
        self._opened = self.format.opened_by(prompt)
        self._space = _space_before(self.template, prompt)
        own = [end.token_id for end in (self.ends.answer, self.ends.call) if end.token_id is not None]
        self.stop_token_ids: frozenset[int] = frozenset((*own, *tokenizer.eos_token_ids))
        self._eos = tokenizer.eos_token_ids[:1]
        self._special = tokenizer.special_ids
        self._prompts: dict[bytes, str] = {}

    @classmethod
    def from_folder(cls, folder: Path, keep_thinking: bool | None = None) -> ChatRenderer:
        """The renderer of a Hugging Face model folder.

        Raises:
            ModelFolderError: a file is missing or damaged, the template can't render a question and a reply, or
                template, tokenizer and weights do not belong together.
            UsageError: the template can't do what `keep_thinking` says.
            MissingExtra: the library `tokenizers` is not installed.
        """
        tokenizer, template = HFTokenizer(folder), ChatTemplate.from_folder(folder)
        try:
            check_renders(template)
        except UsageError as error:
            raise ModelFolderError(f"{folder}: {error}") from None
        check_vocabulary(folder, tokenizer, template)
        return cls(tokenizer, template, keep_thinking=keep_thinking)

    def save_template(self, folder: Path) -> None:
        """Write the chat template into a model folder, with `keep_thinking` as its default.

        Whoever renders that template then does so as this renderer does, without being told.
        """
        for name, source in ((TEMPLATE_FILE, self.template.source), (TOOL_TEMPLATE_FILE, self.template.tool_source)):
            if source is not None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(with_defaults(source, self.template), encoding="utf-8")

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
        # The template would close the thinking block of a reply that ended in it; the recorded tokens did not.
        if reasoning(reply) and not reply.get("content") and not reply.get("tool_calls"):
            return None
        try:
            turn = self._turn(messages, self._prompt([*messages, *new], tools), tools)
        except UsageError:
            return None
        if turn is None:
            return None
        shown, _ = self.format.parse(turn.text, opened=turn.opened, tools=tools)
        return self._after(turn, ended_by) if _meaning(shown) == _meaning(reply) else None

    def parse(
        self,
        ids: Sequence[int],
        finish_reason: FinishReason,
        tools: Sequence[dict[str, Any]] = (),
        *,
        prompt: Sequence[int] | None = None,
    ) -> tuple[Message, str]:
        """The assistant message in sampled ids; see `protocols.Renderer`."""
        end = len(ids) - 1 if ids and ids[-1] in self.stop_token_ids else len(ids)
        opened = self._opened
        if prompt is not None:
            opened = self.format.opened_by(self.tokenizer.decode(prompt[-_PROMPT_END:]))
        text = self.tokenizer.decode(ids[:end]).removeprefix(self._space)
        return self.format.parse(text, opened=opened, tools=tools, finish_reason=finish_reason)

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
            end = self.ends.of(messages[i]).token_id
            stop = list(self._eos) if end is None else [end]
            whole = (
                self.template.render(messages, tools)
                if following is None
                else self._prompt(messages[:following], tools)
            )
            turn = self._turn(messages[: i + 1], whole, tools)
            if turn is None:
                raise UsageError(_not_extended(i, following))
            written = self.tokenizer.encode(turn.text) + stop
            inserted = [] if i == len(messages) - 1 else self._after(turn, stop[0] if stop else None)
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

    def _turn(self, messages: Sequence[Message], whole: str, tools: Sequence[dict[str, Any]]) -> _Turn | None:
        """The last message of `messages`, a reply, as it stands in the longer text `whole`.

        None if `whole` does not begin with the reply's prompt and the reply.
        """
        prompt, end = self._prompt(messages[:-1], tools), self.ends.of(messages[-1]).text
        shown = self.template.render(messages, tools)
        if not (shown.startswith(prompt) and shown.endswith(end)):
            return None
        text = shown[len(prompt) : len(shown) - len(end)]
        if not whole.startswith(text, len(prompt)):
            # Some templates show an empty thinking block in the last message only.
            text = self.format.without_empty_thinking(text)
        if not (whole.startswith(prompt) and whole.startswith(text, len(prompt))):
            return None
        return _Turn(text, whole[len(prompt) + len(text) :], end, self.format.opened_by(prompt))

    def _after(self, turn: _Turn, ended_by: int | None) -> list[int] | None:
        """Ids of what follows a reply, without the token that ended it. None if that is not what the template writes."""
        # What ends the reply is encoded too where it is dropped: some tokenizers treat the start of a text in their
        # own way.
        ids = self.tokenizer.encode(turn.after)
        first = next((k for k, i in enumerate(ids) if i in self._special), None)
        if first is None or (first and self.tokenizer.decode(ids[:first]).strip()):
            return ids if ended_by is None and turn.after.startswith(turn.end) else None
        if ended_by is None:
            return ids
        return ids[first + 1 :] if ids[first] == ended_by else None


class _Turn(NamedTuple):
    """A reply in the text of a conversation."""

    text: str
    after: str
    """All that comes after it."""
    end: str
    """What comes after it where it is the last message."""
    opened: bool
    """Whether its prompt has opened the reasoning."""


def _space_before(template: ChatTemplate, prompt: str) -> str:
    """White space that the template writes between the prompt and the text of an answer."""
    shown = template.render([*QUESTION, ANSWER])
    between = shown[len(prompt) : shown.rfind(TEXT)] if shown.startswith(prompt) else ""
    return between if between.isspace() else ""


def _content_key(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> bytes:
    try:
        content = msgspec.json.encode((messages, tools))
    except UnicodeEncodeError:  # lone surrogates, which UTF-8 can't hold
        content = json.dumps((list(messages), list(tools))).encode()
    return hashlib.blake2b(content, digest_size=16).digest()


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
