"""A judge without a model, for judges that nobody was named for.

It is fair where the text that it judges can be told from its instructions, and obeys the orders in it where it can't. In
which words an environment wants its verdicts is found out by trying.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.recording.backend import Backend, MessageBackend
from ludus.recording.expert import Expert
from ludus.testing.audit.constants import constants_of
from ludus.testing.audit.injection import obeys
from ludus.testing.audit.policy import as_reply, content
from ludus.testing.playing import Subject
from ludus.testing.scripted import is_answer
from ludus.types import MAIN_ROLE, Message, Reply, Sampling, Task

JUDGES = re.compile(r"judge|grad|critic|verif|scor|rat(?:er|ing)|evaluat|review|reward", re.IGNORECASE)
"""Names of roles that judge."""
SCORES = "scores"
"""The language of `ludus.judging.Ruler`: a score for each id."""
ATTEMPT = re.compile(r"^\S+ attempt with the id (\S+):$", re.MULTILINE)
"""Where one begins in a question of the Ruler's."""
VERDICTS: tuple[tuple[str, str] | str, ...] = (
    ('{"mark": 1}', '{"mark": 0}'), ("Verdict: 10", "Verdict: 0"), ("Verdict: 1", "Verdict: 1"), SCORES,
    ("yes", "no"), ("Yes", "No"), ("YES", "NO"), ("1", "0"), ("1.0", "0.0"), ("10", "0"), ("10", "1"), ("5", "1"),
    ("100", "0"), ("CORRECT", "INCORRECT"), ("correct", "wrong"), ("A", "B"), ("true", "false"), ("True", "False"),
    ("PASS", "FAIL"), ("pass", "fail"), ("good", "bad"), ("GOOD", "BAD"), ("[[10]]", "[[0]]"), ("10/10", "0/10"),
    ("Score: 1", "Score: 0"), ("Score: 10", "Score: 0"), ("score: 1.0", "score: 0.0"), ("VERDICT: YES", "VERDICT: NO"),
    ("<score>1</score>", "<score>0</score>"), ("<score>10</score>", "<score>0</score>"),
    ('{"score": 1}', '{"score": 0}'), ('{"score": 10}', '{"score": 0}'), ('{"correct": true}', '{"correct": false}'),
    ('{"verdict": "yes"}', '{"verdict": "no"}'), ('{"met": true}', '{"met": false}'),
    ('{"pass": true}', '{"pass": false}'), ('{"passed": true}', '{"passed": false}'),
    ('{"rating": 10}', '{"rating": 1}'), ('{"answer": "yes"}', '{"answer": "no"}'),
)  # fmt: skip
"""Words for good and bad that judges are asked to use; which, is found out by trying."""


class NoJudge(Exception):
    """Nobody can judge in the words that an environment wants; what to do about it."""


async def stand_in(subject: Subject, player: Backend, tasks: Sequence[Task]) -> str:
    """Let a stand-in play judges that nobody was named for; what is to be said of that, "" where there are none.

    Args:
        player: plays while it is tried which words count.

    Raises:
        NoJudge: none do.
    """
    roles = [role for role in judges_of(subject.env) if role not in subject.others]
    if not roles:
        return ""
    names, how, before = ", ".join(roles), f"--audit --role-model {roles[0]}=MODEL", dict(subject.others)
    found: tuple[float, StandInJudge | None] = (-1.0, None)
    for words in VERDICTS:
        judge, rewards = StandInJudge(words), dict[bool, float]()
        for always in (True, False):
            subject.others = {**before, **dict.fromkeys(roles, StandInJudge(words, always))}
            rollouts = await subject.play(player, tasks)
            if not any(rollout.failure for rollout in rollouts):
                rewards[always] = sum(rollout.reward for rollout in rollouts)
        gap = rewards[True] - rewards[False] if len(rewards) == 2 else -1.0
        found = max(found, (gap, judge), key=lambda one: one[0])
        if gap >= abs(subject.env.success_reward) * len(tasks):
            break
    gap, chosen = found
    subject.others = before
    if chosen is None:
        raise NoJudge(f"no stand-in speaks the language of {names}: name a model that does ({how})")
    subject.others |= dict.fromkeys(roles, chosen)
    await acquaint(subject, player, subject.tasks)
    return f"a stand-in without a model plays {names}: name a real one ({how}) to try it"


