"""Replies kept on disk: the same question is asked once, whoever asks; what is not the same is another question."""

import asyncio
import sqlite3

import pytest

import ludus
from ludus.errors import FileProblem, ModelCallFailed, UsageError
from ludus.programs.models import cache_folder, open_model
from ludus.recording.cached import FILE, Cached
from ludus.recording.remote import RemoteBackend
from ludus.types import Reply, Sampling, Usage

ASKED = [{"role": "user", "content": "Which?"}]
COLD = Sampling(temperature=0.0)


class Counts:
    """A model that counts what it is asked."""

    def __init__(self, name="counts", finish="stop"):
        self.name, self.num, self.finish = name, 0, finish

    async def complete(self, messages, tools, sampling):
        self.num += 1
        return Reply({"role": "assistant", "content": f"answer {self.num}"}, (), self.finish, Usage(10, 5, 0.25))


@pytest.fixture
def cached(tmp_path):
    one = Cached(Counts(), tmp_path)
    yield one
    one.close()


async def test_the_same_question_is_asked_once(cached, tmp_path):
    first = await cached.complete(ASKED, [], COLD)
    again = await cached.complete([dict(ASKED[0])], [], Sampling(temperature=0.0, seed=7))
    assert (first.text, again.text, cached.backend.num) == ("answer 1", "answer 1", 1)
    assert (first.usage.cost, again.usage) == (0.25, Usage(10, 5, 0.0))
    other = Cached(Counts(), tmp_path)
    assert (await other.complete(ASKED, [], COLD)).text == "answer 1"
    assert (other.num_hits, other.num_misses, cached.num_hits, cached.num_misses) == (1, 0, 1, 1)
    other.close()


class Waits(Counts):
    """Answers, or fails, when it is let."""

    def __init__(self, failure=None):
        super().__init__()
        self.let, self.failure = asyncio.Event(), failure

    async def complete(self, messages, tools, sampling):
        reply = await super().complete(messages, tools, sampling)
        await self.let.wait()
        if self.failure:
            raise self.failure
        return reply


async def test_who_asks_the_same_at_once_waits_for_one_answer(tmp_path):
    cached = Cached(Waits(), tmp_path)
    asking = [asyncio.create_task(cached.complete(ASKED, [], COLD)) for _ in range(8)]
    await asyncio.sleep(0)
    asking[0].cancel()  # another takes over
    cached.backend.let.set()
    replies = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(replies[0], asyncio.CancelledError)
    assert {reply.text for reply in replies[1:]} == {"answer 2"} and cached.backend.num == 2
    assert sorted(reply.usage.cost for reply in replies[1:]) == [0.0] * 6 + [0.25]
    cached.close()


async def test_who_waits_for_an_answer_that_fails_is_told(tmp_path):
    cached = Cached(Waits(ModelCallFailed("down", "environment")), tmp_path)
    asking = [asyncio.create_task(cached.complete(ASKED, [], COLD)) for _ in range(8)]
    await asyncio.sleep(0)
    cached.backend.let.set()
    failed = await asyncio.gather(*asking, return_exceptions=True)
    assert {(str(error), error.blame) for error in failed} == {("down", "environment")} and cached.backend.num == 1
    cached.backend.failure = None
    assert (await cached.complete(ASKED, [], COLD)).text == "answer 2"
    cached.close()


@pytest.mark.parametrize(
    "question",
    [
        ([{"role": "user", "content": "What?"}], [], COLD), (ASKED, [{"type": "function"}], COLD),
        (ASKED, [], Sampling(temperature=0.5)), (ASKED, [], Sampling(temperature=0.0, max_tokens=3)),
    ],
)  # fmt: skip
async def test_another_question_is_asked(cached, question):
    await cached.complete(ASKED, [], COLD)
    assert (await cached.complete(*question)).text == "answer 2"


async def test_what_is_drawn_is_drawn_for_each_seed(cached):
    texts = [(await cached.complete(ASKED, [], Sampling(seed=seed))).text for seed in (1, 2, 1)]
    assert texts == ["answer 1", "answer 2", "answer 1"]


async def test_another_model_is_another_question(cached, tmp_path):
    await cached.complete(ASKED, [], COLD)
    other = Cached(Counts("other"), tmp_path)
    await other.complete(ASKED, [], COLD)
    assert other.backend.num == 1
    other.close()


async def test_what_failed_or_was_cut_off_is_asked_again(tmp_path):
    cut = Cached(Counts(finish="length"), tmp_path)
    assert [(await cut.complete(ASKED, [], COLD)).text for _ in range(2)] == ["answer 1", "answer 2"]

    class Down:
        name = "counts"

        async def complete(self, messages, tools, sampling):
            raise ModelCallFailed("down")

    cut.backend = Down()
    with pytest.raises(ModelCallFailed):
        await cut.complete(ASKED, [], COLD)
    cut.close()


async def test_text_that_is_not_unicode_is_not_kept(cached):
    broken = [{"role": "user", "content": "\ud800"}]
    assert [(await cached.complete(broken, [], COLD)).text for _ in range(2)] == ["answer 1", "answer 2"]


async def test_a_closed_one_opens_again(cached):
    await cached.complete(ASKED, [], COLD)
    cached.close()
    cached.close()
    assert (await cached.complete(ASKED, [], COLD)).text == "answer 1"


async def test_a_reply_of_another_version_is_replaced(cached, tmp_path):
    await cached.complete(ASKED, [], COLD)
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("UPDATE replies SET reply = x'00'")
    db.close()
    assert [(await cached.complete(ASKED, [], COLD)).text for _ in range(2)] == ["answer 2", "answer 2"]


def test_a_file_that_is_something_else_is_named(tmp_path):
    (tmp_path / FILE).write_text("not a database, but longer than a header of one" * 100)
    with pytest.raises(FileProblem, match=r"replies\.db can't be used"):
        Cached(Counts(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileProblem, match="can't be used"):
        Cached(Counts(), tmp_path / "file")


async def test_many_processes_may_share_it(tmp_path):
    both = [Cached(Counts(), tmp_path) for _ in range(2)]
    asked = [([{"role": "user", "content": str(i)}], [], COLD) for i in range(50)]
    for question in asked:
        await asyncio.gather(*(one.complete(*question) for one in both))
    assert sum(one.num_misses for one in both) <= 100
    for one in both:
        one.close()


def test_a_model_is_cached_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path / "cache"))
    opened = open_model("cached:openai:small", base_url="http://127.0.0.1:1/v1", price=(1.0, 2.0))
    assert isinstance(opened.backend, Cached) and isinstance(opened.backend.backend, RemoteBackend)
    assert opened.backend.name == "small"
    assert asyncio.run(opened.identity()) == {"base_url": "http://127.0.0.1:1/v1"}
    opened.close()
    assert (cache_folder() / FILE).is_file()
    with pytest.raises(UsageError, match="goes before an API's model, such as cached:openai:NAME"):
        open_model("cached:runs/mine")


def test_an_evaluation_closes_what_it_opened_and_no_more(tmp_path):
    class Env(ludus.Environment):
        roles = ("policy", "judge")

        def tasks(self, split):
            return [ludus.Task(prompt="a")]

        @ludus.reward
        async def judged(self, models):
            return float((await models["judge"].chat(ASKED, temperature=0.0)).text == "answer 1")

    judge = Cached(Counts(), tmp_path)
    for _ in range(2):
        result = ludus.evaluate(Env(), Counts(), num_tasks=1, role_models={"judge": judge})
        assert result.mean == 1.0
    assert judge.backend.num == 1
    judge.close()
