import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

CHEATED = '''
import ludus

class Cheated(ludus.Environment):
    """Every reply is right."""
    def tasks(self, split):
        return [ludus.Task(prompt=f"{split} {i}", answer=str(i)) for i in range(30)]
    def demonstrate(self, task):
        return task.answer
    @ludus.reward
    def right(self, task, rollout):
        return 1.0
'''


@pytest.mark.slow
@pytest.mark.parametrize("name", ["my-shop", "corner_store2"])
def test_a_new_package_passes_its_own_tests(ludus, tmp_path, name):
    """In a process of its own, without being installed."""
    out = ludus("env", "new", name).stdout
    package = name.replace("-", "_")
    project = tomllib.loads(Path(name, "pyproject.toml").read_text())["project"]
    assert project["name"] == name and name in project["entry-points"]["ludus.environments"]
    assert f"ludus env check {name}/src/{package}/__init__.py" in out
    path = os.pathsep.join([str(Path(name, "src").resolve()), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=name, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert "5 passed" in run.stdout


def test_a_new_package_passes_the_check_and_can_be_evaluated(ludus):
    ludus("env", "new", "my-shop", "--into", "envs")
    spec = "envs/my-shop/src/my_shop/__init__.py"
    out = ludus("env", "check", spec, "--num-tasks", 5).stdout
    assert out.rstrip().endswith("0 failed") and "described and typed: price" in out
    assert "1.000" in ludus("eval", spec, "--model", "demonstrator", "-n", 3, "--arg", "num_items=2").stdout


def test_a_new_package_is_clean_code(ludus):
    ludus("env", "new", "my-shop")
    run = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "120", "--select", "E,F,I,W,UP,B"],
        cwd="my-shop", capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout


def test_a_package_is_never_written_over(ludus):
    Path("my-shop").mkdir()
    assert "is there already" in ludus("env", "new", "my-shop", code=1).stderr
    assert list(Path("my-shop").iterdir()) == []


def test_an_environment_that_gives_its_reward_away_fails_the_check(ludus):
    Path("cheated.py").write_text(CHEATED)
    result = ludus("env", "check", "cheated.py", "--num-tasks", 5, code=1)
    assert any(line.startswith("FAIL  reply: empty") for line in result.stdout.splitlines())


def test_the_list_names_what_is_registered_and_what_it_is(ludus):
    lines = ludus("env", "list").stdout.splitlines()
    assert any(line.startswith("guess ") and "hidden number" in line for line in lines)
    assert any(line.startswith("rg:... ") for line in lines)
    assert ludus("env", "list", "gu").stdout.startswith("guess")


def test_a_prefix_lists_what_is_behind_it(ludus):
    pytest.importorskip("reasoning_gym")
    lines = ludus("env", "list", "rg:spell").stdout.splitlines()
    assert "rg:spell_backward" in lines and all(line.startswith("rg:spell") for line in lines)


CONTAINED = '''
import ludus

class Contained(ludus.Environment):
    """Find the answer among other words."""
    def tasks(self, split):
        return [ludus.Task(prompt=f"{split} {i}", answer=str(7 * i + 1)) for i in range(99)]
    def demonstrate(self, task):
        return task.answer
    @ludus.reward
    def right(self, task, rollout):
        return float(task.answer in rollout.reply.split())
'''


def test_the_audit_says_whether_it_is_harder_to_hack_than_to_do(ludus):
    Path("contained.py").write_text(CONTAINED)
    out = ludus("env", "check", "contained.py", "--num-tasks", 3, "--audit", code=1).stdout
    assert "every number to 2,000  HOLE" in out
    assert out.splitlines()[-1].startswith("harder to hack than to do: no, because ")
    Path("contained.py").write_text(CONTAINED.replace(" in rollout.reply.split()", " == rollout.reply"))
    out = ludus("env", "check", "contained.py", "--num-tasks", 3, "--audit").stdout
    assert out.splitlines()[-1].startswith(
        "harder to hack than to do: yes, because expert earns 1.00, where the best of "
    )


@pytest.mark.slow
def test_options_of_the_audit_need_it(ludus):
    assert "go with --audit" in ludus("env", "check", "guess", "--model", "demonstrator", code=2).stderr
    result = ludus("env", "check", "guess", "--audit", "--model", "nowhere", code=1)
    assert "no such model" in result.stderr and result.stdout == ""
    result = ludus("env", "check", "guess", "--audit", "--role-model", "judge=demonstrator", code=2)
    assert "unknown role beside policy 'judge'" in result.stderr
