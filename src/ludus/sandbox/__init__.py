"""Isolated computers for code that a model wrote, on Linux, without a container engine.

    from ludus.sandbox import run
    print(run("print(6 * 7)").stdout)

A process that knows nothing of this one forks each sandbox into namespaces of its own. docs/sandboxes.md says what is
contained, and by what.
"""

from __future__ import annotations

from ludus.protocols import Sandbox as Sandbox
from ludus.protocols import SandboxResult as Result
from ludus.sandbox.create import create as create
from ludus.sandbox.host import close_all as close_all
from ludus.sandbox.local import LocalSandbox as LocalSandbox
from ludus.sandbox.run import capabilities as capabilities
from ludus.sandbox.run import open_sandbox as open_sandbox
from ludus.sandbox.run import run as run
from ludus.sandbox.spec import Limits as Limits
from ludus.sandbox.spec import SandboxSpec as SandboxSpec
from ludus.sandbox.tiers import Capabilities as Capabilities

__all__ = [
    "Capabilities", "Limits", "LocalSandbox", "Result", "Sandbox", "SandboxSpec", "capabilities", "close_all",
    "create", "open_sandbox", "run",
]  # fmt: skip
