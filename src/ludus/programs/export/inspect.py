"""A run as logs of Inspect (`inspect view` opens them): one `.eval` file for each purpose of its rollouts.

A sample is a task, its epochs are the rollouts of it; of each the last attempt, with earlier ones as retries. Rewards
become scores under the scorers' names, beside `reward`, their weighted sum. A rollout that the policy itself made fail
is scored, as it is in training; one that failed through the fault of others is a sample with an error and no score.
Left out: token ids and log-probabilities, for which Inspect has no place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ludus.errors import MissingExtra, UnknownName, UsageError
from ludus.programs.statistics import clustered_mean
from ludus.store import IndexRow, RolloutIndex, RunFolder
from ludus.store.durable import disk_errors
from ludus.types import Rollout, content_hash

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalResults, EvalSample, EvalSpec

REWARD = "reward"
"""The score that holds the weighted sum of the others."""


def export_inspect(run: Path, out: Path, purposes: Sequence[str] = ()) -> list[Path]:
    """Write the rollouts of a run as logs of Inspect; those of an earlier export are replaced.

    Args:
        run: the folder of a training run or of an evaluation, finished or not.
        out: the folder for the logs.
        purposes: of rollouts; by default every evaluation, or everything where there is none.

    Returns:
        The files, in the order of the purposes' first rollouts.

    Raises:
        MissingExtra: inspect-ai is not installed.
        UnknownName: no such purpose.
        UsageError: nothing to export.
        RunFolderError: not a run folder, a damaged one, or `out` can't be written to.
    """
    try:
        from inspect_ai.log import write_eval_log
    except ImportError as error:
        raise MissingExtra("exporting logs for Inspect", "inspect") from error
    written = []
    with RunFolder.open(run) as folder, RolloutIndex(run) as index, disk_errors(f"write into {out}"):
        chosen = _choose(index, purposes)
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".ludus-", dir=out) as aside:  # a log is there whole or not at all
            for purpose in chosen:
                log = _log(folder, index, purpose)
                path = out / _file_name(log)
                write_eval_log(log, str(Path(aside) / path.name), format="eval")
                (Path(aside) / path.name).replace(path)
                written.append(path)
    return written


def _choose(index: RolloutIndex, purposes: Sequence[str]) -> list[str]:
    known = [summary.purpose for summary in index.purposes()]
    for purpose in purposes:
        if purpose not in known:
            raise UnknownName("purpose", purpose, known)
    if not known:
        raise UsageError(f"{index.path.parent} has no rollouts to export yet")
    return list(dict.fromkeys(purposes)) or [name for name in known if name.startswith("eval")] or known


def _file_name(log: EvalLog) -> str:
    """As Inspect calls its own: time, task and an id that is the same each time, so that an export replaces itself."""
    created = re.sub(r"[^0-9T]+", "-", log.eval.created[:19])
    task = re.sub(r"[^A-Za-z0-9.]+", "-", log.eval.task).strip("-") or "task"
    return f"{created}_{task}_{log.eval.task_id}.eval"


def _log(run: RunFolder, index: RolloutIndex, purpose: str) -> EvalLog:
    from inspect_ai.log import EvalLog, EvalStats
    from inspect_ai.model import ModelUsage

    from ludus.programs.export.inspect_sample import sample_of, time_of

    rows = index.query(purpose=purpose, last_attempts=True)
    retried = _retried(index, purpose, rows)
    epochs = _epochs(rows)
    samples: list[EvalSample] = []
    scores: dict[str, dict[str, list[float]]] = {}
    first: Rollout | None = None
    began, ended = float("inf"), 0.0
    for row in rows:
        rollout = index.get(row.id)
        first = first or rollout
        samples.append(sample_of(rollout, epochs[row.id], [index.get(other) for other in retried.get(_key(row), ())]))
        began, ended = min(began, rollout.started), max(ended, rollout.started + rollout.seconds)
        if not rollout.excluded:
            for name, value in {REWARD: rollout.reward, **rollout.metrics}.items():
                scores.setdefault(name, {}).setdefault(row.task, []).append(value)
    assert first is not None  # a purpose has rollouts
    usage = ModelUsage()
    for sample in samples:
        for own in sample.model_usage.values():
            usage = usage + own
    return EvalLog(
        status="success" if _is_finished(run, purpose) else "cancelled",
        eval=_spec(run, first, purpose, samples, time_of(began)),
        results=_results(scores, samples),
        stats=EvalStats(
            started_at=time_of(began), completed_at=time_of(ended), model_usage={first.model or "model": usage}
        ),
        samples=samples,
    )


def _key(row: IndexRow) -> tuple[str, int]:
    return row.group, row.sample


def _retried(index: RolloutIndex, purpose: str, last: Sequence[IndexRow]) -> dict[tuple[str, int], list[str]]:
    """Ids of the attempts before the last, in order, by group and sample."""
    counted = {row.id for row in last}
    found: dict[tuple[str, int], list[str]] = {}
    for row in index.query(purpose=purpose, order_by="attempt"):
        if row.id not in counted:
            found.setdefault(_key(row), []).append(row.id)
    return found


def _epochs(rows: Sequence[IndexRow]) -> dict[str, int]:
    """Which of its task's rollouts each one is, from 1 on, in the order of visits and samples."""
    counts: dict[str, int] = {}
    epochs = {}
    for row in sorted(rows, key=lambda row: (row.visit, row.sample)):
        counts[row.task] = epochs[row.id] = counts.get(row.task, 0) + 1
    return epochs


