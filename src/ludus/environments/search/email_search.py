"""Answer a question from a mailbox, after OpenPipe's ART-E: search, read, and say the answer with its sources.

Mailboxes, questions and answers are generated, so answers are exact and no model judges them; numbers can't be compared
with those published for the Enron mails. People, projects, places and sentences of test tasks never occur in training.
The demonstrator searches and reads soundly; below a skill of 1 its searches are often too wide, and it reads any mail
that they find rather than the newest, so that it often answers with a value that no longer holds.

`terse` is a game for models with a few hundred words: questions and mails of a few of them, names of two words, and
lines such as `Find red cube start` in place of tool calls.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from random import Random
from typing import Annotated, Any, Literal

from pydantic import Field

from ludus.authoring.context import Context
from ludus.authoring.declare import metric, reward, tool
from ludus.authoring.tools import as_text
from ludus.environments.search.base import Search, SearchEnvironment
from ludus.environments.search.commands import Command, write_ids
from ludus.environments.search.inbox import Inbox, Question, every_question
from ludus.environments.search.mailbox import Mailbox
from ludus.environments.search.rubric import (
    ANSWER,
    ANSWERED,
    BAD_ARGUMENTS,
    BAD_TOOL,
    NOT_RUN,
    NOT_THERE,
    READ,
    SEARCH,
    UNPARSEABLE,
    Rubric,
    rubric_of,
    shown_ids,
)
from ludus.environments.search.wording import read_wording
from ludus.errors import ToolError
from ludus.types import Message, Reply, Reward, Rollout, Task, user

UNKNOWN, TERSE_UNKNOWN = "I don't know", "no"
FEWEST_MAILS, MOST_MAILS = 30, 100_000
MOST_OPEN = 150_000
"""Mails in mailboxes that are kept at once; the oldest mailbox goes, and is written again where it is needed."""
TERSE_RESULTS = 5
TEST_SHARE = 0.4
"""Inboxes to test on, as a share of those to train on."""
INSTRUCTIONS = """\
You answer questions from an email inbox with the tools you have. Call one tool a turn; you have {turns} turns.
Things change: where mails disagree, the newest one holds. When you have the answer, call return_final_answer with the
value alone (a date, an amount, a name or a place) and the ids of the mails that say it. If the mails don't say it, answer
"I don't know" without sources.

