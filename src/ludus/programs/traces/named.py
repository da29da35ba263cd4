"""Secrets that stand behind a name: `password: ...`, `"api_key": "..."`, "my pin is ...", "my password is ..."."""

from __future__ import annotations

import re
from functools import lru_cache

from ludus.programs.traces.kind import Kind

_RARE = ("passw", "passp", "passc", "de passe", "pwd", "secret", "credential", "contrase", "senha", "wachtwoord", "parola",
         "пароль", "密码", "パスワード", "비밀번호", "hasło", "lösenord")  # fmt: skip
"""Of these, one stands in every text that has one of the names."""
_OF = {
    "key": ("api", "access", "private", "secret", "encryption", "account", "client"),
    "token": ("auth", "access", "refresh", "session", "bearer", "api", "id"),
}
_WORD = (
    r"(?:pass(?:wor[dt]|wd|phrase|code)|mot de passe|contrase(?:ñ|n)a|senha|wachtwoord|parola|hasło|lösenord|pwd"
    r"|пароль|密码|パスワード|비밀번호)"
)
"""A password, in some languages."""
_NAME = (
    rf"(?:{_WORD}|secret|credentials?"
    rf"|(?:{'|'.join(_OF['key'])})[_ -]?key|(?:{'|'.join(_OF['token'])})[_ -]?token)"
)
_IS = r"""[\"'\\]*\s*(?::|：|=>?|>|,\s*["'\\]*value["'\\]*\s*:)\s*"""
_OPENS = r"""[\"'\\]*\s*(?::|=>?)\s*[\"'\\]*"""
_PLAIN = r"""[^\s"'\\,;(){}\[\]<>]"""
_VALUE = (
    r"""(?:(?P<slashes>\\*)"(?P<quoted>.{1,2000}?)(?<!\\)(?P=slashes)"|'(?P<single>[^'\n]+)'"""
    rf"""|(?![A-Za-z_][\w.]*[\[(])(?P<bare>{_PLAIN}+(?:\({_PLAIN}*\){_PLAIN}*)*))"""
)
"""JSON in a string of JSON has a backslash before its quotes, and more the deeper it is. `get_password(` is a program."""
_MIXED = r"(?=[\w.~+/-]*\d)(?=[\w.~+/-]*[A-Za-z])[\w.~+/=-]"
"""Letters and digits, one of each at least."""
_VERB = r"(?:'s|\s+(?:is|was|ist|lautet|est|es|è|é|это|—|–|-)|是|为|は)"

_TOKEN_OPENS = rf"token(?:{_OPENS}|\s+(?:is\s+)?)"
_TOKEN = re.compile(rf"{_TOKEN_OPENS}[\w.~+/-]{{16}}")
_SAID = tuple(f"{name} {verb}" for name in ("key", "pin", "token", "pw") for verb in ("is", "was"))


@lru_cache(maxsize=1)  # several kinds ask about the same text
def _has_a_rare_name(lowered: str) -> bool:
    return any(word in lowered for word in _RARE)


def _has_a_name(lowered: str) -> bool:
    """Whether a text may have one of the names: keys and tokens are too many, so what stands before them is looked at."""
    if _has_a_rare_name(lowered):
        return True
    for word, owners in _OF.items():
        at = lowered.find(word)
        while at >= 0:
            if lowered[max(0, at - 12) : at].rstrip("_ -").endswith(owners):
                return True
            at = lowered.find(word, at + 1)
    return False


_PROGRAM = re.compile(
    r"(?:self|cls|this|ctx|config|settings|os|process|env|options|args|client|req|request)\.[A-Za-z_.]+"
    r"|[A-Za-z_]*_(?:key|secret|token|password|credentials)|raise|yield|return|bool|bytes"
)
"""What stands behind such a name in a program: another name of one, a type, the next line."""


def _is_value(text: str) -> bool:
    """Whether what stands after "password:" is one: not a word of programs, nor one that is blotted out already."""
    plain = text.strip().casefold()
    placeholder = plain in ("none", "null", "true", "false", "undefined", "string", "required", "redacted", "hidden")
    if len(plain) < 4 or placeholder or len(set(plain)) == 1 or plain.startswith(("[", "<", "${", "{{")):
        return False
    return _PROGRAM.fullmatch(text.strip()) is None


