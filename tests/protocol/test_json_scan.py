"""The scan before parsing: its counts are those of the parsed value, wherever a slice ends."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaku.errors import InvalidRequest, PayloadTooLarge
from chaku.protocol import json_scan
from chaku.protocol.json_scan import MAX_DEPTH, JsonLimits, check_small, loads, scan

NO_LIMITS = JsonLimits(*[2**40] * 6)
TEXTS = st.text(st.sampled_from('ab"\\/,:[]{}é🦙\n'), max_size=12) | st.sampled_from(["data:a,b", "data:é", "dat"])
VALUES = st.recursive(
    st.none() | st.integers(-99, 99) | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)


def measure(content: bytes, limits: JsonLimits = NO_LIMITS) -> None:
    for _ in scan(content, limits):
        pass


def counted(value: Any) -> tuple[int, int, int]:
    """Containers, depth, and bytes of text that is in no data: URL, of a parsed value."""
    if isinstance(value, str):
        inside = orjson.dumps(value)[1:-1]
        is_free = value.startswith("data:") and inside.isascii() and b"\\u" not in inside
        return 0, 0, 0 if is_free else len(inside)
    if not isinstance(value, dict | list):
        return 0, 0, 0
    items = [*value, *value.values()] if isinstance(value, dict) else value
    inner = [counted(item) for item in items]
    return (
        1 + sum(count for count, _, _ in inner),
        1 + max((depth for _, depth, _ in inner), default=0),
        sum(size for _, _, size in inner),
    )


@given(VALUES, st.integers(6, 20))
def test_counts_are_those_of_the_value_however_it_is_sliced(value: Any, slice_bytes: int) -> None:
    content = orjson.dumps(value)
    num_containers, depth, text_bytes = counted(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_scan, "SLICE_BYTES", slice_bytes)
        exact = dataclasses.replace(NO_LIMITS, num_containers=num_containers, text_bytes=text_bytes)
        measure(content, exact)
        for field, count in (("num_containers", num_containers), ("text_bytes", text_bytes)):
            if count:
                with pytest.raises(PayloadTooLarge):
                    measure(content, dataclasses.replace(exact, **{field: count - 1}))
        patch.setattr(json_scan, "MAX_DEPTH", depth)
        measure(content)
        if depth:
            patch.setattr(json_scan, "MAX_DEPTH", depth - 1)
            with pytest.raises(InvalidRequest):
                measure(content)


def test_brackets_in_texts_are_no_structure() -> None:
    content = orjson.dumps({"a": '[[["\\' * 1000, "b": "{" * 1000})
    check_small(content)
    measure(content, JsonLimits(2**20, 2**20, 20, 5, 1, 4))


def test_depth_is_counted_before_anything_is_parsed() -> None:
    check_small(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    check_small(b"[" + b"[]," * 1000 + b"1]")
    with pytest.raises(InvalidRequest, match=f"more than {MAX_DEPTH} deep"):
        check_small(b"[" * (MAX_DEPTH + 1))


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        (b"[" + b"[]," * 2000 + b"1]", "arrays and objects"),
        (b"[" + b"1," * 20_000 + b"1]", "values"),
        (b'["' + b"x" * 200_000 + b'"]', "of text"),
        (b"[" + b" " * 200_000 + b"1]", "outside of its texts"),
        (b'"' * 200_000, "texts"),
    ],
)
def test_a_refusal_names_the_limit(content: bytes, limit: str) -> None:
    with pytest.raises(PayloadTooLarge, match=limit):
        measure(content, JsonLimits(2**20, 2**17, 2**17, 10_000, 1000, 5000))


INTEGERS = st.integers(-(2**70), 2**70) | st.integers(2**63 - 2, 2**64 + 2) | st.integers(-(2**63) - 2, -(2**63) + 2)
NUMBERS = INTEGERS | st.sampled_from([10**400, 1e300, 0.1234567890123456789, 1.5e-20])


@given(st.lists(st.tuples(st.text(st.sampled_from('1234567890"\\,'), max_size=30), NUMBERS)), st.integers(6, 40))
def test_an_integer_that_64_bits_hold_is_exact_and_another_is_refused(rows: list[Any], slice_bytes: int) -> None:
    content = json.dumps(rows).encode()
    fits = all(isinstance(number, float) or -(2**63) <= number < 2**64 for _, number in rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_scan, "SLICE_BYTES", slice_bytes)
        for check in (measure, check_small, loads):
            try:
                check(content)
                assert fits, check
            except (InvalidRequest, orjson.JSONDecodeError):
                assert not fits, check
    if fits:
        assert loads(content) == loads(content.decode()) == [list(row) for row in rows]


@pytest.mark.parametrize("number", [b"12345678901234567890123.5", b"123456789012345678901234e-9", b"0." + b"1" * 99])
def test_a_float_may_have_many_digits(number: bytes) -> None:
    check_small(number)
    assert loads(number) == float(number)


@pytest.mark.parametrize("digit", [b"1", b"e", b"-"])
def test_a_number_without_an_end_is_refused_before_it_is_read_again_and_again(digit: bytes) -> None:
    slices = scan(digit * (8 << 20), NO_LIMITS)
    with pytest.raises(InvalidRequest, match="number"):
        next(slices), next(slices), next(slices), next(slices)
