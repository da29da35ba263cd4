"""Groups of rollouts: retried, excluded, counted, compared, cancelled; the same whatever runs beside them."""

import asyncio
import time

import msgspec
import numpy as np
import pytest
from playground import Fails, Says, Small, attempt, run

import ludus
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.errors import TooManyFailures
from ludus.recording.backend import TokenBackend
from ludus.rollouts.failure import ENOUGH, FailureWatch
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.seeds import derive
from ludus.types import MAIN_ROLE, Reward, Rollout, Sampling


def tokens(engine=None) -> TokenBackend:
    return TokenBackend("fake", engine or FakeEngine(), fake_renderer())


class Flaky(Small):
    """Fails as long as the attempt is earlier than the task's answer."""

    def respond(self, ctx, reply):
        if self.attempts.setdefault(ctx.task.id, 0) < int(ctx.task.answer):
            self.attempts[ctx.task.id] += 1
            raise OSError(f"not yet: {ctx.random.random()}")

    def setup(self, ctx):
        self.attempts = self.__dict__.setdefault("attempts", {})


# --- retries and exclusion ----------------------------------------------------------------------------------------


async def test_retries_are_fresh_and_then_it_is_excluded():
    seen = []
    groups = await run(Flaky(), tasks=4, max_retries=2, on_rollout=seen.append)
    assert [group.rollouts[0].seeds.attempt for group in groups] == [0, 1, 2, 2]
    assert [len(group.scored) for group in groups] == [1, 1, 1, 0]
    assert len(seen) == 1 + 2 + 3 + 3  # failed attempts are reported too
    errors = [rollout.failure.error for rollout in seen if rollout.task == groups[3].task]
    assert len(set(errors)) == 3  # each attempt draws anew
    assert len({rollout.id for rollout in seen}) == len(seen)


async def test_exclusions_and_retries_are_counted():
    plan, watch = Plan(max_retries=2), FailureWatch()
    env = Flaky()
    async with Scheduler(env, {MAIN_ROLE: Says()}, plan, watch=watch) as scheduler:
        async for _ in scheduler.groups([(task, 0) for task in env.tasks("test")[:4]], 1):
            pass
    assert watch.retried == 5


@pytest.mark.slow
async def test_a_server_that_dies_late_stops_the_run():
    class Dies(Small):
        num_played = 0

        def respond(self, ctx, reply):
            self.num_played += 1
            if self.num_played > 1_000:
                raise OSError("connection refused")

    with pytest.raises(TooManyFailures, match=r"of the last 200 rollouts failed.*connection refused"):
        await run(Dies(), tasks=8, size=1000, max_retries=0)


@pytest.mark.slow
async def test_many_failures_are_warned_of_once(caplog):
    class Sometimes(Small):
        def respond(self, ctx, reply):
            if ctx.random.random() < 0.05:
                raise OSError("bad luck")

    await run(Sometimes(), tasks=8, size=100, max_retries=0)
    assert len([record for record in caplog.records if "rollouts failed" in record.message]) == 1


async def test_siblings_live_on():
    class Sometimes(Small):
        def respond(self, ctx, reply):
            if ctx.random.random() < 0.5:
                raise OSError("bad luck")

    (group,) = await run(Sometimes(), size=16)
    assert 0 < len(group.scored) < 16
    assert all(rollout.reward == 1.0 for rollout in group.scored)


async def test_when_nearly_all_fail_the_run_stops_and_says_why():
    def respond(self, ctx, reply):
        raise OSError("the disk is full")

    env = type("Doomed", (Small,), {"respond": respond})()
    with pytest.raises(TooManyFailures) as caught:
        await run(env, tasks=8, size=4, concurrency=4)
    text = str(caught.value)
    assert "the commonest failure" in text
    assert "environment: OSError: the disk is full" in text
    assert 'raise OSError("the disk is full")' in text  # the author's own line


async def test_a_few_failures_stop_nothing():
    def respond(self, ctx, reply):
        raise OSError("the disk is full")

    groups = await run(type("Doomed", (Small,), {"respond": respond})(), tasks=8)
    assert len(groups) < ENOUGH
    assert all(group.scored == [] for group in groups)


async def test_failures_of_the_policy_stop_nothing():
    groups = await run(Small(), Fails("policy"), tasks=8, size=8)
    assert all(len(group.scored) == 8 for group in groups)


async def test_a_group_scorer_that_always_fails_stops_the_run():
    class Broken(Small):
        @ludus.reward
        def compare(self, group):
            return [1.0]

    with pytest.raises(TooManyFailures, match=r"one number per rollout \(4\), got \[1.0\]"):
        await run(Broken(), tasks=8, size=4, concurrency=4)


# --- group scorers, rewards of roles and turns --------------------------------------------------------------------


