"""A check for every field of OpenAI's signatures: that an answer shows it, or that it is refused by name."""

from __future__ import annotations

import base64
import json
import struct

import pytest

from conformance.asking import Ask, Check, leaves_one_token, of_no_effect, penalty, refused

COUNT = [{"role": "user", "content": "Count from one to twenty."}]
FRANCE = "The capital of France is"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
JSON_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "schema": {
            "type": "object",
            "properties": {"even": {"type": "boolean"}},
            "required": ["even"],
            "additionalProperties": False,
        },
    },
}


# --- checks that hold for chats and completions


def temperature(ask: Ask) -> None:
    greedy = ask.text(temperature=0)
    assert ask.text(temperature=0) == greedy
    assert len({ask.text(temperature=1.5, seed=seed) for seed in range(3)}) == 3
    ask.refuses("temperature", temperature=2.1)


def top_p(ask: Ask) -> None:
    greedy = ask.text(temperature=0)
    assert {ask.text(temperature=1.5, top_p=1e-6, seed=seed) for seed in range(3)} == {greedy}
    ask.refuses("top_p", top_p=1.1)
    ask.refuses("top_p", top_p=0)


def seed(ask: Ask) -> None:
    assert ask.text(temperature=1.5, seed=7) == ask.text(temperature=1.5, seed=7)
    assert ask.text(temperature=1.5, seed=7) != ask.text(temperature=1.5, seed=8)
    ask.refuses("seed", seed=2**63)


