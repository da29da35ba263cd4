"""`Persona`: who a user is, what they want and what they know. Plain data, so that a task can hold it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from ludus.errors import ConfigError
from ludus.types import Task

KEY = "user"
"""Where a task's `info` has its user."""
Text = Annotated[str, msgspec.Meta(pattern=r"\S")]
"""Text that says something."""


class Change(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A change of mind."""

    after: Annotated[int, msgspec.Meta(ge=1)]
    """Replies of the agent's before it."""
    say: Text
    """What the user then wants, in their own words."""


class Persona(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A user.

    >>> anna = Persona(goal="Return my kettle.", knows={"order number": "K-17"})
    >>> persona_of(Task(prompt=[], info=anna.info())).knows
    {'order number': 'K-17'}
    """

    goal: Text
    """What they want, in words that they would use themselves."""
    about: str = ""
    """Who they are and how they talk; for users that a model plays."""
    knows: dict[Text, Text] = {}
    """What they can tell when asked, by the name that the agent would ask for it by."""
    opening: str = ""
    """What they begin with; by default the goal."""
    patience: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 8
    """Replies of the agent's after which they leave."""
    changes: list[Change] = []
    """In the order in which they come."""
    satisfied_by: list[Text] = []
    """Words of which the agent says some when it is done, whatever their case; for scripted users."""

    def __post_init__(self) -> None:
        turns = [change.after for change in self.changes]
        if sorted(set(turns)) != turns:
            raise ValueError(f"changes must come one after another, but they come after {turns} replies")
        if turns and turns[-1] >= self.patience:
            raise ValueError(f"a change after {turns[-1]} replies never comes: patience is {self.patience}")

    @property
    def begins_with(self) -> str:
        return self.opening if self.opening.strip() else self.goal

    def change_after(self, num_replies: int) -> Change | None:
        """The change of mind that comes now."""
        return next((change for change in self.changes if change.after == num_replies), None)

    def will_change(self, num_replies: int) -> bool:
        """Whether a change of mind is still to come."""
        return any(change.after > num_replies for change in self.changes)

    def info(self) -> dict[str, Any]:
        """As a part of a task's `info`. Raises ConfigError for what persona_of would refuse."""
        _read(value := msgspec.to_builtins(self), f"the user whose goal is {self.goal!r}")
        return {KEY: value}


def persona_of(task: Task) -> Persona:
    """The user of a task. Raises ConfigError where its info has none, or one that is malformed."""
    if KEY not in task.info:
        raise ConfigError(f"task {task.id} has no user: its info needs Persona(goal=...).info()")
    return _read(task.info[KEY], f"the user of task {task.id}")


def _read(value: Any, who: str) -> Persona:
    try:
        return msgspec.convert(value, Persona)
    except msgspec.ValidationError as error:  # what __post_init__ raises is one, too
        why = str(error).replace(r"`str` matching regex '\\S'", "text that is not blank")
        raise ConfigError(f"{who} is malformed: {why}") from None
