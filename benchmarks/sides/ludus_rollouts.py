"""Our side of scheduling: groups of rollouts with an engine that answers at once, recorded as a training run does.

Settings: url of an instant server, or "" for a sampler in process, that speaks the tokens of the model folder `tokenizer`.
Commands: {"rollouts": n, "turns": 1 or 5, "in_flight": n}; the answer has the resident memory after it.
"""

import asyncio
import gc
import os
import tempfile
from pathlib import Path

import talk
from instant import ARGUMENTS, CALLS, TEXT

import ludus
from ludus.protocols import SampleChunk
from ludus.recording.backend import TokenBackend
from ludus.recording.remote import RemoteBackend
from ludus.renderers.chat import ChatRenderer
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.store import RolloutLog
from ludus.types import MAIN_ROLE

GROUP_SIZE = 8


class Short(ludus.Environment):
    """A question and one reply."""

    def tasks(self, split):
        return [ludus.Task(prompt=f"Which number is hidden? Hint {number}", answer=TEXT) for number in range(64)]

    @ludus.reward
    def right(self, task, rollout):
        return float(rollout.reply == task.answer)


class Looking(Short):
    """A question, some calls of a tool, and a reply."""

    @ludus.tool
    def look(self, place: str) -> str:
        """What is there."""
        return f"nothing in the {place}"


class Instant:
    """A sampler that says at once what the instant server says, as tokens of a real tokenizer."""

    context = 100_000

    def __init__(self, renderer, turns):
        encode = renderer.tokenizer.encode
        self._tool = encode("<|tool|>")[0]
        self._text = encode(f"{TEXT}<|end|>")
        call = f'<tool_call>{{"name": "look", "arguments": {ARGUMENTS}}}</tool_call><|end|>'
        self._call = encode(call) if turns > 1 else self._text

    async def sample(self, request):
        await asyncio.sleep(0)
        tokens = self._text if request.tokens.count(self._tool) >= CALLS else self._call
        yield SampleChunk(list(tokens), [-1.0] * len(tokens), [0] * len(tokens), "stop")

    async def publish(self, weights, when="drain"):
        pass

    def release(self, session):
        pass


def backend_of(given, turns):
    """A model that answers at once."""
    if given["url"]:
        return RemoteBackend("instant", base_url=given["url"])
    renderer = ChatRenderer.from_folder(Path(given["tokenizer"]))
    return TokenBackend("instant", Instant(renderer, turns), renderer)


async def play(given, rollouts, turns, in_flight):
    """Run so many rollouts; raises where they are not what was asked for."""
    env = Short() if turns == 1 else Looking()
    tasks = env.tasks("train")
    visits = [(tasks[i % len(tasks)], i // len(tasks)) for i in range(rollouts // GROUP_SIZE)]
    plan = Plan(purpose="train", split="train", concurrency=in_flight)
    with tempfile.TemporaryDirectory() as folder:
        log = RolloutLog(Path(folder) / "rollouts")
        async with Scheduler(env, {MAIN_ROLE: backend_of(given, turns)}, plan, on_rollout=log.append) as scheduler:
            async for group in scheduler.groups(visits, GROUP_SIZE):
                for rollout in group.rollouts:
                    assert rollout.reward == 1.0 and rollout.num_turns == turns, rollout
        log.close()


def resident_bytes():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main():
    given = talk.settings()
    os.environ.setdefault("OPENAI_API_KEY", "none")
    talk.answer(versions={"ludus": ludus.__version__})
    while True:
        asyncio.run(play(given, **talk.command()))
        talk.answer(resident_bytes=resident_bytes())


if __name__ == "__main__":
    main()
