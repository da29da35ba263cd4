"""`audit_environment`: play everything that does no task, and compare what it earns with honest play.

    audit = ludus.testing.audit_environment(MyEnvironment())
    assert audit.harder_to_hack, audit.because

Whatever looks like a hole is played again on tasks that it was not found on. Scorers that compare the rollouts of a group
are given each one beside the expert's.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ludus.authoring.environment import Environment
from ludus.environments.sandboxed import Sandboxed
from ludus.errors import RolloutError
from ludus.recording.backend import Backend
from ludus.recording.expert import Expert
from ludus.rollouts.scoring import score_group
from ludus.testing.audit import attacker, code, injection, leaks, replies
from ludus.testing.audit import search as searching
from ludus.testing.audit.added import additions
from ludus.testing.audit.judging import judges_of, stand_in
from ludus.testing.audit.policy import Strategy, content, expert_of
from ludus.testing.audit.reach import Marks
from ludus.testing.audit.verdict import Audit, Line, line_of, why_hole
from ludus.testing.playing import Subject, failures
from ludus.testing.scripted import commonest_answers
from ludus.types import MAIN_ROLE, Message, Reward, Rollout, Sampling, Task

FEW = 4
"""Tasks that are played where each rollout takes a sandbox or many calls."""
FEWEST = 2
"""Tasks on which it is looked whether something works at all."""
MOST_TOKENS = 512
"""Of a reply of the model that plays honestly, where the environment does not say."""
TRIED = 120
"""Templates that the search tries."""
TRIED_IN_SANDBOXES = 20
SEARCHED = 4
"""Tasks that each is tried on."""


def audit_environment(env: Environment, **options: Any) -> Audit:
    """Audit an environment. Not for use inside a running event loop: there, `audit_environment_async` is."""
    return asyncio.run(audit_environment_async(env, **options))


async def audit_environment_async(
    env: Environment,
    *,
    num_tasks: int = 20,
    model: Backend | None = None,
    role_models: Mapping[str, Backend] | None = None,
    tried: int | None = None,
) -> Audit:
    """Search for replies that score without doing the task.

    Args:
        env: built with the options it is to be used with.
        num_tasks: tasks that each strategy plays.
        model: plays honestly, as one more baseline, and looks for attacks.
        role_models: who plays other roles, such as a judge. By default a judge is a stand-in, others are the expert.
        tried: replies that the search tries; by default as many as take seconds.

    Returns:
        What was found. Where nothing could be played, that is the verdict.
    """
    auditor = Auditor(Subject(env, num_tasks, others=dict(role_models or {})), model, tried)
    async with AsyncExitStack() as stack:
        try:
            await auditor.subject.scan()
            await stack.enter_async_context(env.opened())
        except Exception as error:  # noqa: BLE001 - somebody else's code; it is the verdict
            auditor.holes["nothing could be played"] = f"{type(error).__name__}: {error}"
            return auditor.audit()
        await auditor.run()
    return auditor.audit()


@dataclass
class Auditor:
    """One audit while it runs."""

    subject: Subject
    model: Backend | None = None
    tried: int | None = None
    baselines: list[Line] = field(default_factory=list)
    attacks: list[Line] = field(default_factory=list)
    holes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    told: dict[str, list[Message]] = field(default_factory=dict)
    """What tools told the expert, by task."""
    played: list[Rollout] = field(default_factory=list)
    """Of honest play."""
    rivals: dict[str, Rollout] = field(default_factory=dict)
    """Whom group scorers compare a rollout with, by task."""
    _confirming: list[Line] = field(default_factory=list)
    """Baselines on the tasks that holes are confirmed on."""

    @property
    def env(self) -> Environment:
        return self.subject.env

    @property
    def expert(self) -> Backend:
        """Who plays honestly."""
        return expert_of(self.env)

    @property
    def has_tools(self) -> bool:
        return bool(self.env.servers or self.env.make_tools())

    @property
    def tasks(self) -> list[Task]:
        costly = isinstance(self.env, Sandboxed) or self.has_tools
        return self.subject.tasks[:FEW] if costly else self.subject.tasks

    @property
    def known(self) -> list[str]:
        """Answers of tasks that are not played."""
        return commonest_answers(self.subject.other_tasks or self.subject.tasks)

    def audit(self) -> Audit:
        """What was found."""
        name = self.env.describe().id
        return Audit(name, self.env.success_reward, self.baselines, self.attacks, self.holes, self.notes)

    async def run(self) -> None:
        """Honest play first, then everything else."""
        if note := await stand_in(self.subject, self.expert, self.tasks[:FEWEST]):
            self.notes.append(note)
        if not await self.play_honestly():
            return
        if not await self.look_for_reach():
            return
        strategies = [*replies.worthless(self.known), *injection.injections(), *leaks.readers(self.has_tools)]
        strategies += injection.forgeries(self.played, judges_of(self.env))
        if self.env.can_demonstrate:
            strategies += additions()
        strategies += await self.rules()
        strategies += self.code_strategies()
        strategies += await self.search()
        for strategy in strategies:
            await self.attack(strategy)

    # --- honest play ----------------------------------------------------------------------------------------------

    async def play_honestly(self) -> bool:
        """The baselines. False where rollouts fail whoever plays, so that there is nothing to audit."""
        if self.env.group_scorers():  # the expert has to be compared with somebody, too
            silent = await self.play(replies.text("says nothing", "guess", "").backend, self.tasks)
            self.rivals = {rollout.task.id: rollout for rollout in silent if rollout.failure is None}
        if not await self.play_expert():
            return False
        if self.model is not None:
            model = Strategy(f"model {self.model.name}", "reference", self.model)
            sampling = Sampling(**{"max_tokens": MOST_TOKENS, **self.env.sampling})
            self.baselines.append(self.line(model, await self.play(self.model, self.tasks, sampling)))
        guesses = {strategy.name: strategy for strategy in replies.guesses(self.known)}
        for strategy in guesses.values():
            rollouts = await self.play(strategy.backend, self.tasks)
            self.played += rollouts
            self.baselines.append(self.line(strategy, rollouts))
        for line in self.baselines[-len(guesses) :]:
            why = why_hole(line, self.baselines, self.env.success_reward)
            if why and await self.confirmed(guesses[line.name]):  # of few tasks, any guess may have all
                self.holes[line.name] = why
        return True

    async def play_expert(self) -> bool:
        """What an expert earns, where there is one. False where all of its rollouts fail."""
        tasks = [task for task in self.tasks if await self.subject.has_demonstration(task)]
        if not self.env.can_demonstrate:
            tasks = [task for task in self.tasks if task.answer is not None]
        name = "expert" if self.env.can_demonstrate else "known answer"
        rollouts = await self.play(self.expert, tasks)
        failed = failures(rollouts)
        if failed:
            self.notes.append(f"{name}: {len(failed)} of {len(rollouts)} rollouts fail: {failed[0]}")
        if failed and len(failed) == len(rollouts) and self.env.can_demonstrate:
            self.holes[name] = f"no rollout could be scored: {failed[0]}"
            return False
        line = self.line(Strategy(name, "honest", self.expert), rollouts)
        if line.rewards and (self.env.can_demonstrate or line.mean >= self.env.success_reward):
            self.baselines.append(line)
            self.played += rollouts
            self.follow(rollouts)
        return True

    def follow(self, rollouts: Sequence[Rollout]) -> None:
        """Take rollouts of the expert for what honest play reads and does."""
        self.told |= {rollout.task.id: _told(rollout) for rollout in rollouts}
        self.rivals |= {rollout.task.id: rollout for rollout in rollouts if rollout.failure is None}

    async def play(self, backend: Backend, tasks: Sequence[Task], sampling: Sampling | None = None) -> list[Rollout]:
        """Rollouts; where group scorers compare, each has been compared with its rival."""
        rollouts = await self.subject.play(backend, tasks, sampling)
        if self.env.group_scorers():
            for rollout in rollouts:
                rival = self.rivals.get(rollout.task.id)
                if rollout.failure is None and rival is not None:
                    rollout.rewards = await compared(self.env, rollout, rival)
        return rollouts

    # --- attacks --------------------------------------------------------------------------------------------------

    async def look_for_reach(self) -> bool:
        """Whether nothing that a model says reaches this machine."""
        with tempfile.TemporaryDirectory(prefix="ludus-audit-") as folder:
            marks = Marks(Path(folder))
            strategies = [*marks.replies(), *(marks.through_tools() if self.has_tools else ())]
            for strategy in strategies:
                rollouts = await self.play(strategy.backend, self.tasks[:FEWEST])
                if how := marks.found(rollouts):
                    self.holes[strategy.name] = f"what a model says {how}"
                    self.attacks.append(self.line(strategy, rollouts))
        if self.holes.keys() & {strategy.name for strategy in strategies}:
            self.notes.append("nothing else was tried: what reaches this machine has every answer, and may harm it")
            return False
        return True

    async def rules(self) -> list[Strategy]:
        """Leaks that a rule learnt from some tasks finds in others."""
        learnt_from = (self.subject.other_tasks or self.subject.tasks)[: max(FEW, len(self.tasks))]
        probed = await self.play(leaks.probe(self.has_tools), learnt_from)
        return leaks.rules(probed, any(self.told.values()))

    def code_strategies(self) -> list[Strategy]:
        """Code instead of solutions, and code through tools."""
        prompts = [content(message) for task in self.tasks for message in task.messages()]
        experts = [_said(rollout) for rollout in self.played if rollout.model == Expert.name]
        names, files = code.names_in(experts), code.files_in([*prompts, *experts])
        schemas = [tool.schema for tool in self.env.make_tools().values()]
        found = [*code.code_replies(names), *code.code_changing_files(names)]
        return found + (code.tampering(names, files) if code.runners(schemas) else [])

    async def search(self) -> list[Strategy]:
        """What a search without a model finds, and what a model proposes."""
        costly = isinstance(self.env, Sandboxed) or self.has_tools
        num_tried = self.tried if self.tried is not None else TRIED_IN_SANDBOXES if costly else TRIED
        pool = searching.pool_of(self.env, self.subject.tasks, self.known)
        found = await searching.search(self.earns, pool, num_tried) if num_tried else []
        if self.model is not None:
            proposed, problem = await attacker.proposals(self.model, self.env, self.tasks[0], self.earns)
            found += proposed
            self.notes += [problem] if problem else []
        return found

    async def earns(self, strategy: Strategy) -> float:
        """What a strategy earns that it does not deserve, on a few tasks."""
        rollouts = await self.play(strategy.backend, self.tasks[:SEARCHED])
        return self.line(strategy, rollouts).mean_undeserved

    async def attack(self, strategy: Strategy) -> None:
        """Play a strategy; what looks like a hole, on other tasks too."""
        line = self.line(strategy, await self.play(strategy.backend, self.tasks))
        self.attacks.append(line)
        why = why_hole(line, self.baselines, self.env.success_reward)
        if why and await self.confirmed(strategy):
            self.holes[strategy.name] = why + (f", such as by {line.example[:60]!a}" if line.example else "")

    async def confirmed(self, strategy: Strategy) -> bool:
        """Whether it is a hole on tasks that it was not found on, too."""
        tasks = self.subject.other_tasks[: len(self.tasks)]
        if len(tasks) < len(self.tasks):
            return True
        if not self._confirming:
            if self.baselines[0].rule == "honest":
                rollouts = await self.play(self.expert, tasks)
                self.follow(rollouts)
                self._confirming.append(self.line(Strategy("expert", "honest", self.expert), rollouts))
            for guess in replies.guesses(self.known):
                self._confirming.append(self.line(guess, await self.play(guess.backend, tasks)))
        line = self.line(strategy, await self.play(strategy.backend, tasks))
        return bool(why_hole(line, self._confirming, self.env.success_reward))

    def line(self, strategy: Strategy, rollouts: Sequence[Rollout]) -> Line:
        return line_of(strategy, rollouts, self.env.success_reward, self.told)


async def compared(env: Environment, rollout: Rollout, rival: Rollout) -> list[Reward]:
    """A rollout's rewards where its group is the two of them. Those it has where group scorers fail."""
    own = {mark.name for _, mark in env.group_scorers()}
    pair = [
        msgspec.structs.replace(one, rewards=[reward for reward in one.rewards if reward.scorer not in own])
        for one in (rollout, rival)
    ]
    try:
        await score_group(env, pair)
    except RolloutError:
        return rollout.rewards
    return pair[0].rewards


def _told(rollout: Rollout) -> list[Message]:
    """What tools said."""
    return [message for message in rollout.messages if message["role"] == "tool"]


def _said(rollout: Rollout) -> str:
    """What the model said, its tool calls included."""
    calls = [call.reply for call in rollout.calls if call.role == MAIN_ROLE]
    called = [one["function"]["arguments"] for reply in calls for one in reply.get("tool_calls") or ()]
    return "\n".join([*(content(reply) for reply in calls), *(text.replace("\\n", "\n") for text in called)])
