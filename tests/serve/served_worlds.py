"""Environments that the tests serve, and how those are served."""

import asyncio
import contextlib
import socket

import ludus
from ludus.serve.floor import Floor
from ludus.serve.listen import Stoppable, address, listen
from ludus.types import Reply


class Echo(ludus.Environment):
    """Say it again."""

    splits = ("train", "test")
    system_prompt = "You are an echo."
    left = 0

    def tasks(self, split):
        return [ludus.Task(prompt=f"{split} {i}", answer=f"{split} {i}", id=f"{split}-{i}") for i in range(5)]

    async def teardown(self, ctx):
        Echo.left += 1

    @ludus.reward
    def same(self, task, rollout):
        return float(rollout.reply == task.answer)


class Shop(ludus.Environment):
    """Say what two things cost together."""

    max_turns = 5

    def tasks(self, split):
        return [ludus.Task(prompt="What do tea and soap cost together?", answer="779")]

    @ludus.tool
    def price(self, item: str) -> int:
        """What one thing costs, in cents."""
        prices = {"tea": 561, "soap": 218}
        if item not in prices:
            raise ludus.ToolError(f"{item!r} is not sold here")
        return prices[item]

    @ludus.reward
    def correct(self, task, rollout):
        return float(rollout.reply == task.answer)


class TwoDrafts(ludus.Environment):
    """An agent of its own, behind an OpenAI client; then another conversation."""

    def tasks(self, split):
        return [ludus.Task(prompt="7 or 12?", answer="12")]

    async def run(self, ctx):
        messages = ctx.task.messages()
        draft = await ctx.model.openai.chat.completions.create(model="any", messages=messages)
        text = draft.choices[0].message.content
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "Are you sure?"}]
        await ctx.model.chat(messages)
        await ctx.model.chat([{"role": "user", "content": "So?"}])

    @ludus.reward
    def correct(self, task, rollout):
        return float(task.answer in rollout.reply)


class Duel(ludus.Environment):
    """Two roles speak at once."""

    roles = ("policy", "rival")

    def tasks(self, split):
        return [ludus.Task(prompt="Higher wins.")]

    async def run(self, ctx):
        models = [ctx.models[role] for role in self.roles]
        ctx.state = [int((r).text) for r in await asyncio.gather(*(m.chat(ctx.task.messages()) for m in models))]

    @ludus.reward
    def wins(self, state):
        return float(state[0] > state[1])


class Breaks(ludus.Environment):
    """Breaks, in the way that the reply says."""

    left = 0

    def tasks(self, split):
        return [ludus.Task(prompt="How?")]

    async def respond(self, ctx, reply):
        if reply.text == "exit":
            raise SystemExit(3)
        if reply.text == "hang":
            await asyncio.Event().wait()
        raise ludus.RolloutError("nonsense", "environment", "policy" if reply.text == "mine" else "environment")

    async def teardown(self, ctx):
        Breaks.left += 1

    failure_reward = -1.0

    @ludus.reward
    def never(self):
        return 1.0


@contextlib.asynccontextmanager
async def served(env, make_app, *, websockets=False, **options):
    """The address of an environment, and the floor that it is played on."""
    bound = listen("127.0.0.1", 0)
    async with Floor(env, **options) as floor:
        server = Stoppable(make_app(floor), bound, websockets=websockets)
        running = asyncio.create_task(server.run())
        try:
            yield address(bound), floor
        finally:
            server.stop()
            await running
    assert not floor._episodes and isinstance(bound, socket.socket)


def said(text):
    return Reply({"role": "assistant", "content": text})
