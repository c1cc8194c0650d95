"""Personal data is found however it is written and whatever stands beside it; what only looks like it stays."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaku.chat.messages import Conversation, Message, Role, ToolCall
from chaku.data.rules import personal
from chaku.data.rules.numbers import luhn
from chaku.data.rules.privacy import judge_personal
from chaku.data.rules.table import PII_RULES, actions

SECRET = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"
KEY = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA" * 5 + "\n-----END RSA PRIVATE KEY-----"
EXAMPLES = [
    ("credit_card", "4111 1111 1111 1111"),
    ("credit_card", "5500-0055-5555-5559"),
    ("credit_card", "3782 822463 10005"),
    ("iban", "DE89 3704 0044 0532 0130 00"),
    ("iban", "GB82WEST12345698765432"),
    ("email", "jane.doe+list@mail.university.edu"),
    ("phone", "408-247-8880"),
    ("phone", "(415) 555-2671"),
    ("phone", "+49 30 901820"),
    ("ip_address", "8.8.8.8"),
    ("ip_address", "2001:4860:4860:0:0:0:0:8888"),
    ("ssn", "536-22-1234"),
    ("secret", "sk-proj-abcdefghijklmnopqrstuvwxyz123456"),
    ("secret", SECRET),
    ("secret", "AKIAIOSFODNN7EXAMPLE"),
    ("secret", KEY),
]
IBANS = [
    "AT611904300234573201", "DE89370400440532013000", "GB82WEST12345698765432", "FR1420041010050500013M02606",
    "NL91ABNA0417164300", "CH9300762011623852957", "NO9386011117947", "MT84MALT011000012345MTLCAST001S",
]  # fmt: skip


@pytest.mark.parametrize(("rule", "text"), EXAMPLES)
def test_personal_data_is_found_whole_by_its_form(rule, text):
    sentence = f"Here you are: {text}, thanks."
    (finding,) = personal.find(sentence)
    assert (finding.rule, sentence[finding.start : finding.end]) == (rule, text)
    assert personal.masked(sentence) == f"Here you are: [{rule.upper()}], thanks."


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112", "DE89 3704 0044 0532 0130 01", "someone@example.com", "127.0.0.1", "192.168.1.20",
        "version 3.14.15.92653", "the year 2023-04-11", "1234567890123", "000-12-3456", "10:30:45", "sk-learn",
        "0.123456789012", "call 911", "def f(a: int): return a[1:3]",
        "sk-toggleable__label-arrow", "sk-container-id-1", "sk-estimator-doc-link",
        "hf_hub_download_with_progress_bars",
        "npm_config_registry", "0.4111111111111111", "4111111111111111.5", "version 8.8.8.8",
        "550e8400-e29b-41d4-a716-446655440000", "-----BEGIN PRIVATE KEY----- is how such a file begins",
        "years 2019 2020 2021 2022 2023", "4006381333931", "1700000000000", "600000000000000006",
        "at 10 the girls went home, as the sun was low", "3.14159 26535 89793 23846 26433 83279 50288", "250 10 2500",
        "AT61 1904 3002", "pypi-some-very-long-package-name-that-nobody-would-ever-choose-for-a-thing",
        "d41d8cd98f00b204e9800998ecf8427e", "4111,1111,1111,1111", "12-34-5678", "ASIAPACIFICCONFERENCE",
    ],
)  # fmt: skip
def test_what_only_looks_like_personal_data_is_left_alone(text):
    assert personal.find(text) == []
    assert personal.find(f"It says {text} there.") == []


def with_luhn(digits: str) -> str:
    return next(digits + last for last in "0123456789" if luhn(digits + last))


def card_of(seed: int) -> tuple[str, list[int]]:
    chooser = random.Random(seed)
    prefix, size, groups = chooser.choice(
        [("4", 16, [4, 4, 4, 4]), ("55", 16, [4, 4, 4, 4]), ("2345", 16, [4, 4, 4, 4]), ("37", 15, [4, 6, 5]),
         ("6011", 16, [4, 4, 4, 4]), ("62", 19, [4, 4, 4, 4, 3]), ("3530", 16, [4, 4, 4, 4]), ("36", 14, [4, 6, 4])]
    )  # fmt: skip
    filler = "".join(chooser.choice("0123456789") for _ in range(size - len(prefix) - 1))
    return with_luhn(prefix + filler), groups


def grouped(text: str, sizes: list[int], gap: str) -> str:
    pieces, start = [], 0
    for size in sizes:
        pieces.append(text[start : start + size])
        start += size
    return gap.join(piece for piece in pieces if piece)


GAPS = st.sampled_from(["", " ", "  ", "-", " - ", ".", "/", "\u00a0", "\u2009", "\u2011", "\u2013", "_", "\u00b7"])
NEIGHBOURS = st.sampled_from(
    ["", " ", "\n", "\\n ", ",", ": ", "; ", "(", '"', "'", "|", "<b>", "= ", "号码", "。", " 12/25", " 123 ", "7 ",
     " BANK", " and 4 more ", "\t2025\t", "#", "*", "№ "]
)  # fmt: skip


@given(st.integers(0, 10**6), GAPS, NEIGHBOURS, NEIGHBOURS)
@settings(max_examples=400, deadline=None)
def test_any_card_with_any_separator_and_any_neighbours_is_found(seed, gap, before, after):
    number, sizes = card_of(seed)
    written = grouped(number, sizes, gap)
    after = after if not after[:1].isdigit() else f" {after}"
    before = before if not before[-1:].isdigit() else f"{before} "
    assert written not in personal.masked(f"{before}{written}{after}")


@given(st.sampled_from(IBANS), GAPS, NEIGHBOURS, NEIGHBOURS, st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_iban_with_any_separator_case_and_neighbours_is_found(iban, gap, before, after, is_lower):
    written = grouped(iban, [4] * 9, gap)
    written = written.lower() if is_lower else written
    before = f"{before} " if before[-1:].isalnum() else before
    after = f" {after}" if after[:1].isdigit() else after
    assert written not in personal.masked(f"{before}{written}{after}")


@given(st.sampled_from(EXAMPLES), NEIGHBOURS, NEIGHBOURS)
@settings(max_examples=300, deadline=None)
def test_every_kind_is_found_between_any_neighbours(example, before, after):
    rule, text = example
    if text[0].isdigit() or text[0] in "+(":
        before = before if not before[-1:].isdigit() else f"{before}: "
    before = f"{before} " if before[-1:].isalnum() else before
    after = f" ; {after}" if after[:1].isdigit() or after.strip()[:1].isdigit() else after
    assert text not in personal.masked(f"{before}{text}{after}"), rule


@pytest.mark.parametrize(
    "piece",
    [
        "-----BEGIN PRIVATE KEY-----\n", "4111 ", "AT61 ", "sk-", "sk-proj-", "eyJ", "eyJabcdefghijkl.", "a@", "1.2.3.",
        "1-2-", "a.b-c_d%", "+1 (2) ", "hf_", "xoxb-", "DE89 3704 0044 ", "0:", "A", "MIIEpAIBAAKCAQEA", "7",
    ],
)  # fmt: skip
def test_the_search_is_linear_in_the_text(piece):
    def seconds(num_chars: int) -> float:
        text = piece * (num_chars // len(piece))
        started = time.process_time()
        personal.masked(text)
        return time.process_time() - started

    assert seconds(60_000) < 5 * 0.15  # an idle machine needs at most 0.15 s


def test_secrets_are_masked_everywhere_in_a_conversation_and_never_quoted():
    call = ToolCall("1", "login", f'{{"token": "{SECRET}", "card": 4111111111111111}}')
    messages = (Message(Role.USER, f"use {SECRET}", name=SECRET), Message(Role.ASSISTANT, "ok", SECRET, (call,)))
    conversation = Conversation("x", messages, tools=({"default": SECRET},), source={"by": {"token": [SECRET]}})
    decision = judge_personal(conversation, actions({}))
    assert decision.kept is not None
    assert decision.kept.messages[0].content == "use [SECRET]"
    assert decision.kept.messages[1].tool_calls[0].arguments == '{"token":"[SECRET]","card":"[CREDIT_CARD]"}'
    assert {flag.rule for flag in decision.flags} == {"secret", "credit_card"}
    long = replace(call, arguments=f'{{"token": "{SECRET}", "n": {10**30}}}')
    decision = judge_personal(Conversation("y", (replace(messages[1], tool_calls=(long,)),)), actions({}))
    assert decision.kept is not None
    assert decision.kept.messages[0].tool_calls[0].arguments == f'{{"token": "[SECRET]", "n": {10**30}}}'
    assert SECRET[4:] not in str(decision)


def test_flagged_personal_data_stays_and_dropped_goes():
    conversation = Conversation(
        "x", (Message(Role.USER, "Write to jane@university.edu"), Message(Role.ASSISTANT, "ok"))
    )
    decision = judge_personal(conversation, actions({}))
    assert decision.kept == conversation and [flag.rule for flag in decision.flags] == ["email"]
    assert judge_personal(conversation, actions({"email": "drop"})).rule == "email"


def test_a_quotation_masks_before_it_cuts():
    text = "x" * 60 + " 4111 1111 1111 1111 and more"
    assert personal.quote(text, 70) == "x" * 60 + " [CREDIT_C"
    assert set(PII_RULES) == {rule for rule, _ in EXAMPLES}
