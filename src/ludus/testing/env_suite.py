"""`check_environment`: does an environment keep its promises, and can its reward be had without solving anything?

    for finding in ludus.testing.check_environment(MyEnvironment()):
        assert finding.ok is not False, finding

Everything is played through the real scheduler by scripted policies. An environment that raises is a finding, never a
crash of the check. Left out: whether the tasks are any good.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from ludus.authoring.calling import INJECTED, call
from ludus.authoring.environment import Environment
from ludus.authoring.loading import load_environment, rebuildable
from ludus.authoring.tasks import take
from ludus.authoring.tools import SchemaTool
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.errors import ModelCallFailed
from ludus.recording.backend import TokenBackend
from ludus.testing.audit.judging import NoJudge, judges_of, stand_in
from ludus.testing.audit.policy import expert_of
from ludus.testing.env_rewards import check_degenerate_replies, check_demonstrations, check_scorers
from ludus.testing.finding import Finding
from ludus.testing.hanging import NeverReturns
from ludus.testing.playing import Subject, failures
from ludus.testing.scripted import Unreachable
from ludus.types import Sampling, Task

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
CHECK_TIMEOUT_S = 600.0
CHECK_RETURNS = "comes back"
MOST_TURNS = 50
FEW = 3
"""Rollouts that show whether something works at all."""

Check = Callable[[Subject], Awaitable[list[Finding]]]


def check_environment(env: Environment, *, num_tasks: int = 20) -> list[Finding]:
    """Examine an environment. Not for use inside a running event loop: there, `check_environment_async` is.

    Args:
        env: built with the options it is to be used with.
        num_tasks: tasks that each scripted policy plays.

    Returns:
        Every check's outcome, in a fixed order. `ok` is False where the environment should not be trained on as it is.
    """
    return asyncio.run(check_environment_async(env, num_tasks=num_tasks))


async def check_environment_async(
    env: Environment,
    *,
    num_tasks: int = 20,
    named: Sequence[str] = (),
    tell: Callable[[str], object] = lambda text: None,
) -> list[Finding]:
    """See `check_environment`.

    Args:
        named: roles whose models play in the audit that follows, though not here.
        tell: told what is played now.
    """
    subject = Subject(env, num_tasks, tell=tell)
    findings = await _guarded("tasks", check_tasks, subject)
    if not subject.tasks:
        return findings
    checks: list[tuple[str, Check]] = [
        ("judge", lambda subject: find_judge(subject, named)),
        ("splits", check_splits),
        ("tools", check_tools),
        ("setup and teardown", check_teardown),
        ("recording", check_recording),
        ("demonstrations", check_demonstrations),
        ("degenerate replies", check_degenerate_replies),
        ("scorers", check_scorers),
    ]
    stack = AsyncExitStack()

    async def open_(subject: Subject) -> list[Finding]:
        await stack.enter_async_context(env.opened())  # once for all checks
        return []

    async def close(subject: Subject) -> list[Finding]:
        await stack.aclose()
        return []

    if closed := await _guarded("open", open_, subject):
        return findings + closed
    try:
        for name, check in checks:
            findings += await _guarded(name, check, subject)
    except NeverReturns as error:  # what hangs goes on, and holds up all that follows
        findings.append(Finding(CHECK_RETURNS, False, f"{error}; what follows was not looked at"))
    finally:
        findings += await _guarded("close", close, subject)
    return findings


async def _guarded(name: str, check: Check, subject: Subject) -> list[Finding]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check(subject)
    except TimeoutError as error:
        return [Finding(name, False, f"not done after {CHECK_TIMEOUT_S:.0f} s, or: {error!r}")]
    except NeverReturns:
        raise
    except Exception as error:  # noqa: BLE001 - it is the finding
        return [Finding(name, False, f"raised {type(error).__name__}: {error}")]


# --- tasks --------------------------------------------------------------------------------------------------------


async def check_tasks(subject: Subject) -> list[Finding]:
    """Every split has tasks: the same each time, also when built anew, of unique ids, and JSON through and through."""
    env = subject.env
    await subject.scan()
    problems: list[str] = []
    for split, tasks in subject.scanned.items():
        first = tasks[: subject.num_tasks]
        problems += _differences(split, "called again", first, await call(take, env, split, subject.num_tasks))
        problems += [f"{split}: {problem}" for problem in map(_not_json, first) if problem][:1]
    counts = ", ".join(f"{split} {len(tasks)}" for split, tasks in subject.scanned.items())
    return [
        Finding("tasks", not problems, "; ".join(problems) or f"deterministic, unique ids, JSON ({counts} looked at)"),
        await _rebuilt(subject),
    ]


async def _rebuilt(subject: Subject) -> Finding:
    env, name = subject.env, "tasks of a rebuilt environment"
    if env.ref is not None and not rebuildable(env):
        return Finding(name, None, "its options are not all JSON values, so no other process can build it")
    if env.ref is not None:
        rebuilt: Environment = await call(load_environment, env.ref.id, env.ref.options)
    else:
        rebuilt = await call(type(env), **env.options)
    problems: list[str] = []
    for split, tasks in subject.scanned.items():
        again = await call(take, rebuilt, split, subject.num_tasks)
        problems += _differences(split, "built anew from its options", tasks[: subject.num_tasks], again)
    return Finding(name, not problems, "; ".join(problems) or f"the same, built from {env.describe().options}")


def _differences(split: str, when: str, before: list[Task], after: list[Task]) -> list[str]:
    if before == after:
        return []
    if len(before) != len(after):
        return [f"{split}: {len(before)} tasks, but {len(after)} when {when}"]
    index = next(i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new)
    return [
        f"{split}: task {index} is another one when {when} ({before[index].id} and {after[index].id}): draw tasks from "
        f"random.Random with a fixed seed"
    ]


def _not_json(task: Task) -> str:
    try:
        back = msgspec.json.decode(msgspec.json.encode(task), type=Task)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        return f"task {task.id} is not JSON: {error}"
    return "" if back == task else f"task {task.id} changes on its way through JSON: {task} becomes {back}"


async def check_splits(subject: Subject) -> list[Finding]:
    """No problem is in two splits, whatever the ids say."""
    if len(subject.scanned) < 2:
        return [Finding("splits", None, f"there is one split, {subject.split!r}")]
    where: dict[str, tuple[str, Task]] = {}
    shared: list[str] = []
    for split, tasks in subject.scanned.items():
        for task in tasks:
            other, twin = where.setdefault(task.content_key(), (split, task))
            if other != split:
                shared.append(f"{task.id} of {split} is {twin.id} of {other}")
    detail = (
        f"{len(shared)} tasks are in two splits, such as {shared[0]}: split by content (a hash of the prompt), not by "
        f"seed or position"
        if shared
        else f"{len(where)} tasks looked at, no problem is in two of {', '.join(subject.scanned)}"
    )
    return [Finding("splits", not shared, detail)]


async def find_judge(subject: Subject, named: Sequence[str] = ()) -> list[Finding]:
    """Roles that judge are played by a stand-in: a policy under examination must not judge itself, and the checks ask a
    judge too often to ask a real one."""
    try:
        note = await stand_in(subject, expert_of(subject.env), subject.tasks[:FEW])
    except NoJudge as error:
        note = str(error)
    else:
        judges = judges_of(subject.env)
        if note and set(judges) <= set(named):
            note = f"a stand-in without a model plays {', '.join(judges)} in these checks; yours plays in the audit"
    return [Finding("judge", None, note)] if note else []


# --- tools, life cycle, recording ---------------------------------------------------------------------------------


async def check_tools(subject: Subject) -> list[Finding]:
    """Schemas that APIs accept and models can use: names, descriptions, typed parameters, nothing injected."""
    tools = subject.env.make_tools()
    problems = [
        problem
        for tool in tools.values()
        for problem in tool_problems(tool.schema, injects=not isinstance(tool, SchemaTool))
    ]
    if not tools:
        return [Finding("tools", None, "there are none")]
    return [Finding("tools", not problems, "; ".join(problems) or f"described and typed: {', '.join(tools)}")]


def tool_problems(schema: dict[str, Any], *, injects: bool = True) -> list[str]:
    """What is wrong with a tool's schema in OpenAI's format, where parameters of some names are filled in or not."""
    function = schema.get("function", {})
    name, parameters = function.get("name", ""), function.get("parameters", {})
    problems: list[str] = []
    if not TOOL_NAME.fullmatch(name):
        problems.append(f"tool {name!r}: a name has 1 to 64 letters, digits, _ or -")
    if not (function.get("description") or "").strip():
        problems.append(f"tool {name}: no description; the model reads the docstring")
    if schema.get("type") != "function" or parameters.get("type") != "object":
        problems.append(f"tool {name}: expected a function whose parameters are an object, got {json.dumps(schema)}")
    for parameter, field in parameters.get("properties", {}).items():
        if injects and parameter in INJECTED:
            problems.append(f"tool {name}: the parameter {parameter} is filled in and must not be shown")
        elif not field.keys() & {"type", "anyOf", "allOf", "oneOf", "$ref", "enum", "const"}:
            problems.append(f"tool {name}: the parameter {parameter} has no type; annotate it")
    return problems


async def check_teardown(subject: Subject) -> list[Finding]:
    """A rollout that fails is cleaned up: `teardown` can cope with it."""
    kind = type(subject.env)
    if kind.setup is Environment.setup and kind.teardown is Environment.teardown:
        return [Finding("setup and teardown", None, "neither is defined")]
    rollouts = await subject.play(Unreachable(), subject.tasks[:FEW])
    unclean = [
        line for line in failures(rollouts) if not line.partition(": ")[2].startswith("model:") or "teardown" in line
    ]
    detail = (
        f"when the model fails, so does the environment: {unclean[0]}; teardown is called after any failure, also one "
        f"of setup itself, and must not take for granted what setup makes"
        if unclean
        else "a rollout whose model fails is torn down"
    )
    return [Finding("setup and teardown", not unclean, detail)]


async def check_recording(subject: Subject) -> list[Finding]:
    """With an engine of tokens behind the model, rollouts become sequences that can be trained on."""
    backend = TokenBackend("fake", FakeEngine(_agree, context=sys.maxsize), fake_renderer())
    rollouts = await subject.play(backend, subject.tasks[:FEW], Sampling(max_tokens=64))
    failed = failures(rollouts)
    silent = [rollout.task.id for rollout in rollouts if not rollout.sequences]
    calls, sequences = sum(len(r.calls) for r in rollouts), sum(len(r.sequences) for r in rollouts)
    problem = (
        f"{len(failed)} of {len(rollouts)} rollouts fail: {failed[0]}" if failed else
        f"no model call was recorded for task {silent[0]}: talk to ctx.model, or give ctx.model.base_url and api_key "
        f"to the agent" if silent else
        ""
    )  # fmt: skip
    detail = problem or f"{calls} model calls of {len(rollouts)} rollouts are {sequences} sequences"
    return [Finding("recording", not problem, detail)]


def _agree(prompt: str, rng: random.Random) -> str:
    if prompt.count("<|assistant|>") > MOST_TURNS:
        raise ModelCallFailed(f"the conversation has more than {MOST_TURNS} turns", "policy")
    return "yes"
