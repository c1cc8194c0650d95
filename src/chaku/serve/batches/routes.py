"""/v1/files and /v1/batches, as OpenAI's API has them. Every caller sees the caller's alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, BinaryIO, Literal

import orjson
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from chaku.errors import ChakuError, InvalidRequest, PayloadTooLarge, PermissionRefused, UnsupportedMedia
from chaku.protocol.batches import BatchList, BatchObject, BatchRequest, FileDeleted, FileList, FileObject
from chaku.serve.access import Caller
from chaku.serve.batches.runner import BatchRunner
from chaku.serve.body import Receive, read_message
from chaku.serve.openapi import error_responses
from chaku.store.batches import Batch
from chaku.store.files import PART_BYTES, File

MAX_FILE_BYTES = 64 << 20
_FORM_BYTES = 64 << 10
"""What a form may hold besides the file."""
_MAX_BYTES = 64 << 10
_FIELDS = {"file", "purpose"}
_UNPRINTABLE = re.compile(r"[^\w .()+-]", re.ASCII)
_ID = r"^[A-Za-z0-9_-]+$"
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": ["batch"]},
                    },
                }
            }
        },
    }
}


def add_batch_routes(app: FastAPI, runner: BatchRunner | None) -> None:
    """Put the routes on an application. Without a runner, which is so with --no-keep, they refuse and say why."""

    def known(request: Request) -> tuple[BatchRunner, str | None]:
        if runner is None:
            raise PermissionRefused(
                "this server keeps nothing of what is said (--no-keep), and a batch lies in files",
                fix="send the requests one by one, as `chaku batch run` does",
                code="not_kept",
            )
        caller: Caller = request.scope["chaku_caller"]
        return runner, caller.key_id

    _add_file_routes(app, known)
    _add_routes_of_batches(app, known)


_Known = Callable[[Request], tuple[BatchRunner, str | None]]
"""The runner, and the key of who asks. Raises PermissionRefused where nothing is kept."""


def _add_file_routes(app: FastAPI, known: _Known) -> None:
    @app.post(
        "/v1/files",
        tags=["batches"],
        responses=error_responses(400, 401, 403, 413, 415, 503),
        response_model=FileObject,
        openapi_extra=_UPLOAD,
    )
    async def upload(request: Request) -> Response:
        """Upload a file of requests, of purpose `batch`, 64 MiB at most."""
        batches, owner = known(request)
        name, content = await _uploaded(request)
        try:
            parts = iter(lambda: content.read(PART_BYTES), b"")
            file = await asyncio.to_thread(batches.files.add, owner, name, "batch", parts, now=_now())
        finally:
            content.close()
        return _json(_file(file))

    @app.get("/v1/files", tags=["batches"], responses=error_responses(400, 401, 403, 503))
    async def list_files(
        request: Request,
        purpose: Annotated[str | None, Query(max_length=64)] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
        after: Annotated[str | None, Query(max_length=100, pattern=_ID)] = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> FileList:
        """The caller's files."""
        batches, owner = known(request)
        rows = await asyncio.to_thread(
            batches.files.list, owner, purpose=purpose, after=after, limit=limit + 1, newest_first=order == "desc"
        )
        return _page([_file(file) for file in rows], limit)  # type: ignore[return-value]

    @app.get("/v1/files/{file_id}", tags=["batches"], responses=error_responses(400, 401, 403, 404, 503))
    async def show_file(request: Request, file_id: str) -> FileObject:
        """A file."""
        batches, owner = known(request)
        return _file(await asyncio.to_thread(batches.files.get, owner, file_id))

    @app.get(
        "/v1/files/{file_id}/content",
        tags=["batches"],
        responses={
            200: {"content": {"application/octet-stream": {}}, "description": "The file"},
            **error_responses(400, 401, 403, 404, 503),
        },
        response_class=StreamingResponse,
    )
    async def read_file(request: Request, file_id: str) -> StreamingResponse:
        """The content of a file."""
        batches, owner = known(request)
        file = await asyncio.to_thread(batches.files.get, owner, file_id)
        headers = {
            "content-length": str(file.num_bytes),
            "content-disposition": f'attachment; filename="{file.name}"',
            "x-content-type-options": "nosniff",
        }
        content = batches.files.parts(file.id)
        return StreamingResponse(content, headers=headers, media_type="application/octet-stream")

    @app.delete("/v1/files/{file_id}", tags=["batches"], responses=error_responses(400, 401, 403, 404, 409, 503))
    async def delete_file(request: Request, file_id: str) -> FileDeleted:
        """Delete a file that no batch reads."""
        batches, owner = known(request)
        await asyncio.to_thread(batches.files.delete, owner, file_id)
        return {"id": file_id, "object": "file", "deleted": True}


