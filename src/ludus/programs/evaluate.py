"""Evaluation: a model's mean reward in an environment, with errors, bounds and everything it took.

Rewards are grouped by task, the unit of all statistics. Rollouts go to the run folder as they finish and are not kept
in memory; what is written already is not run again.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from ludus.authoring.environment import Environment
from ludus.authoring.loading import load_environment
from ludus.authoring.tasks import take
from ludus.display.table import align, as_html
from ludus.display.watch import Progress, watching
from ludus.errors import ConfigError
from ludus.programs.blocking import Blocking
from ludus.programs.gone_on import open_out
from ludus.programs.latency import waited_s, working_s
from ludus.programs.models import DEMONSTRATOR, Access, OpenModel, open_model, open_role_models
from ludus.programs.statistics import clustered_mean, exclusion_bounds, mean_pass_at_k, mean_pass_hat_k, quantiles
from ludus.recording.backend import Backend
from ludus.recording.expert import Expert
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.store import RolloutLog
from ludus.types import MAIN_ROLE, Rollout, Sampling, Task, Usage

PURPOSE = "eval"


class Evaluation(msgspec.Struct, kw_only=True):
    """What an evaluation found. Means are over tasks, of each task's mean over samples."""

    env: str
    model: str
    split: str
    num_tasks: int
    samples: int
    mean: float
    se: float
    """Standard error of the mean, clustered by task."""
    interval: tuple[float, float]
    """95 %."""
    bounds: tuple[float, float]
    """The mean with excluded rollouts counted as 0 and as 1."""
    pass_at: dict[str, float]
    """Unbiased pass@k by k: at least one of k samples succeeds."""
    pass_hat: dict[str, float]
    """Unbiased pass^k by k: all of k samples succeed."""
    metrics: dict[str, float]
    """Mean of every scorer, and of turns."""
    num_excluded: int
    num_retried: int
    excluded_rate: float
    failed_rate: float
    """Rollouts that the policy itself made fail; they count as the environment's failure reward."""
    truncated_rate: float
    tokens: dict[str, int]
    """Of every attempt, retried ones included; so is the cost."""
    cost: float
    latency_s: dict[str, float]
    """Quantiles of a rollout's time, without what it waited for rate limits and attempts that failed."""
    waited_s: float = 0.0
    """What a rollout waited so, on average."""
    concurrency: int = 0
    """Rollouts at once, at most."""
    price: tuple[float, float] | None = None
    """Dollars per million prompt and completion tokens of the model; None where none was given."""
    seconds: float
    sandboxes: list[str] = []
    """How what ran in sandboxes was contained: their tiers."""
    success_reward: float = 1.0
    """The environment's: from which a rollout counts as a success."""
    stopped: str = ""
    """Why it ended early, if it did."""
    out: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN (no task, one task) becomes None."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}

    def __str__(self) -> str:
        return "\n".join(align(self._rows(), right=[1]))

    def _repr_html_(self) -> str:
        return as_html(self._rows())

    def _rows(self) -> list[tuple[str, str]]:
        from ludus.programs.tables import evaluation_table

        names, cells = evaluation_table([self])
        return [("", self.env), *zip(names, cells, strict=True)]


class Tally:
    """Counts rollouts as they finish, in memory that does not grow with their length."""

    def __init__(self, success_reward: float) -> None:
        self.success_reward = success_reward
        self.rewards: dict[str, list[float]] = defaultdict(list)
        self.num_excluded: dict[str, int] = defaultdict(int)
        self.usage = Usage()
        self.seconds: list[float] = []
        self.waited: list[float] = []
        self.metrics: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.num_failed = self.num_truncated = 0
        self.sandboxes: set[str] = set()

    def spend(self, rollout: Rollout) -> None:
        """Count what an attempt took, whether or not it is a sample's last."""
        self.usage = self.usage + rollout.usage
        self.sandboxes.update(rollout.sandboxes)

    def add(self, rollout: Rollout) -> None:
        """Count one sample's last attempt."""
        task = rollout.task.id
        if rollout.excluded:
            self.num_excluded[task] += 1
            return
        self.rewards[task].append(rollout.reward)
        self.waited.append(waited_s(rollout.calls))
        self.seconds.append(working_s(rollout))
        self.num_failed += rollout.failure is not None
        self.num_truncated += rollout.truncated
        for name, value in {**rollout.metrics, "num_turns": float(rollout.num_turns)}.items():
            self.metrics[name][task].append(value)

    def result(self, **about: Any) -> Evaluation:
        """The statistics of what was counted."""
        estimate = clustered_mean(self.rewards)
        succeeded = {t: [r >= self.success_reward for r in rewards] for t, rewards in self.rewards.items()}
        scored, excluded = len(self.seconds), sum(self.num_excluded.values())
        most = max((len(rewards) for rewards in succeeded.values()), default=0)
        ks = [k for k in (1, 2, 4, 8, 16, 32, 64, 128) if k <= most]
        low, high = estimate.interval()
        seen = [0.0, *(reward for rewards in self.rewards.values() for reward in rewards)]
        return Evaluation(
            num_tasks=estimate.num_tasks, mean=estimate.mean, se=estimate.se, interval=(low, high),
            bounds=exclusion_bounds(self.rewards, self.num_excluded, worst=min(0.0, *seen), best=max(1.0, *seen)),
            pass_at={str(k): mean_pass_at_k(succeeded, k).mean for k in ks},
            pass_hat={str(k): mean_pass_hat_k(succeeded, k).mean for k in ks},
            metrics={name: clustered_mean(values).mean for name, values in sorted(self.metrics.items())},
            num_excluded=excluded, excluded_rate=excluded / max(1, scored + excluded),
            failed_rate=self.num_failed / max(1, scored), truncated_rate=self.num_truncated / max(1, scored),
            tokens={"prompt": self.usage.prompt_tokens, "completion": self.usage.completion_tokens},
            cost=self.usage.cost, latency_s=quantiles(self.seconds), sandboxes=sorted(self.sandboxes),
            waited_s=sum(self.waited) / max(1, scored),
            success_reward=self.success_reward, **about,
        )  # fmt: skip


