from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import real_tokenizers
from chaku.chat.export import to_jinja
from chaku.chat.jinja import JinjaTemplate
from chaku.chat.messages import Conversation, Message, Role
from chaku.chat.render import Renderer, supervised_texts
from chaku.chat.templates import TEMPLATES, get_template
from chaku.errors import InvalidRequest, ModelError
from conversations import chats

# SmolLM2-135M-Instruct's, as its GGUF says it.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>"]

LOOP = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def own(source: str) -> JinjaTemplate:
    return JinjaTemplate(source, bos="<s>", eos="</s>", specials=SPECIALS)


def test_smollm2s_template_is_proven_and_its_default_system_prompt_noted() -> None:
    template = own(SMOLLM2)
    assert template.default_system is not None
    assert template.default_system.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert not template.trims


@pytest.mark.model
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_smollm2s_own_template_trains_the_answers_and_their_ends(data: st.DataObject) -> None:
    tokenizer = real_tokenizers.load("smollm2")
    assert tokenizer.chat_template == SMOLLM2
    renderer = Renderer(_proven(), tokenizer)
    conversation = data.draw(chats(None, tokenizer))
    rendered = renderer.render_for_training(conversation)
    answers = [message.content + "<|im_end|>" for message in conversation.messages if message.role is Role.ASSISTANT]
    assert supervised_texts(rendered.input_ids, rendered.loss_mask, tokenizer) == answers
    prompt = renderer.render_prompt(Conversation("c", conversation.messages[:-1]))
    last = renderer.render_for_training(conversation, turns="last")
    assert last.input_ids[: len(prompt)] == prompt
    own_ids = Renderer(get_template("chatml"), tokenizer).render_for_training(conversation).input_ids
    assert rendered.input_ids[-len(own_ids) :] == own_ids


def _proven(cache: list[JinjaTemplate] = []) -> JinjaTemplate:  # noqa: B006
    if not cache:
        cache.append(JinjaTemplate.of(real_tokenizers.load("smollm2")))
    return cache[0]


@pytest.mark.parametrize(
    "name", [name for name, template in TEMPLATES.items() if template.end.endswith(("</s>", "|>", "turn>", "\ue002"))]
)
@given(conversation=chats())
@settings(max_examples=30, deadline=None)
def test_an_exported_template_is_proven_and_laid_out_like_the_built_in_one(
    name: str, conversation: Conversation
) -> None:
    template = get_template(name)
    segments = proven_export(name).lay_out(conversation, bos="<s>", eos="</s>")
    expected = template.lay_out(conversation, bos="<s>", eos="</s>")
    for wanted in (lambda s: s.turn is not None, lambda s: s.turn is None):
        ours, theirs = ("".join(s.text for s in some if wanted(s)) for some in (expected, segments))
        assert theirs == ours


_exports: dict[str, JinjaTemplate] = {}


def proven_export(name: str) -> JinjaTemplate:
    if name not in _exports:
        _exports[name] = own(to_jinja(get_template(name)))
    return _exports[name]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for m in messages %}", "not valid Jinja"),
        (LOOP.replace("<|im_end|>", "") + PROMPT, "does not end with a special token"),
        (LOOP + "<|im_start|>bot\n", "not a prefix|does not begin the assistant's turn"),
        (LOOP + PROMPT + "{% if not add_generation_prompt %}</s>{% endif %}", "not a prefix"),
        (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>{% endif %}"
            "{{ m.content }}<|im_end|>\n{% endfor %}" + PROMPT,
            "puts text between",
        ),
        (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'user' or loop.last %}{{ m.content }}"
            "{% endif %}<|im_end|>\n{% endfor %}" + PROMPT,
            "appear in it as|not a prefix",
        ),
        (LOOP.replace("m.content", "m.content + m.content") + PROMPT, "appear in it as"),
        (LOOP.replace("m.content", "m.content | replace('  ', ' ')") + PROMPT, "changes the text"),
        (LOOP + "{{ strftime_now('%d %b %Y') }}" + PROMPT, "undefined"),
        ("{{ raise_exception('never') }}", "never"),
        ("{{ messages.__class__.__mro__ }}" + LOOP + PROMPT, "refuses this conversation"),
    ],
)
def test_a_template_that_is_not_prefix_stable_is_refused_with_the_reason(source: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        own(source)


def test_tool_calls_reasoning_and_pictures_are_refused() -> None:
    template = own(SMOLLM2)
    for message in (Message(Role.TOOL, "x"), Message(Role.ASSISTANT, "x", "hm")):
        with pytest.raises(InvalidRequest, match="choose a built-in template"):
            template.lay_out(Conversation("c", (message,)), bos="", eos="</s>")


def test_a_conversation_whose_text_the_template_changes_is_refused() -> None:
    template = own(LOOP.replace("m.content", "m.content | replace('secret', '***')") + PROMPT)
    with pytest.raises(InvalidRequest, match="changes the text"):
        template.lay_out(Conversation("c", (Message(Role.USER, "a secret"),)), bos="", eos="</s>")
