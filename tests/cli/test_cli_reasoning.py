"""`ludus card`, `ludus optimize` and `ludus data make` as commands."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ECHO = '''
import ludus

class Echo(ludus.Environment):
    """Say it in capital letters."""
    max_turns = 1
    def tasks(self, split):
        return [ludus.Task(prompt=f"{split} {n}", answer=f"{split} {n}".upper()) for n in range(30)]
    def demonstrate(self, task):
        return task.answer
    @ludus.reward
    def right(self, task, rollout):
        return float(rollout.reply == task.answer)
'''


class Answers(BaseHTTPRequestHandler):
    """A model that writes in capital letters when it is told to, and that proposes to tell it."""

    def do_POST(self):
        messages = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"]
        said = messages[-1]["content"]
        told = messages[0]["role"] == "system" and "CAPITALS" in messages[0]["content"]
        text = "```\nUse CAPITALS.\n```" if "new instruction" in said else said.upper() if told else said
        body = {
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
        }
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key-of-a-test")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_a_prompt_is_found_and_used(ludus, address):
    pytest.importorskip("gepa")
    Path("echo.py").write_text(ECHO)
    few = ("--num-train", 6, "--num-val", 4, "--num-test", 10, "--max-rollouts", 25)
    api = ("--model", "openai:m", "--base-url", address)
    prices = ("--price", "1,2", "--reflection-model", "openai:large", "--price", "openai:large=10,20")
    result = ludus("optimize", "echo.py", *api, *few, *prices, "--out", "found")
    assert "Use CAPITALS." in result.stdout and "+1.000" in result.stdout and "leaves out 0" in result.stdout
    found = json.loads(Path("found/result.json").read_text())
    calls = found["num_rollouts"] + 10 * found["num_reflections"] + 20
    assert found["cost"] == pytest.approx(calls * (1000 * 1 + 100 * 2) / 1e6)
    assert not any(b"very-secret" in path.read_bytes() for path in Path("found").rglob("*") if path.is_file())
    result = ludus("eval", "prompt:echo.py", "--arg", "file=found/best_prompt.txt", *api, "-n", 5, "--json")
    assert json.loads(result.stdout)["mean"] == 1.0
    again = ludus("optimize", "echo.py", *api, *few, *prices, "--out", "found", code=1)
    assert "finished; choose another folder (--out)" in again.stderr


def test_an_expert_has_no_prompt(ludus):
    pytest.importorskip("gepa")
    Path("echo.py").write_text(ECHO)
    few = ("--num-train", 6, "--num-val", 4, "--num-test", 10)
    result = ludus("optimize", "echo.py", "--model", "demonstrator", *few, code=2)
    assert "takes no prompt" in result.stderr and not Path("runs").exists()


def test_data_of_an_expert(ludus):
    Path("echo.py").write_text(ECHO)
    result = ludus("data", "make", "echo.py", "--model", "demonstrator", "-n", 8, "-k", 2)
    assert "8 examples of 16 rollouts" in result.stdout and "another sample of the task was taken" in result.stdout
    folder = (
        Path("data/echo-demonstrator") if Path("data/echo-demonstrator").exists() else Path("data/echo.py-demonstrator")
    )
    assert len((folder / "data.jsonl").read_text().splitlines()) == 8
    made = ludus("data", "make", "echo.py", "--model", "demonstrator", "-n", 8, "-k", 2, "--out", folder, "--json")
    assert json.loads(made.stdout)["num_examples"] == 8
    result = ludus("data", "make", "echo.py", "--model", "demonstrator", "-k", 1, "--min-agreement", 0.5, code=2)
    assert "at least 2 samples" in result.stderr


@pytest.mark.slow
def test_data_that_was_made_is_learnt(ludus):
    Path("echo.py").write_text(ECHO.replace("    def demonstrate(self, task):\n        return task.answer\n", ""))
    Path("expert.py").write_text(ECHO)
    ludus("data", "make", "expert.py", "--model", "demonstrator", "-n", 8, "-k", 1, "--out", "made")
    recipe = 'name = "run"\nenv = "echo.py"\nmodel = "preset:tiny"\n[sft]\nsteps = 2\nbatch_size = 4\n'
    Path("recipe.toml").write_text(recipe + 'data = "made/data.jsonl"\n[eval]\nnum_tasks = 2\n')
    ludus("train", "recipe.toml")
    rows = [json.loads(line) for line in Path("runs/run/metrics.jsonl").read_text().splitlines()]
    assert [row["phase"] for row in rows].count("sft") == 2
    assert "line 1" in ludus("train", "recipe.toml", "name=other", "sft.data=recipe.toml", code=2).stderr


def test_a_card_of_an_evaluation(ludus, evaluated):
    result = ludus("card", evaluated)
    assert "accuracy" in result.stdout and result.stdout.rstrip().endswith("card.html")
    found = json.loads(ludus("card", evaluated, "--json").stdout)
    assert found["model"] == "demonstrator" and "budget" in found["curves"]
    assert "has the tasks that" in ludus("card", evaluated, "--reseeded", evaluated, code=2).stderr
    assert "not-there does not exist" in ludus("card", "not-there", code=1).stderr


@pytest.mark.slow
def test_cards_tell_what_hangs_on_the_words(ludus, evaluated):
    ludus("eval", "reword:guess", "--model", "demonstrator", "-n", 6, "--out", "reworded")
    result = ludus("card", evaluated, "--reworded", "reworded")
    assert "the same tasks, reworded" in result.stdout
