"""The commands around traces and users."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ludus as package
from help_desk import Desk
from ludus.testing.scripted import Scripted
from recorded_talks import asked, said, talk, write

SPEC = "desk-env/src/desk_env/__init__.py"


def test_traces_become_a_package_that_can_be_evaluated(ludus):
    write(
        Path("traces.jsonl.gz"),
        [
            *(talk(n) for n in range(20)),
            '{"a',
            talk(3),
            {"messages": [asked("key sk-Ab12Cd34Ef56Gh78Ij90"), said("x")]},
        ],
    )
    out = ludus("env", "from-traces", "traces.jsonl.gz", "--name", "desk-env").stdout
    for words in (
        "from 23 lines",
        "1 no JSON",
        "traces.jsonl.gz:21",
        "1 the same as an earlier one",
        "1 API key",
        f"ludus env check {SPEC}",
    ):
        assert words in out
    assert "1.000" in ludus("eval", SPEC, "--model", "demonstrator", "-n", 3).stdout
    assert {"pyproject.toml", "README.md", "redacted.jsonl", "src", "tests"} == {
        path.name for path in Path("desk-env").iterdir()
    }
    assert "is there already" in ludus("env", "from-traces", "traces.jsonl.gz", "--name", "desk-env", code=1).stderr


def test_the_same_as_json(ludus):
    write(Path("traces.jsonl"), [talk(n, accepted=n > 2) for n in range(20)])
    found = json.loads(
        ludus("env", "from-traces", "traces.jsonl", "--name", "desk-env", "--test-share", 0.5, "--json").stdout
    )
    assert sum(found["tasks"].values()) == 17 and found["labels"] == {"good": 17, "bad": 3}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["none.jsonl", "--name", "desk-env"], "no such file of traces"),
        (["traces.jsonl", "--name", "Desk"], "expected a name of lower-case words"),
        (["traces.jsonl"], "missing option"),
        (["traces.jsonl", "--name", "desk-env", "--redact", "("], "no regular expression"),
        (["traces.jsonl", "--name", "desk-env"], "two different conversations"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(ludus, args, words):
    write(Path("traces.jsonl"), [talk(1)])
    said = ludus("env", "from-traces", *args, code=2)
    assert words in said.stderr and said.stderr.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["traces.jsonl"]


@pytest.mark.slow
def test_a_command_that_is_ended_leaves_nothing_behind(tmp_path):
    traces = write(tmp_path / "traces.jsonl", (talk(n) for n in range(20_000)))
    command = [
        sys.executable,
        "-m",
        "ludus",
        "env",
        "from-traces",
        traces,
        "--name",
        "desk-env",
        "--into",
        tmp_path,
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        while not list(tmp_path.glob(".desk-env*")) and running.poll() is None:
            time.sleep(0.01)
        running.send_signal(signal.SIGTERM)
        assert running.wait() == 143
    assert list(tmp_path.iterdir()) == [traces]


def test_the_divergence_of_simulated_tools(ludus):
    write(Path("traces.jsonl"), [talk(n) for n in range(20)])
    ludus("env", "from-traces", "traces.jsonl", "--name", "desk-env")
    env = package.load_environment(SPEC, {"tools": "simulated"})
    package.evaluate(
        env,
        "demonstrator",
        split="train",
        role_models={"api": Scripted("api", lambda messages: '{"result": "101"}')},
        out="run",
    )
    out = ludus("env", "divergence", "run").stdout
    assert "get_price" in out and "simulated  101" in out
    assert json.loads(ludus("env", "divergence", "run", "--json").stdout)["tools"][0]["tool"] == "get_price"


def test_the_users_of_a_run(ludus, evaluated):
    package.evaluate(Desk(), "demonstrator", split="train", num_tasks=2, out="run")
    out = ludus("users", "run").stdout
    assert "2 rollouts with a user" in out and "satisfied 2" in out and "different openings" in out
    assert json.loads(ludus("users", "run", "--json").stdout)["num_failed"] == 0
    assert "no rollouts whose tasks have a user" in ludus("users", evaluated, code=2).stderr


def test_the_users_of_a_run_of_traces(ludus):
    write(Path("traces.jsonl"), [talk(n) for n in range(20)])
    ludus("env", "from-traces", "traces.jsonl", "--name", "desk-env")
    package.evaluate(package.load_environment(SPEC), "demonstrator", split="train", num_tasks=3, out="run")
    found = json.loads(ludus("users", "run", "--json").stdout)
    assert found["num_rollouts"] == found["diversity"]["num_users"] == 3 and found["num_failed"] == 0
    assert found["diversity"]["words_per_utterance"] > 3
