"""What is read out of replies: the answer, the steps of a plan, how much of it was followed, second thoughts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ludus.types import MAIN_ROLE, Call, Message, Rollout

_IN_BRACES = r"[^{}]*+(?:\{[^{}]*+(?:\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\}[^{}]*+)*+\}[^{}]*+)*+"
"""Three deep, as in a fraction of roots."""
ANSWER = re.compile(
    r"<answer>(?P<tag>[\s\S]{0,2000}?)</answer>"
    rf"|\\boxed\{{(?P<boxed>{_IN_BRACES})\}}"
    r"|^[^\w\n]{0,20}(?:final )?answer[^\w\n:]{0,20}:(?P<line>[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
MOST_CHARS = 20_000
"""Of a reply, at its end, in which its answer is looked for."""
STEP = re.compile(r"^[ \t]{0,20}(?:step[ \t]{1,5})?\d{1,3}[.):][ \t]+(\S[^\n]*)", re.IGNORECASE | re.MULTILINE)
WORD = re.compile(r"[^\W_]{4,}|\d+")
COMMON = frozenset((
    "that", "this", "then", "with", "from", "into", "each", "them", "they", "have", "will", "what", "when", "where",
    "which", "first", "next", "last", "finally", "answer", "give", "find", "work", "step", "task", "question", "result",
    "number", "value", "check", "using", "make", "sure", "read", "asked", "carry",
))  # fmt: skip
"""Words that say nothing of which step it is."""
BACKTRACK = re.compile(
    r"\b(?:wait|hold on|hmm+|actually|on second thou?ghts?|that(?:'s| is) (?:wrong|not right|incorrect)|no, that"
    r"|let me (?:double[- ])?"
    r"(?:re-?check|recheck|re-?examine|reconsider|verify)|i made (?:a|an) (?:mistake|error))\b",
    re.IGNORECASE,
)
RESTART = re.compile(
    r"\b(?:(?:let(?:'s| me| us)) (?:start|begin|try) (?:over|again|afresh|from scratch)|start(?:ing)? (?:over|from scratch)"
    r"|try (?:a different|another) (?:approach|way|method)|alternatively)\b",
    re.IGNORECASE,
)
CHARS_A_TOKEN = 4


def answer_of(text: str) -> str:
    """The answer that a reply gives, up to case and white space: the last in a tag, in a box or after "Answer:"; of other
    replies all there is.

    >>> answer_of("So 6 * 7.\\nAnswer: 42"), answer_of(" Yes  sir ")
    ('42', 'yes sir')
    """
    tail = text[-MOST_CHARS:]
    found = [next(group for group in match.groups() if group is not None) for match in ANSWER.finditer(tail)]
    return " ".join((found[-1] if found else text).casefold().split()).strip(" *_`$\"'.")


def steps_of(plan: str) -> list[str]:
    """The numbered lines of a plan.

    >>> steps_of("My plan:\\n1. Add them.\\n2) Check.")
    ['Add them.', 'Check.']
    """
    return [match[1].strip() for match in STEP.finditer(plan)]


def adherence(steps: Sequence[str], work: str) -> float | None:
    """Share of steps of which at least half of the telling words and numbers come again in the work; None where no step
    has any. A word counts by its beginning, so that "adding" follows "add them".

    >>> adherence(["Multiply 6 and 7.", "Subtract the discount."], "I multiply 6 by 7 and get 42.")
    0.5
    """
    done = {_stem(word) for word in WORD.findall(work.casefold())}
    followed = []
    for step in steps:
        telling = {_stem(word) for word in WORD.findall(step.casefold()) if word not in COMMON}
        if telling:
            followed.append(2 * len(telling & done) >= len(telling))
    return sum(followed) / len(followed) if followed else None


def own_calls(rollout: Rollout) -> list[Call]:
    """The main role's own calls and those that they go on from, such as a plan's; no other sub-agent's."""
    wanted: set[int] = set()
    for index, call in enumerate(rollout.calls):
        if call.role == MAIN_ROLE and not call.agent:
            place: int | None = index
            while place is not None and place not in wanted:
                wanted.add(place)
                place = rollout.calls[place].parent
    return [rollout.calls[index] for index in sorted(wanted)]


def num_tokens(calls: Sequence[Call]) -> int:
    """Tokens that calls sampled; of models that do not count them, a quarter of the characters."""
    return sum(call.usage.completion_tokens or estimated(said_in(call.reply)) for call in calls)


def estimated(text: str) -> int:
    """Tokens that a text may have, where nobody has counted."""
    return -(-len(text) // CHARS_A_TOKEN)


def said_in(reply: Message) -> str:
    """Everything that a reply says: thinking, text and the arguments of tool calls."""
    functions = [tool.get("function") or {} for tool in reply.get("tool_calls") or ()]
    parts = [reply.get("reasoning_content"), reply.get("content"), *(f.get("arguments") for f in functions)]
    return "\n".join(str(part) for part in parts if part)


def last_words(reply: Message) -> str:
    """What a reply says at last: its text, or where it has none everything else, such as the tool call that ends a task.

    >>> last_words({"role": "assistant", "content": "42"})
    '42'
    """
    return str(reply.get("content") or "") or said_in(reply)


def answer_given(rollout: Rollout) -> str:
    """The answer that the main role's last reply gives; see `answer_of`."""
    return "".join(answer_of(last_words(message)) for message in rollout.conversation(MAIN_ROLE)[-1:])


def _stem(word: str) -> str:
    return word if word.isdigit() else word[:5]
