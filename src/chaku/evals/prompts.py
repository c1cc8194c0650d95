"""What a judge is asked: our prompts, FastChat's `judge_prompts.jsonl`, and the prompts of Vicuna's first reviews."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from chaku.errors import UsageError
from chaku.evals.records import Mode, Question, content_key

_PLACE = re.compile(r"\{(\w+)\}")
_WITH_REFERENCE = ("math", "reasoning", "coding", "arena-hard-200")
"""FastChat's categories whose judges see a reference answer."""


@dataclass(frozen=True)
class JudgePrompt:
    """A system prompt and a template whose {places} are filled with the question and the answers."""

    name: str
    system: str
    template: str

    @property
    def hash(self) -> str:
        """Part of a judgement's key: with another wording the question is another one."""
        return content_key(self.system, self.template)

    def messages(self, question: Question, answers: Sequence[Sequence[str]], turn: int) -> list[dict[str, str]]:
        """The judge's conversation about one or two answers, up to a turn (from 1)."""
        values = _values(question, answers, turn)

        def value(place: re.Match[str]) -> str:
            return values.get(place[1], place[0])

        content = _PLACE.sub(value, self.template)  # in one pass: braces in an answer are text
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": content}]


@dataclass(frozen=True)
class PromptSet:
    """The prompts of one file, and which of them suits a question."""

    name: str
    mode: Mode
    prompts: dict[tuple[str, bool], JudgePrompt]
    """By kind (general, reference; coding and math in review files) and whether earlier turns are shown."""

    def suited(self, question: Question, turn: int) -> JudgePrompt:
        """The prompt for a question at a turn (from 1). Raises UsageError where the file has none."""
        has_reference = bool(question.reference) and (
            self.name == "chaku" or question.category in _WITH_REFERENCE or ("general", False) not in self.prompts
        )
        kinds = [question.category or "", "reference" if has_reference else "general", "general"]
        for kind in kinds:
            if prompt := self.prompts.get((kind, turn > 1)):
                return prompt
        raise UsageError(f"{self.name} has no prompt for turn {turn} of a question")


def _values(question: Question, answers: Sequence[Sequence[str]], turn: int) -> dict[str, str]:
    """Everything a template may name: chaku's places, FastChat's, and those of the review prompts."""
    values = {
        "question": question.turns[turn - 1],
        "conversation": _conversation(question.turns[:turn]),
        "reference": _conversation(question.turns[:turn], question.reference, "Reference answer"),
    }
    for number in range(turn):
        values[f"question_{number + 1}"] = question.turns[number]
        values[f"ref_answer_{number + 1}"] = _item(question.reference, number)
    for letter, name, answer in zip("ab", "12", answers, strict=False):
        values[f"answer_{letter}"] = _item(answer, turn - 1)
        values[f"conversation_{letter}"] = _conversation(question.turns[:turn], answer, "Assistant")
        for number in range(turn):
            values[f"answer_{letter}_{number + 1}"] = _item(answer, number)
        if len(answers) == 2:
            values[f"answer_{name}"] = _item(answer, turn - 1)
    if len(answers) == 1:
        values["answer"] = _item(answers[0], turn - 1)
        values |= {f"answer_{number + 1}": _item(answers[0], number) for number in range(turn)}
    return values


def _item(texts: Sequence[str], place: int) -> str:
    return texts[place] if place < len(texts) else ""


def _conversation(questions: Sequence[str], answers: Sequence[str] = (), who: str = "") -> str:
    turns = []
    for number, question in enumerate(questions):
        turns.append(f"### User:\n{question}")
        if who:
            turns.append(f"### {who}:\n{_item(answers, number)}")
    return "\n\n".join(turns)


