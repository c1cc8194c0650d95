"""Numbers that carry a check: payment cards and IBANs, however they are grouped and whatever stands beside them.

Sources: ISO/IEC 7812-1 (Luhn), ISO 13616 and SWIFT's IBAN registry (structure per country), the networks' own ranges.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

SPACE = "[ \t\u00a0\u2000-\u200b\u202f]"
GAP = rf"(?:{SPACE}{{1,2}}|{SPACE}?[-\u2010-\u2015\u2212._/\u00b7]{SPACE}?)"
"""What people write between the groups of a number. A line end and a comma separate numbers instead."""

# SWIFT's IBAN registry: what follows the country and the two check digits (n digits, a letters, c either).
_STRUCTURES = """
AD 8n12c, AE 19n, AL 8n16c, AT 16n, AZ 4a20c, BA 16n, BE 12n, BG 4a6n8c, BH 4a14c, BR 23n1a1c, BY 4c4n16c, CH 5n12c,
CR 18n, CY 8n16c, CZ 20n, DE 18n, DK 14n, DO 4c20n, EE 16n, EG 25n, ES 20n, FI 14n, FO 14n, FR 10n11c2n, GB 4a14n,
GE 2a16n, GI 4a15c, GL 14n, GR 7n16c, GT 4c20c, HR 17n, HU 24n, IE 4a14n, IL 19n, IQ 4a15n, IS 22n, IT 1a10n12c,
JO 4a4n18c, KW 4a22c, KZ 3n13c, LB 4n20c, LC 4a24c, LI 5n12c, LT 16n, LU 3n13c, LV 4a13c, LY 21n, MC 10n11c2n, MD 20c,
ME 18n, MK 3n10c2n, MR 23n, MT 4a5n18c, MU 4a19n3a, NL 4a10n, NO 11n, PK 4a16c, PL 24n, PS 4a21c, PT 21n, QA 4a21c,
RO 4a16c, RS 18n, SA 2n18c, SC 4a20n3a, SE 20n, SI 15n, SK 20n, SM 1a10n12c, ST 21n, SV 4a20n, TL 19n, TN 20n, TR 6n16c,
UA 6n19c, VA 18n, VG 4a16n, XK 16n"""
_CLASSES = {"n": "[0-9]", "a": "[A-Z]", "c": "[A-Z0-9]"}
_IBANS: dict[str, tuple[int, re.Pattern[str]]] = {}
for _country, _structure in (entry.split() for entry in _STRUCTURES.split(",")):
    _fields = re.findall(r"(\d+)([nac])", _structure)
    _IBANS[_country] = (
        sum(int(size) for size, _ in _fields),
        re.compile("".join(f"{_CLASSES[kind]}{{{size}}}" for size, kind in _fields)),
    )
_IBAN_START = re.compile(r"(?:(?<![A-Za-z0-9])|(?<=[Ii][Bb][Aa][Nn]))[A-Za-z]{2}[0-9]{2}")


def ibans(text: str) -> Iterator[tuple[int, int]]:
    """Where IBANs stand: of their country's structure, mod 97 right, undivided or in groups of four."""
    for start in _IBAN_START.finditer(text):
        known = _IBANS.get(start[0][:2].upper())
        if known is None:
            continue
        size, structure = known
        rest = _grouped(size).match(text, start.end())
        if rest is None:
            continue
        account = re.sub(r"[^A-Za-z0-9]", "", rest[0])
        letters = start[0][:2] + account
        if not (letters == letters.upper() or letters == letters.lower()):
            continue
        account, following = account.upper(), text[rest.end() : rest.end() + 1]
        if following.isascii() and following.isalnum() and not (account.isdigit() and following.isalpha()):
            continue
        if structure.fullmatch(account) and _mod_97(account + start[0].upper()) == 1:
            yield start.start(), rest.end()


@functools.cache
def _grouped(size: int) -> re.Pattern[str]:
    fours, last = divmod(size, 4)
    return re.compile(rf"(?:{GAP}?[A-Za-z0-9]{{4}}){{{fours}}}" + (rf"{GAP}?[A-Za-z0-9]{{{last}}}" if last else ""))


def _mod_97(text: str) -> int:
    return int("".join(str(int(letter, 36)) for letter in text)) % 97


# Visa, Mastercard, American Express, Discover, UnionPay, Maestro, JCB, Diners Club; lengths that are in use.
_CARD_NETWORKS: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...] = (
    (("4",), (16, 19)),
    (("51", "52", "53", "54", "55", *map(str, range(2221, 2721))), (16,)),
    (("34", "37"), (15,)),
    (("6011", "644", "645", "646", "647", "648", "649", "65", "62"), (16, 19)),
    (("5018", "5020", "5038", "5893", "6304", "6759", "6761", "6762", "6763"), (16, 18, 19)),
    (tuple(map(str, range(3528, 3590))), (16,)),
    (("300", "301", "302", "303", "304", "305", "36", "38", "39"), (14,)),
)
_CARD_GROUPS = (
    (16,), (15,), (14,), (18,), (19,), (4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 2), (4, 4, 4, 4, 3),
    (4, 4, 4, 4, 2), (6, 13), (8, 8), (4, 12), (6, 10), (4, 4, 4, 3),
)  # fmt: skip
_NUMBERS = re.compile(rf"[0-9]+(?:{GAP}[0-9]+)*")
_GROUP = re.compile(r"[0-9]+")
_LEAST_CARD = 14


def cards(text: str) -> Iterator[tuple[int, int]]:
    """Where card numbers stand: of a network's range and length, Luhn sum right, undivided or grouped as on cards."""
    for run in _NUMBERS.finditer(text):
        if run.end() - run.start() < _LEAST_CARD:
            continue
        groups = [group.span() for group in _GROUP.finditer(text, *run.span())]
        first = 0
        while first < len(groups):
            count = _card_at(text, groups, first)
            if count:
                yield groups[first][0], groups[first + count - 1][1]
            first += max(count, 1)


def _card_at(text: str, groups: list[tuple[int, int]], first: int) -> int:
    """How many groups from `first` on are a card number; 0: none."""
    sizes = tuple(end - start for start, end in groups[first : first + 5])
    for shape in _CARD_GROUPS:
        count = len(shape)
        if sizes[:count] != shape or (count == 1 and _is_decimal(text, *groups[first])):
            continue
        digits = "".join(text[start:end] for start, end in groups[first : first + count])
        if _has_network(digits) and luhn(digits):
            return count
    return 0


def _is_decimal(text: str, start: int, end: int) -> bool:
    """Whether digits are the part of a decimal number before or after its point."""
    return bool(re.search(r"[0-9]\.\Z", text[max(start - 2, 0) : start]) or re.match(r"\.[0-9]", text[end : end + 2]))


def _has_network(digits: str) -> bool:
    return any(digits.startswith(prefixes) and len(digits) in sizes for prefixes, sizes in _CARD_NETWORKS)


def luhn(digits: str) -> bool:
    """True when the Luhn sum of a digit string is a multiple of 10."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if index % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0
