"""Answer a question from an encyclopedia by searching and reading, often by way of several pages.

Encyclopedias, questions and answers are generated: nothing in them is true, so nobody knows an answer by heart. Names and
sentences of test tasks never occur in training. The demonstrator follows the question's path; below a skill of 1 it often
opens any page that a search finds rather than the one it looked for, and so runs out of turns.

`terse` is a game for models with a few hundred words: names of two words, numbers of two digits, and lines such as
`Find red cube` and `Read angle` in place of tool calls.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Iterator
from random import Random
from typing import Any

from ludus.authoring.context import Context
from ludus.authoring.declare import metric, reward, tool
from ludus.authoring.environment import Answer
from ludus.environments.search.base import Search, SearchEnvironment
from ludus.environments.search.commands import Command, Step, read_ids, steps_of, write_ids
from ludus.environments.search.encyclopedia import Encyclopedia, Question, every_question
from ludus.environments.search.grading import Kind, is_unknown, same_answer
from ludus.environments.search.pages import PageIndex
from ludus.types import Message, Reply, Rollout, Task

SEARCH, READ = "search_pages", "read_page"
UNKNOWN, TERSE_UNKNOWN, TERSE_ANSWER = "I don't know", "no", "Answer "
NOT_THERE = "there is no such page"
FEWEST_PAGES, MOST_PAGES = 20, 5_000
MOST_TERSE_PAGES = 400
RESULTS, TERSE_RESULTS = 5, 3
TEST_SHARE = 0.4
"""Encyclopedias to test on, as a share of those to train on."""
INSTRUCTIONS = """\
You answer questions from an encyclopedia that you can search and read. It is the only source: what you know from elsewhere
does not count. A question may take several pages, one after another. Search with the name that you are looking for. When
you have the answer, reply with it alone, a name or a number, without calling a tool. You have {turns} turns."""


class WikiSearch(SearchEnvironment):
    """Find the answer to a question of one or several steps in an encyclopedia."""

    name = "wiki-search"
    version = "1"
    sampling = {"max_tokens": 1024}
    commands = {
        "Find": Command(SEARCH, lambda words: {"query": " ".join(words)}, lambda query: [query]),
        "Read": Command(READ, lambda words: {"page_id": " ".join(words)}, lambda page_id: [page_id]),
    }

    def __init__(
        self,
        pages: int = 1000,
        encyclopedias: int = 5,
        hops: int = 3,
        turns: int = 12,
        terse: bool = False,
        skill: float = 1.0,
    ) -> None:
        """
        Args:
            pages: of an encyclopedia.
            encyclopedias: to train on; two fifths as many are there to test on.
            hops: steps that a question takes at most.
            turns: replies before it is too late to answer.
            terse: few words and lines for commands, for models with a small vocabulary.
            skill: share of the demonstrator's choices of a page that are the best; the others are drawn at random.
        """
        if not FEWEST_PAGES <= pages <= MOST_PAGES:
            raise ValueError(f"pages must be from {FEWEST_PAGES} to {MOST_PAGES}, got {pages}")
        if terse and pages > MOST_TERSE_PAGES:
            raise ValueError(f"a terse encyclopedia has at most {MOST_TERSE_PAGES} pages, got {pages}")
        if encyclopedias < 1:
            raise ValueError(f"encyclopedias must be at least 1, got {encyclopedias}")
        if not 1 <= hops <= 5:
            raise ValueError(f"hops must be from 1 to 5, got {hops}")
        if turns < 2 * hops + 1:
            raise ValueError(f"turns must be at least {2 * hops + 1}, as {hops} hops take, got {turns}")
        if not 0 <= skill <= 1:
            raise ValueError(f"skill must be between 0 and 1, got {skill}")
        self.pages, self.encyclopedias, self.hops, self.max_turns = pages, encyclopedias, hops, turns
        self.terse, self.skill = terse, skill
        self.system_prompt = "" if terse else INSTRUCTIONS.format(turns=turns)
        self._lock = threading.Lock()
        self._books: dict[tuple[str, int], Encyclopedia] = {}
        self._indexes: dict[tuple[str, int], PageIndex] = {}

    # --- tasks ---------------------------------------------------------------------------------------

    def book(self, split: str, number: int) -> Encyclopedia:
        """One of a split's encyclopedias."""
        if (split, number) not in self._books:
            self._books[split, number] = Encyclopedia(split, number, self.pages, self.hops, self.terse)
        return self._books[split, number]

    def tasks(self, split: str) -> Iterator[Task]:
        """Every question of every encyclopedia of the split, one of each in turn."""
        number = self.encyclopedias if split == "train" else max(1, round(self.encyclopedias * TEST_SHARE))
        books = [self.book(split, n) for n in range(number)]
        for book, place, question in every_question(books):
            yield _task(split, book, place, question)

    # --- the agent's tools ---------------------------------------------------------------------------------------

    def setup(self, ctx: Context) -> None:  # type: ignore[override]
        """Open the encyclopedia; the first rollout in it has it written."""
        key = (ctx.task.info["split"], ctx.task.info["book"])
        if key not in self._indexes:
            with self._lock:
                if key not in self._indexes:  # another rollout may just have written it
                    self._indexes[key] = PageIndex(self.book(*key).pages())
        self.begin(ctx, self._indexes[key])

    async def close(self) -> None:
        """Free the encyclopedias."""
        for index in self._indexes.values():
            index.close()
        self._indexes.clear()

    async def respond(self, ctx: Context, reply: Reply) -> Answer:
        """The default, but that lines call tools where the agent is terse."""
        if not self.terse:
            return await super().respond(ctx, reply)
        calls = self.calls_of(reply)
        if not calls:
            return None
        result = await ctx.state.tools[calls[0].name](calls[0].arguments or {}, ctx.injectable())
        return [self.answers(calls[0], str(result))]

    @tool
    async def search_pages(self, query: str, state: Search) -> Any:
        """Ids and titles of the pages that match best."""
        if not any(map(str.isalnum, query)):
            return "no" if self.terse else {"error": "a query needs a letter or a digit"}
        hits = state.where.search(query, TERSE_RESULTS if self.terse else RESULTS)
        if self.terse:
            return write_ids(page_id for page_id, _ in hits)
        return [{"page_id": page_id, "title": title} for page_id, title in hits]

    @tool
    async def read_page(self, page_id: str, state: Search) -> str:
        """The text of the page of that id."""
        return state.where.read(page_id) or NOT_THERE

    # --- rewards ---------------------------------------------------------------------------------------

    @reward
    def right(self, task: Task, rollout: Rollout) -> float:
        """1 if the last reply is the answer, alone."""
        kind: Kind = "number" if task.info["is_number"] else "thing"
        return float(rollout.stop == "done" and same_answer(kind, self._said(rollout), task.answer))

    @metric
    def needed_pages(self, task: Task, rollout: Rollout) -> float:
        """Share of the pages on the way to the answer that it read."""
        needed, read = set(task.info["path"]), {step.arguments.get("page_id") for step in self._steps(rollout, READ)}
        return len(needed & read) / len(needed)

    @metric
    def searches(self, rollout: Rollout) -> float:
        """Searches made."""
        return float(len(self._steps(rollout, SEARCH)))

    @metric
    def reads(self, rollout: Rollout) -> float:
        """Pages read, again or for the first time."""
        return float(len(self._steps(rollout, READ)))

    @metric
    def gave_up(self, rollout: Rollout) -> float:
        """Whether it says that it doesn't know."""
        return float(rollout.stop == "done" and is_unknown(self._said(rollout)))

    def _said(self, rollout: Rollout) -> str:
        """The answer; a terse one may begin with a word that says so."""
        return rollout.reply.removeprefix(TERSE_ANSWER) if self.terse else rollout.reply

    def _steps(self, rollout: Rollout, name: str) -> list[Step]:
        return [step for step in steps_of(rollout.messages, self.shown_commands) if step.tool == name]

    # --- the expert ---------------------------------------------------------------------------------------

    def demonstrate(  # type: ignore[override]
        self, task: Task, random: Random
    ) -> Generator[Message | str, list[Message], None]:
        """Search for each thing on the path by its name, and open pages until its own is there."""
        left = self.max_turns - 1
        found = True
        for page_id, name in zip(task.info["path"], task.info["names"], strict=True):
            if not left:
                found = False
                break
            shown = yield self.says(SEARCH, query=name)
            left, found = left - 1, False
            unread = _shown_ids(str(shown[-1]["content"]), self.terse)
            while unread and left and not found:
                chosen = unread.pop(0 if random.random() < self.skill else random.randrange(len(unread)))
                yield self.says(READ, page_id=chosen)
                left, found = left - 1, chosen == page_id
            if not found:
                break
        answer = task.answer if found else UNKNOWN
        yield answer if not self.terse else f"{TERSE_ANSWER}{answer if found else TERSE_UNKNOWN}"


def _task(split: str, number: int, place: int, question: Question) -> Task:
    info = {
        "split": split,
        "book": number,
        "path": [thing.page_id for thing in question.path],
        "names": [thing.name for thing in question.path],
        "is_number": question.is_number,
    }
    return Task(prompt=question.text, answer=question.answer, info=info, id=f"{split}-{number}-{place}")


def _shown_ids(result: str, terse: bool) -> list[str]:
    if terse:
        return read_ids(result)
    return [hit["page_id"] for hit in json.loads(result)]
