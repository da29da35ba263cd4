"""`ludus`: the commands, and how every error ends.

What was raised on purpose is one line on stderr, `ludus: ...`, and exit code 2 (a request that can't be carried out as
written) or 1; what was not keeps its traceback. An interrupted command exits with 130.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from ludus import __version__
from ludus.cli.lazy import LazyGroup
from ludus.errors import LudusError, UsageError
from ludus.redaction import SECRETS

COMMANDS = {
    "init": "ludus.cli.init:init",
    "eval": "ludus.cli.evaluate:evaluate",
    "train": "ludus.cli.train:train",
    "optimize": "ludus.cli.optimize:optimize",
    "data": "ludus.cli.data:data",
    "compare": "ludus.cli.compare:compare",
    "report": "ludus.cli.report:report",
    "card": "ludus.cli.card:card",
    "show": "ludus.cli.show:show",
    "label": "ludus.cli.label:label",
    "users": "ludus.cli.users:users",
    "replay": "ludus.cli.replay:replay",
    "export": "ludus.cli.export:export",
    "play": "ludus.cli.play:play",
    "chat": "ludus.cli.chat:chat",
    "serve": "ludus.cli.serve:serve",
    "judge": "ludus.cli.judge:judge",
    "env": "ludus.cli.env:env",
}


class Ludus(LazyGroup):
    """The root: every way for a command to end goes through `main`."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        """Run a command line and exit."""
        extra["standalone_mode"] = False
        _log_to_stderr()
        SECRETS.learn(os.environ)
        here = str(os.getcwd())  # noqa: PTH109 - sys.path holds strings
        if here not in sys.path:
            sys.path.append(here)  # `module:Class` is looked for in the current folder too
        try:
            code = super().main(args, prog_name or _as_typed(), **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except click.ClickException as error:
            _fail(_in_one_line(error), error.exit_code)
        except LudusError as error:
            _fail(str(error), 2 if isinstance(error, UsageError) else 1)
        except (click.Abort, KeyboardInterrupt):
            from ludus.cli.stopping import INTERRUPTED  # not above: it loads asyncio, which --help does without

            sys.exit(INTERRUPTED)
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            # Who read our output has gone; the interpreter must not find that out again when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.command("ludus", cls=Ludus, lazy=COMMANDS, context_settings=HELP)
@click.version_option(__version__, message="ludus %(version)s")
def main() -> None:
    """Train agents by reinforcement learning.

    Write an environment, evaluate any model in it, train a model in it, look at what it did. Begin with:

    \b
        ludus eval guess --model demonstrator
        ludus train examples/guess.toml
    """


def _as_typed() -> str:
    """What to type to run this once more: `ludus`, or the way to it where a shell finds another one or none."""
    typed, found = Path(sys.argv[0]), shutil.which("ludus")
    if typed.name == "__main__.py":
        return "python -m ludus"
    if typed.stem != "ludus" or (found and Path(found).resolve() == typed.resolve()):
        return "ludus"
    return sys.argv[0]


def _in_one_line(error: click.ClickException) -> str:
    """click's own words, as ours, with where to read on."""
    text = error.message if isinstance(error, click.NoSuchOption) else error.format_message()
    text = " ".join(text.split()).removesuffix(".")
    text = text[:1].lower() + text[1:]
    if isinstance(error, click.NoSuchOption) and error.possibilities:
        text += f"; did you mean {' or '.join(error.possibilities)}?"
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    return f"{text} (see {ctx.command_path} --help)" if ctx else text


def _fail(text: str, code: int) -> NoReturn:
    print("ludus: " + SECRETS.hide(" ".join(text.split())), file=sys.stderr)
    sys.exit(code)


class _Stderr(logging.Handler):
    """Warnings for people; `sys.stderr` is looked up each time, because a live display stands in for it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(SECRETS.hide(f"ludus: {record.levelname.lower()}: {record.getMessage()}"), file=sys.stderr)


def _log_to_stderr() -> None:
    log = logging.getLogger("ludus")
    if not any(isinstance(handler, _Stderr) for handler in log.handlers):
        log.addHandler(_Stderr(logging.WARNING))
