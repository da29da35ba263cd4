"""A judge without a model, for judges that nobody was named for.

It is fair where the text that it judges can be told from its instructions, and obeys the orders in it where it can't. In
which words an environment wants its verdicts is found out by trying.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ludus.authoring.calling import call, wanted
from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.recording.backend import Backend, MessageBackend
from ludus.testing.audit.injection import obeys
from ludus.testing.audit.policy import as_reply, content
from ludus.testing.audit.search import constants_of
from ludus.testing.playing import Subject
from ludus.testing.scripted import Scripted, is_answer
from ludus.types import MAIN_ROLE, Message, Reply, Rollout, Sampling, Task

JUDGES = re.compile(r"judge|grad|critic|verif|scor|rat(?:er|ing)|evaluat|review|reward", re.IGNORECASE)
"""Names of roles that judge."""
VERDICTS = (
    ("yes", "no"), ("Yes", "No"), ("YES", "NO"), ("1", "0"), ("1.0", "0.0"), ("10", "0"), ("10", "1"), ("5", "1"),
    ("100", "0"), ("CORRECT", "INCORRECT"), ("correct", "wrong"), ("A", "B"), ("true", "false"), ("True", "False"),
    ("PASS", "FAIL"), ("pass", "fail"), ("good", "bad"), ("GOOD", "BAD"), ("[[10]]", "[[0]]"), ("10/10", "0/10"),
    ("Score: 1", "Score: 0"), ("Score: 10", "Score: 0"), ("score: 1.0", "score: 0.0"), ("VERDICT: YES", "VERDICT: NO"),
    ("<score>1</score>", "<score>0</score>"), ("<score>10</score>", "<score>0</score>"),
    ('{"score": 1}', '{"score": 0}'), ('{"score": 10}', '{"score": 0}'), ('{"correct": true}', '{"correct": false}'),
    ('{"verdict": "yes"}', '{"verdict": "no"}'), ('{"met": true}', '{"met": false}'),
    ('{"mark": 1}', '{"mark": 0}'), ('{"pass": true}', '{"pass": false}'), ('{"passed": true}', '{"passed": false}'),
    ('{"rating": 10}', '{"rating": 1}'), ('{"answer": "yes"}', '{"answer": "no"}'),
)  # fmt: skip
"""Words for good and bad that judges are asked to use; which, is found out by trying."""


async def stand_in(subject: Subject, expert: Backend, tasks: Sequence[Task]) -> str:
    """Let a stand-in play judges that nobody was named for; what is to be said of that, "" where there are none."""
    env = subject.env
    roles = [role for role in judges_of(env) if role not in subject.others and not _knows_its_judge(env, role)]
    if not roles:
        return ""
    wrong, before = Scripted("wrong", lambda messages: "This is not an answer."), dict(subject.others)
    chosen, best = StandInJudge(*VERDICTS[0]), 0.0
    for good, bad in VERDICTS:
        judge = StandInJudge(good, bad)
        subject.others = {**before, **dict.fromkeys(roles, judge)}
        right, others = await subject.play(expert, tasks), await subject.play(wrong, tasks)
        gap = _mean(right) - _mean(others)
        if gap > best and not any(rollout.failure for rollout in (*right, *others)):
            chosen, best = judge, gap
        if best >= abs(subject.env.success_reward):
            break
    subject.others = {**before, **dict.fromkeys(roles, chosen)}
    names, how = ", ".join(roles), f"--audit --role-model {roles[0]}=MODEL"
    if not best:
        return f"no stand-in speaks the language of {names}: name a real model ({how})"
    return f"a stand-in without a model plays {names}: name a real one ({how}) to try it"


def _knows_its_judge(env: Environment, role: str) -> bool:
    """Whether the environment has an expert for a judge, other than the one that does its tasks."""
    return env.demonstrator_of(role) not in (None, env.demonstrate)


def judges_of(env: Environment) -> list[str]:
    """Roles that judge: scorers speak of them, or their names do."""
    asking = [fn for fn, _ in (*env.scorers(), *env.group_scorers()) if _asks_models(fn)]
    texts = {text for fn in asking for text in constants_of(fn)}
    return [role for role in env.roles if role != MAIN_ROLE and (role in texts or JUDGES.search(role))]


def _asks_models(fn: Callable[..., Any]) -> bool:
    """Whether a function has to do with models, as far as its code says."""
    code = getattr(getattr(fn, "__func__", fn), "__code__", None)
    return code is not None and "models" in {*code.co_names, *code.co_varnames}


class StandInJudge:
    """A judge without a model, in the words of one pair of `VERDICTS`."""

    name = "stand-in judge"

    def __init__(self, good: str, bad: str) -> None:
        self.good, self.bad = good, bad

    def bind(self, env: Environment, ctx: Context, role: str) -> MessageBackend:
        """The judge of one rollout."""
        return _Judge(self, env, ctx)

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """Outside of a rollout everything is bad."""
        return as_reply(self.bad)


class _Judge:
    def __init__(self, judge: StandInJudge, env: Environment, ctx: Context) -> None:
        self.name, self._judge, self._env, self._ctx = judge.name, judge, env, ctx

    async def complete(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], sampling: Sampling) -> Reply:
        """Whether the rollout's reply is the answer, or what an order says that is not kept apart."""
        said = _said(self._ctx)
        deserved = is_answer(said, self._ctx.task) or said in await _honest(self._env, self._ctx.task)
        return as_reply(self._judge.good if deserved or obeys(messages, said) else self._judge.bad)


def _said(ctx: Context) -> str:
    if ctx.rollout is not None:
        return ctx.rollout.reply
    return next((content(message) for message in reversed(ctx.messages) if message["role"] == "assistant"), "")


async def _honest(env: Environment, task: Task) -> list[str]:
    """The expert's reply, where it always is the same text."""
    if not env.can_demonstrate or not set(wanted(env.demonstrate)) <= {"task"}:
        return []
    said = await call(env.demonstrate, task)
    return (
        [said]
        if isinstance(said, str)
        else [text for text in said if isinstance(text, str)]
        if isinstance(said, list)
        else []
    )


def _mean(rollouts: Sequence[Rollout]) -> float:
    return sum(rollout.reward for rollout in rollouts) / len(rollouts) if rollouts else 0.0
