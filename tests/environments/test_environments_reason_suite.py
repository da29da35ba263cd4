"""The suite with dials: its tasks, how replies are read, and what it refuses."""

import pytest

pytest.importorskip("reasoning_gym")

from ludus.authoring.loading import load_environment
from ludus.authoring.tasks import take
from ludus.environments.reason_suite import LEVELS, SKILLS, answer_in, sureness
from ludus.errors import ConfigError, UnknownName


@pytest.mark.slow
def test_every_skill_at_every_level_comes_in_turn():
    tasks = take(load_environment("reason-suite"), "test", LEVELS * len(SKILLS))
    assert {(t.info["skill"], t.info["level"]) for t in tasks} == {(s, n) for s in SKILLS for n in range(LEVELS)}
    assert all(load_environment("reason-suite").demonstrate(task) for task in tasks)


@pytest.mark.slow
def test_dials_choose_and_seeds_make_other_tasks():
    env = load_environment("reason-suite", {"skills": ["sum", "legs"], "levels": [4, 0]})
    tasks = take(env, "train", 40)
    assert {task.info["level"] for task in tasks} == {0, 4} and {task.info["skill"] for task in tasks} == {
        "sum",
        "legs",
    }
    hard = {"skills": ["sum"], "levels": [4]}
    one, other = (
        {t.prompt for t in take(load_environment("reason-suite", {**hard, "seed": seed}), "test", 50)}
        for seed in (0, 1)
    )
    assert not one & other


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"levels": [5]}, ConfigError, "levels are 0 to 4"),
        ({"levels": []}, ConfigError, "levels are 0 to 4"),
        ({"levels": ["1"]}, ConfigError, "should be a valid integer"),
        ({"skills": ["sums"]}, UnknownName, "did you mean 'sum'"),
        ({"level": 1}, UnknownName, "did you mean 'levels'"),
    ],
)
def test_what_it_refuses(options, error, said):
    with pytest.raises(error, match=said):
        load_environment("reason-suite", options)


@pytest.mark.parametrize(
    ("reply", "answer", "sure"),
    [
        ("Answer: 42\nConfidence: 90%", "42", 0.9),
        ("so it is\n\n**Answer:** `a, b`\n**Confidence:** 5 %", "a, b", 0.05),
        ("Answer: 1\nno,\nanswer: 2\nconfidence: 33.5", "2", 0.335),
        ("42", "42", None),
        ("Answer: 7\nConfidence: 300%", "7", None),
        ("Answer:\nConfidence: very", "", None),
        ("", "", None),
    ],
)
def test_replies_are_read(reply, answer, sure):
    assert answer_in(reply) == answer and sureness(reply) == sure
