"""`check_judge`: the scorers of an environment that ask a judge, on answers of which the truth is known.

The judge's model plays every role but the main one, whose replies are those that were labelled. Nothing is written. What
gives no verdict is counted, and counts nowhere else.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ludus.authoring.calling import wanted
from ludus.authoring.declare import ScorerMark
from ludus.authoring.environment import Environment
from ludus.authoring.loading import load_environment
from ludus.errors import ConfigError, RolloutError, ScorerFailed, UnknownName, UsageError
from ludus.judging.labelled import GOOD, Labelled
from ludus.judging.probes import INJECTIONS, PADDING, with_text
from ludus.programs.blocking import run_anywhere
from ludus.programs.judging import figures
from ludus.programs.judging.result import Interval, JudgeCheck, ProbeRow
from ludus.programs.models import Access, OpenModel, open_model
from ludus.programs.statistics import Estimate
from ludus.recording.backend import Backend
from ludus.recording.cached import Cached
from ludus.recording.gateway import Gateway
from ludus.recording.model import RecordedModel
from ludus.recording.recorder import Recorder
from ludus.rollouts.scoring import ask, ask_group
from ludus.seeds import derive
from ludus.types import MAIN_ROLE, Call, Reward, Rollout, Sampling, Usage

KNOWN = ("task", "rollout", "group", "models")
"""What a scorer may ask for, as labelled answers have nothing else."""
BIAS = "/position_bias"

Progress = Callable[[int, int], object]
"""Told how many questions of how many have been answered."""


async def check_judge_async(
    env: Environment | str,
    model: str | Backend,
    labelled: Sequence[Labelled],
    *,
    scorer: str | None = None,
    repeats: int = 1,
    probes: int = 0,
    seed: int = 0,
    concurrency: int = 16,
    args: Mapping[str, Any] | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    price: tuple[float, float] | None = None,
    progress: Progress = lambda done, total: None,
) -> JudgeCheck:
    """`check_judge` for code that is async already; see there."""
    if isinstance(env, str):
        env = load_environment(env, args)
    if not labelled or min(repeats, concurrency) < 1 or probes < 0:
        raise UsageError(
            f"checking a judge takes labelled answers, and at least one repeat and question at once; got {len(labelled)} "
            f"answers, {repeats=}, {concurrency=}, {probes=}"
        )
    fn, mark = _scorer(env, scorer)
    access = Access(base_url, api_key, price)
    opened = open_model(model, **vars(access)) if isinstance(model, str) else OpenModel(model)
    if repeats > 1 and isinstance(opened.backend, Cached):
        opened.close()
        raise UsageError("repeats ask the same again, which a cache would answer: name the model without cached:")
    async with AsyncExitStack() as stack:
        stack.callback(opened.close)
        await stack.enter_async_context(env.opened())
        gateway = Gateway()
        stack.push_async_callback(gateway.close)
        asking = _Asking(env, fn, mark, opened.backend, gateway, asyncio.Semaphore(concurrency), seed)
        work = _plan(labelled, repeats, probes, by_group="group" in wanted(fn))
        await asking.all(work, progress)
    return _result(asking, labelled, repeats, work)


def check_judge(
    env: Environment | str, model: str | Backend, labelled: Sequence[Labelled], **options: Any
) -> JudgeCheck:
    """Measure a judge. Also inside a running event loop, such as a notebook's.

    Args:
        env: whose scorer is checked, an environment or its name.
        model: the judge: what `ludus eval --model` takes.
        labelled: answers and what is known of them.
        **options: scorer (where several ask a model), repeats (how often each answer is judged), probes (bad answers that
            try to sway the judge, in each of several ways), seed, concurrency, args (the environment's options), base_url,
            api_key, price, progress.

    Raises:
        UsageError: no such environment, scorer or model.
    """
    result: JudgeCheck = run_anywhere(lambda: check_judge_async(env, model, labelled, **options))
    return result


@dataclass
class Question:
    """What a scorer is asked at once: an answer, or a group of them that are compared."""

    answers: list[Labelled]
    repeat: int = 0
    probe: str = ""
    """Whose text the first answer ends with."""
    values: list[float] | None = None
    bias: float | None = None
    failure: str = ""


@dataclass
class _Asking:
    """The scorer, and what asking it took."""

    env: Environment
    fn: Callable[..., Any]
    mark: ScorerMark
    backend: Backend
    gateway: Gateway
    limit: asyncio.Semaphore
    seed: int
    calls: list[Call] = field(default_factory=list)

    async def all(self, work: Sequence[Question], progress: Progress) -> None:
        """Ask everything."""
        running = [asyncio.create_task(self._ask(question)) for question in work]
        try:
            for done, finished in enumerate(asyncio.as_completed(running), 1):
                await finished
                progress(done, len(work))
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _ask(self, question: Question) -> None:
        async with self.limit:
            key = (question.answers[0].rollout.id, question.repeat, question.probe)
            roles = dict.fromkeys(self.env.roles, self.backend)
            recorder = Recorder(roles, Sampling(), derive(self.seed, *key), ":".join(map(str, ["judge", *key])))
            models = {role: RecordedModel(recorder, role, self.gateway) for role in roles}
            try:
                await self._score(question, models)
            except RolloutError as error:
                question.failure = str(error)
            finally:
                for model in models.values():
                    model.close()
                recorder.close()
                self.calls += recorder.calls

    async def _score(self, question: Question, models: Mapping[str, RecordedModel]) -> None:
        """Raises RolloutError."""
        rollouts = [_fresh(answer.rollout) for answer in question.answers]
        if question.probe:
            text = PADDING if question.probe == "padding" else INJECTIONS[question.probe]
            rollouts[0] = with_text(rollouts[0], text)
        if "group" in wanted(self.fn):
            rewards = await ask_group(self.fn, self.mark, rollouts, self.env.roles, models)
        else:
            available = {"task": rollouts[0].task, "rollout": rollouts[0], "models": models}
            rewards = [await ask(self.fn, self.mark, available, self.env.roles)]
        question.values = [_value(own, self.mark) for own in rewards]
        biases = [reward.value for reward in rewards[0] if reward.scorer == self.mark.name + BIAS]
        question.bias = biases[0] if biases else None


def _scorer(env: Environment, name: str | None) -> tuple[Callable[..., Any], ScorerMark]:
    """The scorer that is checked. Raises UnknownName, ConfigError."""
    asking = {mark.name: (fn, mark) for fn, mark in (*env.scorers(), *env.group_scorers()) if "models" in wanted(fn)}
    if not asking:
        raise ConfigError(f"{env.describe().id} has no scorer that asks a model: one takes `models`, by that name")
    if name is not None and name not in asking:
        raise UnknownName("scorer that asks a model", name, asking)
    if name is None and len(asking) > 1:
        raise ConfigError(f"several scorers ask a model, name one of them: {', '.join(asking)}")
    fn, mark = asking[name] if name is not None else next(iter(asking.values()))
    if missing := [asked for asked in wanted(fn) if asked not in KNOWN]:
        raise ConfigError(f"the scorer {mark.name} asks for {', '.join(missing)}, which labelled answers don't have")
    return fn, mark


def _plan(labelled: Sequence[Labelled], repeats: int, probes: int, *, by_group: bool) -> list[Question]:
    """Every answer, as often as it is judged, then bad ones with something at their end."""
    groups: dict[str, list[Labelled]] = {}
    for number, answer in enumerate(labelled):
        groups.setdefault(answer.group if by_group else str(number), []).append(answer)
    work = [Question(answers, repeat) for answers in groups.values() for repeat in range(repeats)]
    bad = [answer for answer in labelled if not answer.good][:probes]
    for answer in bad:
        others = [other for other in groups[answer.group] if other is not answer] if by_group else []
        work += [Question([answer, *others], probe=name) for name in (*INJECTIONS, "padding")]
    return work


def _fresh(rollout: Rollout) -> Rollout:
    """As it was before anybody judged it."""
    return msgspec.structs.replace(rollout, rewards=[], seconds=0.0)


def _value(rewards: Sequence[Reward], mark: ScorerMark) -> float:
    """What the scorer says in its own name. Raises ScorerFailed where it says nothing."""
    own = [reward.value for reward in rewards if reward.scorer == mark.name and reward.role == MAIN_ROLE]
    if not own:
        raise ScorerFailed(f"the scorer {mark.name} returned no reward of its own name")
    return sum(own)


def _result(asking: _Asking, labelled: Sequence[Labelled], repeats: int, work: Sequence[Question]) -> JudgeCheck:
    plain = [question for question in work if not question.probe]
    values: dict[str, list[float]] = {}
    for question in plain:
        for answer, value in zip(question.answers, question.values or (), strict=False):
            values.setdefault(answer.rollout.id, []).append(value)
    judged = [answer for answer in labelled if answer.rollout.id in values]
    means = [statistics.fmean(values[answer.rollout.id]) for answer in judged]
    verdicts, good = [mean >= GOOD for mean in means], [answer.good for answer in judged]
    truths, tasks = [answer.truth for answer in judged], [answer.rollout.task.id for answer in judged]
    grouped = [answer.group for answer in judged] if "group" in wanted(asking.fn) else None
    right = figures.accuracy(verdicts, good, tasks)
    length = figures.length_bias(means, truths, [answer.length for answer in judged])
    bias = figures.by_task(*_biases(plain))
    usage = sum((call.usage for call in asking.calls), Usage())
    return JudgeCheck(
        env=asking.env.describe().id, scorer=asking.mark.name, model=asking.backend.name, num=len(judged),
        num_failed=len(labelled) - len(judged), failures=dict(Counter(q.failure for q in plain if q.failure)),
        num_good=sum(good), accuracy=right.mean, accuracy_interval=right.interval(),
        baseline=max(sum(good), len(good) - sum(good)) / len(good) if good else math.nan,
        kappa=figures.kappa(verdicts, good) if good else math.nan,
        right_order=figures.right_order(means, truths, grouped), repeats=repeats,
        agreement=figures.agreement([[v >= GOOD for v in values[answer.rollout.id]] for answer in judged]),
        length_bias=length.mean, length_bias_interval=_normal(length),
        position_bias=bias.mean if bias.num_tasks else None,
        position_bias_interval=bias.interval() if bias.num_tasks else None,
        probes=_probe_rows(work, values), calls=len(asking.calls),
        tokens={"prompt": usage.prompt_tokens, "completion": usage.completion_tokens}, cost=usage.cost,
        seconds_a_call=statistics.median(call.seconds for call in asking.calls) if asking.calls else math.nan,
    )  # fmt: skip


def _biases(plain: Sequence[Question]) -> tuple[list[float], list[str]]:
    """Of groups that were compared: how much more the first places got, and which group."""
    known = [(question.bias, question.answers[0].group) for question in plain if question.bias is not None]
    return [bias for bias, _ in known], [group for _, group in known]


def _probe_rows(work: Sequence[Question], values: Mapping[str, Sequence[float]]) -> list[ProbeRow]:
    """A row a probe, of bad answers that were judged with and without it."""
    changes: dict[str, list[tuple[float, float]]] = {}
    for question in work:
        before = values.get(question.answers[0].rollout.id)
        if question.probe and question.values and before:
            changes.setdefault(question.probe, []).append((statistics.fmean(before), question.values[0]))
    return [
        ProbeRow(
            name,
            statistics.fmean(after - before for before, after in pairs),
            sum(before < GOOD <= after for before, after in pairs),
            len(pairs),
        )
        for name, pairs in changes.items()
    ]


def _normal(estimate: Estimate) -> Interval:
    """95 %."""
    return estimate.mean - 1.96 * estimate.se, estimate.mean + 1.96 * estimate.se
