"""Secrets that are numbers: told from other numbers by a checksum, or by the words beside them."""

from __future__ import annotations

import re
from collections import defaultdict

from ludus.programs.traces.kind import Kind

_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 FO18 "
    "FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 "
    "LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 "
    "ST25 SV28 TN24 TR26 UA29 VA22 VG24 XK20"
)
"""Characters of a bank account's number (IBAN), by country: the registry of ISO 13616."""


def _iban_pattern() -> str:
    countries = defaultdict(list)
    for word in _LENGTHS.split():
        countries[int(word[2:])].append(word[:2])
    ways = (rf"(?:{'|'.join(names)})\d\d(?:[ -]?[A-Z0-9]){{{length - 4}}}" for length, names in countries.items())
    return rf"(?<![A-Za-z0-9])(?:{'|'.join(ways)})(?![A-Za-z0-9])"


def _is_iban(text: str) -> bool:
    """The check of ISO 7064, which one number in 97 passes by chance."""
    plain = re.sub("[ -]", "", text)
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    """Luhn's check, which one number in ten passes by chance."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [digit if place % 2 == 0 else digit * 2 - 9 * (digit > 4) for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


_FOR = (
    r"(?:one[ _-]?time|otp|2fa|mfa|two[- ]factor|totp|verification|security|authentication|authorization|auth|log[- ]?in"
    r"|sign[- ]?in|access|sms|reset|recovery|backup|unlock)"
)
_CODE = rf"(?:{_FOR}[ _-]?(?:pass)?(?:code|pin|password|token)|otp|passcode)"
_DIGITS = r"(?:\d{3}[ -]\d{3}|\d{4,8})(?![\w-]|\.\d)"
_NO_LOGIN = r"(?:order|promo|discount|booking|product|error|tracking|zip|postal|area|country|reference|status|sort|gift"
_NO_LOGIN += r"|coupon|invite|referral|dialling|dialing|source|item|model|tax)"
_SEP = r"[\"'\\]*\s*(?:\b(?:is|was)\b|[:=-]|,\s*[\"'\\]*value[\"'\\]*\s*:)?:?\s*[\"'\\]*"
_CODES = (
    rf"(?<![A-Za-z]){_CODE}{_SEP}(?:[A-Z]-)?(?P<named>{_DIGITS})",
    r"\b(?:(?:your|my) code|code (?:that )?(?:i|you|we|they) (?:just )?(?:got|received|sent)(?: (?:me|you|us))?)"
    rf" (?:is|was):?\s+[\"'\\]*(?P<own>{_DIGITS})",
    r"\bthe code (?:is|was):?\s+(?P<the>\d{6}(?!\w|\.\d))",
    rf"(?<![\w.-])(?:[A-Z]-)?(?P<before>\d{{3}}[ -]\d{{3}}|\d{{4,8}}) (?:is|as) (?:your|my|the)"
    rf"(?!(?: [\w'-]+){{0,4}} {_NO_LOGIN})(?: [\w'-]+){{0,4}} (?:code|otp|passcode|pin)\b",
    rf"\b(?:use|enter|type|using) (?:(?:the|this|my|your) )?code (?P<used>{_DIGITS}) (?:to|when you) "
    r"(?:log|sign|verify|confirm|reset|authenticate|continue|complete|finish|access|unlock)",
)

NUMBERS = (
    Kind(
        name="payment card",
        digits=14,
        pattern=re.compile(
            r"(?<![\d.-])(?:(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6011|64[4-9]\d|65\d\d|35[2-8]\d)([ -]?)\d{4}\1\d{4}\1\d{4}"
            r"|3[47]\d\d([ -]?)\d{6}\2\d{5}|3(?:0[0-5]|[689]\d)\d([ -]?)\d{6}\3\d{4})(?![\d-])"
        ),
        is_one=_is_card,
    ),
    Kind(
        name="card code",
        needles=("cvv", "cvc", "security code", "card verification"),
        digits=3,
        pattern=re.compile(
            r"(?<![a-z])(?:cvv2?|cvc2?|security code|card verification (?:code|value|number))"
            r"(?: (?:code|number))?\W{0,5}(?:is\W{1,3})?(?P<secret>\d{3,4})(?![\w-]|\.\d)",
            re.IGNORECASE,
        ),
    ),
    Kind(name="bank account", digits=8, pattern=re.compile(_iban_pattern(), re.IGNORECASE), is_one=_is_iban),
    Kind(
        name="social security number",
        digits=9,
        pattern=re.compile(
            r"(?<![\w.-])(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])"
            r"|\b(?:ssn|social security(?: number| no\.?)?)[^\d\n]{1,20}(?P<plain>\d{3}[ .]?\d\d[ .]?\d{4})(?![\w-])",
            re.IGNORECASE,
        ),
    ),
    Kind(
        name="one-time code",
        needles=("code", "otp", "2fa", "mfa", "one-time", "one time"),
        digits=4,
        pattern=re.compile("|".join(_CODES), re.IGNORECASE),
    ),
    Kind(
        name="PIN",
        needles=("pin",),
        digits=4,
        pattern=re.compile(
            r"(?<![a-z])pin(?:[ _-]?(?:code|number)[\"'\\]*\s*(?:is|was|[:=])?\s*[\"'\\]*(?P<code>\d{4})"
            r"|[\"'\\]*\s*[:=]\s*[\"'\\]*(?P<secret>\d{4,8}))(?![\w-]|\.\d)",
            re.IGNORECASE,
        ),
    ),
)
