"""A file of requests, sent to an OpenAI-compatible API; each answer is recorded as it comes, and never asked for again.

Requests and answers are lines in the format of OpenAI's Batch API. A run that was killed is resumed by its output.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from chaku.errors import ChakuError, UsageError
from chaku.http_out import Retries, Transport, read_json
from chaku.protocol.json_scan import loads
from chaku.records import AppendOnly, append_only

URLS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
FIELDS = ("custom_id", "method", "url", "body")
RETRIES = Retries(limit=20, budget_s=600.0)
"""A full queue and an engine that restarts are waited for."""


@dataclass(frozen=True)
class BatchLine:
    """One line of the input."""

    custom_id: str
    url: str
    body: dict[str, Any]

    @property
    def id(self) -> str:
        """The same for the same request: a changed one is noticed when a run is resumed."""
        content = orjson.dumps([self.url, self.body], option=orjson.OPT_SORT_KEYS)
        return f"batch_req_{hashlib.sha256(content).hexdigest()[:24]}"


class BadLine(UsageError):
    """A line of the input is no request of a batch; `code` says why in OpenAI's words."""


def read_requests(path: Path, model: str | None) -> list[BatchLine]:
    """The requests of a file, in its order. `model` is for those that name none.

    A line is one of OpenAI's batches, or an object with `messages` or `prompt` and further fields of a chat request.
    Raises UsageError with the line's number.
    """
    requests: dict[str, BatchLine] = {}
    for number, line in lines_of(path.read_bytes()):
        try:
            request = request_of(line, number, model)
        except BadLine as error:
            raise UsageError(f"{path}:{number}: {error.message}", fix=error.fix) from None
        if requests.setdefault(request.custom_id, request) is not request:
            what = f"{path}:{number}: custom_id {request.custom_id!r} is there twice"
            raise UsageError(what, fix="give each request its own custom_id, or none")
    if not requests:
        raise UsageError(f"{path} holds no requests", fix='write one per line, such as {"prompt": "Hello"}')
    return list(requests.values())


def lines_of(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and bytes of every line that is not blank."""
    return ((number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip())


def request_of(line: bytes, number: int, model: str | None, *, is_strict: bool = False) -> BatchLine:
    """The request in a line. With `is_strict` nothing but OpenAI's own form is taken. Raises BadLine."""
    try:
        row = loads(line)
    except orjson.JSONDecodeError as error:
        raise BadLine(f"the line is not JSON: {error}", code="invalid_json_line") from None
    if not isinstance(row, dict):
        raise BadLine("the line is not a JSON object", code="invalid_json_line")
    if is_strict and (absent := next((name for name in FIELDS if name not in row), None)) is not None:
        raise BadLine(f"the line has no {absent}", param=absent, code="missing_required_parameter")
    custom_id = row.pop("custom_id", f"line-{number}")
    if not isinstance(custom_id, str):
        raise BadLine("custom_id is not a text", param="custom_id", code="invalid_custom_id")
    if "body" in row:
        url, body, method = row.pop("url", None), row.pop("body"), row.pop("method", "POST")
        if url not in URLS or method != "POST" or not isinstance(body, dict) or row:
            wrong = f"unknown field {next(iter(row))!r}" if row else f"{method} {url}"
            fix = f"urls: {', '.join(URLS)}"
            raise BadLine(f"the line is not a request of a batch: {wrong}", fix=fix, code="invalid_request_line")
    else:
        url, body = URLS[0], row
        if isinstance(prompt := body.pop("prompt", None), str):
            body = {"messages": [{"role": "user", "content": prompt}], **body}
        if "messages" not in body:
            raise BadLine("the line has no body, messages or prompt", param="body", code="missing_required_parameter")
    if body.get("stream"):
        raise BadLine("a batch does not stream: leave stream out", param="body.stream", code="invalid_request_line")
    if body.get("model") is None:
        if model is None:
            fix = "name one with -m, or as model of the body"
            raise BadLine("the request names no model", fix=fix, param="body.model", code="missing_required_parameter")
        body["model"] = model
    return BatchLine(custom_id, url, body)


class Answers:
    """The output: one whole line for each answer, in the order in which they came."""

    def __init__(self, file: AppendOnly, ids: dict[str, str]) -> None:
        self._file = file
        self._ids = ids

    def missing(self, requests: list[BatchLine]) -> list[BatchLine]:
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


async def ask(transport: Transport, request: BatchLine, retries: Retries | None = None) -> dict[str, Any]:
    """Send a request; its answer as OpenAI's Batch API writes it. A refusal is an answer too.

    Raises ChakuError where the server is away, or refuses for longer than is waited for.
    """
    path = request.url.removeprefix("/v1")
    async with transport.request("POST", path, request.body, retries=retries or RETRIES) as response:
        body = await read_json(response, who=transport.who)
        request_id = response.headers.get("x-request-id")
        return {
            "id": request.id,
            "custom_id": request.custom_id,
            "response": {"status_code": response.status, "request_id": request_id, "body": body},
            "error": None,
        }


def has_failed(answer: dict[str, Any]) -> bool:
    """Whether an answer is a refusal or a failure."""
    response = answer["response"]
    return response is None or response["status_code"] != 200


Item = TypeVar("Item")


async def run(items: Iterable[Item], answer: Callable[[Item], Awaitable[None]], *, parallel: int) -> None:
    """Answer and record items, at most `parallel` at once.

    Raises the first ChakuError of `answer`. Then no further item is begun, and those that have begun come to their end.
    """
    waiting = iter(items)
    failures: list[ChakuError] = []

    async def worker() -> None:
        for item in waiting:
            if failures:
                return
            try:
                await answer(item)
            except ChakuError as failure:
                failures.append(failure)

    async with asyncio.TaskGroup() as group:
        for _ in range(parallel):
            group.create_task(worker())
    if failures:
        raise failures[0]
