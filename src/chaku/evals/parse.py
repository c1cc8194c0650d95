"""Read a judge's text: a winner, two scores or one. Pure functions of the text, so a better parser needs no new calls.

A judge quotes: the format it was asked for, an example, the answers' own numbers. So a value counts only where it is
anchored: in double brackets, alone on its line, behind a word such as "score" or "Assistant 1:", or in a JSON object.
Values that contradict each other are not read, unless the last one is called final.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import orjson

from chaku.evals.records import Judgement, Mode, Winner

LOWEST, HIGHEST = 0.0, 10.0
"""Prompts ask for 1 to 10. Judges give 0 to an answer that is empty, and that is read as it stands."""


class Unparsed(ValueError):
    """The text does not say, or contradicts itself; the message tells which."""


_NUMBER = r"\d{1,2}(?:\.\d{1,3})?"
_QUOTES = "\"'“”‘’«»"
_QUOTED_MARK = re.compile(
    rf"[{_QUOTES}`][^\n{_QUOTES}`]{{0,40}}\[\[[^\[\]\n]{{1,20}}\]\][^\n{_QUOTES}`]{{0,40}}[{_QUOTES}`]"
)
"""The format or an example, in quotation marks."""
_DECORATION = "*_`#> \t"
_SCORE_WORD = re.compile(r"\b(?:scores?|ratings?|output|tuple|verdict|evaluation|final)\b", re.IGNORECASE)
_FINAL = re.compile(r"\bfinal\b", re.IGNORECASE)
_OUT_OF = r"(?:\s*(?:/|out of)\s*10)?"

_TWO_ALONE = re.compile(rf"[(\[]*({_NUMBER}){_OUT_OF}(?:\s*[,;|&]\s*|\s+and\s+|\s+)({_NUMBER}){_OUT_OF}[)\]]*\.?")
_TUPLE = re.compile(rf"[(\[]\s*({_NUMBER})\s*,\s*({_NUMBER})\s*[)\]]")
_DOUBLE_PAIR = re.compile(rf"\[\[\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\]\]")
_ASSISTANT = re.compile(
    r"\b(?:Assistant|Answer|Response)[ \t]+([12AB])(?:'s)?(?:[ \t]+(?:score|rating))?[ \t*_]*[:=][ \t*_]*"
    rf"({_NUMBER}){_OUT_OF}"
    r"[ \t*_]*(?=$|\(|\.[ \t]*$|[,;.]?[ \t]+(?:Assistant|Answer|Response)\b)",
    re.IGNORECASE | re.MULTILINE,
)

_DOUBLE_NUMBER = re.compile(rf"\[\[\s*({_NUMBER})\s*\]\]")
_RATED = re.compile(
    rf"\b(?:score|rating)(?:[ \t]+is)?[ \t*_]*[:=]?[ \t*_]*\[{{0,2}}({_NUMBER})\]{{0,2}}{_OUT_OF}"
    r"(?![\d.]*\d|\s*[-–,]\s*\d)",
    re.IGNORECASE,
)
_ONE_ALONE = re.compile(rf"\[?({_NUMBER})\]?{_OUT_OF}\.?")

_DOUBLE_VERDICT = re.compile(r"\[\[\s*([ABC]|tie)\s*\]\]", re.IGNORECASE)
_SINGLE_VERDICT = re.compile(r"\[([ABC]|tie)\]\.?", re.IGNORECASE)
_NAMED_VERDICT = re.compile(
    r"\b(?:verdict|winner)[ \t*_]*(?::|is)[ \t*_\[\"]*(?:Assistant[ \t]+)?([ABC]|tie)\b(?![ \t]*(?:or|/|,)[ \t])",
    re.IGNORECASE,
)
_WORDS: dict[str, Winner] = {"a": "a", "b": "b", "c": "tie", "tie": "tie"}

Value = TypeVar("Value")


@dataclass(frozen=True)
class _Found(Generic[Value]):
    value: Value
    place: int
    is_final: bool


def parse_verdict(text: str) -> Winner:
    """Who is better. Raises Unparsed."""
    if (answer := _json_of(text)) is not None:
        word = str(answer.get("winner", "")).strip().lower().removeprefix("assistant ")
        if word not in _WORDS:
            raise Unparsed(f"the winner is {answer.get('winner')!r}")
        return _WORDS[word]
    marked = _without_quotes(text)
    for pattern in (_DOUBLE_VERDICT, _NAMED_VERDICT):
        if found := [_found(_WORDS[match[1].lower()], match, marked) for match in pattern.finditer(marked)]:
            return _agreed(found)
    lines = [line.strip(_DECORATION) for line in marked.splitlines() if line.strip(_DECORATION)]
    for line in (*lines[:1], *lines[-1:]):
        if match := _SINGLE_VERDICT.fullmatch(line) or re.fullmatch(r"(?:Assistant )?([ABC]|tie)\.?", line, re.I):
            return _WORDS[match[1].lower()]
    raise Unparsed("there is no verdict in it")


def parse_pair(text: str, *, question: str = "") -> tuple[float, float]:
    """Two scores, for the answer shown first and the other. Raises Unparsed.

    A pair of numbers that stands in the question too, such as a point (10, 4), needs a word like "scores" before it.
    """
    if (answer := _json_of(text)) is not None:
        return _in_range(answer.get("score_1")), _in_range(answer.get("score_2"))
    found = sorted(_pairs(_without_quotes(text), question), key=lambda one: one.place)
    if not found:
        raise Unparsed("there are no two scores in it")
    first, second = _agreed(found)
    return _in_range(first), _in_range(second)


def parse_score(text: str) -> float:
    """One score. Raises Unparsed."""
    if (answer := _json_of(text)) is not None:
        return _in_range(answer.get("score"))
    marked = _without_quotes(text)
    for pattern in (_DOUBLE_NUMBER, _RATED):
        if found := [_found(float(match[1]), match, marked) for match in pattern.finditer(marked)]:
            return _in_range(_agreed(found))
    lines = [line.strip(_DECORATION) for line in marked.splitlines() if line.strip(_DECORATION)]
    alone = [match for line in (*lines[:1], *lines[-1:]) if (match := _ONE_ALONE.fullmatch(line))]
    if not alone:
        raise Unparsed("there is no score in it")
    return _in_range(_agreed([_Found(float(match[1]), place, False) for place, match in enumerate(alone)]))


def parsed(judgement: Judgement, *, question: str = "") -> Judgement:
    """The same judgement with what its text says now; one without a text, and a program's check, stay as they are."""
    if judgement.state == "failed" or judgement.mode == "check":
        return judgement
    read: dict[str, Any] = {"origin": "parsed", "state": "ok", "winner": None, "scores": (), "error": None}
    try:
        match judgement.mode:
            case "verdict":
                read["winner"] = parse_verdict(judgement.text)
            case "pair-score":
                read["scores"] = parse_pair(judgement.text, question=question)
            case "score":
                read["scores"] = (parse_score(judgement.text),)
    except Unparsed as reason:
        read |= {"state": "unparsed", "error": str(reason)}
    return judgement.model_copy(update=read)


