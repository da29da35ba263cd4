"""Our side of `foreign`: a package of verifiers, as it is, through `verifiers:`, recorded as an evaluation does.

Settings: module and the Python that has its verifiers; url of an instant server, or "" for a model in this process;
options of the environment. Commands: {"rollouts": n, "in_flight": n}.
"""

import asyncio
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import instant
import talk

import ludus
from ludus.environments.verifiers import VerifiersEnvironment
from ludus.recording.remote import RemoteBackend
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.store import RolloutLog
from ludus.types import MAIN_ROLE, Reply, ToolCall

GROUP_SIZE, TURNS = 8, 5


class InProcess:
    """Answers what the instant server would, without HTTP."""

    name = "instant"

    async def complete(self, messages, tools, sampling):
        await asyncio.sleep(0)
        message, finish = instant.reply_to({"messages": messages, "tools": tools})
        calls = tuple(
            ToolCall(call["id"], call["function"]["name"], {"place": "north"}) for call in message.get("tool_calls", ())
        )
        return Reply({**message, "content": message["content"] or ""}, calls, finish)


async def serve(given):
    """Open the environment once, as an evaluation does, and play in it what is asked for; raises where rollouts are not
    what they should be."""
    here = str(Path(__file__).parent)
    env = VerifiersEnvironment(given["module"], python=given["python"], folder=here, **given["options"])
    tasks = list(env.tasks("train"))
    model = RemoteBackend("instant", base_url=given["url"]) if given["url"] else InProcess()
    with tempfile.TemporaryDirectory() as folder:
        log = RolloutLog(Path(folder) / "rollouts")
        async with Scheduler(env, {MAIN_ROLE: model}, Plan(split="train", timeout_s=None), log.append) as scheduler:
            talk.answer(versions={"ludus": ludus.__version__})
            while True:
                asked = await asyncio.to_thread(talk.command)
                scheduler.plan = replace(scheduler.plan, concurrency=asked["in_flight"])
                visits = [(tasks[i % len(tasks)], i // len(tasks)) for i in range(asked["rollouts"] // GROUP_SIZE)]
                async for group in scheduler.groups(visits, GROUP_SIZE):
                    for rollout in group.rollouts:
                        assert rollout.reward == 1.0 and rollout.num_turns == TURNS, rollout
                talk.answer()


def main():
    given = talk.settings()
    os.environ.setdefault("OPENAI_API_KEY", "none")
    asyncio.run(serve(given))


if __name__ == "__main__":
    main()
