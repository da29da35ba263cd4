"""Labels: given in a terminal, read from a product's signals, kept beside the run, and what they are good for."""

import json
import threading
from pathlib import Path

import pytest

from ludus.authoring.labels import Label, newest, read_signal, signal_of
from ludus.errors import LudusError, RunFolderError, UsageError
from ludus.judging import Rubric
from ludus.programs.labelling import criteria, labelled, rewards, to_label
from ludus.store import RunFolder
from ludus.store.labels import add_labels, read_labels


def test_a_person_labels_until_they_quit_and_goes_on_later(ludus, evaluated):
    said = ludus("label", evaluated, "--by", "anna", input="g\nclear\nwhat?\nb\ntoo long\ns\nq\n")
    assert (
        "1 good, 1 bad" in said.stdout
        and "50%  Has: clear" in said.stdout
        and "expected one of good, bad" in said.stderr
    )
    labels = read_labels(evaluated)
    assert [(one.verdict, one.why, one.by) for one in labels] == [
        ("good", "clear", "anna"),
        ("bad", "too long", "anna"),
    ]
    assert {one.rollout for one in labels}.isdisjoint(to_label(evaluated)) and len(to_label(evaluated)) == 4
    assert len(to_label(evaluated, again=True)) == 6
    ludus("label", evaluated, "-n", 1, input="good\n\n")
    assert len(read_labels(evaluated)) == 3
    assert "2 good, 1 bad" in ludus("label", evaluated, "--list").stdout


def test_rewards_are_not_shown_and_do_not_show_through_the_order(ludus, evaluated):
    said = ludus("label", evaluated, input="")
    assert "reward" not in said.output and "guess the" not in said.stdout
    assert to_label(evaluated, seed=1) != to_label(evaluated, seed=2)
    assert to_label(evaluated, seed=1) == to_label(evaluated, seed=1)


def test_labels_serve_as_truth_rewards_and_criteria(ludus, evaluated):
    ludus("label", evaluated, "-n", 2, input="g\n\nb\nrude\n")
    found = list(labelled(evaluated))
    assert [label.verdict for _, label in found] == ["good", "bad"]
    assert all(rollout.id == label.rollout and rollout.task.id == label.task for rollout, label in found)
    assert sorted(rewards(evaluated).values()) == [0.0, 1.0]
    said = json.loads(ludus("label", evaluated, "--list", "--json").stdout)
    assert (said["good"], said["bad"]) == (1, 1) and said["criteria"] == [
        {"name": "bad_1", "text": "Avoids: rude", "weight": 1.0}
    ]


