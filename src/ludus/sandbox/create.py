"""A sandbox of whatever kind its spec asks for."""

from __future__ import annotations

from importlib import import_module

from ludus.errors import SandboxUnavailable
from ludus.protocols import Sandbox
from ludus.sandbox.local import LocalSandbox
from ludus.sandbox.noted import note_tier
from ludus.sandbox.spec import REMOTE, SandboxSpec


async def create(spec: SandboxSpec | None = None) -> Sandbox:
    """A new sandbox, which has to be killed by whoever asked for it.

    Raises:
        SandboxUnavailable: this machine can't do what the spec asks for; the text says what is missing.
        SandboxFailed: it could not be started.
        MissingExtra: the package that speaks to a container engine or service is not installed.
    """
    spec = spec or SandboxSpec()
    if spec.tier not in REMOTE:
        return await LocalSandbox.create(spec)
    if spec.packages:
        raise SandboxUnavailable(
            f"sandboxes of the tier {spec.tier!r} can't see packages of this machine: put them into the image"
        )
    module = import_module(f"ludus.sandbox.remote.{spec.tier}")
    sandbox: Sandbox = await module.create(spec)
    note_tier(sandbox.tier)
    return sandbox