_TASK = {
    "verdict": (
        "Two assistants answered the same user. Decide which answer serves the user better. Look at correctness first, "
        "then at whether the answer does what was asked, is useful, and is clear. A longer answer is not a better one. "
        "The order in which the answers stand means nothing."
    ),
    "pair-score": (
        "Two assistants answered the same user. Score both answers from 1 to 10 on helpfulness, relevance, accuracy "
        "and level of detail. A longer answer is not a better one. The order in which the answers stand means nothing."
    ),
    "score": (
        "An assistant answered a user. Score the answer from 1 to 10 on helpfulness, relevance, accuracy and level of "
        "detail. A longer answer is not a better one."
    ),
}
_FORMAT = {
    "verdict": "Explain your decision in a few sentences. Then end with one line: [[A]] if assistant A is better, "
    "[[B]] if assistant B is better, [[tie]] if neither is.",
    "pair-score": "Write one line with the two scores only, for assistant 1 and assistant 2, with a space between. "
    "Then explain them in a few sentences.",
    "score": "Explain your score in a few sentences. Then end with one line: Rating: [[N]], where N is the score.",
}
_REFERENCE = "\n\n<reference>\n{reference}\n</reference>\n\nThe reference is correct. Check the answers against it."
_SHOWN = {
    "verdict": "<assistant_A>\n{conversation_a}\n</assistant_A>\n\n<assistant_B>\n{conversation_b}\n</assistant_B>",
    "pair-score": "<assistant_1>\n{conversation_a}\n</assistant_1>\n\n<assistant_2>\n{conversation_b}\n</assistant_2>",
    "score": "<assistant>\n{conversation_a}\n</assistant>",
}
_LAST_TURN = "\n\nJudge the answer to the last message of the user. The earlier ones are its context."


def built_in(mode: Mode) -> PromptSet:
    """Our prompts for a mode."""
    prompts = {}
    for kind, reference in (("general", ""), ("reference", _REFERENCE)):
        for is_later in (False, True):
            name = f"{mode}{'-reference' if reference else ''}{'-later-turn' if is_later else ''}"
            task = _SHOWN[mode] + reference + (_LAST_TURN if is_later else "") + "\n\n" + _FORMAT[mode]
            prompts[kind, is_later] = JudgePrompt(name, _TASK[mode], task)
    return PromptSet("chaku", mode, prompts)


_FASTCHAT = {"verdict": ("pair-v2", "pair-math-v1"), "score": ("single-v1", "single-math-v1")}


def load_prompts(path: Path | None, mode: Mode) -> PromptSet:
    """The prompts of a file in FastChat's formats, or our own. Raises UsageError for a file that does not suit."""
    if path is None:
        return built_in(mode)
    try:
        rows = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
        if all("prompt_template" in row and "defaults" in row for row in rows):
            return _review_prompts(path, rows, mode)
        by_name = {row["name"]: JudgePrompt(row["name"], row["system_prompt"], row["prompt_template"]) for row in rows}
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"{path} is not a file of judge prompts", fix="FastChat's judge_prompts.jsonl is one"
        ) from None
    if mode not in _FASTCHAT or not by_name.keys() & set(_FASTCHAT[mode]):
        raise UsageError(f"{path} has no prompts for mode {mode}")
    prompts = {}
    for kind, name in zip(("general", "reference"), _FASTCHAT[mode], strict=True):
        for is_later, suffix in ((False, ""), (True, "-multi-turn")):
            if prompt := by_name.get(name + suffix):
                prompts[kind, is_later] = prompt
    return PromptSet(path.stem, mode, prompts)


def _review_prompts(path: Path, rows: list[dict[str, Any]], mode: Mode) -> PromptSet:
    """The file of the first reviews: one template for all, in which {prompt} differs by category."""
    if mode != "pair-score":
        raise UsageError(f"{path} asks for two scores: use it with --mode pair-score")
    prompts = {}
    for row in rows:
        template = row["prompt_template"].replace("{prompt}", row["defaults"]["prompt"])
        prompts[row["category"], False] = JudgePrompt(f"review-{row['category']}", row["system_prompt"], template)
    return PromptSet(path.stem, mode, prompts)
