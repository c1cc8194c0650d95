"""Personal data and secrets, found by their published forms and checksums; names and addresses are beyond rules.

`masked` is the one function that takes them out, of what is kept and of what is quoted. Sources: RFC 5322 in its common
subset, vendors' pages on the prefixes of their keys. Time is linear in the text.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from chaku.data.rules.numbers import GAP, cards, ibans
from chaku.data.rules.table import PII_RULES

_EXAMPLE_DOMAINS = re.compile(
    r"@(?:[\w-]+\.)*(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost|domain\.com)$", re.I
)
_QUOTED_CHARS = 10_000
"""How much of a text is looked through before its beginning is quoted: a private key is not longer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Personal data at text[start:end]."""

    rule: str
    start: int
    end: int


def find(text: str) -> list[Finding]:
    """All findings, in order, none overlapping another: what one form has taken, a later one leaves alone."""
    found: list[Finding] = []
    taken = bytearray()
    for form in _FORMS:
        if not form.hint(text):
            continue
        for start, end in form.spans(text):
            taken = taken or bytearray(len(text))
            if not any(taken[start:end]):
                taken[start:end] = b"\x01" * (end - start)
                found.append(Finding(form.rule, start, end))
    return sorted(found, key=lambda finding: finding.start)


def masked(text: str, rules: Collection[str] = PII_RULES) -> str:
    """The text with [EMAIL], [IBAN] and so on in the place of what these rules find."""
    findings = [finding for finding in find(text) if finding.rule in rules]
    return "".join(_masked_pieces(text, findings)) if findings else text


def quote(text: str, limit: int = 80) -> str:
    """The beginning of a text for a ledger or a message, personal data of every kind masked before it is cut."""
    return masked(text[:_QUOTED_CHARS])[:limit]


def _masked_pieces(text: str, findings: list[Finding]) -> Iterator[str]:
    position = 0
    for finding in findings:
        yield text[position : finding.start]
        yield f"[{finding.rule.upper()}]"
        position = finding.end
    yield text[position:]


@dataclass(frozen=True, slots=True)
class _Form:
    rule: str
    hint: Callable[[str], bool]
    """A cheap test of the whole text that spares the search."""
    spans: Callable[[str], Iterator[tuple[int, int]]]


def _any_of(*needles: str) -> Callable[[str], bool]:
    return lambda text: any(needle in text for needle in needles)


def _holds(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.search(text) is not None


def _matches(pattern: str, check: Callable[[re.Match[str]], bool] | None = None, flags: int = 0) -> Callable[
    [str], Iterator[tuple[int, int]]
]:  # fmt: skip
    compiled = re.compile(pattern, flags)

    def spans(text: str) -> Iterator[tuple[int, int]]:
        return (match.span() for match in compiled.finditer(text) if check is None or check(match))

    return spans


def _is_phone(match: re.Match[str]) -> bool:
    return 9 <= sum(map(str.isdigit, match[0])) <= 15


def _is_public_ip(match: re.Match[str]) -> bool:
    before = match.string[max(match.start() - 9, 0) : match.start()].lower()
    if before.endswith(("version ", "release ")):
        return False
    try:
        return ipaddress.ip_address(match[0]).is_global
    except ValueError:
        return False


def _is_ssn(match: re.Match[str]) -> bool:
    area, gap, group, serial = match.group(1, 2, 3, 4)
    if area in ("000", "666") or area >= "900" or group == "00" or serial == "0000":
        return False
    if gap.strip() in ("-", "\u2010", "\u2011", "\u2013"):
        return True
    before = match.string[max(match.start() - 40, 0) : match.start()].lower()
    return "ssn" in before or "social security" in before


_LONG_NUMBER = re.compile(rf"[0-9](?:{GAP}|[()]| \(|\) )?[0-9](?:(?:{GAP}|[()]| \(|\) )?[0-9]){{6}}")
_PARTED_NUMBER = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]|:[0-9a-fA-F]{0,4}:")
_COUNTRY_NUMBER = re.compile(r"[A-Za-z]{2}[0-9]{2}")
_has_long_number = functools.lru_cache(maxsize=1)(_holds(_LONG_NUMBER))

_BREAK = r"(?:\s|\\[nrt])"
_SECRETS = (
    r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    rf"{_BREAK}*+(?:[A-Z][A-Za-z-]{{1,20}}: [^\n\\]{{0,80}}{_BREAK}++){{0,4}}+"
    rf"(?:[A-Za-z0-9+/=]{{16,}}+{_BREAK}*+)++(?:[A-Za-z0-9+/=]{{1,15}}+{_BREAK}*+)?+"
    r"(?:-----END (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----)?+"
    r"|(?<![A-Za-z0-9])(?:"
    r"sk-(?=[A-Za-z0-9]{0,200}[0-9])[A-Za-z0-9]{20,}+"
    r"|sk-(?:proj|svcacct|admin|None|ant-[a-z0-9]{1,20}|or-v1|lf)-(?=[A-Za-z0-9_-]{0,200}[0-9])[A-Za-z0-9_-]{20,}+"
    r"|gh[pousr]_[A-Za-z0-9]{36,}+|github_pat_[A-Za-z0-9_]{50,}+"
    r"|glpat-(?=[A-Za-z0-9_-]{0,64}[0-9])[A-Za-z0-9_-]{20,}+"
    r"|(?:AKIA|ASIA)(?=[0-9A-Z]{0,15}[0-9])[0-9A-Z]{16}(?![0-9A-Za-z])|AIza[0-9A-Za-z_-]{35}"
    r"|hf_(?=[a-z]{0,34}[A-Z])[A-Za-z]{34}(?![A-Za-z0-9_])|pypi-AgE[A-Za-z0-9_-]{50,}+"
    r"|xox[abprs]-(?=[A-Za-z-]{0,200}[0-9])[0-9A-Za-z-]{10,}+|[sr]k_live_[0-9A-Za-z]{16,}+"
    r"|npm_(?=[A-Za-z]{0,36}[0-9])[A-Za-z0-9]{36}(?![A-Za-z0-9])|gsk_(?=[A-Za-z]{0,52}[0-9])[A-Za-z0-9]{40,}+"
    r"|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"
    r"|eyJ[A-Za-z0-9_-]{10,}+\.eyJ[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{10,}+"
    r")"
)
_SECRET_STEMS = (
    "sk-", "gh", "glpat-", "AKIA", "ASIA", "AIza", "hf_", "pypi-", "xox", "k_live_", "npm_", "gsk_", "SG.", "eyJ",
    "PRIVATE",
)  # fmt: skip

_FORMS = (
    _Form("secret", _any_of(*_SECRET_STEMS), _matches(_SECRETS)),
    _Form(
        "email",
        _any_of("@"),
        _matches(
            r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}(?![A-Za-z0-9-])",
            lambda match: not _EXAMPLE_DOMAINS.search(match[0]),
        ),
    ),
    _Form("iban", _holds(_COUNTRY_NUMBER), ibans),
    _Form("credit_card", _has_long_number, cards),
    _Form(
        "ssn",
        _has_long_number,
        _matches(r"(?<![0-9-])([0-9]{3})([-\u2010\u2011\u2013 .])([0-9]{2})\2([0-9]{4})(?![0-9]|-[0-9])", _is_ssn),
    ),
    _Form(
        "ip_address",
        _holds(_PARTED_NUMBER),
        _matches(
            r"(?<![A-Za-z0-9_.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![A-Za-z0-9_]|\.[0-9])"
            r"|(?<![A-Za-z0-9_.:])(?:[0-9a-fA-F]{1,4}:){3,7}(?::?[0-9a-fA-F]{1,4}){1,5}(?![A-Za-z0-9_]|:[0-9a-fA-F])",
            _is_public_ip,
        ),
    ),
    _Form(
        "phone",
        _has_long_number,
        _matches(
            r"(?<![A-Za-z0-9_.+/=-])(?:\+[0-9]{1,3}[ .-]?(?:\(0?[0-9]{1,4}\)[ .-]?)?[0-9]{1,4}(?:[ .-]?[0-9]{2,4}){1,4}"
            r"|\([0-9]{3}\) ?[0-9]{3}[ .-][0-9]{4}|[0-9]{3}[.-][0-9]{3}[.-][0-9]{4})(?![A-Za-z0-9_-]|\.[0-9])",
            _is_phone,
        ),
    ),
)  # fmt: skip
