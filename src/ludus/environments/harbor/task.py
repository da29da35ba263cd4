"""A task folder in Harbor's format, read and checked: `task.toml`, `instruction.md`, `environment/`, `tests/`, `solution/`.

The format is Harbor's own (schema 1.x, github.com/harbor-framework/harbor); keys that are not used here are left alone,
as Harbor leaves those that it does not know. What can't be honoured here is refused: several steps, GPUs, Windows, MCP
servers, users, sidecars, and images where the sandbox has none. Nothing of a task's code runs when it is read.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from ludus import config
from ludus.config import Config
from ludus.environments.harbor.image import NAMED, Base, built_base, image_of, read_dockerfile
from ludus.errors import ConfigError

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
TEMPLATE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
ARTIFACTS = "/logs/artifacts"
"""What is here goes to the verifier without being declared."""


class Section(Config):
    """A table of task.toml, of which only what is named here is read."""

    model_config = ConfigDict(extra="ignore")


class Healthcheck(Section):
    """A command that has to succeed before work begins."""

    command: str
    interval_sec: Seconds = 5.0
    timeout_sec: Seconds = 30.0
    retries: Annotated[int, Field(ge=1)] = 3


class Place(Section):
    """[environment] and [verifier.environment]."""

    docker_image: str | None = None
    workdir: str | None = None
    os: Literal["linux", "windows"] = "linux"
    gpus: int | None = None
    memory_mb: Annotated[int, Field(ge=1)] | None = None
    storage_mb: Annotated[int, Field(ge=1)] | None = None
    network_mode: Literal["public", "no-network", "allowlist"] | None = None
    env: dict[str, str] = {}
    mcp_servers: tuple[dict[str, Any], ...] = ()
    healthcheck: Healthcheck | None = None


class Collect(Section):
    """A command that makes artifacts when the agent has finished."""

    command: str
    timeout_sec: Seconds = 600.0
    service: str = "main"


class Verifier(Section):
    """[verifier]."""

    timeout_sec: Seconds = 600.0
    env: dict[str, str] = {}
    environment_mode: Literal["shared", "separate"] | None = None
    environment: Place | None = None
    collect: tuple[Collect, ...] = ()


class Agent(Section):
    """[agent]."""

    timeout_sec: Seconds | None = None


class Solution(Section):
    """[solution]."""

    env: dict[str, str] = {}


class Artifact(Section):
    """A file or folder that the verifier gets to see."""

    source: str
    exclude: tuple[str, ...] = ()
    service: str | None = None


def _as_artifact(value: Any) -> Any:
    return {"source": value} if isinstance(value, str) else value


class TaskToml(Section):
    """task.toml."""

    schema_version: str = "1.0"
    metadata: dict[str, Any] = {}
    environment: Place = Place()
    agent: Agent = Agent()
    verifier: Verifier = Verifier()
    solution: Solution = Solution()
    artifacts: tuple[Annotated[Artifact, BeforeValidator(_as_artifact)], ...] = ()
    steps: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class HarborTask:
    """A task that can be run here."""

    name: str
    folder: Path
    instruction: str
    toml: TaskToml
    base: Base
    """What the agent finds, and the verifier too, which has the agent's artifacts and the tests besides."""
    env: dict[str, str]
    verifier_env: dict[str, str]
    digest: str
    """Of every file in the folder."""
    image: str = ""
    """What the agent's sandbox is made from, as in `SandboxSpec`."""
    verifier_image: str = ""

    @property
    def workdir(self) -> str:
        return self.base.workdir

    @property
    def writable(self) -> tuple[str, ...]:
        """The folders that have to be there: those of the task, of its logs, and of its tests."""
        files = [place if path.is_dir() else posixpath.dirname(place) for path, place in self.base.files]
        wanted = {"/logs", "/tests", self.workdir, *self.base.folders, *files}
        wanted |= {posixpath.dirname(entry.source) for entry in self.artifacts if entry.source != self.workdir}
        wanted.discard("/")
        return tuple(sorted(path for path in wanted if not any(_is_under(path, other) for other in wanted - {path})))

    @property
    def artifacts(self) -> list[Artifact]:
        """What goes to the verifier. A task that grades in place declares nothing: then it is the working folder."""
        declared = [
            entry.model_copy(update={"source": posixpath.normpath(posixpath.join(self.workdir, entry.source))})
            for entry in self.toml.artifacts
        ]
        separate = self.toml.verifier.environment_mode == "separate" or self.toml.verifier.environment is not None
        if not declared and not separate:
            declared = [Artifact(source=self.workdir)]
        covered = any(_is_under(ARTIFACTS, entry.source) for entry in declared)
        return declared if covered else [Artifact(source=ARTIFACTS), *declared]


def find_tasks(folder: Path) -> dict[str, Path]:
    """The task folders at or below a folder, by their path in it. Raises ConfigError where there are none."""
    if not folder.is_dir():
        raise ConfigError(f"harbor:{folder}: no such folder")
    if (folder / "task.toml").is_file():
        return {folder.resolve().name: folder}
    every = {path.parent for path in folder.rglob("task.toml")}
    found = sorted(path for path in every if every.isdisjoint(path.parents))  # a task may hold another as its material
    if not found:
        raise ConfigError(f"harbor:{folder}: no task.toml in it or below it")
    return {path.relative_to(folder).as_posix(): path for path in found}


