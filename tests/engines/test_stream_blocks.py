"""Blocks tell the gateway what their events carry, however the bytes were cut."""

from __future__ import annotations

import orjson
import pytest

from chaku.engines.blocks import blocks_of_chunks, blocks_of_events
from chaku.protocol.answers import DONE, event

ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
WORD = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}\n\n'


def parsed(events: bytes) -> list[dict | None]:
    return [
        None if text == "data: [DONE]" else orjson.loads(text[6:]) for text in events.decode().split("\n\n") if text
    ]


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("num_events", [1, 2, 3])
def test_the_usage_chunk_is_a_block_of_its_own_however_the_bytes_are_cut(num_events: int, spaced: bool) -> None:
    usage = b"data: " + USAGE[6:].replace(b":", b": ") if spaced else USAGE
    events = (WORD, usage, DONE)
    stream, cut = b"".join(events), len(b"".join(events[:num_events]))
    blocks = [block for piece in (stream[:cut], stream[cut:]) if piece for block in blocks_of_events(piece)]
    assert b"".join(block.data for block in blocks) == stream
    assert [block.is_usage_only for block in blocks] == [False, True, False]
    assert [block.is_last for block in blocks] == [False, False, True]
    assert blocks[1].usage is not None
    assert blocks[1].usage["prompt_tokens"] == 3


def test_usage_beside_choices_is_no_block_to_leave_out() -> None:
    both = b'data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":2,"completion_tokens":1}}\n\n'
    (block,) = blocks_of_events(both)
    assert (block.num_tokens, block.is_usage_only) == (1, False)
    assert block.usage == {"prompt_tokens": 2, "completion_tokens": 1}


def test_a_model_that_writes_the_word_usage_loses_nothing() -> None:
    tricky = b'data: {"choices":[{"delta":{"content":"\\"usage\\":{\\"prompt_tokens\\":9}"}}]}\n\n'
    (block,) = blocks_of_events(tricky)
    assert (block.data, block.usage, block.text) == (tricky, None, '"usage":{"prompt_tokens":9}')


@pytest.mark.parametrize(
    ("events", "num_tokens"),
    [
        (ROLE, 0),
        (ROLE + WORD + WORD, 2),
        (b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n', 1),
        (b'data: {"choices":[{"delta":{"reasoning":"hm"}}]}\n\n', 1),
        (b'data: {"choices":[{"delta":{"reasoning":"hm","reasoning_content":"hm"}}]}\n\n', 1),
        (b'data: {"choices":[{"text":" x"}]}\n\n', 1),
        (b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}\n\n', 1),
    ],
)
def test_a_piece_of_the_answer_counts_and_a_role_does_not(events: bytes, num_tokens: int) -> None:
    assert sum(block.num_tokens for block in blocks_of_events(events)) == num_tokens
    assert sum(block.num_tokens for block in blocks_of_chunks(parsed(events))) == num_tokens


def test_parsed_chunks_give_the_same_blocks() -> None:
    blocks = list(blocks_of_chunks(parsed(ROLE + WORD + USAGE + DONE)))
    assert [block.data for block in blocks] == [ROLE + WORD, USAGE, DONE]
    assert [(block.is_usage_only, block.is_last) for block in blocks] == [(False, False), (True, False), (False, True)]


def test_the_text_of_a_block_is_the_first_answers() -> None:
    two = event({"choices": [{"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": "yes"}}]})
    (block,) = blocks_of_events(WORD + two)
    assert block.text == "hiyes"
