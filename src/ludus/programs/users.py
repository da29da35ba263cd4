"""The simulated users of a run: how much they differ, how they left, and whose fault it was where rollouts failed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from ludus.authoring.users.diversity import Diversity, diversity
from ludus.authoring.users.errors import find_errors, is_users
from ludus.authoring.users.persona import KEY, Persona, persona_of
from ludus.environments.traces import RECORD, persona_of_record
from ludus.errors import UsageError
from ludus.programs.compare import success_reward as recorded_success
from ludus.store import RolloutIndex, RunFolder
from ludus.types import Rollout, Task

MOST_ERRORS = 5
"""Mistakes that are shown."""


class Users(msgspec.Struct):
    """What became of a run's users."""

    run: str
    num_rollouts: int
    diversity: Diversity
    endings: dict[str, int]
    """How rollouts ended: satisfied, gave_up, lost_patience, max_turns, ..."""
    errors: dict[str, int]
    """Mistakes of users by kind, found by rules."""
    num_excluded: int
    """Rollouts that were left out, which count nowhere else; and of these, those in which the user was at fault."""
    num_excluded_by_user: int
    num_failed: int
    """Rollouts that earned less than the success reward."""
    num_failed_by_user: int
    """Of these, those in which the user made a decisive mistake."""
    num_judged: int
    """Of the failed ones, those of which a judge said whose fault it was."""
    num_judged_user: int
    examples: list[str]
    """Mistakes, with the rollouts that they were made in."""


def users_of(run: str | Path, *, purpose: str | None = None, success_reward: float | None = None) -> Users:
    """Look at the users of a run's rollouts.

    Args:
        run: the run folder.
        purpose: only rollouts made for this.
        success_reward: reward from which a rollout has not failed; by default the one that the run recorded.

    Raises:
        RunFolderError: no run folder.
        UsageError: none of its tasks has a user.
    """
    path, said = Path(run), list[list[str]]()
    found = Users(str(run), 0, diversity([]), {}, {}, 0, 0, 0, 0, 0, 0, [])
    endings, errors = Counter[str](), Counter[str]()
    with RunFolder.open(path) as folder, RolloutIndex(path) as index:
        success = recorded_success(folder) if success_reward is None else success_reward
        for row in index.query(purpose=purpose, last_attempts=True):
            rollout = index.get(row.id)
            if (persona := _persona(rollout.task)) is None:
                continue
            if row.excluded:
                found.num_excluded += 1
                found.num_excluded_by_user += any(error.decisive for error in find_errors(persona, rollout.messages))
                continue
            found.num_rollouts += 1
            endings[rollout.stop] += 1
            said.append([str(message["content"]) for message in rollout.messages if is_users(message)])
            errors.update(_look_at(rollout, persona, found, success))
    if not found.num_rollouts and not found.num_excluded:
        raise UsageError(
            f"{run} has no rollouts whose tasks have a user" + (f", made for {purpose}" if purpose else "")
        )
    found.diversity, found.endings, found.errors = diversity(said), dict(endings), dict(errors)
    return found


def _look_at(rollout: Rollout, persona: Persona, found: Users, success_reward: float) -> list[str]:
    """The kinds of the user's mistakes."""
    errors = find_errors(persona, rollout.messages)
    found.examples += [f"{rollout.id}: {error}" for error in errors][: MOST_ERRORS - len(found.examples)]
    if rollout.reward < success_reward:
        found.num_failed += 1
        found.num_failed_by_user += any(error.decisive for error in errors)
        judged = rollout.metrics.get("user_fault")
        found.num_judged += judged is not None
        found.num_judged_user += judged == 1.0
    return [error.kind for error in errors]


def _persona(task: Task) -> Persona | None:
    """Who talks to the agent, also in a recorded conversation; None where nobody does."""
    if KEY in task.info:
        return persona_of(task)
    return persona_of_record(task) if isinstance(task.info.get(RECORD), list) else None
