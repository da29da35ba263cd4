"""The process in which an environment is examined, `python -m ludus.testing.examiner FD TRACES`.

It says every second that it is alive. Code that lets nothing else run in its process says nothing any more, and is ended
from outside (`examining`); where it was, it writes into TRACES when it is sent SIGUSR1.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import socket
import sys
from contextlib import ExitStack

import msgspec

from ludus.authoring.loading import load_environment
from ludus.errors import LudusError, UsageError
from ludus.programs.models import NO_ACCESS, Access, open_model, open_role_models
from ludus.redaction import SECRETS
from ludus.rollouts import frames
from ludus.testing.audit.program import audit_environment_async
from ludus.testing.audit.verdict import Audit
from ludus.testing.env_suite import check_environment_async
from ludus.testing.finding import Finding
from ludus.types import EnvironmentRef

BEAT_S = 1.0


class Order(msgspec.Struct, tag=True, frozen=True):
    """What is to be examined, and how. Models are named as on the command line."""

    environment: EnvironmentRef
    num_tasks: int
    checks: bool = False
    audit: bool = False
    tried: int | None = None
    model: str = ""
    role_models: dict[str, str] = {}
    access: Access = NO_ACCESS
    role_access: dict[str, Access] = {}


class Alive(msgspec.Struct, tag=True, frozen=True):
    """Something else can run."""


class Told(msgspec.Struct, tag=True, frozen=True):
    """What is being played."""

    text: str


class Refused(msgspec.Struct, tag=True, frozen=True):
    """The order can't be carried out."""

    error: str
    usage: bool
    """Whether it was not even written right."""


class Checked(msgspec.Struct, tag=True, frozen=True):
    """What the checks found."""

    findings: list[Finding]


class Audited(msgspec.Struct, tag=True, frozen=True):
    """What the audit found; None where none was asked for. The last word."""

    audit: Audit | None = None


FromExaminer = Alive | Told | Refused | Checked | Audited


async def serve(descriptor: int) -> None:
    """Carry out one order."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    order = await frames.receive(reader, Order)
    if order is None:
        return
    beating = asyncio.create_task(_beat(writer))
    try:
        with ExitStack() as stack:
            await _examine(order, writer, stack)
    except LudusError as error:
        frames.send(writer, Refused(str(error), isinstance(error, UsageError)))
    finally:
        beating.cancel()
        writer.close()
        await writer.wait_closed()  # until all is sent


async def _beat(writer: asyncio.StreamWriter) -> None:
    while True:
        frames.send(writer, Alive())
        await asyncio.sleep(BEAT_S)


async def _examine(order: Order, writer: asyncio.StreamWriter, stack: ExitStack) -> None:
    env = load_environment(order.environment.id, order.environment.options)
    others = open_role_models(order.role_models, env.roles, stack, order.role_access)
    model = open_model(order.model, **vars(order.access)) if order.model else None
    if model is not None:
        stack.callback(model.close)

    def tell(text: str) -> None:
        frames.send(writer, Told(text))

    if order.checks:
        findings = await check_environment_async(env, num_tasks=order.num_tasks, named=list(others), tell=tell)
        frames.send(writer, Checked(findings))
    audit = None
    if order.audit:
        audit = await audit_environment_async(
            env, num_tasks=order.num_tasks, model=model.backend if model else None, role_models=others,
            tried=order.tried, tell=tell,
        )  # fmt: skip
    frames.send(writer, Audited(audit))


if __name__ == "__main__":
    SECRETS.learn(os.environ)
    faulthandler.register(signal.SIGUSR1, file=int(sys.argv[2]), all_threads=True)
    asyncio.run(serve(int(sys.argv[1])))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # author threads may hang