_SAID_OF_PASSWORDS = re.compile(
    r"(?:.*(?:ed|en|ing|ly|able|ible|ant|ent|ive|ful|less|ous|ary|ory|al|ic|ure|ect|id)"
    r"|wrong|right|weak|strong|safe|unsafe|empty|blank|gone|yours|there|here|below|above|private|unknown|unique|same|"
    r"again|still|never|always|short|simple|complex|reset|shown|known|stale|ready|nothing|something|everything|easy|"
    r"inside|asterisks|password|secret|fine|okay|good|later|twice|myself|yourself|online|offline|what|which|where)",
    re.IGNORECASE,
)
"""What follows "the password is" where that is no password: by its ending, or these."""


def _is_no_remark(text: str) -> bool:
    return _SAID_OF_PASSWORDS.fullmatch(text) is None


def _is_no_algorithm(text: str) -> bool:
    """Whether what stands after "password", without a colon, is one."""
    return not text.casefold().startswith(("sha", "md5", "pbkdf", "argon", "bcrypt", "base64", "utf", "oauth", "ipv"))


NAMED = (
    Kind(
        name="named secret",
        may_be_in=_has_a_name,
        pattern=re.compile(rf"{_NAME}(?:[_-]\w{{1,20}}|\d+|s)?(?<=\w){_IS}{_VALUE}", re.IGNORECASE),
        is_one=_is_value,
    ),
    Kind(
        name="named secret",
        may_be_in=lambda lowered: _has_a_rare_name(lowered) or any(said in lowered for said in _SAID),
        pattern=re.compile(
            rf"(?:{_NAME}|\b(?:key|pin|token|pw)){_VERB}:?\s*[\"'\\]*"
            r"(?P<secret>(?=[^\s\"'\\]*[\d!@#$%^&*])[^\s\"'\\,;]{4,})",
            re.IGNORECASE,
        ),
        is_one=_is_value,
    ),
    Kind(
        name="named secret",
        needles=("passw", "passp", "passc", "pwd"),
        pattern=re.compile(
            rf"\b{_WORD}{_VERB}:?\s+(?:[\"'\\]+(?P<quoted>[^\s\"'\\]{{4,}})[\"'\\]"
            r"|(?P<word>[A-Za-z]{5,40})(?=\s*(?:[.,;!?)\n]|$|(?:and|but|please)\b)))",
            re.IGNORECASE,
        ),
        is_one=_is_no_remark,
    ),
    Kind(
        name="named secret",
        needles=("passw", "passp", "passc", "pwd"),
        pattern=re.compile(
            rf"\b{_WORD}\s+(?P<secret>(?=[^\s\"'\\]*\d)(?=[^\s\"'\\]*[A-Za-z])[^\s\"'\\,;:()]{{6,}})", re.IGNORECASE
        ),
        is_one=_is_no_algorithm,
    ),
    Kind(
        name="named secret",
        needles=("pw", "pass", "login", "cred"),
        pattern=re.compile(
            r"\b(?:(?:pw|pass)[\"'\\]*\s*[:=]\s*[\"'\\]*|(?:login|creds|credentials)\s*[:=]\s*[^\s/|:]+\s*[/|:]\s*)"
            r"(?P<secret>(?=[^\s\"'\\]*\d)(?=[^\s\"'\\]*[A-Za-z])[^\s\"'\\,;]{5,})",
            re.IGNORECASE,
        ),
    ),
    Kind(
        name="named secret",
        needles=("_key", "-key"),
        pattern=re.compile(rf"[_-]key{_OPENS}(?P<secret>{_MIXED}{{20,}})", re.IGNORECASE),
    ),
    Kind(
        name="recovery phrase",
        needles=(" phrase", "mnemonic"),
        pattern=re.compile(
            r"\b(?:(?:seed|recovery|secret|backup) phrase|mnemonic)\W{1,5}(?:is\W{1,3})?"
            r"(?P<secret>[a-z]{3,8}(?:[\s,]+[a-z]{3,8}){11,23})\b",
            re.IGNORECASE,
        ),
    ),
    Kind(
        name="token",
        needles=("token",),
        run=16,
        pattern=re.compile(rf"{_TOKEN_OPENS}(?P<secret>{_MIXED}{{16,}})", re.IGNORECASE),
        may_be_in=lambda lowered: _TOKEN.search(lowered) is not None,
    ),
)
