"""`Sandboxed`: each rollout has an isolated computer."""

from __future__ import annotations

import logging

import msgspec

from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.errors import SandboxUnavailable, UnknownName
from ludus.protocols import Sandbox
from ludus.sandbox.create import check, create
from ludus.sandbox.spec import LOCAL, REMOTE, SandboxSpec
from ludus.sandbox.tiers import CONTAINING, probe
from ludus.types import Task

log = logging.getLogger(__name__)


class Sandboxed(Environment):
    """Base of environments whose rollouts work on a computer of their own: `ctx.sandbox`, or `sandbox` in a tool or scorer.

    It is there before `setup` of a subclass goes on and until the scorers are done; how it is contained is part of each
    rollout's record.
    """

    def __init__(self, sandbox: str = "auto") -> None:
        """
        Args:
            sandbox: how it is contained: "auto" is the best that this machine can do itself, "docker" a container;
                "none" contains nothing, for code that you trust.
        """
        if sandbox not in LOCAL + REMOTE:
            raise UnknownName("sandbox", str(sandbox), LOCAL + REMOTE)
        self.sandbox = sandbox

    def spec(self, task: Task) -> SandboxSpec:
        """What a task's sandbox is like; how it is contained is the user's to say."""
        return SandboxSpec()

    async def new_sandbox(self, task: Task) -> Sandbox:
        """One more for a task, such as a fresh one for its tests; whoever asks for it kills it."""
        return await create(msgspec.structs.replace(self.spec(task), tier=self.sandbox))

    async def open(self) -> None:
        """Find out whether there are sandboxes before anybody asks. Raises SandboxUnavailable, MissingExtra."""
        if self.sandbox != "auto":
            await check(self.sandbox)
            return
        found = await probe()
        if found.tier is None:
            raise SandboxUnavailable(
                f"this machine can't contain code: {'; '.join(found.problems.values())}. Another way is "
                f'sandbox="docker", or sandbox="none" for code that you trust'
            )
        if found.tier != CONTAINING[0]:
            log.warning("sandboxes are of the tier %r: %s", found.tier, "; ".join(found.problems.values()))

    async def setup(self, ctx: Context) -> None:
        """Make the rollout's sandbox."""
        ctx.sandbox = await self.new_sandbox(ctx.task)

    async def teardown(self, ctx: Context) -> None:
        """Kill it."""
        if ctx.sandbox is not None:
            await ctx.sandbox.kill()


async def end_processes(sandbox: Sandbox) -> None:
    """End whatever an agent left running, so that nothing changes any more: what runs out of time takes all along."""
    await sandbox.exec(["sleep", "60"], timeout_s=0.01)
