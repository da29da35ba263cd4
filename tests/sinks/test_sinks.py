"""What sinks are given, and what becomes of a run whose sinks fail."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import ludus
from ludus import config
from ludus.errors import ConfigError, UnknownName, UsageError
from ludus.programs.recipe import Recipe
from ludus.programs.train import resume, train
from ludus.sinks import RunInfo, Sink, Sinks, check_sinks, figures, sink
from ludus.sinks.sink import SINKS
from ludus.store import RunFolder

SMALL = {
    "name": "run",
    "env": "guess",
    "env_options": {"turns": 2, "narrowest": 4, "widest": 5, "largest": 9},
    "model": "preset:tiny",
    "save_every": 2,
    "rl": {"steps": 3, "groups": 2, "group_size": 2, "refill": 0},
    "eval": {"num_tasks": 2, "every": 0, "greedy": False},
}
ROW = {"phase": "rl", "step": 1, "loss": 0.5}


@pytest.fixture(autouse=True)
def same_names_after():
    before = dict(SINKS)
    yield
    SINKS.clear()
    SINKS.update(before)


@pytest.fixture
def heard():
    """What a sink named `kept` was given: what it was opened for, then (row, step), then "closed"."""
    events = []

    @sink("kept")
    class Kept(Sink):
        def __init__(self, run):
            events.append(run)

        def log(self, row, step):
            events.append((row, step))

        def close(self):
            events.append("closed")

    return events


def recipe(folder, **changes):
    return config.parse(Recipe, {**SMALL, "runs": str(folder), **changes})


def as_written(rows):
    """Rows with null for what JSON has no word for."""
    return [{key: None if value != value else value for key, value in row.items()} for row in rows]


def test_a_sink_gets_exactly_the_rows_of_the_run_and_what_it_is(tmp_path, heard):
    asyncio.run(train(recipe(tmp_path, sinks="kept")))
    about, *rows, closed = heard
    assert closed == "closed"
    assert (about.path, about.name, about.env, about.resumed) == (tmp_path / "run", "run", "guess", False)
    assert about.config["rl"]["steps"] == 3 and len(about.id) == 8
    written = RunFolder.open(tmp_path / "run").read_metrics()
    assert as_written([row for row, _ in rows]) == written and len(written) == 5
    assert [step for _, step in rows] == [row["step"] for row in written] == [0, 1, 2, 3, 3]


@pytest.mark.slow
def test_a_resumed_run_gives_every_row_that_it_kept_once_more(tmp_path, heard):
    def crash(row):
        if row["phase"] == "rl" and row["step"] == 3:  # a row that the state of step 2 has not
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(train(recipe(tmp_path, sinks=["kept"]), progress=crash))
    first = heard[0]
    assert heard[-1] == "closed"
    heard.clear()
    asyncio.run(resume(tmp_path / "run"))
    about, *rows, _ = heard
    assert about.resumed and about.id == first.id
    assert as_written([row for row, _ in rows]) == RunFolder.open(tmp_path / "run").read_metrics()
    assert [step for _, step in rows] == [0, 1, 2, 3, 3]


@pytest.mark.slow
def test_an_overwritten_run_is_another_one(tmp_path, heard):
    for overwrite in (False, True):
        asyncio.run(train(recipe(tmp_path, sinks="kept", rl=None, overwrite=overwrite)))
    first, second = (event for event in heard if isinstance(event, RunInfo))
    assert first.id != second.id and not second.resumed


@pytest.mark.parametrize(
    "when", [pytest.param("open", marks=pytest.mark.slow), "log", pytest.param("close", marks=pytest.mark.slow)]
)
def test_a_sink_that_fails_is_warned_about_once_and_the_others_go_on(tmp_path, heard, caplog, when):
    @sink("broken")
    class Broken(Sink):
        def __init__(self, run):
            if when == "open":
                raise ConnectionError("no network")

        def log(self, row, step):
            if when == "log" and step == 1:
                raise OSError(28, "No space left on device")

        def close(self):
            if when == "close":
                raise RuntimeError("too late")

    with caplog.at_level(logging.WARNING):
        result = asyncio.run(train(recipe(tmp_path, sinks=["broken", "kept"])))
    assert result["complete"] and len(heard) == 5 + 2
    (warning,) = (record.getMessage() for record in caplog.records if record.name.startswith("ludus.sinks"))
    assert "the sink 'broken' is left out" in warning and "metrics.jsonl" in warning
    assert {"open": "no network", "log": "No space left on device", "close": "too late"}[when] in warning


@pytest.mark.parametrize("text", ["tensorbord", "tensorbord, wandb", ["tensorbord"]])
def test_a_name_that_is_none_is_told_before_anything_is_made(tmp_path, text):
    with pytest.raises(UnknownName, match="unknown sink 'tensorbord'; did you mean 'tensorboard'"):
        asyncio.run(train(recipe(tmp_path, sinks=text)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", ["sinks=kept", "sinks=kept,", 'sinks=["kept"]', "sinks=kept,kept"])
def test_names_on_the_command_line(given):
    values = config.merge({**SMALL, "runs": "runs"}, [given])
    assert config.parse(Recipe, values).sinks == ("kept",)


def test_what_is_no_list_of_names():
    with pytest.raises(ConfigError, match="sinks = 3: should be a list of names"):
        config.parse(Recipe, {**SMALL, "sinks": 3})


def test_two_sinks_of_one_name(heard):
    with pytest.raises(UsageError, match="already a sink named 'kept'"):

        @sink("kept")
        class Other(Sink):
            pass


def test_a_sink_needs_one_method(tmp_path):
    rows = []

    @sink("least")
    class Least(Sink):
        def log(self, row, step):
            rows.append(row)

    check_sinks(["least"])
    with Sinks(["least"], RunInfo(tmp_path, "run", "guess", {}, "1", False)) as sinks:
        sinks.log(ROW)
    assert rows == [ROW]


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path, name):
    """In an interpreter without any packages, and beside a folder that is called like one."""
    (tmp_path / name).mkdir()
    source = str(Path(ludus.__file__).parents[1])
    code = f"import sys; sys.path[:0] = [{source!r}, '.']\nfrom ludus.sinks import check_sinks; check_sinks([{name!r}])"
    run = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert f"for the sink '{name}', install the extra '{name}': pip install 'ludus-rl[{name}]'" in run.stderr


def test_figures_are_the_finite_numbers_under_their_phase():
    import numpy as np

    row = {"phase": "rl", "step": 7, "loss": np.float32(0.5), "n": np.int64(2), "a": None, "b": float("inf"), "c": "x"}
    assert figures(row) == {"rl/loss": 0.5, "rl/n": 2.0}
