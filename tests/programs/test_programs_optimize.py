"""Prompt optimisation: what GEPA is given, what is measured on tasks it never saw, and how it ends."""

import asyncio
import tomllib
from pathlib import Path

import pytest

import ludus
from ludus.errors import ConfigError, LudusError, ModelCallFailed, RunFolderError
from ludus.programs.optimize import OptimizeConfig, optimize_async
from ludus.programs.optimize.bridge import scores_of
from ludus.store import RolloutIndex
from ludus.testing.scripted import Scripted
from ludus.types import Failure, Rollout, Seeds, Task

pytest.importorskip("gepa")

SMALL = {"num_train": 8, "num_val": 4, "num_test": 12, "max_rollouts": 30}


class Shout(ludus.Environment):
    """Right is only what is in capital letters."""

    max_turns = 1

    def tasks(self, split):
        return [Task(prompt=f"say {split} {n}", answer=f"SAY {split.upper()} {n}") for n in range(40)]

    @ludus.reward
    def right(self, task, rollout):
        return float(rollout.reply == task.answer)


def obeys(messages):
    told = messages[0]["role"] == "system" and "capital" in messages[0]["content"]
    return messages[-1]["content"].upper() if told else messages[-1]["content"]


def run(env, model, reflecting, folder, **options):
    config = OptimizeConfig(**{**SMALL, **options})
    return asyncio.run(optimize_async(env, model, config, folder, reflection_model=reflecting))


def proposes(text, seen=None):
    return Scripted(
        "reflects", lambda messages: (seen.append(messages[0]["content"]) if seen is not None else None) or text
    )


def test_a_better_prompt_is_found_and_its_gain_measured(tmp_path):
    seen = []
    found = run(Shout(), Scripted("m", obeys), proposes("```\nUse capital letters.\n```", seen), tmp_path / "run")
    assert found.prompt == "Use capital letters." == (tmp_path / "run" / "best_prompt.txt").read_text()
    assert (found.before["mean"], found.after["mean"], found.gain) == (0.0, 1.0, 1.0)
    assert "better" in found.verdict() and found.num_rollouts >= 30 and found.num_reflections >= 1
    assert "say train" in seen[0] and "test" not in seen[0] and "SAY TRAIN" in seen[0]
    with RolloutIndex(tmp_path / "run") as index:
        tasks = {row.task for row in index.query(split="train")}
        assert not tasks & {row.task for row in index.query(split="test")}
        assert len(index.query(purpose="eval:start")) == len(index.query(purpose="eval:end")) == 12
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text())["optimization"]["num_val"] == 4


@pytest.mark.parametrize("text", ["```\nWhisper.\n```", "", "``````"])
def test_what_does_not_help_leaves_the_environment_as_it_is(text, tmp_path):
    found = run(Shout(), Scripted("m", obeys), proposes(text), tmp_path / "run")
    assert (found.prompt, found.gain) == ("", 0.0) and "No gain" in found.verdict()


def test_the_environments_own_prompt_is_where_it_begins(tmp_path):
    class Own(Shout):
        system_prompt = "Say it."

    seen = []
    run(Own(), Scripted("m", obeys), proposes("```\nUse capital letters.\n```", seen), tmp_path / "run")
    assert "Say it." in seen[0]


def test_a_model_that_is_down_ends_it_with_its_reason(tmp_path):
    def down(messages):
        raise ModelCallFailed("nobody there")

    with pytest.raises(LudusError, match="nobody there"):
        run(Shout(), Scripted("m", down), proposes("x"), tmp_path / "a")
    with pytest.raises(LudusError, match="nobody there"):
        run(Shout(), Scripted("m", obeys), Scripted("r", down), tmp_path / "b")


def test_a_stopped_search_compares_what_it_has(tmp_path):
    stops = []

    def say(messages):
        stops[0]()
        return obeys(messages)

    found = asyncio.run(
        optimize_async(
            Shout(), Scripted("m", say), OptimizeConfig(**SMALL), tmp_path / "run",
            reflection_model=proposes("x"), on_start=stops.append,
        )
    )  # fmt: skip
    assert found.stopped.startswith("interrupted") and found.num_rollouts <= 10


async def test_a_cancelled_search_leaves_nothing_running(tmp_path):
    began = asyncio.Event()

    class Slow(Scripted):
        async def complete(self, messages, tools, sampling):
            began.set()
            await asyncio.sleep(60)

    program = optimize_async(Shout(), Slow("m", obeys), OptimizeConfig(**SMALL), tmp_path / "run")
    running = asyncio.create_task(program)
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0.01)


def test_an_interrupted_search_goes_on_and_comes_to_the_same(tmp_path):
    def counted(folder, most):
        """What comes of it, with so many calls before it is cut off, and how many there were of each kind."""
        calls = {"m": 0, "r": 0}

        def counting(kind, say):
            def answer(messages):
                calls[kind] += 1
                if sum(calls.values()) > most:
                    raise ModelCallFailed("the machine is gone")
                return say(messages)

            return answer

        proposals = Scripted("r", counting("r", lambda messages: f"```\nWhisper {len(messages[0]['content'])}.\n```"))
        try:
            found = run(Shout(), Scripted("m", counting("m", obeys)), proposals, tmp_path / folder)
        except LudusError:
            return None, calls
        return found, calls

    whole, asked = counted("whole", 10_000)
    assert counted("cut", 20)[0] is None
    again, then = counted("cut", 10_000)
    assert again.prompt == whole.prompt and (again.num_rollouts, again.tokens) == (whole.num_rollouts, whole.tokens)
    assert then["m"] <= asked["m"] - 12 and then["r"] < asked["r"]
    with pytest.raises(RunFolderError, match="finished; choose another folder"):
        run(Shout(), Scripted("m", obeys), Scripted("r", lambda messages: "x"), tmp_path / "cut")
    with pytest.raises(RunFolderError, match="num_val was 4, is 5"):
        run(Shout(), Scripted("m", obeys), Scripted("r", lambda messages: "x"), tmp_path / "cut", num_val=5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_rollouts": 10}, "max_rollouts must be more than 10"),
        ({"num_train": 50}, "num_train"),
        ({"num_test": 1}, "num_test at least 2"),
    ],
)
def test_what_can_not_be(options, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        run(Shout(), Scripted("m", obeys), proposes("x"), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_an_environment_without_held_out_tasks(tmp_path):
    class Same(Shout):
        def tasks(self, split):
            return super().tasks("both")

    class One(Shout):
        splits = ("train",)

    for env, said in ((Same(), "not in 'train' too"), (One(), "one split")):
        with pytest.raises(ConfigError, match=said):
            run(env, Scripted("m", obeys), proposes("x"), tmp_path / "run")


def test_a_folder_that_is_in_the_way(tmp_path):
    Path(tmp_path / "something").touch()
    with pytest.raises(RunFolderError):
        run(Shout(), Scripted("m", obeys), proposes("x"), tmp_path)


def test_excluded_rollouts_get_the_mean_of_the_others():
    def rollout(reward, failure=None):
        made = Rollout(
            id="x",
            group="g",
            environment=Shout().describe(),
            task=Task(prompt="p"),
            seeds=Seeds(0, 0, 0, 0),
            failure=failure,
        )
        made.rewards = [] if failure else [ludus.Reward("r", reward)]
        return made

    failed = rollout(0.0, Failure("model", "infrastructure", "gone"))
    assert scores_of([rollout(1.0), failed, rollout(0.0)]) == [1.0, 0.5, 0.0]
