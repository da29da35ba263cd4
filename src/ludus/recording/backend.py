"""What may stand behind a model: tokens (an engine and a renderer), or messages (an API, an expert, a person, a script)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.protocols import Renderer, Sampler, WeightsRef
from ludus.types import Message, Reply, Sampling

OnText = Callable[[str], None]
"""Told each newly sampled piece of a reply's visible text."""


@runtime_checkable
class MessageBackend(Protocol):
    """Answers conversations with messages; no tokens are known, so nothing can be trained from it."""

    name: str

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """The next reply. Raises ModelCallFailed."""
        ...


@dataclass(frozen=True)
class TokenBackend:
    """Answers with tokens: a sampler, the renderer of its chat template, and which weights to use."""

    name: str
    sampler: Sampler
    renderer: Renderer
    weights: WeightsRef = WeightsRef()


@runtime_checkable
class Bindable(Protocol):
    """A backend that has to know the rollout it speaks in: the expert, a script, a person."""

    def bind(self, env: Environment, ctx: Context, role: str) -> MessageBackend:
        """The backend of one rollout and role."""
        ...


Backend = MessageBackend | TokenBackend
