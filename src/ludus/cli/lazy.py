"""A click group whose commands are imported when they are needed, so that help is instant."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from ludus.errors import UnknownName


class LazyGroup(click.Group):
    """A group of commands that are named, not imported.

    Args:
        lazy: "module:attribute" by command name, in the order in which help shows them.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order given."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None where there is none of that name."""
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest valid name where there is no such command."""
        if args[0] not in self._lazy and not args[0].startswith("-"):
            raise click.UsageError(str(UnknownName("command", args[0], self._lazy)), ctx)
        return super().resolve_command(ctx, args)
