"""Rescore: the scorers of today on recorded rollouts, what they can't be asked, and the table of what changed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replayed import HUNT, Says, hunter, record, write

from ludus.errors import UnknownName, UsageError
from ludus.programs.replay import replay
from ludus.programs.replay.rewards import judge, largest, table
from ludus.types import EnvironmentRef, Reward, Rollout, Seeds, Task

PLAIN = ("right", "fewest")


@pytest.fixture
def hunt(tmp_path):
    return write(tmp_path / "hunt.py", HUNT)


@pytest.fixture
def run(hunt, tmp_path):
    return record(hunt, Says(hunter), tmp_path / "run")


def rows(result):
    return {row.scorer: row for row in [*result.scores, result.reward]}


def test_unchanged_scorers_give_the_recorded_rewards(run):
    result = replay(run)
    assert result.same and len(result.findings) == 12
    assert [rows(result)[name].num_equal for name in (*PLAIN, "reward")] == [12, 12, 12]
    assert 0 < rows(result)["right"].mean_then < 1
    (check,) = result.environments
    assert check.same and check.hashes == [check.hash]


def test_what_needs_a_live_rollout_is_said_and_left_out(run):
    result = replay(run)
    luck = rows(result)["luck"]
    assert (luck.num_cannot, luck.num_equal, luck.mean_now) == (12, 0, None)
    assert luck.cannot == "asks for state, which no record holds: re-enact"
    assert "but for luck, which could not be asked" in result.proves


def test_a_changed_scorer_shows_as_different_rewards_on_old_rollouts(run, hunt):
    write(hunt, HUNT, scorer=("float(rollout.reply == task.answer)", "float(rollout.reply != task.answer)"))
    result = replay(run)
    assert not result.same and len(result.different) == 12
    row, reward = rows(result)["right"], result.reward
    assert row.num_differ == 12 and row.mean_now == pytest.approx(1 - row.mean_then)
    assert row.correlation == pytest.approx(-1)
    assert reward.num_differ == 12
    assert result.environments[0].same is False
    first = result.different[0].differences[0]
    assert first.where == "right" and {first.then, first.now} == {"0", "1"}
    assert "rewards from before and after the change" in result.proves


def test_another_version_of_the_environment_can_stand_in(run, tmp_path):
    other = write(tmp_path / "other.py", HUNT, weight=("@ludus.reward\n", "@ludus.reward(weight=2.0)\n"))
    result = replay(run, env=str(other))
    changed = rows(result)["right"]
    assert changed.num_differ == 12 and changed.mean_then == changed.mean_now, "another weight is a difference"
    assert result.reward.mean_now > result.reward.mean_then
    assert result.environments[0].used == str(other)


def test_a_scorer_that_raises_and_scorers_that_come_and_go(tmp_path):
    text = HUNT.replace("def luck(self, state):", "def luck(self, task):").replace("float(state)", "0.0")
    path = write(tmp_path / "hunt.py", text)
    run = record(path, Says(hunter), tmp_path / "run")
    write(path, text, raises=("float(rollout.reply == task.answer)", "1 / 0"), name=("def fewest", "def quick"))
    result = replay(run)
    found = {d.where: (d.then, d.now) for d in result.different[0].differences}
    assert "ZeroDivisionError" in found["right"][1]
    assert found["quick"][0] == found["fewest"][1] == "nothing"
    assert result.reward.num_differ == 12 and result.reward.mean_now is None


def test_what_may_come_from_a_scorer_that_could_not_be_asked_is_not_called_gone(run, hunt):
    write(hunt, HUNT, name=("def fewest", "def quick"))  # a scorer may name its rewards as it likes
    result = replay(run)
    assert rows(result)["fewest"].cannot == "it may come from luck"
    assert rows(result)["quick"].num_differ == 12


def test_a_group_scorer_compares_the_recorded_group_also_for_one_rollout(run, hunt):
    one = replay(run).findings[4].rollout
    result = replay(run, rollout=one)
    assert [finding.rollout for finding in result.findings] == [one]
    assert rows(result)["fewest"].num_equal == 1
    write(hunt, HUNT, size=("float(rollout.num_turns == least)", "float(len(group))"))
    assert rows(replay(run, rollout=one))["fewest"].mean_now == 3.0


def test_failures_of_the_policy_earn_what_they_earn_today_and_others_nothing(tmp_path):
    text = """
        import ludus
        class Fails(ludus.Environment):
            failure_reward = -1.0
            def tasks(self, split):
                return [ludus.Task(prompt=blame) for blame in ("policy", "environment")]
            async def run(self, ctx):
                await ctx.model.chat(ctx.task.messages())
                raise ludus.RolloutError("broken", blame=ctx.task.prompt)
    """
    path = write(tmp_path / "fails.py", text)
    run = record(path, Says(lambda *_: "ok"), tmp_path / "run", samples=1)
    result = replay(run)
    assert result.same and result.num_same == 1
    assert list(result.reasons()) == ["failed and was never scored (blame: environment)"]
    write(path, text, reward=("-1.0", "-2.0"))
    (finding,) = replay(run).different
    assert (finding.differences[0].then, finding.differences[0].now) == ("-1", "-2")


def test_a_scorer_that_no_record_determines_is_found_out(tmp_path):
    text = HUNT.replace("float(rollout.reply == task.answer)", "next(COUNTER)").replace(
        "import ludus\n", "import itertools, ludus\n    COUNTER = itertools.count()\n", 1
    )
    run = record(write(tmp_path / "chance.py", text), Says(hunter), tmp_path / "run")
    result = replay(run)
    assert result.environments[0].same
    assert "a scorer depends on what no record holds" in result.proves


def test_which_rollouts(run):
    assert len(replay(run, num=5).findings) == 5
    assert len(replay(run, purpose="eval").findings) == 12
    with pytest.raises(UnknownName, match="did you mean 'eval'"):
        replay(run, purpose="evl")
    with pytest.raises(UnknownName, match="unknown rollout"):
        replay(run, rollout="nothing")
    with pytest.raises(UnknownName, match="did you mean 'rescore'"):
        replay(run, "rescor")


def test_an_environment_that_has_gone_is_named(run, hunt):
    hunt.unlink()
    with pytest.raises(UsageError, match=r"can't be built: no such environment file.*--env"):
        replay(run)


@pytest.mark.slow
async def test_inside_a_running_event_loop(run):
    assert replay(run).same


def test_nothing_compared_proves_nothing(tmp_path):
    path = write(tmp_path / "live.py", HUNT, a=("def right(self, task, rollout)", "def right(self, task, ctx)"))
    run = record(path, Says(hunter), tmp_path / "run", samples=1, num_tasks=1)
    other = write(path, HUNT, a=("def right(self, task, rollout)", "def right(self, task, ctx)"), b=(
        "def fewest(self, group)", "def fewest(self, group, state)"))  # fmt: skip
    result = replay(run, env=str(other))
    assert not result.same and result.proves == "Nothing could be compared, so this proves nothing."


# --- the table ----------------------------------------------------------------------------------------------------


def judged(then, now, group="g", name="r"):
    rollout = Rollout(
        id=f"{name}{group}", group=group, environment=EnvironmentRef("e"), task=Task(prompt="p"),
        seeds=Seeds(0, 0, 0, 0), rewards=[Reward("s", then)],
    )  # fmt: skip
    return judge(rollout, [Reward("s", now)])


def test_advantages_that_turn_and_groups_that_change_order():
    values = [("a", 0.0, 1.0), ("a", 1.0, 0.0), ("a", 0.5, 0.5), ("b", 0.0, 0.0), ("b", 1.0, 2.0), ("alone", 1.0, 0.0)]
    (row,), reward = table([judged(then, now, group, str(i)) for i, (group, then, now) in enumerate(values)])
    assert (row.num_equal, row.num_differ) == (2, 4)
    assert (row.num_turned, row.num_in_groups) == (2, 5)  # the middle one stays at its group's mean
    assert (row.num_reordered, row.num_groups) == (1, 2)
    assert row.mean_then == pytest.approx(3.5 / 6) and row.mean_now == pytest.approx(3.5 / 6)
    then, now = np.array([v[1:] for v in values]).T
    assert row.correlation == pytest.approx(np.corrcoef(then, now)[0, 1])
    assert reward.num_turned == row.num_turned


def test_the_largest_changes_come_first():
    changed = [judged(0.0, value, name=str(value)) for value in (1.0, 0.0, -3.0, 2.0)]
    assert [one.rollout for one in largest(changed, 2)] == ["-3.0g", "2.0g"]


def test_roles_and_turns_count():
    rewards = [Reward("s", 1.0, turn=0), Reward("s", 2.0, turn=1), Reward("s", 5.0, role="judge")]
    rollout = Rollout(
        id="r", group="g", environment=EnvironmentRef("e"), task=Task(prompt="p"), seeds=Seeds(0, 0, 0, 0),
        rewards=rewards,
    )  # fmt: skip
    assert judge(rollout, rewards[::-1]).scores["s"].same
    swapped = judge(rollout, [Reward("s", 2.0, turn=0), Reward("s", 1.0, turn=1), rewards[2]])
    assert swapped.scores["s"].differs and swapped.scores["s"].now == 8.0
    assert swapped.total.same and swapped.total.now == 3.0


numbers = st.floats(-9, 9).map(lambda x: round(x, 3))


@given(st.lists(st.tuples(st.sampled_from("abc"), numbers), min_size=1, max_size=12), numbers, st.floats(0.1, 5))
@settings(max_examples=60, deadline=None)
def test_a_scale_and_a_shift_turn_no_advantage(values, shift, scale):
    ones = [judged(then, round(scale * then + shift, 9), group, str(i)) for i, (group, then) in enumerate(values)]
    (row,), _ = table(ones)
    assert (row.num_turned, row.num_reordered) == (0, 0)
