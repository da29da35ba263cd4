"""`Trouble`: what went wrong over here, in words that the other side makes an error of."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any


class Trouble(Exception):
    """An error with what the other side needs to know of it.

    Args:
        text: what happened; of an unknown name, what was looked for.
        kind: `rollout`, `usage`, `config`, or `unknown`, a name that does not exist.
        boundary: where, as in `ludus.errors`.
        blame: whose fault, as in `ludus.errors`.
        name: of an unknown name, what was asked for.
        valid: of an unknown name, the names that exist.
    """

    def __init__(
        self,
        text: str,
        kind: str = "rollout",
        boundary: str = "environment",
        blame: str = "environment",
        name: str = "",
        valid: Iterable[str] = (),
    ) -> None:
        super().__init__(text)
        self.kind, self.boundary, self.blame, self.name, self.valid = kind, boundary, blame, name, sorted(valid)


def told(error: BaseException) -> dict[str, Any]:
    """The error as JSON; whatever is not a Trouble is the environment's fault."""
    trouble = error if isinstance(error, Trouble) else Trouble(f"{type(error).__name__}: {error}")
    cause = error.__cause__ or error
    text = str(trouble) if trouble.kind == "rollout" else " ".join(str(trouble).split())
    return {
        "text": text,
        "kind": trouble.kind,
        "boundary": trouble.boundary,
        "blame": trouble.blame,
        "name": trouble.name,
        "valid": trouble.valid,
        "trace": "".join(traceback.format_tb(cause.__traceback__)[-3:]),
    }
