"""Rollouts with the tools of one MCP server: each calls its tool four times and answers.

Settings: transport, "stdio" or "http". Commands: {"rollouts": n, "in_flight": n}; the answer counts the
failures and has the first.
"""

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import talk
from instant import ARGUMENTS, CALLS, TEXT

import ludus
from ludus.authoring.mcp.server import McpServer
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.types import MAIN_ROLE, Reply, ToolCall

PROGRAM = str(Path(__file__).with_name("mcp_server.py"))


class Looking(ludus.Environment):
    """A question, some calls of a tool, and a reply."""

    def __init__(self, server):
        self.servers = (server,)

    def tasks(self, split):
        return [ludus.Task(prompt=f"Which number is hidden? Hint {number}", answer=TEXT) for number in range(64)]

    @ludus.reward
    def right(self, task, rollout):
        answered = [message["content"] for message in rollout.messages if message["role"] == "tool"]
        return float(rollout.reply == task.answer and answered == ["nothing in the north"] * CALLS)


class Model:
    """Calls the tool, then answers, at once."""

    name = "instant"

    async def complete(self, messages, tools, sampling):
        await asyncio.sleep(0)
        answered = sum(message["role"] == "tool" for message in messages)
        if answered >= CALLS:
            return Reply({"role": "assistant", "content": TEXT})
        call = {"id": f"call_{answered}", "type": "function", "function": {"name": "look", "arguments": ARGUMENTS}}
        message = {"role": "assistant", "content": "", "tool_calls": [call]}
        return Reply(message, (ToolCall(call["id"], "look", {"place": "north"}),), "tool_calls")


async def serve(server):
    """Play what is asked for, all of it on one open server."""
    env = Looking(server)
    tasks = env.tasks("train")
    plan = Plan(split="train", concurrency=1, max_retries=0)
    async with Scheduler(env, {MAIN_ROLE: Model()}, plan) as scheduler:
        talk.answer(versions=talk.versions("mcp"))
        while True:
            asked = await asyncio.to_thread(talk.command)
            scheduler.plan = replace(plan, concurrency=asked["in_flight"])
            failures = []
            visits = [(tasks[i % len(tasks)], i) for i in range(asked["rollouts"])]
            async for group in scheduler.groups(visits, 1):
                failures += [
                    rollout.failure.error if rollout.failure else "wrong answers"
                    for rollout in group.rollouts
                    if rollout.failure or rollout.reward != 1.0
                ]
            talk.answer(failures=len(failures), first=failures[:1])


def main():
    if talk.settings()["transport"] == "stdio":
        asyncio.run(serve(McpServer([sys.executable, PROGRAM])))
        return
    with subprocess.Popen([sys.executable, PROGRAM, "http"], stdout=subprocess.PIPE, text=True) as server:
        asyncio.run(serve(McpServer(url=server.stdout.readline().strip())))


if __name__ == "__main__":
    main()