class Ranked(Small):
    @ludus.reward(weight=2.0)
    async def longest(self, group, task):
        longest = max(len(rollout.reply) for rollout in group)
        assert all(rollout.task == task for rollout in group)
        return [len(rollout.reply) == longest for rollout in group]


async def test_group_scorers_compare_the_rollouts_of_a_task():
    engine = FakeEngine(lambda prompt, rng: "x" * rng.randint(1, 9))
    groups = await run(Ranked(), tokens(engine), tasks=3, size=4)
    for group in groups:
        longest = max(len(rollout.reply) for rollout in group.rollouts)
        assert [r.reward for r in group.rollouts] == [1 + 2 * (len(r.reply) == longest) for r in group.rollouts]
        assert group.rollouts[0].metrics.keys() == {"fine", "longest"}


async def test_group_scorers_see_only_what_counts():
    class Picky(Ranked):
        def respond(self, ctx, reply):
            if ctx.random.random() < 0.5:
                raise OSError

    (group,) = await run(Picky(), size=16)
    assert all([r.scorer for r in rollout.rewards] == ["fine", "longest"] for rollout in group.scored)
    assert all(rollout.rewards == [] for rollout in group.rollouts if rollout.excluded)


async def test_a_group_scorer_that_raises_excludes_the_group():
    class Broken(Small):
        @ludus.reward
        def compare(self, group):
            return group[99]

    (group,) = await run(Broken(), size=2)
    assert group.scored == []
    assert {rollout.failure.boundary for rollout in group.rollouts} == {"scorer"}
    assert "the scorer compare raised IndexError" in group.rollouts[0].failure.error


class Debate(Small):
    """Two roles in turn; the judge of turns rewards the second turn of the opponent."""

    roles = (MAIN_ROLE, "opponent")

    async def run(self, ctx):
        messages = self.opening(ctx.task)
        for role in (*self.roles, *self.roles):
            reply = await ctx.models[role].chat(messages)
            messages += [{"role": "assistant", "content": reply.text}, {"role": "user", "content": f"after {role}"}]

    @ludus.reward(weight=0.5)
    def judged(self, rollout):
        return [Reward("", 1.0), Reward("speech", 0.25, role="opponent", turn=1)]

    @ludus.metric
    def length(self, rollout):
        return len(rollout.calls)


async def test_roles_have_their_own_models_sequences_and_rewards():
    other = FakeEngine(lambda prompt, rng: "no")
    rollout = (await run(Debate(), tokens(), roles={"opponent": tokens(other)}, sampling=Sampling(max_tokens=3)))[0]
    (rollout,) = rollout.rollouts
    assert [call.role for call in rollout.calls] == [MAIN_ROLE, "opponent"] * 2
    assert {sequence.role for sequence in rollout.sequences} == {MAIN_ROLE, "opponent"}
    assert rollout.conversation("opponent")[-1]["content"] == "no"
    assert (rollout.role_reward(MAIN_ROLE), rollout.role_reward("opponent")) == (1 + 0.5, 0.5 * 0.25)
    assert rollout.reward == 1.5
    assert rollout.metrics == {"fine": 1.0, "judged": 1.0, "opponent/speech": 0.25, "length": 4.0}
    assert [(r.scorer, r.role, r.turn) for r in rollout.rewards[1:3]] == [
        ("judged", MAIN_ROLE, None), ("speech", "opponent", 1)
    ]  # fmt: skip


async def test_roles_without_a_model_of_their_own_share_the_main_one():
    rollout = await attempt(Debate(), Says(lambda messages: str(len(messages))))
    assert [call.reply["content"] for call in rollout.calls] == ["1", "3", "5", "7"]


async def test_rewards_of_a_role_that_does_not_exist_are_refused():
    class Misspelt(Small):
        @ludus.reward
        def judged(self):
            return Reward("", 1.0, role="oponent")

    rollout = await attempt(Misspelt())
    assert "the scorer judged rewards the role 'oponent', but there is only policy" in rollout.failure.error


@pytest.mark.parametrize("group", [False, True])
async def test_a_turn_that_is_no_int_is_refused(group):
    class Numpy(Small):
        @ludus.reward
        def judged(self, rollout):
            return 0.0 if group else Reward("", 1.0, turn=np.int64(1))

        @ludus.reward
        def compared(self, group):
            return [Reward("", 1.0, turn=np.int64(1))] * len(group)

    rollout = await attempt(Numpy())
    assert (rollout.failure.boundary, rollout.failure.blame) == ("scorer", "environment")
    assert "must name a turn by an int, got np.int64(1)" in rollout.failure.error


async def test_a_failure_of_the_policy_is_that_of_all_roles():
    rollout = await attempt(Debate(), Fails("policy"))
    assert [(r.scorer, r.role) for r in rollout.rewards] == [("failure", MAIN_ROLE), ("failure", "opponent")]


