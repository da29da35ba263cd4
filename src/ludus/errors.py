"""Every exception that Ludus raises on purpose.

    LudusError
    ├── UsageError (ValueError)             the caller asked for something that does not exist or is not allowed; exit 2
    │   ├── UnknownName (LookupError)       no such environment, option, key, family, command
    │   ├── ConfigError                     a recipe or option value of the wrong type or range
    │   ├── MissingExtra (ImportError)      an optional dependency is not installed
    │   └── SandboxUnavailable              this machine can't contain code the way that was asked for
    ├── FileProblem (OSError)               something on disk is missing, damaged or in the way
    │   ├── ModelFolderError                a model folder that can't be loaded
    │   └── RunFolderError                  a run folder that can't be made, locked, resumed or read
    ├── RolloutError                        one rollout failed: carries its boundary and blame; recorded, never silently 0
    │   ├── ModelCallFailed (ConnectionError)   the engine or the remote API did not answer
    │   ├── ToolError (ValueError)          a tool refuses: the default loop tells the model instead of failing the rollout
    │   ├── ServerLost (ConnectionError)        a server whose tools the rollout uses did not start, or is gone
    │   ├── SandboxFailed (RuntimeError)    a sandbox ended or broke
    │   │   └── SandboxFileError (OSError)  a file of a sandbox that can't be read or written
    │   ├── ScorerFailed (ValueError)       a scorer raised, returned no finite number, or got no verdict from a judge
    │   └── RolloutTimeout (TimeoutError)   the rollout overran its time
    ├── TooManyFailures (RuntimeError)      nearly all rollouts fail: the run stops and says why
    └── NonFiniteUpdate (ArithmeticError)   too many optimiser steps in a row with a NaN or infinite loss or gradient

Error text says what was expected, what was got and what to do; names come with their nearest valid neighbour.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal

Boundary = Literal["model", "tool", "sandbox", "scorer", "timeout", "environment"]
Blame = Literal["policy", "environment", "infrastructure"]


class LudusError(Exception):
    """Base of all errors raised on purpose."""

    def __str__(self) -> str:  # KeyError and friends would print the repr of the text
        return str(self.args[0]) if self.args else ""


class UsageError(LudusError, ValueError):
    """The request can't be carried out as written; the command line prints it in one line and exits with 2."""


class UnknownName(UsageError, LookupError):
    """A name that does not exist, with its nearest valid neighbour.

    Args:
        kind: what was looked up, e.g. "environment".
        name: what was asked for.
        valid: the names that exist.
        see: where all of them are listed, e.g. "ludus env list".
    """

    def __init__(self, kind: str, name: str, valid: Iterable[str], see: str = "") -> None:
        names = sorted(valid)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        text = f"unknown {kind} {name!r}"
        if near:
            text += f"; did you mean {near[0]!r}?"
        if see:
            text += f" (all of them: {see})"
        elif names and len(names) <= 40:
            text += f" (valid: {', '.join(names)})"
        super().__init__(text)
        self.name, self.nearest = name, near[0] if near else None


class ConfigError(UsageError):
    """A configuration key or value that is not allowed; the text names the key, the value and what is allowed."""


class MissingExtra(UsageError, ImportError):
    """An optional dependency is missing.

    Args:
        what: the feature that needs it.
        extra: the extra that brings it.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"for {what}, install the extra {extra!r}: pip install 'ludus-rl[{extra}]'")


class SandboxUnavailable(UsageError):
    """This machine can't contain code the way that was asked for; the text names what is missing."""


class FileProblem(LudusError, OSError):
    """Something on disk is missing, damaged or in the way."""


class ModelFolderError(FileProblem):
    """A model folder that can't be loaded; the text names the file and what was expected in it."""


class RunFolderError(FileProblem):
    """A run folder that can't be made, locked, resumed or read."""


class RolloutError(LudusError):
    """One rollout failed. Authors may raise it to state boundary and blame themselves.

    Args:
        message: what happened.
        boundary: where: model, tool, sandbox, scorer, timeout or environment.
        blame: whose fault: policy (earns the environment's failure_reward), environment or infrastructure (retried
            with a fresh rollout, then excluded).
        trace: the last frames of a traceback, where it happened in another process.
    """

    def __init__(
        self, message: str, boundary: Boundary = "environment", blame: Blame = "environment", trace: str = ""
    ) -> None:
        super().__init__(message)
        self.trace = trace
        self.boundary: Boundary = boundary
        self.blame: Blame = blame


class ModelCallFailed(RolloutError, ConnectionError):
    """The engine or the remote API did not give an answer, after retries."""

    def __init__(self, message: str, blame: Blame = "infrastructure") -> None:
        super().__init__(message, "model", blame)


class ToolError(RolloutError, ValueError):
    """A tool refuses its arguments or can't do what was asked. The default loop answers the model with the text;
    any other exception from a tool is the author's fault and fails the rollout."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "tool", "environment")


class ServerLost(RolloutError, ConnectionError):
    """A server whose tools the rollout uses did not start, or is gone; the text names it and has its last words."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "tool", "infrastructure")


class SandboxFailed(RolloutError, RuntimeError):
    """A sandbox ended or broke; the policy's fault where its own code did it."""

    def __init__(self, message: str, blame: Blame = "infrastructure") -> None:
        super().__init__(message, "sandbox", blame)


class SandboxFileError(SandboxFailed, OSError):
    """A file of a sandbox that can't be read or written: missing, too large, no regular file, no room."""

    def __init__(self, message: str, blame: Blame = "policy") -> None:
        super().__init__(message, blame)


class ScorerFailed(RolloutError, ValueError):
    """A scorer raised, or returned something that is not a finite number; infrastructure is to blame where it had asked a
    model, and got no answer or none that can be read."""

    def __init__(self, message: str, blame: Blame = "environment") -> None:
        super().__init__(message, "scorer", blame)


class RolloutTimeout(RolloutError, TimeoutError):
    """The rollout overran its time limit."""

    def __init__(self, message: str, blame: Blame = "environment") -> None:
        super().__init__(message, "timeout", blame)


class TooManyFailures(LudusError, RuntimeError):
    """Nearly all rollouts fail; the text quotes the commonest failure."""


class NonFiniteUpdate(LudusError, ArithmeticError):
    """Too many optimiser steps in a row had a NaN or infinite loss or gradient."""
