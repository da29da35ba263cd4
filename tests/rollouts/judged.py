"""Environments with judges, which worker processes can import."""

import ludus
from ludus.judging import Criterion, Judge, Rubric, Ruler
from ludus.types import MAIN_ROLE, Task


class Judged(ludus.Environment):
    """A judge says whether a reply is good."""

    roles = (MAIN_ROLE, "judge")
    rubric = Rubric((Criterion("good", "It is good."),), Judge(timeout_s=5))

    def tasks(self, split):
        return [Task(prompt=f"{split} {i}") for i in range(8)]

    @ludus.reward
    async def fine(self, rollout, models):
        return await self.rubric(rollout, models["judge"])


class Compared(Judged):
    """A judge compares replies."""

    ruler = Ruler(judge=Judge(timeout_s=5))

    @ludus.reward
    def fine(self, rollout):
        return 0.0

    @ludus.reward(weight=2.0)
    async def best(self, group, models):
        return await self.ruler(group, models["judge"])
