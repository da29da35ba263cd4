"""`Training`: what the stages of one training run share: model, environment, run folder, progress, evaluation, states."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ludus.authoring.tasks import take
from ludus.display.watch import Progress as Progress
from ludus.errors import NonFiniteUpdate
from ludus.programs.evaluate import Evaluation, preferred_sampling, run_evaluation
from ludus.programs.members import Member, roles_of
from ludus.programs.models import OpenModel
from ludus.programs.recipe import EvalConfig, Recipe
from ludus.programs.signs import CANARY, MOST_CANARIES, SEEN, Signs
from ludus.programs.together import together
from ludus.protocols import WeightsRef
from ludus.recording.backend import Backend
from ludus.recording.expert import Expert
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.sinks import RunInfo, Sinks, run_id
from ludus.store import RunFolder

if TYPE_CHECKING:
    from ludus.engine.torch.engine import TorchEngine

MOST_SKIPPED = 5
"""Optimiser steps in a row that may be dropped for a NaN or infinite gradient before the run stops."""


class Place(msgspec.Struct, frozen=True):
    """Where RL is in one environment."""

    tasks_used: int = 0
    """Tasks taken from the training stream."""
    useful_rate: float = 1.0
    """Share of groups whose rewards differ, of late."""
    ahead: int = 0
    """Groups that earlier batches had more of than they should; the next one has so many fewer."""


class Position(msgspec.Struct):
    """Where a run is: all that a resumed run needs beside weights and optimiser."""

    sft_steps: int = 0
    rl_steps: int = 0
    places: dict[str, Place] = msgspec.field(default_factory=dict)
    """By environment."""
    skipped: int = 0
    """Optimiser steps dropped in a row."""
    tokens_sampled: int = 0
    tokens_trained: int = 0
    seconds: float = 0.0
    evaluations: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    demonstrator: dict[str, Any] = msgspec.field(default_factory=dict)
    """What the expert scores on the evaluation's tasks."""
    history: list[dict[str, Any]] = msgspec.field(default_factory=list)
    """Evaluations along the way: step, mean, se."""

    @property
    def step(self) -> int:
        """Names states and exports."""
        return self.sft_steps + self.rl_steps

    def place(self, member: str) -> Place:
        """Where RL is in an environment."""
        return self.places.get(member, Place())

    def move(self, member: str, **changes: Any) -> None:
        """RL has gone on in an environment."""
        self.places = {**self.places, member: msgspec.structs.replace(self.place(member), **changes)}