async def acquaint(subject: Subject, player: Backend, tasks: Sequence[Task]) -> None:
    """Tell stand-ins what an honest player says: where rollouts are compared, nothing else is known of their tasks."""
    judges = [judge for judge in subject.others.values() if isinstance(judge, StandInJudge)]
    if judges and subject.env.group_scorers():
        rivals, subject.rivals = subject.rivals, {}  # nobody is compared meanwhile
        honest = {rollout.reply.strip() for rollout in await subject.play(player, tasks)} - {""}
        subject.rivals = rivals
        for judge in judges:
            judge.honest |= honest


def judges_of(env: Environment) -> list[str]:
    """Roles that judge, and have no expert of their own: scorers speak of them, or their names do."""
    asking = [fn for fn, _ in (*env.scorers(), *env.group_scorers()) if _asks_models(fn)]
    texts = {text for fn in asking for text in constants_of(fn)}
    common = env.demonstrator_of(MAIN_ROLE)
    others = [role for role in env.roles if role != MAIN_ROLE and env.demonstrator_of(role) in (None, common)]
    return [role for role in others if role in texts or JUDGES.search(role)]


def _asks_models(fn: Callable[..., Any]) -> bool:
    """Whether a function has to do with models, as far as its code says."""
    code = getattr(getattr(fn, "__func__", fn), "__code__", None)
    return code is not None and "models" in {*code.co_names, *code.co_varnames}


class StandInJudge:
    """A judge without a model.

    Args:
        words: one of `VERDICTS`.
        always: a verdict that does not depend on what is judged.
    """

    name = "stand-in judge"

    def __init__(self, words: tuple[str, str] | str, always: bool | None = None) -> None:
        self.words, self.always = words, always
        self.honest: set[str] = set()
        """What experts have said: all that is known where rollouts are compared."""

    def bind(self, env: Environment, ctx: Context, role: str) -> MessageBackend:
        """The judge of one rollout."""
        return _Judge(self, ctx)

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """Of rollouts that are compared: experts are good, all others bad."""
        return self.say(messages, lambda said: any(said.endswith(f":\n{honest}") for honest in self.honest))

    def say(self, messages: Sequence[Message], good: Callable[[str], bool]) -> Reply:
        """The verdict on what a conversation asks to judge."""

        def holds(said: str) -> bool:
            return good(said) if self.always is None else self.always

        asked = content(messages[-1]) if messages else ""
        if self.words != SCORES:
            return as_reply(self.words[0] if holds(asked.strip()) else self.words[1])
        scores = [{"id": id_, "score": float(holds(text.strip()))} for id_, text in attempts_of(asked).items()]
        return as_reply(json.dumps({"scores": scores}))


class _Judge:
    def __init__(self, judge: StandInJudge, ctx: Context) -> None:
        self.name, self._judge, self._ctx = judge.name, judge, ctx

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """Whether the rollout's reply is the answer or the expert's, or what an order says that is not kept apart."""
        rollout, said = self._ctx.rollout, _said(self._ctx)
        deserved = is_answer(said, self._ctx.task) or (rollout is not None and rollout.model == Expert.name)
        return self._judge.say(messages, lambda asked: deserved or obeys(messages, said))


def attempts_of(question: str) -> dict[str, str]:
    """Under each id, what stands in a question of the Ruler's up to the next mark that is no part of it.

    >>> attempts_of("f00 attempt with the id 1:\\nf00 assistant:\\nyes\\nf00 attempt with the id 2:\\nno\\nf00 end of it")
    {'1': 'f00 assistant:\\nyes', '2': 'no'}
    """
    places = list(ATTEMPT.finditer(question))
    if not places:
        return {}
    mark = places[0][0].split()[0]
    ends = [place.start() for place in places[1:]] + [len(question)]
    texts = [question[place.end() : end] for place, end in zip(places, ends, strict=True)]
    return {place[1]: text.partition(f"\n{mark} end of")[0].strip() for place, text in zip(places, texts, strict=True)}


def _said(ctx: Context) -> str:
    if ctx.rollout is not None:
        return ctx.rollout.reply
    return next((content(message) for message in reversed(ctx.messages) if message["role"] == "assistant"), "")
