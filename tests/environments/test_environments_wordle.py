"""Wordle: marks as they are defined, disjoint words, rewards of games won and lost, and an expert that plays on."""

import hashlib
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from players import Says, play, spoken

from ludus.authoring.tasks import take
from ludus.environments.wordle import Wordle, marks, read_guess, read_words
from ludus.recording.expert import Expert
from ludus.testing import check_environment

SMALL = {"letters": 3, "words": 20, "turns": 5, "rules": False}
CHOICE = {"letters": 3, "turns": 3, "choices": 8, "rules": False}


def by_definition(guess, secret):
    """Strike letters out one at a time: those in their place first, then the others from the left."""
    result, left = ["-"] * len(guess), list(secret)
    for i in range(len(guess)):
        if guess[i] == secret[i]:
            result[i], left[i] = "G", None
    for i in range(len(guess)):
        if result[i] != "G" and guess[i] in left:
            result[i] = "Y"
            left[left.index(guess[i])] = None
    return "".join(result)


@pytest.mark.parametrize(
    ("guess", "secret", "expected"),
    [
        ("crane", "crane", "GGGGG"),
        ("allot", "label", "YYY--"),
        ("geese", "elder", "-YY--"),
        ("speed", "abide", "--Y-Y"),
        ("eerie", "elder", "GYY--"),
        ("babab", "bbbaa", "GYGGY"),
    ],
)
def test_marks_of_repeated_letters(guess, secret, expected):
    assert marks(guess, secret) == by_definition(guess, secret) == expected


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(*[st.text("abc", min_size=n, max_size=n)] * 2)))
@settings(max_examples=400, deadline=None)
@pytest.mark.slow
def test_marks_are_those_of_the_definition(pair):
    guess, secret = pair
    found = marks(guess, secret)
    assert found == by_definition(guess, secret)
    for letter in set(guess):
        marked = sum(g == letter and mark != "-" for g, mark in zip(guess, found, strict=True))
        assert marked == min(guess.count(letter), secret.count(letter))


def test_the_word_lists_are_sound_and_are_those_of_this_version():
    """Another list is another environment: change `Wordle.version` with this hash."""
    folder = files("ludus.environments")
    texts = [folder.joinpath(f"wordle_{kind}.txt").read_text() for kind in ("secrets", "guesses")]
    secrets, rarer = (text.split() for text in texts)
    assert all(word.isascii() and word.isalpha() and word.islower() for word in [*secrets, *rarer])
    assert len({*secrets, *rarer}) == len(secrets) + len(rarer)
    assert len(read_words("wordle_secrets.txt", 5)) >= 600 and {len(word) for word in rarer} == {5}
    digest = hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()
    assert (Wordle.version, digest) == ("1", "ff4efc4272963b56")


@pytest.mark.parametrize("options", [{}, SMALL, CHOICE, {"letters": 4}, {"letters": 3, "words": 5}])
def test_no_word_is_hidden_in_training_and_in_testing(options):
    env = Wordle(**options)
    train, test = ([task.answer for task in take(env, split, 1500)] for split in ("train", "test"))
    assert train and test and not set(train) & set(test)
    assert set(train) | set(test) == set(env.secrets) <= env.allowed
    assert take(Wordle(**options), "test", 99) == take(env, "test", 99)


@pytest.mark.parametrize(
    ("option", "value"),
    [("letters", 6), ("letters", 0), ("words", 4), ("words", 10**6), ("turns", 0), ("choices", 1), ("choices", 500)],
)
def test_options_that_make_no_game_are_refused(option, value):
    with pytest.raises(ValueError, match=f"^{option} must be"):
        Wordle(**{option: value})


def test_guesses_are_read_alone_or_in_brackets():
    assert read_guess("  CRANE\n") == "crane"
    assert read_guess("Not [slate], rather [Crane].") == "crane"
    assert read_guess("") == read_guess(" \n") == ""
    assert read_guess("I take crane") == "i take crane"


async def test_a_game_that_is_won():
    env = Wordle()
    secret = take(env, "test", 1)[0].answer
    wrong = next(word for word in env.secrets if word != secret)
    (rollout,) = await play(env, Says(wrong, "what?", "zzzzz", f"[{secret.upper()}]"))
    feedback = spoken(rollout)[2]
    assert "".join(part[0] for part in feedback.split()) == wrong
    assert "".join(part[1] for part in feedback.split()) == by_definition(wrong, secret)
    assert spoken(rollout)[4] == spoken(rollout)[6] == "not a word"
    assert rollout.stop == "done"
    assert rollout.metrics == pytest.approx({"solved": 1, "early": 1 - 4 / 6, "valid": 0.5, "greens": 1})
    assert rollout.reward == pytest.approx(1 + 0.3 * (1 - 4 / 6))


async def test_a_game_that_is_lost():
    env = Wordle(turns=3)
    secret = take(env, "test", 1)[0].answer
    wrong = next(word for word in env.secrets if word[0] == secret[0] and word != secret)
    (rollout,) = await play(env, Says(wrong))
    assert (rollout.stop, rollout.num_turns, rollout.reward) == ("max_turns", 3, 0.0)
    assert 0 < rollout.metrics["greens"] < 1


async def test_earlier_is_better():
    env = Wordle()
    secret = take(env, "test", 1)[0].answer
    rewards = [(await play(env, Says(*["nothing"] * wasted, secret)))[0].reward for wasted in range(6)]
    assert rewards == sorted(rewards, reverse=True) and len(set(rewards)) == 6
    assert min(rewards) >= env.success_reward


@pytest.mark.parametrize("options", [{}, SMALL, {**CHOICE, "turns": 5}])
async def test_the_expert_guesses_what_is_possible(options):
    env = Wordle(**options)
    rollouts = await play(env, Expert(), num=30)
    assert all(rollout.failure is None for rollout in rollouts)
    assert {rollout.metrics["valid"] for rollout in rollouts} == {1.0}
    assert sum(rollout.metrics["solved"] for rollout in rollouts) > 0.8 * len(rollouts)


@pytest.mark.parametrize("env", [Wordle(), Wordle(**SMALL), Wordle(**CHOICE)])
@pytest.mark.slow
def test_it_keeps_its_promises(env):
    assert [str(finding) for finding in check_environment(env) if finding.ok is False] == []


def test_the_words_to_choose_from_are_those_of_the_split():
    env = Wordle(**CHOICE)
    for split in ("train", "test"):
        for task in take(env, split, 100):
            shown = task.info["choices"]
            assert task.answer in shown and len(set(shown)) == 8 and set(shown) <= set(env.words(split))
            assert task.prompt.endswith(": " + " ".join(shown))
    assert "It is one of these: " in take(Wordle(choices=5), "test", 1)[0].prompt
