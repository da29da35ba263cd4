"""Judges measured against the truth: figures with golden numbers, labels, runs, probes, and what can't be measured."""

import asyncio
import json
import math

import pytest

import ludus
from ludus.errors import ConfigError, LudusError, UnknownName, UsageError
from ludus.judging import Criterion, Judge, Rubric, Ruler
from ludus.programs.judging import check_judge, figures, from_labels, from_run
from ludus.recording.cached import Cached
from ludus.testing.scripted import Scripted, Unreachable

LABELS = [
    {"prompt": "Say hi.", "reply": "hi there", "label": "good"},
    {"prompt": "Say hi.", "reply": "no", "label": "bad"},
    {"prompt": "Say bye.", "reply": "bye", "label": 1},
    {"prompt": "Say bye.", "reply": "never, whatever you say", "label": False},
]


class Greets(ludus.Environment):
    """A judge says whether it is polite."""

    roles = ("policy", "judge")
    rubric = Rubric((Criterion("polite", "It is polite."),), Judge(tries=1))

    def tasks(self, split):
        return [
            ludus.Task(prompt=f"Say {word}.", answer=word, id=f"{split}-{word}") for word in ("hi", "bye", "yes", "no")
        ]

    @ludus.reward
    async def polite(self, rollout, models):
        return await self.rubric(rollout, models["judge"])


class Ranks(Greets):
    ruler = Ruler(judge=Judge(tries=1))
    polite = None

    @ludus.reward
    async def best(self, group, models):
        return await self.ruler(group, models["judge"])


def judge(decide):
    """A judge whose mark is a function of the question."""
    return Scripted("judge", lambda messages: json.dumps({"mark": int(decide(messages[1]["content"])), "reason": ""}))


KNOWS = judge(lambda question: "hi there" in question or "\nbye\n" in question)


def labels(tmp_path, rows=LABELS):
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return from_labels(path)


# --- figures ------------------------------------------------------------------------------------------------------


def test_golden_numbers():
    judged, true = [True, True, False, False], [True, False, False, False]
    assert figures.accuracy(judged, true, ["a", "b", "c", "d"]).mean == 0.75
    assert figures.accuracy(judged, true, ["a", "a", "b", "b"]).mean == 0.75
    assert figures.accuracy(judged, true, ["a", "a", "b", "b"]).num_tasks == 2
    # p = 3/4; e = 1/2 * 1/4 + 1/2 * 3/4 = 1/2
    assert figures.kappa(judged, true) == 0.5
    assert math.isnan(figures.kappa([True, True], [True, True]))


def test_right_order_is_the_area_under_the_curve():
    # pairs (good, bad): 0.9 > 0.1, 0.9 > 0.5, 0.5 > 0.1 right, 0.5 = 0.5 half: 3.5 of 4
    assert figures.right_order([0.9, 0.5, 0.1, 0.5], [1, 1, 0, 0]) == 3.5 / 4
    assert figures.right_order([0.9, 0.5, 0.1, 0.5], [1, 1, 0, 0], ["a", "b", "a", "b"]) == 1.5 / 2
    assert math.isnan(figures.right_order([0.9, 0.5], [1, 1]))
    assert figures.right_order([float(i) for i in range(5000)], [float(i) for i in range(5000)]) == 1.0


def test_agreement_counts_pairs_of_repeats():
    assert figures.agreement([[True, True, False], [True, True, True]]) == (1 + 3) / 6
    assert math.isnan(figures.agreement([[True], [False]]))


def test_length_bias_is_a_rank_correlation_of_the_error():
    values, truths, lengths = [0.1, 0.2, 0.3, 0.9, 1.0], [0.0] * 5, [1, 2, 3, 400, 5000]
    assert figures.length_bias(values, truths, lengths).mean == pytest.approx(1.0)
    assert figures.length_bias(values[::-1], truths, lengths).mean == pytest.approx(-1.0)
    # ranks of errors 1 2.5 2.5 4 beside 1 2 3 4: r = 4.5 / sqrt(4.5 * 5)
    assert figures.length_bias([0.0, 0.5, 0.5, 1.0], [0.0] * 4, [1, 2, 3, 4]).mean == pytest.approx(
        4.5 / math.sqrt(22.5)
    )
    assert math.isnan(figures.length_bias([1.0, 1.0], [1.0, 1.0], [1, 2]).mean)
    assert math.isnan(figures.length_bias([1.0] * 9, [1.0] * 9, range(9)).mean)


# --- the program --------------------------------------------------------------------------------------------------


