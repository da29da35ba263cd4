import json
from pathlib import Path

import pytest

from ludus.cli.transcript import listing, message_lines, rollout_lines
from ludus.store import RolloutIndex, RunFolder
from ludus.types import Call, EnvironmentRef, Failure, Reward, Rollout, Seeds, Task, Usage, user

NASTY = "\x1b[31mred\x1b[0m \x07 \u202ebackwards"


def rollout(name="r0", **changed):
    values = {
        "id": name, "group": f"eval/t/{name}", "environment": EnvironmentRef("shop", {"n": 3}), "split": "test",
        "task": Task(prompt="buy", id="t"), "seeds": Seeds(0, 0, 0, 0), "purpose": "eval", "model": "m", "stop": "done",
        "calls": [
            Call(messages=[user("buy")], finish_reason="tool_calls", usage=Usage(5, 7), reply={
                "role": "assistant", "content": "", "reasoning_content": "let me look", "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "price", "arguments": '{"item": "tea"}'}}]}),
            Call(parent=0, usage=Usage(20, 2), reply={"role": "assistant", "content": NASTY}, malformed="no brace",
                 messages=[{"role": "tool", "tool_call_id": "c", "name": "price", "content": "561"}]),
        ],
        "epilogue": [user("goodbye")], "rewards": [Reward("right", 1.0), Reward("step", 0.5, 0.0, turn=1)],
    }  # fmt: skip
    return Rollout(**{**values, **changed})


def plain(lines):
    import click

    return [click.unstyle(line) for line in lines]


def test_a_rollout_is_shown_turn_by_turn():
    text = "\n".join(plain(rollout_lines(rollout())))
    order = [
        "shop(n=3)", "buy", "assistant  turn 1, 5 + 7 tokens", "tool_calls", "let me look", '→ price {"item": "tea"}',
        "tool price", "561", "assistant  turn 2, 20 + 2 tokens", "step 0.5", "malformed tool call: no brace", "goodbye",
        "reward 1.000", "2 turns, 25 + 9 tokens", "right", "weight 1", "metric, turn 1",
    ]  # fmt: skip
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_what_a_model_wrote_can_not_write_on_the_terminal():
    text = "".join(plain(rollout_lines(rollout())))
    assert "red  backwards" in text.replace("\x07", "?")
    assert not {"\x1b", "\x07", "\u202e"} & set(text)


def test_names_from_outside_are_cleaned_too():
    message = {
        "role": "tool",
        "name": "\x1b]0;title\x07",
        "content": [{"type": "text", "text": "a\x1b[2J"}, {"type": "image"}],
    }
    text = "\n".join(plain(message_lines(message)))
    assert not {"\x1b", "\x07"} & set(text)
    assert "[image]" in text


@pytest.mark.parametrize(("blame", "fate"), [("policy", "counts"), ("environment", "excluded")])
def test_a_failure_says_where_whose_and_why(blame, fate):
    failure = Failure("tool", blame, "KeyError: 'x'", "line 3 in price")
    text = "\n".join(plain(rollout_lines(rollout(failure=failure, rewards=[], stop="failed"))))
    assert f"failed in tool, blame {blame} ({fate}" in text
    assert "KeyError: 'x'" in text and "line 3 in price" in text


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RunFolder.create(Path("run")) as folder:
        for number in range(30):
            folder.rollouts.append(rollout(f"{number:04d}", task=Task(prompt="buy", id=f"t{number % 3}")))
        failed = rollout("bad0", purpose="train", failure=Failure("tool", "environment", "KeyError"), stop="failed")
        folder.rollouts.append(failed)
    return Path("run")


def test_the_list_has_an_overview_a_row_a_rollout_and_a_limit(ludus, run):
    lines = ludus("show", run, "--limit", 5).stdout.splitlines()
    assert lines[0].split()[:2] == ["made", "for"]
    assert [line.split()[:2] for line in lines[1:3]] == [["eval", "30"], ["train", "1"]]
    assert [line.split()[0] for line in lines[5:10]] == ["0000", "0001", "0002", "0003", "0004"]
    assert lines[-1].strip() == "ludus show run 0000"


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--failed"], ["bad0"]),
        (["--purpose", "train"], ["bad0"]),
        (["--task", "t1", "--limit", "2"], ["0001", "0004"]),
        (["--purpose", "eval", "--failed"], []),
    ],
)
def test_the_list_is_narrowed(ludus, run, options, ids):
    lines = ludus("show", run, *options).stdout.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(ids)]] == ids
    assert ids or lines == ["no rollout matches"]


def test_unknown_names_have_neighbours(ludus, run):
    assert "did you mean 'train'?" in ludus("show", run, "--purpose", "trian", code=2).stderr
    assert "unknown rollout" in ludus("show", run, "000x", code=2).stderr


def test_one_rollout_by_its_id(ludus, run):
    out = ludus("show", run, "0007").stdout
    assert out.startswith("0007  shop(n=3)") and "\x1b" not in out


def test_excluded_rollouts_have_no_reward(run):
    with RolloutIndex(run) as index:
        (line,) = plain(listing(index.query(purpose="train")))[1:]
    assert "–" in line and "failed: tool, environment" in line


def test_compare_prints_a_table_and_one_json_object(ludus, evaluated):
    ludus("eval", "guess", "--model", "demonstrator", "-n", 6, "--seed", 1, "--out", "other")
    assert "difference" in ludus("compare", evaluated, "other").stdout
    found = json.loads(ludus("compare", evaluated, "other", "--json").stdout)
    assert found["a"]["run"] == "evaluated" and found["difference"]["num_tasks"] == 6
    assert found["difference"]["mean"] == pytest.approx(found["b"]["mean"] - found["a"]["mean"])


def test_report_prints_where_it_is(ludus, evaluated):
    assert Path(ludus("report", evaluated).stdout.strip()).read_text().startswith("<!")


def test_what_a_judge_said_is_shown():
    judged = [
        Call(role="judge", messages=[user("Which is best?")], reply={"role": "assistant", "content": "the first"})
    ]
    shown = rollout(group_calls=judged, rewards=[Reward("best", 0.5, note="it is\nshort " * 100)])
    text = "\n".join(plain(rollout_lines(shown)))
    assert "user  comparing the group\n  Which is best?" in text
    assert "assistant  judge, comparing the group\n  the first" in text
    assert "weight 1: it is short it is short" in text and len(max(text.splitlines(), key=len)) < 250
