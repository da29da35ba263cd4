"""`check_environment` passes what is sound, and names what is wrong: one defect, one finding."""

import itertools
import random

import pytest

import ludus
from ludus.environments.guess import Guess
from ludus.testing import Finding, check_environment, check_environment_async
from ludus.testing.env_suite import tool_problems
from ludus.testing.scripted import degenerate_replies, is_answer
from ludus.types import Task


class Sums(ludus.Environment):
    """Sound: add two numbers, with the answer alone as reply."""

    def tasks(self, split):
        rng = random.Random(0)
        for i in itertools.count():
            a, b = rng.randrange(1000), rng.randrange(1000)
            if (i % 5 == 0) == (split == "test"):
                yield Task(prompt=f"{i}: {a} + {b}?", answer=str(a + b))

    @ludus.reward
    def correct(self, task, rollout):
        return float(rollout.reply.strip() == task.answer)

    def demonstrate(self, task):
        return task.answer


def failed(env: ludus.Environment, num_tasks: int = 8) -> dict[str, str]:
    """Names and details of the checks that failed."""
    return {f.name: f.detail for f in check_environment(env, num_tasks=num_tasks) if f.ok is False}


def variant(base=Sums, **methods) -> ludus.Environment:
    return type("Variant", (base,), methods)()


# --- sound environments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", [Sums(), Guess(), Guess(turns=4, narrowest=5, widest=9)])
def test_sound_environments_pass(env):
    assert failed(env, 20) == {}


@pytest.mark.parametrize("family", ["spell_backward", "chain_sum", "basic_arithmetic"])
@pytest.mark.slow
def test_sound_families_pass(family):
    pytest.importorskip("reasoning_gym")
    assert failed(ludus.load_environment(f"rg:{family}")) == {}


def test_all_checks_are_reported_in_order():
    names = [finding.name for finding in check_environment(Sums(), num_tasks=3)]
    assert names[:7] == [
        "tasks",
        "tasks of a rebuilt environment",
        "splits",
        "tools",
        "setup and teardown",
        "recording",
        "demonstrations",
    ]
    assert names[-2:] == ["scorers", "scorers leave rollouts alone"]
    assert len(names) == len(set(names)) > 18


async def test_it_runs_inside_an_event_loop_too():
    findings = await check_environment_async(Sums(), num_tasks=2)
    assert all(finding.ok is not False for finding in findings)


def test_findings_read_well():
    assert str(Finding("tasks", False, "gone")) == "FAIL  tasks: gone"
    assert str(Finding("tasks", True)) == "ok    tasks: "


def test_luck_is_no_failure():
    """Half of the answers are "yes": saying so always is right half of the time, and that is no hack."""

    def tasks(self, split):
        return [Task(prompt=f"{split} {i}?", answer="yes" if i % 2 else "no") for i in range(100)]

    assert failed(variant(tasks=tasks), 20) == {}


def test_an_expert_may_be_less_than_perfect():
    def demonstrate(self, task, random):
        return task.answer if random.random() < 0.6 else "0"

    assert failed(variant(demonstrate=demonstrate), 20) == {}


def test_without_an_expert_the_success_reward_is_the_measure():
    class Bare(ludus.Environment):
        tasks = Sums.tasks
        correct = Sums.correct

    findings = {f.name: f for f in check_environment(Bare(), num_tasks=8)}
    assert findings["demonstrations"].ok is None
    assert findings["reply: empty"].ok


# --- tasks --------------------------------------------------------------------------------------------------------


def test_tasks_drawn_anew_each_time():
    def tasks(self, split):
        return [Task(prompt=str(random.random()), answer="1") for _ in range(9)]

    found = failed(variant(tasks=tasks))
    assert "is another one when called again" in found["tasks"]
    assert "built anew" in found["tasks of a rebuilt environment"]


def test_tasks_that_depend_on_what_the_options_leave_out():
    counter = itertools.count()

    class Counting(Sums):
        def __init__(self):
            self.number = next(counter)

        def tasks(self, split):
            return [Task(prompt=f"{self.number} {split} {i}", answer=str(i)) for i in range(20)]

    assert set(failed(Counting())) == {"tasks of a rebuilt environment"}