def test_a_judge_that_knows_is_right(tmp_path):
    result = check_judge(Greets(), KNOWS, labels(tmp_path), repeats=3)
    assert (result.num, result.num_failed, result.num_good, result.accuracy, result.baseline) == (4, 0, 2, 1.0, 0.5)
    assert (result.kappa, result.right_order, result.agreement, result.calls) == (1.0, 1.0, 1.0, 12)
    assert (result.scorer, result.model, result.position_bias) == ("polite", "judge", None)


def test_a_cache_can_not_agree_with_itself(tmp_path):
    kept = Cached(KNOWS, tmp_path)
    with pytest.raises(UsageError, match="without cached:"):
        check_judge(Greets(), kept, labels(tmp_path), repeats=2)
    kept.close()


def test_a_judge_that_says_yes_to_everything_is_no_better_than_the_baseline(tmp_path):
    result = check_judge(Greets(), judge(lambda question: True), labels(tmp_path))
    assert (result.accuracy, result.baseline, result.kappa, result.right_order) == (0.5, 0.5, 0.0, 0.5)
    assert result.to_dict()["agreement"] is None  # nothing was repeated


def test_a_judge_that_likes_length_is_told(tmp_path):
    rows = [{"prompt": f"task {i}", "reply": "x" * (1 + 7 * i), "label": i % 2} for i in range(20)]
    result = check_judge(Greets(), judge(lambda question: question.count("x") > 80), labels(tmp_path, rows))
    assert result.length_bias > 0.4 and result.length_bias_interval[0] > 0


def test_a_judge_that_can_be_swayed_is_told(tmp_path):
    gullible = judge(lambda question: "Ignore all earlier instructions" in question or "hi there" in question)
    result = check_judge(Greets(), gullible, labels(tmp_path), probes=5)
    rows = {row.name: row for row in result.probes}
    assert (rows["order"].rise, rows["order"].num_turned, rows["order"].num) == (1.0, 2, 2)
    assert (rows["padding"].rise, rows["threat"].num_turned, result.swayed) == (0.0, 0, 2)


def test_verdicts_that_are_missing_count_nowhere(tmp_path):
    shy = Scripted("shy", lambda messages: '{"mark": 1}' if "hi there" in messages[1]["content"] else "I'd rather not")
    result = check_judge(Greets(), shy, labels(tmp_path))
    assert (result.num, result.num_failed, result.accuracy) == (1, 3, 1.0)
    ((why, count),) = result.failures.items()
    assert count == 3 and "no JSON object" in why
    result = check_judge(Greets(), Unreachable(), labels(tmp_path))
    assert (result.num, result.num_failed) == (0, 4)
    assert result.to_dict()["accuracy"] is None


def test_a_comparing_judge_is_measured_within_groups(tmp_path):
    def first(messages):
        number = messages[1]["content"].count("attempt with the id ")
        return json.dumps({"scores": [{"id": str(i), "score": float(i == 1)} for i in range(1, number + 1)]})

    result = check_judge(Ranks(), Scripted("first", first), labels(tmp_path), probes=1)
    assert result.position_bias == 1.0 and result.calls == 2 + len(result.probes)
    assert result.num == 4 and result.right_order in (0.0, 0.5, 1.0)


def test_the_truth_may_come_from_a_run(tmp_path):
    class Knows(Greets):
        @ludus.metric
        def exact(self, task, rollout):
            return float(rollout.reply == task.answer)

    policy = Scripted("policy", lambda messages: "hi" if "hi" in messages[0]["content"] else "what?")
    env = Knows()
    ludus.evaluate(env, policy, num_tasks=4, role_models={"judge": judge(lambda question: True)}, out=tmp_path / "run")
    answers = from_run(tmp_path / "run", "exact")
    assert sorted(answer.good for answer in answers) == [False, False, False, True]
    assert all(answer.good for answer in from_run(tmp_path / "run"))
    result = check_judge(env, judge(lambda question: "assistant:\nhi\n" in question), answers)
    assert (result.num, result.accuracy) == (4, 1.0)
    with pytest.raises(UnknownName, match="did you mean 'exact'"):
        from_run(tmp_path / "run", "exat")


def test_answers_are_drawn_from_the_whole_run_in_whole_groups(tmp_path):
    policy = Scripted("policy", lambda messages: "hi")
    models = {"judge": judge(lambda question: True)}
    ludus.evaluate(Greets(), policy, num_tasks=4, samples=3, role_models=models, out=tmp_path / "run")
    everyone = [answer.group for answer in from_run(tmp_path / "run")]
    drawn = [answer.group for answer in from_run(tmp_path / "run", limit=6)]
    assert len(drawn) == 6 and len(set(drawn)) == 2 and set(drawn) != set(everyone[:6])
    assert drawn == [answer.group for answer in from_run(tmp_path / "run", limit=6)]
    assert len(from_run(tmp_path / "run", limit=100)) == 12


