"""Gymnasium in words: what is shown, how actions are read, what is no action, sums and ends of episodes."""

import enum
import sys
import types

import numpy as np
import pytest
from players import Says, play, spoken

pytest.importorskip("gymnasium")

import gymnasium
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.authoring.tasks import take
from ludus.environments.gymnasium import Gymnasium, families
from ludus.environments.gymnasium_text import (
    NotAnAction,
    Unreadable,
    as_action,
    check_readable,
    drawn,
    how_to_act,
    written,
)
from ludus.errors import ConfigError, LudusError, UnknownName
from ludus.testing import check_environment

TAXI = max((name for name in gymnasium.registry if name.startswith("Taxi-v")), default="Taxi-v3")
CLIFF = max((name for name in gymnasium.registry if name.startswith("CliffWalking-v")), default="CliffWalking-v0")
DIRECTIONS = ("left", "down", "right", "up")


async def test_frozen_lake_by_words_and_numbers():
    env = Gymnasium("FrozenLake-v1", is_slippery=False)
    for way in (["down", "Down.", "right", "right", "[down]", "right"], ["1", "1", "2", "2", " 1 ", "2"]):
        (rollout,) = await play(env, Says(*way))
        assert (rollout.reward, rollout.stop, rollout.num_turns) == (1.0, "done", 6)
        assert rollout.metrics == {"total": 1, "refused": 0, "finished": 1}
        texts = spoken(rollout)
        assert "Reply with one of: left, down, right, up." in texts[0]
        assert "[S]FFF" in texts[0] and "SFFF\n[F]HFH" in texts[2]
        assert "\x1b" not in "".join(texts)


async def test_what_is_no_action_is_answered_and_does_not_move():
    env = Gymnasium("FrozenLake-v1", is_slippery=False)
    (rollout,) = await play(env, Says("north", "4", "-1", "", "down", "right"))
    texts = spoken(rollout)
    assert texts[2] == "'north' is no action. Reply with one of: left, down, right, up."
    assert all("is no action" in text for text in texts[2:9:2])
    assert (rollout.metrics["refused"], rollout.reward, rollout.metrics["finished"]) == (4, 0, 1)


@pytest.mark.parametrize(("world", "action"), [(TAXI, "south"), (CLIFF, "up"), ("Blackjack-v1", "hit")])
async def test_toy_text(world, action):
    env = Gymnasium(world, turns=5)
    rollouts = await play(env, Says(action), num=5)
    assert all(rollout.failure is None for rollout in rollouts), rollouts[0].failure
    assert all(action in spoken(rollout)[0] for rollout in rollouts)
    assert all(rollout.metrics["refused"] == 0 for rollout in rollouts)
    if world != "Blackjack-v1":
        assert {rollout.reward for rollout in rollouts} == {-5.0}
        assert {rollout.stop for rollout in rollouts} == {"max_turns"}


async def test_blackjack_shows_a_tuple():
    (rollout,) = await play(Gymnasium("Blackjack-v1"), Says("stick"))
    observation, _ = gymnasium.make("Blackjack-v1").reset(seed=rollout.task.info["seed"])
    assert spoken(rollout)[0].endswith(", ".join(str(int(part)) for part in observation))
    assert rollout.reward in (-1, 0, 1)


async def test_a_time_limit_ends_the_episode():
    env = Gymnasium("FrozenLake-v1", is_slippery=False, max_episode_steps=3)
    (rollout,) = await play(env, Says("left"))
    assert (rollout.num_turns, rollout.metrics["finished"], rollout.failure) == (3, 0, None)


async def test_an_observation_instead_of_a_drawing():
    (rollout,) = await play(Gymnasium("FrozenLake-v1", render="none", is_slippery=False), Says("down"))
    assert spoken(rollout)[0].endswith("\n0") and spoken(rollout)[2] == "4"


@pytest.mark.slow
async def test_the_same_seeds_the_same_luck_whoever_else_plays():
    env = Gymnasium("FrozenLake-v1")
    together = await play(env, Says("right", "down"), num=100, concurrency=100)
    alone = await play(env, Says("right", "down"), num=10, concurrency=1)
    assert [spoken(r) for r in together[:10]] == [spoken(r) for r in alone]


def test_tasks_are_the_same_each_time_and_disjoint():
    env = Gymnasium("Blackjack-v1")
    assert take(env, "test", 20) == take(env, "test", 20)
    seeds = [{task.info["seed"] for task in take(env, split, 50)} for split in ("train", "test")]
    assert not seeds[0] & seeds[1]


