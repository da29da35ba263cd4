"""A sandbox of whatever kind its spec asks for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ludus.errors import SandboxUnavailable
from ludus.protocols import Sandbox
from ludus.sandbox.local import LocalSandbox
from ludus.sandbox.spec import SandboxSpec

if TYPE_CHECKING:
    from ludus.sandbox.remote.sandbox import RemoteSandbox

KINDS = {
    "docker": "DockerContainer", "podman": "PodmanContainer", "kubernetes": "Pod", "e2b": "Machine",
    "modal": "ModalContainer", "daytona": "DaytonaMachine",
}  # fmt: skip
"""Classes of the tiers elsewhere, each in a module of the tier's name."""


async def create(spec: SandboxSpec | None = None) -> Sandbox:
    """A new sandbox, which has to be killed by whoever asked for it.

    Raises:
        SandboxUnavailable: this machine can't do what the spec asks for; the text says what is missing.
        SandboxFailed: it could not be started.
        MissingExtra: the package that speaks to a container engine or service is not installed.
    """
    spec = spec or SandboxSpec()
    if spec.tier not in KINDS:
        return await LocalSandbox.create(spec)
    if spec.packages:
        raise SandboxUnavailable(
            f"sandboxes of the tier {spec.tier!r} can't see packages of this machine: put them into the image"
        )
    return await _kind(spec.tier).create(spec)


async def check(tier: str) -> None:
    """Find out, as far as that takes no sandbox elsewhere, whether there are some of this tier.

    Raises:
        SandboxUnavailable: there are none; the text says what is missing.
        MissingExtra: as `create`.
    """
    if tier in KINDS:
        await _kind(tier).check()
    else:
        await (await LocalSandbox.create(SandboxSpec(tier=tier))).kill()


def _kind(tier: str) -> type[RemoteSandbox]:
    kind: type[RemoteSandbox] = getattr(import_module(f"ludus.sandbox.remote.{tier}"), KINDS[tier])
    return kind
