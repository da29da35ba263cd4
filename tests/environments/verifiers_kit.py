"""What the tests of `verifiers:` share: the Pythons that have it, models with a script, and one way to run."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

from ludus.environments.verifiers import VerifiersEnvironment
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.types import MAIN_ROLE, Reply, ToolCall
from peer_pythons import ROOT, python_of

DATA = ROOT / "tests" / "data" / "verifiers"
REFERENCE = Path(__file__).parent / "verifiers_reference.py"


def v0(module, kind="v0", **options):
    return VerifiersEnvironment(module, python=python_of("verifiers-0.3.1"), folder=str(DATA / kind), **options)


def v1(module, **options):
    return VerifiersEnvironment(module, python=python_of("verifiers-0.4.0"), folder=str(DATA / "v1"), **options)


def calling(name, **arguments):
    """A reply that calls a tool."""
    text = json.dumps(arguments)
    call = {"id": f"call-{name}", "type": "function", "function": {"name": name, "arguments": text}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    return Reply(message, (ToolCall(call["id"], name, arguments),), "tool_calls")


def saying(*replies):
    """A model that says these in order, whatever it hears, in every rollout."""
    return Script(lambda said, messages: replies[min(said, len(replies) - 1)])


class Script:
    """A model that says what a function of (number of its own turns so far, messages) gives."""

    name = "script"

    def __init__(self, say):
        self.say, self.tools, self.samplings = say, [], []

    async def complete(self, messages, tools, sampling):
        await asyncio.sleep(0)
        self.tools.append(tools)
        self.samplings.append(sampling)
        examples = sum((message.get("content") or "") == "0 + 0?" for message in messages)
        said = self.say(sum(message["role"] == "assistant" for message in messages) - examples, messages)
        return said if isinstance(said, Reply) else Reply({"role": "assistant", "content": said})


async def play(env, model, *, split="test", tasks=1, size=1, **plan):
    """Groups of the first tasks, in order."""
    todo = [(task, 0) for task, _ in zip(env.tasks(split), range(tasks), strict=False)]
    plan = Plan(**{"max_retries": 0, "timeout_s": 60.0, "split": split, **plan})
    async with Scheduler(env, {MAIN_ROLE: model}, plan) as scheduler:
        groups = [group async for group in scheduler.groups(todo, size)]
    return sorted(groups, key=lambda group: [task.id for task, _ in todo].index(group.task.id))


def reference(module, replies, *, row=0, split="test", options=None):
    """What verifiers itself makes of the same replies: reward and metrics of each rollout of one row.

    Args:
        replies: per rollout, its replies in order: text, or [tool, arguments].
    """
    asked = {"folder": str(DATA / "v0"), "module": module, "replies": replies, "row": row, "split": split}
    command = [python_of("verifiers-0.3.1"), str(REFERENCE), json.dumps({**asked, "options": options or {}})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def as_replies(scripted):
    """The replies given to `reference`, for a model here."""
    return [one if isinstance(one, str) else calling(one[0], **one[1]) for one in scripted]
