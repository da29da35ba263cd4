"""Checks of rewards: experts earn them, policies that know nothing don't, and scorers always say the same."""

from __future__ import annotations

import asyncio
import inspect
import math
import random
import statistics
from collections.abc import Sequence

import msgspec

from ludus.authoring.calling import wanted
from ludus.authoring.context import Context
from ludus.authoring.environment import Environment
from ludus.recording.expert import Expert
from ludus.rollouts.scoring import score, score_group
from ludus.testing.finding import Finding
from ludus.testing.playing import Subject, failures
from ludus.testing.scripted import Scripted, commonest_answers, degenerate_replies, is_answer
from ludus.types import Reward, Rollout

MARGIN = 0.1
"""How far above a degenerate strategy demonstrations must score, as a part of the success reward; or else:"""
CLEAR = 2.0
"""Standard errors of the difference that are as good."""
FROM_RECORD = {"task", "rollout", "group"}
"""What scorers may ask for that a recorded rollout still has."""
RESCORED = 60
"""Rollouts, at most, that are scored again."""
STRANGE_REPLY = " \n A Strange REPLY: 0, 1, 2 \t"


async def check_demonstrations(subject: Subject) -> list[Finding]:
    """The expert can earn the success reward; where it knows the answer of a single-turn task, it always does."""
    env, name = subject.env, "demonstrations"
    if not env.can_demonstrate:
        return [Finding(name, None, "there is no expert: define demonstrate(task) to have rewards checked against it")]
    tasks = [task for task in subject.tasks if await subject.has_demonstration(task)]
    if not tasks:
        return [Finding(name, None, "demonstrate(task) is None for every task looked at")]
    rollouts = await subject.play(Expert(), tasks)
    subject.demonstrations = [rollout for rollout in rollouts if rollout.failure is None]
    failed = failures(rollouts)
    if failed:
        return [Finding(name, False, f"{len(failed)} of {len(rollouts)} fail: {failed[0]}")]
    short = [rollout for rollout in rollouts if rollout.reward < env.success_reward]
    summary = _summary(rollouts, env.success_reward)
    if len(short) == len(rollouts):
        wanted_reward = f"the success reward of {env.success_reward:g}"
        detail = f"{summary}: none earns {wanted_reward}; set success_reward, or mend the scorer"
        return [Finding(name, False, detail)]
    if short and _knows_answers(env, rollouts):
        worst = min(short, key=lambda rollout: rollout.reward)
        detail = (
            f"{summary}: the known answer of task {worst.task.id}, {_shown(worst.reply)}, earns only {worst.reward:g} "
            f"of {env.success_reward:g}"
        )
        return [Finding(name, False, detail)]
    return [Finding(name, True, summary)]


def _knows_answers(env: Environment, rollouts: Sequence[Rollout]) -> bool:
    fixed = not inspect.isgeneratorfunction(env.demonstrate) and "random" not in wanted(env.demonstrate)
    return fixed and all(rollout.num_turns == 1 and rollout.task.answer is not None for rollout in rollouts)


# --- degenerate replies -------------------------------------------------------------------------------------------


async def check_degenerate_replies(subject: Subject) -> list[Finding]:
    """A reply made without reading the task earns less than a demonstration, and seldom the success reward."""
    findings: list[Finding] = []
    for strategy, say in degenerate_replies(commonest_answers(subject.other_tasks)).items():
        rollouts = await subject.play(Scripted(strategy, say), subject.tasks)
        subject.played += rollouts
        findings.append(_judge(f"reply: {strategy}", subject, rollouts))
    return findings


def _judge(name: str, subject: Subject, rollouts: list[Rollout]) -> Finding:
    env, failed = subject.env, failures(rollouts)
    if failed:
        detail = (
            f"{len(failed)} of {len(rollouts)} rollouts fail: {failed[0]}; whatever a model says must be answered or "
            f"scored, not raise"
        )
        return Finding(name, False, detail)
    undeserved = [
        rollout for rollout in rollouts
        if rollout.reward >= env.success_reward and not is_answer(rollout.reply, rollout.task)
    ]  # fmt: skip
    summary = _summary(rollouts, env.success_reward)
    if len(undeserved) > len(rollouts) / 2:
        example = undeserved[0]
        detail = (
            f"{summary}: a reply that is not the answer earns the success reward, such as {_shown(example.reply)} for "
            f"task {example.task.id}"
            + (f", whose answer is {_shown(str(example.task.answer))}" if example.task.answer is not None else "")
            + "; make the scorer compare with the answer"
        )
        return Finding(name, False, detail)
    lead = _lead(subject.demonstrations, rollouts, MARGIN * abs(env.success_reward))
    if lead is None:
        return Finding(name, True, summary)
    ahead, clear = lead
    if not clear:
        detail = (
            f"{summary}: demonstrations earn only {ahead:+.3f} more, so there is next to nothing to learn; mend the "
            f"scorer, or balance the answers of the tasks"
        )
        return Finding(name, False, detail)
    return Finding(name, True, f"{summary}; demonstrations {ahead:+.2f}")


def _lead(demonstrations: Sequence[Rollout], rollouts: Sequence[Rollout], margin: float) -> tuple[float, bool] | None:
    """Mean reward of demonstrations above that of other rollouts of the same tasks, and whether it is a clear one."""
    earned = {rollout.task.id: rollout.reward for rollout in demonstrations}
    differences = [earned[r.task.id] - r.reward for r in rollouts if r.task.id in earned]
    if not differences:
        return None
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    return mean, mean > 0 and (mean >= margin or mean >= CLEAR * error)


