"""The index follows the log: it catches up, notices when it is stale or damaged, and loses nothing when deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from recorded import make_rollout

from ludus.errors import RunFolderError, UnknownName
from ludus.store import PurposeSummary, RolloutIndex, RunFolder
from ludus.types import Failure, Seeds


def ids(index: RolloutIndex) -> list[str]:
    return [row.id for row in index.query()]


def test_rollouts_are_found_and_read_by_seeking(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        for number in range(4):
            purpose = "eval:end" if number % 2 else "train"
            run.rollouts.append(make_rollout(number, purpose=purpose, reward=float(-number), task=f"t{number}"))
        failed = make_rollout(4, purpose="train", reward=0.0)
        failed.failure = Failure("tool", "environment", "OSError: gone")
        run.rollouts.append(failed)
        with RolloutIndex(run.path) as index:
            assert ids(index) == ["r0", "r1", "r2", "r3", "r4"]
            assert [row.id for row in index.query(purpose="eval:end", order_by="reward")] == ["r3", "r1"]
            assert [row.id for row in index.query(order_by="reward", descending=True, limit=2)] == ["r0", "r4"]
            assert [row.id for row in index.query(task="t2")] == ["r2"]
            assert [row.boundary for row in index.query(blame="environment")] == ["tool"]
            assert index.purposes() == [
                PurposeSummary("train", 3, 2, 1, 0, 0, 0, -1.0),
                PurposeSummary("eval:end", 2, 2, 0, 0, 0, 0, -2.0),
            ]
            (row,) = index.query(group="g3", split="train")
            assert (row.reward, row.num_turns, row.tokens, row.visit, row.stop) == (-3.0, 2, 2, 1, "done")
            assert index.get("r3") == make_rollout(3, purpose="eval:end", reward=-3.0, task="t3")
            with pytest.raises(UnknownName, match="did you mean 'r4'"):
                index.get("rr4")
            with pytest.raises(UnknownName, match="did you mean 'reward'"):
                index.query(order_by="rewards")


def test_of_a_retried_sample_the_last_attempt_counts(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        for attempt in range(3):
            rollout = make_rollout(attempt)
            rollout.group, rollout.seeds = "g", Seeds(run=0, visit=0, sample=0, attempt=attempt)
            if attempt < 2:
                rollout.failure, rollout.stop = Failure("model", "infrastructure", "gone"), "failed"
            run.rollouts.append(rollout)
        with RolloutIndex(run.path) as index:
            assert [row.id for row in index.query(last_attempts=True, purpose="train")] == ["r2"]
            assert ids(index) == ["r0", "r1", "r2"]
            assert index.purposes() == [PurposeSummary("train", 1, 1, 0, 0, 2, 0, 1.0)]


def test_it_catches_up_with_a_run_that_goes_on(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run, RolloutIndex(run.path) as index:
        assert ids(index) == []
        run.rollouts.append(make_rollout(0))
        index.refresh()
        run.rollouts.append(make_rollout(1))
        run.rollouts.close()
        run.rollouts.append(make_rollout(2))
        with RolloutIndex(run.path) as second:
            assert ids(second) == ["r0", "r1", "r2"]
        assert ids(index) == ["r0", "r1", "r2"]


def test_a_torn_record_is_indexed_once_it_is_whole(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        run.rollouts.append(make_rollout(0))
        run.rollouts.append(make_rollout(1))
        segment = run.rollouts.segments()[0]
        whole = segment.read_bytes()
        segment.write_bytes(whole[:-9])
        with RolloutIndex(run.path) as index:
            assert ids(index) == ["r0"]
            segment.write_bytes(whole)
            index.refresh()
            assert ids(index) == ["r0", "r1"]


def test_a_stale_index_is_rebuilt(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        size = run.rollouts.append(make_rollout(0)).length
        run.rollouts.append(make_rollout(1))
        RolloutIndex(run.path).close()
        os.truncate(run.rollouts.segments()[0], size)
        with RolloutIndex(run.path) as index:
            assert ids(index) == ["r0"]


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to have a header" * 9, b""])
def test_a_damaged_index_is_rebuilt(tmp_path: Path, content: bytes) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        run.rollouts.append(make_rollout(0))
        (run.path / "index.db").write_bytes(content)
        with RolloutIndex(run.path) as index:
            assert ids(index) == ["r0"]


def test_without_a_place_to_write_it_lives_in_memory(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        run.rollouts.append(make_rollout(0))
        (run.path / "index.db").mkdir()
        with RolloutIndex(run.path) as index:
            assert ids(index) == ["r0"]


def test_an_altered_record_is_not_handed_out(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a") as run:
        run.rollouts.append(make_rollout(0))
        segment = run.rollouts.segments()[0]
        with RolloutIndex(run.path) as index:
            segment.write_bytes(segment.read_bytes().replace(b"higher", b"lower!"))
            with pytest.raises(RunFolderError, match="hash"):
                index.get("r0")
