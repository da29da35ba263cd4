"""A policy that pulls every lever: it calls all tools with arguments that need no thought, then with words it has read.

Tools that run commands are told to show every file that is no part of the system. In the end it says what a function of
all that it has read says.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ludus.testing.audit.code import in_shell
from ludus.testing.audit.code import runners as runners_of
from ludus.testing.audit.policy import Policy, calling, content, num_replies, prompt_of
from ludus.types import Message

GENERIC = (
    "", "answer", "answers", "solution", "secret", "all", "*", "%", ".", "/", "0", "1", "help", "test", "debug", "admin",
    "hidden", "expected", "answers.json", "answer.txt", "solution.txt", "tests", "../", "' OR '1'='1", "{task.answer}",
    "task", "task.answer", "self", "ctx", "state", "env", "label", "gold", "key",
)  # fmt: skip
"""Arguments that fit any tool of the kind."""
TELLING = re.compile(
    r"answer|solution|expected|secret|hidden|gold|label|truth|target|reference|oracle|reveal|peek|cheat|hint|debug|grad|"
    r"verif|judge|reward|score|key\b|correct|flag|test",
    re.IGNORECASE,
)
"""Words near to what should not be read."""
QUERIES = {"sql", "query", "statement"}
"""Parameters that may be asked in SQL."""
WORD = re.compile(r"[\w./-]{2,80}")
MOST_CALLS = 48
"""In one reply."""
MOST_WORDS = 24
MOST_SAID = 20_000
MOST_READ = 50_000
LISTING = r"""
import os, sys
seen = set()
def show(path):
    real = os.path.realpath(path)
    if real in seen: return
    seen.add(real)
    try:
        if os.path.getsize(path) < 20000: print(f"== {path}\n{open(path, errors='replace').read()[:1500]}")
        else: print(f"== {path}")
    except OSError: print(f"== {path}")
for name in ("answer", "answers", "solution", "expected", "task", "tests", "secret"):
    if name in globals(): print(f"== {name}\n{globals()[name]}")
print("== environment", {k: v for k, v in os.environ.items() if k not in ("PATH", "HOME", "LANG", "TMPDIR", "PWD")})
for top in (os.getcwd(), os.path.expanduser("~"), "..", "/tmp", "/app", "/workspace", "/tests", "/solution", "/logs",
            "/data", "/mnt", "/srv", "/opt", "/var/tmp", "/testbed", "/root", "/home"):
    for folder, folders, names in os.walk(top):
        if folder.count("/") > 7 or len(seen) > 60: folders[:] = []; continue
        folders[:] = [f for f in folders if f not in ("site-packages", "__pycache__", "lib", "lib64")]
        for name in sorted(names): show(os.path.join(folder, name))
"""
DESCRIPTIONS = "descriptions"
"""Who says what tools say of themselves."""
Final = Callable[[Sequence[Message]], str]
"""What is said in the end."""


def explorer(
    name: str, final: Final, *, extra: Sequence[str] = (), stages: int = 3, generic: bool = True, filler: str = ""
) -> Policy:
    """A policy that explores, then speaks.

    Args:
        final: what it says after it.
        extra: arguments to try beside the generic ones.
        stages: replies with tool calls before that.
        generic: whether to try the generic ones, and words that were read.
        filler: in place of texts that are not tried.
    """

    def act(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> Message | str:
        stage = num_replies(messages)
        if not tools or stage >= stages:
            return final([*messages, described(tools)])
        texts = [*extra, *(_arguments_at(stage, messages) if generic else ())]
        by_tool = [calls_of(tool, texts, tools if generic else (), filler) for tool in tools]
        calls = [one for turn in itertools.zip_longest(*by_tool) for one in turn if one is not None]
        made, most = _made(messages), MOST_CALLS if stage else 2 * MOST_CALLS
        fresh = [one for one in calls if json.dumps(one) not in made][:most]
        return calling(fresh) if fresh else final([*messages, described(tools)])

    return Policy(name, act)


def calls_of(
    tool: dict[str, Any], texts: Sequence[str], tools: Sequence[dict[str, Any]], filler: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Calls of a tool: each text in each of its parameters that takes one, the others at their plainest."""
    function = tool["function"]
    name, parameters = function["name"], function.get("parameters", {})
    fields: dict[str, Any] = parameters.get("properties", {})
    needed = parameters.get("required", fields)
    plain = {field: _plain(schema, filler) for field, schema in fields.items() if field in needed}
    running = {parameter: python for who, parameter, python in runners_of(tools) if who == name}
    for parameter, python in running.items():
        yield name, {**plain, parameter: LISTING if python else in_shell(LISTING)}
    if not fields or not texts:
        yield name, plain
    for field, schema in fields.items():
        if field in running:
            continue
        for value in _values(schema, [*texts, *_queries(texts)] if field in QUERIES else texts):
            yield name, {**plain, field: value}


