"""The card of a model: golden figures, curves with intervals, checks against other tasks, and the page."""

import asyncio
import math
from pathlib import Path

import numpy as np
import pytest

import ludus
from ludus.errors import RunFolderError, UsageError
from ludus.programs.card import card, figures
from ludus.programs.card.answers import Answered, Evaluated, read
from ludus.programs.card.checks import reseeded, reworded
from ludus.programs.evaluate import evaluate_async
from ludus.programs.statistics import wilson
from ludus.testing.scripted import Scripted
from ludus.types import Task


def one(task="t", right=True, tokens=100, **more):
    return Answered(task=task, right=right, tokens=tokens, answer=more.pop("answer", "a"), **more)


# --- figures ------------------------------------------------------------------------------------------------------


def test_wilson_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for right, trials in ((0, 5), (3, 7), (50, 50), (499, 1000)):
        low, high = stats.binomtest(right, trials).proportion_ci(method="wilson")
        assert wilson(right / trials, trials) == pytest.approx((low, high), abs=1e-6)
    assert all(math.isnan(end) for end in wilson(0.0, 0))


def test_skill_by_difficulty_counts_tasks_not_samples():
    answers = [
        one("a", True, level=1.0),
        one("a", False, level=1.0),
        one("b", True, level=1.0),
        one("c", False, level=2.0),
    ]
    first, second = figures.skill_curve(answers)
    assert (first.x, first.mean, first.num_tasks) == (1.0, 0.75, 2) and (second.mean, second.num_tasks) == (0.0, 1)
    assert first.interval == wilson(0.75, 2)
    assert figures.skill_curve([one()]) == [] == figures.calibration_curve([])


def test_calibration_by_hand():
    sure = [(one("a", True), 0.9), (one("b", False), 0.92), (one("c", True), 0.1), (one("d", False), 0.05)]
    curve = figures.calibration_curve(sure)
    assert [(round(p.x, 3), p.mean, p.num_tasks) for p in curve] == [(0.05, 0.0, 1), (0.1, 1.0, 1), (0.91, 0.5, 2)]
    assert figures.calibration_error(sure).value == pytest.approx((0.05 + 0.9 + 0.82) / 4)
    assert figures.brier_score(sure).value == pytest.approx((0.01 + 0.92**2 + 0.81 + 0.0025) / 4)
    assert math.isnan(figures.calibration_error([]).value)


@pytest.mark.slow
def test_the_error_of_a_calibrated_model_is_told_apart_from_one_that_is_not(monkeypatch):
    monkeypatch.setattr(figures, "NUM_DRAWS", 200)
    rng = np.random.default_rng(0)

    def lowest(too_sure):
        chances = rng.uniform(0.05, 0.75, size=80)
        sure = [(one(str(n), bool(rng.random() < p)), p + too_sure) for n, p in enumerate(chances)]
        found = figures.calibration_error(sure)
        assert found.interval[0] <= found.value <= found.interval[1]
        return found.interval[0]

    assert sum(lowest(0.0) == 0.0 for _ in range(40)) >= 34 and sum(lowest(0.25) > 0 for _ in range(40)) >= 38


def test_one_task_has_no_interval():
    for found in (
        figures.calibration_error([(one(), 0.9)]),
        figures.effort([one()]),
        figures.brier_score([(one(), 0.9)]),
    ):
        assert all(math.isnan(end) for end in found.interval)


def test_certainty_is_stated_or_the_agreement_of_the_other_samples():
    answers = [one("t", answer=answer) for answer in ("a", "a", "b")] + [one("alone")]
    source, sure = figures.sureness(answers)
    assert (source, [value for _, value in sure]) == ("agreement", [0.5, 0.5, 0.0])
    assert figures.sureness([*answers, one("u", sure=0.3)])[0] == "stated"


def test_a_budget_that_cuts_replies_off():
    answers = [one("a", True, 10), one("b", True, 20), one("c", False, 5), one("d", True, 40)]
    curve = {int(point.x): point.mean for point in figures.budget_curve(answers)}
    assert (curve[5], curve[10], curve[20], curve[40]) == (0.0, 0.25, 0.5, 0.75)
    assert figures.budget_curve([]) == []


def test_overthinking_is_measured_on_easy_tasks():
    answers = [one("easy", True, 10), one("easy", True, 30), one("hard", False, 90), one("hard", True, 10), one("once")]
    found = figures.overthinking(answers)
    assert (found.value, found.num_tasks) == (0.5, 1)
    wrong_and_short = [one("easy", True, 10), one("easy", True, 10), one("easy", True, 10), one("easy", False, 1)]
    assert figures.overthinking(wrong_and_short).value == 0.0
    assert math.isnan(figures.overthinking([one()]).value)


@pytest.mark.slow
def test_effort_follows_difficulty_or_not():
    follows = [
        one(str(n), right, tokens) for n, (right, tokens) in enumerate([(True, 1), (True, 2), (False, 8), (False, 9)])
    ]
    assert figures.effort(follows).value == pytest.approx(0.894, abs=1e-3)
    assert math.isnan(figures.effort([one("a"), one("b")]).value)
    stats = pytest.importorskip("scipy.stats")
    x, y = [n % 7 for n in range(50)], [(n * n) % 11 for n in range(50)]
    answers = [
        one(str(n), right, tokens) for n, (wrong, tokens) in enumerate(zip(x, y, strict=True)) for right in (wrong < 3,)
    ]
    expected = stats.spearmanr([value >= 3 for value in x], y).statistic
    assert figures.effort(answers).value == pytest.approx(expected)


