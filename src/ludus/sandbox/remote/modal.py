"""Sandboxes of Modal, through its own client `modal`. `modal token new` or MODAL_TOKEN_ID and MODAL_TOKEN_SECRET are the
key; `image` is a name in a registry, or a folder with a Dockerfile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ludus.errors import MissingExtra
from ludus.sandbox.remote.engine import FIRST
from ludus.sandbox.remote.service import LIFETIME_S, Service
from ludus.sandbox.spec import MIB

APP = "ludus-sandboxes"
"""What the sandboxes are listed under."""


class ModalContainer(Service):
    """A sandbox at Modal for one rollout."""

    tier = "modal"
    unlimited = "processes, disk and inodes"
    key = "MODAL_TOKEN_ID and MODAL_TOKEN_SECRET"
    unauthorised = ("AuthError",)
    passing = ("ServiceError", "ConnectionError", "ResourceExhaustedError")

    async def _make(self) -> Any:
        try:
            import modal
        except ImportError:
            raise MissingExtra("a sandbox at Modal", "modal") from None
        app = await modal.App.lookup.aio(APP, create_if_missing=True)
        memory = -(-self.spec.limits.memory_bytes // MIB)
        return await modal.Sandbox.create.aio(
            "/bin/sh", "-c", FIRST, app=app, name=self.name, image=self._image(modal), timeout=LIFETIME_S,
            memory=(min(128, memory), memory), tags=self.labels, block_network=not self.hosts,
            outbound_domain_allowlist=self.hosts or None,
        )  # fmt: skip

    def _image(self, modal: Any) -> Any:
        image = self.spec.image
        if not image:
            return modal.Image.debian_slim("3.12")
        if Path(image).is_absolute():
            return modal.Image.from_dockerfile(Path(image) / "Dockerfile", context_dir=image)
        return modal.Image.from_registry(image)

    async def _shell(self, script: str) -> bytes:
        process = await self._machine.exec.aio("/bin/sh", "-c", script, text=False)
        out = await process.stdout.read.aio()
        await process.wait.aio()
        return bytes(out)

    async def _put(self, path: str, data: bytes) -> None:
        await self._machine.filesystem.write_bytes.aio(data, path)

    async def _remove(self) -> None:
        if self._machine is not None:
            await self._machine.terminate.aio()