class Budget(msgspec.Struct, frozen=True):
    """Where an evaluation stops early; None is no limit."""

    max_cost: float | None = None
    """US dollars."""
    max_tokens: int | None = None

    def spent(self, usage: Usage) -> str:
        """What ran out, or ""."""
        if self.max_cost is not None and usage.cost >= self.max_cost:
            return f"the cost reached {usage.cost:.4f} of at most {self.max_cost} dollars"
        total = usage.prompt_tokens + usage.completion_tokens
        if self.max_tokens is not None and total >= self.max_tokens:
            return f"the tokens reached {total} of at most {self.max_tokens}"
        return ""


NO_BUDGET = Budget()


async def run_evaluation(
    env: Environment,
    backends: Mapping[str, Backend],
    plan: Plan,
    *,
    tasks: list[Task],
    samples: int = 1,
    log: RolloutLog | None = None,
    budget: Budget = NO_BUDGET,
    earlier: Iterable[Rollout] = (),
    progress: Progress = lambda row: None,
    on_start: Callable[[Scheduler], None] = lambda scheduler: None,
) -> Evaluation:
    """Evaluate the model behind `backends` on the given tasks.

    Args:
        samples: rollouts a task.
        log: where rollouts are recorded.
        earlier: what earlier calls recorded, in that order; finished groups of `tasks` are counted, not run again.
        on_start: is handed the scheduler, to stop it early.

    Raises:
        TooManyFailures: nearly all rollouts fail.
    """
    began = time.perf_counter()
    tally = Tally(env.success_reward)
    done = _count_earlier(tally, earlier, tasks, samples, plan.max_retries)
    todo = [(task, 0) for task in tasks if task.id not in done]
    finished = len(tasks) - len(todo)

    def record(rollout: Rollout) -> None:
        if log is not None:
            log.append(rollout)
        tally.spend(rollout)
        scheduler.stopping |= bool(budget.spent(tally.usage))

    async with Scheduler(env, backends, plan, on_rollout=record) as scheduler:
        scheduler.stopping = bool(budget.spent(tally.usage))
        on_start(scheduler)
        async for group in scheduler.groups(todo, samples):
            for rollout in group.rollouts:
                tally.add(rollout)
            finished += 1
            progress({"phase": plan.purpose, "done": finished, "total": len(tasks)})
    stopped = "" if finished == len(tasks) else budget.spent(tally.usage) or "interrupted"
    return tally.result(
        env=env.describe().id, model=backends[MAIN_ROLE].name, split=plan.split, samples=samples,
        num_retried=scheduler.watch.retried, seconds=time.perf_counter() - began, stopped=stopped,
        concurrency=plan.concurrency,
    )  # fmt: skip


def _count_earlier(
    tally: Tally, earlier: Iterable[Rollout], tasks: Iterable[Task], samples: int, max_retries: int
) -> set[str]:
    """Count what is recorded of the tasks; returns the ids of those that are finished.

    A sample is finished if the attempt recorded last counts or was its last chance. A killed evaluation leaves others,
    and so does a group scorer that failed: their tasks begin anew, from the first attempt on.
    """
    last: dict[str, dict[int, Rollout]] = {task.id: {} for task in tasks}
    for rollout in earlier:
        if rollout.task.id in last:
            tally.spend(rollout)
            rollout.sequences = []  # only scores and counts are needed
            last[rollout.task.id][rollout.seeds.sample] = rollout
    done = set()
    for task, rollouts in last.items():
        ended = [r for r in rollouts.values() if not r.excluded or r.seeds.attempt == max_retries]
        if len(ended) == samples:
            done.add(task)
            for rollout in ended:
                tally.add(rollout)
    return done


