"""Secrets that this process knows, and texts without them.

Keys reach rollouts by many ways: a program prints its environment, a server quotes a header, an exception shows its
arguments. What is known to be secret is taken out where texts are recorded, before a model or a log sees them. Known
are environment variables and options that are named like secrets, keys of model backends, and the keys of rollouts'
own addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

HIDDEN = "[secret]"
KEY_PREFIX = "ludus-"
"""Begins the keys of rollouts' addresses, so that one pattern finds them all."""

_VARIABLES = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|AUTH)$")
_OPTIONS = re.compile(
    r"(?:(?:api|access|secret|private)_?key|(?:^|_)(?:secret|password|passwd|credentials?)|(?:^|api_|access_|auth_)token)$",
    re.IGNORECASE,
)
"""More exact, as an `answer_key` or an `eos_token` is nothing to hide."""
_ROLLOUT_KEY = re.compile(rf"{KEY_PREFIX}[A-Za-z0-9_-]{{24}}(?![A-Za-z0-9_-])")
_TOO_SHORT, _SHORTEST = 6, 12
"""Characters that a secret has at least, and one that is recognised by its name: shorter ones are likely to be words."""

ValueT = TypeVar("ValueT")


class Secrets:
    """A set of texts that must not be written down.

    >>> secrets = Secrets()
    >>> secrets.learn({"SERVICE_API_KEY": "sk-0123456789ab", "HOME": "/home/me"})
    >>> secrets.hide({"content": "the key is sk-0123456789ab"})
    {'content': 'the key is [secret]'}
    """

    def __init__(self) -> None:
        self._known: tuple[str, ...] = ()

    def add(self, *values: str) -> None:
        """These are secret, whatever they look like, if they are not trivially short."""
        new = {value for value in values if len(value) >= _TOO_SHORT}
        if not new.issubset(self._known):
            self._known = tuple(sorted({*self._known, *new}, key=len, reverse=True))  # one may contain another

    def learn(self, named: Mapping[str, Any]) -> None:
        """Values that look like secrets, under names that do: environment variables, options."""
        self.add(*_like_secrets(named.items()))

    def hide(self, value: ValueT) -> ValueT:
        """The same text, list or dict without secrets; the very object where it has none."""
        return self._hide(value)  # type: ignore[no-any-return]

    def found_in(self, encoded: bytes) -> bool:
        """Whether JSON text may hold one."""
        return KEY_PREFIX.encode() in encoded or any(_as_json(secret) in encoded for secret in self._known)

    def _hide(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in self._known:
                if secret in value:
                    value = value.replace(secret, HIDDEN)
            return _ROLLOUT_KEY.sub(HIDDEN, value) if KEY_PREFIX in value else value
        if isinstance(value, list):
            items = [self._hide(item) for item in value]
            return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
        if isinstance(value, dict):
            fields = {name: self._hide(item) for name, item in value.items()}
            return fields if any(fields[name] is not item for name, item in value.items()) else value
        return value


SECRETS = Secrets()
"""Those of this process, as its environment is this process's."""


def _like_secrets(named: Iterable[tuple[str, Any]]) -> list[str]:
    return [
        value
        for name, value in named
        if (_VARIABLES.search(name) or _OPTIONS.search(name))
        and isinstance(value, str)
        and len(value) >= _SHORTEST
        and not re.search(r"\s|^[/~.]|://", value)  # no texts, paths or addresses
        and re.search(r"\d", value)
    ]


def _as_json(secret: str) -> bytes:
    return secret.replace("\\", "\\\\").replace('"', '\\"').encode(errors="ignore")
