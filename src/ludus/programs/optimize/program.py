"""`ludus optimize`: GEPA (arXiv:2507.19457) looks for a better system prompt; tasks that it never saw say what it is worth.

GEPA reflects on rollouts of training tasks, proposes prompts, and keeps those that do well on other training tasks. The
held-out comparison is of the environment as it is and with the best prompt, on the same test tasks with the same seeds,
task by task.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from ludus.authoring.calling import call
from ludus.authoring.environment import Environment
from ludus.display.watch import Progress
from ludus.environments.reasoning.prompt import Prompt
from ludus.errors import LudusError, MissingExtra, RunFolderError, UsageError
from ludus.programs.compare import scores_by_task
from ludus.programs.evaluate import Evaluation, run_evaluation
from ludus.programs.gone_on import open_out
from ludus.programs.models import DEMONSTRATOR, NO_ACCESS, Access, OpenModel, open_model, open_role_models
from ludus.programs.optimize.asked import MINIBATCH, OptimizeConfig, Optimized, split_tasks
from ludus.programs.optimize.bridge import COMPONENT, Bridge, Stopped, sampling_of
from ludus.programs.optimize.earlier import Earlier
from ludus.programs.statistics import PairedDifference, paired_difference
from ludus.recording.backend import Backend
from ludus.redaction import SECRETS
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.store import RolloutIndex, RunFolder
from ludus.store.durable import disk_errors, write_atomically
from ludus.types import MAIN_ROLE, Rollout, Task, Usage

log = logging.getLogger(__name__)

SEED_PROMPT = "Do what you are asked, exactly and in the form that is asked for."
"""Where GEPA begins in an environment without a prompt of its own; the comparison is with the environment as it is."""
BEST = "best_prompt.txt"


async def optimize_async(
    env: Environment,
    model: str | Backend,
    config: OptimizeConfig,
    out: Path,
    *,
    reflection_model: str | Backend | None = None,
    access: Access = NO_ACCESS,
    reflection_access: Access = NO_ACCESS,
    role_models: Mapping[str, str | Backend] | None = None,
    role_access: Mapping[str, Access] | None = None,
    progress: Progress = lambda row: None,
    on_start: Callable[[Callable[[], object]], object] = lambda stop: None,
) -> Optimized:
    """Look for a better system prompt and measure it.

    Args:
        env: the environment; its training tasks are looked at, its test tasks only in the comparison.
        model: whose prompt it is: what `ludus eval --model` takes, or a backend.
        out: a new run folder, or that of the same optimisation, which was interrupted: it goes on.
        reflection_model: who reflects; by default the same model.
        access, reflection_access: how the two are reached, where they are behind an API.
        role_models, role_access: who plays roles beside the main one, and how they are reached.
        on_start: is handed a function that asks the program to stop early and compare what it has.

    Raises:
        MissingExtra: gepa is not installed.
        ConfigError: too few tasks.
        UsageError, RunFolderError: a model that does not exist, a folder that is in the way.
        TooManyFailures, RolloutError: rollouts that can't be scored.
    """
    try:
        import gepa  # noqa: F401 - says now if it is not there
    except ImportError as error:
        raise MissingExtra("prompt optimisation", "gepa") from error
    tasks = split_tasks(env, config)
    with ExitStack() as stack:
        opened = _opened(model, access, stack)
        reflecting = opened if reflection_model is None else _opened(reflection_model, reflection_access, stack)
        others = open_role_models(role_models or {}, env.roles, stack, role_access or {})
        run = stack.enter_context(open_out(out, "optimization", _about(env, opened, reflecting, others, config)))
        if (before := run.read_result()) is not None and not before.get("stopped"):
            raise RunFolderError(f"{out} holds an optimization that is finished; choose another folder (--out)")
        program = _Program(env, {MAIN_ROLE: opened, **others}, reflecting, config, tasks, run, progress)
        stack.callback(program.earlier.close)
        on_start(program.stop)
        async with env.opened():
            return await program.run()


class _Program:
    """One optimisation, from the first rollout to result.json."""

    def __init__(
        self,
        env: Environment,
        backends: Mapping[str, Backend],
        reflecting: Backend,
        config: OptimizeConfig,
        tasks: tuple[list[Task], list[Task], list[Task]],
        run: RunFolder,
        progress: Progress,
    ) -> None:
        self.env, self.backends, self.reflecting, self.config, self.folder = env, backends, reflecting, config, run
        self.train, self.val, self.test = tasks
        self.progress, self.usage = progress, Usage()
        """Tokens of the search's new rollouts, and of the comparison."""
        sampling = sampling_of(env, {"max_tokens": config.max_tokens, "temperature": config.temperature})
        self.plan = Plan(
            config.seed, "optimize", self.train_split, sampling, config.concurrency, config.timeout_s
        )  # fmt: skip
        self.earlier = Earlier(run, self.plan)
        self.bridge = Bridge(env, backends, reflecting, self.plan, self.earlier, self.record, self.tell)
        self._comparing: Scheduler | None = None

    @property
    def train_split(self) -> str:
        return "train" if "train" in self.env.splits else self.env.splits[0]

    @property
    def test_split(self) -> str:
        return "test" if "test" in self.env.splits else self.env.splits[-1]

    def stop(self) -> None:
        """End early: no more prompts are tried; asked once more, the comparison ends too."""
        if self.bridge.stopping and self._comparing is not None:
            self._comparing.stopping = True
        self.bridge.stopping = True

    def record(self, rollout: Rollout) -> None:
        """Keep an attempt, and count what it took."""
        self.folder.rollouts.append(rollout)
        self.usage = self.usage + rollout.usage

    def tell(self, num_scored: int) -> None:
        """Say how far it is."""
        done = min(num_scored, self.config.max_rollouts)
        self.progress({"phase": "optimize", "done": done, "total": self.config.max_rollouts})

    async def run(self) -> Optimized:
        """Look, compare, write down."""
        began, first = time.perf_counter(), self.env.system_prompt or SEED_PROMPT
        prompt, num_prompts, stopped = await self.search(first)
        before = await self.compare("start", self.env)
        changed = prompt != self.env.system_prompt
        after = await self.compare("end", Prompt(self.env, text=prompt)) if changed else before
        paired = self.difference(changed)
        total = self.usage + self.earlier.usage
        result = Optimized(
            env=self.env.describe().id, model=self.backends[MAIN_ROLE].name, reflection_model=self.reflecting.name,
            prompt=prompt, before=before.to_dict(), after=after.to_dict(), gain=paired.difference.mean,
            interval=paired.interval, num_prompts=num_prompts, num_rollouts=self.bridge.num_scored,
            num_excluded=self.bridge.num_excluded, num_reflections=self.bridge.num_reflections,
            tokens={"prompt": total.prompt_tokens, "completion": total.completion_tokens}, cost=total.cost,
            seconds=time.perf_counter() - began, stopped=stopped, out=str(self.folder.given),
        )  # fmt: skip
        with disk_errors(f"write {self.folder.given / BEST}"):
            write_atomically(self.folder.path / BEST, SECRETS.hide(prompt).encode())
        self.folder.write_result(msgspec.to_builtins(result))
        return result

    async def search(self, first: str) -> tuple[str, int, str]:
        """GEPA's best prompt, how many it kept, and why it ended early, if it did."""
        from gepa.api import optimize

        adapter: Any = self.bridge

        def look() -> Any:
            return optimize(
                seed_candidate={COMPONENT: first}, trainset=self.train, valset=self.val, adapter=adapter,
                reflection_lm=self.bridge.reflect, reflection_minibatch_size=MINIBATCH,
                max_metric_calls=self.config.max_rollouts, perfect_score=self.env.success_reward,
                stop_callbacks=[self.bridge.stops], logger=_Quiet(), seed=self.config.seed, raise_on_exception=True,
            )  # fmt: skip

        stopped = ""
        try:
            found = await call(look)
            stopped = "interrupted" if self.bridge.stopping else ""
        except Stopped:
            return self.env.system_prompt, 1, "interrupted before a prompt was chosen"
        except Exception as error:
            if self.bridge.error is None:
                raise LudusError(f"gepa failed: {type(error).__name__}: {error}") from error
        finally:
            await self.bridge.close()
        if self.bridge.error is not None:
            raise self.bridge.error
        best = str(found.best_candidate[COMPONENT])
        if best == first:  # nothing did better: as it was
            best = self.env.system_prompt
        return best, len(found.candidates), stopped

    async def compare(self, name: str, env: Environment) -> Evaluation:
        """Evaluate on the held-out tasks, and add a row to metrics.jsonl."""
        plan = replace(self.plan, purpose=f"eval:{name}", split=self.test_split)

        def on_start(scheduler: Scheduler) -> None:
            self._comparing = scheduler

        earlier = (
            rollout
            for rollout in self.folder.rollouts
            if rollout.purpose == plan.purpose and rollout.environment == env.describe()  # with the same prompt
        )
        found = await run_evaluation(
            env, self.backends, plan, tasks=self.test, samples=self.config.samples, log=self.folder.rollouts,
            earlier=earlier, progress=self.progress, on_start=on_start,
        )  # fmt: skip
        self.usage = self.usage + Usage(found.tokens["prompt"], found.tokens["completion"], found.cost)
        self.folder.append_metrics(
            {
                "phase": "eval",
                "step": int(name == "end"),
                "eval/name": name,
                "eval/mean": found.mean,
                "eval/se": found.se,
            }
        )
        return found

    def difference(self, changed: bool) -> PairedDifference:
        """What the prompt adds, task by task."""
        with RolloutIndex(self.folder.path) as index:
            before, after = (
                scores_by_task(index.query(purpose=f"eval:{name}", last_attempts=True))
                for name in ("start", "end" if changed else "start")
            )
        return paired_difference(before, after)


def _about(
    env: Environment, model: Backend, reflecting: Backend, others: Mapping[str, Backend], config: OptimizeConfig
) -> dict[str, Any]:
    """What makes an optimisation the same, as config.toml has it; how much of it runs at once does not."""
    values = {
        key: value for key, value in msgspec.structs.asdict(config).items() if key not in ("concurrency", "timeout_s")
    }
    return {
        "env": msgspec.to_builtins(env.describe()), "model": model.name, "reflection_model": reflecting.name,
        "role_models": {role: other.name for role, other in others.items()}, **values,
    }  # fmt: skip


class _Quiet:
    """GEPA's log is ours."""

    def log(self, message: str) -> None:
        """Into the log."""
        log.debug("%s", message)


def _opened(model: str | Backend, access: Access, stack: ExitStack) -> Backend:
    if not isinstance(model, str):
        return model
    if model == DEMONSTRATOR:
        raise UsageError("the demonstrator takes no prompt: name a model folder, a run or openai:NAME")
    found: OpenModel = open_model(model, **vars(access))
    stack.callback(found.close)
    return found.backend
