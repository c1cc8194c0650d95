"""A browser tab, as far as the page's JSON application can tell: headers, cookies, streams."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson

from gateways import Running


class Refused(Exception):
    """An answer that is not 2xx; `error` is its error object."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(f"{status} {error}")
        self.status = status
        self.error = error


class Tab:
    """Sends what the page sends. `url` is the gateway's; cookies are its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), headers={"X-Chaku": "1"})

    async def raw(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, bytes, Any]:
        """Status, bytes, headers."""
        data = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        async with self.http.request(method, self.url + path, data=data, **options) as response:
            return response.status, await response.read(), response.headers

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The JSON of a good answer, None for an empty one. Raises Refused."""
        status, content, _ = await self.raw(method, "/api" + path, body, **options)
        parsed = orjson.loads(content) if content else None
        if status >= 300:
            assert set(parsed) == {"error"} and set(parsed["error"]) == {"message", "type", "param", "code", "fix"}
            raise Refused(status, parsed["error"])
        return parsed

    async def chat(self, **fields: Any) -> str:
        """A new chat's id."""
        return (await self.call("POST", "/chats", fields))["id"]

    async def say(self, chat: str, text: Any, parent: str | None = None, **fields: Any) -> tuple[dict, dict]:
        """A user message and the answer that begins."""
        body = {"parent_id": parent, "content": text, "model": "scripted", **fields}
        sent = await self.call("POST", f"/chats/{chat}/messages", body)
        return sent["user"], sent["answer"]

    async def ask(self, chat: str, text: Any, parent: str | None = None, **fields: Any) -> tuple[dict, dict]:
        """A user message and its whole answer."""
        user, answer = await self.say(chat, text, parent, **fields)
        return user, await self.whole(chat, answer["id"])

    async def whole(self, chat: str, message: str) -> dict:
        """An answer once it is over."""
        async with self.stream(f"/chats/{chat}/messages/{message}/stream") as events:
            *_, (_, last) = [event async for event in events]
        assert last["type"] in ("done", "failed")
        return last["message"]

    async def texts(self, chat: str) -> list[str]:
        """What the messages of a chat say."""
        return [message["content"] for message in (await self.call("GET", f"/chats/{chat}"))["messages"]]

    @contextlib.asynccontextmanager
    async def stream(self, path: str, **options: Any) -> AsyncIterator[AsyncIterator[tuple[int | None, dict]]]:
        """Number and data of the events of a stream; leaving closes the connection."""
        async with self.http.get(f"{self.url}/api{path}", **options) as response:
            if response.status != 200:
                raise Refused(response.status, (await response.json())["error"])
            assert response.headers["content-type"].startswith("text/event-stream")
            yield _events(response)

    async def close(self) -> None:
        await self.http.close()


@contextlib.asynccontextmanager
async def tab(g: Running | str, key: str | None = None) -> AsyncIterator[Tab]:
    """An open tab, logged in with a key if one is given."""
    opened = Tab(g if isinstance(g, str) else g.url)
    try:
        if key is not None:
            await opened.call("POST", "/login", {"key": key})
        yield opened
    finally:
        await opened.close()


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[int | None, dict]]:
    number: int | None = None
    async for line in response.content:
        if line.startswith(b"id: "):
            number = int(line[4:])
        elif line.startswith(b"data: "):
            yield number, orjson.loads(line[6:])
