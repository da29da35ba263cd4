"""Sub-agents and compaction: more sequences of the same rollout, all of them trained, and its own turns still its own."""

import json

import pytest

import ludus
from ludus.authoring.compaction import AGENT, BEFORE, Compacting
from ludus.authoring.subagents import CUT_OFF
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.programs.batch import make_samples, to_data
from ludus.programs.recipe import RlConfig
from ludus.recording.backend import TokenBackend
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.types import MAIN_ROLE, Task


async def play(env, script, size=2, **plan):
    backend = TokenBackend("fake", FakeEngine(script, context=100_000), fake_renderer())
    async with Scheduler(env, {MAIN_ROLE: backend}, Plan(max_retries=0, timeout_s=60.0, **plan)) as scheduler:
        (group,) = [group async for group in scheduler.groups([(task, 0) for task in env.tasks("test")], size)]
        return group


class Delegates(ludus.Environment):
    """Ask a helper, then answer."""

    def tasks(self, split):
        return [Task(prompt="What is 6 times 7?", answer="42")]

    @ludus.tool
    async def ask_helper(self, question: str, ctx) -> str:
        """Ask a helper."""
        return await ctx.subagent(question, name="helper", system="You calculate.", tools=[multiply])

    @ludus.reward
    def correct(self, task, rollout):
        return float(rollout.reply == task.answer)


def multiply(a: int, b: int) -> int:
    """Multiply."""
    return a * b


def called(name, **arguments):
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def policy(prompt, rng):
    if "You calculate." in prompt:
        return prompt.split("<|tool|>")[1][:2] if "<|tool|>" in prompt else called("multiply", a=6, b=7)
    if "<|tool|>" in prompt:
        return rng.choice([prompt.split("<|tool|>")[1][:2], "no"])
    return called("ask_helper", question="6 * 7?")


async def test_a_sub_agent_shares_the_outcome_and_is_trained():
    group = await play(Delegates(), policy, size=6)
    assert {rollout.reward for rollout in group.rollouts} == {0.0, 1.0}
    for rollout in group.rollouts:
        assert rollout.failure is None, rollout.failure
        assert [call.agent for call in rollout.calls] == ["", "helper", "helper", ""]
        assert rollout.num_turns == 2 and len(rollout.sequences) == 2
        assert [message["role"] for message in rollout.messages] == ["user", "assistant", "tool", "assistant"]
    samples = make_samples([group], RlConfig(), [MAIN_ROLE])
    assert len(samples) == 12
    for rollout in group.rollouts:
        mine = [sample for sample in samples if sample.rollout is rollout]
        assert len({sample.advantage for sample in mine}) == 1 and mine[0].advantage != 0
        assert sum(s.sequence.num_sampled for s in mine) == rollout.usage.completion_tokens
    for aggregate in ("token", "rollout"):
        data = to_data(samples, aggregate)
        assert sum(sum(datum.arrays["weights"]) for datum in data) == pytest.approx(1.0)
        weights = {id(r): 0.0 for r in group.rollouts}
        for sample, datum in zip(samples, data, strict=True):
            weights[id(sample.rollout)] += sum(datum.arrays["weights"])
        if aggregate == "rollout":  # however many sequences it has
            assert list(weights.values()) == pytest.approx([1 / 6] * 6)


