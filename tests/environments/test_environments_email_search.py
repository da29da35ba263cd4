"""The mailbox: what a split holds, what tools answer, every term of the reward, and an expert that earns it."""

import json
import statistics
import time

import msgspec
import pytest
from players import Calls, Says, heard, play

from ludus.authoring.tasks import take
from ludus.environments.search.email_search import UNKNOWN, EmailSearch
from ludus.environments.search.inbox import Inbox
from ludus.environments.search.mailbox import Mail, Mailbox
from ludus.environments.search.wording import KINDS, read_wording
from ludus.recording.expert import Expert
from ludus.testing import check_environment
from ludus.types import calls_tool, content_hash

SMALL = {"mails": 300, "inboxes": 2}
TERSE = {"terse": True, "mails": 60, "inboxes": 20, "turns": 6}


@pytest.fixture(scope="module")
def whole():
    """An inbox of the default size."""
    return Inbox("train", 0, 5000, 0.1, 0.5, read_wording(False))


@pytest.fixture(scope="module")
def mails(whole):
    return whole.mails()


def answerable(env, split="test"):
    return next(task for task in take(env, split, 50) if task.info["gold"])


async def first_answerable(env, *said, model=None):
    """The rollout of the first answerable question, whatever comes before it."""
    tasks = take(env, "test", 50)
    place = next(n for n, task in enumerate(tasks) if task.info["gold"])
    return (await play(env, model or Calls(*said), num=place + 1))[-1]


# --- what there is ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_inbox_has_its_mails_in_order_each_id_once(whole, mails):
    assert len(mails) == 5000 and len({mail.message_id for mail in mails}) == 5000
    assert mails == sorted(mails, key=lambda mail: (mail.date, mail.message_id)) == whole.mails()
    assert all(whole.owner.address in (mail.sender, *mail.to, *mail.cc) for mail in mails)
    assert all(len(mail.body) > 100 for mail in mails)


def test_what_gets_in_the_way_is_there(whole):
    facts, people = whole.facts, whole.people
    assert sum(len(fact.stated) > 1 for fact in facts) > 0.4 * len(facts), "superseded values"
    assert sum(not fact.stated for fact in facts) == round(0.1 * len(facts)), "facts that nobody stated"
    assert any(not notice.value for fact in facts for notice in fact.notices), "talk without a value"
    assert len({person.first for person in people}) < 0.6 * len(people), "people of one first name"
    names = {fact.entity for fact in facts}
    assert any(a != b and a[:2] == b[:2] and len(a.split()) == 1 for a in names for b in names), "names almost alike"


def test_a_question_needs_the_last_mail_that_states_its_fact(whole, mails):
    text = {mail.message_id: mail for mail in mails}
    for question in whole.questions[:200]:
        for hop in question.hops:
            for notice in hop.fact.stated:
                assert notice.value in text[notice.message_id].body and hop.fact.entity in text[notice.message_id].body
                assert text[notice.message_id].date[:10] <= question.today


def test_multi_hop_questions_name_somebody_who_leads_one_project_only(whole):
    hopping = [question for question in whole.questions if len(question.hops) == 2]
    assert len(hopping) > 20
    for question in hopping:
        lead, asked = question.hops
        person = lead.fact.stated[-1].value
        assert person in question.text and asked.fact.entity not in question.text
        named = {fact.entity for fact in whole.facts if fact.attribute == "project lead"
                 and person in [notice.value for notice in fact.stated]}  # fmt: skip
        assert named == {asked.fact.entity}


@pytest.mark.parametrize("terse", [False, True])
def test_people_projects_and_sentences_of_the_splits_are_disjoint(terse):
    words = read_wording(terse)
    for name in ("statements", "updates", "questions"):
        for kind in KINDS:
            assert not {*getattr(words.train, name)[kind]} & {*getattr(words.test, name)[kind]}
    assert not {*words.train.chat, *words.train.echoes} & {*words.test.chat, *words.test.echoes}
    size = 60 if terse else 1200
    found = [
        {n for number in range(3) for n in names_of(Inbox(split, number, size, 0.1, 0.0, words))}
        for split in ("train", "test")
    ]
    assert found[0] and found[1] and not found[0] & found[1]


def names_of(inbox):
    parts = {
        part for person in inbox.people for part in (person.name.split() if not inbox.wording.plain else [person.name])
    }
    return parts | {fact.entity for fact in inbox.facts} - {person.name for person in inbox.people} | {inbox.domain}


# --- the mailbox --------------------------------------------------------------------------------------------------

LETTERS = [
    Mail("<1>", "ann@a.example", ("bob@a.example",), ("cy@a.example",), "2025-01-05 09:00", "Plan", "The venue is Dock."),
    Mail("<2>", "bob@a.example", ("ann@a.example",), (), "2025-02-05 09:00", "New plan", "The venue is now Pier."),
    Mail("<3>", "cy@b.example", ("ann@a.example", "bob@a.example"), (), "2025-03-05 09:00", "Hi", 'Say "plan" again.'),
]  # fmt: skip


