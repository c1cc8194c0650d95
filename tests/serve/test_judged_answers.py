"""How an answer is judged while it comes: however it is cut, whatever its shape, and with several choices."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaku.engines.base import Block
from chaku.errors import EngineError
from chaku.policies import ModerationPolicy
from chaku.protocol.answers import DONE, event
from chaku.serve.exchange import Exchange
from chaku.serve.moderation.answer import Filtered, JudgedAnswer
from chaku.serve.moderation.moderator import Moderator
from chaku.serve.relay import Relay
from chaku.serve.wires.openai import PassedThrough

BAD = "forbidden"
PATTERN = {"patterns": {"secret": BAD}}


class Sent:
    """The client's side of one stream."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.reasons: list[tuple[int, str]] = []

    async def __call__(self, message: Any) -> None:
        for line in message.get("body", b"").split(b"\n\n"):
            if line.startswith(b"data: {"):
                for choice in orjson.loads(line[6:])["choices"]:
                    index = choice["index"]
                    self.texts[index] = self.texts.get(index, "") + (choice["delta"].get("content") or "")
                    if choice["finish_reason"]:
                        self.reasons.append((index, choice["finish_reason"]))


def part(index: int, content: str = "", finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk of the choice at `index`; `more` goes into its delta."""
    delta = ({"content": content} if content else {}) | more
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


async def was_filtered(chunks: list[Any], sent: Sent, num_answers: int) -> bool:
    """Judge these chunks and the end of their stream, with <x…> and a word forbidden."""
    policy = ModerationPolicy(patterns={"x": f"<x+>|{BAD}"}, window=44)
    relay = Relay(Exchange("r", "chat"), sent, [], PassedThrough({}, True, (), False))
    answer = JudgedAnswer(Moderator(policy), relay, "chat", num_answers)
    try:
        for chunk in [*chunks, None]:
            await answer.block(Block(event(chunk)) if chunk else Block(DONE, is_last=True), ())
    except Filtered:
        return True
    return False


async def test_a_choice_that_has_ended_is_not_ended_again_by_the_judgement_of_another() -> None:
    sent = Sent()
    flagged = [part(1, "ab " * 10) for _ in range(20)] + [part(1, "<xx>"), part(1, "ab " * 40)]
    assert await was_filtered([part(0, "short"), part(0, "", "stop"), *flagged], sent, 2)
    assert sent.reasons == [(0, "stop"), (1, "content_filter")]
    assert sent.texts[0] == "short"


async def test_a_choice_whose_end_was_still_held_ends_as_filtered() -> None:
    sent = Sent()
    assert await was_filtered([part(0, "short"), part(0, "", "stop"), part(1, "<xx>" + "ab " * 40)], sent, 2)
    assert sent.reasons == [(0, "content_filter"), (1, "content_filter")]


async def test_a_choice_that_has_not_begun_ends_with_the_others() -> None:
    sent = Sent()
    assert await was_filtered([part(0, "<xx>" + "ab " * 40)], sent, 2)
    assert sent.reasons == [(0, "content_filter"), (1, "content_filter")]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    before=st.text("ab ", max_size=150),
    passage=st.text("x", min_size=1, max_size=20),
    after=st.text("ab ", max_size=150),
    data=st.data(),
    num_answers=st.integers(1, 2),
)
def test_a_passage_of_half_a_window_never_gets_out_however_a_stream_is_cut(
    before: str, passage: str, after: str, data: st.DataObject, num_answers: int
) -> None:
    text = f"{before}<{passage}>{after}"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=30)) if len(text) > 1 else set())
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    sent = Sent()
    indices = range(num_answers)
    chunks = [part(index, piece) for piece in pieces for index in indices]
    assert asyncio.run(was_filtered(chunks + [part(index, "", "stop") for index in indices], sent, num_answers))
    assert sent.reasons == [(index, "content_filter") for index in indices]
    for said in sent.texts.values():
        assert (before + "<").startswith(said) or before.startswith(said)
        assert "x" not in said


@pytest.mark.parametrize(
    "thought",
    [
        lambda text: {"reasoning": text, "reasoning_content": text},
        lambda text: {"reasoning": text, "reasoning_details": [{"type": "reasoning.text", "text": text}]},
    ],
)
async def test_a_passage_in_thoughts_under_two_names_is_found_however_it_is_cut(thought: Any) -> None:
    sent = Sent()
    assert await was_filtered([part(0, **thought(letter)) for letter in f"a {BAD} thought " + "ab " * 40], sent, 1)
    assert sent.reasons == [(0, "content_filter")]


@pytest.mark.parametrize("cut", range(1, len(BAD)))
@pytest.mark.parametrize("names", [("reasoning_content",), ("reasoning", "reasoning_content")])
async def test_a_passage_that_begins_in_the_thoughts_and_ends_in_the_text_is_found(
    cut: int, names: tuple[str, ...]
) -> None:
    sent = Sent()
    thoughts = [part(0, **dict.fromkeys(names, letter)) for letter in "ab " * 40 + BAD[:cut]]
    assert await was_filtered([*thoughts, *(part(0, letter) for letter in BAD[cut:] + "ab " * 40)], sent, 1)
    assert (sent.reasons, sent.texts[0]) == ([(0, "content_filter")], "")


async def test_a_passage_in_the_text_is_found_while_thoughts_come_between_its_letters() -> None:
    sent = Sent()
    assert await was_filtered([part(0, letter, reasoning="ab") for letter in BAD + "ab " * 40], sent, 1)
    assert sent.reasons == [(0, "content_filter")]


def around(text: str) -> st.SearchStrategy[Any]:
    """JSON values of any shape with this text somewhere in them."""
    anything = st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.just("ab "),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(FIELDS, inner, max_size=2),
        max_leaves=4,
    )
    one_more = lambda inner: st.one_of(  # noqa: E731
        st.tuples(anything, inner, anything).map(list),
        st.tuples(st.dictionaries(FIELDS, anything), FIELDS, inner).map(lambda drawn: {**drawn[0], drawn[1]: drawn[2]}),
    )
    return st.recursive(st.just(text), one_more, max_leaves=3)


FIELDS = st.sampled_from(["text", "summary", "content", "parts", "x"])
PLACES = ("reasoning_content", "reasoning", "reasoning_details", "content", "refusal", "tool_calls", "unheard_of")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(odd=around(f"a {BAD} word"), place=st.sampled_from(PLACES), is_stream=st.booleans())
def test_what_is_forbidden_is_found_in_json_of_any_shape(odd: Any, place: str, is_stream: bool) -> None:
    if is_stream:
        assert asyncio.run(was_filtered([part(0, **{place: odd})], Sent(), 1))
        return
    policy = ModerationPolicy(patterns={"x": BAD}, action="hide")
    answer = {"choices": [{"index": 0, "message": {"content": "fine"} | {place: odd}, "finish_reason": "stop"}]}
    passed: list[bytes] = []

    async def send(message: Any) -> None:
        passed.append(message.get("body", b""))

    relay = Relay(Exchange("r", "chat"), send, [], PassedThrough({}, False, (), False))
    asyncio.run(JudgedAnswer(Moderator(policy), relay, "chat", 1).whole(answer, ()))
    assert b"content_filter" in b"".join(passed) and BAD.encode() not in b"".join(passed)


@pytest.mark.parametrize(
    "choices",
    [BAD, {"message": {"content": BAD}}, [BAD], [{"message": BAD}], [{"message": [BAD]}], [{"index": [], "text": BAD}]],
)
async def test_an_answer_whose_texts_can_t_be_told_does_not_pass(choices: Any) -> None:
    relay = Relay(Exchange("r", "chat"), Sent(), [], PassedThrough({}, True, (), False))
    answer = JudgedAnswer(Moderator(ModerationPolicy(**PATTERN)), relay, "chat", 1)
    with pytest.raises(EngineError, match="shape"):
        await answer.whole({"choices": choices}, ())
    with pytest.raises(EngineError, match="shape"):
        await answer.block(Block(event({"choices": choices})), ())
