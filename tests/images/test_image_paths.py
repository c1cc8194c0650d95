"""Images from clients, the page and the terminal reach an engine, an upstream and the store without metadata."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from chaku.cli.terminal.attached import dropped_images
from chaku.engines.base import Engine
from chaku.engines.scripted import Reply
from chaku.engines.upstream import UpstreamEngine
from chaku.images.data_url import clean
from chaku.settings import ModelConfig
from fake_openai import FakeServer
from gateways import CHAT, chat, gateway, page_gateway, scripted
from images.pictures import saved
from processes import environment
from tabs import Refused, tab
from terminal import Terminal

PHOTO = saved("JPEG", orientation=6)
DATA = base64.b64encode(PHOTO).decode()
URL = f"data:image/jpeg;base64,{DATA}"
PART = {"type": "image_url", "image_url": {"url": URL}}
TEXT = {"type": "text", "text": "What is this?"}
CLEANED = clean(PHOTO).content
SEEN = f"image/jpeg of {len(CLEANED)} bytes, sha256 {hashlib.sha256(CLEANED).hexdigest()}"


def eyes(name: str = "scripted") -> Engine:
    """An engine that answers what it saw."""
    return scripted(Reply(text="I see {images}"), name=name, vision=True)


def asked(*parts: Any) -> dict[str, Any]:
    return chat() | {"messages": [{"role": "user", "content": list(parts)}]}


async def test_an_engine_sees_the_pixels_and_no_metadata_whatever_api_is_spoken() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": DATA}  # a wrong type is put right
    message = [{"role": "user", "content": [{"type": "image", "source": source}, TEXT]}]
    entry = [{"role": "user", "content": [{"type": "input_image", "image_url": URL, "detail": "auto"}]}]
    async with gateway(eyes()) as g:
        _, openai, _ = await g.post(CHAT, asked(TEXT, PART))
        _, anthropic, _ = await g.post(
            "/v1/messages", {"model": "scripted", "max_tokens": 50, "messages": message},
            headers={"anthropic-version": "2023-06-01"},
        )  # fmt: skip
        _, responses, _ = await g.post("/v1/responses", {"model": "scripted", "input": entry, "store": False})
    assert openai["choices"][0]["message"]["content"] == f"I see {SEEN}"
    assert anthropic["content"][0]["text"] == f"I see {SEEN}"
    assert responses["output"][-1]["content"][0]["text"] == f"I see {SEEN}"


async def test_an_upstream_gets_images_without_metadata_and_addresses_as_they_are() -> None:
    remote = {"type": "image_url", "image_url": {"url": "https://images.example/cat.png"}}
    with FakeServer().running() as upstream:
        engine = UpstreamEngine("scripted", ModelConfig(source=upstream.base_url, upstream_model="fake"))
        async with gateway(engine) as g:
            events = await g.events(CHAT, asked(TEXT, PART, remote) | {"stream": True})
    assert events[-1] == "[DONE]"
    content = upstream.bodies[-1]["messages"][0]["content"]
    assert base64.b64decode(content[1]["image_url"]["url"].partition(",")[2]) == CLEANED
    assert content[2] == remote


async def test_refusals_name_the_field_the_value_the_limit_and_the_way_out() -> None:
    async with gateway(eyes(), image_limits={"megapixels": 0.00001, "count": 2}) as g:
        status, many, _ = await g.post(CHAT, asked(PART, PART, PART))
        _, large, _ = await g.post(CHAT, asked(TEXT, PART))
        _, broken, _ = await g.post(CHAT, asked({"type": "image_url", "image_url": {"url": URL[:200]}}))
        _, local, _ = await g.post(CHAT, asked({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}))
    assert status == 400
    assert (large["error"]["code"], large["error"]["param"]) == ("image_too_large", "messages.0.content.1")
    assert "(7 x 5), this server takes 1e-05" in large["error"]["message"]
    assert "--image-limit megapixels=" in large["error"]["message"]
    assert many["error"]["code"] == "image_too_large"
    assert broken["error"]["code"] == "invalid_image"
    assert local["error"]["param"] == "messages.0.content.0"
    async with gateway(eyes(), image_limits={"count": 2}) as g:
        _, many, _ = await g.post(CHAT, asked(PART, PART, PART))
    assert (many["error"]["code"], many["error"]["param"]) == ("too_many_images", "messages.0.content.2")
    async with gateway() as g:
        _, blind, _ = await g.post(CHAT, asked(TEXT, PART))
    assert "can't see images" in blind["error"]["message"]


async def test_the_store_of_the_page_keeps_no_metadata_sent_edited_or_imported(tmp_path: Path) -> None:
    async with page_gateway(tmp_path / "chaku.db", eyes()) as g, tab(g) as me:
        room = await me.chat()
        user, answer = await me.ask(room, [TEXT, PART])
        assert answer["content"] == f"I see {SEEN}"
        edited = await me.call("POST", f"/chats/{room}/messages/{user['id']}/edit", {"content": [TEXT, PART]})
        line = json.dumps({"messages": [{"role": "user", "content": [TEXT, PART]}]})
        imported = await me.call("POST", "/import", line.encode())
        with pytest.raises(Refused, match="invalid_image"):
            await me.say(room, [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}])
    assert imported["repaired"] == {"an image was written anew without metadata": 1}
    for content in (user["content"], edited["message"]["content"]):
        assert base64.b64decode(content[1]["image_url"]["url"].partition(",")[2]) == CLEANED
    kept = b"".join(file.read_bytes() for file in tmp_path.glob("chaku.db*"))
    assert base64.b64encode(CLEANED)[:200] in kept and DATA[:400].encode() not in kept


async def test_the_terminal_attaches_images_and_says_why_it_does_not(tmp_path: Path) -> None:
    photo, fake = tmp_path / "my photo.jpg", tmp_path / "fake.png"
    photo.write_bytes(PHOTO)
    fake.write_text("no image")
    env = environment(CHAKU_DATA=str(tmp_path))

    def talk(url: str) -> None:
        command = [sys.executable, "-m", "chaku", "chat", "--base-url", url, "-m", "eyes"]
        terminal = Terminal(command, env, columns=250)
        try:
            terminal.expect("/help")
            terminal.send(f"'{photo}'\r")  # as a terminal types a file that is dropped
            terminal.expect("my photo.jpg (7 x 5, ")
            terminal.send("What is this?\r")
            terminal.expect(SEEN[-64:])
            terminal.send("And now?\r")
            terminal.expect("no image")
            terminal.send(f"/image {fake}\r")
            terminal.expect("neither JPEG, PNG, WebP nor GIF")
            terminal.send("/model blind\r")
            terminal.expect("answers from now on")
            terminal.send(f"/image '{photo}'\r")
            terminal.expect("blind can't see images")
            terminal.send("/quit\r")
            assert terminal.wait() == 0
        finally:
            terminal.close()

    async with gateway(eyes("eyes"), scripted(name="blind")) as g:
        await asyncio.to_thread(talk, f"{g.url}/v1")


def test_only_a_line_of_nothing_but_images_counts_as_dropped(tmp_path: Path) -> None:
    photo = tmp_path / "it's a.png"
    photo.write_bytes(b"")
    escaped = str(photo).replace("'", "\\'").replace(" ", "\\ ")
    assert dropped_images(f"{escaped} ") == [photo]
    for typed in (f"look at {escaped}", "it's", "/nowhere.png", "x" * 10_000, str(tmp_path), ""):
        assert dropped_images(typed) == []


async def test_a_large_image_does_not_hold_up_other_requests() -> None:
    """Steps of cleaning run beside the event loop: its longest pause stays far below the time that cleaning takes."""
    noise = base64.b64encode(PHOTO[:-2] + os.urandom(12_000_000).replace(b"\xff", b"\0") + b"\xff\xd9").decode()
    body = json.dumps(asked({"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{noise}"}})).encode()
    async with gateway(eyes()) as g, aiohttp.ClientSession() as http:
        loop, pauses, is_over = asyncio.get_running_loop(), [], asyncio.Event()

        async def watch() -> None:
            while not is_over.is_set():
                begun = loop.time()
                await asyncio.sleep(0.001)
                pauses.append(loop.time() - begun)

        watching = asyncio.create_task(watch())
        async with http.post(
            g.url + CHAT, data=io.BytesIO(body), headers={"content-type": "application/json"}
        ) as response:
            assert response.status == 200, await response.text()
        is_over.set()
        await watching
    assert max(pauses) < 1
