"""TextArena's games: roles and rewards, invalid moves, crashes, and hundreds side by side as if each were alone."""

import asyncio
import random
import sys
import threading
import types

import pytest
from players import Says, play, spoken

pytest.importorskip("textarena")

from ludus.authoring.tasks import take
from ludus.environments import textarena as adapter
from ludus.environments.isolation import Streams, drawn_from, isolate
from ludus.environments.textarena import Match, TextArena, families
from ludus.errors import ConfigError, ModelCallFailed, UnknownName
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.types import MAIN_ROLE

OPPONENT = "opponent"


def cell(messages):
    """Some free cell of tic-tac-toe: each role counts on from its own end."""
    return f"[{sum(m['role'] == 'assistant' for m in messages)}]"


async def test_a_game_for_two():
    env = TextArena("TicTacToe-v0")
    assert env.roles == (MAIN_ROLE, OPPONENT)
    backwards = Says("[8]", "[7]", "[6]")
    rollouts = await play(env, Says(by=cell), num=4, roles={OPPONENT: backwards})
    assert [rollout.task.info["player"] for rollout in rollouts] == [0, 1, 0, 1]
    for rollout in rollouts:
        assert rollout.failure is None, rollout.failure
        won = 1 if rollout.task.info["player"] == 0 else -1
        assert (rollout.role_reward(MAIN_ROLE), rollout.role_reward(OPPONENT)) == (won, -won)
        assert (rollout.metrics["finished"], rollout.metrics["opponent/outcome"]) == (1, -won)
        assert rollout.stop == "done"
    texts = spoken(rollouts[0])
    assert "Player 0" in texts[0] and "Player 1" in texts[2], "what the other did is in the next message"
    assert "[0]" not in texts[2], "a role's own moves are its replies, and not said again"


async def test_invalid_moves_are_answered_and_then_lose():
    (rollout,) = await play(TextArena("TicTacToe-v0"), Says("[99]"), roles={OPPONENT: Says(by=cell)})
    assert "invalid move" in spoken(rollout)[2]
    assert (rollout.reward, rollout.role_reward(OPPONENT)) == (-1, 1)
    assert (rollout.metrics["forfeited"], rollout.metrics["opponent/forfeited"]) == (1, 0)


async def test_a_number_too_long_to_be_read_is_an_invalid_move():
    (rollout,) = await play(TextArena("TicTacToe-v0"), Says("[" + "1" * 10_000 + "]"), roles={OPPONENT: Says(by=cell)})
    assert rollout.failure is None
    assert (rollout.reward, rollout.metrics["forfeited"]) == (-1, 1)


async def test_a_game_for_one():
    env = TextArena("GuessTheNumber-v0")
    assert env.roles == (MAIN_ROLE,)
    rollouts = await play(env, Says(*(f"[{n}]" for n in range(1, 21))), num=6)
    assert all(rollout.failure is None for rollout in rollouts)
    assert len({rollout.num_turns for rollout in rollouts}) > 1, "each task hides another number"


@pytest.mark.slow
async def test_a_game_that_is_broken_off_says_so():
    (rollout,) = await play(TextArena("TicTacToe-v0", turns=2), Says(by=cell), roles={OPPONENT: Says("[8]")})
    assert (rollout.stop, rollout.reward, rollout.metrics["finished"]) == ("max_turns", 0.0, 0.0)
    assert spoken(rollout)[-1].endswith("The game is broken off.")


async def test_who_outgrows_the_context_forfeits():
    class Full:
        name = "full"

        async def complete(self, messages, tools, sampling):
            raise ModelCallFailed("the prompt leaves no room", "policy")

    (rollout,) = await play(TextArena("TicTacToe-v0"), Full(), roles={OPPONENT: Says(by=cell)})
    assert rollout.failure is None
    assert (rollout.reward, rollout.role_reward(OPPONENT)) == (-1, 1)


