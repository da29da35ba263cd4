"""`reword:ENV`: the same tasks in other words, by rules: what a model understands should not hang on them.

Text is put around a task or its white space is changed; what is asked stays, and so do answers, ids and scorers. A model
that scores worse has learnt the wording: compare the two evaluations with `ludus compare`, task by task. Only tasks whose
prompt is a single text of the user's, or ends with one, can be reworded.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec

from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.authoring.wrapping import Wrapper
from ludus.errors import ConfigError, RolloutError, UnknownName
from ludus.types import MAIN_ROLE, Message, Task

FRAMES = {
    "polite": ("Hello! I would be glad of your help with the following.\n\n{}\n\nThank you very much.",
               "Could you please help me with this one?\n\n{}\n\nMany thanks in advance."),
    "aside": ("I had meant to do this on Tuesday, but the weather was too good.\n\n{}",
              "{}\n\nMy neighbour says that this is an easy one; we shall see."),
    "framed": ("### Exercise\n{}\n### End of the exercise", "Here is what I need to know:\n\"\"\"\n{}\n\"\"\""),
    "spaced": ("\n\n{}\n\n\n", "   {}   "),
}  # fmt: skip
"""Ways of putting a task, by name. None says anything of the answer, or of its form."""


class Reword(Wrapper):
    """Another environment, whose tasks are put in other words."""

    prefix = "reword"
    version = "1"

    def __init__(self, env: str | Environment, *, way: str = "all", wording: int = 0, **options: Any) -> None:
        """
        Args:
            env: an environment, or what `ludus eval ENV` takes.
            way: polite, aside, framed or spaced; all draws one for each task.
            wording: seed of what is drawn.
            **options: of the environment.
        """
        if way != "all" and way not in FRAMES:
            raise UnknownName("way of rewording", way, ["all", *FRAMES])
        self.way, self.wording = way, wording
        super().__init__(env, **options)

    def tasks(self, split: str) -> Iterator[Task]:
        """Those of the environment, reworded. Raises ConfigError for one whose prompt can't be."""
        for task in self.inner.tasks(split):
            yield self._reworded(task)

    async def run(self, ctx: Context) -> None:
        """The loop of the environment. Raises RolloutError where that shows the model nothing of the task's words."""
        await super().run(ctx)
        own = [call for call in await ctx.model.calls() if call.role == MAIN_ROLE]
        words = _last_text(ctx.task)
        if own and not any(words in str(message.get("content")) for call in own for message in call.messages):
            name = self.inner.describe().id
            raise RolloutError(f"reword: {name} shows the model other words than its tasks', which can't be changed")

    def _reworded(self, task: Task) -> Task:
        rng = random.Random(f"{self.wording} {task.id}")
        frame = rng.choice(FRAMES[rng.choice(list(FRAMES)) if self.way == "all" else self.way])
        prompt = task.prompt
        if isinstance(prompt, str):
            return msgspec.structs.replace(task, prompt=frame.replace("{}", prompt))
        last: Message = prompt[-1] if prompt else {}
        if last.get("role") != "user" or not isinstance(last.get("content"), str):
            raise ConfigError(f"reword: the prompt of task {task.id} does not end with a text of the user's")
        return msgspec.structs.replace(
            task, prompt=[*prompt[:-1], {**last, "content": frame.replace("{}", last["content"])}]
        )


def _last_text(task: Task) -> str:
    """What a reworded task asks, without the white space around it."""
    return str(task.messages()[-1].get("content")).strip()
