"""Judge prompts: ours, FastChat's and those of the first reviews show the right turns of the right answers."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from chaku.errors import UsageError
from chaku.evals.parse import Unparsed, parse_pair, parse_score, parse_verdict
from chaku.evals.prompts import built_in, load_prompts
from chaku.evals.records import Mode, Question

SHARED = Path(__file__).parents[2] / "../shared/data"
MODES: tuple[Mode, ...] = ("verdict", "pair-score", "score")
QUESTION = Question(id="1", turns=("Q-one {answer_a}", "Q-two"), reference=("R-one", "R-two"), category="math")
ANSWERS = (("A-one {question}", "A-two"), ("B-one", "B-two"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("has_reference", [True, False])
def test_a_judge_sees_each_turn_so_far_once_and_nothing_later(mode: Mode, turn: int, has_reference: bool) -> None:
    question = QUESTION if has_reference else QUESTION.model_copy(update={"reference": ()})
    answers = ANSWERS[:1] if mode == "score" else ANSWERS
    prompt = built_in(mode).suited(question, turn)
    content = prompt.messages(question, answers, turn)[-1]["content"]
    for answer in answers:
        assert [content.count(text) for text in answer] == [1, int(turn == 2)]
    assert [content.count(text) for text in QUESTION.reference] == [has_reference, has_reference and turn == 2]
    assert "Q-one {answer_a}" in content
    assert "A-one {question}" in content, "braces in an answer are text"


@pytest.mark.parametrize(
    ("mode", "parser"), [("verdict", parse_verdict), ("pair-score", parse_pair), ("score", parse_score)]
)
def test_a_judge_that_repeats_its_prompt_is_not_read(mode: Mode, parser: object) -> None:
    answers = ANSWERS[:1] if mode == "score" else ANSWERS
    for turn in (1, 2):
        messages = built_in(mode).suited(QUESTION, turn).messages(QUESTION, answers, turn)
        with pytest.raises(Unparsed):
            parser("\n".join(message["content"] for message in messages))  # type: ignore[operator]


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not here")
def test_fastchats_judge_prompts_load_with_references_and_later_turns() -> None:
    prompts = load_prompts(SHARED / "mt_bench/judge_prompts.jsonl", "verdict")
    names = [
        prompts.suited(question, turn).name
        for question in (QUESTION, Question(id="2", turns=("a", "b")))
        for turn in (1, 2)
    ]
    assert names == ["pair-math-v1", "pair-math-v1-multi-turn", "pair-v2", "pair-v2-multi-turn"]
    content = prompts.suited(QUESTION, 2).messages(QUESTION, ANSWERS, 2)[-1]["content"]
    for text in ("Q-two", "R-one", "R-two", "A-two", "B-two"):
        assert content.count(text) == (2 if text.startswith("Q") else 1) + (text == "Q-two")
    single = load_prompts(SHARED / "mt_bench/judge_prompts.jsonl", "score").suited(QUESTION, 2)
    assert "A-two" in single.messages(QUESTION, ANSWERS[:1], 2)[-1]["content"]
    assert "{" not in single.messages(Question(id="1", turns=("q", "r")), (("a", "b"),), 2)[-1]["content"]


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not here")
def test_the_first_review_prompts_load_by_category() -> None:
    prompts = load_prompts(SHARED / "vicuna80/prompt.jsonl", "pair-score")
    names = {
        category: prompts.suited(Question(id="1", turns=("q",), category=category), 1).name
        for category in ("coding", "math", "fermi")
    }
    assert names == {"coding": "review-coding", "math": "review-math", "fermi": "review-general"}
    content = prompts.suited(QUESTION, 1).messages(QUESTION, ANSWERS, 1)[-1]["content"]
    assert content.startswith("[Question]\nQ-one") and content.index("A-one") < content.index("B-one")
    assert "Python tuple" in content
    with pytest.raises(UsageError, match="--mode pair-score"):
        load_prompts(SHARED / "vicuna80/prompt.jsonl", "verdict")


def test_a_file_that_holds_no_prompts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    for content in (b"not json", orjson.dumps({"question": "?"})):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is not a file of judge prompts"):
            load_prompts(path, "verdict")
