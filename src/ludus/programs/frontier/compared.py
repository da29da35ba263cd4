"""`compared`: models that were evaluated on the same tasks, beside each other; which of them none of the others beats."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from ludus.errors import UnknownName, UsageError
from ludus.programs.frontier.measured import NO_PRICE, Measured, measure
from ludus.programs.frontier.trials import Evaluated, read
from ludus.programs.prices import Price, bare, price_for
from ludus.programs.statistics import Figure


@dataclass(frozen=True)
class Axis:
    """What accuracy is shown against."""

    name: str
    label: str
    of: Callable[[Measured], Figure]


COST = Axis("cost", "cost, dollars a task", lambda model: model.cost)
ANSWER = Axis("time", "time to answer, median seconds", lambda model: model.answer.p50)
SLOWEST = Axis("p95", "time to answer, 95th percentile, seconds", lambda model: model.answer.p95)
AXES = (COST, ANSWER, SLOWEST)


@dataclass(frozen=True)
class Section:
    """The models in one environment."""

    title: str
    models: list[Measured]
    notes: list[str]

    @property
    def by_reward(self) -> bool:
        """Whether no rollout was a success though rewards differ, so that the mean reward says more than accuracy."""
        scored = [model for model in self.models if model.num_tasks]
        return not any(m.accuracy.value for m in scored) and len({m.reward.value for m in scored}) > 1

    def score(self, model: Measured) -> Figure:
        """What stands on the vertical axis."""
        return model.reward if self.by_reward else model.accuracy

    def front(self, axis: Axis) -> set[str]:
        """Names of the models that none of the others beats: nobody is as good for less, or better for as little."""
        points = {m.model: (axis.of(m).value, self.score(m).value) for m in self.models}
        known = {name: point for name, point in points.items() if all(map(math.isfinite, point))}
        return {name for name, point in known.items() if not any(_beats(other, point) for other in known.values())}

    def best_at(self, model: Measured) -> str:
        """The axes on whose front a model is."""
        return ", ".join(axis.name for axis in AXES if model.model in self.front(axis))


def compared(
    runs: Sequence[Path], prices: Mapping[str, Price] | None = None, *, named: Iterable[str] = ()
) -> list[Section]:
    """Evaluations side by side, one section for each environment with its options.

    Args:
        runs: run folders; of training runs, the last evaluation counts.
        prices: by model; "" is everybody else's who runs behind an API.
        named: models of which something was said, so that they have to be there.

    Raises:
        RunFolderError: not a run folder, or a damaged one.
        UsageError: one without a finished evaluation or named twice, or a name of a model that is not there.
    """
    if twice := [run for run, count in Counter(runs).items() if count > 1]:
        raise UsageError(f"{twice[0]} is named twice")
    found = [evaluated for run in runs for evaluated in read(run)]
    names = {bare(evaluated.model) for evaluated in found}
    for name in map(bare, named):
        if name not in names:
            raise UnknownName("model among the evaluations", name, names)
    groups: dict[str, list[Evaluated]] = {}
    for one in found:
        key = msgspec.json.encode([one.env.id, one.env.options, one.split], order="sorted").decode()
        groups.setdefault(key, []).append(one)
    return [_section(own, prices or {}) for own in groups.values()]


def _section(found: Sequence[Evaluated], prices: Mapping[str, Price]) -> Section:
    models = _told_apart([measure(one, _price(one, prices)) for one in found])
    env = found[0].env
    options = ", ".join(f"{key}={value}" for key, value in env.options.items())
    title = f"{env.id}, {found[0].split}" + (f" ({options})" if options else "")
    return Section(title, models, list(_notes(found, models)))


def _told_apart(models: Sequence[Measured]) -> list[Measured]:
    """Models of one name get that of their run behind it."""
    counts, runs = Counter(model.model for model in models), Counter(model.run.name for model in models)
    return [
        m if counts[m.model] == 1 else replace(m, model=f"{m.model} ({m.run.name if runs[m.run.name] == 1 else m.run})")
        for m in models
    ]


def _price(found: Evaluated, prices: Mapping[str, Price]) -> Price | None:
    """What was said of the model; what was said of all is no price for a model that ran here."""
    named = {name: price for name, price in prices.items() if name}
    local = any(trial.local for trial in found.trials)
    return price_for(found.model, named if local else prices)


def _notes(found: Sequence[Evaluated], models: Sequence[Measured]) -> list[str]:
    """What a reader must know before believing the chart."""
    notes = []
    if len({(one.env.version, one.env.hash) for one in found}) > 1:
        notes.append("the environment's code differs between the evaluations (another version or content hash)")
    if len({frozenset(trial.task for trial in one.trials) for one in found}) > 1:
        notes.append("the models were not all scored on the same tasks")
    if len({model.concurrency for model in models}) > 1:
        notes.append("different numbers of rollouts ran at once, which changes how long each takes")
    notes += [f"{model.model} ended early: {model.stopped}" for model in models if model.stopped]
    notes += [f"every rollout of {model.model} was excluded" for model in models if not model.num_tasks]
    notes += [
        f"{model.model}: {model.num_cached} of {model.num_rollouts} rollouts have replies from a cache, which count in "
        f"neither cost nor time"
        for model in models
        if model.num_cached
    ]
    unpriced = [model.model for model in models if model.priced == NO_PRICE]
    if unpriced:
        notes.append(f"no price is known of {', '.join(unpriced)}, so no cost (--price {unpriced[0]}=IN,OUT)")
    return notes


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether a point (less is better, more is better) is at least as good in both, and better in one."""
    return one[0] <= other[0] and one[1] >= other[1] and one != other
