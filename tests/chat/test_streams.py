from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import real_tokenizers
from chaku.chat.detokenize import StreamDetokenizer
from chaku.chat.stopping import StopStrings
from chaku.errors import InvalidRequest
from conversations import any_text

every_tokenizer = pytest.mark.parametrize("name", real_tokenizers.names)


@every_tokenizer
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_streamed_text_is_the_text_and_every_piece_is_whole_characters(name: str, data: st.DataObject) -> None:
    tokenizer = real_tokenizers.load(name)
    text = data.draw(any_text)
    lost = tokenizer.lost_characters(text)
    text = "".join(character for character in text if character not in lost)
    stream = StreamDetokenizer(tokenizer)
    shown = ""
    for token_id in tokenizer.encode_text(text):
        shown += stream.push([token_id])
        assert text.startswith(shown)
    assert shown + stream.flush() == text


@every_tokenizer
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_ids_in_any_chunks_stream_to_what_they_decode_to(name: str, data: st.DataObject) -> None:
    tokenizer = real_tokenizers.load(name)
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=20))
    size = data.draw(st.integers(1, 5))
    stream = StreamDetokenizer(tokenizer)
    pieces = [stream.push(ids[start : start + size]) for start in range(0, len(ids), size)]
    assert "".join(pieces) + stream.flush() == tokenizer.decode(ids)


def test_half_an_emoji_is_held_back_until_it_is_whole() -> None:
    tokenizer = real_tokenizers.load("llama_spm")
    ids = tokenizer.encode_text("\U0001f9c9")
    assert len(ids) > 2
    stream = StreamDetokenizer(tokenizer)
    assert [stream.push([token_id]) for token_id in ids][-2:] == ["", "\U0001f9c9"]
    cut = StreamDetokenizer(tokenizer)
    assert cut.push(ids[:-1]) + cut.flush() == "�"


def test_special_tokens_can_be_left_out() -> None:
    tokenizer = real_tokenizers.load("llama_spm")
    ids = [1, *tokenizer.encode_text("Hi"), 2]
    assert tokenizer.decode(ids) == "<s>Hi</s>"
    assert StreamDetokenizer(tokenizer, skip_special=True).push(ids) == "Hi"


letters = st.text("ab#\n", max_size=30)
stops = st.lists(st.text("ab#\n", min_size=1, max_size=4), max_size=3)


def cut_at_first_complete(text: str, stops: list[str]) -> str:
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


@given(text=letters, stops=stops, cuts=st.lists(st.integers(0, 30)))
def test_stop_strings_cut_the_same_text_however_it_is_chunked(text: str, stops: list[str], cuts: list[int]) -> None:
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    watcher = StopStrings(stops)
    shown = ""
    for start, end in itertools.pairwise(borders):
        shown += watcher.push(text[start:end])
        assert watcher.stopped_by is not None or not any(stop in text[:end] for stop in stops)
        hidden = text[len(shown) : end]
        assert watcher.stopped_by or hidden == "" or any(stop.startswith(hidden) for stop in stops)
    assert shown + watcher.flush() == cut_at_first_complete(text, stops)


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    watcher = StopStrings(["\n###"])
    assert watcher.push("Hello\n") == "Hello"
    assert watcher.push("#no\n##") == "\n#no"
    assert watcher.push("#more") == ""
    assert (watcher.stopped_by, watcher.push("x"), watcher.flush()) == ("\n###", "", "")


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        StopStrings([""])
