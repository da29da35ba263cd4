import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ludus.cli.options import file_name
from ludus.cli.output import align
from ludus.cli.results import results_table
from ludus.programs.evaluate import Evaluation

GATED = '''
import asyncio, pathlib
import ludus

class Gated(ludus.Environment):
    """Waits in every rollout until a file is there."""
    def tasks(self, split):
        return [ludus.Task(prompt=str(i), answer="x") for i in range(50)]
    async def setup(self, ctx):
        pathlib.Path("started").touch()
        while not pathlib.Path("go").exists():
            await asyncio.sleep(0.01)
    def demonstrate(self, task):
        return task.answer
    @ludus.reward
    def right(self, task, rollout):
        return rollout.reply == task.answer
'''


def evaluation(model="m", **changed):
    values = {
        "env": "e", "model": model, "split": "test", "num_tasks": 10, "samples": 1, "mean": 0.5, "se": 0.1,
        "interval": (0.3, 0.7), "bounds": (0.4, 0.6), "pass_at": {"1": 0.5}, "pass_hat": {"1": 0.5},
        "metrics": {"num_turns": 2.0, "solved": 0.5}, "num_excluded": 0, "num_retried": 0, "excluded_rate": 0.0,
        "failed_rate": 0.0, "truncated_rate": 0.25, "tokens": {"prompt": 1500, "completion": 200}, "cost": 0.0,
        "latency_s": {"p50": 0.1, "p90": 0.2}, "seconds": 1.0,
    }  # fmt: skip
    return Evaluation(**{**values, **changed})


UNTIDY = """
import os
import ludus

class Untidy(ludus.Environment):
    def tasks(self, split):
        return [ludus.Task(prompt="?", answer="x")]
    def demonstrate(self, task):
        return task.answer
    @ludus.reward
    def right(self, task, rollout):
        print("something")
        os.chdir("elsewhere")
        return 1.0
"""


def test_an_environment_that_prints_and_goes_elsewhere(ludus, monkeypatch):
    here = Path.cwd()
    monkeypatch.chdir(here)  # and back afterwards
    Path("elsewhere").mkdir()
    Path("untidy.py").write_text(UNTIDY)
    result = ludus("eval", "untidy.py", "--model", "demonstrator", "--out", "out", "--json")
    assert json.loads(result.stdout)["mean"] == 1.0 and "something" in result.stderr
    assert (here / "out" / "result.json").is_file() and not any((here / "elsewhere").iterdir())


def test_json_is_one_object_and_nothing_else(ludus):
    result = ludus("eval", "guess", "--model", "demonstrator", "-n", 5, "-k", 2, "--json")
    found = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert (found["env"], found["model"], found["num_tasks"], found["samples"]) == ("guess", "demonstrator", 5, 2)
    assert {"mean", "se", "pass_at", "metrics", "num_excluded", "out"} <= found.keys()
    assert found["out"] == "runs/eval-guess-demonstrator-1"
    assert json.loads(Path(found["out"], "result.json").read_text())["mean"] == found["mean"]


def test_what_is_not_a_number_is_null(ludus):
    assert json.loads(ludus("eval", "guess", "--model", "demonstrator", "-n", 1, "--json").stdout)["se"] is None


@pytest.mark.slow
def test_several_models_are_one_table_and_one_object(ludus):
    args = ["eval", "guess", "--model", "demonstrator", "--model", "demonstrator", "-n", 4]
    found = json.loads(ludus(*args, "--json").stdout)
    assert [result["out"][-1] for result in found["results"]] == ["1", "2"]
    assert found["results"][0]["mean"] == found["results"][1]["mean"]
    assert [one["model"] for one in found["models"]["sections"][0]["models"]] == [
        "demonstrator (eval-guess-demonstrator-1)", "demonstrator (eval-guess-demonstrator-2)",
    ]  # fmt: skip
    lines = ludus(*args).stdout.splitlines()
    assert sum(line.startswith("  demonstrator  ") for line in lines) == 2
    assert "  runs/models-guess-2/models.html" in lines
    assert "ludus compare runs/eval-guess-demonstrator-3 runs/eval-guess-demonstrator-4" in lines[-1]


def test_out_with_the_same_settings_is_gone_on_with_and_with_others_refused(ludus, evaluated):
    again = json.loads(ludus("eval", "guess", "--model", "demonstrator", "-n", 8, "--out", evaluated, "--json").stdout)
    assert again["num_tasks"] == 8
    assert len(list(evaluated.glob("rollouts/*"))) >= 1
    refused = ludus("eval", "guess", "--model", "demonstrator", "--seed", 1, "--out", evaluated, "--json", code=1)
    assert "seed was 0, is 1; choose another folder (--out)" in refused.stderr and refused.stdout == ""


def test_options_reach_the_environment_and_the_sampler(ludus, tiny_model):
    found = json.loads(
        ludus(
            "eval", "guess", "--model", tiny_model, "-n", 2, "--arg", "turns=2", "--max-tokens", 3, "--temperature", 0,
            "--json",
        ).stdout
    )  # fmt: skip
    assert found["metrics"]["num_turns"] <= 2.0
    assert found["tokens"]["completion"] <= 2 * 2 * 3
    assert found["out"] == "runs/eval-guess-tiny-1"


def test_a_budget_ends_it_early(ludus, tiny_model):
    args = ["--concurrency", 1, "--max-tokens-total", 1]
    found = json.loads(ludus("eval", "guess", "--model", tiny_model, "-n", 30, *args, "--json").stdout)
    assert found["num_tasks"] < 30
    assert "the tokens reached" in found["stopped"]