def _add_routes_of_batches(app: FastAPI, known: _Known) -> None:
    @app.post(
        "/v1/batches",
        tags=["batches"],
        responses=error_responses(400, 401, 403, 404, 413, 415, 503),
        response_model=BatchObject,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": BatchRequest.model_json_schema()}},
            }
        },
    )
    async def create_batch(request: Request) -> Response:
        """Answer the requests of a file within 24 hours, while slots are free."""
        batches, owner = known(request)
        asked = await read_message(BatchRequest, request, _MAX_BYTES)
        batch = await asyncio.to_thread(
            batches.batches.create, owner, asked.endpoint, asked.input_file_id, asked.metadata, now=_now()
        )
        batches.wake()
        return _json(_batch(batch))

    @app.get("/v1/batches", tags=["batches"], responses=error_responses(400, 401, 403, 503))
    async def list_batches(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(max_length=100, pattern=_ID)] = None,
    ) -> BatchList:
        """The caller's batches, the newest first."""
        batches, owner = known(request)
        rows = await asyncio.to_thread(batches.batches.list, owner, after=after, limit=limit + 1)
        return _page([_batch(batch) for batch in rows], limit)  # type: ignore[return-value]

    @app.get("/v1/batches/{batch_id}", tags=["batches"], responses=error_responses(400, 401, 403, 404, 503))
    async def show_batch(request: Request, batch_id: str) -> BatchObject:
        """A batch as it stands."""
        batches, owner = known(request)
        return _batch(await asyncio.to_thread(batches.batches.get, owner, batch_id))

    @app.post(
        "/v1/batches/{batch_id}/cancel", tags=["batches"], responses=error_responses(400, 401, 403, 404, 409, 503)
    )
    async def cancel_batch(request: Request, batch_id: str) -> BatchObject:
        """Send no more of its requests; the answers so far are kept."""
        batches, owner = known(request)
        batch = await asyncio.to_thread(batches.batches.cancel, owner, batch_id, now=_now())
        batches.wake()
        return _batch(batch)


async def _uploaded(request: Request) -> tuple[str, BinaryIO]:
    """Name and content of the file in a form; the content is on disk where it is large. Raises InvalidRequest."""
    headers = request.headers
    if not headers.get("content-type", "").startswith("multipart/form-data"):
        raise UnsupportedMedia("the file is not sent as a form", fix="send multipart/form-data with file and purpose")
    if headers.get("content-encoding", "identity") not in ("identity", ""):
        raise UnsupportedMedia("a compressed form is not accepted", fix="leave Content-Encoding out")
    is_whole = _Bounded(request.receive, MAX_FILE_BYTES + _FORM_BYTES)
    try:
        form = await Request(request.scope, is_whole).form(max_files=1, max_fields=8, max_part_size=_FORM_BYTES)
    except HTTPException as error:
        if is_whole.is_exceeded:
            raise _too_large() from None
        raise InvalidRequest(f"the form is malformed: {error.detail}", code="invalid_form") from None
    try:
        return _checked(form)
    except ChakuError:
        await form.close()
        raise


def _checked(form: FormData) -> tuple[str, BinaryIO]:
    if unknown := [name for name in form if name not in _FIELDS]:
        raise InvalidRequest(f"unknown parameter {unknown[0][:80]}", param=unknown[0][:80], code="unknown_parameter")
    file, purpose = form.get("file"), form.get("purpose")
    if not isinstance(file, UploadFile):
        raise InvalidRequest("missing parameter file", param="file", code="missing_required_parameter")
    if purpose != "batch":
        raise InvalidRequest("purpose must be batch: other files are not used here", param="purpose")
    if (file.size or 0) > MAX_FILE_BYTES:
        raise _too_large()
    return _UNPRINTABLE.sub("_", (file.filename or "file").rpartition("/")[2])[:200], file.file


class _Bounded:
    """Reads the body of a form, up to a limit. starlette closes its files on MultiPartException alone."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._left = max_bytes
        self.is_exceeded = False

    async def __call__(self) -> Any:
        """The next message of the body. Raises MultiPartException."""
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.is_exceeded = True
            raise MultiPartException("it is too large")
        if message["type"] == "http.disconnect":
            raise MultiPartException("the client left before it was whole")
        return message


def _too_large() -> ChakuError:
    return PayloadTooLarge(f"the file is over {MAX_FILE_BYTES >> 20} MiB", fix="send several", param="file")


def _file(file: File) -> FileObject:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.num_bytes,
        "created_at": int(file.created_at.timestamp()),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
    }


def _batch(batch: Batch) -> BatchObject:
    at = batch.moments.get
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,  # type: ignore[typeddict-item]
        "input_file_id": batch.input_file_id,
        "completion_window": "24h",
        "status": batch.state,
        "output_file_id": batch.output_file_id if batch.is_over and batch.num_completed else None,
        "error_file_id": batch.error_file_id if batch.is_over and batch.num_failed else None,
        "created_at": int(batch.created_at.timestamp()),
        "in_progress_at": at("in_progress"),
        "expires_at": int(batch.expires_at.timestamp()),
        "finalizing_at": at("finalizing"),
        "completed_at": at("completed"),
        "failed_at": at("failed"),
        "expired_at": at("expired"),
        "cancelling_at": at("cancelling"),
        "cancelled_at": at("cancelled"),
        "request_counts": {
            "total": batch.num_requests,
            "completed": batch.num_completed,
            "failed": batch.num_failed,
        },
        "metadata": batch.metadata,
    }


def _page(rows: list[Any], limit: int) -> dict[str, Any]:
    """OpenAI's page of a list; one row beyond `limit` says that there is more."""
    shown = rows[:limit]
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return {"object": "list", "data": shown, "first_id": first, "last_id": last, "has_more": len(rows) > limit}


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


def _now() -> datetime:
    return datetime.now(UTC)
