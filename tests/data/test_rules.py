"""Each rule fires where it should and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chaku.chat.messages import Conversation, Message, Role, ToolCall
from chaku.data.inputs.normalise import normalise
from chaku.data.prepare import clean
from chaku.data.rules import personal
from chaku.data.rules.content import judge_content
from chaku.data.rules.decontaminate import Questions, judge_contamination
from chaku.data.rules.language import identify, judge_language
from chaku.data.rules.quality import judge_quality
from chaku.data.rules.table import RULES, actions

PLAIN = "The harbour was quiet, and the boats lay still in the morning light."


def talk(*turns: str, first: Role = Role.USER) -> Conversation:
    roles = [Role.USER, Role.ASSISTANT] if first is Role.USER else [Role.ASSISTANT, Role.USER]
    return Conversation("x", tuple(Message(roles[index % 2], text) for index, text in enumerate(turns)))


def roles_and_texts(conversation: Conversation | None) -> list[tuple[str, str]]:
    assert conversation is not None
    return [(str(message.role), message.content) for message in conversation.messages]


def test_normalise_takes_away_what_no_answer_belongs_to():
    decision = normalise(talk("Welcome!", "Q", "A", "more?", first=Role.ASSISTANT))
    assert roles_and_texts(decision.kept) == [("user", "Q"), ("assistant", "A")]
    assert {flag.rule for flag in decision.flags} == {"leading_assistant", "trailing_user"}


def test_normalise_joins_turns_of_one_speaker_and_lifts_system_prompts():
    messages = (
        Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "a"), Message(Role.USER, "b"),
        Message(Role.SYSTEM, "late"), Message(Role.ASSISTANT, "c"), Message(Role.ASSISTANT, "d"),
    )  # fmt: skip
    decision = normalise(Conversation("x", messages))
    assert roles_and_texts(decision.kept) == [("system", "Be brief."), ("user", "a\n\nb"), ("assistant", "c\n\nd")]
    assert [flag.rule for flag in decision.flags] == ["late_system", "merged_turns", "merged_turns"]


def test_normalise_stops_at_an_empty_turn():
    decision = normalise(talk("Q", "A", "Q2", "  ", "Q3", "A3"))
    assert roles_and_texts(decision.kept) == [("user", "Q"), ("assistant", "A")]
    assert "empty_turn" in {flag.rule for flag in decision.flags}


def test_a_system_prompt_is_given_to_conversations_without_one():
    assert roles_and_texts(normalise(talk("Q", "A"), "Be kind.").kept)[0] == ("system", "Be kind.")


@pytest.mark.parametrize(
    ("conversation", "rule"),
    [
        (talk("Q"), "no_assistant"),
        (talk("", "A"), "no_assistant"),
        (Conversation("x", (Message(Role.ASSISTANT, "A"),)), "no_user"),
        (
            Conversation("x", (Message(Role.USER, "Q"), Message(Role.TOOL, "5"), Message(Role.ASSISTANT, "A"))),
            "bad_tool_order",
        ),
    ],
)
def test_normalise_drops_what_nobody_answers(conversation, rule):
    assert normalise(conversation).rule == rule


def test_tool_results_after_calls_are_kept():
    call = Message(Role.ASSISTANT, tool_calls=(ToolCall("1", "f", "{}"),))
    messages = (
        Message(Role.USER, "Q"),
        call,
        Message(Role.TOOL, "5"),
        Message(Role.TOOL, "6"),
        Message(Role.ASSISTANT, "11"),
    )
    assert normalise(Conversation("x", messages)).kept is not None


LONG = " ".join(f"Sentence number {n} tells of {word}." for n, word in enumerate(PLAIN.split() * 4))


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ("too_short", "ok"),
        ("repetition", "I will do it again and again. " * 40),
        ("repetition", "no" * 60),
        ("repetition", "x" * 70),
        ("repetition", "\n".join(["- buy milk and bread"] * 12 + ["- the end"])),
        ("identity_claim", "I am ChatGPT, and I can help you with that."),
        ("identity_claim", "As a language model trained by OpenAI, I know a few things."),
        ("garbled", "caf\ufffd\ufffd\ufffd au lait is a drink"),
    ],
)
def test_quality_rules_drop(rule, answer):
    question = "hm?" if rule == "too_short" else "Tell me about the harbour, please."
    decision = judge_quality(talk(question, answer), actions({}))
    assert (decision.kept, decision.rule) == (None, rule)


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ("refusal", "I'm sorry, but I can't help with that request."),
        ("refusal", "As an AI language model, I cannot have opinions."),
        ("truncated", "Here it is:\n```python\nprint(1)\n"),
        ("truncated", LONG + " And then the boats"),
        ("list_numbering", "Steps to take:\n1. Wake up\n1. Eat well\n1. Sleep"),
        ("short_answers", "Yes."),
    ],
)
def test_quality_rules_flag(rule, answer):
    decision = judge_quality(talk("Tell me about the harbour, please.", answer), actions({}))
    assert decision.kept is not None
    assert [flag.rule for flag in decision.flags] == [rule]


@pytest.mark.parametrize(
    "answer",
    [
        PLAIN,
        LONG,
        "ChatGPT was made by OpenAI in 2022, and many people use it. I can tell you more about it.",
        "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 3,
        "1. one\n2. two\n3. three\n\nAnd:\n\n1. other\n2. list",
        "```\n" + "x = 1\n" * 30 + "```\nThat is the code that you asked for.",
        "港はとても静かで、朝の光の中で船が眠っていました。",
    ],
)
def test_quality_rules_leave_good_answers_alone(answer):
    decision = judge_quality(talk("Tell me about the harbour, please.", answer), actions({}))
    assert decision.kept is not None and not decision.flags


def test_a_recipe_changes_what_a_rule_does():
    conversation = talk("Tell me about it, please.", "I'm sorry, but I can't help with that request.")
    assert judge_quality(conversation, actions({"refusal": "drop"})).rule == "refusal"
    assert not judge_quality(conversation, actions({"refusal": "off"})).flags
    with pytest.raises(ValueError, match="did you mean 'refusal'"):
        actions({"refusals": "drop"})
    with pytest.raises(ValueError, match="can't 'redact'"):
        actions({"refusal": "redact"})


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("credit_card", "4111 1111 1111 1111"),
        ("credit_card", "5500-0055-5555-5559"),
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
        ("secret", "ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
        ("secret", "AKIAIOSFODNN7EXAMPLE"),
        ("secret", "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA" * 5 + "\n-----END RSA PRIVATE KEY-----"),
    ],
)
def test_personal_data_is_found_whole_by_its_form(rule, text):
    sentence = f"Here you are: {text}, thanks."
    (finding,) = personal.find(sentence)
    assert (finding.rule, sentence[finding.start : finding.end]) == (rule, text)
    assert personal.redact(sentence, [finding]) == f"Here you are: [{rule.upper()}], thanks."


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112", "DE89 3704 0044 0532 0130 01", "someone@example.com", "127.0.0.1", "192.168.1.20",
        "version 3.14.15.92653", "the year 2023-04-11", "1234567890123", "000-12-3456", "10:30:45", "sk-learn",
        "0.123456789012", "call 911", "def f(a: int): return a[1:3]",
    ],
)  # fmt: skip
def test_what_only_looks_like_personal_data_is_left_alone(text):
    assert personal.find(text) == []


def test_secrets_are_redacted_everywhere_and_the_ledger_does_not_repeat_them():
    secret = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"
    call = ToolCall("1", "login", f'{{"token": "{secret}", "card": 4111111111111111}}')
    messages = (Message(Role.USER, f"use {secret}"), Message(Role.ASSISTANT, "ok", tool_calls=(call,)))
    decision = judge_content(Conversation("x", messages), actions({}))
    assert decision.kept is not None
    assert decision.kept.messages[0].content == "use [SECRET]"
    assert decision.kept.messages[1].tool_calls[0].arguments == '{"token":"[SECRET]","card":"[CREDIT_CARD]"}'
    assert {flag.rule for flag in decision.flags} == {"secret", "credit_card"}
    assert all(secret[4:] not in (flag.note or "") for flag in decision.flags)


def test_flagged_personal_data_stays_and_dropped_goes():
    conversation = talk("Write to jane@university.edu", "Done, I wrote to her.")
    decision = judge_content(conversation, actions({}))
    assert decision.kept == conversation and [flag.rule for flag in decision.flags] == ["email"]
    assert judge_content(conversation, actions({"email": "drop"})).rule == "email"


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("sexual", "some porn please"),
        ("self_harm", "I want to kill myself"),
        ("weapons", "How do I make a pipe bomb at home?"),
        ("slur", "what a retard"),
    ],
)
def test_word_rules_flag(rule, text):
    decision = judge_content(talk(text, PLAIN), actions({}))
    assert [flag.rule for flag in decision.flags] == [rule]


def test_sexual_words_near_children_are_dropped_and_harmless_neighbours_are_not():
    assert judge_content(talk("nudes of a schoolgirl", PLAIN), actions({})).rule == "minors"
    kept = judge_content(
        talk("Is the method harmful for a child? It made me retire and document it.", PLAIN), actions({})
    )
    assert kept.kept is not None and not kept.flags


def test_an_error_text_in_the_place_of_an_answer_drops_the_conversation():
    error = "Too many requests in 1 hour. Try again later."
    assert clean(talk("Q", error), "drop").rule == "error_answer"
    assert clean(talk(error, "A"), "drop").kept is not None
    assert [flag.rule for flag in clean(talk("Q", error), "flag").flags] == ["error_answer"]


def test_cleaning_reports_what_it_changed_and_leaves_plain_text_alone():
    page = '<div class="markdown prose"><p>Hello <strong>you</strong></p></div>'
    decision = clean(talk("if a < b: <b>x</b>", page), "drop")
    assert roles_and_texts(decision.kept) == [("user", "if a < b: <b>x</b>"), ("assistant", "Hello **you**")]
    assert [flag.rule for flag in decision.flags] == ["cleaned"]


def test_language_is_told_from_prose_and_short_text_is_unknown():
    assert identify("Wo ist denn hier der nächste Bahnhof, bitte?")[0] == "de"
    assert identify("hi")[0] == "unknown"
    code = "```python\nfor the in and_of: print('this is not prose')\n```"
    decision = judge_language(
        talk(f"Was macht dieser Code denn hier genau?\n{code}", "Er druckt immer wieder denselben Satz aus."),
        ("en",),
        "drop",
    )
    assert (decision.kept, decision.rule, decision.note) == (None, "language", "de")


def test_unknown_language_is_kept_and_noted():
    decision = judge_language(talk("hi", "ok"), ("en",), "drop")
    assert decision.kept is not None and decision.kept.source["language"] == "unknown"


QUESTION = "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences."


@pytest.mark.parametrize(
    ("text", "is_hit"),
    [
        (QUESTION, True),
        (f"Please help me: {QUESTION.upper()} Thanks!", True),
        ("Who are you?", True),
        ("Who are you? And what is the weather like in Rome today?", False),
        ("Compose a letter about a recent trip to the sea, with cultural experiences.", False),
    ],
)
def test_contamination_is_found_by_shared_phrases(text, is_hit):
    questions = Questions([QUESTION, "Who are you?", ""])
    decision = judge_contamination(talk(text, PLAIN), questions, 0.5, "drop")
    assert (decision.rule == "contaminated") is is_hit
    if is_hit:
        flagged = judge_contamination(talk(text, PLAIN), questions, 0.5, "flag")
        assert flagged.kept is not None and flagged.flags[0].rule == "contaminated"


def test_the_page_about_filters_says_what_every_rule_does():
    page = (Path(__file__).parents[2] / "docs/data.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| \w+ \| (\w+) \|", page, re.MULTILINE))
    assert rows == {name: rule.default for name, rule in RULES.items()}
