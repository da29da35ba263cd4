"""Wrappers around environments of every kind: agents that call an address, comparing scorers, several roles, each other."""

import json

import pytest

import ludus
from ludus.authoring.loading import load_environment
from ludus.authoring.through import Through
from ludus.authoring.wrapping import Wrapper
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.environments.nim import Nim
from ludus.environments.reasoning import Attempts, Budget, Delegate, Plan, Prompt, Reword
from ludus.environments.reasoning.lengths import length_term, success_within
from ludus.environments.reasoning.plan import CARRY_OUT, EXPERT_PLAN, plan_of
from ludus.errors import ConfigError, UsageError
from ludus.recording.backend import TokenBackend
from ludus.recording.expert import Expert
from ludus.rollouts.scheduler import Plan as Running
from ludus.rollouts.scheduler import Scheduler
from ludus.testing.scripted import Scripted
from ludus.types import MAIN_ROLE, Task


class Sum(ludus.Environment):
    """One sum, one reply."""

    max_turns = 1

    def tasks(self, split):
        return [Task(prompt="What is 20 + 20?", answer="40")]

    @ludus.reward
    def correct(self, task, rollout):
        return float(rollout.reply == task.answer)


class ByClient(Sum):
    """Its agent has a client of its own, and asks twice."""

    async def run(self, ctx):
        messages = ctx.task.messages()
        for _ in range(2):
            made = await ctx.model.openai.chat.completions.create(model="m", messages=messages)
            messages += [{"role": "assistant", "content": made.choices[0].message.content}]
            messages += [{"role": "user", "content": "Sure?"}]


class Compared(Sum):
    """The longest right answer earns all there is, once the group is known."""

    @ludus.reward
    def correct(self, group):
        return [float(rollout.reply == rollout.task.answer) for rollout in group]


async def play(env, say, size=1, roles=None, workers=0, task=0):
    backend = say if not callable(say) else TokenBackend("fake", FakeEngine(say, context=200_000), fake_renderer())
    plan = Running(max_retries=0, timeout_s=20.0, workers=workers)
    async with Scheduler(env, {MAIN_ROLE: backend, **(roles or {})}, plan) as scheduler:
        chosen = list(env.tasks("test"))[task] if task else next(iter(env.tasks("test")))
        (group,) = [group async for group in scheduler.groups([(chosen, 0)], size)]
    return group.rollouts


def planner(plan, answer="40"):
    return lambda prompt, rng: answer if CARRY_OUT in prompt else plan


def call(name, **arguments):
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


# --- agents that call an address ----------------------------------------------------------------------------------


async def test_an_agent_with_a_client_of_its_own_plans_too():
    (rollout,) = await play(Plan(ByClient()), planner("1. Add them."))
    assert rollout.failure is None and rollout.reward == pytest.approx(1.1) and rollout.num_turns == 2
    assert plan_of(rollout) == "1. Add them." and len(rollout.sequences) == 1


async def test_its_budget_is_told_forced_and_counted():
    seen = []
    say = lambda prompt, rng: seen.append(prompt) or ("40" if "Time is up" in prompt else "think " * 99)  # noqa: E731
    (rollout,) = await play(Budget(ByClient(), tokens=20, force=True), say)
    assert rollout.failure is None and "Use at most 20 tokens" in seen[0] and rollout.metrics["correct"] == 1.0
    assert len(rollout.sequences) == 1


async def test_its_attempts_are_its_own():
    answers = ["40", "40", "41", "41", "40", "40"]
    (rollout,) = await play(Attempts(Plan(ByClient()), attempts=3), planner("1. Add.", "40"))
    assert rollout.failure is None and rollout.num_turns == 2 and len(rollout.sequences) == 3
    (rollout,) = await play(Attempts(ByClient(), attempts=3, at_once=1), lambda prompt, rng: answers.pop(0))
    assert rollout.reply == "40"


async def test_an_agent_that_calls_several_conversations_has_a_plan_in_one():
    class Two(Sum):
        async def run(self, ctx):
            await ctx.model.chat([{"role": "user", "content": "Something else."}])
            await super().run(ctx)

    seen = []
    say = planner("1. Look.")
    (rollout,) = await play(Plan(Two()), lambda prompt, rng: seen.append(prompt) or say(prompt, rng))
    assert rollout.failure is None and ["write a plan" in prompt for prompt in seen] == [True, True, False]


async def test_a_task_with_examples_has_the_note_after_them():
    class Shown(Sum):
        def tasks(self, split):
            said = [("user", "1 + 1?"), ("assistant", "2"), ("user", "20 + 20?")]
            return [Task(prompt=[{"role": role, "content": text} for role, text in said], answer="40")]

    (rollout,) = await play(Budget(Plan(Shown()), tokens=90), planner("1. Add."))
    assert rollout.messages[0]["content"] == "1 + 1?" and "tokens" in rollout.messages[2]["content"]
    assert rollout.metrics["plan"] == 1.0 and len(rollout.sequences) == 1


# --- scorers that compare -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("judged", [False, True])
async def test_what_is_earned_by_comparison_counts_for_plans_budgets_and_helpers(judged):
    roles = {"judge": Scripted("judge", lambda messages: '{"mark": 5}')} if judged else {}
    env = Budget(Delegate(Plan(Compared(), judged=judged)), tokens=1000)
    for rollout in await play(env, planner("1. Add."), size=2, roles=roles):
        assert rollout.failure is None and rollout.metrics["plan"] == rollout.metrics["budget_solved"] == 1.0
        assert rollout.metrics["helper/delegate_helped"] == rollout.metrics["correct"] + (0.05 if judged else 0.1)
        assert env.success_reward <= rollout.reward < 1