# --- scorers ------------------------------------------------------------------------------------------------------


async def check_scorers(subject: Subject) -> list[Finding]:
    """Scoring a recorded rollout again, alone or beside many others, gives the same rewards and changes nothing."""
    env, name = subject.env, "scorers"
    scorers = [*env.scorers(), *env.group_scorers()]
    if not scorers:
        return [Finding(name, False, "there are none, so every reward is 0: mark a method with @ludus.reward")]
    if all(mark.weight == 0 for _, mark in scorers):
        return [Finding(name, False, "all have weight 0, so every reward is 0: mark one with @ludus.reward")]
    played = [r for r in (*subject.demonstrations, *subject.played) if r.failure is None and r.calls]
    rollouts = _spread(played, RESCORED)
    if not rollouts:
        return [Finding(name, None, "no rollout could be scored")]
    needs = {asked for fn, _ in scorers for asked in wanted(fn)} - FROM_RECORD
    if needs:
        return [await _reenacted(subject), Finding("scorers leave rollouts alone", None, f"they ask for {needs}")]
    records = [msgspec.json.encode(_without_rewards(rollout)) for rollout in rollouts]
    alone = [(await _rescore(env, record))[0] for record in records]
    among_many = await asyncio.gather(*(_rescore(env, record) for record in records))
    problems = [
        f"task {r.task.id}, reply {_shown(r.reply)}: {_values(r.rewards)} at first, {_values(again)} when scored {how}"
        for how, scored in (("again", alone), ("beside others", [rewards for rewards, _ in among_many]))
        for r, again in zip(rollouts, scored, strict=True)
        if again != r.rewards
    ]
    return [
        Finding(
            name,
            not problems,
            f"{len(problems)} scores change: {problems[0]}; scorers may depend on task and rollout alone"
            if problems
            else f"{len(rollouts)} rollouts scored again, alone and side by side: the same",
        ),
        await _left_alone(subject, rollouts),
    ]


async def _left_alone(subject: Subject, rollouts: Sequence[Rollout]) -> Finding:
    """Rollouts with another last reply than any scorer has seen, so that changes made once and for all show too."""
    name = "scorers leave rollouts alone"
    if msgspec.json.encode(subject.scanned) != subject.snapshot:
        return Finding(
            name, False, "tasks have changed while they were played; all rollouts share them: work on copies"
        )
    mutated: list[str] = []
    for rollout in rollouts:
        record = msgspec.json.encode(_with_reply(rollout, STRANGE_REPLY))
        if (await _rescore(subject.env, record))[1] != record:
            mutated.append(rollout.task.id)
    if mutated:
        return Finding(
            name, False, f"{len(mutated)} records were changed, such as that of task {mutated[0]}: work on copies"
        )
    return Finding(name, True, f"{len(rollouts)} records unchanged")


def _with_reply(rollout: Rollout, text: str) -> Rollout:
    *calls, last = rollout.calls
    said = msgspec.structs.replace(last, reply={**last.reply, "content": text})
    return msgspec.structs.replace(_without_rewards(rollout), calls=[*calls, said])


async def _reenacted(subject: Subject) -> Finding:
    """Where scorers look at more than the record: the same seeds and replies again, one task at a time."""
    name = "scorers"
    backend = Scripted("yes", lambda messages: "yes")
    together = await subject.play(backend, subject.tasks)
    alone = [rollout for task in subject.tasks for rollout in await subject.play(backend, [task])]
    first = {rollout.task.id: rollout.rewards for rollout in together}
    changed = [r for r in alone if r.failure is None and r.rewards != first.get(r.task.id)]
    detail = (
        f"{len(changed)} of {len(alone)} rollouts earn something else when the same replies are given again: task "
        f"{changed[0].task.id}: {_values(first.get(changed[0].task.id, []))}, then {_values(changed[0].rewards)}; draw "
        f"from ctx.random only"
        if changed
        else f"{len(alone)} rollouts with the same replies, alone and side by side: the same rewards"
    )
    return Finding(name, not changed, detail)


async def _rescore(env: Environment, record: bytes) -> tuple[list[Reward], bytes]:
    """The rewards of a recorded rollout, and what it looks like afterwards."""
    rollout = msgspec.json.decode(record, type=Rollout)
    ctx = Context(task=rollout.task, models={}, random=random.Random(0), rollout=rollout)
    rewards = await score(env, ctx)
    after = msgspec.json.encode(_without_rewards(rollout))
    rollout.rewards = rewards
    await score_group(env, [rollout])
    return rollout.rewards, after


def _without_rewards(rollout: Rollout) -> Rollout:
    return msgspec.structs.replace(rollout, rewards=[], seconds=0.0)


def _spread(rollouts: list[Rollout], most: int) -> list[Rollout]:
    """At most so many of them, from beginning to end."""
    return rollouts[:: max(1, -(-len(rollouts) // most))]


def _summary(rollouts: Sequence[Rollout], success_reward: float) -> str:
    if not rollouts:
        return "no rollouts"
    mean = statistics.fmean(rollout.reward for rollout in rollouts)
    successes = sum(rollout.reward >= success_reward for rollout in rollouts)
    return f"mean reward {mean:.2f}, success on {successes} of {len(rollouts)}"


def _values(rewards: Sequence[Reward]) -> str:
    return ", ".join(f"{reward.scorer} {reward.value:g}" for reward in rewards) or "nothing"


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")[:90]
