"""What is asked of an optimisation, on which tasks, and what came of it."""

from __future__ import annotations

from typing import Any

import msgspec

from ludus.authoring.environment import Environment
from ludus.authoring.tasks import take
from ludus.errors import ConfigError
from ludus.types import Task

MINIBATCH = 3
"""Tasks of each try, before and after a prompt is changed."""


class OptimizeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a prompt is looked for."""

    num_train: int = 60
    """Tasks that GEPA reflects on."""
    num_val: int = 40
    """Tasks that decide which prompts are kept; others than those."""
    num_test: int = 100
    """Tasks of the comparison at the end."""
    samples: int = 1
    """Rollouts a task in that comparison."""
    max_rollouts: int = 500
    """For GEPA; the comparison's are not counted."""
    seed: int = 0
    concurrency: int = 64
    timeout_s: float = 600.0
    max_tokens: int | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        least = self.num_val + 2 * MINIBATCH
        if self.max_rollouts <= least:
            raise ConfigError(
                f"max_rollouts must be more than {least}: {self.num_val} score the first prompt, and each try takes "
                f"{2 * MINIBATCH} more before it is scored itself; got {self.max_rollouts}"
            )
        if min(self.num_train, self.num_val, self.num_test, self.samples) < 1 or self.num_test < 2:
            raise ConfigError("num_train, num_val and samples must be at least 1, num_test at least 2")


class Optimized(msgspec.Struct, kw_only=True):
    """What came of it."""

    env: str
    model: str
    reflection_model: str
    prompt: str
    """The best prompt; what was there before, where none did better on the tasks that decide."""
    before: dict[str, Any]
    after: dict[str, Any]
    """Evaluations on the held-out tasks."""
    gain: float
    interval: tuple[float, float]
    """95 %, of the paired difference."""
    num_prompts: int
    num_rollouts: int
    """That GEPA took."""
    num_excluded: int
    num_reflections: int
    tokens: dict[str, int]
    """Of everything: rollouts, reflection, comparison."""
    cost: float
    seconds: float
    stopped: str = ""
    out: str = ""

    def verdict(self) -> str:
        """One sentence."""
        low, high = self.interval
        if low > 0:
            return "The prompt is better on tasks that it was not made for: the 95 % interval leaves out 0."
        if high < 0:
            return "The prompt is worse on tasks that it was not made for: keep the one before."
        return "No gain is shown on tasks that it was not made for: the 95 % interval includes 0."


def split_tasks(env: Environment, config: OptimizeConfig) -> tuple[list[Task], list[Task], list[Task]]:
    """Tasks to reflect on, tasks that decide, and held-out ones: three lists without a task in common.

    Raises:
        ConfigError: the environment has too few.
    """
    train = "train" if "train" in env.splits else env.splits[0]
    test = "test" if "test" in env.splits else env.splits[-1]
    wanted = config.num_train + config.num_val
    if train == test:
        raise ConfigError(
            f"{env.describe().id} has the one split {train!r}, and no held-out tasks to measure a prompt on"
        )
    own = take(env, train, wanted)
    if len(own) < wanted:
        raise ConfigError(
            f"{env.describe().id} has {len(own)} tasks in {train!r}, but num_train + num_val are {wanted}"
        )
    seen = {task.content_key() for task in own}
    held_out = [task for task in take(env, test, config.num_test) if task.content_key() not in seen]
    if len(held_out) < 2:
        raise ConfigError(f"{env.describe().id} has {len(held_out)} tasks in {test!r} that are not in {train!r} too")
    return own[: config.num_train], own[config.num_train :], held_out
