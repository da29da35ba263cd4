"""Several models on the command line: each with its own address, key and price; and the page of them side by side."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ODD = '''
import ludus

class Odd(ludus.Environment):
    """Say odd."""
    roles = ("policy", "judge")
    def tasks(self, split):
        return [ludus.Task(prompt=f"{split} {i}") for i in range(10)]
    @ludus.reward
    async def right(self, rollout, models):
        reply = await models["judge"].chat([{"role": "user", "content": rollout.reply}])
        return float(reply.text == "odd")
'''


class Echo(BaseHTTPRequestHandler):
    """Says what it is asked, or the model's name to a question; turns the first request of a model called "busy" away."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said, name = body["messages"][-1]["content"], body["model"]
        self.server.asked.append((name, self.headers["authorization"]))
        if name == "busy" and len([one for one, _ in self.server.asked if one == "busy"]) == 1:
            self._answer(429, {"error": {"message": "slow down"}})
            return
        text = name if said.startswith("test") else said
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        self._answer(200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    def _answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def servers(monkeypatch, ludus):
    """Two APIs, and the variables with their keys."""
    Path("odd.py").write_text(ODD)
    for name in ("ONE", "TWO"):
        monkeypatch.setenv(f"KEY_{name}", f"sk-secret-of-{name.lower()}-server")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-openai")
    found = [ThreadingHTTPServer(("127.0.0.1", 0), Echo) for _ in range(2)]
    for server in found:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    for server in found:
        server.shutdown()
        server.server_close()


def url(server):
    return f"http://127.0.0.1:{server.server_port}/v1"


def test_each_model_has_its_own_address_key_and_price(ludus, servers):
    one, two = servers
    Path("prices.toml").write_text('"openai:even" = "1,0"\n"openai:elsewhere" = "9,9"\n')
    result = ludus(
        "eval", "odd.py", "-m", "openai:odd", "-m", "openai:even", "--role-model", "judge=openai:judge", "-n", 4,
        "--base-url", url(one), "--base-url", f"openai:even={url(two)}", "--base-url", f"openai:judge={url(two)}",
        "--api-key-env", "openai:odd=KEY_ONE", "--api-key-env", "openai:even=KEY_TWO",
        "--price", "openai:odd=2,10", "--prices", "prices.toml", "--role-price", "judge=0,1000", "--out", "both", "--json",
    )  # fmt: skip
    assert set(one.asked) == {("odd", "Bearer sk-secret-of-one-server")}
    assert set(two.asked) == {("even", "Bearer sk-secret-of-two-server"), ("judge", "Bearer sk-secret-of-openai")}
    found = json.loads(result.stdout)
    first, second = found["models"]["sections"][0]["models"]
    assert (first["model"], first["accuracy"]["value"], first["front"][0]) == ("odd", 1.0, "cost")
    assert first["cost"]["value"] == pytest.approx((100 * 2 + 10 * 10) / 1e6)
    assert second["cost"]["value"] == pytest.approx(100 / 1e6) and second["accuracy"]["value"] == 0.0
    assert first["other_cost"] == second["other_cost"] == pytest.approx(10 * 1000 / 1e6)
    assert found["results"][0]["cost"] == pytest.approx(4 * (300 + 10_000) / 1e6)
    assert not any(b"sk-secret" in path.read_bytes() for path in Path("both").rglob("*") if path.is_file())


@pytest.mark.slow
def test_waiting_for_a_busy_api_is_shown_and_is_no_latency(ludus, servers):
    result = ludus("eval", "odd.py", "-m", "openai:busy", "-n", 2, "--base-url", url(servers[0]), "--concurrency", 1)
    assert "waited s" in result.stdout
    found = json.loads(Path("runs/eval-odd.py-openai-busy-1/result.json").read_text())
    assert found["waited_s"] >= 0.25 / 2 and found["latency_s"]["p99"] < 0.25


@pytest.mark.slow
def test_a_report_of_several_evaluations(ludus, servers):
    api = ("--base-url", url(servers[0]), "-n", 3)
    ludus("eval", "odd.py", "-m", "openai:odd", *api, "--out", "first")
    ludus("eval", "odd.py", "-m", "openai:even", *api, "--out", "second")
    result = ludus("report", "first", "second", "--price", "odd=2,10", "--price", "openai:even=0.5/h")
    assert "runs/models-1/models.html" in result.stdout and "$2 / $10 per M tokens" in result.stdout
    assert "$0.5 an hour" in result.stdout and "In brackets: 95 % intervals" in result.stdout
    found = json.loads(ludus("report", "first", "second", "--out", "page", "--json").stdout)
    assert found["page"] == "page/models.html" and "no price is known of odd, even" in found["sections"][0]["notes"][0]
    refused = ludus("report", "first", "second", "--price", "ood=1,1", code=2)
    assert "did you mean 'odd'" in refused.stderr
    assert "for one RUN" in ludus("report", "first", "second", "--rescore", code=2).stderr
    assert "for several RUNs" in ludus("report", "first", "--price", "1,1", code=2).stderr


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--base-url", "ftp://x"], "expected http://... or MODEL=http://..."),
        (["--base-url", "openai:b=http://x"], "unknown model 'openai:b'"),
        (["--price", "openai:b=1,1"], "unknown model 'openai:b'"),
        (["--price", "1"], "expected two numbers such as 0.25,2, or an hourly price such as 1.5/h, got '1'"),
        (["--price", "-1,2"], "expected two numbers"),
        (["--price", "1/h"], "a price by the hour is for comparing models"),
        (["--price", "1/h", "--max-cost", "1", "-m", "openai:b"], "--max-cost needs --price or --role-price, IN,OUT"),
        (["--prices", "none.toml"], "can't read the prices none.toml"),
        (["--role-price", "1,2"], "expected ROLE=IN,OUT"),
        (["--role-price", "judge=1,2"], "--role-model judge=openai:NAME ?"),
    ],
)
def test_what_is_refused_before_anything_runs(ludus, monkeypatch, options, problem):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-openai")
    result = ludus("eval", "guess", "-m", "openai:a", *options, code=2)
    assert problem in result.stderr and not Path("runs").exists()


