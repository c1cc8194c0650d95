"""One bad imported record breaks no view: it is repaired or refused, and the reason is counted."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaku.policies import ImageLimits
from chaku.web import other_exports
from chaku.web.imports import repair_line
from gateways import page_gateway
from tabs import Refused, tab

TIMES = {"created_at": "2026-03-01T12:00:00Z", "updated_at": "2026-03-01T12:00:00Z"}


def line(*messages: dict[str, Any], **facts: Any) -> str:
    """A conversation as chaku exports it."""
    return json.dumps(
        {"title": "t", "messages": messages, "chaku": {**TIMES, "is_pinned": False, "is_shown": True, **facts}}
    )


def answer(**facts: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "Hello", "chaku": {"id": "m", **TIMES, **facts}}


BAD = [
    (line({"role": "user", "content": [{"type": "image_url"}]}), "a content part of type image_url"),
    (line({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}), "a content part of type image_url"),
    (line(answer(usage={"prompt_tokens": "many"})), "usage that is none"),
    (line(answer(usage={"prompt_tokens": 1, "prompt_tokens_details": [1]})), "usage that is none"),
    (line(answer(sampling={"stop": "x"})), "sampling.stop became a list"),
    (line(answer(sampling={"temperature": "hot"})), "sampling.temperature"),
    (line(settings={"stop": "x"}), "settings.stop became a list"),
    (line(settings={"nonsense": 1}), "settings.nonsense"),
    (line({"role": "assistant", "content": None, "tool_calls": [{"function": 1}]}), "tool_calls"),
    (line(answer(state="failed", error={"code": 1})), "an error without a message"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_what_the_page_could_not_show_is_repaired_and_counted(bad: str, reason: str) -> None:
    repairs: Counter[str] = Counter()
    repaired = repair_line(bad.encode(), repairs, ImageLimits())
    assert [key for key in repairs if key.startswith(reason)] and repairs.total() == 1
    again: Counter[str] = Counter()
    assert (repair_line(repaired, again, ImageLimits()), again.total()) == (repaired, 0)


@pytest.mark.parametrize("content", ["half \ud83d", "whole"])
def test_what_the_store_reads_and_orjson_does_not_is_repaired_too(content: str) -> None:
    repairs: Counter[str] = Counter()
    given = {"role": "user", "content": content, "tool_calls": [{"n": 10**30}]}
    repaired = json.loads(repair_line(line(given, note=10**30).encode(), repairs, ImageLimits()))
    assert list(repairs) == ["tool_calls that are none were left out"]
    assert repaired["messages"] == [{"role": "user", "content": content}]
    assert repaired["chaku"]["note"] == 10**30


async def test_chats_with_bad_records_open_and_can_be_asked_on(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        lines = "\n".join(bad for bad, _ in BAD).encode()
        said = await me.call("POST", "/import", lines)
        assert (said["imported"], said["skipped"]) == (len(BAD), [])
        assert sum(said["repaired"].values()) == len(BAD)
        for row in (await me.call("GET", "/chats"))["chats"]:
            chat = await me.call("GET", f"/chats/{row['id']}")
            settings = [chat["settings"], *(message["settings"] for message in chat["messages"])]
            assert all(isinstance(given.get("stop", []), list) for given in settings)
            parent = chat["messages"][-1]["id"] if chat["messages"] else None
            assert (await me.ask(row["id"], "Hi", parent))[1]["state"] == "complete"


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        ({"model": "nul \0"}, "printable"),
        ({"finish_reason": "x" * 1000}, "printable"),
        ({"created_at": "0001-01-01T00:00:00+14:00"}, "1970"),
    ],
)
async def test_what_no_database_can_keep_is_refused_with_its_line(
    database: Path, facts: dict[str, Any], cause: str
) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        good, bad = line(answer()), line(answer(**facts))
        said = await me.call("POST", "/import", f"{good}\n{bad}\n".encode())
    assert (said["imported"], [skipped["line"] for skipped in said["skipped"]]) == (1, [2])
    assert cause in said["skipped"][0]["reason"]


CURSORS = [
    "AAAA",
    "W" * 5000,
    '[true,"0001-01-01T00:00:00+14:00","x"]',
    '[true,"2026-01-01T00:00:00+00:00","nul \\u0000"]',
    "[" * 100_000,
    "[]",
    "null",
    "[1,2,3]",
    '[true,"9999-12-31T23:59:59-14:00","019540d5-0000-7000-8000-000000000000"]',
]


async def test_a_hostile_cursor_is_a_400(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        for text in CURSORS:
            cursor = base64.urlsafe_b64encode(text.encode()).decode() if text.startswith(("[", "n")) else text
            with pytest.raises(Refused) as refused:
                await me.call("GET", f"/chats?before={cursor[:7000]}")
            assert (refused.value.status, refused.value.error["param"]) == (400, "before")


_KEYS = st.sampled_from(["type", "text", "stop", "usage", "id", "function", "message"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(content=_JSON, usage=_JSON, sampling=_JSON, calls=_JSON, error=_JSON)
def test_a_repaired_line_needs_no_more_repair(content: Any, usage: Any, sampling: Any, calls: Any, error: Any) -> None:
    message = {"role": "assistant", "content": content, "tool_calls": calls}
    bad = line({**message, "chaku": {"id": "m", "usage": usage, "sampling": sampling, "error": error}})
    repaired = repair_line(bad.encode(), Counter(), ImageLimits())
    again: Counter[str] = Counter()
    assert (repair_line(repaired, again, ImageLimits()), again.total()) == (repaired, 0)


SHAREGPT = {
    "id": "a1",
    "conversations": [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "What is a vicuña?"},
        {"from": "gpt", "value": "A small camelid."},
    ],
}
CHATGPT = {
    "title": "Rivers",
    "current_node": "d",
    "mapping": {
        "a": {"id": "a", "parent": None, "message": None},
        "b": {
            "id": "b",
            "parent": "a",
            "message": {"author": {"role": "user"}, "content": {"content_type": "text", "parts": ["Longest?"]}},
        },
        "c": {
            "id": "c",
            "parent": "b",
            "message": {"author": {"role": "assistant"}, "content": {"content_type": "text", "parts": ["Amazon"]}},
        },
        "d": {
            "id": "d",
            "parent": "b",
            "message": {"author": {"role": "assistant"}, "content": {"content_type": "text", "parts": ["Nile"]}},
        },
    },
}
CLAUDE = {
    "uuid": "u1",
    "name": "Bread",
    "chat_messages": [{"sender": "human", "text": "How?"}, {"sender": "assistant", "text": "Flour and water."}],
}
WEBUI = {
    "id": "w1",
    "title": "Tea",
    "chat": {"messages": [{"role": "user", "content": "Green?"}, {"role": "assistant", "content": "Yes."}]},
}


async def said_in(me: Any) -> dict[str, list[tuple[str, str]]]:
    """What each chat holds, by title; its system prompt first."""
    found = {}
    for row in (await me.call("GET", "/chats"))["chats"]:
        chat = await me.call("GET", f"/chats/{row['id']}")
        system = [("system", chat["system"])] if chat["system"] else []
        found[row["title"]] = system + [(message["role"], message["content"]) for message in chat["messages"]]
    return found


async def test_exports_of_other_programs_become_chats_and_bad_records_cost_only_themselves(database: Path) -> None:
    bad = [{"conversations": [{"from": "alien", "value": "?"}]}, {"weather": "fine"}, 7]
    array = json.dumps([SHAREGPT, bad[0], CHATGPT, bad[1], CLAUDE, WEBUI, bad[2]], indent=1).encode()
    async with page_gateway(database) as g, tab(g) as me:
        said = await me.call("POST", "/import", array)
        assert (said["imported"], [one["line"] for one in said["skipped"]]) == (4, [2, 4, 7])
        assert "alien" in said["skipped"][0]["reason"] and "weather" in said["skipped"][1]["reason"]
        assert said["repaired"] == {"a branch that was not open was left out": 1}
        assert await said_in(me) == {
            "What is a vicuña?": [
                ("system", "Be kind."),
                ("user", "What is a vicuña?"),
                ("assistant", "A small camelid."),
            ],
            "Rivers": [("user", "Longest?"), ("assistant", "Nile")],
            "Bread": [("user", "How?"), ("assistant", "Flour and water.")],
            "Tea": [("user", "Green?"), ("assistant", "Yes.")],
        }


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(SHAREGPT),
        json.dumps([SHAREGPT]),
        json.dumps(SHAREGPT, indent=2),
        f"no json\n{json.dumps(SHAREGPT)}\n",
    ],
)
async def test_the_container_of_the_records_does_not_matter(database: Path, content: str) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        assert (await me.call("POST", "/import", content.encode()))["imported"] == 1


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"PK\x03\x04rest", "compressed"), (b"\x89PNG\r\n", "image"), (b"prompt,response\n1,2\n", "csv")],
)
async def test_a_file_that_is_no_json_is_refused_with_the_way_out(database: Path, content: bytes, cause: str) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        with pytest.raises(Refused) as refused:
            await me.call("POST", "/import", content)
        assert refused.value.status == 400 and cause in refused.value.error["message"] and refused.value.error["fix"]


@given(records=st.lists(_JSON | st.just(SHAREGPT), max_size=4))
def test_each_record_is_converted_or_named(records: list[Any]) -> None:
    converted = other_exports.convert(json.dumps([*records, SHAREGPT]).encode())
    numbers = {*converted.records, *(one.line for one in converted.skipped)}
    assert numbers == set(range(1, len(records) + 2)) and converted.records[-1] == len(records) + 1
