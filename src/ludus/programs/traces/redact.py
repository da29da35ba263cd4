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
    needles: tuple[str, ...]
    """In lower case; one of them stands in every text that has such a secret. () looks into every text."""
    pattern: re.Pattern[str]
    """The last group with a name is what is taken out; without one, all of the match."""
    is_one: Callable[[str], bool] = lambda text: True
    may_be_in: Callable[[str], bool] = lambda lowered: True
    """A second, closer look at a text in lower case, for needles that are common words."""


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


def _has_a_name(lowered: str) -> bool:
    """Whether a text may have one of the names below: any key or token would be too many, so what precedes is looked at."""
    if any(word in lowered for word in _RARE):
        return True
    for word, owners in _OF.items():
        at = lowered.find(word)
        while at >= 0:
            if lowered[max(0, at - 12) : at].rstrip("_ -").endswith(owners):
                return True
            at = lowered.find(word, at + 1)
    return False


def _has(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda lowered: compiled.search(lowered) is not None


_NAMED = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|credentials?|(?:api|access|private|secret|encryption|account)[_ -]?key"
    r"|(?:auth|access|refresh|session|bearer|api|id)[_ -]?token)"
)
_RARE = ("passw", "passp", "passc", "pwd", "secret", "credential")
_OF = {
    "key": ("api", "access", "private", "secret", "encryption", "account"),
    "token": ("auth", "access", "refresh", "session", "bearer", "api", "id"),
}
_SAID = (
    "password", "passwd", "passphrase", "passcode", "pwd", "secret", "credential", "credentials", "key", "pin", "token"
)  # fmt: skip
_VALUE = (
    r"""(?:(?P<slashes>\\*)"(?P<secret_quoted>.{1,2000}?)(?<!\\)(?P=slashes)"|'(?P<secret_single>[^'\n]+)'"""
    r"""|(?P<secret_bare>[^\s"'\\,;(){}\[\]<>]+))"""
)
"""JSON in a string of JSON has a backslash before its quotes, and more the deeper it is."""
KINDS = (
    Kind("private key", ("private key",), re.compile(
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)", re.S)),
    Kind("API key", ("sk-", "sk_", "rk_", "pk_", "xai-", "nvapi-", "r8_", "tvly-", "sbp_", "whsec_",
        "lin_api_", "ntn_", "key-", "ludus-"), re.compile(
        r"\b(?:(?:g?sk|rk|pk|pcsk|xai|nvapi|r8|tvly|sbp|whsec|lin_api|ntn)[-_][A-Za-z0-9_-]{16,}|key-[0-9a-f]{32}"
        r"|ludus-[A-Za-z0-9_-]{24})"),
        lambda text: any(character.isdigit() for character in text)),
    Kind("API key", ("akia", "asia", "aiza", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-",
        "xox", "hf_", "npm_", "sg.", "ya29.", "dop_v1_", "shpat_", "pypi-"), re.compile(
        r"\b(?:A(?:KIA|SIA)[A-Z0-9]{16}|AIza[\w-]{35}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{40,}|glpat-[\w-]{20,}"
        r"|xox[abeoprs]-[\w-]{10,}|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{30,}|SG\.[\w-]{16,}\.[\w-]{16,}|ya29\.[\w-]{20,}"
        r"|dop_v1_[a-f0-9]{60,}|shpat_[a-fA-F0-9]{32}|pypi-[\w-]{50,})")),
    Kind("token", ("eyj",), re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?")),
    Kind("token", ("bearer", "basic"), re.compile(
        r"\b(?:bearer\s+(?P<secret>(?=[^\s]*\d)[\w.~+/=-]{12,})|authorization\W{1,6}basic\s+[A-Za-z0-9+/=]{8,})", re.I)),
    Kind("cookie", ("cookie",), re.compile(
        r"\bcookie[\"'\\]*\s*:\s*[\"'\\]*(?P<secret>[\w.-]+=[^\s\"'\\][^\n\"\\]*)", re.I)),
    Kind("password in an address", ("://",), re.compile(r"://[^\s/:@\"'\\]*:(?P<secret>[^\s/@\"'\\]+)@")),
    Kind("named secret", (*_RARE, *_OF), re.compile(
        rf"{_NAMED}(?:_\w{{1,20}}|\d+|s)?\b[\"'\\]*\s*(?::|=>?)\s*{_VALUE}", re.I), _is_value,
        _has_a_name),
    Kind("named secret", tuple(f"{name} is" for name in _SAID), re.compile(
        rf"\b(?:{_NAMED}|pin|token) is:?\s+[\"'\\]*(?P<secret>(?=[^\s\"'\\]*[\d!@#$%^&*])[^\s\"'\\,;]{{4,}})", re.I),
        _is_value),
    Kind("token", ("token",), re.compile(
        r"token[\"'\\]*\s*(?::|=>?)\s*[\"'\\]*(?P<secret>(?=[\w.~+/-]*\d)(?=[\w.~+/-]*[A-Za-z])[\w.~+/-]{16,})", re.I),
        may_be_in=_has(r"token[\"'\\]*\s*(?::|=>?)\s*[\"'\\]*[\w.~+/-]{16}")),
    Kind("payment card", (), re.compile(
        r"(?<![\d.-])(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6011|65\d\d)([ -]?)\d{4}\1\d{4}\1\d{4}(?![\d-])"
        r"|(?<![\d.-])3[47]\d\d([ -]?)\d{6}\2\d{5}(?![\d-])"), _is_card, _has(r"\d{4}[ -]?\d{4,6}[ -]?\d{4,5}")),
)  # fmt: skip


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
        lowered = encoded.decode().lower()
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
        lowered = text.lower()
        for kind in kinds:
            if not _may_have(kind, lowered):
                continue
            for start, end in reversed(list(_spans(kind, text))):
                text = f"{text[:start]}[{kind.name}]{text[end:]}"
                found.append(Found(kind.name, where, end - start))
        return text


def _may_have(kind: Kind, lowered: str) -> bool:
    if kind.needles and not any(needle in lowered for needle in kind.needles):
        return False
    return kind.may_be_in(lowered)


def _spans(kind: Kind, text: str) -> Iterator[tuple[int, int]]:
    for match in kind.pattern.finditer(text):
        start, end = match.span(match.lastgroup or 0)
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
