"""What a model is told of what it ran in its sandbox: the output, how it ended where that needs saying, nothing else."""

from __future__ import annotations

from collections.abc import Awaitable

from ludus.errors import SandboxFailed, ToolError
from ludus.protocols import SandboxResult

MOST_OUTPUT = 10_000
"""Characters of an output that a model is shown."""
MOST_SENT = 100_000
"""Bytes of a command; Linux takes 131,071."""


def check_text(text: str, what: str) -> None:
    """Raises ToolError for what no program can be given: the model's mistake, which it is told of."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ToolError(f"{what} has characters that are no text") from None
    if "\0" in text or size > MOST_SENT:
        raise ToolError(f"{what} has no NUL characters and at most {MOST_SENT} bytes; write long texts in parts")


async def ran(result: Awaitable[SandboxResult]) -> SandboxResult:
    """What became of a call.

    Raises:
        ToolError: the sandbox can't do it, because of what the model ran in it: the model is told in one line.
        SandboxFailed: the sandbox is gone through no fault of the model's.
    """
    try:
        return await result
    except SandboxFailed as error:
        if error.blame != "policy":
            raise
        raise ToolError(str(error)) from None


def told(result: SandboxResult, ending: str = "") -> str:
    """The output, stdout first, then in a line each what else is to be known: what was left out, and how it ended."""
    lines = [
        shortened(result.stdout + result.stderr),
        "(there was more output, which is lost)" if result.truncated else "",
        "(a process was killed: the memory of this computer is used up)" if result.oom_killed else "",
        ending,
    ]
    return "\n".join(line for line in lines if line) or "(no output)"


def shortened(text: str, most: int = MOST_OUTPUT) -> str:
    """The beginning and the end of what is long.

    >>> shortened("0123456789", most=4)
    '01\\n… 6 characters left out …\\n89'
    """
    if len(text) <= most:
        return text.rstrip("\n")
    half = most // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}".rstrip("\n")
