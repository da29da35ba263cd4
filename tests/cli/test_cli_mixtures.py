"""Several environments on the command line: one table, recipes as environments, and a run exported."""

import json
import sys
from pathlib import Path

import pytest

OTHER = """
import ludus

class Other(ludus.Environment):
    def __init__(self, answer: str = "x"):
        self.answer = answer
    def tasks(self, split):
        return [ludus.Task(prompt=f"{split} {i}", answer=self.answer, id=str(i)) for i in range(6)]
    def demonstrate(self, task):
        return task.answer
    @ludus.reward
    def right(self, rollout):
        return 0.5 * (rollout.reply == "x")
"""
MIX = """
name = "mix"
model = "preset:tiny"

[[envs]]
env = "guess"
weight = 3
options = { turns = 2, narrowest = 4, widest = 5, largest = 9 }

[[envs]]
env = "other.py"
name = "other"
options = { answer = "y" }

[rl]
steps = 1
groups = 2
group_size = 2
max_tokens = 4

[eval]
num_tasks = 2
"""


@pytest.fixture(autouse=True)
def here(ludus):
    Path("other.py").write_text(OTHER)
    Path("mix.toml").write_text(MIX)


def test_several_environments_are_one_table(ludus):
    args = ["eval", "guess", "other.py", "--model", "demonstrator", "-n", 4]
    found = json.loads(ludus(*args, "--json").stdout)["results"]
    assert [result["env"] for result in found] == ["guess", "other.py", "together"]
    assert found[2]["mean"] == pytest.approx((found[0]["mean"] + 0.5) / 2) and found[2]["num_tasks"] == 8
    assert list(found[2]["envs"]) == ["guess", "other.py"]
    lines = ludus(*args).stdout.splitlines()
    assert lines[1].startswith("guess + other.py  4 tasks of test each")
    assert [line.split()[0] for line in lines[4:7]] == ["guess", "other.py", "together"]
    assert not any("ludus compare" in line for line in lines)


@pytest.mark.slow
def test_several_environments_and_models_have_a_folder_each(ludus):
    ludus("init", "small", "--preset", "tiny")
    ludus("eval", "guess", "other.py", "--model", "demonstrator", "--model", "small", "-n", 1, "--out", "all")
    assert {str(path.parent) for path in Path("all").rglob("config.toml")} == {
        f"all/{env}/{model}" for env in ("guess", "other.py") for model in ("demonstrator", "small")
    }


def test_a_recipe_stands_for_its_environments(ludus):
    found = json.loads(ludus("eval", "mix.toml", "--model", "demonstrator", "-n", 2, "--json").stdout)["results"]
    assert [result["env"] for result in found] == ["guess", "other", "together"]
    assert found[1]["mean"] == 0.0, "with the recipe's options"
    assert found[2]["mean"] == pytest.approx(0.75 * found[0]["mean"])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["guess", "guess"], "two of the environments are called guess"),
        (["guess", "other.py", "--arg", "turns=3"], "--arg is for one environment"),
        (["nowhere.toml"], "no such file: nowhere.toml"),
        (["guess", "gues"], "did you mean 'guess'"),
        (["guess", "other.py", "--split", "trial"], "unknown split of guess 'trial'"),
        ([], "missing argument 'ENV...'"),
        (["rg:"], "rg: needs a name after the colon"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(ludus, args, said):
    result = ludus("eval", *args, "--model", "demonstrator", code=2)
    assert said in result.stderr and result.stderr.count("\n") == 1 and not Path("runs").exists()


@pytest.mark.slow
def test_a_mixture_is_trained_summed_up_and_exported(ludus):
    out = ludus("train", "mix.toml").stdout
    for words in ("start, guess", "end, other", "ludus eval runs/mix/config.toml --model runs/mix"):
        assert words in out
    assert "trained" in ludus("train", "mix.toml", "--dry-run").stdout
    pytest.importorskip("inspect_ai")
    lines = ludus("export", "inspect", "runs/mix").stdout.splitlines()
    assert lines[-1].strip() == "inspect view --log-dir runs/mix/inspect"
    logs = sorted(path.name for path in Path("runs/mix/inspect").glob("*.eval"))
    assert len(logs) == 8, "two environments at the start and the end, sampled and greedy"
    assert ludus("export", "inspect", "runs/mix", "--purpose", "train@othr", code=2).stderr.count("did you mean") == 1


def test_export_without_inspect_says_what_to_install(ludus, evaluated, monkeypatch):
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    assert "pip install 'ludus-rl[inspect]'" in ludus("export", "inspect", evaluated, code=2).stderr
