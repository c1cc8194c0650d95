"""HEAD on every path that takes GET: the same status and headers, and no body."""

from __future__ import annotations

from typing import Any

from chaku.serve.relay import AsgiMessage, Receive, Send


def as_get(scope: Any, receive: Receive, send: Send) -> tuple[Any, Receive, Send]:
    """A GET for the application. It is told that the client left once the head is out, so that no stream runs on."""
    is_answered = False

    async def receive_until_answered() -> AsgiMessage:
        return {"type": "http.disconnect"} if is_answered else await receive()

    async def send_head(message: AsgiMessage) -> None:
        nonlocal is_answered
        if not is_answered and message["type"] == "http.response.start":
            is_answered = True
            await send(message)
            await send({"type": "http.response.body", "body": b""})

    return {**scope, "method": "GET"}, receive_until_answered, send_head
