"""OpenAI's shapes of files and batches."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from chaku.protocol.messages import Shape

Url = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
_Key = Annotated[str, StringConstraints(max_length=64)]
_Value = Annotated[str, StringConstraints(max_length=512)]


class BatchRequest(Shape):
    """POST /v1/batches."""

    input_file_id: str
    endpoint: Url
    completion_window: Literal["24h"]
    metadata: Annotated[dict[_Key, _Value], Field(max_length=16)] | None = None


class FileObject(TypedDict):
    """A file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"]


class FileList(TypedDict):
    """Some files."""

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(TypedDict):
    """Answer of DELETE /v1/files/{id}."""

    id: str
    object: Literal["file"]
    deleted: bool


class BatchFault(TypedDict):
    """Why an input is not run."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchFaults(TypedDict):
    """Faults of an input."""

    object: Literal["list"]
    data: list[BatchFault]


class BatchCounts(TypedDict):
    """Requests of a batch."""

    total: int
    completed: int
    failed: int


class BatchObject(TypedDict):
    """A batch."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchFaults | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: NotRequired[int | None]
    expires_at: int
    finalizing_at: NotRequired[int | None]
    completed_at: NotRequired[int | None]
    failed_at: NotRequired[int | None]
    expired_at: NotRequired[int | None]
    cancelling_at: NotRequired[int | None]
    cancelled_at: NotRequired[int | None]
    request_counts: BatchCounts
    metadata: dict[str, str] | None


class BatchList(TypedDict):
    """Some batches."""

    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
