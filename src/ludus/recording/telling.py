"""`Telling`: a reply is passed on while it is sampled, and only what later tokens can't change any more."""

from __future__ import annotations

from ludus.recording.backend import OnText
from ludus.renderers.parsing import reasoning
from ludus.types import FinishReason, Message

_SLOWER = 32
"""Reading a reply costs as much as it is long: it is read at every token of its first few, then ever more rarely, so
that all readings together cost a multiple of its length and not its square."""


class Telling:
    """Tells the reasoning, then the visible text, piece by piece.

    Args:
        on_text: told the visible text, if anybody.
        on_thought: told the reasoning; all of it before any text.
    """

    def __init__(self, on_text: OnText | None, on_thought: OnText | None) -> None:
        self._on_text, self._on_thought = on_text, on_thought
        self.listening = on_text is not None or on_thought is not None
        self._told = self._thought = 0
        self._next = 0

    def due(self, num_tokens: int, finish: FinishReason | None) -> bool:
        """Whether a reply of so many tokens should be read now."""
        if not self.listening or (finish is None and num_tokens < self._next):
            return False
        self._next = num_tokens + 1 + num_tokens // _SLOWER
        return True

    def __call__(self, message: Message, malformed: str, finish: FinishReason | None) -> None:
        """Pass on what is new in a reply as it reads so far."""
        text, thought = message.get("content") or "", reasoning(message) or ""
        if finish is None:
            thought = thought if text else _settled(thought)
            text = "" if malformed else _settled(text)
        self._thought = _pass_on(thought, self._thought, self._on_thought)
        self._told = _pass_on(text, self._told, self._on_text)


def _settled(text: str) -> str:
    """No call or tag that is not finished, and no white space or half character at the end, which parsing may yet take
    away."""
    return text.partition("<")[0].rstrip("\ufffd").rstrip()


def _pass_on(text: str, told: int, listener: OnText | None) -> int:
    """Tell a listener what is new; how much it has been told then."""
    if listener is not None and len(text) > told:
        listener(text[told:])
    return max(told, len(text))