async def test_a_game_that_crashes_is_the_environments_fault(monkeypatch):
    def crash(self, text):
        raise IndexError("off the board")

    monkeypatch.setattr(Match, "move", crash)
    (rollout,) = await play(TextArena("TicTacToe-v0"), Says("[0]"))
    assert (rollout.failure.boundary, rollout.failure.blame) == ("environment", "environment")
    assert rollout.rewards == []


def test_unknown_games_and_settings_are_told():
    with pytest.raises(UnknownName, match="TicTacToe-v0"):
        TextArena("TicTacTo-v0")
    with pytest.raises(ConfigError, match=r"can't be begun: TypeError.*holes"):
        TextArena("TicTacToe-v0", holes=3)
    with pytest.raises(ConfigError, match="can't be begun: AssertionError"):
        TextArena("TicTacToe-v0", players=5)
    with pytest.raises(ValueError, match="turns"):
        TextArena("TicTacToe-v0", turns=0)


def test_a_game_that_needs_a_key_says_so_in_one_line(monkeypatch):
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"(?i)openrouter") as told:
        TextArena("TwentyQuestions-v0")
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_word_lists_that_are_not_here_are_named(monkeypatch):
    def missing(game, settings):
        raise LookupError("\n*****\n  Resource words not found.\n  Please use the NLTK Downloader\n")

    monkeypatch.setattr(adapter, "_make", missing)
    with pytest.raises(ConfigError, match=r"textarena:Wordle-v0 can't be begun: .*python -m nltk.downloader words"):
        TextArena("Wordle-v0")


@pytest.mark.parametrize(("game", "players"), [("QuantumTicTacToe-v0", 2), ("Briscola-v0", 2), ("Bandit-v0", 1)])
def test_as_few_players_as_the_game_is_for(game, players):
    """One that does not look how many there are, one that refuses in its own words, one for a single player."""
    assert TextArena(game).players == players


def test_more_players_have_roles_of_their_own():
    assert TextArena("LiarsDice-v0", players=3).roles == (MAIN_ROLE, "opponent_1", "opponent_2")


async def test_a_game_that_mixes_up_its_arguments_is_played_all_the_same():
    (rollout,) = await play(TextArena("Countdown-v0", turns=2), Says("[0 1 +]"))
    assert rollout.failure is None and rollout.num_turns == 2
    (rollout,) = await play(TextArena("Countdown-v0"), Says("what?"))
    assert rollout.failure is None and rollout.num_turns == 2
    assert "Reason: Invalid action format." in rollout.calls[1].messages[-1]["content"]
    assert 0 <= rollout.reward < 1 and rollout.metrics["forfeited"] == 1


async def test_a_reward_that_is_no_number_fails_the_rollout(monkeypatch):
    from textarena.envs.TicTacToe.env import TicTacToeEnv

    monkeypatch.setattr(TicTacToeEnv, "close", lambda self: ({0: "won", 1: 0}, {}))
    (rollout,) = await play(TextArena("TicTacToe-v0"), Says("what?"))
    assert "gave a reward that is no number: 'won'" in rollout.failure.error and rollout.excluded


def test_families_leave_out_other_views_of_the_same_game():
    names = families()
    assert "KuhnPoker-v0" in names and not any(name.endswith(("-raw", "-train")) for name in names)


def test_tasks_are_the_same_each_time_and_disjoint():
    env = TextArena("KuhnPoker-v0")
    assert take(env, "test", 20) == take(env, "test", 20)
    seeds = [{task.info["seed"] for task in take(env, split, 200)} for split in ("train", "test")]
    assert not seeds[0] & seeds[1]


# --- randomness ---------------------------------------------------------------------------------------------------

CHANCY = [("KuhnPoker-v0", ["[check]", "[bet]", "[call]", "[fold]"]), ("Minesweeper-v0-small", ["[0 0]", "[2 3]", "[4 4]"]),
          ("LiarsDice-v0", ["[Bid: 1, 2]", "[Bid: 2, 3]", "[Call]"])]  # fmt: skip


def transcript(match, moves, rng):
    """Everything one game says, in steps that another may come between."""
    said = []
    for _ in range(12):
        said.append(match.observe())
        yield said
        if match.move(rng.choice(moves)):
            break
    said.append((match.rewards, match.last_words(0)))
    yield said