def test_a_key_in_place_of_a_variable_is_not_repeated(ludus):
    for key in ("sk-live-0123456789", "gsk_0123456789abcdef"):
        result = ludus("eval", "guess", "-m", "openai:a", "--api-key-env", key, code=2)
        assert "the name of an environment variable that is set, not a key" in result.stderr
        assert key not in result.stderr


JUDGED = """
from ludus.environments.guess import Guess
import ludus
from ludus.judging import Rubric

class Judged(Guess):
    roles = ("policy", "judge")
    rubric = Rubric.load("rubric.json")
    @ludus.reward
    async def liked(self, rollout, models):
        return await self.rubric(rollout, models["judge"])
"""


@pytest.mark.slow
def test_a_judge_behind_an_api_is_measured_by_what_people_said(ludus, servers, evaluated):
    ludus("label", evaluated, "-n", 3, input="g\nfast\nb\n\nb\n\n")
    ludus("label", evaluated, "--rubric", "rubric.json")
    Path("judged.py").write_text(JUDGED)
    # The server gives back the question, with the answer in it that shows the form: mark 0, whatever was asked.
    api = ("--model", "openai:judge", "--base-url", url(servers[0]), "--api-key-env", "KEY_ONE", "--price", "1,0")
    said = ludus("judge", "check", "judged.py", *api, "--run", evaluated, "--truth", "labels", "--json")
    found = json.loads(said.stdout)
    assert (found["num"], found["num_good"], found["accuracy"]) == (3, 1, pytest.approx(2 / 3))
    assert found["cost"] == pytest.approx(3 * 100 / 1e6)
