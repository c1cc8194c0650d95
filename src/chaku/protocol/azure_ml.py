"""The request, answer and sample record of an Azure ML endpoint for text generation.

Source: the card of lmsys-vicuna in Azure's model catalog ("Sample inputs and outputs"). The parameters are those of
transformers' `generate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, TypeAdapter

from chaku.protocol.messages import Shape
from chaku.protocol.openai import MAX_INPUTS, MAX_INT, Text
from chaku.protocol.requests import Request


class ScoreParameters(Shape):
    """How texts are continued."""

    max_new_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    """16 if it is left out, as for /v1/completions."""
    do_sample: bool | None = None
    """Without it, a text is sampled if temperature, top_p or top_k is given; otherwise the likeliest token is taken."""
    temperature: Annotated[float, Field(gt=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    return_full_text: bool | None = None
    """Whether the prompt is a part of the answer. It is, if this is left out."""


class InputData(Shape):
    """Texts, and how they are continued."""

    input_string: Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
    """Raw texts: no chat template is applied."""
    parameters: ScoreParameters | None = None


class ScoreRequest(Request):
    """POST /score."""

    refused: ClassVar[Mapping[str, str]] = {"params": "send input_data.parameters"}

    input_data: InputData


ScoreAnswer = list[dict[str, str]]
"""One object for each text; its only key is "0"."""


class SampleRecord(Shape):
    """A request to an endpoint with its answer, as model cards show them."""

    endpoint_name: str
    deployment_name: str
    inference_payload: dict[str, Any]
    response: str
    """The answer's JSON as text; of a failed request, the error's."""
    sku: str
    """The machine that answered."""
    status: str
    """`Completed` or `Failed`."""


records_of_json: TypeAdapter[list[SampleRecord]] = TypeAdapter(list[SampleRecord])
