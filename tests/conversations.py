"""Random and hostile conversations for property tests."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from chaku.chat.messages import Conversation, Message, Role, ToolCall
from chaku.chat.templates import Template
from chaku.chat.tokenizer import Tokenizer

HOSTILE = [
    "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|im_start|>assistant\n", "[INST]", "[/INST]", " [/INST] ",
    "<|eot_id|>", "<|start_header_id|>", "<|begin_of_text|>", "<start_of_turn>", "<end_of_turn>", "<|user|>\n",
    "<<SYS>>", "USER: ", " ASSISTANT:", "### Human: ", "\n###", "[TOOL_CALLS]", "[REF]", "<think>", "</think>",
    "<tool_call>", "<｜User｜>", "<｜end▁of▁sentence｜>", "<|endoftext|>", "<0x0A>", "\n", "\n\n", " ", "   ", "\t",
    "\r\n", "1234567", "中文", "日本語", "👩🏽‍🚀", "é", "e\u0301", "ﬁ", "def f(x):\n    return x", "<", "|>",
    "{{ x }}", "{% if %}",
    "\ue001", "\ue010" + "0" + "\ue011", "\u200b", "\x00", "\x1f",
]  # fmt: skip

TEXTS = [
    "", " ", "Hello world", "  two  spaces ", "\n\n\n", "tab\tand\r\nline", "def f(x):\n    return x ** 2\n",
    "x  y   z    w", "don't WON'T I'll", "3.14159 1,234,567", "Grüße, naïve café", "你好，世界", "日本語テキスト", 
    "한국어", "عربى", "हिन्दी", "ไทย",
    "...!?;:", "a" * 300, "\u200b\u00a0x\u3000y", "SELECT * FROM t WHERE a='b';", "<p>HTML &amp; more</p>",
    'for (int i = 0; i < 10; ++i) {\n\t\tprintf("%d\\n", i);\n\t}\n\n\n}', "🧉🦙👨‍👩‍👧‍👦", "ﷺ", "e\u0301\u0301", "ﬁ",
    "１２３ ½ Ⅷ", "\\frac{a}{b}", "___", "\x00\x1f", "a \x16: b", "\U00040000!",
    *HOSTILE, *(a + b for a in HOSTILE[24:] for b in HOSTILE[24:30]),
]  # fmt: skip
"""Code, numbers, white space and many scripts."""

any_text = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(HOSTILE)), max_size=5).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | any_text, lambda inner: st.lists(inner, max_size=2)
)


def _kept(text: str, tokenizer: Tokenizer) -> str:
    lost = tokenizer.lost_characters(text)
    return "".join(character for character in text if character not in lost)


@st.composite
def chats(draw: st.DrawFn, template: Template | None = None, tokenizer: Tokenizer | None = None) -> Conversation:
    """User and assistant in turns, ending with the assistant; with a system prompt in half of them.

    Without the characters that `tokenizer` can't give back.
    """
    text = any_text if tokenizer is None else any_text.map(lambda given: _kept(given, tokenizer))
    messages = [Message(Role.SYSTEM, draw(text))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append(Message(Role.USER, draw(text)))
        reasoning = draw(text) if template is not None and template.reasoning and draw(st.booleans()) else None
        messages.append(Message(Role.ASSISTANT, draw(text), reasoning))
    return Conversation("c", tuple(messages))


calls = st.builds(
    ToolCall,
    id=any_text,
    name=any_text,
    arguments=st.dictionaries(any_text, json_values, max_size=2).map(
        lambda value: json.dumps(value, ensure_ascii=False)
    ),
)
messages = st.builds(
    Message,
    role=st.sampled_from([Role.USER, Role.ASSISTANT, Role.USER, Role.ASSISTANT, Role.TOOL, Role.SYSTEM]),
    content=any_text,
    tool_call_id=st.none() | any_text,
)
answers = st.builds(
    Message,
    role=st.just(Role.ASSISTANT),
    content=any_text | st.just(""),
    reasoning=st.none() | any_text,
    tool_calls=st.lists(calls, max_size=2).map(tuple),
)
tools = st.lists(
    st.builds(
        lambda name, description: {"type": "function", "function": {"name": name, "description": description}},
        any_text,
        any_text,
    ),
    max_size=2,
).map(tuple)
anything = st.builds(
    Conversation,
    id=st.just("c"),
    messages=st.lists(messages | answers, max_size=6).map(tuple),
    tools=st.just(()) | tools,
)
"""Any order of roles, with tools, calls, results and reasoning: most templates refuse most of them."""
