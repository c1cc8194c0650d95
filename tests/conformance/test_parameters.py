"""The honesty table: every field of OpenAI's signatures is honoured, which is seen in the answer, or refused by name.

The fields are read from the installed openai package, so that a field which is new there fails until someone decides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import pytest
from gguf import GGUFReader
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsStreaming as CompletionParams
from openai.types.embedding_create_params import EmbeddingCreateParams

from chaku.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from chaku_server import ChakuServer
from conformance.asking import Ask, Check, refused
from conformance.parameter_checks import CHAT, COMPLETIONS, COUNT, EMBEDDINGS

pytestmark = pytest.mark.model

TABLES = [
    (ChatParams, ChatRequest, CHAT),
    (CompletionParams, CompletionRequest, COMPLETIONS),
    (EmbeddingCreateParams, EmbeddingRequest, EMBEDDINGS),
]


@pytest.mark.parametrize(("params", "ours", "table"), TABLES, ids=["chat", "completions", "embeddings"])
def test_every_field_of_the_official_signature_and_of_ours_is_decided(params: Any, ours: Any, table: Any) -> None:
    assert set(get_type_hints(params)) | set(ours.model_fields) == set(table)


@pytest.fixture(scope="module")
def vocabulary(smollm2_path: Path) -> dict[str, int]:
    tokens = GGUFReader(smollm2_path).fields["tokenizer.ggml.tokens"].contents()
    return {token: number for number, token in enumerate(tokens)}


@pytest.fixture(scope="module")
def asks(served: ChakuServer, vocabulary: dict[str, int], abilities: frozenset[str]) -> dict[str, Ask]:
    return {
        "chat": Ask(served, vocabulary, "/chat/completions", abilities, messages=COUNT, max_tokens=16),
        "completions": Ask(served, vocabulary, "/completions", abilities, prompt="Once upon a time", max_tokens=16),
        "embeddings": Ask(served, vocabulary, "/embeddings", abilities, input="a cat"),
    }


ABILITIES = {"response_format": {"type": "json_object"}}
"""Fields that an engine may lack, and a value that asks for something. /v1/models lists those that it has."""


def check_of(table: dict[str, Check], field: str, ask: Ask) -> Check:
    """The check of a field: it is honoured if the model lists it, else refused."""
    return refused(field, ABILITIES[field]) if field in ABILITIES.keys() - ask.abilities else table[field]


@pytest.mark.parametrize("field", CHAT)
def test_chat_honours_or_refuses(asks: dict[str, Ask], field: str) -> None:
    check_of(CHAT, field, asks["chat"])(asks["chat"])


@pytest.mark.parametrize("field", COMPLETIONS)
def test_completions_honours_or_refuses(asks: dict[str, Ask], field: str) -> None:
    check_of(COMPLETIONS, field, asks["completions"])(asks["completions"])


@pytest.mark.needs("embeddings")
@pytest.mark.parametrize("field", EMBEDDINGS)
def test_embeddings_honours_or_refuses(asks: dict[str, Ask], field: str) -> None:
    EMBEDDINGS[field](asks["embeddings"])


def test_a_route_that_the_model_lacks_is_refused_with_the_reason(asks: dict[str, Ask]) -> None:
    if "embeddings" not in asks["embeddings"].abilities:
        asks["embeddings"].refuses("model")


@pytest.mark.parametrize("route", ["chat", "completions", "embeddings"])
def test_an_unknown_field_is_refused(asks: dict[str, Ask], route: str) -> None:
    asks[route].refuses("best_effort", best_effort=True)
    asks[route].refuses("cache_prompt", cache_prompt=False)  # llama.cpp's own, which must not slip through
    asks[route].refuses("grammar", grammar='root ::= "x"')
