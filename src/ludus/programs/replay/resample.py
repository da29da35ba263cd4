"""Resample: the recorded tokens again, from kept weights, with the recorded seeds and sampling parameters.

Every call is sampled from its recorded prompt, so the environment is not needed and one difference brings no others. The
same weights also score the recorded tokens (`trainer.forward`), which is weaker, and has no chance in it. The rollouts
of a deterministic run are sampled in the batches that they were sampled in, which gives the same bits on one machine
and build; elsewhere other batches round otherwise, and a draw at the edge between two tokens may fall on the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from ludus.errors import ModelFolderError
from ludus.programs.models import OpenModel
from ludus.programs.replay.result import Finding
from ludus.programs.replay.selection import BATCH, Selection
from ludus.programs.replay.tokens import Compared, sample_again
from ludus.programs.replay.waves import Wave, waves_of
from ludus.programs.replay.weights import KeptWeights
from ludus.protocols import Datum, Lockstep
from ludus.recording.backend import TokenBackend
from ludus.store import RolloutIndex
from ludus.types import Rollout

SIDE_BY_SIDE = 128
"""Rollouts sampled at once where batches may be composed in any way."""


async def resample(index: RolloutIndex, selection: Selection, kept: KeptWeights) -> list[Finding]:
    """Sample the chosen rollouts again, version by version of the weights."""
    found: dict[str, Finding] = {}
    by_version: dict[int, list[str]] = {}
    for rollout in _chosen(selection):
        versions = versions_of(rollout, kept)
        found[rollout.id] = Finding(rollout=rollout.id, task=rollout.task.id, purpose=rollout.purpose)
        found[rollout.id].cannot = _cannot(versions, kept)
        if not found[rollout.id].cannot:
            by_version.setdefault(versions[0], []).append(rollout.id)
    waves = waves_of(index.log) if kept.deterministic else []
    for version, ids in sorted(by_version.items()):
        try:
            opened = await kept.open(version)
        except ModelFolderError as error:
            for rollout_id in ids:
                found[rollout_id].cannot = str(error)
            continue
        try:
            compared = (
                _in_waves(index, opened, waves, set(ids))
                if kept.deterministic
                else _in_any_order(index, opened, ids, kept)
            )
            async for one in compared:
                found[one.rollout.id] = one.finding()
        finally:
            opened.close()
    return list(found.values())


def versions_of(rollout: Rollout, kept: KeptWeights) -> list[int]:
    """The versions of the weights that sampled its tokens, but for roles that other models played."""
    stamped = (s.versions for s in rollout.sequences if s.role not in kept.frozen_in(rollout))
    return sorted({version for versions in stamped for version in versions if version >= 0})


def _chosen(selection: Selection) -> Iterator[Rollout]:
    return (rollout for group in selection.groups() for rollout in group if rollout.id in selection.ids)


def _cannot(versions: Sequence[int], kept: KeptWeights) -> str:
    if not versions:
        return "no tokens were recorded: the demonstrator, a person or an API spoke"
    if len(versions) > 1:
        return f"its tokens were sampled by several versions of the weights ({', '.join(map(str, versions))})"
    return "" if versions[0] in kept.versions else kept.missing(versions[0])


async def _in_any_order(
    index: RolloutIndex, opened: OpenModel, ids: Sequence[str], kept: KeptWeights
) -> AsyncIterator[Compared]:
    for start in range(0, len(ids), SIDE_BY_SIDE):
        rollouts = [index.get(rollout_id) for rollout_id in ids[start : start + SIDE_BY_SIDE]]
        compared = await asyncio.gather(*(sample_again(_backend(opened), r, kept.frozen_in(r)) for r in rollouts))
        await _score(opened, compared)
        for one in compared:
            yield one


async def _in_waves(
    index: RolloutIndex, opened: OpenModel, waves: Iterable[Wave], ids: set[str]
) -> AsyncIterator[Compared]:
    """Whole waves, in lockstep; those in which none was chosen are left out."""
    for wave in waves:
        if ids.isdisjoint(rollout for attempts in wave.ids for rollout in attempts):
            continue
        members = [[index.get(rollout) for rollout in attempts] for attempts in wave.ids]
        backend = _backend(opened)
        assert isinstance(backend.sampler, Lockstep)  # the embedded engine's is
        backend.sampler.attach(len(members))
        results = await asyncio.gather(*(_member(backend, backend.sampler, attempts) for attempts in members))
        compared = [one for attempts in results for one in attempts if one.rollout.id in ids]
        await _score(opened, compared)
        for one in compared:
            yield one


async def _member(backend: TokenBackend, lockstep: Lockstep, attempts: Sequence[Rollout]) -> list[Compared]:
    try:
        return [await sample_again(backend, rollout) for rollout in attempts]
    finally:
        lockstep.detach()


async def _score(opened: OpenModel, compared: Sequence[Compared]) -> None:
    """The recorded tokens under the same weights; not where tokens were left out of the distribution."""
    assert opened.engine is not None  # a kept model is ours
    for start in range(0, len(compared), BATCH):
        whole = [one for one in compared[start : start + BATCH] if not one.refused]
        pairs = [(one, s) for one in whole for s in one.sequences if not s.truncated_sampling]
        data = [Datum(tokens_T=s.tokens, arrays={}, temperature=s.temperature or 1.0) for _, s in pairs]
        for (one, sequence), logprobs_T in zip(pairs, await opened.engine.trainer.forward(data), strict=True):
            one.see_scored(sequence, logprobs_T)


def _backend(opened: OpenModel) -> TokenBackend:
    assert isinstance(opened.backend, TokenBackend)  # a kept model is ours
    return opened.backend
