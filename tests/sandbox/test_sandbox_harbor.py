"""Harbor tasks whose sandboxes are made from images."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from fake_kit import forget_clients

from ludus.environments.harbor import Harbor
from ludus.environments.harbor.task import read_task
from ludus.errors import ConfigError
from ludus.recording.expert import Expert
from ludus.rollouts.scheduler import Plan, Scheduler
from ludus.types import MAIN_ROLE

SAMPLE = Path(__file__).parents[1] / "data" / "harbor" / "count-words"


@pytest.fixture
def folder(tmp_path):
    """A task whose Dockerfile installs something."""
    copied = Path(shutil.copytree(SAMPLE, tmp_path / "count-words"))
    dockerfile = copied / "environment" / "Dockerfile"
    dockerfile.write_text(
        "FROM ubuntu:24.04\nRUN apt-get install -y jq\nWORKDIR /opt\nWORKDIR ../app\nCOPY text.txt ./\n"
    )
    (copied / "solution" / "solve.sh").write_text("#!/bin/bash\necho 7 > answer.txt\n")
    return copied


def test_without_an_engine_it_says_how_to_have_one(folder):
    with pytest.raises(ConfigError, match=r"line 2: RUN apt-get.*--arg sandbox=docker") as raised:
        read_task(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["docker", "podman", "modal", "daytona"])
def test_a_dockerfile_is_built_where_that_can_be_done(folder, kind):
    task = read_task(folder, kind=kind)
    assert task.image == task.verifier_image == str(folder / "environment")
    assert task.workdir == "/app" and not task.base.files


@pytest.mark.parametrize("kind", ["kubernetes", "e2b"])
def test_images_with_a_name_are_used_where_none_is_built(folder, kind):
    with pytest.raises(ConfigError, match="build no images; docker_image can name one"):
        read_task(folder, kind=kind)
    toml = folder / "task.toml"
    toml.write_text(toml.read_text().replace("memory_mb = 512", 'docker_image = "big:1"'))
    assert read_task(folder, kind=kind).image == "big:1"


def test_tests_may_have_an_image_of_their_own(folder):
    (folder / "tests" / "Dockerfile").write_text("FROM ubuntu:24.04\nRUN pip install pytest\n")
    assert read_task(folder, kind="docker").verifier_image == str(folder / "tests")
    (folder / "environment" / "docker-compose.yaml").write_text("services: {}")
    with pytest.raises(ConfigError, match="need Compose"):
        read_task(folder, kind="docker")


@pytest.mark.slow
async def test_a_task_with_an_image_is_solved_and_judged(folder, tmp_path, monkeypatch):
    pytest.importorskip("docker")
    from fake_engine import fake_engine

    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/socket")
    async with fake_engine(str(tmp_path / "socket")) as found:
        env = Harbor(str(folder), sandbox="docker")
        plan = Plan(max_retries=0, timeout_s=60)
        async with Scheduler(env, {MAIN_ROLE: Expert()}, plan) as scheduler:
            groups = [group async for group in scheduler.groups([(task, 0) for task in env.tasks("test")], 2)]
        assert not found.containers and len(found.built) == 1
        await forget_clients()
    await asyncio.sleep(0)
    for rollout in groups[0].rollouts:
        # the engine of this test builds nothing, so the file that the image has is missing: that is the second score
        assert rollout.failure is None and rollout.metrics == {"verified": 1.0, "kept": 0.0}
