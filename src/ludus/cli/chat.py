"""`ludus chat`: talk to a model; a line is a message. What it says loses its control characters before it is shown."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from ludus.cli.access import reach_options
from ludus.cli.options import count_option, temperature_option
from ludus.cli.output import faint, note
from ludus.errors import ModelCallFailed, UsageError

if TYPE_CHECKING:
    from ludus.cli.access import Accesses
    from ludus.recording.backend import Backend
    from ludus.recording.recorder import Recorder
    from ludus.types import Message, Reply, Sampling

HELP = "a line is a message; /reset begins again, Ctrl-C stops a reply, Ctrl-D leaves"


@click.command("chat")
@click.argument("model", metavar="M")
@click.option("--system", default="", metavar="TEXT", help="The system prompt.")
@temperature_option(1)
@count_option("--max-tokens", help_="Tokens a reply.")
@reach_options
def chat(model: str, system: str, temperature: float, max_tokens: int | None, access: Accesses) -> None:
    """Talk to a model: a model folder, a run folder or openai:NAME.

    Where stdin is no terminal, each of its lines is a message.
    """
    from ludus.programs.models import open_model
    from ludus.recording.backend import Bindable
    from ludus.types import Sampling

    access.check([model])
    opened = open_model(model, **vars(access.of(model)))
    try:
        if isinstance(opened.backend, Bindable):
            raise UsageError(f"{model} plays inside rollouts only: ludus eval ENV --model {model}")
        talk = Talk(opened.backend, Sampling(temperature=temperature, max_tokens=max_tokens), system)
        with asyncio.Runner() as runner:
            _converse(talk, runner, interactive=sys.stdin.isatty())
    finally:
        opened.close()


class Talk:
    """One conversation.

    Args:
        backend: who answers.
        sampling: how.
        system: the system prompt, if not "".
    """

    def __init__(self, backend: Backend, sampling: Sampling, system: str) -> None:
        self._backend, self._sampling, self._system = backend, sampling, system
        self.reset()

    def reset(self) -> None:
        """Begin again."""
        from ludus.recording.recorder import Recorder
        from ludus.types import MAIN_ROLE

        backends = {MAIN_ROLE: self._backend}
        self._recorder: Recorder = Recorder(backends, self._sampling, secrets.randbits(63), secrets.token_hex(8))
        self._messages: list[Message] = [{"role": "system", "content": self._system}] if self._system else []

    async def say(self, text: str, on_text: Callable[[str], None]) -> Reply:
        """The reply to a message; one that fails or is stopped leaves the conversation as it was."""
        from ludus.types import MAIN_ROLE, user

        messages = [*self._messages, user(text)]
        reply = await self._recorder.call(MAIN_ROLE, messages, on_text=on_text)
        self._messages = [*messages, reply.message]
        return reply


def _converse(talk: Talk, runner: asyncio.Runner, *, interactive: bool) -> None:
    from ludus.programs.report.words import clean

    def show(piece: str) -> None:
        click.echo(clean(piece), nl=False)

    if interactive:
        note(faint(HELP))
    for text in _typed() if interactive else (line.rstrip("\n") for line in sys.stdin):
        if text.strip() == "/reset":
            talk.reset()
        elif text.strip():
            try:
                reply = runner.run(talk.say(text, show))
                click.echo(faint("  (cut off)") if reply.truncated and interactive else "")
            except KeyboardInterrupt:
                note(" (stopped)")
            except ModelCallFailed as error:
                if not interactive:
                    raise
                note(f"ludus: {error}; /reset begins again")


def _typed() -> Iterator[str]:
    """Lines that a person types, until Ctrl-D, or Ctrl-C on an empty line."""
    import readline  # noqa: F401 - its import gives input() a history and cursor keys

    while True:
        try:
            yield input(click.style("\n> ", bold=True) if sys.stdout.isatty() else "> ")
        except (EOFError, KeyboardInterrupt):
            note("")
            return
