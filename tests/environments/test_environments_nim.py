"""Nim: who wins, two conversations, zero-sum rewards, and that a strategy beats one that has none."""

import itertools

import pytest
from players import Says, play, spoken

from ludus.authoring.tasks import take
from ludus.engine.fake import FakeEngine, fake_renderer
from ludus.environments.nim import OPPONENT, Nim
from ludus.programs.batch import make_samples
from ludus.programs.recipe import RlConfig
from ludus.programs.sft import talks_of
from ludus.recording.backend import TokenBackend
from ludus.recording.expert import Expert
from ludus.rollouts.scheduler import Group
from ludus.testing import check_environment
from ludus.types import MAIN_ROLE


def left(messages):
    """Stones that are left, as the last message says."""
    return int(messages[-1]["content"].split()[-2])


def perfect(messages):
    return str(left(messages) % 4 or 1)


def test_beginnings_are_disjoint_and_cover_both_roles():
    env = Nim()
    train, test = ({(t.info["stones"], t.info["first"]) for t in take(env, split, 40)} for split in ("train", "test"))
    assert not train & test and len(train | test) == 40
    assert {first for _, first in test} == {MAIN_ROLE, OPPONENT}


async def test_each_role_has_its_own_conversation_and_reward():
    rollouts = await play(Nim(smallest=5, largest=6), Says("1"), num=1, roles={OPPONENT: Says("3")})
    (rollout,) = rollouts
    roles = [call.role for call in rollout.calls]
    assert roles[0] == rollout.task.info["first"] and all(a != b for a, b in itertools.pairwise(roles))
    assert spoken(rollout)[0].startswith("Take 1 to 3 stones; who takes the last one wins. ")
    assert spoken(rollout, OPPONENT)[0].startswith("Take 1 to 3 stones")
    assert spoken(rollout)[-1] in ("you win", "you lose")
    assert rollout.role_reward(MAIN_ROLE) == -rollout.role_reward(OPPONENT) != 0
    assert rollout.metrics["won"] == -rollout.metrics["opponent/won"]


@pytest.mark.parametrize("said", ["", "0", "4", "-1", "two", "1.0", "9" * 5000, "1 2", "²"])
async def test_what_is_no_move_loses(said):
    for rollout in await play(Nim(), Says(said), num=8, roles={OPPONENT: Says(by=perfect)}):
        assert rollout.failure is None
        assert rollout.reward == -1 and rollout.role_reward(OPPONENT) == 1
        assert (rollout.metrics["legal"], rollout.metrics["opponent/legal"]) == (0, 1)


async def test_the_best_play_wins_wherever_it_can():
    for rollout in await play(Nim(), Says(by=perfect), num=8, roles={OPPONENT: Says(by=perfect)}):
        stones, first = rollout.task.info["stones"], rollout.task.info["first"]
        assert rollout.reward == (1 if (stones % 4 != 0) == (first == MAIN_ROLE) else -1)


async def test_the_demonstrator_is_as_good_as_its_skill():
    async def mean(skill):
        rollouts = await play(Nim(skill=skill), Expert(), num=30, split="train", roles={OPPONENT: Says(by=perfect)})
        assert all(r.failure is None and r.metrics["legal"] == 1 for r in rollouts)
        return sum(r.reward for r in rollouts) / len(rollouts)

    weak, strong = await mean(0.0), await mean(1.0)
    assert weak < strong


@pytest.mark.parametrize("options", [{"smallest": 0}, {"smallest": 9, "largest": 9}, {"most": 0}, {"skill": 1.5}])
def test_options_that_make_no_game_are_refused(options):
    with pytest.raises(ValueError, match="must"):
        Nim(**options)


@pytest.mark.slow
def test_it_keeps_its_promises():
    assert [str(finding) for finding in check_environment(Nim()) if finding.ok is False] == []


# --- self-play ----------------------------------------------------------------------------------------------------


def tokens(name="fake"):
    return TokenBackend(name, FakeEngine(lambda prompt, rng: rng.choice("123")), fake_renderer())


async def groups_of(roles):
    rollouts = await play(Nim(), tokens(), num=4, size=8, split="train", roles=roles)
    assert all(rollout.failure is None for rollout in rollouts)
    return [Group(rollouts[i].task, 0, rollouts[i : i + 8]) for i in range(0, 32, 8)]


async def test_both_roles_are_trained_each_compared_with_its_like():
    groups = await groups_of({})
    samples = make_samples(groups, RlConfig(), (MAIN_ROLE, OPPONENT))
    assert {sample.sequence.role for sample in samples} == {MAIN_ROLE, OPPONENT}
    for group in groups:
        for role in (MAIN_ROLE, OPPONENT):
            own = [s for s in samples if s.rollout in group.rollouts and s.sequence.role == role]
            assert sum(sample.advantage for sample in own) == pytest.approx(0)
            for sample in own:
                better = sample.rollout.role_reward(role) == 1
                assert (sample.advantage > 0) == better


async def test_a_frozen_role_is_not_trained():
    groups = await groups_of({OPPONENT: tokens("frozen")})
    samples = make_samples(groups, RlConfig(), (MAIN_ROLE,))
    assert samples and {sample.sequence.role for sample in samples} == {MAIN_ROLE}


async def test_a_game_of_turns_is_one_sequence_for_each_role():
    for group in await groups_of({}):
        for rollout in group.rollouts:
            roles = [sequence.role for sequence in rollout.sequences]
            assert len(roles) == len(set(roles))


async def test_the_warm_up_teaches_what_was_said_in_each_trained_role():
    (rollout,) = await play(Nim(), Expert(), split="train", roles={OPPONENT: Expert()})
    mine, theirs = talks_of(rollout, (MAIN_ROLE, OPPONENT))
    assert mine == rollout.messages and theirs == rollout.conversation(OPPONENT)
    assert talks_of(rollout, (OPPONENT,)) == [theirs]
    (short,) = await play(Nim(), Says("0"), num=1, roles={OPPONENT: Says("0")})
    assert len(talks_of(short, (MAIN_ROLE, OPPONENT))) == 1, "one of them lost before the other spoke"
