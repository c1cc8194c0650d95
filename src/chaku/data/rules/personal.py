"""Personal data and secrets, found by their published forms and checksums; names and addresses are beyond rules.

Sources: ISO/IEC 7812-1 (Luhn), ISO 13616 (IBAN), RFC 5322 in its common subset, vendors' pages on key prefixes.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "CH": 21,
    "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18,
    "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23,
    "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21,
    "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28,
    "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24,
    "TR": 26, "UA": 29, "VG": 24, "XK": 20,
}  # fmt: skip
# Visa, Mastercard, American Express, Discover/UnionPay/Maestro, JCB, Diners Club
_CARD_NETWORKS: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...] = (
    (("4",), (13, 16, 19)),
    (("51", "52", "53", "54", "55", *map(str, range(222, 273))), (16,)),
    (("34", "37"), (15,)),
    (("6",), (16, 17, 18, 19)),
    (("35",), (16, 17, 18, 19)),
    (("30", "36", "38", "39"), (14,)),
)
_EXAMPLE_DOMAINS = re.compile(
    r"@(?:[\w-]+\.)*(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost|domain\.com)$", re.I
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Personal data at text[start:end]."""

    rule: str
    start: int
    end: int


def luhn(digits: str) -> bool:
    """True when the Luhn sum of a digit string is a multiple of 10."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if index % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_iban(text: str) -> bool:
    """True for an IBAN of its country's length whose mod-97 check is right; spaces are ignored."""
    plain = re.sub(r"\s", "", text).upper()
    if len(plain) != _IBAN_LENGTHS.get(plain[:2]):
        return False
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    is_network = any(digits.startswith(prefixes) and len(digits) in sizes for prefixes, sizes in _CARD_NETWORKS)
    return is_network and luhn(digits)


def _is_phone(text: str) -> bool:
    return 9 <= len(re.sub(r"\D", "", text)) <= 15


def _is_public_ip(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _is_ssn(text: str) -> bool:
    area, group, serial = text.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _always(text: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class _Form:
    rule: str
    hint: Callable[[str], bool]
    """A cheap test of the whole text that spares the pattern."""
    pattern: re.Pattern[str]
    check: Callable[[str], bool]


def _any_of(*needles: str) -> Callable[[str], bool]:
    return lambda text: any(needle in text for needle in needles)


_LONG_NUMBER = re.compile(r"\d[ ().-]{0,3}\d(?:[ ().-]{0,3}\d){6}")
_PARTED_NUMBER = re.compile(r"\d\.\d{1,3}\.\d|:[0-9a-fA-F]{0,4}:")
_COUNTRY_NUMBER = re.compile(r"[A-Z]{2}\d\d")


def _holds(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.search(text) is not None


_has_long_number = functools.lru_cache(maxsize=1)(_holds(_LONG_NUMBER))


_SECRETS = (
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\s\S]{40,8000}?-----END (?:[A-Z]+ )*PRIVATE KEY-----"
    r"|\bsk-(?:proj-|ant-[a-z0-9]+-|or-v1-)?[A-Za-z0-9_-]{20,200}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{36,255}\b|\bgithub_pat_[A-Za-z0-9_]{50,255}\b|\bglpat-[A-Za-z0-9_-]{20,64}\b"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{35}\b|\bhf_[A-Za-z]{34}\b|\bpypi-[A-Za-z0-9_-]{50,400}\b"
    r"|\bxox[abprs]-[0-9A-Za-z-]{10,200}\b|\b[sr]k_live_[0-9A-Za-z]{16,128}\b|\bnpm_[A-Za-z0-9]{36}\b"
    r"|\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,2000}\b"
)

_SECRET_STEMS = (
    "sk-", "gh", "glpat-", "AKIA", "ASIA", "AIza", "hf_", "pypi-", "xox", "k_live_", "npm_", "eyJ", "PRIVATE",
)  # fmt: skip

# In this order; what one form has taken, a later one leaves alone.
_FORMS = (
    _Form(
        "secret",
        _any_of(*_SECRET_STEMS),
        re.compile(_SECRETS),
        _always,
    ),
    _Form(
        "email",
        _any_of("@"),
        re.compile(r"(?<![\w.+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}\b"),
        lambda text: not _EXAMPLE_DOMAINS.search(text),
    ),
    _Form(
        "iban",
        _holds(_COUNTRY_NUMBER),
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"),
        is_iban,
    ),
    _Form("credit_card", _has_long_number, re.compile(r"(?<![\d.-])[2-6]\d(?:[ -]?\d){11,17}(?![\d-]|\.\d)"), _is_card),
    _Form("ssn", _has_long_number, re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"), _is_ssn),
    _Form(
        "ip_address",
        _holds(_PARTED_NUMBER),
        re.compile(
            r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-fA-F]{1,4}:){3,7}(?::?[0-9a-fA-F]{1,4}){1,5})"
            r"(?![\w:]|\.\d)"
        ),
        _is_public_ip,
    ),
    _Form(
        "phone",
        _has_long_number,
        re.compile(
            r"(?<![\w.+/=-])(?:\+\d{1,3}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){1,4}"
            r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?![\w-]|\.\d)"
        ),
        _is_phone,
    ),
)  # fmt: skip


def find(text: str) -> list[Finding]:
    """All findings, in order, none overlapping another."""
    taken: list[Finding] = []
    for form in _FORMS:
        if not form.hint(text):
            continue
        for match in form.pattern.finditer(text):
            start, end = match.span()
            if form.check(match[0]) and not any(start < other.end and other.start < end for other in taken):
                taken.append(Finding(form.rule, start, end))
    return sorted(taken, key=lambda finding: finding.start)


def redact(text: str, findings: list[Finding]) -> str:
    """Put [EMAIL], [IBAN] and so on in the place of the findings."""
    return "".join(_redacted_pieces(text, findings))


def _redacted_pieces(text: str, findings: list[Finding]) -> Iterator[str]:
    position = 0
    for finding in findings:
        yield text[position : finding.start]
        yield f"[{finding.rule.upper()}]"
        position = finding.end
    yield text[position:]