The inbox is that of {owner}. Today is {today}."""

Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


def read_answer(words: list[str]) -> dict[str, Any]:
    """The value and the sources of a terse answer: names have two words, dates and amounts one.

    >>> read_answer(["red", "cube", "angle"]), read_answer(["no"])
    ({'answer': 'red cube', 'sources': ['angle']}, {'answer': "I don't know", 'sources': []})
    """
    if words[0] == TERSE_UNKNOWN:
        return {"answer": UNKNOWN, "sources": words[1:]}
    size = 1 if words[0][0].isdigit() else 2
    return {"answer": " ".join(words[:size]), "sources": words[size:]}


class EmailSearch(SearchEnvironment):
    """Find the answer to a question in an inbox of thousands of mails."""

    name = "email-search"
    version = "1"
    sampling = {"max_tokens": 2048}
    failure_reward = -2.0
    commands = {
        "Find": Command(SEARCH, lambda words: {"keywords": words}, lambda keywords: list(keywords)),
        "Read": Command(READ, lambda words: {"message_id": " ".join(words)}, lambda message_id: [message_id]),
        "Answer": Command(
            ANSWER,
            read_answer,
            lambda answer, sources: [TERSE_UNKNOWN if answer == UNKNOWN else answer, *sources],
        ),
    }

    def __init__(
        self,
        mails: int = 5000,
        inboxes: int = 20,
        unanswerable: float = 0.1,
        multi_hop: float = 0.0,
        turns: int = 10,
        rewards: Literal["rubric", "right"] = "rubric",
        terse: bool = False,
        skill: float = 1.0,
    ) -> None:
        """
        Args:
            mails: of an inbox.
            inboxes: to train on; two fifths as many are there to test on.
            unanswerable: share of questions that no mail answers.
            multi_hop: share of questions that take two mails, where the inbox has such.
            turns: replies before it is too late to answer.
            rewards: "rubric" pays for finding, reading, sources and speed as well; "right" for right answers alone.
            terse: few words and lines for commands, for models with a small vocabulary.
            skill: share of mails to read that the demonstrator chooses best, the others being drawn at random; at 0, half
                of its searches are too wide as well.
        """
        if not FEWEST_MAILS <= mails <= MOST_MAILS:
            raise ValueError(f"mails must be from {FEWEST_MAILS} to {MOST_MAILS}, got {mails}")
        if terse and mails > 1000:
            raise ValueError(f"a terse inbox has at most 1000 mails, got {mails}")
        if inboxes < 1:
            raise ValueError(f"inboxes must be at least 1, got {inboxes}")
        if turns < 3:
            raise ValueError(f"turns must be at least 3 (search, read, answer), got {turns}")
        for option, value in (("unanswerable", unanswerable), ("multi_hop", multi_hop), ("skill", skill)):
            if not 0 <= value <= 1:
                raise ValueError(f"{option} must be between 0 and 1, got {value}")
        if rewards not in ("rubric", "right"):
            raise ValueError(f"rewards must be rubric or right, got {rewards!r}")
        self.mails, self.inboxes, self.unanswerable, self.multi_hop = mails, inboxes, unanswerable, multi_hop
        self.max_turns, self.rewards, self.terse, self.skill = turns, rewards, terse, skill
        self._lock = threading.Lock()
        self._inboxes: dict[tuple[str, int], Inbox] = {}
        self._mailboxes: dict[tuple[str, int], Mailbox] = {}

    # --- tasks ---------------------------------------------------------------------------------------

    def inbox(self, split: str, number: int) -> Inbox:
        """One of a split's inboxes."""
        if (split, number) not in self._inboxes:
            self._inboxes[split, number] = Inbox(
                split, number, self.mails, self.unanswerable, self.multi_hop, read_wording(self.terse)
            )
        return self._inboxes[split, number]

    def tasks(self, split: str) -> Iterator[Task]:
        """Every question of every inbox of the split, one of each inbox in turn."""
        number = self.inboxes if split == "train" else max(1, round(self.inboxes * TEST_SHARE))
        inboxes = [self.inbox(split, n) for n in range(number)]
        for inbox, place, question in every_question(inboxes):
            yield self._task(split, inbox, place, question)

    def _task(self, split: str, number: int, place: int, question: Question) -> Task:
        last = [hop.fact.stated[-1:] for hop in question.hops]
        answerable = all(last)
        info = {
            "split": split,
            "inbox": number,
            "today": question.today,
            "kind": question.hops[-1].fact.kind,
            "gold": [notices[0].message_id for notices in last] if answerable else [],
            "hops": [
                {"keywords": list(hop.keywords), "stated": {n.message_id: n.value for n in hop.fact.stated}}
                for hop in question.hops
            ],
        }
        answer = last[-1][0].value if answerable else UNKNOWN
        owner = self.inbox(split, number).owner
        told = INSTRUCTIONS.format(turns=self.max_turns, owner=f"{owner.name} <{owner.address}>", today=question.today)
        system: list[Message] = [] if self.terse else [{"role": "system", "content": told}]
        return Task(prompt=[*system, user(question.text)], answer=answer, info=info, id=f"{split}-{number}-{place}")

    # --- the agent's tools ---------------------------------------------------------------------------------------

    def setup(self, ctx: Context) -> None:  # type: ignore[override]
        """Open the mailbox; the first rollout in it has it written."""
        key = (ctx.task.info["split"], ctx.task.info["inbox"])
        mailbox = self._mailboxes.get(key)
        if mailbox is None:
            with self._lock:
                if key not in self._mailboxes:  # another rollout may just have written it
                    if len(self._mailboxes) >= max(1, MOST_OPEN // self.mails):
                        self._mailboxes.pop(next(iter(self._mailboxes)))  # who still uses it keeps it
                    self._mailboxes[key] = Mailbox(self.inbox(*key).mails())
                mailbox = self._mailboxes[key]
        self.begin(ctx, mailbox)

    async def close(self) -> None:
        """Free the mailboxes."""
        for mailbox in self._mailboxes.values():
            mailbox.close()
        self._mailboxes.clear()

    async def respond(self, ctx: Context, reply: Reply) -> list[Message] | None:
        """Run the first call of a reply, which ends the rollout where it answers or is none."""
        calls = self.calls_of(reply)
        if reply.malformed or not calls or calls[0].arguments is None:
            ctx.state.ended = UNPARSEABLE
            return None
        called, *others = calls
        if called.name not in ctx.state.tools:
            ctx.state.ended = BAD_TOOL
            result = f"Error: there is no tool {called.name!r}"
        else:
            try:
                result = as_text(await ctx.state.tools[called.name](called.arguments or {}, ctx.injectable()))
            except ToolError as error:
                ctx.state.ended = BAD_ARGUMENTS
                result = f"Error: {error}"
        late = f"{NOT_RUN}; this one was not run"
        return [self.answers(called, result), *(self.answers(other, late) for other in others)]

    @tool
    async def search_emails(
        self,
        keywords: list[str],
        task: Task,
        state: Search,
        from_addr: str | None = None,
        to_addr: str | None = None,
        sent_after: Day | None = None,
        sent_before: Day | None = None,
        max_results: Annotated[int, Field(ge=1, le=10)] = 10,
    ) -> Any:
        """Mails that have all of the keywords in subject or body, newest first: their ids and an excerpt of each.

        from_addr and to_addr are (parts of) addresses; sent_after and sent_before are days such as 2025-03-31.
        """
        if not any(map(str.isalnum, "".join(keywords))):
            return "no" if self.terse else {"error": "keywords need a letter or a digit"}
        hits = state.where.search(
            keywords, task.info["today"], from_addr=from_addr, to_addr=to_addr, sent_after=sent_after,
            sent_before=sent_before, most=max_results,
        )  # fmt: skip
        if self.terse:
            return write_ids(message_id for message_id, _ in hits[:TERSE_RESULTS])
        return [{"message_id": message_id, "snippet": snippet} for message_id, snippet in hits]

    @tool
    async def read_email(self, message_id: str, task: Task, state: Search) -> Any:
        """The whole mail of that id."""
        mail = state.where.read(message_id, task.info["today"])
        if mail is None:
            return NOT_THERE if self.terse else {"error": NOT_THERE}
        return mail["body"] if self.terse else mail

    @tool
    async def return_final_answer(self, answer: str, sources: list[str], state: Search) -> str:
        """Give the answer and the ids of the mails that say it. This ends the task."""
        state.ended = ANSWERED
        return "Thank you." if not self.terse else ""

    # --- rewards ---------------------------------------------------------------------------------------

    def rubric(self, task: Task, rollout: Rollout) -> Rubric:
        """What there is to know of a rollout."""
        return rubric_of(task, rollout, self.shown_commands)

    @reward
    def earned(self, task: Task, rollout: Rollout) -> float:
        """The reward of ART-E (see `rubric`), or 1 for a right answer."""
        rubric = self.rubric(task, rollout)
        return float(rubric.right) if self.rewards == "right" else rubric.reward(self.max_turns)

    @metric
    def right(self, task: Task, rollout: Rollout) -> list[Reward]:
        """Whether the answer is right; of questions that have one."""
        return [Reward("right", float(self.rubric(task, rollout).right))] if task.info["gold"] else []

    @metric
    def right_unknown(self, task: Task, rollout: Rollout) -> list[Reward]:
        """Whether it says that it doesn't know; of questions that have no answer."""
        return [] if task.info["gold"] else [Reward("right_unknown", float(self.rubric(task, rollout).right))]

    @metric
    def gave_up(self, task: Task, rollout: Rollout) -> float:
        """Whether it answers that it doesn't know."""
        return float(self.rubric(task, rollout).gave_up)

    @metric
    def sources_right(self, task: Task, rollout: Rollout) -> float:
        """Whether its sources name every mail that is needed."""
        return float(self.rubric(task, rollout).sources_right)

    @metric
    def searches(self, task: Task, rollout: Rollout) -> float:
        """Searches made."""
        return float(self.rubric(task, rollout).searches)

    # --- the expert ---------------------------------------------------------------------------------------

    def demonstrate(  # type: ignore[override]
        self, task: Task, random: Random
    ) -> Generator[Message | str, list[Message], None]:
        """Search for every fact on the way, read until a mail states it, and answer with what that one says."""
        value, sources, left = UNKNOWN, list[str](), self.max_turns - 1
        for hop in task.info["hops"]:
            if not left:
                value, sources = UNKNOWN, []
                break
            entity, attribute = hop["keywords"]
            wide = random.random() < (1 - self.skill) / 2
            shown = yield self.says(SEARCH, keywords=[entity] if wide else [entity, attribute])
            left -= 1
            unread = shown_ids(str(shown[-1]["content"]), self.terse)
            value = UNKNOWN
            while unread and left and value == UNKNOWN:
                chosen = unread.pop(0 if random.random() < self.skill else random.randrange(len(unread)))
                yield self.says(READ, message_id=chosen)
                left -= 1
                if chosen in hop["stated"]:
                    value = hop["stated"][chosen]
                    sources.append(chosen)
            if value == UNKNOWN:
                sources = []
                break
        yield self.says(ANSWER, answer=value, sources=sources)
