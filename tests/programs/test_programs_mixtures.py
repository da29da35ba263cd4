"""One recipe with several environments: shares of batches, settings of each, results of each and together, resume."""

import asyncio
import json
import math
import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus import config
from ludus.errors import LudusError
from ludus.programs.compare import compare
from ludus.programs.dry_run import dry_run
from ludus.programs.evaluate import Tally
from ludus.programs.members import by_member, load_members, with_members
from ludus.programs.recipe import Recipe
from ludus.programs.replay import replay_async
from ludus.programs.rl import Source, collect_all
from ludus.programs.schedule import Mixed, Shuffled, Turns
from ludus.programs.tables import training_changes, training_table
from ludus.programs.together import together
from ludus.programs.train import resume, train
from ludus.programs.training import Position
from ludus.rollouts.scheduler import Group
from ludus.store import RunFolder
from ludus.types import MAIN_ROLE, EnvironmentRef, Reward, Rollout, Seeds, Task

GUESS = {"turns": 3, "narrowest": 4, "widest": 5, "largest": 9}
LENGTHS = """
import ludus

class Lengths(ludus.Environment):
    '''Even lengths are right; the same tasks as its twin has, and no expert.'''
    sampling = {"max_tokens": 5}
    success_reward = 2.0

    def tasks(self, split):
        return [ludus.Task(prompt=f"{split} {number}", id=f"{split}-{number}") for number in range(8)]

    @ludus.reward
    def even(self, rollout):
        return 2.0 * (len(rollout.reply) % 2 == 0)
"""


@pytest.fixture(scope="module")
def lengths(tmp_path_factory):
    path = tmp_path_factory.mktemp("environments") / "lengths.py"
    path.write_text(LENGTHS)
    return str(path)


def recipe(folder, lengths, **changes):
    values = {
        "name": "mix", "runs": str(folder), "model": "preset:tiny", "deterministic": True, "save_every": 2,
        "envs": [
            {"env": "guess", "weight": 2, "options": GUESS},
            {"env": lengths, "name": "lengths", "max_tokens": 4, "temperature": 0.8},
            {"env": lengths, "name": "twin"},
        ],
        "sft": {"steps": 3, "batch_size": 4, "num_demonstrations": 12},
        "rl": {"steps": 4, "groups": 4, "group_size": 4, "max_tokens": 6},
        "eval": {"num_tasks": 4, "every": 2},
    }  # fmt: skip
    return config.parse(Recipe, {**values, **changes})


def rows_of(run):
    times = ("time/", "seconds", "latency")
    rows = RunFolder.open(run).read_metrics()
    return [{k: v for k, v in row.items() if not any(t in k for t in times)} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, lengths):
    folder = tmp_path_factory.mktemp("whole")
    return asyncio.run(train(recipe(folder, lengths))), folder / "mix"


# --- whose turn it is ---------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 0.5, 0.1, 7.25]), min_size=1, max_size=6), st.integers(0, 120))
def test_everyone_has_their_share_at_any_time(weights, places):
    turns, total = Turns(weights), sum(weights)
    counts = turns.between(0, places)
    assert sum(counts) == places
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - places * weight / total) < len(weights)
    backwards = Turns(weights)
    assert [backwards.at(i) for i in reversed(range(places))] == [turns.at(i) for i in reversed(range(places))]


def test_mixed_streams_go_on_where_each_was():
    streams = [Shuffled(list("abc"), 1), Shuffled(list("xy"), 2)]
    mixed = [Mixed(streams, [3, 1]).at(i) for i in range(16)]
    assert [item for item in mixed if item[0] in "abc"] == [streams[0].at(i) for i in range(12)]
    assert [item for item in mixed if item[0] in "xy"] == [streams[1].at(i) for i in range(4)]


