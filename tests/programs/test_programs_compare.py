"""Comparing two evaluations: from the recorded rollouts to the verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from ludus.errors import RunFolderError, UsageError
from ludus.programs.compare import compare
from ludus.store import RunFolder
from ludus.types import EnvironmentRef, Failure, Reward, Rollout, Seeds, Task

GUESS = EnvironmentRef("guess")


def evaluation(
    path: Path,
    scores: dict[str, list[float]],
    *,
    purpose: str = "eval",
    environment: EnvironmentRef = GUESS,
    excluded: tuple[str, ...] = (),
    finished: bool = True,
    stopped: str = "",
) -> Path:
    path.parent.mkdir(exist_ok=True)
    with RunFolder.create(path) if not path.exists() else RunFolder.resume(path) as run:
        for task, values in [*scores.items(), *((task, [0.0]) for task in excluded)]:
            for sample, value in enumerate(values):
                rollout = Rollout(
                    id=f"{purpose}-{task}-{sample}-{value}",
                    group=task,
                    environment=environment,
                    task=Task(prompt="?", id=task),
                    seeds=Seeds(0, 0, sample, 0),
                    purpose=purpose,
                    rewards=[Reward("correct", value)],
                )
                if task in excluded:
                    rollout.failure = Failure("tool", "environment", "OSError")
                run.rollouts.append(rollout)
        if finished and purpose == "eval":
            run.write_result({"stopped": stopped})
        elif finished and purpose.startswith("eval:"):
            run.append_metrics({"phase": "eval", "eval/name": purpose.removeprefix("eval:")})
    return path


def test_from_rollouts_to_the_paired_difference(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", {"t1": [0.0], "t2": [0.0], "t3": [1.0], "only-a": [1.0]})
    b = evaluation(tmp_path / "b", {"t1": [1.0], "t2": [1.0], "t3": [1.0]}, excluded=("t4",))
    comparison = compare(a, b)
    assert comparison.paired.difference.mean == pytest.approx(2 / 3)
    assert (comparison.paired.gained, comparison.paired.lost) == (("t1", "t2"), ())
    assert comparison.paired.mcnemar_p == 0.5
    assert (comparison.a.num_excluded, comparison.b.num_excluded) == (0, 1)
    assert comparison.notes == ("tasks in one evaluation only, left out: 1",)
    assert comparison.lines() == [
        "                   a                  b                 difference",
        "score              0.3333 ± 0.3333    1.0000 ± 0.0000   +0.6667 ± 0.3333",
        "95 % interval      [-1.1009, 1.7676]  [1.0000, 1.0000]  [-0.7676, 2.1009]",
        "tasks              4                  3                 3 in common",
        "excluded rollouts  0                  1",
        "",
        "gained 2: t1, t2",
        "lost 0",
        "McNemar's exact test: p = 0.5",
        "No difference is shown: the 95 % interval of the difference includes 0, or there are too few tasks.",
        "note: tasks in one evaluation only, left out: 1",
    ]


def test_a_clear_difference_has_a_winner(tmp_path: Path) -> None:
    tasks = [f"t{i:02}" for i in range(20)]
    a = evaluation(tmp_path / "a", {task: [0.0, 0.1 * (i % 2)] for i, task in enumerate(tasks)})
    b = evaluation(tmp_path / "b", {task: [1.0] for task in tasks})
    assert compare(a, b).verdict().startswith("b is better")
    assert compare(b, a).verdict().startswith("b is better")
    assert any(note.startswith("samples per task vary from 1 to 2") for note in compare(a, b).notes)
    assert "and 10 more" in "\n".join(compare(a, b).lines())


def test_of_a_training_run_the_last_evaluation_counts(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for purpose, value in (("train", 0.5), ("eval:start", 0.0), ("eval:end", 1.0), ("eval:end:greedy", 0.25)):
        evaluation(run, {"t1": [value], "t2": [value]}, purpose=purpose, finished=not purpose.endswith(":greedy"))
    other = evaluation(tmp_path / "other", {"t1": [0.0], "t2": [0.0]})
    comparison = compare(other, run)
    assert comparison.b.name == "run (eval:end)"
    assert comparison.paired.difference.mean == 1.0


def test_the_demonstrator_and_what_was_not_finished_are_passed_over(tmp_path: Path) -> None:
    run = evaluation(tmp_path / "run", {"t1": [0.5]}, purpose="eval:start")
    evaluation(run, {"t1": [1.0]}, purpose="eval:demonstrator", finished=False)
    evaluation(run, {"t1": [1.0]}, purpose="eval:step 70", finished=False)
    other = evaluation(tmp_path / "other", {"t1": [0.0]})
    assert compare(other, run).b.purpose == "eval:start"
    with pytest.raises(UsageError, match=r"killed holds no finished evaluation \(it holds rollouts for: eval\)"):
        compare(other, evaluation(tmp_path / "killed", {"t1": [1.0]}, finished=False))


def test_an_evaluation_that_ended_early_is_noted(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", {"t1": [1.0]}, stopped="interrupted")
    b = evaluation(tmp_path / "b", {"t1": [1.0]})
    assert compare(a, b).notes == ("a ended early: interrupted",)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", {"t1": [1.0]})
    with pytest.raises(UsageError, match=r"environment guess.*environment wiki"):
        compare(a, evaluation(tmp_path / "b", {"t1": [1.0]}, environment=EnvironmentRef("wiki")))
    with pytest.raises(UsageError, match="options"):
        compare(a, evaluation(tmp_path / "c", {"t1": [1.0]}, environment=EnvironmentRef("guess", {"high": 9})))
    with pytest.raises(UsageError, match="no task in common"):
        compare(a, evaluation(tmp_path / "d", {"t2": [1.0]}))
    with pytest.raises(UsageError, match=r"no finished evaluation.*train"):
        compare(a, evaluation(tmp_path / "e", {"t1": [1.0]}, purpose="train"))
    with pytest.raises(RunFolderError, match="does not exist; did you mean"):
        compare(a, tmp_path / "aa")


def test_another_version_of_the_environment_is_noted(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", {"t1": [1.0]}, environment=EnvironmentRef("guess", version="1"))
    b = evaluation(tmp_path / "b", {"t1": [1.0]}, environment=EnvironmentRef("guess", version="2"))
    assert "another version" in compare(a, b).notes[0]
