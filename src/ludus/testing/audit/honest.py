"""Honest play: what an expert, a model and plain guesses earn, which attacks are compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ludus.authoring.environment import Environment
from ludus.authoring.wrapping import Wrapper
from ludus.environments.sandboxed import Sandboxed
from ludus.recording.backend import Backend
from ludus.testing.audit import replies
from ludus.testing.audit.desk import Desk, desks_of, likely_desks
from ludus.testing.audit.judging import acquaint
from ludus.testing.audit.policy import Strategy, expert_of
from ludus.testing.audit.verdict import Line, line_of
from ludus.testing.playing import Subject, failures
from ludus.testing.scripted import commonest_answers
from ludus.types import Message, Rollout, Sampling, Task

FEW = 4
"""Tasks that are played where each rollout takes a sandbox or many calls."""
MOST_TOKENS = 512
"""Of a reply of the model that plays honestly, where the environment does not say."""


class NothingToCompare(Exception):
    """Whoever plays, rollouts fail; the text begins with who played."""


@dataclass
class Honest:
    """Honest play of one environment, on the tasks that attacks are tried on and on others that confirm holes."""

    subject: Subject
    model: Backend | None = None
    baselines: list[Line] = field(default_factory=list)
    confirming: list[Line] = field(default_factory=list)
    """The same on other tasks; [] until it is asked for."""
    notes: list[str] = field(default_factory=list)
    told: dict[str, list[Message]] = field(default_factory=dict)
    """What the expert was told, after its first reply, by task."""
    played: list[Rollout] = field(default_factory=list)
    """What all who are honest played, the model left out."""
    solved: dict[str, str] = field(default_factory=dict)
    """What the expert said, by task, where it said one thing and called no tool."""
    desks: list[Desk] = field(default_factory=list)
    """Tools that answers are handed in by."""

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
    def costly(self) -> bool:
        """Whether each rollout takes a sandbox or many calls."""
        return self.has_tools or isinstance(inside(self.env), Sandboxed)

    @property
    def tasks(self) -> list[Task]:
        """Those that attacks are tried on."""
        return self.subject.tasks[:FEW] if self.costly else self.subject.tasks

    @property
    def known(self) -> list[str]:
        """Answers of tasks that are not played, or what the expert said there, commonest first; where there are no
        others, of all, unless there is one alone."""
        tasks = self.subject.other_tasks or self.subject.tasks
        said = Counter(self.solved[task.id] for task in tasks if task.id in self.solved)
        return (commonest_answers(tasks) or [text for text, _ in said.most_common()]) if len(tasks) > 1 else []

    @property
    def guesses(self) -> list[Strategy]:
        """Plain guesses, said or handed in."""
        said = replies.guesses(self.known)
        return [*said, *(desk.strategy(guess) for desk in self.desks for guess in said)]

    async def play(self) -> None:
        """Fill in the baselines. Raises NothingToCompare where all of the expert's rollouts fail."""
        if self.env.group_scorers():  # the expert has to be compared with somebody, too
            self.subject.rivals = {}
            silent = await self.subject.play(replies.text("says nothing", "guess", "").backend, self.tasks)
            self._take_for_rivals(silent)
        await self._play_expert()
        if not self.costly and self.solved and not commonest_answers(self.subject.other_tasks):
            self._follow(await self.subject.play(self.expert, self.subject.other_tasks[: self.subject.num_tasks]))
        if self.model is not None:
            model = Strategy(f"model {self.model.name}", "reference", self.model)
            sampling = Sampling(**{"max_tokens": MOST_TOKENS, **self.env.sampling})
            self.baselines.append(self.line(model, await self.subject.play(self.model, self.tasks, sampling)))
        for guess in self.guesses:
            rollouts = await self.subject.play(guess.backend, self.tasks)
            self.played += rollouts
            self.baselines.append(self.line(guess, rollouts))

    async def play_on(self, tasks: Sequence[Task]) -> None:
        """Fill in the baselines of other tasks, once."""
        if self.confirming:
            return
        if self.baselines[0].rule == "honest":
            await acquaint(self.subject, self.expert, tasks)
            rollouts = await self.subject.play(self.expert, tasks)
            self._follow(rollouts)
            self.confirming.append(self.line(Strategy("expert", "honest", self.expert), rollouts))
        for guess in self.guesses:
            self.confirming.append(self.line(guess, await self.subject.play(guess.backend, tasks)))

    def line(self, strategy: Strategy, rollouts: Sequence[Rollout]) -> Line:
        """What a strategy's rollouts come to."""
        return line_of(strategy, rollouts, self.env.success_reward, self.told, self.solved)

    async def _play_expert(self) -> None:
        can = self.env.can_demonstrate
        tasks = [task for task in self.tasks if await self.subject.has_demonstration(task)]
        if not can:
            tasks = [task for task in self.tasks if task.answer is not None]
        strategy = Strategy("expert" if can else "known answer", "honest", self.expert)
        rollouts = await self.subject.play(strategy.backend, tasks)
        if not can:
            self.desks = likely_desks([tool.schema for tool in self.env.make_tools().values()])
        if self.desks and self.line(strategy, rollouts).mean < self.env.success_reward:
            strategy = self.desks[0].strategy(strategy)
            rollouts = await self.subject.play(strategy.backend, tasks)
        failed = failures(rollouts)
        if failed:
            self.notes.append(f"{strategy.name}: {len(failed)} of {len(rollouts)} rollouts fail: {failed[0]}")
        if failed and len(failed) == len(rollouts) and can:
            raise NothingToCompare(f"{strategy.name}: no rollout could be scored: {failed[0]}")
        line = self.line(strategy, rollouts)
        if line.rewards and (can or line.mean >= self.env.success_reward):
            self.baselines.append(line)
            self.played += rollouts
            self._follow(rollouts)
            self.desks = desks_of(rollouts) or self.desks

    def _follow(self, rollouts: Sequence[Rollout]) -> None:
        """Take rollouts of the expert for what honest play reads and does."""
        self.told |= {rollout.task.id: _told(rollout) for rollout in rollouts}
        single = [rollout for rollout in rollouts if rollout.num_turns == 1 and rollout.failure is None]
        self.solved |= {rollout.task.id: rollout.reply for rollout in single if rollout.reply.strip()}
        self._take_for_rivals(rollouts)

    def _take_for_rivals(self, rollouts: Sequence[Rollout]) -> None:
        if self.subject.rivals is not None:
            self.subject.rivals |= {rollout.task.id: rollout for rollout in rollouts if rollout.failure is None}


def inside(env: Environment) -> Environment:
    """What wrappers are around."""
    while isinstance(env, Wrapper):
        env = env.inner
    return env


def _told(rollout: Rollout) -> list[Message]:
    """What tools and the environment said after the first reply."""
    messages = rollout.messages
    first = next((place for place, message in enumerate(messages) if message["role"] == "assistant"), len(messages))
    return [message for message in messages[first:] if message["role"] != "assistant"]
