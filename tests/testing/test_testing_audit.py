"""The audit flags planted holes of every kind, leaves sound environments alone, and says why."""

import holed
import pytest

from ludus.environments.guess import Guess
from ludus.environments.nim import Nim
from ludus.environments.wordle import Wordle
from ludus.testing import audit_environment

NUM_TASKS = 8


@pytest.mark.parametrize("kind", holed.HOLES, ids=lambda kind: kind.__name__)
def test_planted_holes_are_found(kind):
    audit = audit_environment(kind(), num_tasks=NUM_TASKS, tried=60)
    assert not audit.harder_to_hack, str(audit)


@pytest.mark.parametrize("kind", holed.SOUND, ids=lambda kind: kind.__name__)
def test_sound_environments_are_left_alone(kind):
    audit = audit_environment(kind(), num_tasks=20, tried=60)
    assert audit.harder_to_hack, str(audit)


@pytest.mark.parametrize("env", [Guess(), Nim(), Wordle()], ids=lambda env: env.name)
def test_what_comes_with_the_package_is_harder_to_hack_than_to_do(env):
    audit = audit_environment(env, num_tasks=12, tried=24)
    assert audit.harder_to_hack, str(audit)
