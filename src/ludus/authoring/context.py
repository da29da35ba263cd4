"""`ctx`: the world of one rollout."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ludus.authoring.subagents import run_subagent
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

    async def subagent(
        self,
        prompt: str | Sequence[Message],
        *,
        name: str = "subagent",
        system: str = "",
        tools: Iterable[Any] | None = None,
        role: str = MAIN_ROLE,
        max_turns: int = 10,
        **sampling: Any,
    ) -> str:
        """Let a sub-agent work until it replies without calling a tool.

        Its calls are recorded as further sequences of this rollout: they share its reward and are trained with it.
        Several may work side by side.

        Args:
            prompt: what it is asked, as text or as a whole conversation.
            name: under which its calls are recorded: up to 64 letters, digits, "_", "-" and ".".
            system: its system prompt.
            tools: functions, as for `@ludus.tool`; None is the rollout's own tools, () none.
            role: whose model it is.
            max_turns: replies after which it is stopped.
            **sampling: fields of `Sampling` for its calls.

        Returns:
            Its last text.

        Raises:
            ModelCallFailed: the model did not answer.
            RolloutError: a tool failed.
            UnknownName: there is no such role.
        """
        return await run_subagent(
            self, prompt, name=name, system=system, tools=tools, role=role, max_turns=max_turns, **sampling
        )

    def injectable(self) -> dict[str, Any]:
        """What functions may ask for by name."""
        available = {
            "ctx": self, "task": self.task, "models": self.models, "state": self.state, "sandbox": self.sandbox,
            "random": self.random,
        }  # fmt: skip
        if self.rollout is not None:
            available["rollout"] = self.rollout
        return available
