"""Kinds of secrets: how each is written, and what tells quickly that a text has none.

Left out: names, addresses and other personal data; and secrets that look like nothing in particular and stand behind no
name. For those there are patterns of one's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import msgspec

from ludus.errors import UsageError


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of secret."""

    name: str
    pattern: re.Pattern[str]
    """Its last group with a name is what is taken out; without one, all of the match."""
    needles: tuple[str, ...] = ()
    """In lower case; one of them stands in every text that has such a secret. () looks into every text."""
    may_be_in: Callable[[str], bool] = lambda lowered: True
    """A closer look at a text in lower case, where needles are common words."""
    is_one: Callable[[str], bool] = lambda text: True
    """Whether what was found is one."""

    def may_stand_in(self, lowered: str) -> bool:
        """False where a text, in lower case, has none; quickly."""
        if self.needles and not any(needle in lowered for needle in self.needles):
            return False
        return self.may_be_in(lowered)

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where each one begins and ends."""
        for match in self.pattern.finditer(text):
            start, end = match.span(match.lastgroup or 0)
            if end > start and self.is_one(text[start:end]):
                yield start, end


def own_kind(pattern: str) -> Kind:
    """What else must not be written. Raises UsageError for what is no pattern, or matches where nothing stands."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{pattern!r} is no regular expression: {error}") from None
    if compiled.search(""):
        raise UsageError(f"{pattern!r} matches where nothing stands: it would redact everything")
    return Kind(name="own pattern", pattern=compiled)


# --- behind a name: password: ..., "api_key": "...", my pin is ... -----------------------------------------------

_RARE = ("passw", "passp", "passc", "de passe", "contrase", "senha", "пароль", "密码", "pwd", "secret", "credential")
_OF = {
    "key": ("api", "access", "private", "secret", "encryption", "account", "client"),
    "token": ("auth", "access", "refresh", "session", "bearer", "api", "id"),
}
_SECRETS = (
    "password", "passwd", "passphrase", "passcode", "pwd", "secret", "credential", "credentials", "key", "pin", "token",
)  # fmt: skip
_SAID = tuple(f"{name} {verb}" for name in _SECRETS for verb in ("is", "was"))

_NAME = (
    r"(?:pass(?:wor[dt]|wd|phrase|code)|mot de passe|contrase(?:ñ|n)a|senha|пароль|密码|pwd|secret|credentials?"
    rf"|(?:{'|'.join(_OF['key'])})[_ -]?key|(?:{'|'.join(_OF['token'])})[_ -]?token)"
)
_IS = r"""[\"'\\]*\s*(?::|=>?|>|,\s*["'\\]*value["'\\]*\s*:)\s*"""
_OPENS = r"""[\"'\\]*\s*(?::|=>?)\s*[\"'\\]*"""
_VALUE = (
    r"""(?:(?P<slashes>\\*)"(?P<quoted>.{1,2000}?)(?<!\\)(?P=slashes)"|'(?P<single>[^'\n]+)'"""
    r"""|(?P<bare>[^\s"'\\,;(){}\[\]<>]+))"""
)
"""JSON in a string of JSON has a backslash before its quotes, and more the deeper it is."""
_MIXED = r"(?=[\w.~+/-]*\d)(?=[\w.~+/-]*[A-Za-z])[\w.~+/=-]"
"""Letters and digits, one of each at least."""

_TOKEN = re.compile(rf"token{_OPENS}[\w.~+/-]{{16}}")


def _has_a_name(lowered: str) -> bool:
    """Whether a text may have one of the names: keys and tokens are too many, so what stands before them is looked at."""
    if any(word in lowered for word in _RARE):
        return True
    for word, owners in _OF.items():
        at = lowered.find(word)
        while at >= 0:
            if lowered[max(0, at - 12) : at].rstrip("_ -").endswith(owners):
                return True
            at = lowered.find(word, at + 1)
    return False


def _is_value(text: str) -> bool:
    """Whether what stands after "password:" is one: not a word of programs, nor one that is blotted out already."""
    plain = text.strip().casefold()
    placeholder = plain in ("none", "null", "true", "false", "undefined", "string", "required", "redacted", "hidden")
    return len(plain) >= 4 and not placeholder and len(set(plain)) > 1 and not plain.startswith(("[", "<", "${", "{{"))


_NAMED = (
    Kind(
        name="named secret",
        needles=(*_RARE, *_OF),
        may_be_in=_has_a_name,
        pattern=re.compile(rf"{_NAME}(?:[_-]\w{{1,20}}|\d+|s)?\b{_IS}{_VALUE}", re.IGNORECASE),
        is_one=_is_value,
    ),
    Kind(
        name="named secret",
        needles=_SAID,
        pattern=re.compile(
            rf"\b(?:{_NAME}|key|pin|token) (?:is|was):?\s+[\"'\\]*"
            r"(?P<secret>(?=[^\s\"'\\]*[\d!@#$%^&*])[^\s\"'\\,;]{4,})",
            re.IGNORECASE,
        ),
        is_one=_is_value,
    ),
    Kind(
        name="named secret",
        needles=("_key", "-key"),
        pattern=re.compile(rf"[_-]key{_OPENS}(?P<secret>{_MIXED}{{20,}})", re.IGNORECASE),
    ),
    Kind(
        name="token",
        needles=("token",),
        pattern=re.compile(rf"token{_OPENS}(?P<secret>{_MIXED}{{16,}})", re.IGNORECASE),
        may_be_in=lambda lowered: _TOKEN.search(lowered) is not None,
    ),
)

