"""`ctx`: the world of one rollout."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ludus.protocols import Model
from ludus.types import MAIN_ROLE, Message, Rollout, Task

if TYPE_CHECKING:
    from ludus.authoring.tools import Tool


@dataclass
class Context:
    """What an environment's methods see of one rollout."""

    task: Task
    models: Mapping[str, Model]
    """The model of each role."""
    random: random.Random
    """Seeded from the run's seed, the task, the visit, the sample and the attempt."""
    tools: dict[str, Tool] = field(default_factory=dict)
    """By name; `setup` may add or remove some."""
    state: Any = None
    """Whatever `setup` puts here."""
    sandbox: Any = None
    messages: list[Message] = field(default_factory=list)
    """The default loop's conversation so far."""
    stop: str = ""
    """Why the loop ended; a custom `run` may set it."""
    rollout: Rollout | None = None
    """The record, once the loop has ended."""

    @property
    def model(self) -> Model:
        """The main role's model."""
        return self.models[MAIN_ROLE]

    def injectable(self) -> dict[str, Any]:
        """What functions may ask for by name."""
        available = {
            "ctx": self, "task": self.task, "state": self.state, "sandbox": self.sandbox, "random": self.random,
        }  # fmt: skip
        if self.rollout is not None:
            available["rollout"] = self.rollout
        return available
