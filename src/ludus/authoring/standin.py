"""Models that stand in for somebody else in a rollout: a user, an API, a judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ludus.errors import Boundary, ModelCallFailed, RolloutError
from ludus.protocols import Model
from ludus.types import Message, Reply


async def reply_of(model: Model, talk: Sequence[Message], who: str, boundary: Boundary, **sampling: Any) -> Reply:
    """What a model that stands in for somebody says.

    Args:
        model: the role's.
        talk: its conversation.
        who: whom it stands in for, for the error.
        boundary: where the rollout fails if it does not answer.
        **sampling: fields of `Sampling`.

    Raises:
        RolloutError: no answer. That is never the policy's fault, not even where a context is full.
    """
    try:
        return await model.chat(talk, **sampling)
    except ModelCallFailed as error:
        raise RolloutError(f"{who} did not answer: {error}", boundary, "infrastructure") from error