class Training:
    """One training run while it runs."""

    def __init__(
        self, recipe: Recipe, run: RunFolder, members: Sequence[Member], opened: OpenModel,
        others: Mapping[str, Backend], rivals: Mapping[str, Backend], progress: Progress,
    ) -> None:  # fmt: skip
        assert opened.engine is not None  # train() opens nothing else
        self.recipe, self.run, self.members = recipe, run, members
        assert opened.renderer is not None
        self.engine: TorchEngine = opened.engine
        self.renderer = opened.renderer
        self.trained_roles = [role for role in roles_of(members) if role not in others]
        self.backends: dict[str, Backend] = {**dict.fromkeys(self.trained_roles, opened.backend), **others}
        self.rivals = rivals
        """Who plays roles in evaluations that somebody else plays in training."""
        self.position = Position()
        self.signs = {member.name: Signs(member.name, member.env.success_reward) for member in members}
        self.stopping = False
        self.sinks = Sinks()
        self._schedulers: tuple[Scheduler, ...] = ()
        self._report = progress
        self._clock = time.perf_counter()

    def stop(self) -> None:
        """Finish what is running, save, and end."""
        self.stopping = True
        for scheduler in self._schedulers:
            scheduler.stopping = True

    def watch(self, *schedulers: Scheduler) -> None:
        """These schedulers are the ones to stop."""
        self._schedulers = schedulers
        for scheduler in schedulers:
            scheduler.stopping |= self.stopping

    def mark(self) -> Callable[[], None]:
        """A way back to here, for work that is cut short: a resumed run does it again, and nothing counts twice."""
        mark, position = self.run.mark(), msgspec.structs.replace(self.position)

        def go_back() -> None:
            self.run.cut_to(mark)
            self.position = position

        return go_back

    def plan(self, member: Member, purpose: str, split: str, **sampling: Any) -> Plan:
        """How rollouts of an environment are made in this run."""
        return Plan(
            seed=self.recipe.seed, purpose=member.purpose(purpose), split=split,
            sampling=preferred_sampling(member.env, sampling), concurrency=self.recipe.concurrency,
            timeout_s=member.config.timeout_s or self.recipe.timeout_s,
            deterministic=self.recipe.deterministic, workers=self.recipe.workers,
        )  # fmt: skip

    def log(self, phase: str, row: dict[str, Any]) -> None:
        """Append a row to metrics.jsonl and show it."""
        row = {"phase": phase, "step": self.position.step, **row}
        self.run.append_metrics(row)
        self.sinks.log(row)
        self._report(row)

    def note(self, row: dict[str, Any]) -> None:
        """Show progress that is not worth keeping."""
        self._report(row)

    def open_sinks(self, *, resumed: bool) -> Sinks:
        """The recipe's sinks, which hold every row of metrics.jsonl from here on."""
        recipe, path = self.recipe, self.run.path
        if not recipe.sinks:
            return Sinks()
        about = RunInfo(path, recipe.name, recipe.title, recipe.model_dump(mode="json"), run_id(path), resumed)
        return Sinks(recipe.sinks, about, self.run.read_metrics())

    async def evaluate(self, name: str, *, greedy: bool) -> None:
        """Evaluate on held-out tasks and remember the result under `name`, once."""
        config = self.recipe.eval
        if config is None or name in self.position.evaluations or self.stopping:
            return
        go_back = self.mark()
        sampled = await self._evaluate_once(config, name, {})
        if sampled.stopped:
            go_back()
            return
        result = {**sampled.to_dict(), "step": self.position.step}
        if greedy and config.greedy:
            at_zero = await self._evaluate_once(config, f"{name}:greedy", {"temperature": 0.0})
            if at_zero.stopped:
                go_back()
                return
            _add_greedy(result, at_zero.to_dict())
        if (canaries := await self._canaries(config, name)) is None:
            go_back()
            return
        self.position.evaluations[name] = result
        self.position.history.append({"name": name, "step": self.position.step, "mean": sampled.mean, "se": sampled.se})
        self.log("eval", _eval_row(name, result) | canaries)

    async def _canaries(self, config: EvalConfig, name: str) -> dict[str, float] | None:
        """The share of canary tasks that are rewarded, where an environment has some; None where it was stopped."""
        row: dict[str, float] = {}
        own = config.model_copy(update={"split": CANARY, "num_tasks": min(config.num_tasks, MOST_CANARIES)})
        for member in self.members:
            if CANARY in member.env.splits:
                found = await self._evaluate_member(member, own, f"canary:{name}", {}, None)
                if found.stopped:
                    return None
                self.position.tokens_sampled += found.tokens["completion"]
                row[member.key("eval/canary")] = share = found.pass_at.get("1", float("nan"))
                row[member.key("eval/num_canaries")] = num = found.num_tasks
                self.signs[member.name].see_canaries(share, num)
        return row

    @property
    def demonstrating(self) -> list[Member]:
        """The environments that have an expert."""
        return [member for member in self.members if member.env.can_demonstrate]

    async def evaluate_demonstrator(self) -> None:
        """What the model is taught from, on the same held-out tasks: imitation should come close to it."""
        if self.recipe.eval is None or self.position.demonstrator or not self.demonstrating or self.stopping:
            return
        go_back, taught = self.mark(), self.demonstrators()
        result = await self._evaluate_once(self.recipe.eval, "demonstrator", {}, taught, self.demonstrating)
        if result.stopped:
            go_back()
            return
        self.position.demonstrator = result.to_dict()

    def demonstrators(self) -> dict[str, Backend]:
        """The environment's expert in every role that is trained."""
        return {**self.backends, **dict.fromkeys(self.trained_roles, Expert())}

    async def _evaluate_once(
        self,
        config: EvalConfig,
        name: str,
        sampling: dict[str, Any],
        backends: Mapping[str, Backend] | None = None,
        members: Sequence[Member] | None = None,
    ) -> Evaluation:
        """One environment after the other; what was stopped in one is that one's result."""
        members, found = members or self.members, dict[str, Evaluation]()
        for member in members:
            found[member.name] = result = await self._evaluate_member(
                member, config, f"eval:{name}", sampling, backends
            )
            self.position.tokens_sampled += result.tokens["completion"]
            if result.stopped or not member.name:
                return result
        return together(found, [member.weight for member in members])

    async def _evaluate_member(
        self,
        member: Member,
        config: EvalConfig,
        purpose: str,
        sampling: dict[str, Any],
        backends: Mapping[str, Backend] | None,
    ) -> Evaluation:
        if (most := self.recipe.max_tokens(member.config)) is not None:
            sampling = {"max_tokens": most, **sampling}
        players = {**(backends or self.backends), **self.rivals}
        return await run_evaluation(
            member.env, players, self.plan(member, purpose, config.split, **sampling),
            tasks=take(member.env, config.split, config.num_tasks), samples=config.samples, log=self.run.rollouts,
            progress=self.note, on_start=self.watch,
        )  # fmt: skip

    def count_update(self, update: dict[str, float]) -> None:
        """Keep count of optimiser steps dropped in a row. Raises NonFiniteUpdate after a few."""
        self.position.skipped = self.position.skipped + 1 if update["skipped"] else 0
        if self.position.skipped >= MOST_SKIPPED:
            raise NonFiniteUpdate(
                f"{MOST_SKIPPED} optimiser steps in a row had a NaN or infinite loss or gradient; the weights are those "
                f"from before them (see metrics.jsonl; a lower learning rate often helps)"
            )

    async def save(self) -> None:
        """Save everything that `--resume` needs."""
        self.position.seconds += time.perf_counter() - self._clock
        self._clock = time.perf_counter()

        async def write(folder: Path) -> None:
            await self.engine.trainer.save(folder)
            (folder / "position.json").write_bytes(msgspec.json.encode(self.position))

        await self.run.save_state_async(self.position.step, write)

    async def restore(self) -> None:
        """Go on from the newest whole state. Raises RunFolderError where there is none."""
        state = self.run.load_state()
        self.run.truncate_to(state)
        await self.engine.trainer.load(state.path)
        self.position = msgspec.json.decode((state.path / "position.json").read_bytes(), type=Position)
        self._see_again()
        await self.publish()

    def _see_again(self) -> None:
        """What signs of reward hacking there were before."""
        for row in self.run.read_metrics():
            for member in self.members:
                signs = self.signs[member.name]
                if row["phase"] == "rl":
                    signs.see({name: row.get(member.key(name)) for name in SEEN})
                elif (share := row.get(member.key("eval/canary"))) is not None:
                    signs.see_canaries(share, int(row.get(member.key("eval/num_canaries"), 0)))

    async def publish(self) -> None:
        """Rollouts from now on are stamped with this step's number."""
        await self.engine.publish(WeightsRef(version=self.position.step))

    async def export(self) -> Path:
        """Write the weights as a Hugging Face model folder; the newest one is what naming the run means."""

        async def write(folder: Path) -> None:
            await self.engine.export(folder)
            self.renderer.save_template(folder)

        return await self.run.export(self.position.step, write)


def _add_greedy(result: dict[str, Any], at_zero: dict[str, Any]) -> None:
    """What the same evaluation found at temperature 0, for each environment too."""
    result |= {f"greedy_{key}": at_zero[key] for key in ("mean", "se", "metrics")}
    for member, own in result.get("envs", {}).items():
        _add_greedy(own, at_zero["envs"][member])


def _eval_row(name: str, result: dict[str, Any]) -> dict[str, Any]:
    row = {
        "eval/name": name,
        "eval/mean": result["mean"],
        "eval/se": result["se"],
        "eval/excluded": result["num_excluded"],
    }
    if "greedy_mean" in result:
        row["eval/greedy_mean"] = result["greedy_mean"]
    row |= {f"eval/metric/{metric}": value for metric, value in result["metrics"].items()}
    for member, own in result.get("envs", {}).items():
        row |= {f"env/{member}/{key}": value for key, value in _eval_row(name, own).items() if key != "eval/name"}
    return row | {"time/eval": result["seconds"]}
