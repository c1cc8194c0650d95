"""The table of paths that the gateway answers: method, scope, and for inference the wire that a client speaks there.

A path that is not in the table is not served, whatever the application knows: a new route can't be open by accident.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from chaku.errors import MethodNotAllowed, NotFound
from chaku.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from chaku.serve.body import CHAT_LIMITS, TEXT_LIMITS
from chaku.serve.signposts import signpost
from chaku.serve.wires.anthropic import CountTokensWire, MessagesWire
from chaku.serve.wires.base import Wire
from chaku.serve.wires.fastchat import FastChatCountTokenWire, FastChatEmbeddingsWire, FastChatGenerateWire
from chaku.serve.wires.ollama import OllamaChatWire, OllamaEmbedWire, OllamaGenerateWire
from chaku.serve.wires.openai import OpenAIWire
from chaku.serve.wires.responses import ResponsesWire
from chaku.serve.wires.score import ScoreWire

Scope = Literal["open", "infer", "page", "metrics", "admin", "join", "fastchat"]
"""What a caller needs: nothing, a key with that scope, the page's session (`chaku.web` checks it), or its address."""


@dataclass(frozen=True)
class Endpoint:
    """One path, or all paths below it where `path` ends in a star."""

    path: str
    methods: frozenset[str]
    scope: Scope
    wire: Wire | None = None
    """The wire of an inference path. None: the application answers."""


def _row(path: str, methods: str, scope: Scope, wire: Wire | None = None) -> Endpoint:
    return Endpoint(path, frozenset(methods.split()), scope, wire)


ENDPOINTS = (
    _row("/v1/chat/completions", "POST", "infer", OpenAIWire("chat", ChatRequest, CHAT_LIMITS)),
    _row("/v1/completions", "POST", "infer", OpenAIWire("completions", CompletionRequest, TEXT_LIMITS)),
    _row("/v1/embeddings", "POST", "infer", OpenAIWire("embeddings", EmbeddingRequest, TEXT_LIMITS)),
    _row("/v1/responses", "POST", "infer", ResponsesWire()),
    _row("/v1/messages", "POST", "infer", MessagesWire()),
    _row("/v1/messages/count_tokens", "POST", "infer", CountTokensWire()),
    _row("/score", "POST", "infer", ScoreWire()),
    _row("/ollama/api/chat", "POST", "infer", OllamaChatWire()),
    _row("/ollama/api/generate", "POST", "infer", OllamaGenerateWire()),
    _row("/ollama/api/embed", "POST", "infer", OllamaEmbedWire()),
    _row("/ollama/api/tags", "GET HEAD", "infer"),
    _row("/ollama/api/show", "POST", "infer"),
    _row("/ollama/api/version", "GET HEAD", "infer"),
    _row("/v1/moderations", "POST", "infer"),
    _row("/v1/files", "GET HEAD POST", "infer"),
    _row("/v1/files/*", "GET HEAD DELETE", "infer"),
    _row("/v1/batches", "GET HEAD POST", "infer"),
    _row("/v1/batches/*", "GET HEAD POST", "infer"),
    _row("/v1/models", "GET HEAD", "infer"),
    _row("/v1/models/*", "GET HEAD", "infer"),
    _row("/metrics", "GET HEAD", "metrics"),
    _row("/fleet", "GET HEAD", "metrics"),
    _row("/fleet/join", "POST", "join"),
    _row("/fleet/beat", "POST", "join"),
    _row("/fleet/leave", "POST", "join"),
    _row("/fleet/self", "GET HEAD", "open"),
    _row("/fleet/workers/*", "GET HEAD POST", "admin"),
    *(
        _row(f"/fastchat/{name}", "POST", "fastchat")
        for name in (
            *("register_worker", "receive_heart_beat", "refresh_all_workers", "get_worker_address"),
            *("list_models", "list_multimodal_models", "list_language_models"),
            *("worker_get_status", "worker_get_conv_template", "model_details"),
        )
    ),
    _row("/fastchat/test_connection", "GET HEAD", "fastchat"),
    _row("/fastchat/worker_generate_stream", "POST", "fastchat", FastChatGenerateWire(is_stream=True)),
    _row("/fastchat/worker_generate", "POST", "fastchat", FastChatGenerateWire(is_stream=False)),
    _row("/fastchat/count_token", "POST", "fastchat", FastChatCountTokenWire()),
    _row("/fastchat/worker_get_embeddings", "POST", "fastchat", FastChatEmbeddingsWire()),
    _row("/health", "GET HEAD", "open"),
    _row("/openapi.json", "GET HEAD", "open"),
    _row("/docs", "GET HEAD", "open"),
    _row("/docs/*", "GET HEAD", "open"),
    _row("/static-offline-docs/*", "GET HEAD", "open"),
    _row("/api/*", "GET HEAD POST PUT PATCH DELETE", "page"),
)
PAGE = _row("/*", "GET HEAD", "open")
"""The page's files and its screens: every other path, for reading only. They hold nothing of anybody."""
_RESERVED = re.compile(r"/(?:v1|api|metrics|health|fleet|fastchat|ollama)(?:/|$)")


class EndpointTable:
    """Finds the endpoint of a request."""

    def __init__(self, endpoints: Iterable[Endpoint] = ENDPOINTS) -> None:
        rows = tuple(endpoints)
        self._exact = {row.path: row for row in rows if not row.path.endswith("*")}
        self._below = tuple((row.path[:-1], row) for row in rows if row.path.endswith("*"))

    def find(self, path: str, method: str) -> Endpoint:
        """The endpoint at `path`. Raises NotFound for a path that is not in the table, MethodNotAllowed."""
        endpoint = self._exact.get(path) or self._search(path, method)
        if method not in endpoint.methods:
            takes = " or ".join(sorted(endpoint.methods - {"HEAD"}))
            raise MethodNotAllowed(f"{path} takes {takes}, not {method}")
        return endpoint

    def _search(self, path: str, method: str) -> Endpoint:
        if (misplaced := signpost(path, method)) is not None:
            raise misplaced
        for prefix, row in self._below:
            if path.startswith(prefix):
                return row
        if _RESERVED.match(path):
            raise NotFound(f"there is no {path[:200]}", fix="/docs lists the API")
        return PAGE