# --- the default loop ---------------------------------------------------------------------------------------------


class Chatty(Small):
    def respond(self, ctx, reply):
        return "go on"

    @ludus.stop
    async def bored(self, ctx):
        return len(ctx.messages) >= self.patience

    patience = 99


async def test_why_a_loop_ended():
    bored = Chatty()
    bored.patience = 4
    cut = tokens(FakeEngine(lambda prompt, rng: "long"))
    assert (await attempt(Small())).stop == "done"
    assert (await attempt(Chatty())).stop == "max_turns"
    assert (await attempt(bored)).stop == "bored"
    assert (await attempt(Chatty(), cut, sampling=Sampling(max_tokens=2))).stop == "length"


async def test_the_environments_last_word_is_kept():
    rollout = await attempt(Chatty())
    assert rollout.num_turns == 3
    assert rollout.epilogue == [{"role": "user", "content": "go on"}]
    assert [message["role"] for message in rollout.messages] == ["user", "assistant"] * 3 + ["user"]


async def test_setup_may_add_and_remove_tools():
    from ludus.authoring.tools import Tool

    def extra(x: int) -> int:
        """Add one."""
        return x + 1

    class Equipped(Small):
        @ludus.tool
        def plain(self) -> str:
            """Nothing."""
            return ""

        def setup(self, ctx):
            del ctx.tools["plain"]
            ctx.tools["extra"] = Tool(extra)

    rollout = await attempt(Equipped())
    assert [tool["function"]["name"] for tool in rollout.tools] == ["extra"]


async def test_a_record_is_whole():
    env = Chatty()
    (group,) = await run(env, tokens(), size=2, purpose="exam", sampling=Sampling(max_tokens=2, temperature=0.7))
    for sample, rollout in enumerate(group.rollouts):
        assert msgspec.json.decode(msgspec.json.encode(rollout), type=Rollout) == rollout
        assert rollout.environment == env.describe()
        assert (rollout.purpose, rollout.split, rollout.model) == ("exam", "test", "fake")
        assert (rollout.seeds.sample, rollout.group) == (sample, f"exam/{rollout.task.id}/0")
        assert "python" in rollout.versions
        assert rollout.calls[0].sampling.temperature == 0.7


# --- what runs beside them makes no difference --------------------------------------------------------------------


class Dicey(Small):
    """Looks at everything that is drawn: the environment's dice and the model's tokens."""

    async def respond(self, ctx, reply):
        await asyncio.sleep(0.001 * ctx.random.random())
        return f"{ctx.random.random()} after {reply.text!r}"

    @ludus.reward
    def drawn(self, rollout):
        return derive(str(rollout.messages)) / 2**63


def content(rollout: Rollout) -> tuple:
    return rollout.id, rollout.messages, [s.tokens for s in rollout.sequences], rollout.reward


@pytest.mark.parametrize("deterministic", [False, True])
async def test_rollouts_do_not_depend_on_concurrency(deterministic):
    played = []
    for concurrency in (1, 5, 64):
        groups = await run(
            Dicey(), tokens(), tasks=4, size=3, seed=7, concurrency=concurrency, deterministic=deterministic,
            sampling=Sampling(max_tokens=6),
        )  # fmt: skip
        played.append([content(rollout) for group in groups for rollout in group.rollouts])
    assert played[0] == played[1] == played[2]
    assert len({text for _, text, _, _ in [(a, str(b), c, d) for a, b, c, d in played[0]]}) == 12


async def test_seeds_of_run_task_visit_and_sample_all_count():
    rollouts = {}
    for seed in (0, 1):
        async with Scheduler(
            Dicey(), {MAIN_ROLE: tokens()}, Plan(seed=seed, sampling=Sampling(max_tokens=6))
        ) as scheduler:
            todo = [(task, visit) for task in Dicey().tasks("test")[:2] for visit in (0, 1)]
            async for group in scheduler.groups(todo, 2):
                rollouts |= {(seed, r.task.id, r.seeds.visit, r.seeds.sample): r for r in group.rollouts}
    assert len(rollouts) == len({r.id for r in rollouts.values()}) == 16
    assert len({str(r.messages) for r in rollouts.values()}) == 16


async def test_the_purpose_does_not_change_what_is_drawn():
    first, second = [(await run(Dicey(), tokens(), purpose=p, sampling=Sampling(max_tokens=6))) for p in ("a", "b")]
    assert first[0].rollouts[0].messages == second[0].rollouts[0].messages
    assert first[0].rollouts[0].id != second[0].rollouts[0].id