async def evaluate_async(
    env: str | Environment,
    model: str | Backend,
    *,
    split: str = "test",
    num_tasks: int = 100,
    samples: int = 1,
    concurrency: int = 64,
    seed: int = 0,
    max_tokens: int | None = None,
    temperature: float | None = None,
    args: Mapping[str, Any] | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    price: tuple[float, float] | None = None,
    role_models: Mapping[str, str | Backend] | None = None,
    role_access: Mapping[str, Access] | None = None,
    out: str | Path | None = None,
    timeout_s: float = 600.0,
    workers: int = 0,
    budget: Budget = NO_BUDGET,
    progress: Progress = lambda row: None,
    on_start: Callable[[Scheduler], None] = lambda scheduler: None,
) -> Evaluation:
    """`evaluate` for code that is async already; see there."""
    if isinstance(env, str):
        env = load_environment(env, args)
    check_expert(env, model)
    tasks = take(env, split, num_tasks)
    overrides = {"max_tokens": max_tokens, "temperature": temperature}
    sampling = preferred_sampling(env, {k: v for k, v in overrides.items() if v is not None})
    plan = Plan(seed, PURPOSE, split, sampling, concurrency, timeout_s, workers=workers)
    with ExitStack() as stack:
        access = Access(base_url, api_key, price)
        opened = open_model(model, **vars(access)) if isinstance(model, str) else OpenModel(model)
        stack.callback(opened.close)
        await opened.warm_up()
        others = open_role_models(role_models or {}, env.roles, stack, role_access or {})
        run = None
        if out is not None:
            about = {
                "env": msgspec.to_builtins(env.describe()), "model": opened.backend.name, **await opened.identity(),
                "split": split, "samples": samples, "seed": seed, "sampling": msgspec.to_builtins(sampling),
            }  # fmt: skip
            if others:
                about["role_models"] = {role: other.name for role, other in others.items()}
            run = stack.enter_context(open_out(Path(out), "evaluation", about))
        result = await run_evaluation(
            env, {MAIN_ROLE: opened.backend, **others}, plan, tasks=tasks, samples=samples,
            log=run.rollouts if run else None, earlier=run.rollouts if run else (), budget=budget,
            progress=progress, on_start=on_start,
        )  # fmt: skip
        result.out, result.price = str(out or ""), price
        if run:
            run.write_result(result.to_dict())
        return result


def check_expert(env: Environment, model: str | Backend) -> None:
    """Raises ConfigError where the demonstrator is to play an environment that has none."""
    if (model == DEMONSTRATOR or isinstance(model, Expert)) and env.demonstrator_of(MAIN_ROLE) is None:
        raise ConfigError(f"{env.describe().id} has no demonstrate(task), so no demonstrator can play it: name a model")


def evaluate(
    env: str | Environment, model: str | Backend, *, progress: Progress | None = None, **options: Any
) -> Evaluation:
    """Evaluate a model in an environment; also inside a running event loop, such as a notebook's.

    Args:
        env: an environment, or what `ludus eval ENV` takes.
        model: a model folder, a run, `openai:NAME`, `demonstrator`, or a backend.
        progress: is given rows instead of having them shown, in the thread in which the program runs.
        **options: split, num_tasks, samples, concurrency, seed, max_tokens, temperature, args (the environment's
            options), base_url, api_key, price (dollars per million tokens in and out), role_models (who plays roles beside
            the main one), role_access (by role, an `Access` to such a model), out (a folder for rollouts; resumed if it is
            there), timeout_s, workers, budget.

    Raises:
        UsageError: an environment, model or option that does not exist.
        TooManyFailures: nearly all rollouts fail.
        KeyboardInterrupt: interrupted; what ran was finished first, and with `out` the same call goes on from there.
    """
    title = f"{_name(env)} · {model if isinstance(model, str) else model.name}"

    def on_start(scheduler: Scheduler) -> None:
        blocking.stops(lambda: setattr(scheduler, "stopping", True))

    with watching(title, {}, progress) as watcher:
        blocking = Blocking(
            lambda: evaluate_async(env, model, progress=watcher.see, on_start=on_start, **options), watcher
        )
        return blocking.run(_interrupted)


def _name(env: str | Environment) -> str:
    return env if isinstance(env, str) else env.describe().id


def _interrupted(result: Evaluation) -> str:
    return f"stopped early, with {result.num_tasks} tasks done" + (
        "; the same call goes on from there" if result.out else "; with out=FOLDER such a call can go on from there"
    )


def preferred_sampling(env: Environment, overrides: Mapping[str, Any]) -> Sampling:
    """The environment's preferred sampling, with a program's own settings on top. Raises ConfigError."""
    try:
        return Sampling(**{**env.sampling, **overrides})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sampling settings: {error}") from None
