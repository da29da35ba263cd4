"""The verifier: a task's tests in a sandbox of their own, and the reward that they write.

The sandbox is fresh, so the agent's processes are dead, and of its files only the declared artifacts are there; the
tests come last, so that nothing can stand in their place. What counts is the reward file: `/logs/verifier/reward.json`,
an object of numbers, or `/logs/verifier/reward.txt`, one number. A script that fails after it has written one has said
what it had to say; one that writes none says nothing, which is never a reward of 0.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from ludus.environments.harbor.furnishing import bring_in, furnish, make_room, must, said
from ludus.environments.harbor.task import HarborTask
from ludus.protocols import Sandbox

REWARD = "reward"
JSON, TEXT = "/logs/verifier/reward.json", "/logs/verifier/reward.txt"
LARGEST = sys.float_info.max


class NoReward(Exception):
    """The tests ended without a reward that can be read; the text says how."""


async def verify(task: HarborTask, taken: Mapping[str, Path], sandbox: Sandbox) -> dict[str, float]:
    """Run the tests on artifacts.

    Args:
        taken: artifacts on this machine, by their place in the sandbox.
        sandbox: a fresh one.

    Returns:
        The numbers that the tests wrote, by name; "reward" is always among them.

    Raises:
        NoReward: they wrote none, or ran out of time.
        RolloutError: the sandbox.
    """
    await furnish(sandbox, task.base, task.env, None)
    await bring_in(sandbox, taken)
    await make_room(sandbox, "/tests", JSON, TEXT)
    await must(sandbox, ["mkdir", "-p", "/tests", "/logs/verifier"], "make the tests' folders")
    await sandbox.upload(task.folder / "tests", "/tests")
    outcome = await sandbox.exec(
        ["bash", "/tests/test.sh"], timeout_s=task.toml.verifier.timeout_sec,
        env={**task.env, **task.verifier_env}, cwd=task.workdir,
    )  # fmt: skip
    if outcome.timed_out:
        raise NoReward(f"the tests took more than {task.toml.verifier.timeout_sec:g} s")
    written = [await _read(sandbox, path) for path in (JSON, TEXT)]
    try:
        return rewards_of(*written)
    except ValueError as error:
        raise NoReward(f"{error} (tests/test.sh: {said(outcome)})") from None


def rewards_of(as_json: bytes | None, as_text: bytes | None) -> dict[str, float]:
    """What the reward files say; None where one is not there.

    Of an object without "reward", the text's number is the reward, or else its only number. Fields that are not numbers
    are left out, as Harbor leaves them out. Raises ValueError.

    >>> rewards_of(b'{"reward": 1, "speed": 0.5, "note": "fast"}', None), rewards_of(None, b"0.25")
    ({'reward': 1.0, 'speed': 0.5}, {'reward': 0.25})
    """
    if as_json is None and as_text is None:
        raise ValueError(f"the tests wrote neither {JSON} nor {TEXT}")
    if as_json is None:
        assert as_text is not None  # one of the two is there
        return {REWARD: _number(as_text, TEXT)}
    try:
        values = json.loads(as_json)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{JSON} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{JSON} must hold an object of numbers")
    numbers = {name: value for name, value in values.items() if type(value) in (int, float)}
    if not all(abs(value) <= LARGEST for value in numbers.values()):
        raise ValueError(f"{JSON} must hold finite numbers")
    found = {name: float(value) for name, value in numbers.items()}
    if REWARD not in found and as_text is not None:
        found[REWARD] = _number(as_text, TEXT)
    if REWARD not in found and len(found) == 1:
        found = {REWARD: next(iter(found.values()))}
    if REWARD not in found:
        raise ValueError(f"{JSON} has no number called {REWARD!r}")
    return found


def _number(text: bytes, path: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{path} must hold one number, got {text[:40]!r}") from None
    if not abs(value) <= LARGEST:
        raise ValueError(f"{path} must hold a finite number, got {value}")
    return value


async def _read(sandbox: Sandbox, path: str) -> bytes | None:
    there = await sandbox.exec(["test", "-f", path])
    return await sandbox.read(path) if there.exit_code == 0 else None
