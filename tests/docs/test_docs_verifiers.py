"""The environment on the page about verifiers, in a Python that has it."""

import asyncio

import pytest
from blocks import ROOT, files_of

from ludus.environments.verifiers import VerifiersEnvironment
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.testing.scripted import Scripted
from ludus.types import MAIN_ROLE
from peer_pythons import python_of


@pytest.mark.slow
def test_the_environment_of_the_page_runs(tmp_path):
    (tmp_path / "sums.py").write_text(files_of(ROOT / "docs" / "verifiers.md")["sums.py"])
    env = VerifiersEnvironment(
        "sums", python=python_of("verifiers-0.3.1"), folder=str(tmp_path), hold_out=0.2, largest=20
    )
    model = Scripted("solver", lambda messages: "<think>\nhm\n</think>\n<answer>\n0\n</answer>")

    async def play():
        async with Scheduler(env, {MAIN_ROLE: model}, Plan(split="train")) as scheduler:
            return [group async for group in scheduler.groups([(task, 0) for task in env.tasks("train")], 1)]

    rewards = [group.rollouts[0].reward for group in asyncio.run(play())]
    assert min(rewards) == pytest.approx(0.2) and max(rewards) in (pytest.approx(0.2), pytest.approx(1.2))
