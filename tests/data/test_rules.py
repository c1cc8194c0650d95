"""Each rule fires where it should and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chaku.chat.messages import Conversation, Message, Role, ToolCall
from chaku.data.ledger import Decision
from chaku.data.rules.cleaning import judge_cleaned
from chaku.data.rules.content import judge_content
from chaku.data.rules.decontaminate import Questions, judge_contamination
from chaku.data.rules.language import identify, judge_language
from chaku.data.rules.normalise import normalise
from chaku.data.rules.quality import judge_quality
from chaku.data.rules.table import RULES, actions
from data.rule_cases import ANSWER_RULES, WORD_RULES

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
    with pytest.raises(ValueError, match="did you mean refusal"):
        actions({"refusals": "drop"})
    with pytest.raises(ValueError, match="can't 'redact'"):
        actions({"refusal": "redact"})


QUESTION_FOR_RULES = "Tell me about the harbour, please."
ANSWER_CASES = [
    (rule, side, text) for rule, sides in ANSWER_RULES.items() for side, texts in enumerate(sides) for text in texts
]
WORD_CASES = [
    (rule, side, text) for rule, sides in WORD_RULES.items() for side, texts in enumerate(sides) for text in texts
]


def met(rule: str, decision: Decision) -> bool:
    return decision.rule == rule or rule in {flag.rule for flag in decision.flags}


@pytest.mark.parametrize(("rule", "side", "answer"), ANSWER_CASES)
def test_rules_on_answers_catch_what_they_mean_and_nothing_like_it(rule, side, answer):
    assert met(rule, judge_quality(talk(QUESTION_FOR_RULES, answer), actions({}))) is (side == 0)


@pytest.mark.parametrize(("rule", "side", "text"), WORD_CASES)
def test_word_rules_catch_what_they_mean_and_nothing_like_it(rule, side, text):
    assert met(rule, judge_content(talk(text, PLAIN), actions({}))) is (side == 0)


def test_a_bare_name_is_a_claim_only_as_the_answer_to_who_are_you():
    chosen = actions({})
    assert met("identity_claim", judge_quality(talk("And who are you?", "I'm Claude. Nice to meet you!"), chosen))
    assert not met("identity_claim", judge_quality(talk("Write a dialogue.", "I'm Claude. Nice to meet you!"), chosen))


def test_an_error_text_in_the_place_of_an_answer_drops_the_conversation():
    error = "Too many requests in 1 hour. Try again later."
    assert judge_cleaned(talk("Q", error), actions({})).rule == "error_answer"
    assert judge_cleaned(talk(error, "A"), actions({})).kept is not None
    flagged = judge_cleaned(talk("Q", error), actions({"error_answer": "flag"}))
    assert [flag.rule for flag in flagged.flags] == ["error_answer"]


FRACTION = (
    '<span class="katex"><span class="katex-html" aria-hidden="true"><span class="mord"><span class="mfrac">'
    '<span class="vlist"><span>b</span></span><span class="vlist"><span>a</span></span></span></span></span></span>'
)


def test_an_answer_whose_formula_lost_its_tex_is_dropped_and_a_line_of_letters_is_not():
    page = '<div class="markdown prose"><p>Take {} of it.</p></div>'
    lost = judge_cleaned(talk("Q", page.format(FRACTION)), actions({}))
    assert (lost.rule, lost.note) == ("formula_lost", "Take ba of it.")
    asked = judge_cleaned(talk(page.format(FRACTION), "A"), actions({}))
    assert asked.kept is not None
    letters = "<math><mi>x</mi><mo>=</mo><mn>2</mn></math>"
    kept = judge_cleaned(talk("Q", page.format(letters)), actions({}))
    assert roles_and_texts(kept.kept)[1] == ("assistant", "Take x=2 of it.")
    power = "<math><msup><mi>x</mi><mn>2</mn></msup></math>"
    chosen = actions({"formula_lost": "flag"})
    flags = judge_cleaned(talk("Q", page.format(power)), chosen).flags
    assert [flag.rule for flag in flags] == ["formula_lost", "cleaned"]
    mathjax = "<mjx-container><mjx-math><mjx-mi></mjx-mi></mjx-math></mjx-container>"
    assert judge_cleaned(talk("Q", page.format(mathjax)), actions({})).rule == "formula_lost"


def test_a_chat_page_left_in_a_text_is_flagged_and_may_drop():
    broken = 'Look:\n\n<pre class="overflow-visible!" data-start="1"><div>x'
    for turns in ((broken, "A"), ("Q", broken)):
        decision = judge_cleaned(talk(*turns), actions({}))
        assert [flag.rule for flag in decision.flags] == ["page_html"]
        assert judge_cleaned(talk(*turns), actions({"page_html": "drop"})).rule == "page_html"
    for text in (f"```html\n{broken}\n```", 'Use `<div class="markdown prose">` there.', "The class markdown prose"):
        assert judge_cleaned(talk("Q", text), actions({})).flags == ()


def test_cleaning_reports_what_it_changed_and_leaves_plain_text_alone():
    page = '<div class="markdown prose"><p>Hello <strong>you</strong></p></div>'
    decision = judge_cleaned(talk("if a < b: <b>x</b>", page), actions({}))
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
