"""`ludus judge check` as it is typed."""

import json

import pytest
from click.testing import CliRunner

from ludus.cli.main import main

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