# --- by their form ------------------------------------------------------------------------------------------------

_CARD_LIKE = re.compile(r"[0-9]{4}[ -]?[0-9]{4,6}[ -]?[0-9]{4,5}")


def _is_card(text: str) -> bool:
    """Luhn's check, of which one number in ten passes by chance."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [digit if place % 2 == 0 else digit * 2 - 9 * (digit > 4) for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


KINDS = (
    Kind(
        name="private key",
        needles=("private key", "private-lines"),
        pattern=re.compile(
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?"
            r"(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)|(?<=Private-Lines:).*?(?:Private-MAC|\Z)",
            re.DOTALL,
        ),
    ),
    Kind(
        name="API key",
        needles=(
            "sk-", "sk_", "rk_", "pk_", "xai-", "nvapi-", "r8_", "tvly-", "sbp_", "whsec_", "lin_api_", "ntn_", "key-",
            "ludus-",
        ),
        pattern=re.compile(
            r"\b(?:(?:g?sk|rk|pk|pcsk|xai|nvapi|r8|tvly|sbp|whsec|lin_api|ntn)[-_][A-Za-z0-9_-]{16,}|key-[0-9a-f]{32}"
            r"|ludus-[A-Za-z0-9_-]{24})"
        ),
        is_one=lambda text: any(character.isdigit() for character in text),
    ),
    Kind(
        name="API key",
        needles=(
            "akia", "asia", "aiza", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "hf_", "npm_",
            "sg.", "ya29.", "dop_v1_", "shpat_", "pypi-", "dckr_pat_", "glsa_", ":aa", "xapp-",
            "gocspx-", "dapi", "hvs.", "age-secret",
        ),
        pattern=re.compile(
            r"\b(?:A(?:KIA|SIA)[A-Z0-9]{16}|AIza[\w-]{35}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{40,}|glpat-[\w-]{20,}"
            r"|x(?:ox[abeoprs]|app)-[\w-]{10,}|GOCSPX-[\w-]{16,}|dapi[0-9a-f]{32}|hvs\.[\w-]{20,}|AGE-SECRET-KEY-1\w{20,}"
            r"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{30,}|SG\.[\w-]{16,}\.[\w-]{16,}"
            r"|ya29\.[\w-]{20,}|dop_v1_[a-f0-9]{60,}|shpat_[a-fA-F0-9]{32}|pypi-[\w-]{50,}|dckr_pat_[\w-]{20,}"
            r"|glsa_\w{30,})|(?<!\d)\d{8,10}:AA[\w-]{30,}"
        ),
    ),
    Kind(name="token", needles=("eyj",), pattern=re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?")),
    Kind(
        name="token",
        needles=("bearer", "authorization"),
        pattern=re.compile(
            r"\b(?:bearer\s+(?P<secret>(?=[^\s]*\d)[\w.~+/=-]{12,})|authorization\W{1,6}(?:basic|token)\s+[\w+/=-]{8,})",
            re.IGNORECASE,
        ),
    ),
    Kind(
        name="cookie",
        needles=("cookie",),
        pattern=re.compile(r"\bcookie[\"'\\]*\s*:\s*[\"'\\]*(?P<secret>[\w.-]+=[^\s\"'\\][^\n\"\\]*)", re.IGNORECASE),
    ),
    Kind(
        name="password in an address",
        needles=("://",),
        pattern=re.compile(r"://(?:[^\s/:@\"'\\]*:(?P<password>[^\s/@\"'\\]+)|(?P<token>(?=[\w.-]*\d)[\w.-]{16,}))@"),
    ),
    Kind(
        name="token in an address",
        needles=("key=", "sig=", "signature=", "auth=", "code="),
        pattern=re.compile(
            r"[?&](?:[\w-]{0,30}(?:key|sig|signature|auth)|code)=(?P<secret>(?=[^\s&]*\d)[^\s&#\"'\\<>]{12,})",
            re.IGNORECASE,
        ),
    ),
    Kind(
        name="token in an address",
        needles=("hooks",),
        pattern=re.compile(r"(?:hooks\.slack\.com/\w+|/api/webhooks/\d+)/(?P<secret>[\w/-]{16,})", re.IGNORECASE),
    ),
    Kind(
        name="password of a command",
        needles=(" -u ",),
        pattern=re.compile(r"\s-u\s+[\"'\\]*[\w.@-]+:(?P<secret>[^\s\"'\\]+)"),
    ),
    *_NAMED,
    Kind(
        name="payment card",
        may_be_in=lambda lowered: _CARD_LIKE.search(lowered) is not None,
        pattern=re.compile(
            r"(?<![\d.-])(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6011|65\d\d)([ -]?)\d{4}\1\d{4}\1\d{4}(?![\d-])"
            r"|(?<![\d.-])3[47]\d\d([ -]?)\d{6}\2\d{5}(?![\d-])"
        ),
        is_one=_is_card,
    ),
)  # fmt: skip