def num_choices(ask: Ask) -> None:
    choices = ask.answer(n=3, temperature=1.5, seed=3)["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert len({json.dumps(choice.get("message", choice.get("text"))) for choice in choices}) == 3
    ask.refuses("n", n=0)


def max_tokens(ask: Ask) -> None:
    answer = ask.answer(max_tokens=3, temperature=0)
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "length"
    ask.refuses("max_tokens", max_tokens=0)


def stop(ask: Ask) -> None:
    text = ask.text(temperature=0)
    cut = text[6:9]
    assert ask.text(temperature=0, stop=cut) == text.partition(cut)[0]
    assert ask.text(temperature=0, stop=["no such text", cut]) == text.partition(cut)[0]
    assert ask.finish(temperature=0, stop=cut) == "stop"


def stream(ask: Ask) -> None:
    events = ask.answer(stream=True, temperature=0).removesuffix("\n\n").split("\n\n")
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    pieces = [chunk["choices"][0] for chunk in chunks]
    text = "".join(piece["text"] if "text" in piece else piece["delta"].get("content") or "" for piece in pieces)
    assert text == ask.text(temperature=0)


def stream_options(ask: Ask) -> None:
    events = ask.answer(stream=True, stream_options={"include_usage": True}).split("\n\n")
    assert json.loads(events[-3].removeprefix("data: "))["usage"]["completion_tokens"] > 0
    assert '"usage":{' not in ask.answer(stream=True)
    ask.refuses("stream_options", stream_options={"include_usage": True})
    ask.refuses("stream_options.include_obfuscation", stream=True, stream_options={"include_obfuscation": True})


def response_format(ask: Ask) -> None:
    status, _ = ask(response_format={"type": "text"})
    assert status == 200
    ruled = json.loads(ask.text(response_format=JSON_SCHEMA, temperature=0, max_tokens=40))
    assert ruled.keys() == {"even"}
    assert isinstance(ruled["even"], bool)
    ask.refuses("response_format", response_format={"type": "grammar"})


def logit_bias(ask: Ask) -> None:
    wanted = ask.vocabulary["ĠParis"]
    assert ask.text(logit_bias={str(wanted): 100}, temperature=0, max_tokens=2) == " Paris Paris"
    france = (
        {"prompt": FRANCE}
        if not ask.is_chat
        else {
            "messages": [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": "What is the capital of France?"},
            ]
        }
    )
    free = ask.text(**france, temperature=0, max_tokens=12)
    assert "Paris" in free
    banned = {str(ask.vocabulary[token]): -100 for token in ("ĠParis", "Paris")}
    assert "Paris" not in ask.text(**france, temperature=0, max_tokens=12, logit_bias=banned)
    ask.refuses("logit_bias.5", logit_bias={"5": 101})


def model(ask: Ask) -> None:
    status, body = ask(model="gpt-5")
    assert (status, body["error"]["param"], body["error"]["code"]) == (404, "model", "model_not_found")
    status, body = ask(model=None)
    assert (status, body["error"]["param"]) == (400, "model")


# --- extensions, named as vLLM and Hugging Face name them


def ignore_eos(ask: Ask) -> None:
    short = {"messages": [{"role": "user", "content": "Say OK."}]} if ask.is_chat else {}
    assert ask.finish(**short, temperature=0, max_tokens=60, ignore_eos=True) == "length"


SHARED: dict[str, Check] = {
    "model": model,
    "temperature": temperature,
    "top_p": top_p,
    "seed": seed,
    "n": num_choices,
    "max_tokens": max_tokens,
    "stop": stop,
    "frequency_penalty": penalty("frequency_penalty"),
    "presence_penalty": penalty("presence_penalty"),
    "logit_bias": logit_bias,
    "stream": stream,
    "stream_options": stream_options,
    "response_format": response_format,
    "user": of_no_effect("user", "someone", refuses=(5,)),
    "top_k": leaves_one_token("top_k", 1),
    "min_p": leaves_one_token("min_p", 1),
    "repetition_penalty": penalty("repetition_penalty", none=1, too_much=11),
    "ignore_eos": ignore_eos,
}


# --- chat


def messages(ask: Ask) -> None:
    said = [{"role": "user", "content": "My name is Zorblax. Say hello to me, by my name."}]
    assert "Zorblax" in ask.text(messages=said, temperature=0, max_tokens=24)
    as_parts = [{"role": "user", "content": [{"type": "text", "text": said[0]["content"]}]}]
    assert ask.text(messages=as_parts, temperature=0, max_tokens=24) == ask.text(
        messages=said, temperature=0, max_tokens=24
    )
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    ask.refuses("messages.0.content.0", messages=[{"role": "user", "content": [image]}])
    ask.refuses("messages", messages=[])


def max_completion_tokens(ask: Ask) -> None:
    answer = ask.answer(max_tokens=None, max_completion_tokens=3, temperature=0)
    assert answer["usage"]["completion_tokens"] == 3
    ask.refuses("max_completion_tokens", max_tokens=3, max_completion_tokens=3)


def chat_logprobs(ask: Ask) -> None:
    choice = ask.answer(logprobs=True, temperature=0)["choices"][0]
    tokens = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == choice["message"]["content"]
    assert all(token["top_logprobs"] == [] for token in tokens)
    assert ask.answer(temperature=0)["choices"][0]["logprobs"] is None


def top_logprobs(ask: Ask) -> None:
    tokens = ask.answer(logprobs=True, top_logprobs=20, temperature=0)["choices"][0]["logprobs"]["content"]
    for token in tokens:
        rivals = [rival["logprob"] for rival in token["top_logprobs"]]
        assert len(rivals) == 20
        assert rivals == sorted(rivals, reverse=True)
        assert token["top_logprobs"][0]["token"] == token["token"]  # greedy
    ask.refuses("top_logprobs", top_logprobs=2)
    ask.refuses("top_logprobs", logprobs=True, top_logprobs=21)


def tool_choice(ask: Ask) -> None:
    ask.refuses("tools", tools=[TOOL], tool_choice="required")
    assert ask.text(tools=[TOOL], tool_choice="none", temperature=0) == ask.text(temperature=0)
    ask.refuses("tool_choice", tool_choice="required")
    ask.refuses("tool_choice", tool_choice={"type": "function", "function": {"name": "f"}})
    assert ask.text(tool_choice="none", temperature=0) == ask.text(temperature=0)


def continue_final_message(ask: Ask) -> None:
    begun = [*COUNT, {"role": "assistant", "content": "One, two, three,"}]
    going_on = ask.text(messages=begun, continue_final_message=True, temperature=0)
    assert "four" in going_on
    assert not going_on.startswith("One")
    ask.refuses("continue_final_message", continue_final_message=True)  # the last message is the user's


def add_generation_prompt(ask: Ask) -> None:
    assert ask.text(add_generation_prompt=True, temperature=0) == ask.text(temperature=0)
    ask.refuses("add_generation_prompt", add_generation_prompt=False)


CHAT: dict[str, Check] = {
    **SHARED,
    "messages": messages,
    "continue_final_message": continue_final_message,
    "add_generation_prompt": add_generation_prompt,
    "max_completion_tokens": max_completion_tokens,
    "logprobs": chat_logprobs,
    "top_logprobs": top_logprobs,
    "tools": refused("tools", [TOOL]),
    "tool_choice": tool_choice,
    "parallel_tool_calls": of_no_effect("parallel_tool_calls", False, True, refuses=("no",)),
    "reasoning_effort": refused("reasoning_effort", "low", "enormous"),
    "metadata": of_no_effect("metadata", {"run": "7"}, refuses=("x",)),
    "safety_identifier": of_no_effect("safety_identifier", "someone"),
    "prompt_cache_key": of_no_effect("prompt_cache_key", "k"),
    "store": of_no_effect("store", False, refuses=(True,)),
    "service_tier": of_no_effect("service_tier", "auto", "default", refuses=("flex", "priority")),
    "modalities": of_no_effect("modalities", ["text"], refuses=(["text", "audio"],)),
    "verbosity": of_no_effect("verbosity", "medium", refuses=("low", "high")),
    "audio": refused("audio", {"voice": "alloy", "format": "wav"}),
    "function_call": refused("function_call", "auto"),
    "functions": refused("functions", [{"name": "f"}]),
    "moderation": refused("moderation", {"model": "m"}),
    "prediction": refused("prediction", {"type": "content", "content": "x"}),
    "prompt_cache_options": refused("prompt_cache_options", {"mode": "explicit"}),
    "prompt_cache_retention": refused("prompt_cache_retention", "24h"),
    "web_search_options": refused("web_search_options", {}),
}


# --- completions


def prompt(ask: Ask) -> None:
    assert "Paris" in ask.text(prompt=FRANCE, temperature=0)
    two = ask.answer(prompt=[FRANCE, "One, two, three,"], temperature=0)["choices"]
    assert [choice["index"] for choice in two] == [0, 1]
    assert two[0]["text"] == ask.text(prompt=FRANCE, temperature=0)
    assert "four" in two[1]["text"]
    ids = [ask.vocabulary[token] for token in ("The", "Ġcapital", "Ġof", "ĠFrance", "Ġis")]
    assert ask.text(prompt=ids, temperature=0) == ask.text(prompt=FRANCE, temperature=0)
    ask.refuses("prompt", prompt=[])


def echo(ask: Ask) -> None:
    assert ask.text(echo=True, temperature=0, prompt=FRANCE) == FRANCE + ask.text(temperature=0, prompt=FRANCE)
    if ask.scores_prompts:
        status, body = ask(echo=True, logprobs=1, prompt=FRANCE, max_tokens=0)
        found = body["choices"][0]["logprobs"]
        assert (status, "".join(found["tokens"]), found["token_logprobs"][0]) == (200, FRANCE, None)
    else:
        ask.refuses("echo", echo=True, logprobs=1)


def text_logprobs(ask: Ask) -> None:
    for count in (0, 1, 5):
        choice = ask.answer(logprobs=count, temperature=0)["choices"][0]
        found = choice["logprobs"]
        assert "".join(found["tokens"]) == choice["text"]
        assert len(found["token_logprobs"]) == len(found["text_offset"]) == len(found["tokens"])
        assert {len(top) for top in found["top_logprobs"]} == {count}
    ask.refuses("logprobs", logprobs=6)


COMPLETIONS: dict[str, Check] = {
    **SHARED,
    "prompt": prompt,
    "echo": echo,
    "logprobs": text_logprobs,
    "best_of": refused("best_of", 2),
    "suffix": refused("suffix", "the end"),
}


# --- embeddings


def embedding_input(ask: Ask) -> None:
    one = ask.answer(input="a cat")["data"][0]["embedding"]
    many = ask.answer(input=["a cat", "a dog"])["data"]
    assert [row["index"] for row in many] == [0, 1]
    assert many[0]["embedding"] == pytest.approx(one, abs=2e-3)
    assert many[1]["embedding"] != pytest.approx(one, abs=2e-3)
    ids = [ask.vocabulary[token] for token in ("a", "Ġcat")]
    assert ask.answer(input=ids)["data"][0]["embedding"] == pytest.approx(one, abs=2e-3)
    ask.refuses("input", input=[])


def encoding_format(ask: Ask) -> None:
    floats = ask.answer(input="a cat", encoding_format="float")["data"][0]["embedding"]
    packed = base64.b64decode(ask.answer(input="a cat", encoding_format="base64")["data"][0]["embedding"])
    assert list(struct.unpack(f"<{len(packed) // 4}f", packed)) == pytest.approx(floats, abs=1e-5)
    ask.refuses("encoding_format", encoding_format="int8")


def embedding_user(ask: Ask) -> None:
    assert ask.answer(user="someone")["data"]
    ask.refuses("user", user=5)


EMBEDDINGS: dict[str, Check] = {
    "model": model,
    "input": embedding_input,
    "encoding_format": encoding_format,
    "dimensions": refused("dimensions", 64),
    "user": embedding_user,
}