def test_a_budget_of_nothing_runs_nothing(ludus):
    args = ["--price", "1,1", "--max-cost", 0]
    result = ludus("eval", "guess", "--model", "demonstrator", "-n", 2, *args, code=1)
    assert "no rollout could be scored: the cost reached 0.0000" in result.stderr
    assert "and a higher limit where one was reached" in result.stderr


def test_workers_run_the_environment(ludus, tiny_model):
    found = json.loads(ludus("eval", "guess", "--model", tiny_model, "-n", 2, "--workers", 1, "--json").stdout)
    assert found["num_tasks"] == 2 and found["num_excluded"] == 0


FAILING = '''
import ludus

class Failing(ludus.Environment):
    """Fails, in so far as it is told to."""
    def __init__(self, share: float, note: str | None = None):
        self.share = share
    def tasks(self, split):
        return [ludus.Task(prompt=str(i), answer="x", info={"fails": i < 10 * self.share}) for i in range(10)]
    def demonstrate(self, task):
        return task.answer
    @ludus.reward
    def right(self, task, rollout):
        return 1 / (not task.info["fails"])
'''


def test_exclusions_are_bounded_and_explained(ludus):
    Path("failing.py").write_text(FAILING)
    out = ludus("eval", "failing.py", "-m", "demonstrator", "--arg", "share=0.2").stdout
    assert "[0.800, 1.000]" in out and "2 (20.0%)" in out
    assert "most of them for: " in out and "division by zero" in out and "--failed" in out


def test_nothing_scored_is_an_error(ludus):
    Path("failing.py").write_text(FAILING)
    result = ludus("eval", "failing.py", "-m", "demonstrator", "-n", 2, "--arg", "share=1", "--json", code=1)
    assert json.loads(result.stdout)["mean"] is None
    assert "no rollout could be scored" in result.stderr


def test_bounds_and_cost_are_columns_only_where_they_say_something():
    plain = "\n".join(results_table([evaluation()]))
    assert "bounds" not in plain and "cost" not in plain
    text = "\n".join(results_table([evaluation("a"), evaluation("b", num_excluded=3, excluded_rate=0.3, cost=0.5)]))
    assert "bounds" in text and "[0.400, 0.600]" in text and "$0.5000" in text and "3 (30.0%)" in text


def test_a_table_of_models_has_a_row_each():
    lines = results_table([evaluation("a"), evaluation("longer", mean=0.25, pass_at={"1": 0.25, "4": 0.75})])
    assert len(lines) == 3
    assert lines[2].split()[:4] == ["longer", "0.250", "±", "0.100"]
    assert "pass@4" in lines[0] and "–" in lines[1]


def test_columns_are_aligned():
    assert align([["a", "1"], ["bb", "10"]], right=[1]) == ["a    1", "bb  10"]


def test_names_of_folders():
    assert file_name("openai:org/large") == "openai-org-large"
    assert file_name("envs/shop.py:Shop") == "shop.py-Shop"
    assert file_name("rg:spell_backward") == "rg-spell_backward"
    assert file_name(".") == Path.cwd().name


class Gate:
    """`ludus eval` on rollouts that wait; every step is a handshake."""

    def __init__(self, folder, *args):
        self.folder = folder
        (folder / "gated.py").write_text(GATED)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ludus", "eval", "gated.py", "-m", "demonstrator", "--concurrency", "2", *args],
            cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        while not (folder / "started").exists():
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.01)

    def signal_and_wait_for(self, number, words):
        self.process.send_signal(number)
        for line in self.process.stderr:
            if words in line:
                return
        raise AssertionError(f"it never said {words!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_first_signal_finishes_what_runs_and_prints_it(tmp_path, number):
    gate = Gate(tmp_path, "--json")
    gate.signal_and_wait_for(number, "finishing the rollouts that run; again to abort")
    (tmp_path / "go").touch()
    out, _ = gate.process.communicate(timeout=60)
    found = json.loads(out)
    assert gate.process.returncode == 130
    assert found["stopped"] == "interrupted"
    assert 1 <= found["num_tasks"] < 50 and found["mean"] == 1.0


@pytest.mark.slow
def test_the_second_signal_aborts(tmp_path):
    gate = Gate(tmp_path)
    gate.signal_and_wait_for(signal.SIGINT, "again to abort")
    gate.process.send_signal(signal.SIGINT)
    out, err = gate.process.communicate(timeout=60)
    assert gate.process.returncode == 130
    assert out == "" and err.strip() == "aborted"


NIM = "ludus.environments.nim:Nim"


def test_another_model_may_play_another_role(ludus):
    result = ludus("eval", NIM, "--model", "demonstrator", "--role-model", "opponent=demonstrator", "-n", 4, "--json")
    assert json.loads(result.stdout)["num_excluded"] == 0
    out = json.loads(result.stdout)["out"]
    assert 'opponent = "demonstrator"' in Path(out, "config.toml").read_text()


@pytest.mark.parametrize(
    ("given", "said", "code"),
    [
        ("opponent", "expected ROLE=MODEL", 2),
        ("oponent=demonstrator", "did you mean 'opponent'", 2),
        ("opponent=x", "no such model", 1),
    ],
)
def test_who_can_not_play_another_role_is_refused(ludus, given, said, code):
    assert said in ludus("eval", NIM, "--model", "demonstrator", "--role-model", given, code=code).stderr


def test_who_has_no_demonstrator_and_who_is_named_twice(ludus):
    refused = ludus("eval", "attempts:guess", "--model", "demonstrator", code=2)
    assert "has no demonstrate(task)" in refused.stderr and not Path("runs").exists()
    out = ludus("eval", "guess", "-m", "demonstrator", "-m", "demonstrator", "-n", 2, "--out", "x", "--json").stdout
    assert json.loads(out)["num_tasks"] == 2
