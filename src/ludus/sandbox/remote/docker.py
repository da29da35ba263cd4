"""Containers of Docker, through its own client `docker`. `DOCKER_HOST` and Docker's contexts say which engine."""

from __future__ import annotations

from typing import Any

from ludus.errors import MissingExtra
from ludus.sandbox.remote.engine import POOL, Container


class DockerContainer(Container):
    """A container of Docker's."""

    tier = "docker"
    start_engine = "start Docker, or let DOCKER_HOST name an engine"

    @classmethod
    def connect(cls) -> Any:
        try:
            import docker
        except ImportError:
            raise MissingExtra("a sandbox in Docker", "docker") from None
        return docker.from_env(max_pool_size=POOL)

    @classmethod
    def options(cls) -> dict[str, Any]:
        return {"security_opt": ["no-new-privileges"]}