def found(*keywords, today="2025-12-31", **filters):
    return [message_id for message_id, _ in Mailbox(LETTERS).search(keywords, today, **filters)]


def test_search_wants_every_keyword_and_shows_the_newest_first():
    assert found("plan") == ["<3>", "<2>", "<1>"]
    assert found("plan", "venue") == ["<2>", "<1>"]
    assert found("venue is now") == ["<2>"], "a phrase"
    assert found("plan", most=1) == ["<3>"]
    assert found("plan", today="2025-02-05") == ["<2>", "<1>"], "later mails have not come"


def test_search_filters():
    assert found("plan", from_addr="BOB@") == ["<2>"]
    assert found("plan", to_addr="cy@") == ["<1>"], "cc counts"
    assert found("plan", sent_after="2025-02-05", sent_before="2025-03-05") == ["<2>"]


@pytest.mark.parametrize(
    "strange", ["", '"', '" OR "', "NEAR(", "*", "\0", "\ud800", "plan\0venue", "a" * 10_000, "é✓"]
)
def test_no_keyword_breaks_the_search(strange):
    assert isinstance(found(strange), list)
    assert found("plan", strange, *["x"] * 500) == []


def test_a_mail_has_its_recipients():
    mail = Mailbox(LETTERS).read("<1>", "2025-12-31")
    assert (mail["to"], mail["cc"], mail["from"]) == (["bob@a.example"], ["cy@a.example"], "ann@a.example")
    assert Mailbox(LETTERS).read("<3>", "2025-01-01") is None and Mailbox(LETTERS).read("\ud800", "2025-01-01") is None


@pytest.mark.slow
def test_an_inbox_of_five_thousand_mails_is_quick(whole, mails):
    """Bounds far above what it takes, so that a busy machine doesn't fail."""
    began = time.perf_counter()
    box = Mailbox(Inbox("train", 1, 5000, 0.1, 0.0, read_wording(False)).mails())
    assert time.perf_counter() - began < 10
    seconds = []
    for question in whole.questions[:100]:
        began = time.perf_counter()
        box.search(question.hops[0].keywords, question.today)
        seconds.append(time.perf_counter() - began)
    assert statistics.median(seconds) < 0.02
    box.close()


# --- rewards ------------------------------------------------------------------------------------------------------


def search(task):
    return calls_tool("search_emails", keywords=task.info["hops"][0]["keywords"])


def read(message_id):
    return calls_tool("read_email", message_id=message_id)


def answer(text, *sources):
    return calls_tool("return_final_answer", answer=text, sources=list(sources))


async def test_the_right_answer_earns_every_term():
    env = EmailSearch(**SMALL)
    task = answerable(env)
    (gold,) = task.info["gold"]
    rollout = await first_answerable(env, search(task), read(gold), answer(task.answer, gold))
    assert rollout.stop == "answered" and rollout.metrics["right"] == 1
    assert rollout.reward == pytest.approx(1 + 0.3 + 0.1 + 0.1 * (1 - 3 / 10))
    hits, mail, thanks = heard(rollout)
    assert gold in [hit["message_id"] for hit in json.loads(hits)] and task.answer in json.loads(mail)["body"]
    assert thanks == "Thank you."
    rollout = await first_answerable(env, answer(task.answer, gold, "<other>"))
    assert rollout.reward == pytest.approx(1 + 0.3 + 0.05 + 0.1 * (1 - 1 / 10))
    rollout = await first_answerable(env, answer(task.answer))
    assert rollout.reward == pytest.approx(1 + 0.1 * (1 - 1 / 10)), "without sources"


async def test_what_is_not_the_answer():
    env = EmailSearch(**SMALL)
    task = answerable(env)
    (gold,) = task.info["gold"]
    every_step = [search(task), read(gold)]
    wrong = await first_answerable(env, *every_step, answer("something else", gold))
    assert wrong.reward == pytest.approx(-1 + 0.4) and wrong.metrics["right"] == 0
    unknown = await first_answerable(env, *every_step, answer("I don’t know."))
    assert unknown.reward == pytest.approx(0.3) and unknown.metrics["gave_up"] == 1
    invalid = await first_answerable(env, read("<none>"), answer(UNKNOWN))
    assert invalid.reward == 0 and "no such mail" in heard(invalid)[0]
    late = await first_answerable(env, *[search(task)] * 20)
    assert (late.stop, late.num_turns) == ("max_turns", 10) and late.reward == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("said", "stop", "reward"),
    [
        ({"role": "assistant", "content": "It is on Monday."}, "unparseable", -2 + 0.1),
        (calls_tool("delete_email", message_id="1"), "bad_tool", -1.9 + 0.1),
        (calls_tool("search_emails", keywords="plan"), "bad_arguments", -1.8 + 0.1),
        (calls_tool("search_emails", keywords=["plan"], max_results=11), "bad_arguments", -1.8 + 0.1),
        (calls_tool("search_emails", keywords=["plan"], sent_after="May"), "bad_arguments", -1.8 + 0.1),
        (calls_tool("return_final_answer", answer="x"), "bad_arguments", -1.8 + 0.1),
    ],
)
async def test_calls_that_are_none_end_it(said, stop, reward):
    rollout = await first_answerable(EmailSearch(**SMALL), said)
    assert (rollout.stop, rollout.num_turns, rollout.failure) == (stop, 1, None)
    assert rollout.reward == pytest.approx(reward)


