"""What the tests of replays share: an environment in a file, models that say what they are told, and recorded runs."""

import asyncio
import textwrap

from ludus.authoring.loading import load_environment
from ludus.programs.evaluate import evaluate
from ludus.types import Reply

HUNT = """
    import ludus

    class Hunt(ludus.Environment):
        '''Say the task's number; what is said beside it depends on chance and on a tool.'''
        max_turns = 3

        def tasks(self, split):
            return [ludus.Task(prompt=f"{split} {n}", answer=str(n)) for n in range(4)]

        async def setup(self, ctx):
            ctx.state = ctx.random.randint(10, 99)

        @ludus.tool
        def look(self, where: str, random) -> str:
            "Look somewhere."
            return f"{where}: {random.randint(0, 9)}"

        async def respond(self, ctx, reply):
            if reply.tool_calls:
                return await super().respond(ctx, reply)
            return None if reply.text == ctx.task.answer else f"no, {ctx.state}"

        @ludus.reward
        def right(self, task, rollout):
            return float(rollout.reply == task.answer)

        @ludus.metric
        def luck(self, state):
            return float(state)

        @ludus.reward(weight=0.5)
        def fewest(self, group):
            least = min(rollout.num_turns for rollout in group)
            return [float(rollout.num_turns == least) for rollout in group]
"""
LOOK = {
    "role": "assistant", "content": "", "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"where": "here"}'}}],
}  # fmt: skip


class Says:
    """A model of messages: a function of the conversation that gives a text, a message or a reply."""

    name = "script"

    def __init__(self, what):
        self.what = what

    async def complete(self, messages, tools, sampling):
        from ludus.renderers.parsing import tool_calls_of

        await asyncio.sleep(0)
        said = self.what(messages, sampling)
        if isinstance(said, Reply):
            return said
        message = {"role": "assistant", "content": said} if isinstance(said, str) else said
        return Reply(message, tool_calls_of(message))


def hunter(messages, sampling):
    """Looks first, then guesses by its seed, right every other time."""
    if len(messages) == 1:
        return LOOK
    return messages[0]["content"].split()[-1] if sampling.seed % 2 else "x"


def write(path, text, /, **changes):
    """Write an environment, with parts of it replaced."""
    text = textwrap.dedent(text)
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def record(path, model, out, **options):
    """An evaluation of a model in the environment of a file."""
    env = load_environment(str(path))
    evaluate(env, model, out=out, **{"samples": 3, "num_tasks": 4, "concurrency": 64, **options})
    return out
