from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaku.chat.export import template_variables, to_jinja
from chaku.chat.jinja import compile_jinja
from chaku.chat.messages import Conversation, Message, Role, ToolCall
from chaku.chat.templates import TEMPLATES, get_template
from chaku.errors import ConfigError, InvalidRequest
from conversations import anything, chats

all_templates = pytest.mark.parametrize("name", TEMPLATES)

CHAT = Conversation(
    "c",
    (
        Message(Role.SYSTEM, "Be brief."),
        Message(Role.USER, "Hi"),
        Message(Role.ASSISTANT, "Hello!"),
        Message(Role.USER, "Bye"),
    ),
)
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
VICUNA_V0 = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)

# Written by hand from each format's documentation, with the generation prompt.
PROMPTS = {
    "vicuna_v0": "<s>Be brief.\n\n### Human: Hi\n### Assistant: Hello!\n### Human: Bye\n### Assistant:",
    "vicuna_v1.1": "<s>Be brief. USER: Hi ASSISTANT: Hello!</s>USER: Bye ASSISTANT:",
    "llama2": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello! </s><s>[INST] Bye [/INST]",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    "Hello!<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    "Hello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
    "mistral": "<s>[INST] Be brief.\n\nHi [/INST] Hello!</s>[INST] Bye [/INST]",
    "mistral_v3": "<s>[INST]Be brief.\n\nHi[/INST]Hello!</s>[INST]Bye[/INST]",
    "gemma": "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n"
    "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
    "zephyr": "<s><|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello!</s>\n<|user|>\nBye</s>\n"
    "<|assistant|>\n",
    "plain": "<s>Be brief.\n\nHiHello!</s>Bye",
}
PROMPTS["vicuna_v1.3"] = PROMPTS["vicuna_v1.5"] = PROMPTS["vicuna_v1.1"]


def render(name: str, conversation: Conversation, *, generation_prompt: bool = True, bos: str = "<s>") -> str:
    segments = get_template(name).lay_out(conversation, bos=bos, eos="</s>", generation_prompt=generation_prompt)
    return "".join(segment.text for segment in segments)


@all_templates
def test_a_prompt_is_the_published_string(name: str) -> None:
    assert render(name, CHAT) == PROMPTS[name]


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("vicuna_v0", f"<s>{VICUNA_V0}\n\n### Human: Hi"),
        ("vicuna_v1.1", f"<s>{VICUNA} USER: Hi"),
        ("chatml", "<|im_start|>user\nHi"),
        ("llama2", "<s>[INST] Hi [/INST]"),
    ],
)
def test_without_a_system_prompt_the_default_one_is_used_where_there_is_one(name: str, start: str) -> None:
    assert render(name, Conversation("c", CHAT.messages[1:])).startswith(start)


def outcome(render_it: Any) -> str:
    try:
        return str(render_it())
    except InvalidRequest:
        return "refused"


@all_templates
@given(conversation=anything | chats(), generation_prompt=st.booleans(), with_bos=st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_jinja_export_says_the_same_and_refuses_the_same(
    name: str, conversation: Conversation, generation_prompt: bool, with_bos: bool
) -> None:
    jinja = compiled(name, with_bos)
    ours = outcome(
        lambda: render(name, conversation, generation_prompt=generation_prompt, bos="<s>" if with_bos else "")
    )
    theirs = outcome(
        lambda: jinja(
            **template_variables(conversation),
            bos_token="<s>",
            eos_token="</s>",
            add_generation_prompt=generation_prompt,
        )
    )
    assert ours == theirs


_compiled: dict[tuple[str, bool], Any] = {}


def compiled(name: str, with_bos: bool) -> Any:
    key = (name, with_bos)
    if key not in _compiled:
        _compiled[key] = compile_jinja(to_jinja(get_template(name), bos=with_bos))
    return _compiled[key]


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"city": "string"}}}
CALLS = (
    Message(Role.USER, "Rain in Lima?"),
    Message(Role.ASSISTANT, "", "I look it up.", (ToolCall("a", "weather", '{"city":"Lima"}'),)),
    Message(Role.TOOL, "dry", tool_call_id="a"),
    Message(Role.TOOL, "warm", tool_call_id="b"),
    Message(Role.ASSISTANT, "No."),
)


def test_chatml_has_a_place_for_functions_calls_results_and_reasoning() -> None:
    text = render("chatml", Conversation("c", CALLS, (WEATHER,)), generation_prompt=False)
    specs, _, rest = text.partition("<|im_end|>\n")
    assert specs.startswith("<|im_start|>system\n# Tools\n\nYou may call")
    assert (
        '<tools>\n{"type": "function", "function": {"name": "weather", "parameters": {"city": "string"}}}\n</tools>'
        in specs
    )
    assert rest == (
        "<|im_start|>user\nRain in Lima?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nI look it up.\n</think>\n\n"
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Lima"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\ndry\n</tool_response>\n<tool_response>\nwarm\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\nNo.<|im_end|>\n"
    )


