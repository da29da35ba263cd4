"""The page docs/cli.md, generated from the commands themselves.

python -m ludus.cli.reference docs/cli.md            # write it
python -m ludus.cli.reference --check docs/cli.md    # exit 1 if it is out of date
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from ludus.cli.main import main as root

HEAD = """# The command `ludus`

Generated from the commands by `python -m ludus.cli.reference docs/cli.md`; each says the same with `--help`.

What was asked wrongly is one line on stderr and exit code 2; what went wrong otherwise, exit code 1. An interrupted
command finishes what it has begun and exits with 130; interrupted again, it aborts. Results go to stdout, everything
said on the way to stderr.
"""


def reference() -> str:
    """The whole page, in Markdown."""
    sections = [HEAD]
    for ctx in commands():
        if not isinstance(ctx.command, click.Group):
            sections.append("\n".join(_section(ctx)))
    return "\n".join(sections)


def commands() -> Iterator[click.Context]:
    """A context of every command and group, in the order of help."""
    yield from _walk(click.Context(root, info_name="ludus"))


def _walk(ctx: click.Context) -> Iterator[click.Context]:
    yield ctx
    if isinstance(ctx.command, click.Group):
        for name in ctx.command.list_commands(ctx):
            command = ctx.command.get_command(ctx, name)
            assert command is not None  # it is in the list
            yield from _walk(click.Context(command, parent=ctx, info_name=name))


def _section(ctx: click.Context) -> Iterator[str]:
    yield f"## {ctx.command_path}\n"
    usage = " ".join(ctx.command.collect_usage_pieces(ctx))
    yield f"```\n{ctx.command_path} {usage}\n```\n"
    yield from _prose(inspect.cleandoc(ctx.command.help or ""))
    options = [parameter for parameter in ctx.command.params if isinstance(parameter, click.Option)]
    rows = [row for option in options if (row := option.get_help_record(ctx))]
    if rows:
        yield "| option | |\n| --- | --- |"
        yield from (f"| `{name}` | {_escape(text)} |" for name, text in rows)
        yield ""


def _prose(text: str) -> Iterator[str]:
    """Paragraphs; what click is told not to wrap is code."""
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b"):
            yield f"```\n{inspect.cleandoc(paragraph.removeprefix(chr(8)))}\n```\n"
        else:
            yield f"{paragraph}\n"


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _main(arguments: list[str]) -> int:
    check = "--check" in arguments
    (path,) = (Path(argument) for argument in arguments if argument != "--check")
    page = reference()
    if not check:
        path.write_text(page, encoding="utf-8")
        return 0
    if path.exists() and path.read_text(encoding="utf-8") == page:
        return 0
    print(f"{path} is out of date; run: python -m ludus.cli.reference {path}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