def test_what_is_labelled_can_be_written_for_tests_of_judges(ludus, evaluated):
    assert "no labels yet" in ludus("label", evaluated, "--export", "truth.jsonl", code=2).stderr
    ludus("label", evaluated, "-n", 2, input="g\n\nb\nrude\n")
    ludus("label", evaluated, "--export", "truth.jsonl")
    rows = [json.loads(line) for line in Path("truth.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == ["good", "bad"] and rows[1]["why"] == "rude"
    assert all(row["prompt"][0]["role"] == "user" and row["messages"][0]["role"] == "assistant" for row in rows)
    assert "can't write" in ludus("label", evaluated, "--export", "no/truth.jsonl", code=1).stderr
    Path("folder").mkdir()
    assert "can't write folder" in ludus("label", evaluated, "--export", "folder", code=1).stderr


def test_an_export_never_replaces_what_the_run_knows(ludus, evaluated):
    ludus("label", evaluated, "-n", 2, input="g\n\nb\nrude\n")
    for path in (f"{evaluated}/labels.jsonl", f"{evaluated}/../{Path(evaluated).name}/config.toml"):
        assert "the run's own folder" in ludus("label", evaluated, "--export", path, code=2).stderr
    assert len(read_labels(evaluated)) == 2


def test_signals_of_a_product_are_read_all_or_none(ludus, evaluated):
    ids = to_label(evaluated)
    rows = [{"rollout": ids[0], "accepted": True}, {"id": ids[1], "feedback": "thumbs_down", "comment": "wrong"}]
    Path("signals.jsonl").write_text("\ufeff" + "\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert "1 good, 1 bad" in ludus("label", evaluated, "--signals", "signals.jsonl").stdout
    assert len(to_label(evaluated)) == 6, "a person may still label what a product has signalled"
    for bad, word in ((f"{json.dumps(rows[0])}\nno", "line 2"), ("", "holds no signals"),
                      ('{"rollout": "x", "accepted": true}', "unknown rollout"),
                      (json.dumps({"rollout": ids[0], "accepted": "maybe"}), "good or bad")):  # fmt: skip
        Path("bad.jsonl").write_text(bad)
        assert word in ludus("label", evaluated, "--signals", "bad.jsonl", code=2).stderr
    assert "can't read" in ludus("label", evaluated, "--signals", "none.jsonl", code=2).stderr
    assert len(read_labels(evaluated)) == 2


def test_what_can_not_be_labelled_is_refused(ludus, evaluated):
    assert "does not exist" in ludus("label", "nowhere", code=1).stderr
    assert "unknown purpose" in ludus("label", evaluated, "--purpose", "trian", code=2).stderr
    RunFolder.create(Path("empty")).close()
    assert "no rollouts to label" in ludus("label", "empty", code=2).stderr
    assert "give one of them" in ludus("label", evaluated, "--list", "--signals", "x", code=2).stderr


# --- the file -----------------------------------------------------------------------------------------------------


def label(rollout, verdict="good", **more):
    return Label(rollout=rollout, verdict=verdict, **more)


def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path):
    add_labels(tmp_path, [label("a")])
    with (tmp_path / "labels.jsonl").open("ab") as file:
        file.write(b'{"rollout": "b", "ver')
    assert [one.rollout for one in read_labels(tmp_path)] == ["a"]
    add_labels(tmp_path, [label("c")])
    assert [one.rollout for one in read_labels(tmp_path)] == ["a", "c"]
    (tmp_path / "labels.jsonl").write_text('{"rollout": "b"}\n')
    with pytest.raises(RunFolderError, match="line 1 is damaged"):
        read_labels(tmp_path)


def test_many_label_at_once(tmp_path):
    people = [
        threading.Thread(target=lambda n=n: [add_labels(tmp_path, [label(f"{n}-{i}")]) for i in range(20)])
        for n in range(8)
    ]  # fmt: skip
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert len({one.rollout for one in read_labels(tmp_path)}) == 160


def test_a_run_that_is_written_over_loses_its_labels(tmp_path):
    RunFolder.create(tmp_path / "run").close()
    add_labels(tmp_path / "run", [label("a")])
    RunFolder.create(tmp_path / "run", overwrite=True).close()
    assert read_labels(tmp_path / "run") == []


# --- what they say ------------------------------------------------------------------------------------------------


def test_the_last_word_counts_and_a_persons_outweighs_a_signal():
    said = [
        label("a", "good"),
        label("a", "bad", source="signal"),
        label("b", "bad", source="signal"),
        label("b"),
        label("a", "bad"),
    ]
    assert {name: one.verdict for name, one in newest(said).items()} == {"a": "bad", "b": "good"}


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        ({"accepted": True}, "good"), ({"accepted": False}, "bad"), ({"feedback": "Thumbs Up"}, "good"),
        ({"rating": -1}, "bad"),
        ({"feedback": {"value": "reject"}}, "bad"), ({"feedback": {"type": "like", "text": "x"}}, "good"),
        ({"rating": 4}, None),
        ({"label": "cat"}, None), ({}, None), ({"accepted": None, "feedback": "down"}, "bad"), ({"rating": 1.0}, None),
    ],
)  # fmt: skip
def test_signals_in_many_words(row, verdict):
    assert signal_of(row) == verdict


def test_a_signal_that_is_none_says_what_was_expected():
    with pytest.raises(UsageError, match="expected a rollout and a verdict"):
        read_signal({"rollout": 3, "accepted": True})
    assert issubclass(UsageError, LudusError)


def test_reasons_are_counted_however_they_are_written():
    found = criteria(
        [label("a", "bad", why="Too long."), label("b", "bad", why=" too  LONG"), label("c", why="kind"), label("d")]
    )
    assert [(one.text, round(one.weight, 2)) for one in found] == [("Avoids: too long", 0.67), ("Has: kind", 0.33)]


