"""Tasks: from lists, generators, JSON lines and data sets; named by their content; refused with the line at fault."""

import itertools
import json

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ludus
from ludus.authoring.tasks import from_dataset, from_jsonl, from_row, take
from ludus.errors import ConfigError, UnknownName
from ludus.types import Task

FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.text(), JSON, st.dictionaries(st.text(), JSON, max_size=3))
@settings(max_examples=50, deadline=None)
def test_a_task_survives_json(prompt, answer, info):
    task = Task(prompt=prompt, answer=answer, info=info)
    assert msgspec.json.decode(msgspec.json.encode(task), type=Task) == task


def test_the_id_is_of_the_content():
    assert Task(prompt="a").id == Task(prompt="a").id
    assert (
        len(
            {
                Task(prompt="a").id,
                Task(prompt="b").id,
                Task(prompt="a", answer=1).id,
                Task(prompt="a", info={"x": 1}).id,
            }
        )
        == 4
    )
    named = Task(prompt="a", id="first")
    assert (named.id, named.content_key()) == ("first", Task(prompt="a").id)


def test_the_order_of_keys_is_no_content():
    assert Task(prompt="a", info={"x": 1, "y": 2}).id == Task(prompt="a", info={"y": 2, "x": 1}).id


def test_tasks_hold_json_only():
    for named in ({}, {"id": "named"}):
        for field, value in (
            ("answer", object()), ("answer", "\ud800"), ("info", {"hidden": np.int64(3)}), ("info", {"x": {1: 2}}),
            ("prompt", 5), ("prompt", ["a"]), ("id", 7),
        ):  # fmt: skip
            with pytest.raises(TypeError, match=f"a task holds JSON values only .* but its {field} does not: "):
                Task(**{"prompt": "a", **named, field: value})


def test_messages_are_fresh_each_time():
    task = Task(prompt=[{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])
    task.messages()[0]["content"] = "changed"
    assert task.messages()[0]["content"] == "s"
    assert Task(prompt="u").messages() == [{"role": "user", "content": "u"}]


# --- what `tasks` may return --------------------------------------------------------------------------------------


class Given(ludus.Environment):
    def __init__(self, kind: str) -> None:
        self.kind = kind

    def tasks(self, split):
        if self.kind == "list":
            return [Task(prompt=f"{split} {i}") for i in range(4)]
        if self.kind == "endless":
            return (Task(prompt=f"{split} {i}") for i in itertools.count())
        return {
            "none": [], "texts": ["a"],
            "repeats": (Task(prompt=f"{i % 3}") for i in itertools.count()),
            "clash": [Task(prompt="a", id="x"), Task(prompt="b", id="x")],
        }[self.kind]  # fmt: skip


def test_lists_and_endless_generators():
    assert [task.prompt for task in take(Given("list"), "train")] == [f"train {i}" for i in range(4)]
    assert [task.prompt for task in take(Given("endless"), "test", 2)] == ["test 0", "test 1"]
    assert len(take(Given("list"), "train", 100)) == 4


def test_a_task_that_comes_again_counts_once():
    assert [task.prompt for task in take(Given("repeats"), "train", 3)] == ["0", "1", "2"]
    assert len(take(Given("repeats"), "train", 10)) == 3
    with pytest.raises(ConfigError, match="two different tasks of 'train' have the id 'x'"):
        take(Given("clash"), "train")


def test_what_is_no_task_is_refused():
    with pytest.raises(ConfigError, match="Given has no tasks in the split 'train'"):
        take(Given("none"), "train")
    with pytest.raises(ConfigError, match=r"tasks\('train'\) gave a str, expected ludus.Task"):
        take(Given("texts"), "train")
    with pytest.raises(UnknownName, match="unknown split of Given 'tset'; did you mean 'test'"):
        take(Given("list"), "tset")


# --- files and data sets ------------------------------------------------------------------------------------------


def test_json_lines(tmp_path):
    path = tmp_path / "tasks.jsonl"
    rows = [
        {"prompt": "2 + 2?", "answer": 4, "id": 7, "level": "easy"},
        {"question": "3?", "info": {"a": 1}, "source": "s"},
        {"prompt": [{"role": "user", "content": "hi"}], "answer": None},
    ]
    path.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n")
    first, second, third = from_jsonl(path)
    assert (first.prompt, first.answer, first.id, first.info) == ("2 + 2?", 4, "7", {"level": "easy"})
    assert (second.prompt, second.info) == ("3?", {"a": 1, "source": "s"})
    assert third.messages() == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"prompt": "a"', "line 2: expected a JSON object with a prompt"),
        ("[1]", "line 2: expected a JSON object with a prompt"),
        ('{"answer": 1}', r"no prompt among \['answer'\]"),
    ],
)
def test_json_lines_at_fault_are_named(tmp_path, line, says):
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"prompt": "fine"}\n' + line + "\n")
    with pytest.raises(ConfigError, match=says):
        list(from_jsonl(path))


def test_rows_with_other_fields():
    rows = [{"q": "a", "a": 1}]
    assert list(from_dataset(rows, lambda row: Task(prompt=row["q"], answer=row["a"]))) == [Task(prompt="a", answer=1)]
    assert from_row({"prompt": "a", "answer": 0}).answer == 0


@pytest.mark.slow
def test_hugging_face_data_sets():
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{"question": "1 + 1?", "answer": "2", "level": 1}])
    assert list(from_dataset(rows)) == [Task(prompt="1 + 1?", answer="2", info={"level": 1})]


def test_tasks_that_are_slow_to_make_are_no_more_than_needed():
    class Slow(ludus.Environment):
        def tasks(self, split):
            return (Task(prompt=str(number)) for number in range(100))

    assert len(take(Slow(), "train", 50, least=3, seconds=-1)) == 3
    assert len(take(Slow(), "train", 50, least=3, seconds=3600)) == 50
