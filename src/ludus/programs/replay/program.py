"""`replay`: a run's rollouts judged, played or sampled again, and what that proves.

rescore     the scorers of today on the recorded rollouts
re-enact    the environment against the recorded replies
resample    tokens again, from kept weights
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from ludus.authoring.environment import Environment
from ludus.errors import UnknownName, UsageError
from ludus.programs.blocking import run_anywhere
from ludus.programs.replay.reenact import reenact
from ludus.programs.replay.resample import resample, versions_of
from ludus.programs.replay.rescore import rescore
from ludus.programs.replay.result import How, Replay, proof
from ludus.programs.replay.rewards import Judged, table
from ludus.programs.replay.selection import Environments, Selection
from ludus.programs.replay.tokens import TOLERANCE
from ludus.programs.replay.weights import describe, kept_weights
from ludus.rollouts.attempt import library_versions
from ludus.store import RolloutIndex, RunFolder

HOWS: tuple[How, ...] = get_args(How)


async def replay_async(
    run: str | Path,
    how: How = "rescore",
    *,
    rollout: str | None = None,
    purpose: str | None = None,
    num: int | None = None,
    env: Environment | str | None = None,
    timeout_s: float = 600.0,
) -> Replay:
    """`replay` for code that is async already; see there."""
    if how not in HOWS:
        raise UnknownName("replay", how, HOWS)
    if how == "resample" and env is not None:
        raise UsageError("resampling does not run the environment, so none can stand in for it: leave out --env")
    path = Path(run)
    with RunFolder.open(path) as folder, RolloutIndex(path) as index:
        purposes = [purpose] if purpose is not None else []
        selection = Selection(index, rollout=rollout, purposes=purposes, num=num)
        if how == "resample":
            result = await _resampled(folder, index, selection)
        else:
            result = await _judged(path, how, selection, Environments(env), timeout_s)
    result.proves = proof(result, TOLERANCE)
    return result


def replay(run: str | Path, how: How = "rescore", **options: object) -> Replay:
    """Replay rollouts of a run; nothing is written. Also inside a running event loop, such as a notebook's.

    Args:
        run: a run folder, of a training run or an evaluation.
        how: "rescore", "re-enact" or "resample".
        **options: rollout (the id of the only one), purpose and num (of many), env (in place of the environment that
            the record names: an object or a name), timeout_s (a re-enacted rollout's).

    Raises:
        UsageError: no such rollout, purpose or environment, or nothing to resample from.
        RunFolderError: not a run folder, or a damaged one.
    """
    result: Replay = run_anywhere(lambda: replay_async(run, how, **options))  # type: ignore[arg-type]
    return result


async def _judged(path: Path, how: How, selection: Selection, environments: Environments, timeout_s: float) -> Replay:
    if how == "rescore":
        judged: list[Judged] = await rescore(selection, environments)
        findings = [one.finding() for one in judged]
    else:
        played = await reenact(selection, environments, timeout_s)
        findings, judged = [finding for finding, _ in played], [one for _, one in played]
    scores, reward = table(judged)
    return Replay(
        how=how, run=str(path), findings=findings, environments=environments.checks(), scores=scores, reward=reward
    )


async def _resampled(folder: RunFolder, index: RolloutIndex, selection: Selection) -> Replay:
    kept = kept_weights(folder)
    findings = await resample(index, selection, kept)
    compared = [finding.rollout for finding in findings if not finding.cannot]
    used, libraries = set[int](), set[tuple[str, str]]()
    for rollout in map(index.get, compared):
        used.update(versions_of(rollout, kept))
        libraries.update(rollout.versions.items())
    notes = [describe(kept, sorted(used))] if used else []
    if frozen := kept.frozen | kept.frozen_in_evaluations:
        notes.append(f"not resampled: what other models said, as {', '.join(sorted(frozen))}")
    return Replay(how="resample", run=str(folder.given), findings=findings, notes=notes + _other_build(libraries))


def _other_build(then: Iterable[tuple[str, str]]) -> list[str]:
    """Libraries of another version than then."""
    now = library_versions()
    other = sorted(f"{name} was {was}, is {now.get(name, 'absent')}" for name, was in then if now.get(name) != was)
    return [f"another build: {', '.join(other)}"] if other else []
