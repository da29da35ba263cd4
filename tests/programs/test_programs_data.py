"""Training data from rollouts: what is taken, what is left out and why, and that it is whole or not there."""

import asyncio
import json

import pytest

import ludus
from ludus.errors import ConfigError, UnknownName, UsageError
from ludus.programs.data import DataConfig, make_data
from ludus.programs.data.filters import Novelty, Sample, agreeing, ranked
from ludus.programs.data.read import read_examples
from ludus.programs.data.similar import Similar
from ludus.renderers.parsing import tool_calls_of
from ludus.testing.scripted import Scripted
from ludus.types import Reply, Task, calls_tool, user


class Sum(ludus.Environment):
    """A sum; the prompt of one training task is a test task's as well."""

    max_turns = 1

    def tasks(self, split):
        if split == "test":
            return [Task(prompt="What  is 1 + 1?", answer="2", id="held")]
        return [Task(prompt=f"What is {n} + {n}?", answer=str(2 * n)) for n in range(1, 11)]

    @ludus.reward
    def right(self, task, rollout):
        return float(rollout.reply.split()[-1:] == [task.answer])


def adds(messages):
    number = int(messages[-1]["content"].split()[2])
    return f"It is {2 * number if number % 2 else 0}"


def make(folder, env=None, say=adds, **config):
    return asyncio.run(make_data(env or Sum(), Scripted("m", say), DataConfig(**{"samples": 2, **config}), folder))


def read(folder):
    return [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]


def test_right_ones_are_taken_once_a_task_and_never_a_held_out_one(tmp_path):
    made = make(tmp_path / "d")
    rows = read(tmp_path / "d")
    assert made.num_examples == len(rows) == 4 and made.mean_reward == 1.0  # of 3, 5, 7 and 9
    assert made.left_out == {"held out": 2, "reward": 10, "worse sample": 4}
    assert rows[0]["messages"] == [user("What is 3 + 3?"), {"role": "assistant", "content": "It is 6"}]
    assert rows[0].keys() == {"messages", "task", "reward", "rollout"} and "tools" not in rows[0]
    card = (tmp_path / "d" / "README.md").read_text()
    assert "4 of 20 rollouts" in card and "its prompt is a task of the held-out split" in card


@pytest.mark.slow
def test_it_can_be_read_as_chat_data(tmp_path):
    datasets = pytest.importorskip("datasets")
    make(tmp_path / "d")
    data = datasets.load_dataset("json", data_files=str(tmp_path / "d" / "data.jsonl"), cache_dir=str(tmp_path))[
        "train"
    ]
    assert data[0]["messages"][-1]["role"] == "assistant"


def test_tools_come_along(tmp_path):
    class Tooled(Sum):
        @ludus.tool
        def add(self, a: int, b: int) -> int:
            """Add."""
            return a + b

    make(tmp_path / "d", Tooled())
    assert read(tmp_path / "d")[0]["tools"][0]["function"]["name"] == "add"


def test_the_same_command_goes_on_and_filters_anew(tmp_path):
    asked = []
    say = lambda messages: asked.append(1) or adds(messages)  # noqa: E731
    make(tmp_path / "d", say=say)
    before = len(asked)
    made = make(tmp_path / "d", say=say, per_task=2)
    assert len(asked) == before and made.left_out["duplicate"] == 4


def test_the_same_rollouts_make_the_same_file_whenever_each_was_played(tmp_path):
    class Late(Scripted):
        async def complete(self, messages, tools, sampling):
            await asyncio.sleep(0.02 * (sampling.seed % 3 == self.late))
            return await super().complete(messages, tools, sampling)

    def made(name, late, num_tasks):
        model = Late("m", adds)
        model.late = late
        config = DataConfig(samples=2, num_tasks=num_tasks, min_novelty=0.3)
        found = asyncio.run(make_data(Sum(), model, config, tmp_path / name))
        return found.num_rollouts, (tmp_path / name / "data.jsonl").read_bytes()

    whole = made("whole", 0, 10)
    few = made("interrupted", 1, 4)
    assert made("interrupted", 2, 10) == whole and made("interrupted", 2, 4) == few and few[0] == 8