JUDGED = '''
import ludus
from ludus.environments.guess import Guess
from ludus.judging import Rubric

class Judged(Guess):
    """Guess, judged by what people said of it."""
    roles = ("policy", "judge")
    rubric = Rubric.load("rubric.json")
    @ludus.reward
    async def liked(self, rollout, models):
        return await self.rubric(rollout, models["judge"])
'''


def test_labels_test_a_judge_whose_rubric_they_are(ludus, evaluated, monkeypatch):
    assert "no label with a reason yet" in ludus("label", evaluated, "--rubric", "rubric.json", code=2).stderr
    check = (
        "judge",
        "check",
        "judged.py",
        "--model",
        "demonstrator",
        "--run",
        evaluated,
        "--truth",
        "labels",
        "--json",
    )
    ludus("label", evaluated, "-n", 4, input="g\nfast\nb\n\nb\nslow\ng\nfast\n")
    ludus("label", evaluated, "--rubric", "rubric.json")
    rubric = Rubric.load("rubric.json")
    assert [(one.text, one.weight) for one in rubric.criteria] == [("Has: fast", 2 / 3), ("Avoids: slow", 1 / 3)]
    assert list(rubric.criteria) == criteria(read_labels(evaluated))
    Path("judged.py").write_text(JUDGED)
    liked = {rollout.id for rollout, label in labelled(evaluated) if label.verdict == "good"}
    assert len(liked) == 2
    from ludus.programs.judging import check_judge, from_people
    from ludus.testing.scripted import Scripted

    answers = from_people(evaluated)
    assert [answer.good for answer in answers] == [True, False, False, True]
    assert [answer.truth for answer in from_people(evaluated, 3)] == [1.0, 0.0, 0.0]
    talks = [answer.rollout.reply for answer in answers if answer.good]
    judge = Scripted("judge", lambda messages: json.dumps({"mark": int(messages[1]["content"].count(talks[0]) > 0)}))
    found = check_judge("judged.py", judge, answers)
    assert found.num == 4 and found.num_good == 2
    failed = ludus(*check, code=1)  # an expert is no judge: no verdict, and that is said
    assert json.loads(failed.stdout)["num_failed"] == 4 and "gave no verdict on any of 4" in failed.stderr


def test_a_run_without_labels_is_no_truth(ludus, evaluated):
    Path("rubric.json").write_text('{"criteria": [{"name": "a", "text": "b"}]}')
    Path("judged.py").write_text(JUDGED)
    check = ("judge", "check", "judged.py", "--model", "demonstrator", "--run", evaluated, "--truth", "labels")
    assert "has no labels yet: ludus label" in ludus(*check, code=2).stderr


def test_data_takes_what_people_found_good_and_leaves_out_the_bad(ludus):
    make = ("data", "make", "guess", "--model", "demonstrator", "-n", 4, "-k", 1, "--min-reward", 2, "--out", "made")
    assert "none of 4 rollouts can be taken" in ludus(*make, code=2).stderr
    ludus("label", "made", "-n", 2, input="g\n\nb\n\n")
    made = json.loads(ludus(*make, "--json").stdout)
    assert made["num_examples"] == 1 and made["left_out"] == {"label": 1, "reward": 2}
    (row,) = map(json.loads, Path("made/data.jsonl").read_text().splitlines())
    assert rewards("made")[row["rollout"]] == 1.0


def test_labels_are_rewards_of_a_rescoring(ludus, evaluated):
    ludus("label", evaluated, input="g\n\nb\n\n" * 3)
    Path("liked.py").write_text(
        "import ludus\nfrom ludus.environments.guess import Guess\nfrom ludus.programs.labelling import rewards\n\n"
        f"LABELS = rewards({str(evaluated)!r})\n\n\nclass Liked(Guess):\n    @ludus.reward\n"
        "    def liked(self, rollout):\n        return LABELS[rollout.id]\n"
    )
    said = ludus("report", evaluated, "--rescore", "--env", "liked.py").stdout
    (row,) = [line.split() for line in said.splitlines() if line.startswith("reward ")]
    assert row[-3:-1] == ["1.000", "1.500"]


def test_a_verdict_counts_whose_reason_never_comes(ludus, evaluated):
    assert json.loads(ludus("label", evaluated, "--json", input="g\n").stdout)["good"] == 1
