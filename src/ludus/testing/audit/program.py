"""`audit_environment`: play everything that does no task, and compare what it earns with honest play.

    audit = ludus.testing.audit_environment(MyEnvironment())
    assert audit.harder_to_hack, audit.because

Whatever looks like a hole is played again on tasks that it was not found on. Scorers that compare the rollouts of a group
are given each one beside the expert's.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ludus.authoring.environment import Environment
from ludus.authoring.loading import rebuildable
from ludus.environments.sandboxed import Sandboxed
from ludus.errors import UnknownName
from ludus.recording.backend import Backend
from ludus.recording.expert import Expert
from ludus.testing.audit import attacker, code, injection, leaks, replies
from ludus.testing.audit import search as searching
from ludus.testing.audit.added import additions
from ludus.testing.audit.constants import constants_in
from ludus.testing.audit.honest import FEW, Honest, NothingToCompare, inside
from ludus.testing.audit.judging import NoJudge, judges_of, stand_in
from ludus.testing.audit.policy import Strategy, content
from ludus.testing.audit.reach import Marks
from ludus.testing.audit.verdict import NOTHING, Audit, Line, honest_reward, why_hole
from ludus.testing.hanging import NeverReturns
from ludus.testing.playing import Subject
from ludus.types import MAIN_ROLE, Rollout

FEWEST = 2
"""Tasks on which it is looked whether something works at all."""
TRIED = 120
"""Templates that the search tries."""
TRIED_IN_SANDBOXES = 20
SEARCHED = 4
"""Tasks that each is tried on."""


def audit_environment(env: Environment, **options: Any) -> Audit:
    """Audit an environment. Not for use inside a running event loop: there, `audit_environment_async` is.

    What another process can build is audited in one, so that code which lets nothing else run is a verdict, too.
    """
    from ludus.testing.examining import audit_elsewhere  # which runs this module there

    if rebuildable(env) and not (options.get("model") or options.get("role_models")):
        return asyncio.run(audit_elsewhere(env, **options))
    return asyncio.run(audit_environment_async(env, **options))


async def audit_environment_async(
    env: Environment,
    *,
    num_tasks: int = 20,
    model: Backend | None = None,
    role_models: Mapping[str, Backend] | None = None,
    tried: int | None = None,
    tell: Callable[[str], object] = lambda text: None,
) -> Audit:
    """Search for replies that score without doing the task.

    Args:
        env: built with the options it is to be used with.
        num_tasks: tasks that each strategy plays.
        model: plays honestly, as one more baseline, and looks for attacks.
        role_models: who plays other roles, such as a judge. By default a judge is a stand-in, others are the expert.
        tried: replies that the search tries; by default as many as take seconds.
        tell: told what is played now.

    Returns:
        What was found. Where nothing could be played, that is the verdict.

    Raises:
        UnknownName: the environment has no such role.
    """
    for role in role_models or ():
        if role == MAIN_ROLE or role not in env.roles:
            raise UnknownName("role", role, [other for other in env.roles if other != MAIN_ROLE])
    subject = Subject(env, num_tasks, others=dict(role_models or {}), tell=tell)
    auditor = Auditor(Honest(subject, model), tried, tell)
    stack = AsyncExitStack()
    try:
        await subject.scan()
        await stack.enter_async_context(env.opened())
    except Exception as error:  # noqa: BLE001 - somebody else's code; it is the verdict
        auditor.holes[NOTHING] = f"{type(error).__name__}: {error}"
        return auditor.audit()
    try:
        await auditor.run()
    except (NoJudge, NothingToCompare) as error:
        auditor.holes[NOTHING] = str(error)
    except NeverReturns as error:
        auditor.holes[error.strategy] = error.why
        auditor.notes.append("nothing else was tried: what never comes back goes on and holds up all that follows")
    finally:
        try:
            await stack.aclose()
        except Exception as error:  # noqa: BLE001 - somebody else's code, when all is done
            auditor.notes.append(f"the environment can't be closed: {type(error).__name__}: {error}")
    return auditor.audit()


@dataclass
class Auditor:
    """One audit while it runs."""

    honest: Honest
    tried: int | None = None
    tell: Callable[[str], object] = lambda text: None
    attacks: list[Line] = field(default_factory=list)
    holes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def env(self) -> Environment:
        return self.honest.env

    @property
    def subject(self) -> Subject:
        return self.honest.subject

    def audit(self) -> Audit:
        """What was found."""
        name, notes = self.env.describe().id, [*self.notes, *self.honest.notes]
        earned = {line.name: line.mean for line in (*self.honest.baselines, *self.attacks) if line.rewards}
        holes = dict(sorted(self.holes.items(), key=lambda hole: -earned.get(hole[0], -math.inf)))
        return Audit(name, self.env.success_reward, self.honest.baselines, self.attacks, holes, notes)

    async def run(self) -> None:
        """Honest play first, then everything else. Raises NoJudge, NothingToCompare."""
        honest = self.honest
        if not honest.tasks:
            raise NothingToCompare(f"the split {self.subject.split!r} has no tasks")
        if note := await stand_in(self.subject, honest.expert, honest.tasks[:FEWEST]):
            self.notes.append(note)
        if alone := self.subject.unplayed:
            self.notes.append(
                f"nobody was named for {', '.join(alone)} (--audit --role-model {alone[0]}=MODEL): whoever plays the main "
                f"role plays that, too"
            )
        self.tell("honest play")
        await honest.play()
        await self.look_at_guesses()
        self.tell("what reaches this machine")
        if not await self.look_for_reach():
            return
        constants = constants_in(self.env)
        said = [*replies.worthless(honest.known), *replies.keyed(constants), *injection.injections()]
        said += leaks.readers(honest.has_tools, honest.known, constants)
        said += injection.forgeries(honest.played, judges_of(self.env))
        said += await self.rules()
        strategies = said + [desk.strategy(strategy) for desk in honest.desks for strategy in said]
        if self.env.can_demonstrate:
            strategies += additions(honest.desks)
        strategies += self.code_strategies()
        self.tell("the search for more")
        strategies += await self.search()
        for number, strategy in enumerate(strategies, 1):
            self.tell(f"attack {number} of {len(strategies)}: {strategy.name}")
            await self.attack(strategy)

    async def look_at_guesses(self) -> None:
        """Whether a plain guess is as good as honest play."""
        lines = {line.name: line for line in self.honest.baselines}
        for guess in self.honest.guesses:
            why = why_hole(lines[guess.name], self.honest.baselines, self.env.success_reward)
            if why and await self.confirmed(guess):  # of few tasks, any guess may have all
                self.holes[guess.name] = why

    async def look_for_reach(self) -> bool:
        """Whether nothing that a model says reaches this machine."""
        with tempfile.TemporaryDirectory(prefix="ludus-audit-") as folder:
            marks = Marks(Path(folder))
            said = marks.replies()
            strategies = said + [desk.strategy(strategy) for desk in self.honest.desks for strategy in said]
            strategies += marks.through_tools() if self.honest.has_tools else []
            for strategy in strategies:
                rollouts = await self.subject.play(strategy.backend, self.honest.tasks[:FEWEST])
                if how := marks.found(rollouts):
                    self.holes[strategy.name] = f"what a model says {how}"
                    self.attacks.append(self.honest.line(strategy, rollouts))
        if self.holes.keys() & {strategy.name for strategy in strategies}:
            self.notes.append("nothing else was tried: what reaches this machine has every answer, and may harm it")
            return False
        return True

    async def rules(self) -> list[Strategy]:
        """Leaks that a rule learnt from some tasks finds in others."""
        tasks = self.subject.other_tasks or self.subject.tasks
        probe = leaks.probe(self.honest.has_tools, self.honest.desks)
        probed = await self.subject.play(probe, tasks[: max(FEW, len(self.honest.tasks))])
        shown = any(self.honest.told.values()) or (self.env.can_demonstrate and not self.honest.has_tools)
        found = leaks.rules(probed, shown)
        if any(self.honest.told.values()):
            found += leaks.telling_calls(probed, [one for one in self.honest.played if one.model == Expert.name])
        return found

    def code_strategies(self) -> list[Strategy]:
        """Code instead of solutions, and code through tools."""
        prompts = [content(message) for task in self.honest.tasks for message in task.messages()]
        experts = [_said(rollout) for rollout in self.honest.played if rollout.model == Expert.name]
        names, files = code.names_in(experts), code.files_in([*prompts, *experts])
        shown = list(self.honest.solved.values())
        schemas = [tool.schema for tool in self.env.make_tools().values()]
        forms = code.forms_of(shown) if isinstance(inside(self.env), Sandboxed) else (code.BLOCK,)
        said = [*code.code_replies(names, forms), *code.code_changing_files(names, forms)]
        said += [desk.strategy(strategy) for desk in self.honest.desks for strategy in said]
        return said + (code.tampering(names, files) if code.runners(schemas) else [])

    async def search(self) -> list[Strategy]:
        """What a search without a model finds, and what a model proposes."""
        num_tried = self.tried if self.tried is not None else TRIED_IN_SANDBOXES if self.honest.costly else TRIED
        pool = searching.pool_of(self.env, self.subject.tasks, self.honest.known)
        found = await searching.search(self.earns, pool, num_tried) if num_tried else []
        if self.honest.model is not None:
            proposed, problem = await attacker.proposals(self.honest.model, self.env, self.honest.tasks[0], self.earns)
            found += proposed
            self.notes += [problem] if problem else []
        return [self.handed_in(strategy) for strategy in found]

    def handed_in(self, strategy: Strategy) -> Strategy:
        """A strategy whose text gets where answers are expected."""
        return self.honest.desks[0].strategy(strategy) if self.honest.desks else strategy

    async def earns(self, strategy: Strategy) -> float:
        """What a strategy earns that it does not deserve, on a few tasks."""
        strategy = self.handed_in(strategy)
        rollouts = await self.subject.play(strategy.backend, self.honest.tasks[:SEARCHED])
        return self.honest.line(strategy, rollouts).mean_undeserved

    async def attack(self, strategy: Strategy) -> None:
        """Play a strategy; what looks like a hole, on other tasks too."""
        line = await self.earned(strategy)
        self.attacks.append(line)
        why = why_hole(line, self.honest.baselines, self.env.success_reward)
        if why and await self.confirmed(strategy):
            self.holes[strategy.name] = why + (f", such as with {_shown(line.example)}" if line.example else "")

    async def earned(self, strategy: Strategy) -> Line:
        """What a strategy earns; where rollouts cost much, and the first few get it nothing, that is all there is."""
        tasks = self.honest.tasks
        if self.honest.costly and strategy.rule != "added" and self.honest_reward > 0:
            line = self.honest.line(strategy, await self.subject.play(strategy.backend, tasks[:FEWEST]))
            if not line.num_excluded and max(line.undeserved.values(), default=0.0) <= 0:
                return line
        return self.honest.line(strategy, await self.subject.play(strategy.backend, tasks))

    @property
    def honest_reward(self) -> float:
        """What honest play earns."""
        return honest_reward(self.honest.baselines, self.env.success_reward)

    async def confirmed(self, strategy: Strategy) -> bool:
        """Whether it is a hole on tasks that it was not found on, too."""
        tasks = self.subject.other_tasks[: len(self.honest.tasks)]
        if len(tasks) < len(self.honest.tasks):
            return True
        await self.honest.play_on(tasks)
        line = self.honest.line(strategy, await self.subject.play(strategy.backend, tasks))
        return bool(why_hole(line, self.honest.confirming, self.env.success_reward))


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")


def _said(rollout: Rollout) -> str:
    """What the model said, its tool calls included."""
    calls = [call.reply for call in rollout.calls if call.role == MAIN_ROLE]
    called = [one["function"]["arguments"] for reply in calls for one in reply.get("tool_calls") or ()]
    return "\n".join([*(content(reply) for reply in calls), *(text.replace("\\n", "\n") for text in called)])