async def test_sub_agents_side_by_side_and_through_the_address():
    import asyncio

    class Many(Delegates):
        async def run(self, ctx):
            names = [f"helper-{i}" for i in range(4)]
            said = await asyncio.gather(
                *(ctx.subagent("6 * 7?", name=n, system="You calculate.", tools=[multiply]) for n in names)
            )
            assert said == ["42"] * 4
            client = ctx.model.subagent("program").openai
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "<|tool|>42"}])
            assert ctx.model.subagent("program").base_url.endswith("/program/v1")
            await ctx.model.chat([{"role": "user", "content": "You calculate. <|tool|>42"}])

    group = await play(Many(), policy, size=1)
    (rollout,) = group.rollouts
    assert rollout.failure is None, rollout.failure
    agents = [call.agent for call in rollout.calls]
    assert sorted(agents[:8]) == sorted([f"helper-{i}" for i in range(4)] * 2) and agents[8:] == ["program", ""]
    assert (rollout.num_turns, rollout.reply, len(rollout.sequences)) == (1, "42", 6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"name": "a/b"}, "name is up to"), ({"name": "v1"}, "name is up to"), ({"role": "judg"}, "role")],
)
async def test_what_a_sub_agent_can_not_be(arguments, words):
    class Wrong(Delegates):
        async def run(self, ctx):
            await ctx.subagent("x", **arguments)

    (rollout,) = (await play(Wrong(), policy, size=1)).rollouts
    assert words in rollout.failure.error


async def test_a_sub_agent_that_never_ends_is_cut_off():
    class Endless(Delegates):
        async def run(self, ctx):
            ctx.state = await ctx.subagent("x", max_turns=3, tools=[multiply])

        @ludus.reward
        def told(self, state):
            return float(state == CUT_OFF)

    (rollout,) = (await play(Endless(), lambda prompt, rng: called("multiply", a=1, b=1), size=1)).rollouts
    assert rollout.metrics["told"] == 1.0 and len(rollout.calls) == 3 and len(rollout.sequences) == 1


# --- compaction ---------------------------------------------------------------------------------------------------


class Long(ludus.Environment):
    """Count to seven, one number a turn."""

    max_turns = 7
    system_prompt = "Count."

    def __init__(self, **limits):
        self.limits = limits

    def tasks(self, split):
        return [Task(prompt="begin")]

    async def setup(self, ctx):
        ctx.models = {MAIN_ROLE: Compacting(ctx.model, **self.limits)}

    def respond(self, ctx, reply):
        return f"then {len(ctx.messages)}" if len(ctx.messages) < 14 else None

    @ludus.reward
    def fine(self, rollout):
        return 1.0


def counting(prompt, rng):
    return f"<think>t</think>summed {prompt.count('then')}" if "Write down" in prompt else "<think>t</think>said"


@pytest.mark.parametrize("limits", [{"after_turns": 2}, {"after_tokens": 120}])
async def test_a_long_conversation_goes_on_from_a_summary(limits):
    (rollout,) = (await play(Long(**limits), counting, size=1)).rollouts
    assert rollout.failure is None, rollout.failure
    summaries = [call for call in rollout.calls if call.agent == AGENT]
    assert rollout.num_turns == 7 and len(summaries) >= 2
    assert len(rollout.sequences) >= len(summaries) + 1  # each summary forks, and nothing is spliced
    assert sum(s.num_sampled for s in rollout.sequences) == rollout.usage.completion_tokens
    after = rollout.conversation(MAIN_ROLE)
    assert [message["role"] for message in after[:3]] == ["system", "user", "assistant"]
    assert after[1]["content"].startswith("begin\n\n" + BEFORE)
    assert rollout.epilogue == []


async def test_a_short_conversation_is_left_alone():
    (rollout,) = (await play(Long(after_turns=50), counting, size=1)).rollouts
    assert (len(rollout.calls), len(rollout.sequences)) == (7, 1)


async def test_an_empty_summary_replaces_nothing():
    silent = lambda prompt, rng: "" if "Write down" in prompt else "said"  # noqa: E731
    (rollout,) = (await play(Long(after_turns=3), silent, size=1)).rollouts
    assert rollout.failure is None
    assert all(BEFORE not in str(call.messages) for call in rollout.calls)


@pytest.mark.parametrize("limits", [{}, {"after_turns": 0}, {"after_tokens": 5, "keep_turns": 0}])
def test_limits_that_make_no_sense(limits):
    with pytest.raises(ValueError, match="after_tokens or after_turns"):
        Compacting(None, **limits)