# --- plugins ------------------------------------------------------------------------------------------------------


class Echo(gymnasium.Env):
    """Says what was said; ends at "bye"."""

    observation_space = spaces.Dict({"heard": spaces.Text(40, min_length=0), "turn": spaces.Discrete(100)})
    action_space = spaces.Text(40)
    closed = 0

    def __init__(self, crash=False):
        self.crash = crash

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.turn = 0
        return {"heard": "", "turn": 0}, {}

    def step(self, action):
        if self.crash:
            raise RuntimeError("out of order")
        self.turn += 1
        return {"heard": action, "turn": self.turn}, 0.5, action == "bye", False, {}

    def close(self):
        Echo.closed += 1


class Restless(Echo):
    """Begins elsewhere each time."""

    begun = 0

    def reset(self, *, seed=None, options=None):
        Restless.begun += 1
        return {"heard": "", "turn": Restless.begun}, {}


class Mission(gymnasium.Space):
    """Text, of a package's own kind."""

    def __init__(self):
        super().__init__(dtype=str)

    def contains(self, value):
        return isinstance(value, str)


class Walk(enum.IntEnum):
    left, right = 0, 1


class Errand(Echo):
    """Its observations say what to do, and its actions have names."""

    def __init__(self):
        super().__init__()
        self.observation_space = gymnasium.spaces.Dict({"mission": Mission(), "at": gymnasium.spaces.Discrete(9)})
        self.action_space, self.actions, self.at = gymnasium.spaces.Discrete(2), Walk, 4

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"mission": "go right", "at": self.at}, {}

    def step(self, action):
        self.at += 1 if action == Walk.right else -1
        return {"mission": "go right", "at": self.at}, float(action), self.at == 6, False, {}


@pytest.fixture
def plugin(monkeypatch):
    module = types.ModuleType("echo_plugin")
    module.Echo, module.Restless, module.Errand, module.not_one = Echo, Restless, Errand, 3
    monkeypatch.setitem(sys.modules, "echo_plugin", module)
    gymnasium.register("EchoPlugin-v0", entry_point=Echo)
    yield
    del gymnasium.registry["EchoPlugin-v0"]


@pytest.mark.parametrize("name", ["echo_plugin:Echo", "echo_plugin:EchoPlugin-v0"])
async def test_a_plugin_by_import_path(plugin, name):
    opened, closed = Gymnasium(name), Echo.closed
    (rollout,) = await play(opened, Says("hello", "bye"))
    assert spoken(rollout)[0].endswith("heard: \nturn: 0") and spoken(rollout)[2] == "heard: hello\nturn: 1"
    assert (rollout.reward, rollout.metrics["finished"]) == (1.0, 1)
    assert Echo.closed >= closed + 1


async def test_text_of_a_packages_own_kind_and_actions_with_names(plugin):
    env = Gymnasium("echo_plugin:Errand")
    (rollout,) = await play(env, Says("up", "Right", "1"))
    assert spoken(rollout)[0] == "Reply with one of: left, right.\nat: 4\nmission: go right"
    assert spoken(rollout)[2].endswith("Reply with one of: left, right.")
    assert rollout.reward == 2 and rollout.metrics["refused"] == 1
    assert how_to_act(Mission()) == "Reply with a text." and as_action("a word", Mission()) == "a word"


async def test_what_raises_is_the_environments_fault_and_is_closed(plugin):
    env, closed = Gymnasium("echo_plugin:Echo", crash=True), Echo.closed
    (rollout,) = await play(env, Says("hello"))
    assert (rollout.failure.boundary, rollout.failure.blame) == ("environment", "environment")
    assert Echo.closed > closed


async def test_an_episode_that_its_seed_does_not_repeat_fails(plugin):
    (rollout,) = await play(Gymnasium("echo_plugin:Restless"), Says("hello"))
    assert "begins in another way each time" in rollout.failure.error


@pytest.mark.parametrize(
    ("world", "options", "said"),
    [
        ("FrozenLak-v1", {}, "did you mean 'FrozenLake-v1'"),
        ("no_such_module:X-v0", {}, "can't import no_such_module"),
        ("echo_plugin:not_one", {}, "unknown gymnasium environment"),
        ("FrozenLake-v1", {"render": "html"}, "render must be"),
        ("FrozenLake-v1", {"actions": ["a", "b"]}, "there are 4 actions, but 2 names"),
        ("FrozenLake-v1", {"turns": 0}, "turns must be"),
        ("Blackjack-v1", {"render": "ansi"}, "can't draw itself as text"),
        ("FrozenLake-v1", {"no_such_option": 1}, "no_such_option"),
    ],
)
def test_what_can_not_be_made_is_told_in_one_line(plugin, world, options, said):
    from ludus.authoring.loading import load_environment

    with pytest.raises(LudusError, match=said) as told:
        try:
            Gymnasium(world, **options)
        except (TypeError, ValueError) as error:  # as `load_environment` does
            raise error if isinstance(error, LudusError) else ConfigError(str(error)) from error
    assert "\n" not in str(told.value)
    assert load_environment