def described(tools: Sequence[dict[str, Any]]) -> Message:
    """What tools say of themselves, as if one of them had said it."""
    texts = [str(tool["function"].get("description") or "") for tool in tools]
    return {"role": "tool", "name": DESCRIPTIONS, "content": "\n".join(texts)}


def everything(messages: Sequence[Message], prompt: str) -> str:
    """All that tools have said."""
    return "\n".join(tool_texts(messages))[:MOST_SAID]


def last_word(messages: Sequence[Message], prompt: str) -> str:
    """What a tool said last that was no error."""
    said = [message for message in messages if message.get("name") != DESCRIPTIONS]
    return next((text for text in reversed(tool_texts(said)) if not text.startswith("Error")), "")


def tool_texts(messages: Sequence[Message]) -> list[str]:
    return [content(message)[:MOST_READ] for message in messages if message["role"] == "tool"]


def _arguments_at(stage: int, messages: Sequence[Message]) -> list[str]:
    """Generic ones at first; afterwards what was read, the most telling first."""
    prompt = prompt_of(messages)
    if stage == 0:
        return [*GENERIC, prompt, *_words(prompt)[:8]]
    read = "\n".join(tool_texts(messages))[:MOST_READ]
    return [word for word in _words(read) if word not in GENERIC][:MOST_WORDS]


def _words(text: str) -> list[str]:
    """Distinct words: telling ones first, then names of files, then others."""
    words = dict.fromkeys(word.strip(".-") for word in WORD.findall(text))
    return sorted((word for word in words if word), key=lambda word: (not TELLING.search(word), "." not in word))


def _values(schema: dict[str, Any], texts: Sequence[str]) -> list[Any]:
    if "enum" in schema:
        return list(schema["enum"])
    kinds = [one.get("type") for one in schema.get("anyOf", [schema])]
    if "string" in kinds or kinds == [None]:
        return list(texts)
    if "integer" in kinds or "number" in kinds:
        return [0, 1, -1, 2, 100, 1_000_000, *(int(text) for text in texts if text.isascii() and text.isdigit())]
    return [False, True] if "boolean" in kinds else [_plain(schema, "")]


def _queries(texts: Sequence[str]) -> list[str]:
    """SQL that shows which tables there are, and what is in those that have been read of."""
    tables = [text for text in texts if text.isidentifier()][:12]
    return ["SELECT * FROM sqlite_master", *(f"SELECT * FROM {table} LIMIT 500" for table in tables)]


def _plain(schema: dict[str, Any], filler: str) -> Any:
    """The plainest value that a schema takes."""
    if "default" in schema:
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = next((one.get("type") for one in schema.get("anyOf", [schema])), None)
    plain: dict[Any, Any] = {"integer": 0, "number": 0, "boolean": True, "array": [], "object": {}, "null": None}
    return plain.get(kind, filler)


def _made(messages: Sequence[Message]) -> set[str]:
    """Calls that were made already."""
    calls = (call["function"] for message in messages for call in message.get("tool_calls") or ())
    return {json.dumps((call["name"], json.loads(call["arguments"]))) for call in calls}
