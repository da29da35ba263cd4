"""One question to a judge: read strictly, asked again, limited in time and number, and never a score where it fails."""

import asyncio
import json

import msgspec
import pytest
from courtroom import SaysModel, mark
from hypothesis import given
from hypothesis import strategies as st

from ludus.asking import Unusable, read_object
from ludus.errors import ConfigError, ModelCallFailed, ScorerFailed
from ludus.judging.judge import Judge, judging, side_by_side

OPENING = judging("abc", "Well?")


class Verdict(msgspec.Struct):
    mark: int
    reason: str = ""


@pytest.mark.parametrize(
    "text",
    [
        '{"mark": 1}',
        '{"mark": 1, "mark": 1}',
        'Well.\n```json\n{"mark": 1}\n```',
        '{x} is {"mark": 1} and again {"mark": 1}',
        '{"a": {"b": {"mark": 0}}} {"mark": 1}',
        '<think>Perhaps {"mark": 0}? No.</think>\n{"mark": 1}',
    ],
)
def test_a_verdict_is_found_whatever_stands_around_it(text):
    assert read_object(text, Verdict).mark == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON object"),
        ("I refuse.", "no JSON object"),
        ('{"mark": "1"}', "Expected `int`"),
        ('{"mark": 1} or {"mark": 0}', "contradict"),
        ('{"mark": 1', "no JSON object"),
        ("[1]", "no JSON object"),
        ('{"a":' * 5000, "no JSON object"),
        ("{" * 5000, "no JSON object"),
        ('{"mark": NaN}', "Expected `int`"),
        ('{"mark": 1, "reason": "\\ud800"}', "no JSON object"),
        ('{"mark": 1, "mark": 0}', "two different things of 'mark'"),
        ('{"mark": 1, "reason": "' + "x" * 1_000_000 + '"}', "of which at most 1,000,000 are read"),
    ],
)
def test_what_is_no_verdict_says_why(text, why):
    with pytest.raises(Unusable, match=why):
        read_object(text, Verdict)


@given(st.text())
def test_any_text_is_a_verdict_or_none(text):
    try:
        assert isinstance(read_object(text, Verdict), Verdict)
    except Unusable as error:
        assert str(error)


async def test_a_judge_that_gives_no_verdict_is_told_why_and_asked_again():
    model = SaysModel(lambda messages: mark(1) if len(messages) > 2 else "Good work!")
    assert (await Judge().ask(model, OPENING, Verdict)).mark == 1
    first, second = model.asked
    assert [m["role"] for m in first] == ["system", "user"]
    assert second[:2] == first and second[2]["content"] == "Good work!"
    assert "no JSON object" in second[3]["content"]


async def test_a_judge_that_never_gives_one_is_infrastructures_fault():
    model = SaysModel("no")
    with pytest.raises(
        ScorerFailed, match=r"no verdict 3 times: there is no JSON object in it; it said 'no'"
    ) as caught:
        await Judge().ask(model, OPENING, Verdict)
    assert (caught.value.boundary, caught.value.blame) == ("scorer", "infrastructure")
    assert len(model.asked) == 3


async def test_a_judge_that_is_asked_again_and_again_until_its_time_is_up_says_why():
    class IsDown:
        async def chat(self, messages, **sampling):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                error.add_note("the model did not answer: Connection error.")
                raise

    with pytest.raises(ScorerFailed, match=r"within 0\.01 s: the model did not answer: Connection error\."):
        await Judge(timeout_s=0.01).ask(IsDown(), OPENING, Verdict)


async def test_a_judge_that_is_slow_is_given_up():
    class Hangs:
        async def chat(self, messages, **sampling):
            await asyncio.Event().wait()

    with pytest.raises(ScorerFailed, match=r"no verdict within 0\.01 s") as caught:
        await Judge(timeout_s=0.01).ask(Hangs(), OPENING, Verdict)
    assert caught.value.blame == "infrastructure"


async def test_a_judge_that_is_down_says_so_itself():
    def down(messages):
        raise ModelCallFailed("connection refused")

    with pytest.raises(ScorerFailed, match="the judge did not answer: connection refused") as caught:
        await Judge().ask(SaysModel(down), OPENING, Verdict)
    assert caught.value.blame == "infrastructure"


async def test_only_so_many_questions_are_asked_at_once():
    class Counts:
        now = most = 0

        async def chat(self, messages, **sampling):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.001)
            self.now -= 1
            return await SaysModel(mark(1)).chat(messages)

    model, judge = Counts(), Judge(concurrency=3)
    await asyncio.gather(*(judge.ask(model, OPENING, Verdict) for _ in range(20)))
    assert model.most == 3


def test_one_judge_serves_several_event_loops():
    judge = Judge(concurrency=1)

    async def many():
        return await asyncio.gather(*(judge.ask(SaysModel(mark(1)), OPENING, Verdict) for _ in range(5)))

    assert len(asyncio.run(many())) == len(asyncio.run(many())) == 5


async def test_the_judges_sampling_is_its_own():
    model = SaysModel(mark(1))
    await Judge(temperature=0.5, max_tokens=100).ask(model, OPENING, Verdict)
    assert model.sampling == [{"temperature": 0.5, "max_tokens": 100, "stop": (), "top_p": 1.0, "top_k": 0}]


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout_s": 0},
        {"timeout_s": "5"},
        {"tries": 0},
        {"tries": 1.5},
        {"concurrency": -1},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"max_tokens": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match=f"Judge: {next(iter(settings))}"):
        Judge(**settings)


async def test_the_first_that_raises_ends_the_others():
    ended = []

    async def waits():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    async def raises():
        await asyncio.sleep(0)
        raise ScorerFailed("no")

    with pytest.raises(ScorerFailed):
        await side_by_side([waits(), raises(), waits()])
    assert ended == [1, 1]


async def test_deep_json_is_no_verdict():
    model = SaysModel(json.dumps({"mark": 1, "extra": [[[[1]]]]}))
    assert (await Judge().ask(model, OPENING, Verdict)).mark == 1
