"""`User`: somebody an agent talks to."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

Ending = Literal["", "satisfied", "gave_up", "lost_patience", "done"]
"""Why a user leaves: they have what they came for, see that they will not get it, have waited too long, or have said all
that was recorded of them. "" stays."""


class Utterance(msgspec.Struct, frozen=True):
    """What a user says, and whether they leave with it.

    >>> Utterance("thanks, bye", "satisfied").leaves
    True
    """

    text: str
    """"" says nothing, which only who leaves may do."""
    ending: Ending = ""

    @property
    def leaves(self) -> bool:
        return bool(self.ending)


class User(Protocol):
    """Who takes turns with the agent in one rollout."""

    async def speak(self, heard: str | None) -> Utterance:
        """What comes next.

        Args:
            heard: what the agent has just said; None where the user begins.

        Raises:
            RolloutError: nobody is there to speak.
        """
        ...