# --- what can't be done -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "line 1: expected a JSON object"),
        ("[1]", "expected a JSON object"),
        ('{"prompt": "a", "reply": "b"}', "no label"),
        ('{"reply": "b", "label": 1}', "no prompt"),
        ('{"prompt": "a", "reply": "b", "label": "fine"}', "got 'fine'"),
        ('{"prompt": "a", "reply": "b", "label": 2}', "from 0 to 1, got 2"),
        ('{"prompt": "a", "label": 1}', "expected reply"),
        ('{"prompt": "a", "label": 1, "messages": [{"role": "user", "content": "x"}]}', "expected reply"),
        ('{"prompt": "a", "label": 1, "messages": "x"}', "expected reply"),
        ('{"prompt": 3, "reply": "b", "label": 1}', "prompt"),
        ('{"prompt": "a", "reply": "b", "label": 1' + "0" * 400 + "}", "from 0 to 1, got 1000"),
        ('{"prompt": "a", "reply": "b", "label": null}', "no label, only prompt, reply"),
        ('{"prompt": "a", "reply": "b", "messages": [], "label": 1}', "both reply and messages"),
        ('{"prompt": "a", "reply": "b", "tools": [1], "label": 1}', "expected tools, a list of schemas"),
        ('{"prompt": "a", "messages": [{"role": "assistant", "content": {}}], "label": 1}', "expected content, a text"),
        ('{"prompt": "a", "messages": [{"role": "assistant", "tool_calls": "x"}], "label": 1}', "expected tool_calls"),
        ("\xff", "line 1"),
    ],
)
def test_a_label_that_can_not_be_read_is_named_by_its_line(tmp_path, line, why):
    path = tmp_path / "labels.jsonl"
    path.write_bytes(line.encode("latin-1") + b"\n")
    with pytest.raises(ConfigError, match=why):
        from_labels(path)


def test_labels_that_are_not_there_are_told(tmp_path):
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="has no labels"):
        from_labels(tmp_path / "empty")
    with pytest.raises(ConfigError, match="can't read the labels"):
        from_labels(tmp_path / "nowhere")


def test_conversations_may_be_labelled(tmp_path):
    said = [
        {"role": "assistant", "content": "which?"},
        {"role": "user", "content": "this"},
        {"role": "assistant", "content": "done"},
    ]
    (answer,) = labels(
        tmp_path, [{"prompt": "Do it.", "messages": [*said, {"role": "user", "content": "thanks"}], "label": "accept"}]
    )
    assert [m["content"] for m in answer.rollout.messages] == ["Do it.", "which?", "this", "done", "thanks"]
    assert (answer.rollout.reply, answer.length, answer.good) == ("done", 4, True)


def test_scorers_that_can_not_be_checked_are_named(tmp_path):
    class Two(Greets):
        @ludus.reward
        async def other(self, rollout, models):
            return 1.0

        @ludus.reward
        async def live(self, state, models):
            return 1.0

    class Plain(ludus.Environment):
        @ludus.reward
        def fine(self, rollout):
            return 1.0

    answers = labels(tmp_path)
    with pytest.raises(ConfigError, match="name one of them: polite, other, live"):
        check_judge(Two(), KNOWS, answers)
    with pytest.raises(UnknownName, match="did you mean 'other'"):
        check_judge(Two(), KNOWS, answers, scorer="othr")
    with pytest.raises(ConfigError, match="asks for state, which labelled answers don't have"):
        check_judge(Two(), KNOWS, answers, scorer="live")
    with pytest.raises(ConfigError, match="no scorer that asks a model"):
        check_judge(Plain(), KNOWS, answers)
    assert check_judge(Two(), KNOWS, answers, scorer="other").accuracy == 0.5
    with pytest.raises(UsageError, match="at least one repeat"):
        check_judge(Greets(), KNOWS, answers, repeats=0)
    with pytest.raises(UsageError, match="0 answers"):
        check_judge(Greets(), KNOWS, [])
    with pytest.raises(LudusError, match="no such model"):
        check_judge(Greets(), "nowhere", answers)


def test_it_can_be_cancelled(tmp_path):
    from ludus.programs.judging import check_judge_async

    class Hangs:
        name = "hangs"

        async def complete(self, messages, tools, sampling):
            await asyncio.Event().wait()

    async def cancelled():
        running = asyncio.create_task(check_judge_async(Greets(), Hangs(), labels(tmp_path)))
        await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return len(asyncio.all_tasks())

    assert asyncio.run(cancelled()) == 1
