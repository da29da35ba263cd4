"""Properties of what is generated to be searched, over many inboxes, and what it can be asked."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from players import Calls, play

from ludus.authoring.tasks import take
from ludus.environments.search import EmailSearch, WikiSearch
from ludus.environments.search.inbox import Inbox
from ludus.environments.search.names import WORDS, Names, is_trained
from ludus.environments.search.wording import read_wording
from ludus.types import calls_tool


@settings(max_examples=8, deadline=None)
@given(
    number=st.integers(0, 50), split=st.sampled_from(["train", "test"]), terse=st.booleans(),
    unanswerable=st.sampled_from([0.1, 0.5]),
)  # fmt: skip
@pytest.mark.slow
def test_a_question_is_answered_by_its_own_mails_and_by_no_other(number, split, terse, unanswerable):
    wording = read_wording(terse)
    inbox = Inbox(split, number, 60 if terse else 120, unanswerable, 0.5, wording)
    words, mails = wording.of(split), inbox.mails()
    assert [mail.body for mail in Inbox(split, number, inbox.num_mails, unanswerable, 0.5, wording).mails()] == [
        mail.body for mail in mails
    ]
    for question in inbox.questions:
        for hop in question.hops:
            fact = hop.fact
            says = [*words.statements[fact.kind], *words.updates[fact.kind]]
            filled = [template.format(entity=fact.entity, attribute=fact.attribute, value="VALUE") for template in says]
            parts = "|".join(re.escape(text).replace("VALUE", r"[^.:?!\n]+") for text in filled)
            telling = [mail for mail in mails if re.search(rf"(?<!\w)(?:{parts})(?!\w)", mail.body)]
            assert {mail.message_id for mail in telling} == {notice.message_id for notice in fact.stated}
            dates = [notice.date for notice in fact.notices]
            assert dates == sorted(set(dates)) and f"{dates[-1]:%Y-%m-%d}" <= question.today


@pytest.mark.slow
def test_all_names_of_a_split_can_be_drawn():
    held_out = [f"{a} {b}" for a in WORDS for b in WORDS if not is_trained(f"{a} {b}")]
    names = Names(random.Random(0), "test", plain=True)
    assert sorted(names.draw() for _ in held_out) == sorted(held_out)
    with pytest.raises(ValueError, match="so many names"):
        names.draw()


@pytest.mark.slow
def test_the_largest_of_each_kind_can_be_made():
    for number in range(3):
        assert len(WikiSearch(pages=400, terse=True).book("test", number).things) == 400
        EmailSearch(mails=1000, terse=True).inbox("test", number)
    assert len(WikiSearch(pages=5000).book("test", 0).things) == 5000
    for build in (lambda: WikiSearch(pages=10_001), lambda: EmailSearch(mails=10**7)):
        with pytest.raises(ValueError, match="must be from"):
            build()


async def test_only_the_answer_that_was_carried_out_counts():
    env = EmailSearch(mails=300, inboxes=2)
    tasks = take(env, "test", 50)
    place = next(n for n, task in enumerate(tasks) if task.info["gold"])
    task = tasks[place]
    wrong, right = (
        calls_tool("return_final_answer", answer=text, sources=task.info["gold"])["tool_calls"][0]
        for text in ("Nobody Atall", task.answer)
    )
    both = {"role": "assistant", "content": "", "tool_calls": [{**wrong, "id": "a"}, {**right, "id": "b"}]}
    rollout = (await play(env, Calls(both), num=place + 1))[-1]
    assert rollout.stop == "answered" and rollout.metrics["right"] == 0 and rollout.reward < 0


async def test_brevity_is_for_sources_that_are_named():
    env = EmailSearch(mails=300, inboxes=2)
    tasks = take(env, "test", 50)
    for gold in (True, False):
        place = next(n for n, task in enumerate(tasks) if bool(task.info["gold"]) == gold)
        said = calls_tool("return_final_answer", answer=tasks[place].answer, sources=[])
        rollout = (await play(env, Calls(said), num=place + 1))[-1]
        assert rollout.reward == pytest.approx(1 + (0 if gold else 0.3 + 0.1) + 0.1 * (1 - 1 / 10))


@pytest.mark.parametrize(
    ("env", "asked"),
    [
        (EmailSearch(mails=60, inboxes=1), calls_tool("search_emails", keywords=["*", '"'])),
        (EmailSearch(mails=60, inboxes=1), calls_tool("search_emails", keywords=[])),
        (WikiSearch(pages=20, encyclopedias=1), calls_tool("search_pages", query="?!")),
    ],
)  # fmt: skip
async def test_a_search_for_nothing_is_told_so(env, asked):
    (rollout,) = await play(env, Calls(asked))
    told = next(message["content"] for message in rollout.messages if message["role"] == "tool")
    assert "a letter or a digit" in told and rollout.failure is None
