"""`ludus env`: find environments, check them, begin a new one; `env_serve` serves one."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ludus import registry
from ludus.cli.access import reach_options
from ludus.cli.lazy import LazyGroup
from ludus.cli.options import (
    arg_option,
    env_argument,
    model_option,
    num_tasks_option,
    open_environment,
    role_models_option,
)
from ludus.cli.output import align, faint, heading, note, say
from ludus.display.numbers import clock
from ludus.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from ludus.cli.access import Accesses
    from ludus.testing.finding import Finding

HERE = "ludus.cli.env"
TOLD_EVERY_S = 5.0
"""How often an audit says what it is at."""

COMMANDS = {
    "list": f"{HERE}:list_",
    "check": f"{HERE}:check",
    "new": f"{HERE}:new",
    "serve": "ludus.cli.env_serve:serve",
    "from-traces": "ludus.cli.env_from_traces:from_traces",
    "divergence": "ludus.cli.env_divergence:divergence",
}


@click.group("env", cls=LazyGroup, lazy=COMMANDS)
def env() -> None:
    """Find environments, check them, begin a new one, serve one, make one of recorded conversations."""


@click.command("list")
@click.argument("prefix", required=False, default="", metavar="[PREFIX]")
def list_(prefix: str) -> None:
    """List what ENV may be; PREFIX: with its colon (rg:) lists what is behind it."""
    adapters = registry.entries(registry.ADAPTERS)
    if prefix.partition(":")[0] in adapters and ":" in prefix:
        rows = [(name, "") for name in _families(adapters[prefix.partition(":")[0]]) if name.startswith(prefix)]
    else:
        environments = registry.entries(registry.ENVIRONMENTS)
        rows = [(name, _about(entry)) for name, entry in environments.items() if name.startswith(prefix)]
        rows += [(f"{name}:...", _about(entry)) for name, entry in adapters.items() if name.startswith(prefix)]
    if not rows:
        raise UnknownName("environment", prefix, [*registry.entries(registry.ENVIRONMENTS), *adapters])
    for line in align([(name, faint(about)) for name, about in sorted(rows)]):
        say(line)


@click.command("check")
@env_argument
@arg_option
@num_tasks_option(20, "Tasks each policy plays.")
@click.option(
    "--audit",
    is_flag=True,
    help="Also search for replies that score without doing the task: harder to hack than to do?",
)
@model_option("With --audit: a model that plays honestly beside the expert, and looks for attacks.", required=False)
@role_models_option("the expert, or a stand-in for a judge", "With --audit: who plays another role")
@reach_options
def check(
    env: str, args: tuple[str, ...], num_tasks: int, audit: bool, model: str | None, role_models: dict[str, str],
    access: Accesses,
) -> None:  # fmt: skip
    """Check that ENV keeps its promises, and that its reward can't be had for nothing.

    Exits with 1 if a check fails. The same checks in a test: ludus.testing.check_environment, audit_environment.
    """
    from ludus.programs.models import NO_ACCESS
    from ludus.testing.examiner import Order
    from ludus.testing.examining import Examining

    if not audit and (model or role_models):
        raise click.UsageError("--model and --role-model go with --audit")
    access.check([model] if model else [], role_models.values())
    environment = open_environment(env, args)
    order = Order(
        environment.describe(), num_tasks, checks=True, audit=audit, model=model or "", role_models=role_models,
        access=access.of(model) if model else NO_ACCESS, role_access=access.of_roles(role_models),
    )  # fmt: skip
    sound: list[bool] = []
    audited = asyncio.run(Examining(order, _now_and_then(), lambda findings: sound.append(_print(findings))).run())
    if audited is not None:
        say(f"\n{audited}")
        sound.append(audited.harder_to_hack)
    sys.exit(0 if all(sound) else 1)


def _now_and_then() -> Callable[[str], None]:
    """Says on stderr what is going on, a line every few seconds."""
    begun = last = time.monotonic()

    def tell(text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= TOLD_EVERY_S:
            last = now
            note(faint(f"[{clock(now - begun):>6}] {text}"))

    return tell


def _print(findings: Sequence[Finding]) -> bool:
    """Show findings; whether none is a failure."""
    marks = {True: click.style("ok", fg="green"), False: click.style("FAIL", fg="red", bold=True), None: faint("n/a")}
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = marks[finding.ok] + " " * (4 - len(click.unstyle(marks[finding.ok])))
        say(f"{mark}  {finding.name.ljust(width)}  {finding.detail if finding.ok is False else faint(finding.detail)}")
    failed = sum(finding.ok is False for finding in findings)
    passed = sum(finding.ok is True for finding in findings)
    say(heading(f"\n{passed} passed, {failed} failed"))
    return not failed


@click.command("new")
@click.argument("name", metavar="NAME")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="FOLDER",
    show_default="this one",
    help="Folder in which the package is made.",
)
def new(name: str, into: Path) -> None:
    """Make a package with a small environment that works, for you to change."""
    from ludus.cli.package import write_package

    folder, module = write_package(name, into)
    say(f"wrote {folder}: a package that works and passes its own tests\n")
    ludus = click.get_current_context().find_root().command_path
    install = f"cd {folder} && pip install -e . pytest && pytest"
    for command in (f"{ludus} env check {module}", f"{ludus} play {module}", install):
        say(faint(f"  {command}"))


def _about(entry: EntryPoint) -> str:
    """The first line of what it says about itself; of a plugin that can't be imported, why."""
    try:
        doc = entry.load().__doc__ or ""
    except Exception as error:  # noqa: BLE001 - somebody else's code; the list goes on, and says so
        return f"can't be imported: {type(error).__name__}: {error}"
    return str(doc.strip().partition("\n")[0])


def _families(entry: EntryPoint) -> list[str]:
    """Full names of what is behind a prefix: its module's function `families` names them."""
    families = getattr(sys.modules[entry.load().__module__], "families", None)
    if families is None:
        raise UsageError(f"{entry.name}: does not list what it has")
    return [f"{entry.name}:{family}" for family in families()]