# --- the recipe ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"env": "guess"}, "either the key env or a table"),
        ({"envs": None}, "either the key env or a table"),
        ({"envs": []}, "envs"),
        ({"env_options": {"turns": 3}}, "each table of"),
        ({"envs": [{"env": "guess"}, {"env": "guess"}]}, "two of the .*are called guess"),
        ({"envs": [{"env": "guess", "wieght": 2}]}, "did you mean 'envs.0.weight'"),
        ({"envs": [{"env": "guess", "weight": 0}]}, "envs.0.weight = 0"),
        ({"envs": [{"env": "guess", "weight": float("inf")}]}, "envs.0.weight"),
        ({"envs": [{"env": "guess", "name": "a@b"}]}, "envs.0.name"),
        ({"envs": [{"weight": 1}]}, "'envs.0.env' is required"),
        ({"envs": [{"env": "guess", "temperature": 0}]}, "envs.0.temperature"),
        ({"envs": [{"env": "guess"}, {"env": "gues"}]}, "did you mean 'guess'"),
        ({"envs": [{"env": "guess", "options": {"turn": 1}}, {"env": "guess", "name": "b"}]}, "did you mean 'turns'"),
        ({"role_models": {"polcy": "x"}}, "did you mean 'policy'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, lengths, changes, said):
    with pytest.raises(LudusError, match=said) as error:
        asyncio.run(train(recipe(tmp_path, lengths, **changes)))
    assert "\n" not in str(error.value) and not (tmp_path / "mix").exists()


def test_a_mixture_that_nobody_can_demonstrate(tmp_path, lengths):
    envs = [{"env": lengths, "name": "a"}, {"env": lengths, "name": "b"}]
    with pytest.raises(LudusError, match=r"and .*has no demonstrate"):
        asyncio.run(train(recipe(tmp_path, lengths, envs=envs)))


def test_a_recipe_survives_its_file(tmp_path, lengths):
    written = recipe(tmp_path, lengths)
    (tmp_path / "r.toml").write_text(config.to_toml(written))
    again = config.load(Recipe, tmp_path / "r.toml")
    assert again == written and list(again.environments) == ["guess", "lengths", "twin"]
    alone = config.to_toml(config.parse(Recipe, {"name": "r", "env": "guess", "model": "m", "eval": {}}))
    assert "envs" not in alone


def test_what_a_mixture_takes_is_an_average_by_weight(tmp_path, lengths):
    mixed = recipe(tmp_path, lengths)
    found = dry_run(mixed, load_members(mixed))
    replies = (2 * 3 * 6 + 10 * 4 + 10 * 6) / 4  # weight, turns and tokens of each
    assert found.rollout_tokens == pytest.approx(found.prompt_tokens + replies)
    assert found.tokens["sampled"] == pytest.approx((4 * 16 * 3 + 7 * 3 * 4) * found.rollout_tokens)


# --- runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_batches_have_every_environment_by_weight(whole):
    _, run = whole
    steps = [row for row in rows_of(run) if row["phase"] == "rl"]
    assert len(steps) == 4
    for row in steps:
        names = ("guess", "lengths", "twin")
        used = {name: row.get(f"env/{name}/groups/used", 0) for name in names}
        assert sum(used.values()) == row["groups/used"]
        assert used["guess"] <= 2 + 2  # no more than its share and what a wave has over
    total = {name: sum(row.get(f"env/{name}/groups/run", 0) for row in steps) for name in names}
    assert sum(total.values()) == sum(row["groups/run"] for row in steps)


class Sometimes:
    """Stands for a scheduler: of an environment's groups, a share has rewards that differ."""

    def __init__(self, share, seed):
        self.share, self.random = share, random.Random(seed)

    async def groups(self, tasks, size):
        for task, visit in tasks:
            differ = self.random.random() < self.share
            yield Group(task, visit, [scored(task, float(differ and i)) for i in range(2)])


def scored(task, reward):
    ref = EnvironmentRef("e")
    return Rollout(
        id="r", group="g", environment=ref, task=task, seeds=Seeds(0, 0, 0, 0), rewards=[Reward("r", reward)]
    )


async def test_over_time_batches_have_exactly_the_weights(tmp_path, lengths):
    """However often groups of one teach nothing, and however many come out beyond what was asked for."""
    made = recipe(tmp_path, lengths, rl={"groups": 5, "refill": 9.0})
    training = SimpleNamespace(position=Position(), recipe=made, trained_roles=[MAIN_ROLE], stopping=False)
    tasks = Shuffled([Task(prompt=str(i)) for i in range(50)], 0)
    sources = [Source(member, Sometimes(0.3 + 0.3 * i, i), tasks) for i, member in enumerate(load_members(made))]
    turns, used = Turns([2, 1, 1]), [0, 0, 0]
    for step in range(100):
        found = await collect_all(training, made.rl, sources, turns.between(5 * step, 5 * step + 5))
        used = [count + len(own.used) for count, own in zip(used, found, strict=True)]
        for count, share in zip(used, (0.5, 0.25, 0.25), strict=True):
            assert abs(count - share * 5 * (step + 1)) < 10, "what is ahead is held against the next batches"


@pytest.mark.slow
def test_groups_never_mix_and_settings_are_each_environments_own(whole):
    _, run = whole
    rollouts = [rollout for rollout in RunFolder.open(run).rollouts if rollout.purpose.startswith("train")]
    by_group = {}
    for rollout in rollouts:
        by_group.setdefault(rollout.group, set()).add((rollout.environment.id, rollout.purpose))
    assert all(len(kinds) == 1 for kinds in by_group.values())
    sampling = {(r.purpose, c.sampling.temperature, c.sampling.max_tokens) for r in rollouts for c in r.calls}
    assert sampling == {("train@guess", 1.0, 6), ("train@lengths", 0.8, 4), ("train@twin", 1.0, 6)}
    ids = [rollout.id for rollout in RunFolder.open(run).rollouts]
    assert len(ids) == len(set(ids)), "two environments have tasks of the same ids"


@pytest.mark.slow
def test_results_are_told_for_each_and_together(whole):
    result, run = whole
    for name, evaluation in result["eval"].items():
        envs = evaluation["envs"]
        assert list(envs) == ["guess", "lengths", "twin"]
        expected = (2 * envs["guess"]["mean"] + envs["lengths"]["mean"] + envs["twin"]["mean"]) / 4
        assert evaluation["mean"] == pytest.approx(expected) and evaluation["num_tasks"] == 12
        assert all("greedy_mean" in own for own in envs.values()), name
    assert list(result["demonstrator"]["envs"]) == ["guess"], "the others have no expert"
    table = [row[0] for row in training_table(result)]
    assert table[1:3] == ["demonstrator", "demonstrator, guess"] and "end, twin" in table
    assert {name for name, _ in training_changes(result)} >= {"start → end, guess", "start → end, twin"}
    row = next(row for row in rows_of(run) if row["phase"] == "eval")
    assert row["env/guess/eval/mean"] == result["eval"]["start"]["envs"]["guess"]["mean"]
    assert json.loads((run / "result.json").read_text())["env"] == "guess + lengths + twin"


def test_the_report_shows_each(whole):
    _, run = whole
    page = (run / "report.html").read_text()
    for words in ("In twin, task by task", "Sample rollouts in guess", "After training, lengths", "envs.0.weight"):
        assert words in page
    assert "Reward in training, by environment" in page


def test_a_mixture_can_be_compared_with_another(whole, lengths, tmp_path):
    _, run = whole
    same = compare(run, run)
    assert same.paired.difference.num_tasks == 12 and same.paired.difference.mean == 0
    assert same.a.environment.id == f"guess + {lengths} + {lengths}"


@pytest.mark.parametrize("how", ["rescore", "re-enact", "resample"])
@pytest.mark.slow
async def test_a_mixture_is_replayed(whole, how):
    _, run = whole
    found = await replay_async(run, how, purpose="train@lengths" if how == "resample" else None, num=24)
    assert found.findings and not any(finding.differences for finding in found.findings)


class Crash(Exception):
    pass


@pytest.mark.parametrize("at", [3, pytest.param(6, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)])
def test_a_crashed_mixture_ends_like_one_that_was_not(whole, tmp_path, lengths, at):
    result, run = whole
    left = at

    def crash(row):
        nonlocal left
        left -= "done" not in row
        if left == 0:
            raise Crash

    with pytest.raises(Crash):
        asyncio.run(train(recipe(tmp_path, lengths), progress=crash))
    resumed = asyncio.run(resume(tmp_path / "mix"))
    assert resumed["weights_hash"] == result["weights_hash"]
    assert rows_of(tmp_path / "mix") == rows_of(run)


@pytest.mark.slow
@pytest.mark.parametrize("at", [16, 40, 75])
def test_a_stopped_mixture_ends_like_one_that_was_not(whole, tmp_path, lengths, at):
    result, run = whole
    started, seen = [], 0

    def progress(row):
        nonlocal seen
        seen += 1
        if seen == at:
            started[0].stop()

    asyncio.run(train(recipe(tmp_path, lengths), progress=progress, on_start=started.append))
    assert seen >= at, "the run was over before"
    resumed = asyncio.run(resume(tmp_path / "mix"))
    assert resumed["weights_hash"] == result["weights_hash"]
    ids = [rollout.id for rollout in RunFolder.open(tmp_path / "mix").rollouts]
    assert sorted(ids) == sorted(rollout.id for rollout in RunFolder.open(run).rollouts)


@pytest.mark.slow
def test_side_by_side_and_in_workers(tmp_path, lengths):
    small = {"deterministic": False, "workers": 1, "sft": None, "rl": {"steps": 2, "groups": 4, "group_size": 2}}
    result = asyncio.run(train(recipe(tmp_path, lengths, eval={"num_tasks": 2, "greedy": False}, **small)))
    assert result["complete"] and set(result["eval"]["end"]["envs"]) == {"guess", "lengths", "twin"}


BROKEN = LENGTHS.replace("class Lengths", "class Broken").replace("return 2.0 *", "raise OSError('gone'); return 2.0 *")


@pytest.mark.slow
def test_one_that_fails_stops_the_run_and_is_named(tmp_path, lengths):
    (tmp_path / "broken.py").write_text(BROKEN)
    envs = [{"env": "guess", "options": GUESS}, {"env": str(tmp_path / "broken.py"), "name": "broken"}]
    rl = {"steps": 1, "groups": 16, "group_size": 4}
    with pytest.raises(LudusError, match=r"in broken, .*OSError: gone"):
        asyncio.run(train(recipe(tmp_path, lengths, envs=envs, sft=None, eval=None, rl=rl, deterministic=False)))


# --- together -----------------------------------------------------------------------------------------------------


def evaluated(name, rewards, excluded=0):
    tally = Tally(1.0)
    for number, reward in enumerate(rewards):
        ref, seeds = EnvironmentRef(name), Seeds(0, 0, 0, 0)
        rewarded = [Reward("right", reward)]
        task = Task(prompt=str(number), id=str(number))
        tally.add(Rollout(id=f"{number}", group=f"{number}", environment=ref, task=task, seeds=seeds, rewards=rewarded))
    return tally.result(env=name, model="m", split="test", samples=1, num_retried=0, seconds=1.0)


def test_together_by_hand():
    a, b = evaluated("a", [1.0, 0.0, 1.0, 0.0]), evaluated("b", [1.0, 1.0, 1.0, 0.0, 0.0])
    found = together({"a": a, "b": b}, [3, 1])
    assert found.mean == pytest.approx(0.75 * 0.5 + 0.25 * 0.6)
    assert found.se == pytest.approx(math.sqrt((0.75 * a.se) ** 2 + (0.25 * b.se) ** 2))
    assert (found.num_tasks, found.metrics["right"]) == (9, pytest.approx(found.mean))
    assert together({"a": a, "b": b}).mean == pytest.approx(0.55)
    assert found.to_dict()["envs"]["b"]["mean"] == 0.6


def test_together_of_one_task_each_has_no_error():
    found = together({"a": evaluated("a", [1.0]), "b": evaluated("b", [0.0])})
    assert found.mean == 0.5 and found.to_dict()["se"] is None


def test_names_of_purposes():
    assert by_member(["eval:start", "train"]) == {"": ["eval:start", "train"]}
    assert list(with_members({"end": {"mean": 1.0}})) == ["end"]


def test_an_environment_of_a_mixture_is_overridden_by_its_place():
    given = {"envs": [{"env": "guess"}, {"env": "rg:gcd", "weight": 2}]}
    merged = config.merge(given, ["envs.1.weight=3", "envs.0.options.turns=4"])
    assert merged == {"envs": [{"env": "guess", "options": {"turns": 4}}, {"env": "rg:gcd", "weight": 3}]}
    assert given["envs"][1]["weight"] == 2, "what was given is as it was"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("envs.2.weight=1", "expected a place from 0 to 1 in that list, got '2'"),
        ("envs.x.weight=1", "expected a place from 0 to 1 in that list, got 'x'"),
        ("envs.weight=1", "'envs' is a value, not a table"),
        ("envs.0=1", "'envs' is a value, not a table"),
        ("envs.0.env.x=1", "'env' is a value, not a table"),
        ("envs.0.env.x.y=1", "there is nothing in a value, such as 'x'"),
    ],
)
def test_an_override_that_leads_nowhere(override, said):
    with pytest.raises(LudusError, match=said):
        config.merge({"envs": [{"env": "guess"}, {"env": "rg:gcd"}]}, [override])
