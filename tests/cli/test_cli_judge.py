"""`ludus judge check` as it is typed."""

import json
import math

import pytest
from click.testing import CliRunner

from ludus.cli.judge import check_lines
from ludus.cli.main import main
from ludus.programs.judging import JudgeCheck
from ludus.programs.judging.result import ProbeRow

ENV = '''
import ludus
from ludus.judging import Criterion, Rubric


class Letters(ludus.Environment):
    """Write."""

    roles = ("policy", "judge")
    rubric = Rubric((Criterion("short", "It is short."),))

    def tasks(self, split):
        return [ludus.Task(prompt="Write.")]

    @ludus.reward
    async def good(self, rollout, models):
        return await self.rubric(rollout, models["judge"])
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letters.py").write_text(ENV)
    (tmp_path / "labels.jsonl").write_text(json.dumps({"prompt": "Write.", "reply": "a", "label": "good"}) + "\n")
    return tmp_path


def ludus(*words):
    return CliRunner().invoke(main, ["judge", "check", *words])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("letters.py", "-m", "demonstrator"), "give either --labels FILE or --run RUN"),
        (
            ("letters.py", "-m", "demonstrator", "--labels", "labels.jsonl", "--run", "x"),
            "give either --labels FILE or --run RUN",
        ),
        (("letters.py", "-m", "demonstrator", "--labels", "nowhere"), "can't read the labels"),
        (("letters.py", "-m", "nowhere", "--labels", "labels.jsonl"), "no such model"),
        (("letters.py", "-m", "demonstrator", "--run", "nowhere"), "nowhere"),
        (("guess", "-m", "demonstrator", "--labels", "labels.jsonl"), "no scorer that asks a model"),
        (("letters.py", "-m", "demonstrator", "--labels", "labels.jsonl", "--price", "x"), "expected two numbers"),
    ],
)
def test_requests_that_make_no_sense_are_one_line(folder, words, why):
    result = ludus(*words)
    assert result.exit_code in (1, 2)
    assert why in result.output and len(result.output.splitlines()) == 1


def test_a_judge_that_gives_no_verdict_is_an_error(folder):
    result = ludus("letters.py", "-m", "demonstrator", "--labels", "labels.jsonl")
    assert result.exit_code == 1
    assert "the judge gave no verdict on any of 1 answers, most often because" in result.output


def test_what_was_found_is_a_table():
    found = JudgeCheck(
        env="letters", scorer="good", model="m", num=4, num_failed=1, failures={"it refused": 1}, num_good=2, accuracy=0.75,
        accuracy_interval=(0.2, 1.3), baseline=0.5, kappa=0.5, right_order=math.nan, repeats=2, agreement=1.0,
        length_bias=math.nan, length_bias_interval=(math.nan, math.nan), position_bias=0.1,
        position_bias_interval=(-0.1, 0.3), probes=[ProbeRow("order", 0.25, 1, 4)], calls=8,
        tokens={"prompt": 1000, "completion": 10}, cost=0.5, seconds_a_call=1.5,
    )  # fmt: skip
    text = "\n".join(check_lines(found))
    for line in (
        "4 with a verdict, 1 without", "accuracy              75.0 %", "95 % in 0.20 … 1.30", "right order           –",
        "favours early places  0.10", "+0.25       1 of 4", "8 calls",
        "1,000 + 10 tokens, 0.5000 dollars, 1.50 s a call", "no verdict (1): it refused",
    ):  # fmt: skip
        assert line in text
    assert found.to_dict()["length_bias_interval"] == [None, None]
    assert found.swayed == 1
