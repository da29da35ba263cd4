"""Comparing judges: by id, in range, in shuffled orders, what is common once; what RULER elsewhere gets wrong."""

import json

import pytest
from courtroom import SaysModel, attempts_of, ranks, rollout
from hypothesis import given
from hypothesis import strategies as st

from ludus.errors import ConfigError, ScorerFailed
from ludus.judging import Judge, Ruler
from ludus.judging.ruler import repeat_agreement
from ludus.types import calls_tool


def group_of(*replies, **fields):
    return [rollout(reply, number=number, **fields) for number, reply in enumerate(replies)]


def quality(text):
    """The number in a reply, as a share of ten."""
    return int(text.split()[-1]) / 10


def values(rewards_G):
    return [rewards[0].value for rewards in rewards_G]


# --- defects of the original --------------------------------------------------------------------------------------


async def test_scores_are_matched_by_id_not_by_position():
    def backwards(messages):
        verdict = json.loads(ranks(quality)(messages))
        return json.dumps({"scores": verdict["scores"][::-1]})

    group = group_of("1", "9", "5", "3")
    assert values(await Ruler()(group, SaysModel(backwards))) == [0.1, 0.9, 0.5, 0.3]
    assert values(await Ruler()(group, SaysModel(ranks(quality)))) == [0.1, 0.9, 0.5, 0.3]


@pytest.mark.parametrize("wrong", [7.0, -0.1, float("nan"), float("inf"), "0.5", None, True])
async def test_a_score_out_of_range_or_of_another_type_is_no_verdict(wrong):
    def say(messages):
        names = attempts_of(messages[1]["content"])
        return json.dumps({"scores": [{"id": name, "score": wrong if name == "1" else 0.5} for name in names]})

    with pytest.raises(ScorerFailed, match="no verdict") as caught:
        await Ruler()(group_of("1", "2"), SaysModel(say))
    assert caught.value.blame == "infrastructure"


@pytest.mark.parametrize("ids", [["1"], ["1", "1"], ["1", "2", "3"], ["1", "x"], [], ["2", "2"]])
async def test_every_id_is_scored_once(ids):
    say = json.dumps({"scores": [{"id": name, "score": 0.5} for name in ids]})
    with pytest.raises(ScorerFailed, match="ids 1, 2 once each"):
        await Ruler()(group_of("1", "2"), SaysModel(say))


async def test_ids_may_be_written_as_numbers():
    say = json.dumps({"scores": [{"id": 2, "score": 0.2}, {"id": 1, "score": 0.1}]})
    assert sorted(values(await Ruler()(group_of("1", "2"), SaysModel(say)))) == [0.1, 0.2]


async def test_a_malformed_verdict_is_asked_for_again():
    model = SaysModel(lambda messages: ranks(quality)(messages) if len(messages) > 2 else "The first is best.")
    assert values(await Ruler()(group_of("1", "2"), model)) == [0.1, 0.2]
    assert len(model.asked) == 2


async def test_the_order_does_not_depend_on_the_order_of_the_rollouts():
    group, asked = group_of("1", "2", "3", "4", "5"), []
    for those in (group, group[::-1]):
        model = SaysModel(ranks(quality))
        await Ruler()(those, model)
        asked.append(model.question)
    assert asked[0] == asked[1]  # and so is found in a cache
    orders = set()
    for seed in range(20):
        model = SaysModel(ranks(quality))
        await Ruler(seed=seed)(group, model)
        orders.add(tuple(quality(text) for text in attempts_of(model.question).values()))
    assert len(orders) > 10


async def test_places_are_no_merit_on_average():
    """A judge that likes the first place best sways single groups, and none on average."""
    firsts = []
    for number in range(300):
        model = SaysModel(
            lambda messages: json.dumps(
                {"scores": [{"id": n, "score": 1.0 if n == "1" else 0.0} for n in attempts_of(messages[1]["content"])]}
            )
        )
        scored = await Ruler()(group_of("a", "b", prompt=f"task {number}"), model)
        firsts.append(scored[0][0].value)
        assert scored[0][1].scorer == "/position_bias" and scored[0][1].value == 1.0
    assert 0.4 < sum(firsts) / len(firsts) < 0.6