# --- lengths ------------------------------------------------------------------------------------------------------


def test_more_than_a_success_is_none_beyond_the_budget():
    total = lambda tokens: 1.5 + length_term("maximum", 1.5, tokens, 1000, success=1.0, penalty=3e-4)  # noqa: E731
    assert total(1000) == pytest.approx(0.75) and total(1001) < success_within("maximum", 1.0) <= total(1000)
    assert total(0) == pytest.approx(1.5 * 0.8) and total(10**9) == 0.0


def test_to_fail_is_never_better_than_to_be_wrong():
    worst = length_term("exact", 0.0, 10**9, 1000, success=1.0, penalty=3e-4)
    assert Budget(Sum(), tokens=9, form="exact").failure_reward == worst and Budget(Sum(), tokens=9).failure_reward == 0

    class Losses(Sum):
        success_reward = 0.0

    with pytest.raises(ConfigError, match="success reward above 0"):
        Budget(Losses(), tokens=9)


@pytest.mark.parametrize("wrap", [lambda env, budget: Plan(budget(env)), lambda env, budget: budget(Plan(env))])
async def test_a_forced_budget_holds_for_plans_in_any_order(wrap):
    say = lambda prompt, rng: "40" if "Time is up" in prompt else "word " * 99  # noqa: E731
    env = wrap(Sum(), lambda env: Budget(env, tokens=30, force=True, answer_tokens=8))
    (rollout,) = await play(env, say)
    assert rollout.usage.completion_tokens <= 30 + 2 * 8 and len(rollout.sequences) == 1


async def test_a_reply_that_another_limit_cuts_off_is_no_end_of_the_time():
    class Short(Sum):
        sampling = {"max_tokens": 5}

    (rollout,) = await play(Budget(Short(), tokens=1000, force=True), lambda prompt, rng: "word " * 99)
    assert rollout.stop == "length" and len(rollout.calls) == 1


# --- several roles, experts, each other ---------------------------------------------------------------------------


@pytest.mark.slow
async def test_only_the_main_role_plans_and_so_do_their_experts():
    env = Plan(Nim())
    for place in range(8):
        (rollout,) = await play(env, Expert(), task=place)
        assert rollout.failure is None and rollout.metrics["legal"] == rollout.metrics["opponent/legal"] == 1.0
        own, other = ([said["content"] for said in rollout.conversation(role)] for role in env.roles)
        assert EXPERT_PLAN not in other and (EXPERT_PLAN in own or not own)


def test_a_wrapper_has_no_experts_for_its_own_roles():
    env = Plan(load_environment("guess"), judged=True)
    assert env.demonstrator_of("judge") is None and env.demonstrator_of(MAIN_ROLE) is not None
    assert Attempts(Nim()).demonstrator_of(MAIN_ROLE) is None


@pytest.mark.parametrize("name", ["plan:plan:guess", "plan:reword:plan:guess"])
def test_no_wrapper_is_needed_twice(name):
    with pytest.raises(ConfigError, match="already; once is enough"):
        load_environment(name)


async def test_the_outer_one_of_two_prompts_is_given():
    class Own(Sum):
        system_prompt = "Be brief."

    seen = []
    env = Prompt(Prompt(Own(), text="Think."), text="Look.")
    await play(env, lambda prompt, rng: seen.append(prompt) or "40")
    assert env.system_prompt == "Look." and "<|system|>Look.<|end|>" in seen[0]


async def test_a_prompt_is_given_to_every_agent():
    seen = []
    (rollout,) = await play(Prompt(ByClient(), text="Think."), lambda prompt, rng: seen.append(prompt) or "40")
    assert rollout.failure is None and all("<|system|>Think.<|end|>" in prompt for prompt in seen)


async def test_words_that_the_model_is_not_shown_can_not_be_changed():
    (rollout,) = await play(Reword(Nim()), Expert())
    assert rollout.excluded and "reword: nim shows the model other words" in rollout.failure.error
    (rollout,) = await play(Reword(Sum()), lambda prompt, rng: "40")
    assert rollout.reward == 1.0


@pytest.mark.slow
async def test_environments_of_verifiers_are_within_reach():
    from verifiers_kit import v0

    env = Attempts(Budget(Plan(v0("single_turn")), tokens=500), attempts=2)
    (rollout,) = await play(env, planner("1. Think.", "<answer>0</answer>"))
    assert rollout.failure is None and rollout.metrics["plan_sound"] == 1.0 and len(rollout.sequences) == 2
    assert sum("Use at most 500" in str(message) for message in rollout.messages) == 1


def test_an_address_in_a_worker_process_is_out_of_reach():
    class Bottom:
        base_url = "http://127.0.0.1:1/v1"

    with pytest.raises(UsageError, match="workers = 0"):
        _ = Through(Through(Bottom())).base_url


async def test_a_wrapper_that_begins_again_forgets():
    class Counts(Through):
        def begin(self):
            super().begin()
            self.num = 0

    class Bottom:
        def forget(self):
            pass

    model = Counts(Counts(Bottom()))
    model.num = model._model.num = 3
    model.forget()
    assert model.num == model._model.num == 0


def test_a_wrapper_of_ones_own_needs_no_more_than_a_prefix():
    class Same(Wrapper):
        prefix = "same"

    assert Same("guess", turns=3).describe().id == "same:guess" and Same("guess", turns=3).inner.max_turns == 3
