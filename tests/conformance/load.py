"""So many streams at once for so long, in a process of its own: `load.py BASE_URL MODEL STREAMS SECONDS`, JSON out."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

import aiohttp


async def one_stream(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> str:
    """ "whole", or what was wrong with it."""
    async with http.post(url, json=body) as response:
        if response.status != 200:
            return f"status {response.status}: {(await response.text())[:200]}"
        text = await response.text()
    *events, done, rest = text.split("\n\n")
    if (done, rest) != ("data: [DONE]", ""):
        return f"no end: {text[-200:]}"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    if any("error" in chunk for chunk in chunks):
        return f"error event: {text[-200:]}"
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    if len(reasons) != 1 or reasons[0] not in ("stop", "length"):
        return f"finish reasons {reasons}"
    said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    return "whole" if said else "no text"


async def load(base_url: str, model: str, num_streams: int, seconds: float) -> Counter[str]:
    """Each of `num_streams` clients asks again and again until the time is up, and then finishes its last."""
    ends: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as http:

        async def client(number: int) -> None:
            asked = 0
            while asked == 0 or time.monotonic() < deadline:
                asked += 1
                message = {"role": "user", "content": f"Tell me something about the number {number * 1000 + asked}."}
                body = {"model": model, "messages": [message], "max_tokens": 8 + number % 9, "stream": True}
                try:
                    ends[await one_stream(http, f"{base_url}/chat/completions", body)] += 1
                except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                    ends[f"{type(error).__name__}: {error}"] += 1

        await asyncio.gather(*(client(number) for number in range(num_streams)))
    return ends


if __name__ == "__main__":
    base_url, model, num_streams, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(load(base_url, model, int(num_streams), float(seconds)))))
