"""The encyclopedia: what a split holds, paths that lead to answers, search, rewards, and an expert that finds them."""

import json
import statistics

import msgspec
import pytest
from players import Calls, Says, heard, play

from ludus.authoring.tasks import take
from ludus.environments.search.encyclopedia import Encyclopedia, Thing, read_wording
from ludus.environments.search.pages import Page, PageIndex
from ludus.environments.search.wiki_search import WikiSearch
from ludus.recording.expert import Expert
from ludus.testing import check_environment
from ludus.types import calls_tool, content_hash

SMALL = {"pages": 200, "encyclopedias": 2}
TERSE = {"terse": True, "pages": 30, "encyclopedias": 20, "hops": 2, "turns": 5}


def test_names_and_sentences_of_the_splits_are_disjoint():
    for terse in (False, True):
        words = read_wording(terse)
        assert not {*words["train"]["questions"]} & {*words["test"]["questions"]}
        assert not {*words["train"]["fillers"]} & {*words["test"]["fillers"]}
        size = 30 if terse else 300
        names = [
            {part for number in range(3) for thing in Encyclopedia(split, number, size, 2, terse).things
             for part in ([thing.name] if terse else thing.name.split())}
            for split in ("train", "test")
        ]  # fmt: skip
        assert not names[0] & names[1]
    words = read_wording(False)
    for what in ("phrases", "sentences"):
        for kind, relations in words["train"][what].items():
            for relation, sentences in relations.items():
                assert not {*sentences} & {*words["test"][what][kind][relation]}


@pytest.mark.parametrize("terse", [False, True])
def test_a_path_leads_to_the_answer_page_by_page(terse):
    book = Encyclopedia("test", 0, 60, 3, terse)
    text = {page.page_id: page.text for page in book.pages()}
    assert book.pages() == book.pages() and len(text) == 60
    assert {len(question.path) for question in book.questions} == {1, 2, 3}
    for question in book.questions:
        names = [thing.name for thing in question.path]
        assert names[0] in question.text
        for thing, named in zip(question.path, [*names[1:], question.answer], strict=True):
            assert named in text[thing.page_id]
            assert named in [to.name if isinstance(to, Thing) else to for to in book.relations[thing].values()]


PAGES = [Page("1", "Talo", "Talo is a town near Miru."), Page("2", "Miru", "Miru is older than Talo."),
         Page("3", "Old Miru", "A hill.")]  # fmt: skip


def test_search_begins_with_the_page_of_that_title():
    index = PageIndex(PAGES)
    assert [page_id for page_id, _ in index.search("miru", 5)] == ["2", "3", "1"]
    assert index.search("where is Talo?", 1)[0] == ("1", "Talo")
    assert index.search("?!", 5) == index.search("", 5) == [] and index.read("9") is None


@pytest.mark.parametrize("strange", ['"', "NEAR(a b)", "a AND", "\0", "\ud800", "x " * 5000, "-miru", "title:x"])
def test_no_query_breaks_the_search(strange):
    assert isinstance(PageIndex(PAGES).search(strange, 5), list) and PageIndex(PAGES).read(strange) is None


async def test_only_the_answer_alone_is_right():
    env = WikiSearch(**SMALL)
    task = take(env, "test", 1)[0]
    steps = [
        call for page_id, name in zip(task.info["path"], task.info["names"], strict=True)
        for call in (calls_tool("search_pages", query=name), calls_tool("read_page", page_id=page_id))
    ]  # fmt: skip
    (rollout,) = await play(env, Calls(*steps, {"role": "assistant", "content": task.answer}))
    hops = len(task.info["path"])
    assert rollout.reward == 1
    assert rollout.metrics["needed_pages"] == 1 and rollout.metrics["searches"] == rollout.metrics["reads"] == hops
    assert json.loads(heard(rollout)[0])[0]["page_id"] == task.info["path"][0]
    for said in ("", "I don't know", f"It may be {task.answer}", f"{task.answer} or Talo"):
        (rollout,) = await play(env, Says(said))
        assert rollout.reward == 0 and rollout.metrics["needed_pages"] == 0


async def test_what_tools_refuse_is_said_and_goes_on():
    env = WikiSearch(**SMALL)
    said = [calls_tool("read_page", page_id="none"), calls_tool("search_pages"), calls_tool("look")]
    (rollout,) = await play(env, Calls(*said))
    assert rollout.failure is None and rollout.num_turns == 4
    assert [text.split()[0] for text in heard(rollout)] == ["there", "Error:", "Error:"]


@pytest.mark.parametrize("options", [SMALL, TERSE])
async def test_the_expert_knows_what_it_does(options):
    rollouts = await play(WikiSearch(**options), Expert(), num=60)
    assert all(rollout.failure is None for rollout in rollouts)
    assert statistics.fmean(rollout.reward for rollout in rollouts) > 0.95


@pytest.mark.slow
async def test_an_expert_of_less_skill_is_worse_but_sound():
    rollouts = await play(WikiSearch(**TERSE, skill=0.0), Expert(), num=100)
    assert {rollout.stop for rollout in rollouts} == {"done"}
    assert 0.2 < statistics.fmean(rollout.reward for rollout in rollouts) < 0.8
    assert all(rollout.reward == 1 - rollout.metrics["gave_up"] for rollout in rollouts)


async def test_a_terse_agent_says_lines():
    env = WikiSearch(**TERSE)
    task = next(task for task in take(env, "test", 40) if len(task.info["path"]) == 1)
    place = take(env, "test", 40).index(task)
    found = [f"Find {task.info['names'][0]}", f"Read {task.info['path'][0]}"]
    for said in (task.answer, f"Answer {task.answer}"):
        assert (await play(env, Says(*found, said), num=place + 1))[-1].reward == 1
    rollout = (await play(env, Says(*found, task.answer), num=place + 1))[-1]
    assert rollout.tools == [] and rollout.reward == 1 and rollout.metrics["reads"] == 1


@pytest.mark.parametrize("options", [SMALL, {**TERSE, "skill": 0.0}])
@pytest.mark.slow
def test_it_keeps_its_promises(options):
    assert [str(finding) for finding in check_environment(WikiSearch(**options)) if finding.ok is False] == []


@pytest.mark.parametrize(
    "options",
    [{"pages": 3}, {"encyclopedias": 0}, {"hops": 0}, {"hops": 3, "turns": 6}, {"skill": 2}, {"terse": True}],
)
def test_options_that_make_no_encyclopedia_are_refused(options):
    with pytest.raises(ValueError, match=r"must|at most"):
        WikiSearch(**options)


def test_pages_and_questions_are_those_of_this_version():
    """Others are another environment: change `WikiSearch.version` with these hashes."""
    assert content_hash(everything(WikiSearch(**SMALL))) == "b6baa2e9fd5366e6"
    assert content_hash(everything(WikiSearch(**TERSE))) == "27582e68fb977e31"


def everything(env):
    pages = [[page.page_id, page.title, page.text] for page in env.book("test", 0).pages()]
    return [pages, *(msgspec.to_builtins(take(env, split, 100)) for split in env.splits)]