def last_of(steps):
    *_, said = steps
    return said


@pytest.mark.parametrize(("game", "moves"), CHANCY)
def test_interleaved_games_are_those_that_were_alone(game, moves):
    players = TextArena(game).players
    seeds = range(200 if game == "KuhnPoker-v0" else 40)
    alone = [last_of(transcript(Match(game, {}, players, seed), moves, random.Random(seed))) for seed in seeds]
    assert len({repr(said) for said in alone}) > 2, "the seed matters"
    running = {seed: transcript(Match(game, {}, players, seed), moves, random.Random(seed)) for seed in seeds}
    together, order = {}, random.Random(0)
    while running:
        seed = order.choice(list(running))
        try:
            together[seed] = next(running[seed])
        except StopIteration:
            del running[seed]
    assert [together[seed] for seed in seeds] == alone


@pytest.mark.slow
async def test_hundreds_at_once_through_the_scheduler_say_the_same_each_time():
    env, model = TextArena("KuhnPoker-v0"), Says("[bet]", "[call]", "[check]")
    many = await play(env, model, num=300, concurrency=300)
    some = await play(env, model, num=20, concurrency=1)
    assert all(rollout.failure is None for rollout in many)
    assert [spoken(r) for r in many[:20]] == [spoken(r) for r in some]


def test_the_global_generator_is_left_alone():
    random.seed(7)
    assert TextArena("KuhnPoker-v0").players == 2
    expected = random.Random(7).random()
    last_of(transcript(Match("KuhnPoker-v0", {}, 2, 3), ["[check]", "[bet]", "[call]"], random.Random(1)))
    assert random.random() == expected


async def test_a_game_that_hangs_holds_up_no_other(monkeypatch):
    env, release = TextArena("KuhnPoker-v0"), threading.Event()
    tasks, move = take(env, "test", 20), Match.move

    def sometimes(self, text):
        if self.seed == tasks[0].info["seed"]:
            release.wait()
        return move(self, text)

    monkeypatch.setattr(Match, "move", sometimes)
    finished = []
    async with Scheduler(env, {MAIN_ROLE: Says("[bet]", "[call]", "[check]")}, Plan(timeout_s=None)) as scheduler:
        async for group in scheduler.groups([(task, 0) for task in tasks], 1):
            finished.append(group.task)
            if len(finished) == 19:
                assert tasks[0] not in finished
                release.set()
    assert finished[-1] == tasks[0]


@pytest.fixture
def package(monkeypatch):
    """A package that draws in every way that the stand-ins know."""
    code = """
import random
import random as rnd
from random import shuffle
import numpy as np
from numpy import random as nr

def draw():
    print("for nobody")
    random.seed(3)
    letters = list("abcdefgh")
    shuffle(letters)
    return [random.random(), rnd.randint(0, 9**9), *letters, np.random.rand(), nr.randint(9**9), np.arange(2).sum(),
            np.random.default_rng().random(), random.Random(5).random()]
"""
    module = types.ModuleType("chancy_package")
    monkeypatch.setitem(sys.modules, "chancy_package", module)
    exec(code, vars(module))
    isolate("chancy_package")
    return module


def test_every_way_to_draw_comes_from_the_stream_in_force(package, capsys):
    def drawn(seed):
        with drawn_from(Streams(seed)):
            return package.draw()

    assert drawn(1) == drawn(1) and drawn(1) != drawn(2)
    state = random.getstate()
    drawn(1)
    assert random.getstate() == state
    package.draw()
    assert random.getstate() != state, "outside of a stream it is the real module"
    assert capsys.readouterr().out == ""


async def test_streams_of_threads_do_not_meet(package):
    def drawn(seed):
        with drawn_from(Streams(seed)):
            return [package.draw() for _ in range(50)]

    seeds = list(range(8))
    together = await asyncio.gather(*(asyncio.to_thread(drawn, seed) for seed in seeds))
    assert together == [drawn(seed) for seed in seeds]
