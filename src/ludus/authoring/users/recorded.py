"""A user who says what was recorded, whatever is said to them: transcripts play again without a model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ludus.authoring.users.user import Utterance


class RecordedUser:
    """Says the lines in order, and leaves when there are no more.

    Args:
        lines: what the user said, from the first that is still to be said.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = deque(lines)

    async def speak(self, heard: str | None) -> Utterance:
        """See `User.speak`."""
        return Utterance(self._lines.popleft()) if self._lines else Utterance("", "done")