# --- checks -------------------------------------------------------------------------------------------------------


def evaluated(answers, model="m"):
    return Evaluated(Path("run"), model, "env", answers, 0)


def test_worse_on_reworded_tasks_is_told_apart_from_noise():
    plain = evaluated([one(str(n), n % 10 != 0) for n in range(100)])
    worse = reworded(plain, evaluated([one(str(n), n % 2 == 0) for n in range(100)]))
    assert worse.difference == pytest.approx(-0.5 + 0.1, abs=0.11) and "worse" in worse.verdict
    same = reworded(plain, plain)
    assert same.difference == 0.0 and "no difference" in same.verdict
    with pytest.raises(UsageError, match="two models"):
        reworded(plain, evaluated([], "other"))


def test_other_tasks_must_be_others_of_the_same_kind():
    plain = evaluated([one(str(n), level=1.0) for n in range(9)])
    with pytest.raises(UsageError, match="seed=1"):
        reseeded(plain, plain)
    with pytest.raises(UsageError, match="other skills or levels"):
        reseeded(plain, evaluated([one("x", level=2.0)]))
    found = reseeded(plain, evaluated([one(f"x{n}", n % 2 == 0, level=1.0) for n in range(10)]))
    assert found.difference == -0.5 and found.interval[1] < 0
    drawn_twice = [one("same", level=1.0)]
    again = reseeded(
        evaluated([*plain.answers, *drawn_twice]), evaluated([one(f"x{n}", level=1.0) for n in range(9)] + drawn_twice)
    )
    assert (again.difference, again.num_tasks) == (0.0, 9)
    assert "too few" in reseeded(plain, evaluated([one("x", level=1.0)])).verdict


# --- from a run folder --------------------------------------------------------------------------------------------


class Levels(ludus.Environment):
    """Harder tasks have larger numbers."""

    max_turns = 1

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def tasks(self, split):
        for n in range(24):
            yield Task(
                prompt=f"{self.seed} {n}", answer="x", info={"level": n % 4, "skill": "<b>one" if n % 2 else "two"}
            )

    @ludus.reward
    def right(self, rollout):
        return float(rollout.reply.startswith("x"))


def says(messages):
    number = int(messages[-1]["content"].split()[-1])
    return ("x" if number % 4 < 2 else "wait, let me start over. no ") + " word" * number


def run(folder, env=None, say=says, samples=2):
    asyncio.run(evaluate_async(env or Levels(), Scripted("<script>m", say), out=folder, samples=samples))
    return folder


def test_a_card_is_one_page_with_everything_escaped(tmp_path):
    made = card(run(tmp_path / "run"), reseeded=run(tmp_path / "other", Levels(seed=1)))
    page = made.path.read_text()
    assert "<script>" not in page and "<b>one" not in page and "&lt;script&gt;m" in page
    assert {"skill", "skill/two", "tokens", "calibration", "budget"} <= made.curves.keys()
    assert [point.mean for point in made.curves["skill"]] == [1.0, 1.0, 0.0, 0.0]
    shown = {row.name: row for row in made.figures}
    assert shown["accuracy"].shown == "0.500" and shown["backtracking"].shown == shown["restarts"].shown == "50.0%"
    assert made.checks[0].difference == 0.0 and "coverage pass@2" in shown and made.sure_from == "agreement"
    assert made.to_dict()["curves"]["skill"][0]["num_tasks"] == 6


def test_a_page_without_charts_says_why(tmp_path, monkeypatch):
    import sys

    folder = run(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "charts in reports" in card(folder).path.read_text()


@pytest.mark.slow
def test_one_sample_of_tasks_without_levels_makes_a_card_too(tmp_path):
    made = card(run(tmp_path / "run", samples=1))
    assert not [row for row in made.figures if "pass" in row.name or row.name == "overthinking"]


def test_excluded_rollouts_are_left_out_and_counted(tmp_path):
    class Breaks(Levels):
        def run(self, ctx):
            if ctx.task.info["level"] == 3:
                raise RuntimeError("broken")
            return super().run(ctx)

    found = read(run(tmp_path / "run", Breaks()))
    assert found.num_excluded == 12 and {a.level for a in found.answers} == {0, 1, 2}


def test_folders_that_make_no_card(tmp_path):
    with pytest.raises(RunFolderError):
        card(tmp_path / "not" / "there")

    class Broken(Levels):
        def run(self, ctx):
            raise ludus.RolloutError("broken", blame="environment")

        def tasks(self, split):
            yield from list(super().tasks(split))[:3]

    with pytest.raises(UsageError, match="nothing of eval was scored"):
        card(run(tmp_path / "broken", Broken()))


def test_what_a_budget_says_of_success_counts(tmp_path):
    from ludus.environments.reasoning import Budget

    env = Budget(Levels(), tokens=1, difficulty="level", penalty=0.4, told=False)
    found = read(run(tmp_path / "run", env))
    assert sum(a.right for a in found.answers) == 24  # of 48, however long
