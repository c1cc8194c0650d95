"""Learns about a loaded model from llama.cpp's server: what it reports, and what can be tried out."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

from chaku.chat import plain_text
from chaku.engines.base import Capabilities
from chaku.engines.llamacpp.child import EMBEDDING_SLOTS, LlamaServer, Settings
from chaku.engines.llamacpp.refusal import refusal
from chaku.errors import EngineError, InvalidRequest

_log = logging.getLogger(__name__)

_SAMPLING_DEFAULTS = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
PARAMETERS = frozenset({
    "max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "stop", "seed", "logprobs", "top_logprobs",
    "presence_penalty", "frequency_penalty", "logit_bias", "response_format", "echo", "encoding_format",
    "top_k", "min_p", "repetition_penalty", "ignore_eos", "continue_final_message",
})  # fmt: skip
"""Request fields that every model honours here; others depend on its chat template."""
WHY_NOT = {
    "suffix": "llama.cpp does not fill in the middle on this route",
    "best_of": "llama.cpp does not rank answers: use n",
    "dimensions": "the model's embeddings have one length",
}
_PARTS = re.compile(r"think|thought|reasoning|<\|channel\|?>", re.IGNORECASE)
"""In a chat template: answers have a part for reasoning, which llama.cpp's parser tells apart from the content."""
NO_JSON = "z"
"""Begins no JSON text, so a schema that is enforced never lets it come first."""


@dataclass(frozen=True)
class Learned:
    """The facts about a loaded model."""

    capabilities: Capabilities
    special_ids: dict[str, int]
    """Spellings that are one special token, and its id."""
    specials: re.Pattern[str] | None
    """Finds these spellings in a text."""
    answers_in_parts: bool
    """Its answers may have a part for reasoning."""
    unread: frozenset[tuple[str, str]]
    """Roles, and fields of their messages, of which the chat template makes nothing."""
    num_vocabulary: int
    no_json_id: int
    """The token of NO_JSON."""
    stops: tuple[str, ...] = ()
    """Texts that end every answer of a chat."""
    may_repeat: bool = False
    """Its chat route may repeat the text that an answer continues, as llama-server b10434 does."""


async def ask_server(
    server: LlamaServer, path: str, request: dict[str, Any] | None = None, *, model: str, param: str = "messages"
) -> Any:
    """The JSON answer of one of llama.cpp's small routes. Raises what `refusal` makes of a refusal."""
    status, body = await server.http.json("GET" if request is None else "POST", path, request)
    if status != 200:
        raise refusal(status, body, model=model, param=param)
    return body


async def learn(server: LlamaServer, name: str, settings: Settings) -> Learned:
    """Read what model and template can do. Raises EngineError unless the API's sampling defaults are in force."""
    props = await ask_server(server, "/props", model=name)
    defaults = props["default_generation_settings"]["params"]
    for parameter, wanted in _SAMPLING_DEFAULTS.items():
        if abs(defaults[parameter] - wanted) > 1e-6:
            raise EngineError(f"{name} samples with {parameter} {defaults[parameter]:g} by default, not {wanted:g}")
    asked = {"content": NO_JSON, "add_special": False, "parse_special": False}
    no_json_id = (await ask_server(server, "/tokenize", asked, model=name))["tokens"][-1]
    in_parts = _PARTS.search(props.get("chat_template") or "") is not None
    meta = (await ask_server(server, "/v1/models", model=name))["data"][0]["meta"]
    unread = frozenset([place async for place in _unread_places(server, name, answers_in_parts=in_parts)])
    spellings = {props["bos_token"], props["eos_token"], *settings.special_tokens}
    special_ids = await _special_ids(server, name, spellings - {""})
    return Learned(
        capabilities=_capabilities(
            props, name, has_embeddings=settings.embeddings, answers_in_parts=in_parts, num_parameters=meta["n_params"]
        ),
        special_ids=special_ids,
        specials=plain_text.compile_specials(special_ids),
        answers_in_parts=in_parts,
        unread=unread,
        num_vocabulary=meta["n_vocab"],
        no_json_id=no_json_id,
        stops=settings.stops,
        may_repeat=settings.program is not None,
    )


async def _unread_places(server: LlamaServer, name: str, *, answers_in_parts: bool) -> AsyncIterator[tuple[str, str]]:
    """What renders to the same prompt with the field and without. Old reasoning is often left out on purpose."""
    messages = [{"role": role, "content": "x"} for role in ("system", "user", "assistant", "user")]
    places = [(0, "name"), (1, "name"), (2, "name")]
    places += [] if answers_in_parts else [(2, "reasoning_content")]
    try:
        plain = await ask_server(server, "/apply-template", {"messages": messages}, model=name)
        for index, field in places:
            told = [message | ({field: "Zork"} if i == index else {}) for i, message in enumerate(messages)]
            if await ask_server(server, "/apply-template", {"messages": told}, model=name) == plain:
                yield messages[index]["role"], field
    except (InvalidRequest, EngineError) as error:  # a template that takes no such chat: nothing is known of it
        _log.info("what the template reads is not known model=%s error=%s", name, error)


async def _special_ids(server: LlamaServer, name: str, spellings: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for spelling in sorted(spellings):
        request = {"content": spelling, "add_special": False, "parse_special": True}
        ids = (await ask_server(server, "/tokenize", request, model=name))["tokens"]
        if len(ids) == 1:
            found[spelling] = ids[0]
    return found


def _capabilities(
    props: dict[str, Any], name: str, *, has_embeddings: bool, answers_in_parts: bool, num_parameters: int
) -> Capabilities:
    caps = props.get("chat_template_caps", {})
    tools = bool(caps.get("supports_tools"))
    parameters, why_not = set(PARAMETERS), dict(WHY_NOT)
    if tools:
        parameters |= {"tools", "tool_choice", "parallel_tool_calls"}
    else:
        reason = f"the chat template of {name} knows no tools"
        why_not |= dict.fromkeys(("tools", "tool_choice", "parallel_tool_calls"), reason)
    if caps.get("supports_reasoning_effort"):
        parameters.add("reasoning_effort")
    else:
        why_not["reasoning_effort"] = f"the chat template of {name} knows no reasoning effort"
    routes: frozenset[Any] = frozenset({"chat", "completions"} | ({"embeddings"} if has_embeddings else set()))
    return Capabilities(
        routes=routes,
        parameters=frozenset(parameters),
        tools=tools,
        vision=bool(props["modalities"].get("vision")),
        reasoning=answers_in_parts,
        context_tokens=props["default_generation_settings"]["n_ctx"],
        slots=props["total_slots"],
        embedding_slots=EMBEDDING_SLOTS,
        num_parameters=num_parameters,
        why_not=why_not,
    )
