"""Training runs, whole, killed and resumed, with a very small model."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ludus import config
from ludus.errors import LudusError, RunFolderError
from ludus.programs.recipe import Recipe
from ludus.programs.train import resume, train
from ludus.store import RunFolder

SMALL = {
    "name": "run",
    "env": "guess",
    "env_options": {"turns": 3, "narrowest": 4, "widest": 5, "largest": 9},
    "model": "preset:tiny",
    "deterministic": True,
    "save_every": 2,
    "sft": {"steps": 3, "batch_size": 4, "num_demonstrations": 12},
    "rl": {"steps": 4, "groups": 2, "group_size": 4},
    "eval": {"num_tasks": 6, "every": 2},
}
DUMB = str(Path(__file__).parent / "without_expert.py")
TIMES = ("time/", "seconds", "latency")


def recipe(folder, **changes):
    return config.parse(Recipe, {**SMALL, "runs": str(folder), **changes})


def rows_without_times(run):
    rows = RunFolder.open(run).read_metrics()
    return [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    return asyncio.run(train(recipe(folder))), folder / "run"


def test_a_run_leaves_everything_it_knows(whole):
    result, run = whole
    assert set(result["eval"]) == {"start", "after_sft", "end"}
    for evaluation in result["eval"].values():
        assert {"mean", "se", "greedy_mean", "num_tasks"} <= evaluation.keys()
    written = json.loads((run / "result.json").read_text())
    assert written["complete"] and written["seconds"] > 0 and written["tokens"]["sampled"] > 0
    assert (run / "report.html").is_file() and (run / "config.toml").is_file()
    assert config.load(Recipe, run / "config.toml").sft.steps == 3
    rows = rows_without_times(run)
    assert [row["step"] for row in rows if row["phase"] == "rl"] == [4, 5, 6, 7]
    rl = next(row for row in rows if row["phase"] == "rl")
    for name in ("entropy", "entropy/p10", "mismatch/max", "ess/token", "groups/all_wrong", "grad_norm", "kl_old",
                 "staleness/max", "truncated", "excluded", "length/mean_right", "repetition", "lr"):  # fmt: skip
        assert name in rl
    assert rl["mismatch/max"] < 1e-4
    assert rl["staleness/max"] == 0


def test_the_exported_model_is_what_transformers_loads(whole):
    transformers = pytest.importorskip("transformers")
    result, _ = whole
    model = transformers.AutoModelForCausalLM.from_pretrained(result["model"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(result["model"])
    assert (
        tokenizer.apply_chat_template([{"role": "user", "content": "1 to 9"}], tokenize=False)
        == "<|user|>1 to 9<|end|>"
    )
    assert model.config.num_hidden_layers > 0


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_bits(whole, tmp_path):
    result, run = whole
    again = asyncio.run(train(recipe(tmp_path)))
    assert again["weights_hash"] == result["weights_hash"]
    assert rows_without_times(tmp_path / "run") == rows_without_times(run)


class Crash(Exception):
    pass


def slow(*places):
    """Every place counts, but one is like another: a few are tried each time, the others in the slow suite."""
    return [pytest.param(place, marks=pytest.mark.slow) for place in places]


@pytest.mark.slow
@pytest.mark.parametrize("at", [4, *slow(1, 3, 6, 9)])
def test_a_crashed_run_ends_like_one_that_was_not(whole, tmp_path, at):
    result, run = whole
    left = at

    def crash(row):
        nonlocal left
        if "done" not in row:
            left -= 1
            if left == 0:
                raise Crash

    with pytest.raises(Crash):
        asyncio.run(train(recipe(tmp_path), progress=crash))
    resumed = asyncio.run(resume(tmp_path / "run"))
    assert resumed["weights_hash"] == result["weights_hash"]
    assert rows_without_times(tmp_path / "run") == rows_without_times(run)
    ids = [rollout.id for rollout in RunFolder.open(tmp_path / "run").rollouts]
    assert len(ids) == len(set(ids)), "no rollout may be counted twice"
    assert set(ids) == {rollout.id for rollout in RunFolder.open(run).rollouts}


def test_resume_without_a_whole_state_is_an_error(whole, tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.write_config(config.to_toml(recipe(tmp_path)))
    run.close()
    with pytest.raises(RunFolderError, match="state"):
        asyncio.run(resume(tmp_path / "run"))


@pytest.mark.slow
def test_a_stopped_run_goes_on(tmp_path):
    stopped = []

    def stop_in_rl(training):
        stopped.append(training)

    def progress(row):
        if row["phase"] == "rl":
            stopped[0].stop()

    result = asyncio.run(train(recipe(tmp_path), progress=progress, on_start=stop_in_rl))
    assert not result["complete"] and "end" not in result["eval"]
    resumed = asyncio.run(resume(tmp_path / "run"))
    assert resumed["complete"] and resumed["steps"] == {"sft": 3, "rl": 4}


@pytest.mark.slow
@pytest.mark.parametrize("at", [9, 28, *slow(1, 4, 14, 17, 20, 24, 33, 38)])
def test_a_stopped_run_ends_like_one_that_was_not(whole, tmp_path, at):
    """Stopped in the middle of anything: what was cut short is done again, and nothing is counted twice."""
    result, run = whole
    started, seen = [], 0

    def progress(row):
        nonlocal seen
        seen += 1
        if seen == at:
            started[0].stop()

    asyncio.run(train(recipe(tmp_path), progress=progress, on_start=started.append))
    assert seen >= at, "the run was over before"
    resumed = asyncio.run(resume(tmp_path / "run"))
    assert resumed["weights_hash"] == result["weights_hash"]
    assert resumed["tokens"] == result["tokens"]
    assert rows_without_times(tmp_path / "run") == rows_without_times(run)
    ids = [rollout.id for rollout in RunFolder.open(tmp_path / "run").rollouts]
    assert sorted(ids) == sorted(rollout.id for rollout in RunFolder.open(run).rollouts)


def test_a_run_of_that_name_is_not_overwritten(whole):
    _, run = whole
    with pytest.raises(RunFolderError, match="overwrite"):
        asyncio.run(train(recipe(run.parent)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rl": {"advantage": "grop"}}, "did you mean 'grpo'"),
        ({"rl": {"loss": "pop"}}, "did you mean 'ppo'"),
        ({"role_models": {"polcy": "x"}}, "did you mean 'policy'"),
        ({"rl": {"loss_params": {"clip_hgih": 0.3}}}, "did you mean 'clip_high'"),
        ({"env": "gues"}, "did you mean 'guess'"),
        ({"model": "preset:tinny"}, "did you mean 'tiny'"),
        ({"model": "nowhere"}, "no such model"),
        ({"eval": {"split": "tst"}}, "did you mean 'test'"),
        ({"env": DUMB}, "has no demonstrate"),
        ({"env": DUMB, "sft": None, "env_options": {"top_p": 0.5}}, "top_p"),
        ({"device": "cuda:7"}, "no CUDA device"),
        ({"device": "gpu"}, "unknown device"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_made(tmp_path, changes, said):
    with pytest.raises(LudusError, match=said):
        asyncio.run(train(recipe(tmp_path, **changes)))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kills", range(4))
def test_killed_at_any_moment(whole, tmp_path, kills):
    """SIGKILL at arbitrary moments, resumed until it ends: the same bits."""
    result, run = whole
    path = tmp_path / "recipe.toml"
    path.write_text(config.to_toml(recipe(tmp_path)))
    ludus = str(Path(sys.executable).parent / "ludus")
    for attempt in range(20):
        started = (tmp_path / "run" / "state").is_dir() and any((tmp_path / "run" / "state").iterdir())
        words = ["--resume", str(tmp_path / "run")] if started else [str(path), "overwrite=true"]
        process = subprocess.Popen([ludus, "train", *words], stdout=subprocess.DEVNULL, env={**os.environ, "CI": "1"})
        deadline = time.monotonic() + 4.0 + 0.37 * ((kills * 7 + attempt * 3) % 11)
        while process.poll() is None and (attempt >= 6 or time.monotonic() < deadline):
            time.sleep(0.02)
        if process.poll() is not None:
            assert process.returncode == 0
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["weights_hash"] == result["weights_hash"]
    assert rows_without_times(tmp_path / "run") == rows_without_times(run)