async def test_deterministic_groups_come_in_order():
    class Uneven(Small):
        async def respond(self, ctx, reply):
            await asyncio.sleep(0.01 * (8 - int(ctx.task.answer)))

    env = Uneven()
    todo = [(task, 0) for task in env.tasks("test")]
    async with Scheduler(env, {MAIN_ROLE: Says()}, Plan(deterministic=True, concurrency=4)) as scheduler:
        assert [group.task async for group in scheduler.groups(todo, 1)] == [task for task, _ in todo]


class Attached(FakeEngine):
    """A sampler that knows how many take part."""

    taking_part = 0
    most = 0

    def attach(self, count: int = 1) -> None:
        self.taking_part += count
        self.most = max(self.most, self.taking_part)

    def detach(self, count: int = 1) -> None:
        self.taking_part -= count


@pytest.mark.parametrize("env", [Small(), Flaky()])
async def test_waves_are_attached_before_they_start_and_detached_at_the_end(env):
    engine = Attached(lambda prompt, rng: "x")
    backend = tokens(engine)
    await run(env, backend, tasks=4, size=2, deterministic=True, concurrency=4, max_retries=1)
    assert (engine.most, engine.taking_part) == (4, 0)


async def test_no_more_than_so_many_at_once():
    now, most = 0, 0

    class Counted(Small):
        async def respond(self, ctx, reply):
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1

    await run(Counted(), tasks=8, size=2, concurrency=3)
    assert most == 3


# --- stopping -----------------------------------------------------------------------------------------------------


async def test_a_stopped_scheduler_finishes_what_runs_and_starts_nothing():
    env, started = Small(), []

    def tasks():
        for task in env.tasks("test"):
            started.append(task)
            yield task, 0

    async with Scheduler(env, {MAIN_ROLE: Says()}, Plan(concurrency=1)) as scheduler:
        finished = 0
        async for group in scheduler.groups(tasks(), 1):
            finished += len(group.scored)
            scheduler.stopping = True
    assert finished == len(started) < 8


async def test_leaving_early_cancels_the_rest_and_tears_it_down():
    torn_down = []

    class Slow(Small):
        async def respond(self, ctx, reply):
            if ctx.task.answer != "0":
                await asyncio.Event().wait()

        def teardown(self, ctx):
            torn_down.append(ctx.task.answer)

    env = Slow()
    async with Scheduler(env, {MAIN_ROLE: Says()}, Plan(concurrency=3)) as scheduler:
        groups = scheduler.groups([(task, 0) for task in env.tasks("test")[:3]], 1)
        async for _ in groups:
            break
        await groups.aclose()
    assert sorted(torn_down) == ["0", "1", "2"]


async def test_cancelling_the_run_is_no_failure():
    seen, running = [], asyncio.Event()

    class Slow(Small):
        async def respond(self, ctx, reply):
            running.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run(Slow(), tasks=4, on_rollout=seen.append))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == []


async def test_engines_are_told_when_a_rollout_is_over():
    engine = FakeEngine(lambda prompt, rng: "x")
    groups = await run(Chatty(), tokens(engine), tasks=2, size=2)
    ids = {f"{rollout.id}/0" for group in groups for rollout in group.rollouts}
    assert (set(engine.releases), len(engine.releases)) == (ids, 4)


async def test_what_an_agent_leaves_running_changes_no_record():
    left, engine = [], FakeEngine(lambda prompt, rng: "x", delay_s=0.02)

    class Careless(Small):
        async def run(self, ctx):
            await ctx.model.chat(self.opening(ctx.task))
            left.append(asyncio.create_task(ctx.model.chat(self.opening(ctx.task))))

    rollout = await attempt(Careless(), tokens(engine))
    before = msgspec.json.encode(rollout)
    (error,) = await asyncio.gather(*left, return_exceptions=True)
    assert "is over" in str(error)
    assert msgspec.json.encode(rollout) == before


async def test_a_tool_that_blocks_leaves_the_loop_alive():
    ticks = 0

    class Blocking(Small):
        def respond(self, ctx, reply):
            while ticks < 5:  # only a live loop ends it
                time.sleep(0.001)

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    groups = await run(Blocking(), tasks=4)
    ticking.cancel()
    assert all(group.rollouts[0].failure is None for group in groups)


async def test_weights_that_a_scorer_returns_multiply_its_own():
    class Weighs(Small):
        @ludus.reward(weight=2.0)
        def judged(self):
            return [Reward("half", 1.0, 0.5), Reward("shown", 3.0, 0.0), Reward("whole", 1.0)]

    rollout = await attempt(Weighs())
    assert [(r.scorer, r.weight) for r in rollout.rewards[1:]] == [("half", 1.0), ("shown", 0.0), ("whole", 2.0)]

    class Weightless(Small):
        @ludus.reward
        def judged(self):
            return Reward("x", 1.0, float("inf"))

    assert "finite weights" in (await attempt(Weightless())).failure.error
