"""`prompt:ENV`: another system prompt, such as the one that `ludus optimize` found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.authoring.through import Through
from ludus.authoring.wrapping import Wrapper
from ludus.errors import ConfigError
from ludus.protocols import Model
from ludus.types import MAIN_ROLE, Message, Reply


class Prompt(Wrapper):
    """Another environment with another system prompt."""

    prefix = "prompt"
    version = "1"
    once = False

    def __init__(self, env: str | Environment, *, text: str = "", file: str = "", **options: Any) -> None:
        """
        Args:
            env: an environment, or what `ludus eval ENV` takes.
            text: the system prompt, in place of the environment's own.
            file: a file that holds it.
            **options: of the environment.
        """
        if bool(text) == bool(file):
            raise ConfigError("prompt: give either text=PROMPT or file=PATH")
        try:
            self.text = text or Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"prompt: can't read {file}: {getattr(error, 'strerror', None) or error}") from None
        super().__init__(env, **options)
        self.system_prompt = self.text

    async def setup(self, ctx: Context) -> None:
        """Put the one who gives the prompt in the model's place."""
        ctx.models = {**ctx.models, MAIN_ROLE: _Prompted(ctx.model, self.inner.system_prompt, self.text)}
        await super().setup(ctx)


class _Prompted(Through):
    """Every conversation begins with the prompt; what else a system message says is kept after it."""

    def __init__(self, model: Model, old: str, new: str) -> None:
        super().__init__(model)
        self._old, self._new = old, new

    async def ask(
        self, agent: str, messages: Sequence[Message], *, tools: Sequence[Any] = (), **sampling: Any
    ) -> Reply:
        """See `Through.ask`."""
        return await self.below(agent, self._prompted(messages), tools=tools, **sampling)

    def _prompted(self, messages: Sequence[Message]) -> list[Message]:
        first = messages[0] if messages else {}
        if first.get("role") != "system":
            return [{"role": "system", "content": self._new}, *messages]
        said = str(first.get("content") or "")
        rest = "" if said == self._old else f"\n\n{said}"
        return [{**first, "content": self._new + rest}, *messages[1:]]
