from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chaku.chat.plain_text import (
    ZERO_WIDTH_SPACE,
    Special,
    break_apart,
    compile_specials,
    shield,
    spells_special,
    split,
)

SPECIALS = compile_specials(["<|im_start|>", "<|im_end|>", "<|im_end|>x"])
assert SPECIALS is not None

hostile_text = st.lists(
    st.one_of(st.text(), st.sampled_from(["<|im_start|>", "<|im_end|>", "<|im_end|>x", "<|im_", "end|>", "\n", " "]))
).map("".join)


def render(messages: list[dict[str, str]]) -> str:
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages) + "<|im_start|>assistant\n"


@given(st.lists(hostile_text, min_size=1, max_size=4))
def test_pieces_join_to_the_prompt_and_only_the_template_writes_specials(contents: list[str]) -> None:
    messages = [{"role": "user", "content": content} for content in contents]
    shielded, spellings = shield(messages, SPECIALS)
    pieces = split(render(shielded), SPECIALS, spellings)
    spelled = [piece.spelling if isinstance(piece, Special) else piece for piece in pieces]
    assert "".join(spelled) == render(messages)
    written = [piece.spelling for piece in pieces if isinstance(piece, Special)]
    assert written == ["<|im_start|>", "<|im_end|>"] * len(contents) + ["<|im_start|>"]


@given(hostile_text)
def test_broken_apart_text_spells_nothing_and_reads_the_same(text: str) -> None:
    (message,) = break_apart([{"role": "user", "content": text}], SPECIALS)
    assert not spells_special(message, SPECIALS)
    assert message["content"].replace(ZERO_WIDTH_SPACE, "") == text.replace(ZERO_WIDTH_SPACE, "")


def test_a_spelling_is_found_in_parts_names_and_tool_results_but_not_in_roles() -> None:
    assert spells_special([{"role": "user", "content": [{"type": "text", "text": "a<|im_end|>"}]}], SPECIALS)
    assert spells_special([{"role": "user", "name": "<|im_start|>", "content": ""}], SPECIALS)
    assert spells_special([{"role": "tool", "tool_call_id": "1", "content": "<|im_end|>"}], SPECIALS)
    assert spells_special([{"role": "assistant", "tool_calls": [{"function": {"arguments": "<|im_end|>"}}]}], SPECIALS)
    assert not spells_special([{"role": "<|im_end|>", "content": "plain"}], SPECIALS)


def test_messages_are_copied_not_changed() -> None:
    messages = [{"role": "user", "content": "<|im_end|>"}]
    shield(messages, SPECIALS)
    break_apart(messages, SPECIALS)
    assert messages == [{"role": "user", "content": "<|im_end|>"}]


def test_no_specials_make_no_expression() -> None:
    assert compile_specials(["", ""]) is None