def _spec(run: RunFolder, first: Rollout, purpose: str, samples: Sequence[EvalSample], created: str) -> EvalSpec:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalSpec

    from ludus.programs.export.inspect_sample import config_of

    env, ids = first.environment, list(dict.fromkeys(str(sample.id) for sample in samples))
    key = content_hash([str(run.path.resolve()), purpose])
    scorers = list(dict.fromkeys(name for sample in samples for name in sample.scores or ()))
    return EvalSpec(
        run_id=content_hash(str(run.path.resolve())), eval_id=key, task_id=key, created=created,
        task=f"{env.id} {purpose}", task_version=env.version or 0, task_args=env.options, model=first.model or "model",
        model_generate_config=config_of(first.calls[0].sampling if first.calls else None),
        dataset=EvalDataset(name=first.split, samples=len(ids), sample_ids=ids),
        config=EvalConfig(epochs=max(sample.epoch for sample in samples)), packages=first.versions,
        scorers=[{"name": name} for name in scorers],
        metadata={"run": run.path.name, "purpose": purpose, "environment_hash": env.hash, "seed": first.seeds.run},
    )  # fmt: skip


def _results(scores: dict[str, dict[str, list[float]]], samples: Sequence[EvalSample]) -> EvalResults:
    """Means over tasks with their standard errors, as everywhere in Ludus."""
    from inspect_ai.log import EvalMetric, EvalResults, EvalScore

    found = []
    for name, by_task in scores.items():
        estimate = clustered_mean(by_task)
        values: dict[str, Any] = {"mean": estimate.mean, "stderr": estimate.se}
        metrics = {key: EvalMetric(name=key, value=value) for key, value in values.items() if value == value}
        scored = sum(map(len, by_task.values()))
        found.append(
            EvalScore(
                name=name, scorer=name, metrics=metrics, scored_samples=scored, unscored_samples=len(samples) - scored
            )
        )
    done = sum(sample.error is None for sample in samples)
    return EvalResults(total_samples=len(samples), completed_samples=done, scores=found)


def _is_finished(run: RunFolder, purpose: str) -> bool:
    """Whether everything that was to be run for it was run."""
    result = run.read_result()
    if result is not None and "complete" not in result:  # of an evaluation
        return not result.get("stopped")
    if purpose.startswith("eval:"):
        name = purpose.partition("@")[0].removeprefix("eval:").removesuffix(":greedy")
        done = {row.get("eval/name") for row in run.read_metrics()}
        return name in done or bool(result)
    return bool(result and result["complete"])