def test_families_are_the_registry():
    assert {"FrozenLake-v1", "Blackjack-v1"} <= set(families())


def test_it_keeps_its_promises():
    findings = check_environment(Gymnasium("FrozenLake-v1", is_slippery=False, turns=10), num_tasks=3)
    assert [str(finding) for finding in findings if finding.ok is False] == []


# --- spaces -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "said", "action"),
    [
        (spaces.Discrete(3), "2", 2),
        (spaces.Discrete(3, start=-1), "-1", -1),
        (spaces.MultiDiscrete([3, 4]), "2, 3", [2, 3]),
        (spaces.MultiBinary(3), "[1, 0, 1]", [1, 0, 1]),
        (spaces.Box(-1, 1, (2, 2), np.float32), "0.5, -1, 0, 1", [[0.5, -1], [0, 1]]),
        (spaces.Text(5), " abc ", "abc"),
    ],
)
def test_actions_of_every_kind(space, said, action):
    found = as_action(said, space)
    assert space.contains(found) and np.array_equal(found, action)
    assert how_to_act(space).startswith("Reply with")


@pytest.mark.parametrize(
    ("space", "said"),
    [
        *((spaces.Discrete(3), said) for said in ("3", "1.0", "9" * 4000, "one", "")),
        *((spaces.MultiDiscrete([3, 4]), said) for said in ("2", "2, 4", "1.5, 0")),
        (spaces.MultiBinary(2), "2, 0"), (spaces.Box(0, 255, (1,), np.uint8), "300"), (spaces.Box(-1, 1, (1,)), "nan"),
        (spaces.Box(-1, 1, (1,)), "NaN"), (spaces.Box(-1, 1, (1,)), "[[["), (spaces.Box(-1, 1, (1,)), '{"a": 1}'),
        (spaces.Box(-1, 1, (1,)), "[" * 5000), (spaces.Text(3), "abcd"), (spaces.Text(3), "é"),
    ],
)  # fmt: skip
def test_what_is_no_action(space, said):
    with pytest.raises(NotAnAction, match="is no action"):
        as_action(said, space)


KINDS = (spaces.Discrete(4), spaces.MultiDiscrete([3, 4]), spaces.Box(-1, 1, (2,)), spaces.Text(8))


@given(st.text(max_size=40))
@settings(max_examples=100, deadline=None)
@pytest.mark.slow
def test_any_text_is_an_action_or_is_refused(text):
    for space in KINDS:
        try:
            assert space.contains(as_action(text, space, DIRECTIONS))
        except NotAnAction:
            pass


def test_spaces_that_are_no_text():
    number = spaces.Discrete(2)
    for observations, actions, said in [
        (spaces.Box(0, 255, (210, 160, 3), np.uint8), number, "100800 numbers"),
        (spaces.Sequence(number), number, "Sequence"),
        (number, spaces.Tuple([number, number]), "Tuple can't be named"),
        (number, spaces.Box(-1, 1, (300,)), "300 numbers"),
    ]:
        with pytest.raises(Unreadable, match=said):
            check_readable(observations, actions, (), drawn=False)


def test_observations_are_written_out():
    space = spaces.Tuple([spaces.Discrete(9), spaces.Box(-9, 9, (2,), np.float64), spaces.Text(9)])
    assert written((np.int64(4), np.array([1 / 3, 2.0]), "hi"), space) == "4, [0.3333, 2.0], hi"


def test_drawings_lose_their_colours_but_not_what_they_say():
    assert drawn("\x1b[41mS\x1b[0mF\nHG\n") == "[S]F\nHG"
    assert drawn("\x1b[35m\x1b[34;1m\x1b[43m_\x1b[0m\x1b[0m\x1b[0m") == "(<[_]>)"
    assert drawn("\x1b[34;1mR\x1b[0m|\x1b[35mY\x1b[0m|\x1b[42m_\x1b[0m\x1b[2J") == "<R>|(Y)|{_}"


def test_other_names_are_told_apart_from_unknown_ones():
    with pytest.raises(UnknownName):
        Gymnasium("Nothing-v0")