def read_task(folder: Path, name: str = "", allowed: Collection[str] = (), kind: str = "auto") -> HarborTask:
    """Read and check a task folder.

    Args:
        folder: holds task.toml.
        name: what it is called; by default as the folder.
        allowed: variables of this process that the task may have.
        kind: of the sandboxes that it runs in, as in `SandboxSpec.tier`.

    Raises:
        ConfigError: in one line, what is wrong with it or can't be had here, and where.
    """
    path = folder / "task.toml"
    values = config.read_toml(path)
    if "version" in values:  # its name before schema 1.1
        values.setdefault("schema_version", values.pop("version"))
    toml = config.parse(TaskToml, values, where=str(path))
    _check_supported(toml, path)
    digest = _digest(folder)
    place, verifier = toml.environment, toml.verifier.environment
    image = image_of(folder / "environment", place.docker_image, kind)
    verifier_image = image_of(folder / "tests", verifier.docker_image if verifier else None, kind) or image
    base = _base(folder, toml, kind)
    if not (folder / "tests" / "test.sh").is_file():
        raise ConfigError(f"{folder}: tests/test.sh is missing, which gives the reward")
    _check_artifacts(toml, path)
    return HarborTask(
        name=name or folder.resolve().name, folder=folder, instruction=_instruction(folder), toml=toml, base=base,
        env={**base.env, **resolved(toml.environment.env, allowed, f"{path}, [environment.env]")},
        verifier_env=resolved(toml.verifier.env, allowed, f"{path}, [verifier.env]"), digest=digest, image=image,
        verifier_image=verifier_image,
    )  # fmt: skip


def resolved(env: Mapping[str, str], allowed: Collection[str], where: str) -> dict[str, str]:
    """Variables with ${NAME} and ${NAME:-default} filled in. Only what is allowed is taken from this process: a task
    that somebody else wrote could ask for any secret. Raises ConfigError."""

    def fill(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if name in allowed and name in os.environ:
            return os.environ[name]
        if default is not None:
            return default
        why = "is not set here" if name in allowed else f"""is for you to allow: --arg 'pass_env=["{name}"]'"""
        raise ConfigError(f"{where}: the variable {name} that it asks for {why}")

    return {key: TEMPLATE.sub(fill, value) for key, value in env.items()}


def _instruction(folder: Path) -> str:
    try:
        text = (folder / "instruction.md").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise ConfigError(f"{folder}: instruction.md is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{folder}: instruction.md can't be read: {error}") from None
    if not text:
        raise ConfigError(f"{folder}: instruction.md is empty")
    return text


def _check_supported(toml: TaskToml, path: Path) -> None:
    place, verifier = toml.environment, toml.verifier.environment
    services = [entry.service for entry in toml.artifacts] + [hook.service for hook in toml.verifier.collect]
    refused = {
        f"its schema_version is {toml.schema_version}, but 1.x is known here": not toml.schema_version.startswith("1"),
        "it has [[steps]], but tasks of several steps can't be run here": bool(toml.steps),
        "it needs Windows": "windows" in (place.os, verifier.os if verifier else ""),
        "it needs a GPU in its sandbox": bool(place.gpus) or bool(verifier and verifier.gpus),
        "it needs MCP servers in its sandbox": bool(place.mcp_servers),
        "it needs an allow-list of hosts, but sandboxes here have no network": place.network_mode == "allowlist",
        "it collects from other services than main": any(name not in (None, "main") for name in services),
    }
    for why, holds in refused.items():
        if holds:
            raise ConfigError(f"{path}: {why}")


def _base(folder: Path, toml: TaskToml, kind: str) -> Base:
    """Raises ConfigError for what needs more than one container, and for an image where the sandbox has none."""
    for name in ("environment/docker-compose.yaml", "tests/docker-compose.yaml"):
        if (folder / name).exists():
            raise ConfigError(f"{folder / name}: tasks of several containers can't be run here: they need Compose")
    dockerfile = folder / "environment" / "Dockerfile"
    if kind in NAMED:
        base = built_base(dockerfile)
    else:
        if (folder / "tests" / "Dockerfile").is_file():
            read_dockerfile(folder / "tests" / "Dockerfile")  # its tests are copied in any case
        base = read_dockerfile(dockerfile) if dockerfile.is_file() else Base()
    if toml.environment.workdir:
        base.workdir = posixpath.normpath(posixpath.join("/", toml.environment.workdir))
    return base


def _check_artifacts(toml: TaskToml, path: Path) -> None:
    for entry in toml.artifacts:
        source = posixpath.normpath(entry.source)
        if ".." in Path(entry.source).parts or source in ("/", "") or _is_under(source, "/tests"):
            raise ConfigError(f"{path}: artifacts can't have the source {entry.source!r}")


def _is_under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _digest(folder: Path) -> str:
    """16 hex digits over every file's name and content. Raises ConfigError for a link that leads out of the folder."""
    root, digest = folder.resolve(), hashlib.blake2b(digest_size=8)
    for path in sorted(folder.rglob("*")):
        if not path.resolve().is_relative_to(root):
            raise ConfigError(f"{path}: a link that leads out of the task's folder is not followed")
        if path.is_file():
            for part in (path.relative_to(folder).as_posix().encode(), path.read_bytes()):
                digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
