"""`ludus env from-traces`: an environment from recorded conversations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ludus.cli.options import json_option
from ludus.cli.output import faint, heading, note, say, say_json

if TYPE_CHECKING:
    from ludus.programs.traces import Built


@click.command("from-traces")
@click.argument("traces", metavar="TRACES...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", required=True, help="Of the package and the environment.")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="FOLDER",
    show_default="this one",
    help="Folder in which the package is made.",
)
@click.option(
    "--test-share",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    metavar="X",
    default=0.2,
    show_default=True,
    help="Share of the conversations that is held out.",
)
@click.option(
    "--redact",
    multiple=True,
    metavar="PATTERN",
    help="A regular expression for what else must not be written, such as mail addresses; may be repeated.",
)
@json_option
def from_traces(
    traces: tuple[Path, ...], name: str, into: Path, test_share: float, redact: tuple[str, ...], as_json: bool
) -> None:
    """Make an environment package of conversations recorded in OpenAI's format.

    TRACES are JSON-lines files, packed with gzip or not, with a conversation a line: {"messages": [...], "tools":
    [...]}, or a logged request with its response. A field such as "accepted" or "feedback" is read as a label. Secrets
    are taken out before anything is written; redacted.jsonl lists where they were.

    \b
        ludus env from-traces traces.jsonl --name support-desk
        ludus eval support-desk/src/support_desk/__init__.py --model demonstrator
    """
    from ludus.cli.stopping import ends_in_order
    from ludus.programs.traces import environment_from_traces

    def progress(num_lines: int) -> None:
        if num_lines % 10_000 == 0:
            note(faint(f"{num_lines:,} lines"))

    with ends_in_order():
        built = environment_from_traces(traces, name, into, test_share=test_share, redact=redact, progress=progress)
    if as_json:
        import msgspec

        say_json({**msgspec.to_builtins(built, enc_hook=str)})
        return
    for line in _summary(built):
        say(line)
    module = built.folder / "src" / name.replace("-", "_") / "__init__.py"
    ludus = click.get_current_context().find_root().command_path
    for command in (f"{ludus} env check {module}", f"{ludus} eval {module} --model demonstrator"):
        say(faint(f"  {command}"))


def _summary(built: Built) -> Iterator[str]:
    tasks = built.tasks
    yield (
        f"{heading(str(built.folder))}: {tasks['train']:,} training tasks, {tasks['test']:,} held out, "
        f"{built.num_tools:,} tools, from {built.num_lines:,} lines"
    )
    yield from _counted("skipped", built.skipped, built.places)
    yield from _counted("mended", built.mended)
    yield from _counted("secrets taken out, each listed in redacted.jsonl", built.redacted)
    yield from _counted("signals, in labels.jsonl", built.labels)
    yield ""


def _counted(title: str, counts: Mapping[str, int], places: Mapping[str, list[str]] | None = None) -> Iterator[str]:
    if counts:
        yield f"\n{heading(title)}"
        for reason, count in counts.items():
            where = f"  {', '.join(places[reason])}" if places and reason in places else ""
            yield f"  {count:,} {reason}{faint(where)}"
