"""Azure ML's `/score`: raw texts are continued, without a chat template, and come back with what was added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from chaku.engines.base import Block, Route
from chaku.errors import ChakuError, EngineError, InvalidRequest
from chaku.protocol.azure_ml import ScoreParameters, ScoreRequest
from chaku.protocol.deltas import text_in
from chaku.protocol.errors import body_of
from chaku.protocol.validation import ReadRequest
from chaku.serve.body import TEXT_LIMITS
from chaku.serve.wires.base import EVENT_STREAM, Headers, Translation

DEPLOYMENT = b"azureml-model-deployment"
"""The header that names the model where several are served."""


class ScoreWire:
    """POST /score."""

    route: Route = "completions"
    request = ScoreRequest
    limits = TEXT_LIMITS

    def translate(self, request: ReadRequest[ScoreRequest], headers: Headers) -> Translation:
        """One completion of all texts. Raises InvalidRequest for parameters that exclude each other."""
        data = request.typed.input_data
        parameters = data.parameters or ScoreParameters()
        body: dict[str, Any] = {"prompt": data.input_string, **_sampling(parameters)}
        if deployment := headers.get(DEPLOYMENT):
            body["model"] = deployment.decode("latin-1")
        prompts = data.input_string if parameters.return_full_text is not False else [""] * len(data.input_string)
        return _Score(body, request.notes, prompts)

    def error(self, error: ChakuError) -> bytes:
        """OpenAI's error object: Azure's clients read `error.code` and `error.message` of it."""
        return orjson.dumps(body_of(error))


@dataclass
class _Score:
    """Texts, and what is added to each."""

    body: dict[str, Any]
    notes: tuple[str, ...]
    beginnings: list[str]
    """The beginning of each answer: its prompt, or nothing."""
    is_stream = False
    route: ClassVar[Route] = "completions"
    media_type = EVENT_STREAM

    def whole(self, answer: dict[str, Any]) -> bytes:
        """A list of texts. Raises EngineError where the engine did not continue each."""
        texts = {choice["index"]: text_in(choice["text"]) for choice in answer["choices"]}
        if len(texts) != len(self.beginnings):
            raise EngineError(f"the engine continued {len(texts)} of {len(self.beginnings)} texts")
        return orjson.dumps([{"0": start + texts[index]} for index, start in enumerate(self.beginnings)])

    def piece(self, block: Block) -> bytes:
        """Scores are never streamed."""
        raise AssertionError("a score is not a stream")

    def error_event(self, error: ChakuError) -> bytes:
        """Scores are never streamed."""
        raise AssertionError("a score is not a stream")


def _sampling(parameters: ScoreParameters) -> dict[str, Any]:
    given = parameters.model_dump(include={"temperature", "top_p", "top_k"}, exclude_none=True)
    if parameters.do_sample is False and given:
        name = next(iter(given))
        raise InvalidRequest(
            f"do_sample is false, so {name} would do nothing: leave one out", param=f"input_data.parameters.{name}"
        )
    is_sampled = bool(given) if parameters.do_sample is None else parameters.do_sample
    sampling: dict[str, Any] = given if is_sampled else {"temperature": 0}
    if parameters.max_new_tokens is not None:
        sampling["max_tokens"] = parameters.max_new_tokens
    if parameters.repetition_penalty is not None:
        sampling["repetition_penalty"] = parameters.repetition_penalty
    return sampling