async def test_repeats_reverse_the_order_and_average():
    def first_is_best(messages):
        names = list(attempts_of(messages[1]["content"]))
        return json.dumps({"scores": [{"id": n, "score": float(i == 0)} for i, n in enumerate(names)]})

    rewards = await Ruler(repeats=2)(group_of("1", "2"), SaysModel(first_is_best))
    assert values(rewards) == [0.5, 0.5]
    metrics = {reward.scorer: reward.value for reward in rewards[0][1:]}
    assert metrics == {"/position_bias": 1.0, "/repeat_agreement": 0.0}
    fair = await Ruler(repeats=4)(group_of("1", "2", "7"), SaysModel(ranks(quality)))
    metrics = {reward.scorer: reward.value for reward in fair[0][1:]}
    assert metrics == {"/position_bias": pytest.approx(0.0), "/repeat_agreement": 1.0}
    assert values(fair) == pytest.approx([0.1, 0.2, 0.7])


async def test_what_is_common_is_shown_once():
    said = [
        calls_tool("search", query="x"),
        {"role": "tool", "tool_call_id": "search", "name": "search", "content": "a long result"},
    ]
    model = SaysModel(ranks(quality))
    await Ruler()(group_of("1", "2", "3", prompt="The task.", said=said), model)
    assert model.question.count("The task.") == model.question.count("a long result") == 1
    assert all("a long result" not in text for text in attempts_of(model.question).values())


async def test_the_tools_of_every_attempt_are_shown():
    def tool(name):
        return {"type": "function", "function": {"name": name, "description": name, "parameters": {"type": "object"}}}

    one, two = (
        rollout("1", tools=[tool("both"), tool("mine")]),
        rollout("2", number=1, tools=[tool("both"), tool("yours")]),
    )
    model = SaysModel(ranks(quality))
    await Ruler()([one, two], model)
    shown = {quality(text): text for text in attempts_of(model.question).values()}
    assert '"mine"' in shown[0.1] and '"yours"' in shown[0.2] and '"both"' not in shown[0.1] + shown[0.2]
    assert model.question.count('{"name": "both"') == 1


async def test_attempts_that_say_the_same_are_shown_once_and_score_the_same():
    model = SaysModel(ranks(quality))
    assert values(await Ruler()(group_of("4", "7", "4", "4"), model)) == [0.4, 0.7, 0.4, 0.4]
    assert len(attempts_of(model.question)) == 2
    # ids of calls and reasoning are nothing that an attempt says
    calls = [
        {"role": "assistant", "content": "", "tool_calls": [{**calls_tool("s")["tool_calls"][0], "id": name}]}
        for name in "ab"
    ]
    model = SaysModel(ranks(quality))
    await Ruler()([rollout("4", said=[call]) for call in calls], model)
    assert len(attempts_of(model.question)) == 1


async def test_one_attempt_alone_is_judged():
    model = SaysModel(ranks(quality))
    rewards = await Ruler(repeats=2)(group_of("4"), model)
    assert [[(r.scorer, r.value) for r in own] for own in rewards] == [[("", 0.4)]]
    assert "one attempt" in model.question


async def test_one_attempt_may_be_where_another_begins():
    longer = rollout("2", said=[{"role": "assistant", "content": "1"}], number=1)
    model = SaysModel(lambda messages: json.dumps({"scores": [{"id": "1", "score": 0.0}, {"id": "2", "score": 1.0}]}))
    await Ruler()([rollout("1"), longer], model)
    assert "(nothing more)" in model.question


# --- beyond -------------------------------------------------------------------------------------------------------


async def test_why_is_kept_with_each_score():
    rewards = await Ruler()(group_of("1", "2"), SaysModel(ranks(quality)))
    assert {own[0].note for own in rewards} == {"as it is 1", "as it is 2"}


async def test_many_long_attempts_fit_in_one_question():
    model = SaysModel(
        lambda messages: json.dumps({"scores": [{"id": n, "score": 0.5} for n in attempts_of(messages[1]["content"])]})
    )
    await Ruler()(group_of(*("x" * 10**5 + f" {i}" for i in range(64))), model)
    assert len(model.question) < 400_000


@pytest.mark.parametrize("settings", [{"repeats": 0}, {"repeats": 1.5}, {"most_characters": 0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match=f"Ruler: {next(iter(settings))} must be a whole number above 0"):
        Ruler(**settings)


@given(st.lists(st.integers(0, 10), min_size=1, max_size=6), st.integers(1, 3))
def test_every_rollout_gets_its_own_score(numbers, repeats):
    import asyncio

    rewards = asyncio.run(
        Ruler(repeats=repeats, judge=Judge(tries=1))(group_of(*map(str, numbers)), SaysModel(ranks(quality)))
    )
    assert values(rewards) == pytest.approx([number / 10 for number in numbers])


def test_agreement_needs_something_to_compare():
    assert repeat_agreement([{"a": 1.0, "b": 0.0}]) is None
    assert repeat_agreement([{"a": 1.0}, {"a": 0.0}]) is None
    assert repeat_agreement([{"a": 1.0, "b": 0.0}] * 3) == 1.0