async def test_one_call_a_turn():
    env = EmailSearch(**SMALL)
    task = answerable(env)
    both = search(task)
    both["tool_calls"] += [{**call, "id": "second"} for call in answer(task.answer, *task.info["gold"])["tool_calls"]]
    rollout = await first_answerable(env, both, answer(UNKNOWN))
    assert rollout.metrics["right"] == 0 and heard(rollout)[1].startswith("Error: one call a turn")


async def test_what_nobody_stated_is_unknown():
    env = EmailSearch(mails=300, inboxes=1, unanswerable=1.0)
    for rollout in await play(env, Calls(answer(UNKNOWN)), num=5):
        assert rollout.metrics["right_unknown"] == 1 and "right" not in rollout.metrics
        assert rollout.reward == pytest.approx(1 + 0.3 + 0.1 + 0.1 * (1 - 1 / 10))
    for rollout in await play(env, Calls(answer("May 3")), num=5):
        assert rollout.reward == pytest.approx(-1 + 0.1)


async def test_right_answers_alone():
    env = EmailSearch(**SMALL, rewards="right")
    task = answerable(env)
    assert (await first_answerable(env, answer(task.answer))).reward == 1
    assert (await first_answerable(env, answer(UNKNOWN))).reward == 0


# --- experts and lines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [SMALL, {**SMALL, "multi_hop": 1.0}, TERSE, {**TERSE, "multi_hop": 1.0}])
async def test_the_expert_knows_what_it_does(options):
    env = EmailSearch(**options)
    rollouts = await play(env, Expert(), num=60)
    assert all(rollout.failure is None for rollout in rollouts)
    right = [r.metrics.get("right", r.metrics.get("right_unknown")) for r in rollouts]
    assert statistics.fmean(right) > (0.9 if not options.get("terse") else 0.75)
    if options.get("multi_hop"):
        assert any(len(r.task.info["gold"]) == 2 and r.metrics["right"] for r in rollouts)


async def test_an_expert_of_less_skill_is_worse_but_sound():
    env = EmailSearch(**TERSE, skill=0.0)
    rollouts = await play(env, Expert(), num=100)
    assert {rollout.stop for rollout in rollouts} == {"answered"}
    right = statistics.fmean(r.metrics["right"] for r in rollouts if "right" in r.metrics)
    assert 0.2 < right < 0.75


async def test_a_terse_agent_says_lines():
    env = EmailSearch(**TERSE)
    task = answerable(env)
    entity, attribute = task.info["hops"][0]["keywords"]
    (gold,) = task.info["gold"]
    rollout = await first_answerable(
        env, model=Says(f"Find {entity} {attribute}", f"Read {gold}", f"Answer {task.answer} {gold}")
    )
    assert rollout.tools == [] and rollout.metrics["right"] == 1
    assert rollout.reward == pytest.approx(1 + 0.3 + 0.1 + 0.1 * (1 - 3 / 6))
    assert (await first_answerable(env, model=Says("Answer no"))).metrics["gave_up"] == 1
    for said in ("Find", "", "find x", "Find x\nRead 3", "Show x"):
        assert (await first_answerable(env, model=Says(said))).stop == "unparseable"


@pytest.mark.parametrize("options", [SMALL, {**TERSE, "skill": 0.0}])
@pytest.mark.slow
def test_it_keeps_its_promises(options):
    assert [str(finding) for finding in check_environment(EmailSearch(**options)) if finding.ok is False] == []


@pytest.mark.parametrize(
    "options",
    [{"mails": 3}, {"inboxes": 0}, {"turns": 2}, {"unanswerable": 1.5}, {"skill": -1}, {"rewards": "all"},
     {"terse": True}],
)  # fmt: skip
def test_options_that_make_no_mailbox_are_refused(options):
    with pytest.raises(ValueError, match=r"must|at most"):
        EmailSearch(**options)


def test_mails_and_questions_are_those_of_this_version():
    """Others are another environment: change `EmailSearch.version` with these hashes."""
    assert content_hash(everything(EmailSearch(**SMALL, multi_hop=0.5))) == "ef5de5e9f5d5fb47"
    assert content_hash(everything(EmailSearch(**TERSE))) == "b0cd11c0280d210b"


def everything(env):
    mails = [[mail.message_id, mail.date, mail.subject, mail.body] for mail in env.inbox("test", 0).mails()]
    return [mails, *(msgspec.to_builtins(take(env, split, 100)) for split in env.splits)]