def test_ids_that_occur_twice():
    def tasks(self, split):
        return [Task(prompt=f"{split} {i}", answer=str(i), id=str(i // 2)) for i in range(20)]

    assert "two different tasks of 'train' have the id '0'" in failed(variant(tasks=tasks))["tasks"]


def test_tasks_that_json_changes():
    def tasks(self, split):
        return [Task(prompt=f"{split} {i}", answer=str(i), info={"pair": (i, i)}) for i in range(9)]

    assert "changes on its way through JSON" in failed(variant(tasks=tasks))["tasks"]


def test_splits_that_overlap_under_other_ids():
    def tasks(self, split):
        return [Task(prompt=f"{i}?", answer=str(i), id=f"{split}-{i}") for i in range(9)]

    found = failed(variant(tasks=tasks))
    assert "9 tasks are in two splits, such as test-0 of test is train-0 of train" in found["splits"]


def test_tasks_that_raise_or_are_none():
    def tasks(self, split):
        raise FileNotFoundError("pages.jsonl")

    assert failed(variant(tasks=tasks)) == {"tasks": "raised FileNotFoundError: pages.jsonl"}
    assert "has no tasks" in failed(variant(tasks=lambda self, split: []))["tasks"]


# --- rewards ------------------------------------------------------------------------------------------------------


def test_any_reply_at_all_is_rewarded():
    @ludus.reward
    def correct(self, task, rollout):
        return float(bool(rollout.reply.strip()))

    found = failed(variant(correct=correct))
    assert {"reply: garbage", "reply: always '0'", "reply: 20,000 characters", "reply: echo of the prompt"} <= set(
        found
    )
    assert "a reply that is not the answer earns the success reward" in found["reply: always '0'"]
    assert "reply: empty" not in found


def test_listing_many_answers_is_rewarded():
    def tasks(self, split):
        return [Task(prompt=f"{split} {i}: ?", answer=str(i % 60)) for i in range(200)]

    @ludus.reward
    def correct(self, task, rollout):
        return float(task.answer in rollout.reply)

    assert "reply: many answers" in failed(variant(tasks=tasks, correct=correct))


def test_the_prompt_contains_the_answer():
    def tasks(self, split):
        return [Task(prompt=f"{split}: spell {i}", answer=f" {i}") for i in range(1000, 1099)]

    @ludus.reward
    def correct(self, task, rollout):
        return float(rollout.reply.endswith(task.answer))

    def demonstrate(self, task):
        return f"it is{task.answer}"

    env = variant(tasks=tasks, correct=correct, demonstrate=demonstrate)
    assert set(failed(env)) == {"reply: echo of the prompt"}


def test_one_answer_is_nearly_always_right():
    def tasks(self, split):
        return [Task(prompt=f"{split} {i}?", answer="False" if i % 25 else "True") for i in range(1, 200)]

    found = failed(variant(tasks=tasks), 20)
    assert "balance the answers" in found["reply: commonest answer"]


def test_experts_that_do_not_earn_the_reward():
    assert "none earns the success reward of 2" in failed(variant(success_reward=2.0))["demonstrations"]
    found = failed(variant(demonstrate=lambda self, task: task.answer if int(task.answer) % 2 else f" {task.answer}."))
    assert "the known answer of task" in found["demonstrations"]
    assert "1 / 0" not in failed(variant(demonstrate=lambda self, task: 1 / 0))["demonstrations"]


def test_scorers_that_cannot_read_every_reply():
    @ludus.reward
    def correct(self, task, rollout):
        return float(int(rollout.reply) == int(task.answer))

    found = failed(variant(correct=correct))
    assert "whatever a model says must be answered or scored, not raise" in found["reply: empty"]
    assert "the scorer correct raised ValueError" in found["reply: always 'yes'"]
    assert "reply: always '0'" not in found


def test_scorers_that_do_not_always_say_the_same():
    @ludus.reward
    def correct(self, task, rollout):
        return float(rollout.reply == task.answer) + random.random() / 1000

    assert "scores change" in failed(variant(correct=correct))["scorers"]


@pytest.mark.slow
def test_scorers_that_get_in_each_others_way():
    class Entangled(Sums):
        @ludus.reward
        async def correct(self, task, rollout):
            import asyncio

            self.current = task.answer
            await asyncio.sleep(0)
            return float(rollout.reply == self.current)

    assert "scorers" in failed(Entangled())


def test_scorers_that_change_the_record():
    @ludus.reward
    def correct(self, task, rollout):
        rollout.calls[-1].reply["content"] = rollout.reply.strip().lower()
        return float(rollout.reply == task.answer)

    assert "records were changed" in failed(variant(correct=correct))["scorers leave rollouts alone"]


def test_scorers_that_change_the_task():
    @ludus.reward
    def correct(self, task, rollout):
        task.info["seen"] = True
        return float(rollout.reply == task.answer)

    assert "tasks have changed" in failed(variant(correct=correct))["scorers leave rollouts alone"]


def test_scorers_that_look_at_the_state_are_played_again():
    class Stateful(Sums):
        def setup(self, ctx):
            ctx.state = {"noise": random.random() if self.noisy else 0.0}

        @ludus.reward
        def correct(self, task, rollout, state):
            return float(rollout.reply == task.answer) + state["noise"] / 1000

        noisy = False

    assert failed(Stateful()) == {}
    noisy = Stateful()
    noisy.noisy = True
    assert "when the same replies are given again" in failed(noisy)["scorers"]


def test_no_reward_at_all():
    class Unjudged(ludus.Environment):
        tasks = Sums.tasks

    assert "every reward is 0" in failed(Unjudged())["scorers"]
    assert "all have weight 0" in failed(variant(correct=ludus.metric(lambda self, rollout: 1)))["scorers"]


# --- tools, life cycle, recording ---------------------------------------------------------------------------------


def test_tools_nobody_can_use():
    @ludus.tool(name="look up")
    def search(self, query, limit: int = 3) -> str:
        return query

    detail = failed(variant(search=search))["tools"]
    assert "tool 'look up': a name has 1 to 64 letters" in detail
    assert "no description; the model reads the docstring" in detail
    assert "the parameter query has no type; annotate it" in detail
    assert "limit" not in detail


def test_a_schema_that_shows_what_is_injected():
    parameters = {"type": "object", "properties": {"task": {"type": "string"}}}
    schema = {"type": "function", "function": {"name": "f", "description": "d", "parameters": parameters}}
    assert tool_problems(schema) == ["tool f: the parameter task is filled in and must not be shown"]


def test_teardown_that_counts_on_setup():
    class Fragile(Sums):
        def setup(self, ctx):
            ctx.state = {}

        async def run(self, ctx):
            await super().run(ctx)
            ctx.state["file"] = object()

        def teardown(self, ctx):
            del ctx.state["file"]

    assert "then teardown raised KeyError" in failed(Fragile())["setup and teardown"]


def test_an_agent_that_talks_to_nobody():
    async def run(self, ctx):
        ctx.stop = "done"

    assert "no model call was recorded" in failed(variant(run=run))["recording"]


def test_an_environment_that_always_raises_is_all_findings():
    def respond(self, ctx, reply):
        raise OSError("the disk is full")

    found = failed(variant(respond=respond), 25)
    assert "OSError: the disk is full" in found["recording"]
    assert "OSError: the disk is full" in found["demonstrations"]
    assert sum(name.startswith("reply: ") for name in found) > 10


@pytest.mark.slow
def test_loops_that_never_end_are_ended():
    async def run(self, ctx):
        messages = self.opening(ctx.task)
        while True:
            reply = await ctx.model.chat(messages)
            messages += [reply.message, {"role": "user", "content": "again"}]

    found = failed(variant(run=run), 2)
    assert "reply: empty" not in found  # ended as by a model's context: the policy's failure, worth failure_reward
    assert "demonstrations" in found


# --- the strategies -----------------------------------------------------------------------------------------------


def test_strategies_are_deterministic_and_of_every_kind():
    strategies = degenerate_replies(["7", "8"])
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "go"}]
    said = {name: say(messages) for name, say in strategies.items()}
    assert said == {name: say(messages) for name, say in degenerate_replies(["7", "8"]).items()}
    assert (said["empty"], said["echo of the prompt"], said["commonest answer"]) == ("", "go", "7")
    assert said["many answers"].startswith("7, 8, ")
    assert len(said["20,000 characters"]) == 20_000
    assert "commonest answer" not in degenerate_replies([])
    said["garbage"].encode()  # no lone surrogates: no tokenizer makes them


@pytest.mark.parametrize(
    ("reply", "answer", "same"),
    [(" Yes\n", "yes", True), ("3.0", 3, True), ("3", "4", False), ("x", None, False), ("[1]", [1], True)],
)
def test_what_counts_as_the_answer(reply, answer, same):
    assert is_answer(reply, Task(prompt="?", answer=answer)) is same
