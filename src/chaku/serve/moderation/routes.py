"""POST /v1/moderations, as OpenAI's API has it: the judges of this gateway, without its policy."""

from __future__ import annotations

import secrets
from typing import Annotated

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import Field
from typing_extensions import TypedDict

from chaku.errors import NotFound
from chaku.policies import ModerationPolicy
from chaku.protocol.messages import Shape
from chaku.serve.access import Caller
from chaku.serve.body import read_message
from chaku.serve.limits import RateLimits
from chaku.serve.moderation.categories import word_categories
from chaku.serve.moderation.moderator import Moderator
from chaku.serve.openapi import error_responses

MAX_BYTES = 1 << 20
RULES = "chaku-rules"
"""The model's name where the gateway has no policy, and judges by the word rules."""


class ModerationRequest(Shape):
    """POST /v1/moderations."""

    input: str | Annotated[list[str], Field(min_length=1, max_length=32)]
    model: str | None = None
    """The gateway has one set of judges: its name, or none."""


class ModerationResult(TypedDict):
    """The judgement of one text."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]


class Moderations(TypedDict):
    """Answer of POST /v1/moderations."""

    id: str
    model: str
    results: list[ModerationResult]


def add_moderation_route(app: FastAPI, moderator: Moderator | None, limits: RateLimits) -> None:
    """Put the route on an application. It counts towards the limits of its caller."""
    judging = moderator or Moderator(ModerationPolicy(rules=True))
    policy = judging.policy
    name = policy.guard or (policy.url_model if policy.url else RULES)
    known = word_categories(policy)

    @app.post(
        "/v1/moderations",
        tags=["moderation"],
        responses=error_responses(400, 401, 403, 404, 413, 415, 429, 503),
        response_model=Moderations,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": ModerationRequest.model_json_schema()}},
            }
        },
    )
    async def moderate(request: Request) -> Response:
        """Judge texts by the word rules, or by the judges of this gateway's policy."""
        asked = await read_message(ModerationRequest, request, MAX_BYTES)
        if asked.model not in (None, name):
            raise NotFound(f"no moderation model {asked.model!r} is here", fix=f"leave model out, or write {name}")
        caller: Caller = request.scope["chaku_caller"]
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        reservation = await limits.reserve(caller, "embeddings", name, {"input": texts}, 1)
        judged = await judging.hits(texts)
        results: list[ModerationResult] = []
        for hits in judged:
            scores = dict.fromkeys(known, 0.0)
            for hit in hits:
                scores[hit.category] = max(hit.score, scores.get(hit.category, 0.0))
            flagged = {hit.category for hit in hits}
            results.append(
                {
                    "flagged": bool(flagged),
                    "categories": {category: category in flagged for category in scores},
                    "category_scores": scores,
                }
            )
        answer: Moderations = {"id": f"modr-{secrets.token_hex(12)}", "model": name, "results": results}
        headers = {key.decode(): value.decode() for key, value in reservation.headers} if reservation else {}
        return Response(orjson.dumps(answer), headers=headers, media_type="application/json")