def test_nothing_is_written_where_nothing_can_be_taken(tmp_path):
    with pytest.raises(UsageError, match=r"none of 20 rollouts can be taken .*reward is below"):
        make(tmp_path / "d", say=lambda messages: "no")
    assert not (tmp_path / "d" / "data.jsonl").exists() and not list((tmp_path / "d").glob(".*.tmp"))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"min_agreement": 2}, ConfigError, "between 0 and 1"),
        ({"min_novelty": float("nan")}, ConfigError, "between 0 and 1"),
        ({"samples": 1, "min_agreement": 0.5}, ConfigError, "at least 2 samples"),
        ({"per_task": 0}, ConfigError, "at least 1"),
        ({"split": "trian"}, UnknownName, "did you mean 'train'"),
    ],
)
def test_what_can_not_be(options, error, said, tmp_path):
    with pytest.raises(error, match=said):
        make(tmp_path / "d", **options)
    assert not (tmp_path / "d").exists()


def test_agreement_is_among_the_samples_of_a_task():
    answers = [("t", "a"), ("t", "a"), ("t", "b"), ("u", "b")]
    samples = [Sample(str(i), task, 1.0, 5, answer) for i, (task, answer) in enumerate(answers)]
    found = agreeing([*samples, Sample("5", "t", 0.0, 5, "c", "failed")])
    assert [sample.agreement for sample in found] == [2 / 3, 2 / 3, 1 / 3, 1.0, 0.0]
    chosen, left_out = ranked(found, 0.5, per_task=1)
    assert [sample.rollout for sample in chosen] == ["0", "3"]
    assert left_out == {"agreement": 1, "failed": 1, "worse sample": 1}


def test_an_answer_may_be_the_call_of_a_tool(tmp_path):
    class Handed(Sum):
        """The answer is handed in; odd samples hand in another one."""

        @ludus.tool
        def hand_in(self, answer: str, state) -> str:
            """Hand in the answer."""
            state["said"] = answer
            return "Thank you."

        def setup(self, ctx):
            ctx.state = {}

        @ludus.reward
        def right(self, state):
            return 1.0

    class Hands(Scripted):
        async def complete(self, messages, tools, sampling):
            message = calls_tool("hand_in", answer=str(sampling.seed % 2))
            return Reply(message, tool_calls_of(message), "tool_calls")

    config = DataConfig(samples=8, min_agreement=0.6)
    made = asyncio.run(make_data(Handed(), Hands("m", adds), config, tmp_path / "d"))
    assert made.left_out.get("agreement", 0) > 10


def test_the_best_sample_has_most_reward_then_agreement_then_is_short():
    samples = [
        Sample("long", "t", 1.0, 9, "a"), Sample("short", "t", 1.0, 5, "a"),
        Sample("alone", "t", 1.0, 1, "b"), Sample("poor", "t", 0.5, 1, "a"),
    ]  # fmt: skip
    chosen, _ = ranked(agreeing(samples), 0.0, per_task=4)
    assert [sample.rollout for sample in chosen] == ["short", "long", "alone", "poor"]


def test_what_was_made_is_read_again(tmp_path):
    made = make(tmp_path / "d")
    found = read_examples(tmp_path / "d" / "data.jsonl")
    assert len(found) == made.num_examples and found[0].messages[-1]["content"] == "It is 6" and found[0].tools is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no conversation"),
        ('{"messages": []}', "line 1: .*one of them the assistant's; the roles are"),
        ('\n{"messages": [{"role": "user", "content": "x"}]}', r"line 2: .*the roles are \['user'\]"),
        ('{"messages": [{"content": "x"}]}', "the roles are"),
        ('{"messages": [', "line 1: expected"),
        ('{"text": "x"}', "missing required field"),
        ('{"messages": "x"}', "got `str`"),
    ],
)
def test_a_file_that_holds_no_conversations(tmp_path, text, said):
    (tmp_path / "data.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_examples(tmp_path / "data.jsonl")
    with pytest.raises(ConfigError, match="can't read the data"):
        read_examples(tmp_path / "other.jsonl")


def test_near_duplicates_are_found_and_others_never_dropped():
    words = [f"w{n}" for n in range(60)]
    seen = Similar()
    seen.add(" ".join(words))
    assert seen.nearest(" ".join(words[:-2])) > 0.9 and seen.nearest(" ".join(reversed(words))) == 0.0
    assert seen.nearest("") == 0.0
    novelty = Novelty(0.2)
    talk = lambda text: [user("q"), {"role": "assistant", "content": text}]  # noqa: E731
    assert novelty.fault(talk(" ".join(words))) == ""
    assert novelty.fault(talk(" ".join(words).upper())) == "duplicate"
    assert novelty.fault(talk(" ".join(words[:-2]))) == "novelty"
    assert novelty.fault(talk(" ".join(words[30:]))) == ""
