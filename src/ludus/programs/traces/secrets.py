"""Kinds of secrets: those that are told by their form here, those behind a name and numbers in files of their own.

Left out: names, addresses and other personal data; and secrets that look like nothing in particular and stand behind no
name. For those there are patterns of one's own.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode

from ludus.programs.traces.kind import Kind
from ludus.programs.traces.named import NAMED
from ludus.programs.traces.numbers import NUMBERS

_FORMS = (
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
        run=16,
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
            "gocspx-", "dapi", "hvs.", "age-secret", "sq0csp-", "shpss_", "shpca_", "pmak-", "atatt3", "figd_", "nrak-",
            "eaac", "npg_",
        ),
        run=15,
        pattern=re.compile(
            r"\b(?:A(?:KIA|SIA)[A-Z0-9]{16}|AIza[\w-]{35}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{40,}|glpat-[\w-]{20,}"
            r"|x(?:ox[abeoprs]|app)-[\w-]{10,}|GOCSPX-[\w-]{16,}|dapi[0-9a-f]{32}|hvs\.[\w-]{20,}|AGE-SECRET-KEY-1\w{20,}"
            r"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{30,}|SG\.[\w-]{16,}\.[\w-]{16,}"
            r"|ya29\.[\w-]{20,}|dop_v1_[a-f0-9]{60,}|shpat_[a-fA-F0-9]{32}|pypi-[\w-]{50,}|dckr_pat_[\w-]{20,}"
            r"|glsa_\w{30,}|sq0csp-[\w-]{20,}|shp(?:ss|ca)_[a-fA-F0-9]{32}|PMAK-[\w-]{30,}|ATATT3[\w=-]{30,}|figd_[\w-]{20,}"
            r"|NRAK-[A-Z0-9]{20,}|EAAC[A-Za-z0-9]{20,}|npg_[A-Za-z0-9]{12,})|(?<!\d)\d{8,10}:AA[\w-]{30,}"
        ),
    ),
    Kind(name="token", needles=("eyj",), run=20, pattern=re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?")),
    Kind(
        name="token",
        needles=("bearer", "authorization"),
        pattern=re.compile(
            r"\b(?:bearer\s+(?P<secret>(?=[^\s]*\d)[\w.~+/=-]{12,})|authorization\W{1,6}(?:basic|token)\s+(?P<scheme>[\w+/=-]{8,})"
            r"|authorization[\"'\\]*\s*[:=]\s*[\"'\\]*(?P<bare>(?=[^\s\"'\\]*\d)[\w.~+/=-]{16,}))",
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
        needles=(" -u ", "--pass", "mysql", "mariadb", "sshpass"),
        pattern=re.compile(
            r"\s-u\s+[\"'\\]*[\w.@-]+:(?P<user>[^\s\"'\\]+)|\s--pass(?:word|wd)?\s+[\"'\\]*(?P<long>[^\s\"'\\<$-]{4,})"
            r"|\b(?:mysql\w*|mariadb)\s[^\n|;]{0,200}?\s-p(?P<short>[^\s\"'\\]{4,})|\bsshpass\s+-p\s*[\"'\\]*(?P<ssh>[^\s\"'\\]+)"
        ),
    ),
)  # fmt: skip


_ENCODED = ("c2st", "c2tf", "Z2hwX", "Z2l0aHVi", "QUtJQ", "eG94", "aGZf", "QUl6Y", "LS0tLS1CRUdJTi")
"""How `sk-`, `sk_`, `ghp_`, `github_pat_`, `AKIA`, `xox`, `hf_`, `AIza` and the beginnings of key blocks look in base64."""


def _is_a_key(text: str) -> bool:
    """Whether base64 text is a key that would be taken out as it is."""
    try:
        plain = b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return False
    return any(True for kind in _FORMS for _ in kind.spans(plain))


KINDS = (
    *_FORMS,
    Kind(
        name="API key",
        needles=tuple(text.lower() for text in _ENCODED),
        run=16,
        pattern=re.compile(rf"(?<![A-Za-z0-9+/])(?:{'|'.join(_ENCODED)})[A-Za-z0-9+/]{{12,}}={{0,2}}"),
        is_one=_is_a_key,
    ),
    *NAMED,
    *NUMBERS,
)