def answer_schema(mode: Mode) -> dict[str, Any]:
    """The JSON schema of a judgement, for servers that can hold a model to one."""
    score = {"type": "number", "minimum": 1, "maximum": HIGHEST}
    fields: dict[str, Any] = {"explanation": {"type": "string"}}
    match mode:
        case "verdict":
            fields["winner"] = {"type": "string", "enum": ["A", "B", "tie"]}
        case "pair-score":
            fields |= {"score_1": score, "score_2": score}
        case _:
            fields["score"] = score
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _pairs(text: str, question: str) -> Iterator[_Found[tuple[float, float]]]:
    asked = {(float(match[1]), float(match[2])) for match in _TUPLE.finditer(question)}
    scored: dict[int, tuple[float, re.Match[str]]] = {}
    for match in _ASSISTANT.finditer(text):
        scored[1 if match[1].upper() in "1A" else 2] = float(match[2]), match
    if len(scored) == 2:
        value = (scored[1][0], scored[2][0])
        yield _found(value, max((scored[1][1], scored[2][1]), key=lambda match: match.start()), text)
    is_first = True
    for line, start in _lines(text):
        bare = line.strip(_DECORATION)
        if not bare:
            continue
        alone = _TWO_ALONE.fullmatch(bare)
        is_bracketed = bare[0] in "(["
        if alone and (is_first or is_bracketed):
            pair = (float(alone[1]), float(alone[2]))
            if is_first or bare.startswith("[[") or pair not in asked:
                yield _Found(pair, start, False)
        else:
            for match in _TUPLE.finditer(line):
                if _SCORE_WORD.search(line, 0, match.start()) or _DOUBLE_PAIR.search(line):
                    is_final = bool(_FINAL.search(line, 0, match.start()))
                    yield _Found((float(match[1]), float(match[2])), start + match.start(), is_final)
        is_first = False


def _lines(text: str) -> Iterator[tuple[str, int]]:
    start = 0
    for line in text.splitlines(keepends=True):
        yield line.rstrip("\r\n"), start
        start += len(line)


def _found(value: Value, match: re.Match[str], text: str) -> _Found[Value]:
    begin = text.rfind("\n", 0, match.start()) + 1
    return _Found(value, match.start(), bool(_FINAL.search(text, begin, match.end())))


def _agreed(found: list[_Found[Value]]) -> Value:
    """What all say, or what the last one says if it alone is called final."""
    values = {one.value for one in found}
    if len(values) == 1 or (found[-1].is_final and len({one.value for one in found if one.is_final}) == 1):
        return found[-1].value
    raise Unparsed("it contradicts itself")


def _in_range(score: Any) -> float:
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise Unparsed(f"the score is {score!r}")
    if not LOWEST <= score <= HIGHEST:
        raise Unparsed(f"the score {score:g} is not between {LOWEST:g} and {HIGHEST:g}")
    return float(score)


def _without_quotes(text: str) -> str:
    return _QUOTED_MARK.sub(lambda match: " " * len(match[0]), text)


def _json_of(text: str) -> dict[str, Any] | None:
    """The object that the whole text is, in a code fence or not."""
    bare = text.strip()
    if bare.startswith("```"):
        bare = bare.strip("`").removeprefix("json").strip()
    if not bare.startswith("{"):
        return None
    try:
        answer = orjson.loads(bare)
    except orjson.JSONDecodeError:
        return None
    return cast(dict[str, Any], answer) if isinstance(answer, dict) else None
