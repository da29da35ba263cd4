"""Containers of Podman, through its own client `podman`. `CONTAINER_HOST` says which service, or else the user's own."""

from __future__ import annotations

from typing import Any

from ludus.errors import MissingExtra
from ludus.sandbox.remote.engine import POOL, Container


class PodmanContainer(Container):
    """A container of Podman's."""

    tier = "podman"
    start_engine = "start it with `systemctl --user start podman.socket`, or let CONTAINER_HOST name a service"

    @classmethod
    def connect(cls) -> Any:
        try:
            import podman
        except ImportError:
            raise MissingExtra("a sandbox in Podman", "podman") from None
        return podman.PodmanClient.from_env(max_pool_size=POOL)

    @classmethod
    def options(cls) -> dict[str, Any]:
        return {"no_new_privileges": True}
