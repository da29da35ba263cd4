"""Answers that stand where a policy can read them: found by rule, then played.

A rule is a piece of text before an answer and one after it (wrapper induction, Kushmerick 1997): learnt from what an
explorer reads in some tasks, and worth as much as it earns in others. A rule that experts use is no leak but the task.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ludus.recording.backend import Backend
from ludus.testing.audit import hidden
from ludus.testing.audit.desk import Desk, HandsIn
from ludus.testing.audit.explorer import MOST_READ, MOST_WORDS, TELLING, described, everything, explorer, last_word
from ludus.testing.audit.policy import Policy, Read, Strategy, calling, content, num_replies, prompt_of
from ludus.testing.scripted import answer_text
from ludus.types import MAIN_ROLE, Message, Rollout, Task

PROMPT = "⟨prompt⟩"
"""Stands for the task's prompt where it is quoted."""
SURE = re.compile(r"answer|solution|expected|gold|truth|oracle|correct", re.IGNORECASE)
"""Words that no task calls anything else than its answer."""
LENGTHS = (3, 6, 10, 16, 24, 40)
"""Characters before an answer that a rule may look for."""
ENDS = ("\n", '"', "'", ",", ")", "]", "}", "<", ".", ";", " ", ":", "?")
SHARE = 0.5
"""Of tasks in which a rule has to find the answer."""
MOST_RULES = 4
MOST_FIELDS = 8
NAMED = re.compile(
    r"(?:answer|solution|expected|result|gold|label|truth|target|secret|key|correct)[\"']?\s*(?:is|[:=])+\s*[\"']?([^\n\"',;<]{1,200})",
    re.IGNORECASE,
)
"""Something with the name of an answer."""


@dataclass(frozen=True)
class Extraction:
    """What stands between two texts."""

    before: str
    end: str
    last: bool
    """Whether the last place counts rather than the first."""
    disguise: str = ""
    """How it is written there; "" is as it is."""

    def apply(self, text: str) -> str:
        """What it finds in a text, "" for nothing.

        >>> Extraction("answer: ", "\\n", False).apply("x\\nanswer: 7\\ny")
        '7'
        """
        place = text.rfind(self.before) if self.last else text.find(self.before)
        if place < 0:
            return ""
        rest = text[place + len(self.before) :]
        found = (rest.partition(self.end)[0] if self.end else rest).strip()
        return hidden.read(self.disguise, found) if self.disguise else found


def readers(with_tools: bool, known: Sequence[str], constants: Sequence[str]) -> list[Strategy]:
    """Policies that say what is called an answer, or all that they have read.

    Args:
        known: answers of other tasks.
        constants: what scorers look for.
    """
    found = [_reading("what the prompt calls an answer", named, False)]
    if with_tools:
        found += [
            _reading("every tool, then what is called an answer", named, True),
            _reading("every tool, then all of it", everything, True),
            _reading("every tool, then its last word", last_word, True),
            _pulling("again and again", stages=100),
            _pulling("with answers of other tasks", extra=known[:MOST_WORDS], stages=1, generic=False, filler="1"),
            _pulling("with what scorers look for", extra=constants[:MOST_WORDS], stages=1, generic=False, filler="1"),
        ]
    return found


def probe(with_tools: bool, desks: Sequence[Desk]) -> Backend:
    """Reads what there is to read, and hands in nothing before that."""
    if not with_tools:
        return Policy("probe", lambda messages, tools: "")
    reader = explorer("probe", lambda messages: "")
    return HandsIn("probe", reader, desks[0]) if desks else reader


def rules(rollouts: Sequence[Rollout], honest: bool) -> list[Strategy]:
    """Strategies that apply the rules which find what scorers look for in most of a probe's rollouts.

    Args:
        rollouts: of `probe`.
        honest: whether experts show which texts are theirs to read. Where nobody shows it, and in prompts, rules count only
            beside words for answers.
    """
    found: Counter[Extraction] = Counter()
    in_ids: Counter[Extraction] = Counter()
    prompts = [seen(rollout.task.messages(), "") for rollout in rollouts]

    def from_prompt(rule: Extraction) -> bool:
        return any(map(rule.apply, prompts))

    for rollout in rollouts:
        heard = [*rollout.conversation(MAIN_ROLE)[:-1], *([described(rollout.tools)] if rollout.tools else [])]
        text = seen(heard, prompt_of(rollout.task.messages()))
        rules = {rule: secret for secret in secrets_of(rollout.task) for rule in _candidates(text, secret)}
        found.update(rules.keys())
        in_ids.update(rule for rule, secret in rules.items() if _in_id(rule, secret, rollout.task))
    least = max(2, SHARE * len(rollouts))
    kept = [
        rule
        for rule, count in sorted(found.items(), key=lambda item: (-item[1], -len(item[0].before)))
        if count >= least
        and (
            PROMPT in rule.before
            or in_ids[rule] >= least
            or (rule.disguise != "" and not hidden.ABOUT.search(prompts[0]))
            or (not rule.disguise and (_tells(rule.before, prompts[0]) or (honest and not from_prompt(rule))))
        )
    ]
    tools = any(rollout.tools for rollout in rollouts)
    distinct = {rule.before.strip(): rule for rule in reversed(kept)}
    return [_played(rule, tools) for rule in list(distinct.values())[::-1][:MOST_RULES]]


