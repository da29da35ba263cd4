"""Secrets in traces: found by their form or by what stands before them, and taken out before anything is written.

A pattern runs only over conversations that hold one of its needles, so that plain ones cost next to nothing. Left out:
names, addresses and other personal data, for which `--redact` takes patterns of one's own; and secrets that look like
nothing in particular and are named nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from ludus.errors import UsageError
from ludus.redaction import SECRETS


class Kind(msgspec.Struct, frozen=True):
    """One kind of secret."""

    name: str
    needles: tuple[bytes, ...]
    """In lower case; one of them stands in every text that has such a secret. () looks into every text."""
    pattern: re.Pattern[str]
    """The group "secret" is what is taken out; without one, all of the match."""
    is_one: Callable[[str], bool] = lambda text: True


class Found(msgspec.Struct, frozen=True):
    """Where a secret was; never the secret itself."""

    kind: str
    where: str
    """Such as "messages[2].content"."""
    characters: int


def _is_card(text: str) -> bool:
    """Luhn's check, of which one number in ten passes by chance."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [digit if place % 2 == 0 else digit * 2 - 9 * (digit > 4) for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _is_value(text: str) -> bool:
    """Whether what stands after "password:" is one: not a word of programs, nor one that is blotted out already."""
    plain = text.strip().casefold()
    placeholder = plain in ("none", "null", "true", "false", "undefined", "string", "required", "redacted", "hidden")
    return len(plain) >= 4 and not placeholder and len(set(plain)) > 1 and not plain.startswith(("[", "<", "${", "{{"))


_NAMED = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|credentials?|(?:api|access|private|secret|encryption|account)[_ -]?key"
    r"|(?:auth|access|refresh|session|bearer|api|id)[_ -]?token)"
)
_VALUE = (
    r"""(?:\\"(?P<e>(?:[^"\\]|\\[^"])+?)\\"|"(?P<q>(?:[^"\\]|\\.)+)"|'(?P<s>[^'\n]+)'|(?P<b>[^\s"'\\,;(){}\[\]<>]+))"""
)
KINDS = (
    Kind("private key", (b"private key",), re.compile(
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)", re.S)),
    Kind("API key", (b"sk-", b"sk_", b"rk_", b"pk_", b"ludus-"), re.compile(
        r"\b(?:(?:sk|rk|pk)[-_](?:[A-Za-z0-9]+[-_])*[A-Za-z0-9_-]{16,}|ludus-[A-Za-z0-9_-]{24})"),
        lambda text: any(character.isdigit() for character in text)),
    Kind("API key", (b"akia", b"asia", b"aiza", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_", b"glpat-",
        b"xox", b"hf_", b"npm_", b"sg.", b"ya29.", b"dop_v1_", b"shpat_", b"pypi-"), re.compile(
        r"\b(?:A(?:KIA|SIA)[A-Z0-9]{16}|AIza[\w-]{35}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{40,}|glpat-[\w-]{20,}"
        r"|xox[abeoprs]-[\w-]{10,}|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{30,}|SG\.[\w-]{16,}\.[\w-]{16,}|ya29\.[\w-]{20,}"
        r"|dop_v1_[a-f0-9]{60,}|shpat_[a-fA-F0-9]{32}|pypi-[\w-]{50,})")),
    Kind("token", (b"eyj",), re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?")),
    Kind("token", (b"bearer", b"basic"), re.compile(
        r"\b(?:bearer\s+(?P<secret>(?=[^\s]*\d)[A-Za-z0-9._~+/=-]{12,})|authorization\W{1,6}basic\s+[A-Za-z0-9+/=]{8,})", re.I)),
    Kind("password in an address", (b"://",), re.compile(r"://[^\s/:@\"'\\]*:(?P<secret>[^\s/@\"'\\]+)@")),
    Kind("named secret", (b"pass", b"pwd", b"secret", b"credential", b"key", b"token"), re.compile(
        rf"(?<![A-Za-z]){_NAMED}\b[\"'\\]*\s*(?::|=>?)\s*{_VALUE}", re.I), _is_value),
    Kind("named secret", (b"pass", b"pwd", b"secret", b"pin", b"key", b"token"), re.compile(
        rf"\b(?:{_NAMED}|pin|token)\s+is:?\s+[\"'\\]*(?P<secret>(?=[^\s\"'\\]*[\d!@#$%^&*])[^\s\"'\\,;]{{4,}})", re.I), _is_value),
    Kind("payment card", (), re.compile(
        r"(?<![\d.-])(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6011|65\d\d)([ -]?)\d{4}\1\d{4}\1\d{4}(?![\d-])"
        r"|(?<![\d.-])3[47]\d\d([ -]?)\d{6}\2\d{5}(?![\d-])"), _is_card),
)  # fmt: skip
_CARD_LIKE = re.compile(rb"\d{4}[ -]?\d{4,6}[ -]?\d{4,5}")


class Redactor:
    """Takes secrets out of JSON values.

    Args:
        patterns: regular expressions of one's own, for what else must not be written.

    Raises:
        UsageError: one of them is none, or matches nothing at all.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._kinds = (*KINDS, *map(_own, patterns))

    def redact(self, value: Any) -> tuple[Any, list[Found]]:
        """The value without secrets, and where they were; the very object where it has none."""
        encoded = msgspec.json.encode(value)
        lowered = encoded.lower()
        kinds = [kind for kind in self._kinds if _may_have(kind, lowered)]
        known = SECRETS.found_in(encoded)
        if not kinds and not known:
            return value, []
        found: list[Found] = []
        clean = self._walk(value, "", kinds, known, found)
        return (clean, found) if found else (value, [])

    def _walk(self, value: Any, where: str, kinds: Sequence[Kind], known: bool, found: list[Found]) -> Any:
        if isinstance(value, str):
            return self._text(value, where, kinds, known, found)
        if isinstance(value, list):
            return [self._walk(item, f"{where}[{i}]", kinds, known, found) for i, item in enumerate(value)]
        if isinstance(value, dict):
            fields = {}
            for name, item in value.items():
                name = self._text(name, f"{where} (a name)", kinds, known, found)
                fields[name] = self._walk(item, f"{where}.{name}".lstrip("."), kinds, known, found)
            return fields
        return value

    def _text(self, text: str, where: str, kinds: Sequence[Kind], known: bool, found: list[Found]) -> str:
        if known and (hidden := SECRETS.hide(text)) != text:
            found.append(Found("secret of this machine", where, len(text) - len(hidden)))
            text = hidden
        for kind in kinds:
            spans = list(_spans(kind, text))
            for start, end in reversed(spans):
                text = f"{text[:start]}[{kind.name}]{text[end:]}"
                found.append(Found(kind.name, where, end - start))
        return text


def _may_have(kind: Kind, lowered: bytes) -> bool:
    if kind.name == "payment card":
        return _CARD_LIKE.search(lowered) is not None
    return not kind.needles or any(needle in lowered for needle in kind.needles)


def _spans(kind: Kind, text: str) -> Iterator[tuple[int, int]]:
    groups = kind.pattern.groupindex
    for match in kind.pattern.finditer(text):
        named = next((name for name in groups if match[name] is not None), None)
        start, end = match.span(named) if named else match.span()
        if end > start and kind.is_one(text[start:end]):
            yield start, end


def _own(pattern: str) -> Kind:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{pattern!r} is no regular expression: {error}") from None
    if compiled.search(""):
        raise UsageError(f"{pattern!r} matches where nothing stands: it would redact everything")
    return Kind("own pattern", (), compiled)
