import json
from pathlib import Path

import pytest

from ludus.cli.replay import HOWS
from ludus.programs import replay as program

ENV = '''
import ludus

class Words(ludus.Environment):
    """Say the word."""

    def tasks(self, split):
        return [ludus.Task(prompt=word, answer=word[::-1]) for word in ("one", "two", "three")]

    @ludus.reward
    def backward(self, task, rollout):
        return float(rollout.reply == task.answer)

    @ludus.metric
    def live(self, ctx):
        return float(len(ctx.messages))

    def demonstrate(self, task, random):
        return random.choice([task.answer, "\\x1b[31mno"])
'''


@pytest.fixture
def words(ludus):
    Path("words.py").write_text(ENV)
    Path("strict.py").write_text(ENV.replace("float(rollout.reply == task.answer)", "-1.0"))
    ludus("eval", "words.py", "--model", "demonstrator", "-n", 3, "--samples", 4, "--out", "run")
    return Path("run")


def test_the_three_replays_have_one_list_of_names():
    assert HOWS == program.HOWS


def test_rescore_is_what_happens_by_default_and_says_what_it_proves(ludus, words):
    lines = ludus("replay", words).stdout.splitlines()
    assert lines[0] == "rescored 12 rollouts of run: 12 as recorded, 0 different, 0 not compared"
    assert lines[1].startswith("environment words.py is as it was: hash ")
    assert lines[3].split()[:2] == ["scorer", "as"]
    assert [line.split()[0] for line in lines[4:7]] == ["backward", "live", "reward"]
    assert "  live: asks for ctx, which no record holds: re-enact" in lines
    assert lines[-1].startswith("Proves that the scorers of today give the recorded conversations the recorded rewards")


def test_a_difference_is_exit_code_1(ludus, words):
    out = ludus("replay", words, "--env", "strict.py", code=1).stdout
    assert "rescored 12 rollouts of run: 0 as recorded, 12 different" in out
    assert "environment strict.py in place of words.py is not as it was" in out
    assert "... and 2 more (--json)" in out and "backward" in out


def test_one_rollout_and_re_enacting_and_json(ludus, words):
    found = json.loads(ludus("replay", words, "--how", "re-enact", "--json").stdout)
    assert (found["num_same"], found["same"], found["how"]) == (12, True, "re-enact")
    assert [row["scorer"] for row in found["scores"]] == ["backward", "live"]
    one = json.loads(ludus("replay", words, "--num", 1, "--env", "strict.py", "--json", code=1).stdout)
    (finding,) = one["findings"]
    assert ludus("replay", words, finding["rollout"]).stdout.startswith("rescored 1 rollout of run: 1 as recorded")


def test_no_terminal_is_written_to(ludus, words):
    Path("other.py").write_text(ENV.replace("[31mno", "[32mno"))
    out = ludus("replay", words, "--how", "re-enact", "--env", "other.py", code=1).stdout
    assert "reply, message 1, content" in out and "\x1b" not in out


def test_what_can_not_be_done_is_exit_code_2(ludus, words):
    assert "there are no weights to resample" in ludus("replay", words, "--how", "resample", code=2).stderr
    assert "leave out --env" in ludus("replay", words, "--how", "resample", "--env", "words.py", code=2).stderr
    assert "unknown rollout" in ludus("replay", words, "nothing", code=2).stderr
    assert "did you mean 'eval'" in ludus("replay", words, "--purpose", "evl", code=2).stderr
    assert "rescor" in ludus("replay", words, "--how", "rescor", code=2).stderr
    Path("words.py").unlink()
    assert "name it with --env" in ludus("replay", words, code=2).stderr


def test_resampling_an_evaluation(ludus, words, tiny_model):
    ludus("eval", "words.py", "--model", tiny_model, "-n", 3, "--max-tokens", 6, "--out", "tiny")
    lines = ludus("replay", "tiny", "--how", "resample").stdout.splitlines()
    assert lines[0].startswith("resampled 3 rollouts of tiny: 3 as recorded")
    assert lines[1] == f"weights: version 0 from {tiny_model}"
    assert any(line.startswith("sampled again: 18 tokens, 0 of them") for line in lines)
    assert lines[-1].startswith("Proves that the kept weights give ")


def test_a_report_compares_two_versions_of_a_reward(ludus, words):
    lines = ludus("report", words, "--rescore", "--env", "strict.py").stdout.splitlines()
    assert lines[0] == "12 rollouts scored again, 12 of them otherwise than then"
    row = next(line for line in lines if line.startswith("backward")).split()
    assert row[1:4] == ["0", "12", "0"] and row[5] == "-1.000"
    assert sum("backward 1 → -1" in line or "backward 0 → -1" in line for line in lines) == 10
    assert "Rewards by the scorers of today" in Path(lines[-1]).read_text()
    assert "Rewards by the scorers" not in Path(ludus("report", words).stdout.strip()).read_text()


def test_the_environment_of_a_report_is_that_of_rescoring(ludus, words):
    assert "give both" in ludus("report", words, "--env", "strict.py", code=2).stderr