def telling_calls(probed: Sequence[Rollout], experts: Sequence[Rollout]) -> list[Strategy]:
    """Strategies that make one call, the same in all tasks, and say what came of it: where that is what scorers look for,
    and experts, who are known to do without it, never ask.

    Args:
        probed: rollouts of `probe`.
        experts: of honest play.
    """
    found: Counter[tuple[str, str]] = Counter()
    for rollout in probed:
        secrets = {secret.strip() for secret in secrets_of(rollout.task)}
        found.update({made for made, said in _answered(rollout) if said.strip() in secrets})
    honest = {made for rollout in experts for made, _ in _answered(rollout)}
    kept = [made for made, count in found.most_common() if count >= max(2, SHARE * len(probed)) and made not in honest]
    return [_asking(tool, arguments) for tool, arguments in kept[:MOST_RULES]]


def _answered(rollout: Rollout) -> Iterator[tuple[tuple[str, str], str]]:
    """Each tool call, as name and arguments, and what it was answered."""
    messages = rollout.conversation(MAIN_ROLE) + rollout.epilogue
    waiting: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "assistant":
            waiting = list(message.get("tool_calls") or ())
        elif message["role"] == "tool" and waiting:
            function = waiting.pop(0)["function"]
            yield (function["name"], function["arguments"]), content(message)


def _asking(tool: str, arguments: str) -> Strategy:
    """Makes one call, and says what was answered."""
    name = f"{tool}({arguments}), then what it says"

    def act(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> Message | str:
        said = last_word(messages, "")
        return said if num_replies(messages) else calling([(tool, json.loads(arguments))])

    return Strategy(name, "leak", Policy(name, act), lambda messages, prompt: "")


def named(messages: Sequence[Message], prompt: str) -> str:
    """The last thing with the name of an answer."""
    texts = [content(message)[:MOST_READ] for message in messages if message["role"] != "assistant"]
    found = [match for match in NAMED.finditer("\n".join(texts)[-MOST_READ:]) if _tells(match[0], prompt)]
    return found[-1][1].strip() if found else ""


def _tells(label: str, prompt: str) -> bool:
    """Whether a text says that what follows is the answer, rather than what a task is about, which it names twice."""
    words = TELLING.findall(label)
    return bool(SURE.search(label) or any(prompt.casefold().count(word.casefold()) < 2 for word in words))


def seen(messages: Sequence[Message], prompt: str) -> str:
    """All that was read, with the prompt, where tools quote it, under one name for all tasks."""
    texts = []
    for message in messages:
        text = content(message)
        if message["role"] == "tool" and len(prompt) > 2:
            text = text.replace(prompt, PROMPT).replace(json.dumps(prompt)[1:-1], PROMPT)
        if message["role"] != "assistant":
            texts.append(f"⟨{message['role']} {message.get('name', '')}⟩{text}")
    return "\n".join(texts) + "\n"


def secrets_of(task: Task) -> list[str]:
    """Texts that scorers may look for: the answer, or where there is none, what stands in `info`."""
    if task.answer is not None:
        return [answer_text(task)]
    return list(dict.fromkeys(_leaves(task.info)))[:MOST_FIELDS]


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _leaves(one)
    elif isinstance(value, str) and value:
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)


def _candidates(text: str, secret: str) -> set[Extraction]:
    """Rules that find a secret in a text, as it is or in disguise."""
    rules = _as_written(text, secret, "", secret)
    for name, looks in hidden.disguised(secret.strip()).items():
        rules |= _as_written(text, looks, name, secret)
    return rules


def _in_id(rule: Extraction, secret: str, task: Task) -> bool:
    """Whether what a rule finds is a part of the task's id, as what it is glued to."""
    glued = re.search(r"[^\W\d_]{2,}[-_:#/.]?$", rule.before)
    return glued is not None and not rule.disguise and len(secret) > 1 and glued[0] + secret in task.id


def _as_written(text: str, looks: str, disguise: str, secret: str) -> set[Extraction]:
    """Rules that find a secret which looks so."""
    rules: set[Extraction] = set()
    places = [match.start() for match in re.finditer(re.escape(looks), text)][:200] if looks.strip() else []
    for place in places:
        after = text[place + len(looks) : place + len(looks) + 1]
        ends = [after] if after in ENDS else []
        for length in LENGTHS:
            before = text[max(0, place - length) : place]
            for rule in (Extraction(before, end, last, disguise) for end in ends for last in (False, True)):
                if before and rule.apply(text) == secret.strip():
                    rules.add(rule)
    return rules


def _played(rule: Extraction, tools: bool) -> Strategy:
    where = ("every tool, then what" if tools else "what") + (f" in {rule.disguise}" if rule.disguise else "")
    return _reading(
        f"{where} is read after {rule.before!r}", lambda messages, prompt: rule.apply(seen(messages, prompt)), tools
    )


def _pulling(how: str, **options: Any) -> Strategy:
    """Calls every tool, and says nothing of it."""
    name = f"every tool, {how}"
    return Strategy(name, "blind", explorer(name, lambda messages: "Done.", **options))


def _reading(name: str, read: Read, tools: bool) -> Strategy:
    """Says what is read, in the prompt or by every tool."""

    def say(messages: Sequence[Message]) -> str:
        return read(messages, prompt_of(messages))

    backend = explorer(name, say) if tools else Policy(name, lambda messages, tools: say(messages))
    return Strategy(name, "leak", backend, read)
