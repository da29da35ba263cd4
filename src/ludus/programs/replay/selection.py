"""Which rollouts are replayed, read group by group; and the environments that they name, built again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from ludus.authoring.environment import Environment
from ludus.authoring.loading import load_environment
from ludus.errors import UnknownName, UsageError
from ludus.programs.replay.result import EnvironmentCheck
from ludus.store import RolloutIndex
from ludus.types import EnvironmentRef, Rollout, content_hash

BATCH = 64
"""Rollouts replayed side by side."""


class Selection:
    """The rollouts to replay, of each sample the last attempt.

    Args:
        index: of the run.
        rollout: the id of the only one.
        purposes: only those made for these.
        num: the first so many.

    Raises:
        UnknownName: no such rollout or purpose, with the nearest one.
        UsageError: the run has none.
    """

    def __init__(
        self, index: RolloutIndex, *, rollout: str | None = None, purposes: Sequence[str] = (), num: int | None = None
    ) -> None:
        self._index = index
        if rollout is not None:
            one = index.get(rollout)
            self._groups = {(one.purpose, one.group): None}
            self.ids = {rollout}
            return
        known = [summary.purpose for summary in index.purposes()]
        for purpose in purposes:
            if purpose not in known:
                raise UnknownName("purpose", purpose, known)
        every = (row for purpose in purposes or known for row in index.query(purpose=purpose, last_attempts=True))
        rows = list(itertools.islice(every, num))
        if not rows:
            raise UsageError(f"{index.path.parent} has no rollouts to replay yet")
        self._groups = {(row.purpose, row.group): None for row in rows}
        self.ids = {row.id for row in rows}

    def groups(self) -> Iterator[list[Rollout]]:
        """Whole groups, in order of their samples: a group scorer compares with rollouts that were not chosen too."""
        for purpose, group in self._groups:
            rows = self._index.query(purpose=purpose, group=group, last_attempts=True, order_by="sample")
            if self.ids.isdisjoint(row.id for row in rows):  # one that was tried again, asked for by its id
                yield [self._index.get(rollout) for rollout in self.ids]
            else:
                yield [self._index.get(row.id) for row in rows]

    def batches(self) -> Iterator[list[list[Rollout]]]:
        """Groups enough to keep replaying busy."""
        batch: list[list[Rollout]] = []
        for group in self.groups():
            batch.append(group)
            if sum(map(len, batch)) >= BATCH:
                yield batch
                batch = []
        if batch:
            yield batch


class Environments:
    """The environments of rollouts, built once each; or one that stands in for all.

    Args:
        instead: an environment, or what `ludus eval ENV` takes, in place of those that the record names.
    """

    def __init__(self, instead: Environment | str | None = None) -> None:
        self._instead = instead
        self._built: dict[str, Environment] = {}
        self._then: dict[str, tuple[EnvironmentRef, list[str]]] = {}

    def of(self, rollout: Rollout) -> Environment:
        """The environment of a rollout. Raises UsageError where it can't be built."""
        ref = rollout.environment
        key = content_hash([ref.id, ref.options])
        if key not in self._built:
            self._built[key], self._then[key] = self._build(ref), (ref, [])
        hashes = self._then[key][1]
        if ref.hash not in hashes:
            hashes.append(ref.hash)
        return self._built[key]

    def checks(self) -> list[EnvironmentCheck]:
        """The content hashes then and now."""
        checks = []
        for key, (ref, hashes) in self._then.items():
            now = self._built[key].describe()
            known = bool(now.hash) and all(hashes)
            same = hashes == [now.hash] if known else None
            checks.append(EnvironmentCheck(ref.id, now.id, hashes, now.hash, same))
        return checks

    def _build(self, ref: EnvironmentRef) -> Environment:
        if isinstance(self._instead, Environment):
            return self._instead
        if self._instead is not None:
            return load_environment(self._instead, ref.options)
        try:
            return load_environment(ref.id, ref.options)
        except UsageError as error:
            raise UsageError(f"the rollouts' environment can't be built: {error}; name it with --env") from error
