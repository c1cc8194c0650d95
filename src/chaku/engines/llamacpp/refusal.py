"""Error answers of llama.cpp's server as errors of ours."""

from __future__ import annotations

import re
from typing import Any

from chaku.errors import ChakuError, ContextOverflow, EngineError, EngineUnavailable, InvalidRequest


def refusal(status: int, body: Any, *, model: str, param: str) -> ChakuError:
    """llama.cpp's error answer as one of ours, in our words where we know better ones."""
    error = body.get("error", body) if isinstance(body, dict) else {"message": str(body)}
    if not isinstance(error, dict):
        error = {"message": str(error)}
    message = str(error.get("message") or "no reason given").strip()
    if error.get("type") == "exceed_context_size_error":
        return ContextOverflow(
            f"prompt is {error['n_prompt_tokens']:,} tokens, {model} takes {error['n_ctx']:,} per request",
            fix="shorten it, or serve the model with a larger --context",
            param=param,
        )
    if too_large := re.search(r"input \((\d+) tokens\) is (?:too large|larger).*?(\d+)", message):
        tokens, limit = (int(number) for number in too_large.groups())
        return ContextOverflow(f"input is {tokens:,} tokens, {model} embeds {limit:,}", fix="shorten it", param=param)
    if status == 503:
        return EngineUnavailable(f"{model} is not ready: {message}", retry_after_s=1.0)
    if status in (400, 422):
        return InvalidRequest(message, param=param)
    return EngineError(f"{model} failed: {message}")
