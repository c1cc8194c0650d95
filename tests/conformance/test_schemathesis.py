"""schemathesis on /openapi.json over a socket: no 5xx, nothing undocumented, every answer as described.

The description is narrowed so that requests reach an engine: a made-up model name would make nearly all of them 404s.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from chaku.serve import openapi
from chaku_server import MODEL, ChakuServer, run_chaku, serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
INFERENCE = tuple(described.path for described in openapi.INFERENCE)
OPERATIONS = [
    *(("POST", path) for path in (*INFERENCE, "/v1/moderations")),
    *(("GET", path) for path in ("/v1/models", "/v1/models/{model}", "/health", "/metrics", "/fleet")),
    *(("POST", f"/fleet/workers/{{worker}}/{command}") for command in ("drain", "reload")),
    ("GET", "/fleet/workers/{worker}/logs"),
    *(("GET", f"/ollama/api/{what}") for what in ("tags", "version")),
    ("POST", "/ollama/api/show"),
    *((method, f"/v1/{what}") for method in ("GET", "POST") for what in ("files", "batches")),
    *((method, "/v1/files/{file_id}") for method in ("GET", "DELETE")),
    ("GET", "/v1/files/{file_id}/content"),
    ("GET", "/v1/batches/{batch_id}"),
    ("POST", "/v1/batches/{batch_id}/cancel"),
]
OPENAI = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
SPOILED = (*OPENAI, "/v1/messages")
"""Paths that get invalid requests; of the others, schemathesis can't make any that it holds for invalid."""
VALID, INVALID = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
REFUSED = ("tools", "tool_choice", "parallel_tool_calls", "reasoning_effort", "best_of", "suffix", "dimensions")


def narrowed(server: ChakuServer, model: str, *, max_tokens: int | None = None) -> Any:
    """The description with one model name, and short answers without what the model refuses anyway."""
    raw = server.get("/openapi.json")[1]
    for name in sorted({described.request.__name__ for described in openapi.INFERENCE}):
        shape = raw["components"]["schemas"][name]
        shape["properties"]["model"] = {"enum": [model]}
        if max_tokens is not None:
            for field in REFUSED:
                shape["properties"].pop(field, None)
            if "max_tokens" in shape["properties"]:
                shape["properties"].pop("max_completion_tokens", None)
                shape["properties"]["max_tokens"] = {"type": "integer", "minimum": 1, "maximum": max_tokens}
                shape["properties"]["n"] = {"enum": [None, 1, 2]}
                shape["required"].append("max_tokens")
    schema = schemathesis.openapi.from_dict(raw)
    schema.config.update(base_url=server.url)
    return schema


def check(
    schema: Any,
    method: str,
    path: str,
    mode: GenerationMode,
    max_examples: int,
    *,
    headers: Mapping[str, str] | None = None,
    allowed: Callable[[int], bool] = lambda status: True,
) -> None:
    """Send generated requests to one operation, as whom `headers` say, and hold the answers against its description.

    Their status must be `allowed`.
    """

    @settings(
        max_examples=max_examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        response = case.call_and_validate(checks=CHECKS, timeout=60, headers=headers)
        assert allowed(response.status_code), response.status_code

    send()


@pytest.fixture(scope="module")
def scripted_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChakuServer]:
    with serving(tmp_path_factory.mktemp("scripted"), "scripted:") as server:
        yield server


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [*((*operation, VALID) for operation in OPERATIONS), *(("POST", path, INVALID) for path in SPOILED)],
)
def test_the_gateway_does_as_its_description_says(
    scripted_server: ChakuServer, method: str, path: str, mode: GenerationMode
) -> None:
    schema = narrowed(scripted_server, "scripted")
    check(schema, method, path, mode, max_examples=80 if path in OPENAI else 10)


@pytest.mark.model
@pytest.mark.parametrize("path", OPENAI)
def test_the_real_engine_behind_it_does_too(served: ChakuServer, path: str) -> None:
    earlier = len(served.log)
    check(narrowed(served, MODEL, max_tokens=4), "POST", path, VALID, max_examples=10)
    answered = [line for line in served.log[earlier:].splitlines() if "answered route" in line]
    assert any("status=200" in line for line in answered), "everything was refused before it reached the engine"


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ChakuServer, str, str]]:
    """A gateway that lets guests in, the token of a key that may call it, and the cookie of a guest."""
    home = tmp_path_factory.mktemp("guarded")
    token = run_chaku(home, "keys", "create", "caller", "--scope", "infer").stdout.strip()
    with serving(home, "scripted:", "--guests") as server:
        begin = urllib.request.Request(f"{server.url}/api/guest", b"", {"X-Chaku": "1"})
        with urllib.request.urlopen(begin, timeout=60) as response:
            cookie = response.headers["Set-Cookie"].partition(";")[0]
        yield server, token, cookie


@pytest.fixture(scope="module")
def guarded_schema(guarded_server: tuple[ChakuServer, str, str]) -> Any:
    return narrowed(guarded_server[0], "scripted")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_key_gets_what_its_scope_allows_and_a_guest_nothing_of_the_api(
    guarded_server: tuple[ChakuServer, str, str], guarded_schema: Any, method: str, path: str
) -> None:
    _, token, cookie = guarded_server
    is_open = path == "/health"
    may_call = path.startswith(("/v1", "/score", "/ollama"))

    def of_key(status: int) -> bool:
        return status not in (401, 403) if is_open or may_call else status == 403

    def of_guest(status: int) -> bool:
        return status == 200 if is_open else status == 401

    as_key, as_guest = {"Authorization": f"Bearer {token}"}, {"Cookie": cookie, "X-Chaku": "1"}
    check(guarded_schema, method, path, VALID, max_examples=4, headers=as_key, allowed=of_key)
    check(guarded_schema, method, path, VALID, max_examples=2, headers=as_guest, allowed=of_guest)


def test_every_operation_is_among_those_tested(scripted_server: ChakuServer) -> None:
    described = scripted_server.get("/openapi.json")[1]["paths"]
    assert {(method.upper(), path) for path, methods in described.items() for method in methods} == set(OPERATIONS)
