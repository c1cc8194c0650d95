"""Anthropic's API, Responses, Ollama's and Azure ML's /score on the real model, with the official Python clients."""

from __future__ import annotations

from typing import Any

import anthropic
import ollama
import openai
import pytest

from chaku_server import MODEL, ChakuServer

pytestmark = pytest.mark.model

SYSTEM = "You are a helpful assistant."
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]


def test_anthropics_client_gets_paris_whole_and_streamed(served: ChakuServer) -> None:
    asked: Any = {
        "model": MODEL,
        "max_tokens": 30,
        "system": SYSTEM,
        "messages": QUESTION,
        "extra_body": {"temperature": 0},
    }
    with anthropic.Anthropic(base_url=served.url, api_key="any", max_retries=0) as client:
        whole = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
        counted = client.messages.count_tokens(model=MODEL, system=SYSTEM, messages=QUESTION)
    text = whole.content[0].to_dict()["text"]
    assert "Paris" in text
    assert [block.to_dict()["text"] for block in streamed.content] == [text]
    assert (whole.stop_reason, streamed.stop_reason) == ("end_turn", "end_turn")
    assert counted.input_tokens == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)


def test_responses_gets_paris_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "instructions": SYSTEM, "input": QUESTION, "temperature": 0, "max_output_tokens": 30}
    whole = client.responses.create(**asked, store=False)
    with client.responses.stream(**asked, store=False) as stream:
        streamed = stream.get_final_response()
    assert "Paris" in whole.output_text
    assert streamed.output_text == whole.output_text
    assert (whole.status, streamed.status) == ("completed", "completed")


def test_score_continues_each_raw_text_as_completions_do(served: ChakuServer, client: openai.OpenAI) -> None:
    texts = ["The capital of France is", "Once upon a time,"]
    parameters = {"max_new_tokens": 8, "do_sample": False}
    response = client._client.post(
        f"{served.url}/score", json={"input_data": {"input_string": texts, "parameters": parameters}}
    )
    assert response.status_code == 200, response.text
    alone = [client.completions.create(model=MODEL, prompt=text, max_tokens=8, temperature=0) for text in texts]
    assert [answer["0"] for answer in response.json()] == [
        text + answer.choices[0].text for text, answer in zip(texts, alone, strict=True)
    ]


@pytest.mark.needs("embeddings")
def test_ollamas_client_gets_paris_whole_streamed_and_as_a_vector(served: ChakuServer) -> None:
    with ollama.Client(host=f"{served.url}/ollama") as client:
        talk = [{"role": "system", "content": SYSTEM}, *QUESTION]
        asked: Any = {"model": MODEL, "messages": talk, "options": {"temperature": 0, "num_predict": 30}}
        whole = client.chat(**asked)
        streamed = list(client.chat(**asked, stream=True))
        vectors = client.embed(MODEL, ["Paris", "Rome"]).embeddings
    assert "Paris" in (whole.message.content or "")
    assert "".join(piece.message.content or "" for piece in streamed) == whole.message.content
    assert streamed[-1].eval_count == whole.eval_count
    assert len(vectors) == 2 and len(vectors[0]) == len(vectors[1]) > 100
