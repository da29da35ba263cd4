"""`ludus serve`: a model at an OpenAI-compatible address."""

from __future__ import annotations

import sys

import click

from ludus.cli.output import faint, say
from ludus.errors import UsageError


@click.command("serve")
@click.argument("model", metavar="M")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 is every interface.",
)
@click.option(
    "--port", metavar="N", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one."
)
@click.option("--base-url", metavar="URL", help="Of the API behind openai:NAME.")
def serve(model: str, host: str, port: int, base_url: str | None) -> None:
    """Serve a model at an OpenAI-compatible address, until Ctrl-C.

    M is a model folder, a run folder or openai:NAME. There is no password: mind who can reach the address.
    """
    from ludus.programs.models import open_model
    from ludus.recording.backend import Bindable
    from ludus.serve.app import make_app
    from ludus.serve.listen import address, listen, run

    bound = listen(host, port)
    opened = open_model(model, base_url=base_url)
    try:
        if isinstance(opened.backend, Bindable):
            raise UsageError(f"{model} plays inside rollouts only, so it can't be served")
        say(f"serving {model} at {address(bound)}/v1  {faint('Ctrl-C stops it')}")
        sys.stdout.flush()
        run(make_app(opened.backend), bound)
    except KeyboardInterrupt:
        say("stopped")
    finally:
        opened.close()
        bound.close()