def test_llama3_has_a_place_for_functions_calls_and_results() -> None:
    call = (CALLS[0], Message(Role.ASSISTANT, "", None, CALLS[1].tool_calls), *CALLS[2:])
    text = render("llama3", Conversation("c", call, (WEATHER,)), generation_prompt=False)
    assert '"city": "string"\n        }\n    }\n}\n\nRain in Lima?<|eot_id|>' in text
    assert '<|end_header_id|>\n\n{"name": "weather", "parameters": {"city": "Lima"}}<|eot_id|>' in text
    assert '<|start_header_id|>ipython<|end_header_id|>\n\n"dry"<|eot_id|>' in text


def test_mistral_v3_has_a_place_for_calls_and_results() -> None:
    call = (CALLS[0], Message(Role.ASSISTANT, "", None, CALLS[1].tool_calls), CALLS[2])
    text = render("mistral_v3", Conversation("c", call), generation_prompt=False)
    assert text == (
        '<s>[INST]Rain in Lima?[/INST][TOOL_CALLS][{"name": "weather", "arguments": {"city": "Lima"}, "id": "a"}]</s>'
        '[TOOL_RESULTS]{"content": "dry", "call_id": "a"}[/TOOL_RESULTS]'
    )


USER, ANSWER = Message(Role.USER, "a"), Message(Role.ASSISTANT, "b")
PICTURE = Message(Role.USER, "", parts=({"type": "image_url", "image_url": {"url": "x"}},))


@pytest.mark.parametrize(
    ("name", "conversation", "reason"),
    [
        ("vicuna_v1.1", Conversation("c", (USER,), (WEATHER,)), "no place for functions"),
        ("mistral_v3", Conversation("c", (USER,), (WEATHER,)), "before the last user message only"),
        ("vicuna_v1.1", Conversation("c", (USER, CALLS[2])), "no place for tool results"),
        ("zephyr", Conversation("c", (USER, Message(Role.ASSISTANT, "", None, CALLS[1].tool_calls))), "tool calls"),
        ("llama3", Conversation("c", (USER, Message(Role.ASSISTANT, "x", None, CALLS[1].tool_calls))), "text beside"),
        ("llama2", Conversation("c", (USER, Message(Role.ASSISTANT, "b", "hm"))), "no place for reasoning"),
        ("gemma", Conversation("c", (ANSWER, USER)), "take turns, the user first"),
        ("mistral", Conversation("c", (USER, USER)), "take turns"),
        ("llama2", Conversation("c", (Message(Role.SYSTEM, "x"),)), "without a user message"),
        ("vicuna_v0", Conversation("c", (USER, Message(Role.SYSTEM, "x"))), "after the first message"),
        ("chatml", Conversation("c", (PICTURE,)), "content parts of type image_url"),
        (
            "chatml",
            Conversation("c", (USER, Message(Role.ASSISTANT, tool_calls=(ToolCall("a", "f", "{"),)))),
            "arguments of the call of 'f' are not JSON",
        ),
    ],
)
def test_what_has_no_place_is_refused_with_the_reason(name: str, conversation: Conversation, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        render(name, conversation, generation_prompt=False)


def test_mistral_v3_strips_spaces_after_an_answer_as_mistral_does() -> None:
    answer = Message(Role.ASSISTANT, " Hello!  ")
    assert render("mistral_v3", Conversation("c", (USER, answer)), generation_prompt=False).endswith(
        "[/INST] Hello!</s>"
    )


def test_an_unknown_template_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean mistral_v3"):
        get_template("mistral_v4")


def test_hashes_tell_formats_apart_and_not_names() -> None:
    hashes = {name: template.hash for name, template in TEMPLATES.items()}
    assert hashes["vicuna_v1.1"] == hashes["vicuna_v1.5"]
    assert len(set(hashes.values())) == len(hashes) - 2


@pytest.mark.parametrize(
    ("json", "reason"),
    [
        ({"role": "assistant", "tool_calls": [{"id": "a"}]}, "a tool call names no function"),
        ({"role": "user", "content": ["x"]}, "a part that is not an object"),
        ({"role": "user", "content": 3}, "content is a int"),
        ({"role": "bot", "content": ""}, "role is 'bot'"),
    ],
)
def test_a_message_that_is_none_is_refused(json: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        Conversation.from_json({"id": "c", "messages": [json]})


@given(conversation=anything)
def test_conversations_come_back_from_json(conversation: Conversation) -> None:
    again = Conversation.from_json(conversation.to_json())
    assert again.to_json() == conversation.to_json()
