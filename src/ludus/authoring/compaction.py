"""`Compacting`: a model that summarises a conversation when it has grown long, and goes on from the summary.

The loop around it keeps its whole conversation and need not know. What the model sees after a summary does not extend
what it saw before, so it is recorded as a new sequence, a fork. The summary is a call like any other: it is trained with
the rest, and so learns to keep what its own later turns need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ludus.authoring.conversations import opening, with_text
from ludus.protocols import Model
from ludus.types import Call, Message, Reply

AGENT = "summary"
"""The name under which summaries are recorded, so that they are not taken for turns."""
ASK = (
    "This conversation is getting long and will go on without its beginning. Write down what is needed to go on: what "
    "was asked, what has been found out and done, what is left to do."
)
BEFORE = "What has happened so far:\n"


class Compacting:
    """Implements `ludus.protocols.Model` around another one; calls have to carry on one conversation.

    Args:
        model: who replies, and summarises.
        after_tokens: a conversation of more tokens than this, last reply included, is summarised before the next.
        after_turns: likewise of more replies since the last summary; for models whose tokens are not known.
        keep_turns: replies at its end, with what follows them, that are kept as they are; at least 1.
        ask: what the model is told in order to summarise.

    Raises:
        ValueError: neither limit is given, or one is not positive.
    """

    def __init__(
        self,
        model: Model,
        *,
        after_tokens: int | None = None,
        after_turns: int | None = None,
        keep_turns: int = 1,
        ask: str = ASK,
    ) -> None:
        limits = [limit for limit in (after_tokens, after_turns) if limit is not None]
        if not limits or min([*limits, keep_turns]) < 1:
            raise ValueError(
                f"give after_tokens or after_turns, and at least 1 each; got {after_tokens=}, {after_turns=}, {keep_turns=}"
            )
        self._model, self._ask = model, ask
        self._after_tokens, self._after_turns, self._keep_turns = after_tokens, after_turns, keep_turns
        self._summary = ""
        self._replaced = 0
        """Messages of the caller's conversation that the summary stands for, its opening included."""
        self._tokens = self._turns = 0
        self.num_summaries = 0

    async def chat(self, messages: Sequence[Message], *, tools: Sequence[Any] = (), **sampling: Any) -> Reply:
        """See `ludus.protocols.Model.chat`; `messages` is the whole conversation, as if nothing had been left out."""
        if self._replaced >= len(messages):
            self._forget()  # another conversation
        if self._too_long():
            await self._summarise(messages, tools, sampling)
        reply = await self._model.chat(self._shown(messages), tools=tools, **sampling)
        self._tokens = reply.usage.prompt_tokens + reply.usage.completion_tokens
        self._turns += 1
        return reply

    @property
    def base_url(self) -> str:
        """The model's own address: nothing is summarised for those who call there."""
        return self._model.base_url

    @property
    def api_key(self) -> str:
        """Of that address."""
        return self._model.api_key

    @property
    def openai(self) -> Any:
        """The model's own client: nothing is summarised for those who use it."""
        return self._model.openai

    def subagent(self, name: str) -> Model:
        """The model underneath: a sub-agent has a conversation of its own."""
        return self._model.subagent(name)

    async def adopt(self, name: str) -> None:
        """See `ludus.protocols.Model.adopt`."""
        await self._model.adopt(name)

    async def calls(self) -> Sequence[Call]:
        """See `ludus.protocols.Model.calls`."""
        return await self._model.calls()

    def _too_long(self) -> bool:
        tokens, turns = self._after_tokens, self._after_turns
        return (tokens is not None and self._tokens > tokens) or (turns is not None and self._turns > turns)

    async def _summarise(self, messages: Sequence[Message], tools: Sequence[Any], sampling: dict[str, Any]) -> None:
        """Replace all but the opening and the last turns, if there is anything in between."""
        replies = [i for i, message in enumerate(messages) if message["role"] == "assistant" and i >= self._replaced]
        if len(replies) <= self._keep_turns:
            return
        until = replies[-self._keep_turns]
        asked = with_text(self._shown(messages[:until]), self._ask)
        reply = await self._model.subagent(AGENT).chat(asked, tools=tools, **sampling)
        self._tokens = self._turns = 0
        if reply.text.strip():  # else nothing was kept: on with the whole conversation, for now
            self._summary, self._replaced = reply.text, until
            self.num_summaries += 1

    def _shown(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation as the model sees it: its opening, the summary, and what came after."""
        if not self._replaced:
            return list(messages)
        return [*with_text(opening(messages), BEFORE + self._summary), *messages[self._replaced :]]

    def _forget(self) -> None:
        self._summary, self._replaced, self._tokens, self._turns = "", 0, 0, 0
