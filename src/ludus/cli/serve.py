"""`ludus serve`: a model at an OpenAI-compatible address."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ludus.cli.access import reach_options
from ludus.cli.options import host_option, port_option
from ludus.cli.output import faint, say
from ludus.errors import UsageError

if TYPE_CHECKING:
    from ludus.cli.access import Accesses


@click.command("serve")
@click.argument("model", metavar="M")
@host_option
@port_option
@reach_options
def serve(model: str, host: str, port: int, access: Accesses) -> None:
    """Serve a model at an OpenAI-compatible address, until Ctrl-C.

    M is a model folder, a run folder or openai:NAME. There is no password: mind who can reach the address.
    """
    from ludus.programs.models import open_model
    from ludus.recording.backend import Bindable
    from ludus.serve.app import make_app
    from ludus.serve.listen import address, listen, run

    access.check([model])
    bound = listen(host, port)
    opened = open_model(model, **vars(access.of(model)))
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
