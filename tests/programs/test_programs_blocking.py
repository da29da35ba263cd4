"""Programs that are called: from a script, inside a loop, interrupted once and twice."""

import asyncio
import json
import signal
import threading

import pytest

import ludus
from ludus.display.watch import watching
from ludus.errors import UnknownName, UsageError
from ludus.programs.blocking import Blocking
from ludus.programs.recipe import Recipe

SMALL = {
    "name": "run",
    "env": "guess",
    "env_options": {"turns": 2, "narrowest": 4, "widest": 5, "largest": 9},
    "model": "preset:tiny",
    "rl": {"steps": 2, "groups": 2, "group_size": 2, "refill": 0},
    "eval": {"num_tasks": 2, "every": 0, "greedy": False},
}


def run(program):
    """Returns what was said on the way, and what came of it."""
    said = []

    class Heard:
        def refresh(self):
            pass

        def say(self, text):
            said.append(text)

    blocking = Blocking(lambda: program(blocking), Heard())
    try:
        return said, blocking.run(lambda result: f"stopped with {result}")
    except KeyboardInterrupt as error:
        return said, str(error)


def interrupt():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_one_interrupt_lets_it_finish():
    async def program(blocking):
        stopped = asyncio.Event()
        blocking.stops(stopped.set)
        interrupt()
        await stopped.wait()
        return "half"

    assert run(program) == (["finishing what is running; interrupt again to abort"], "stopped with half")


def test_an_interrupt_before_the_program_can_be_stopped_is_kept_for_it():
    async def program(blocking):
        interrupt()
        while not blocking._asked:
            await asyncio.sleep(0.001)
        stopped = []
        blocking.stops(lambda: stopped.append(True))
        return stopped

    assert run(program)[1] == "stopped with [True]"


def test_a_second_interrupt_aborts_it():
    async def program(blocking):
        blocking.stops(interrupt)
        interrupt()
        await asyncio.Event().wait()

    assert run(program)[1] == "aborted"


def test_errors_come_out_as_they_are():
    with pytest.raises(UnknownName, match="did you mean 'guess'"):
        ludus.evaluate("gess", "demonstrator")


def test_it_runs_inside_a_running_loop_and_writes_nothing_that_is_not_worth_it(capfd):
    async def cell():
        return ludus.evaluate("guess", "demonstrator", num_tasks=3)

    assert asyncio.run(cell()).num_tasks == 3
    assert capfd.readouterr() == ("", "")


def test_progress_may_be_taken_instead_of_shown(capfd):
    rows = []
    ludus.evaluate("guess", "demonstrator", num_tasks=3, progress=rows.append)
    assert [row["done"] for row in rows] == [1, 2, 3]
    with watching("title", {}, rows.append) as watcher:
        watcher.begin()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["dict", "recipe", "file"])
def test_a_recipe_in_any_form_with_overrides(tmp_path, monkeypatch, capfd, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").write_text(ludus.config.to_toml(Recipe(**SMALL)))
    given = {"dict": SMALL, "recipe": Recipe(**SMALL), "file": "recipe.toml"}[kind]
    result = ludus.train(given, "rl.steps=1", "name=other")
    assert result["steps"] == {"sft": 0, "rl": 1} and result["run"] == "runs/other"
    out, err = capfd.readouterr()
    assert out == "" and "guess · preset:tiny → runs/other" in err and "RL 1/1" in err
    text, html = repr(result), result._repr_html_()
    for words in ("start", "end", "runs/other/report.html", "95 % interval"):
        assert words in text and words in html
    assert json.loads(json.dumps(result))["name"] == "other"


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_says_how(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    asked = []

    def stop_in_rl(row):
        if row["phase"] == "rl" and not asked:
            asked.append(True)
            interrupt()

    with pytest.raises(KeyboardInterrupt, match=r"go on with ludus.train\(resume='runs/run'\)"):
        ludus.train({**SMALL, "rl": {**SMALL["rl"], "steps": 50}}, progress=stop_in_rl)
    before = json.loads((tmp_path / "runs/run/result.json").read_text())
    assert not before["complete"] and 0 < before["steps"]["rl"] < 50
    result = ludus.train(resume="runs/run", progress=lambda row: None)
    assert result["complete"] and result["steps"]["rl"] == 50


@pytest.mark.parametrize(
    ("given", "said"),
    [({}, "either a recipe or resume"), ({"recipe": SMALL, "resume": "runs/run"}, "either a recipe or resume")],
)
def test_a_call_that_says_too_little_or_too_much(given, said):
    with pytest.raises(UsageError, match=said):
        ludus.train(**given)
