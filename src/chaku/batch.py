"""A file of requests, sent to an OpenAI-compatible API; each answer is recorded as it comes, and never asked for again.

Requests and answers are lines in the format of OpenAI's Batch API. A run that was killed is resumed by its output.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from chaku.errors import UsageError
from chaku.http_out import Retries, Transport
from chaku.records import AppendOnly, append_only

URLS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
RETRIES = Retries(limit=20, budget_s=600.0)
"""A full queue and an engine that restarts are waited for."""


@dataclass(frozen=True)
class BatchRequest:
    """One line of the input."""

    custom_id: str
    url: str
    body: dict[str, Any]

    @property
    def id(self) -> str:
        """The same for the same request: a changed one is noticed when a run is resumed."""
        content = orjson.dumps([self.url, self.body], option=orjson.OPT_SORT_KEYS)
        return f"batch_req_{hashlib.sha256(content).hexdigest()[:24]}"


def read_requests(path: Path, model: str | None) -> list[BatchRequest]:
    """The requests of a file, in its order. `model` is for those that name none.

    A line is one of OpenAI's batches, or an object with `messages` or `prompt` and further fields of a chat request.
    Raises UsageError with the line's number.
    """
    requests: dict[str, BatchRequest] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise UsageError(f"{place} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UsageError(f"{place} is not a JSON object")
        request = _request(row, model, place, number)
        if requests.setdefault(request.custom_id, request) is not request:
            raise UsageError(f"{place}: custom_id {request.custom_id!r} is there twice")
    if not requests:
        raise UsageError(f"{path} holds no requests")
    return list(requests.values())


def _request(row: dict[str, Any], model: str | None, place: str, number: int) -> BatchRequest:
    custom_id = row.pop("custom_id", f"line-{number}")
    if not isinstance(custom_id, str):
        raise UsageError(f"{place}: custom_id is not a text")
    if "body" in row:
        url, body, method = row.pop("url", None), row.pop("body"), row.pop("method", "POST")
        if url not in URLS or method != "POST" or not isinstance(body, dict) or row:
            wrong = f"unknown field {next(iter(row))!r}" if row else f"{method} {url}"
            raise UsageError(f"{place} is not a request of a batch: {wrong}", fix=f"urls: {', '.join(URLS)}")
    else:
        url, body = URLS[0], row
        if isinstance(prompt := body.pop("prompt", None), str):
            body = {"messages": [{"role": "user", "content": prompt}], **body}
        if "messages" not in body:
            raise UsageError(f"{place} has no body, messages or prompt")
    if body.get("stream"):
        raise UsageError(f"{place}: a batch does not stream: leave stream out")
    if body.get("model") is None:
        if model is None:
            raise UsageError(f"{place} names no model", fix="name one with -m")
        body["model"] = model
    return BatchRequest(custom_id, url, body)


class Answers:
    """The output: one whole line for each answer, in the order in which they came."""

    def __init__(self, file: AppendOnly, ids: dict[str, str]) -> None:
        self._file = file
        self._ids = ids

    def missing(self, requests: list[BatchRequest]) -> list[BatchRequest]:
        """The requests without an answer. Raises UsageError where a request was changed after its answer came."""
        for request in requests:
            if self._ids.get(request.custom_id, request.id) != request.id:
                what = f"the request {request.custom_id!r} was changed after its answer came"
                raise UsageError(what, fix="write to another file with -o")
        return [request for request in requests if request.custom_id not in self._ids]

    def add(self, answer: dict[str, Any]) -> None:
        """Record an answer: when this returns, the death of this process can't lose it."""
        self._file.add(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))
        self._ids[answer["custom_id"]] = answer["id"]


@contextmanager
def open_answers(path: Path) -> Iterator[Answers]:
    """The answers in a file, which may be new. A last line that a killed run left unfinished is not an answer.

    Raises UsageError for a file that another run writes, or that holds something else.
    """
    with append_only(path) as file:
        ids: dict[str, str] = {}
        for number, line in enumerate(file.lines, 1):
            try:
                row = orjson.loads(line)
                ids[row["custom_id"]] = row["id"]
            except (orjson.JSONDecodeError, KeyError, TypeError):
                raise UsageError(f"{path}:{number} is no answer of a batch", fix="name another file with -o") from None
        yield Answers(file, ids)


class Pacer:
    """Spreads requests evenly: at most so many begin within a minute."""

    def __init__(
        self,
        per_minute: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """None is no limit. `clock` tells seconds."""
        self._apart_s = 60 / per_minute if per_minute else 0.0
        self._clock = clock
        self._sleep = sleep
        self._next = float("-inf")

    async def wait(self) -> None:
        """Return when the next request may begin; callers get their turns in the order in which they came."""
        now = self._clock()
        begins = max(now, self._next)
        self._next = begins + self._apart_s
        if begins > now:
            await self._sleep(begins - now)


async def run(
    requests: list[BatchRequest],
    transport: Transport,
    answers: Answers,
    *,
    parallel: int,
    pacer: Pacer,
    watch: Callable[[dict[str, Any]], None],
) -> None:
    """Send requests, at most `parallel` at once and as `pacer` lets them begin; `watch` sees each recorded answer.

    A refusal is an answer too. Raises EngineUnavailable when the server stays away: then nothing more is recorded.
    """
    waiting = iter(requests)

    async def worker() -> None:
        for request in waiting:
            await pacer.wait()
            status, body = await transport.json("POST", request.url.removeprefix("/v1"), request.body, retries=RETRIES)
            answer = {
                "id": request.id,
                "custom_id": request.custom_id,
                "response": {"status_code": status, "body": body},
                "error": None if status == 200 else body.get("error", body) if isinstance(body, dict) else body,
            }
            answers.add(answer)
            watch(answer)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(parallel, len(requests))):
            group.create_task(worker())
