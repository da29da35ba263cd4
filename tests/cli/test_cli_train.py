import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus import config
from ludus.cli.stopping import Stopper
from ludus.cli.summary import options_as_args

RECIPE = """
name = "short"
env = "guess"
model = "{model}"
concurrency = 8
[sft]
steps = 2
batch_size = 4
num_demonstrations = 8
[rl]
steps = 2
groups = 2
group_size = 2
refill = 0
[eval]
num_tasks = 4
every = 1
"""

GATED = '''
import asyncio, pathlib
import ludus

class Gated(ludus.Environment):
    """Waits in every rollout until a file is there."""
    max_turns = 1
    sampling = {"max_tokens": 4}
    def tasks(self, split):
        return [ludus.Task(prompt=f"{split} {i}", answer="x") for i in range(8)]
    async def setup(self, ctx):
        pathlib.Path("started").touch()
        while not pathlib.Path("go").exists():
            await asyncio.sleep(0.01)
    @ludus.reward
    def right(self, task, rollout):
        return len(rollout.reply)
'''


@pytest.fixture
def recipe(ludus, tiny_model):
    Path("short.toml").write_text(RECIPE.format(model=tiny_model))
    return "short.toml"


def test_a_training_run_says_how_it_went_and_where_to_look(ludus, recipe):
    result = ludus("train", recipe, "rl.steps=1")
    out, err = result.stdout, result.stderr
    for words in ("start", "after SFT", "end", "greedy", "turns", "95 % interval", "runs/short/report.html"):
        assert words in out
    for command in ("show runs/short", "chat runs/short", "eval guess --model runs/short", "compare", "play guess"):
        assert f"ludus {command}" in out
    assert "--model runs/short --model demonstrator" in out
    assert Path("runs/short/report.html").exists()
    assert "SFT 1/2" in err and "RL 1/1" in err and "eval after sft" in err
    assert "\x1b" not in out + err


@pytest.mark.slow
def test_what_to_do_next_keeps_the_options_and_offers_no_expert_that_was_not_met(ludus, recipe):
    text = Path(recipe).read_text()
    Path("short.toml").write_text(text.partition("[sft]")[0] + "[eval]\nnum_tasks = 2\n")
    out = ludus("train", recipe, "env_options.turns=3", "name=a run").stdout
    assert "  ludus eval guess --arg turns=3 --model 'runs/a run'\n" in out
    assert "  ludus play guess --arg turns=3\n" in out


@given(
    options=st.dictionaries(
        st.from_regex(r"[a-z_]{1,5}", fullmatch=True),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"))
        | st.lists(st.integers() | st.booleans())
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.dictionaries(st.sampled_from("xy"), st.integers(), min_size=1),
    )
)
@settings(deadline=None)
@pytest.mark.slow
def test_options_are_read_back_as_they_were(options):
    words = options_as_args(options)
    assert words[::2] == ["--arg"] * (len(words) // 2)
    assert config.merge({}, words[1::2]) == options


@pytest.mark.slow
def test_json_is_the_result_and_a_finished_run_can_be_resumed_evaluated_and_compared(ludus, recipe):
    out = ludus("train", recipe, "--json").stdout
    found = json.loads(out)
    assert out.count("\n") == 1
    assert found["complete"] and found["steps"] == {"sft": 2, "rl": 2} and found["run"] == "runs/short"
    again = json.loads(ludus("train", "--resume", "runs/short", "--json").stdout)
    assert again["weights_hash"] == found["weights_hash"] and again["eval"].keys() == found["eval"].keys()
    evaluated = json.loads(ludus("eval", "guess", "--model", "runs/short", "-n", 4, "--json").stdout)
    assert evaluated["model"] == "runs/short"
    compared = json.loads(ludus("compare", "runs/short", evaluated["out"], "--json").stdout)
    assert compared["a"]["purpose"] == "eval:end" and compared["difference"]["num_tasks"] == 4
    assert len(ludus("chat", "runs/short", "--max-tokens", 2, input="1 to 9\n").stdout) > 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["rl.stps=1"], ["'rl.stps'", "did you mean 'rl.steps'?"]),
        (["rl.steps=many"], ["rl.steps", "'many'"]),
        (["rl.loss=pppo"], ["unknown loss 'pppo'", "did you mean 'ppo'?"]),
        (["env=gess"], ["did you mean 'guess'?"]),
        (["rl"], ["expected key=value, got 'rl'"]),
        (["--resume", "runs/short"], ["either"]),
    ],
)
def test_a_recipe_that_can_not_be_is_one_line(ludus, recipe, args, words):
    result = ludus("train", recipe, *args, code=2)
    assert result.stderr.startswith("ludus: ") and result.stderr.count("\n") == 1 and result.stdout == ""
    for word in words:
        assert word in result.stderr


def test_a_run_that_is_there_is_not_replaced(ludus, recipe):
    Path("runs/short/rollouts").mkdir(parents=True)
    assert "overwrite=true" in ludus("train", recipe, code=1).stderr


def test_the_first_signal_asks_and_the_second_cancels(capfd):
    async def until(stopper, heard):
        import asyncio

        stopper.stops(lambda: heard.append("stop"))
        os.kill(os.getpid(), signal.SIGINT)
        while not stopper.asked:
            await asyncio.sleep(0)
        if len(heard) == 1:
            return "drained"
        raise AssertionError

    stopper, heard = Stopper("stopping"), []
    assert stopper.run(lambda: until(stopper, heard)) == "drained"
    assert heard == ["stop"] and "stopping; again to abort" in capfd.readouterr().err

    async def never():
        import asyncio

        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    with pytest.raises(SystemExit) as ended:
        stopper.run(never)  # asked once already: this signal is the second
    assert ended.value.code == 130


def test_who_asks_before_the_program_can_be_stopped_is_heard_then():
    stopper, heard = Stopper("stopping"), []
    stopper.asked = True
    stopper.stops(lambda: heard.append("stop"))
    assert heard == ["stop"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_saved_and_goes_on(tmp_path, tiny_model, number):
    (tmp_path / "gated.py").write_text(GATED)
    text = RECIPE.format(model=tiny_model).replace('env = "guess"', 'env = "gated.py"')
    (tmp_path / "gated.toml").write_text(text.partition("[sft]")[0] + "[rl]" + text.partition("[rl]")[2])
    command = [sys.executable, "-m", "ludus", "train"]
    run = subprocess.Popen([*command, "gated.toml"], cwd=tmp_path, text=True, stdout=-1, stderr=-1)
    while not (tmp_path / "started").exists():
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.01)
    run.send_signal(number)
    assert any("finishing what is running, then saving; again to abort" in line for line in run.stderr)
    (tmp_path / "go").touch()
    _, err = run.communicate(timeout=120)
    assert run.returncode == 130
    assert "ludus train --resume runs/short" in err
    resumed = subprocess.run(
        [*command, "--resume", "runs/short", "--json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
    found = json.loads(resumed.stdout)
    assert found["complete"] and found["steps"]["rl"] == 2 and {"start", "end"} <= found["eval"].keys()
