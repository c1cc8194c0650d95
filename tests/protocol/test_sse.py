"""Server-sent events, whatever the network does to their bytes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaku.errors import EngineError
from chaku.protocol.sse import Parser, SseEvent

# Text of one data line: anything but the characters that end a line.
lines = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)
events = st.builds(
    lambda data, name: SseEvent("\n".join(data), name or "message"),
    st.lists(lines, min_size=1, max_size=4),
    st.text(st.characters(min_codepoint=97, max_codepoint=122), max_size=5),
)
line_ends = st.sampled_from(["\n", "\r\n", "\r"])


def feed_all(pieces):
    parser = Parser()
    return [event for piece in pieces for event in parser.feed(piece)]


@st.composite
def cut_streams(draw):
    """A list of events, and their bytes with comments and any line ends, cut anywhere."""
    expected = draw(st.lists(events, max_size=5))
    text = "\ufeff" if draw(st.booleans()) else ""
    for event in expected:
        sent = [f"event: {event.name}"] if event.name != "message" else []
        spaces = [" " if line.startswith(" ") else draw(st.sampled_from(["", " "])) for line in event.data.split("\n")]
        sent += [f"data:{space}{line}" for space, line in zip(spaces, event.data.split("\n"), strict=True)]
        sent.insert(draw(st.integers(0, len(sent))), draw(st.sampled_from([": keep-alive", ":", "id: 7", "retry: 10"])))
        line_end = draw(line_ends)  # one for the event: CR and then LF would be one line end, not two
        text += "".join(line + line_end for line in sent) + line_end
    sent_bytes = text.encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(sent_bytes)), max_size=8)))
    borders = [0, *cuts, len(sent_bytes)]
    return expected, [sent_bytes[a:b] for a, b in itertools.pairwise(borders)]


@given(cut_streams())
def test_events_come_back_whole_wherever_the_bytes_are_cut(stream):
    expected, pieces = stream
    assert feed_all(pieces) == expected


def test_every_single_byte_border_gives_the_same_events():
    sent = ': hi\r\ndata: {"a":"é🦙"}\r\n\r\ndata:one\ndata: two\n\n\rdata: [DONE]\r\r'.encode()
    expected = [SseEvent('{"a":"é🦙"}'), SseEvent("one\ntwo"), SseEvent("[DONE]")]
    for border in range(len(sent) + 1):
        assert feed_all([sent[:border], sent[border:]]) == expected
    assert feed_all([bytes([byte]) for byte in sent]) == expected


def test_an_event_without_its_empty_line_is_not_an_event():
    assert feed_all([b"data: cut off\n"]) == []


def test_only_one_space_after_the_colon_is_taken_away():
    assert feed_all([b"data:  two\n\ndata\n\n"]) == [SseEvent(" two"), SseEvent("")]


@pytest.mark.parametrize("endless", [b"data: xxxxxxxxxx", b"data: x\n"])
def test_an_endless_event_is_refused_instead_of_filling_the_memory(endless):
    parser = Parser(max_event_bytes=1000)
    with pytest.raises(EngineError, match="1,000 bytes"):
        for _ in range(1000):
            parser.feed(endless)
