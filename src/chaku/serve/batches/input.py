"""The input of a batch: its requests, and what keeps it from being run, in OpenAI's words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from chaku.batch import BadLine, BatchLine, lines_of, request_of
from chaku.errors import InvalidRequest, PayloadTooLarge
from chaku.protocol.json_scan import check_small, scan
from chaku.serve.body import CHAT_LIMITS, SMALL_BYTES, TEXT_LIMITS, MiB

MAX_REQUESTS = 50_000
MAX_ERRORS = 1000
"""Bad lines that are named."""
_LINE_LIMITS = replace(CHAT_LIMITS, structure_bytes=TEXT_LIMITS.structure_bytes, num_values=TEXT_LIMITS.num_values)
"""A line is a chat or a text completion."""


def faults_of(content: bytes, endpoint: str) -> tuple[list[dict[str, Any]], int]:
    """What keeps an input from being run, line by line as OpenAI's API names it, and the number of requests."""
    faults: list[dict[str, Any]] = []
    seen: set[str] = set()
    num_requests = num_bad = 0
    for number, line in lines_of(content):
        num_requests += 1
        if num_requests > MAX_REQUESTS:
            continue  # the file is refused: its other lines are only counted
        for found in _faults_of_line(line, number, endpoint, seen):
            num_bad += 1
            if num_bad <= MAX_ERRORS:
                faults.append(found)
    if num_bad > MAX_ERRORS:
        faults.append(fault("too_many_errors", f"{num_bad - MAX_ERRORS:,} more lines are at fault"))
    if not num_requests:
        faults.append(fault("empty_file", "the file holds no requests", param="input_file_id"))
    if num_requests > MAX_REQUESTS:
        what = f"the file holds {num_requests:,} requests, a batch takes {MAX_REQUESTS:,}"
        faults.append(fault("too_many_requests", what, param="input_file_id"))
    return faults, num_requests


def read_line(line: bytes, number: int) -> BatchLine:
    """The request in a line. Raises BadLine."""
    _measure(line)
    return request_of(line, number, None, is_strict=True)


def _measure(line: bytes) -> None:
    """Raises BadLine for what no request may cost: a thread that parses it would hold up every stream."""
    try:
        if len(line) > _LINE_LIMITS.body_bytes:
            raise PayloadTooLarge(f"the line is over {_LINE_LIMITS.body_bytes // MiB} MiB")
        if len(line) <= SMALL_BYTES:
            check_small(line)
        else:
            for _ in scan(line, _LINE_LIMITS):
                pass
    except (InvalidRequest, PayloadTooLarge) as error:
        raise BadLine(error.message.replace("the body", "the line"), code="invalid_json_line") from None


def _faults_of_line(line: bytes, number: int, endpoint: str, seen: set[str]) -> Iterator[dict[str, Any]]:
    try:
        request = read_line(line, number)
    except BadLine as error:
        yield fault(error.code or "invalid_request_line", str(error), param=error.param, line=number)
        return
    if request.custom_id in seen:
        yield fault("duplicate_custom_id", f"custom_id {request.custom_id!r} is there twice", "custom_id", number)
    seen.add(request.custom_id)
    if request.url != endpoint:
        yield fault("mismatched_url", f"url is {request.url}, the batch is for {endpoint}", "url", number)


def fault(code: str, message: str, param: str | None = None, line: int | None = None) -> dict[str, Any]:
    """An error of a batch; `line` is its number in the input."""
    return {"code": code, "message": message, "param": param, "line": line}
