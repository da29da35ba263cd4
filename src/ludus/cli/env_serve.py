"""`ludus env serve`: an environment at an address, for other trainers."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from ludus.cli.options import arg_option, count_option, env_argument, host_option, open_environment, port_option
from ludus.cli.output import faint, say


@click.command("serve")
@env_argument
@click.option(
    "--protocol",
    type=click.Choice(["openenv", "ors"]),
    default="openenv",
    show_default=True,
    help="What the other trainer speaks.",
)
@host_option
@port_option
@click.option(
    "--split",
    metavar="NAME",
    default="",
    show_default="train, if there is one",
    help="Whose tasks are played where a client names none.",
)
@count_option("--sessions", default=256, help_="Episodes at once.")
@arg_option
def serve(env: str, protocol: str, host: str, port: int, split: str, sessions: int, args: tuple[str, ...]) -> None:
    """Serve ENV so that other trainers can train in it, until Ctrl-C.

    The environment's own loop, tools and scorers run here; the model is the client's. There is no password: mind who
    can reach the address.
    """
    from ludus.cli.stopping import Stopper
    from ludus.serve.environment import PROTOCOLS, check_protocol, serve_environment
    from ludus.serve.listen import address, listen

    check_protocol(protocol)
    environment = open_environment(env, args)
    bound = listen(host, port)
    stopper = Stopper("stopping")

    def started(stop: Callable[[], None]) -> None:
        stopper.stops(stop)
        say(f"serving {env} ({PROTOCOLS[protocol]}) at {address(bound)}  {faint('Ctrl-C stops it')}")
        sys.stdout.flush()

    try:
        stopper.run(lambda: serve_environment(environment, protocol, bound, started, split, sessions))
    finally:
        bound.close()
    say("stopped")
