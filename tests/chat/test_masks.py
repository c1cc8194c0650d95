from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import real_tokenizers
from chaku.chat.messages import Conversation, Message, Role, ToolCall
from chaku.chat.render import Renderer, supervised_texts
from chaku.chat.templates import EOS, TEMPLATES, Template, get_template
from conversations import any_text, chats

every_tokenizer = pytest.mark.parametrize("tokenizer_name", real_tokenizers.names)
every_template = pytest.mark.parametrize("template_name", TEMPLATES)
few = settings(max_examples=12, deadline=None)


def answers(template: Template, conversation: Conversation, eos: str) -> list[str]:
    """What each assistant message should teach, written down without the renderer."""
    found = []
    for message in conversation.messages:
        if message.role is Role.ASSISTANT:
            content = message.content.strip() if template.trims else message.content
            content = content.rstrip(" ") if template.strips_answer_end else content
            thoughts = f"<think>\n{message.reasoning}\n</think>\n\n" if message.reasoning else ""
            found.append(template.lead + thoughts + content + template.end.replace(EOS, eos))
    return found


@every_tokenizer
@every_template
@given(data=st.data())
@few
def test_supervised_ids_decode_to_the_answers_and_their_ends_and_nothing_else(
    template_name: str, tokenizer_name: str, data: st.DataObject
) -> None:
    tokenizer, template = real_tokenizers.load(tokenizer_name), get_template(template_name)
    conversation = data.draw(chats(template, tokenizer))
    renderer = Renderer(template, tokenizer)
    rendered = renderer.render_for_training(conversation)
    assert len(rendered.input_ids) == len(rendered.loss_mask)
    taught = "".join(supervised_texts(rendered.input_ids, rendered.loss_mask, tokenizer))
    assert taught == "".join(answers(template, conversation, tokenizer.eos))
    bos = (tokenizer.bos or "") if tokenizer.adds_bos else ""
    segments = template.lay_out(conversation, bos=bos, eos=tokenizer.eos)
    others = supervised_texts(rendered.input_ids, [1 - loss for loss in rendered.loss_mask], tokenizer)
    assert "".join(others) == "".join(segment.text for segment in segments if segment.turn is None)
    assert tokenizer.decode(rendered.input_ids) == "".join(segment.text for segment in segments)


@every_tokenizer
@every_template
@given(data=st.data())
@few
def test_only_the_template_writes_special_tokens(template_name: str, tokenizer_name: str, data: st.DataObject) -> None:
    tokenizer, template = real_tokenizers.load(tokenizer_name), get_template(template_name)
    conversation = data.draw(chats(template, tokenizer))
    harmless = Conversation(
        "c", tuple(Message(m.role, "x", "x" if m.reasoning else None) for m in conversation.messages)
    )
    special_ids = set(tokenizer.special_ids.values())

    def specials(of: Conversation) -> list[int]:
        ids = Renderer(template, tokenizer).render_for_training(of).input_ids
        return [token_id for token_id in ids if token_id in special_ids]

    assert specials(conversation) == specials(harmless)


@every_tokenizer
@every_template
@given(data=st.data())
@few
def test_the_prompt_is_a_prefix_of_what_is_trained(
    template_name: str, tokenizer_name: str, data: st.DataObject
) -> None:
    tokenizer, template = real_tokenizers.load(tokenizer_name), get_template(template_name)
    conversation = data.draw(chats(template, tokenizer))
    renderer = Renderer(template, tokenizer)
    prompt = renderer.render_prompt(Conversation("c", conversation.messages[:-1]))
    last = renderer.render_for_training(conversation, turns="last")
    assert last.input_ids[: len(prompt)] == prompt
    assert not any(last.loss_mask[: len(prompt)])
    taught = "".join(supervised_texts(last.input_ids, last.loss_mask, tokenizer))
    assert taught == answers(template, conversation, tokenizer.eos)[-1]
    every = renderer.render_for_training(conversation)
    if every.input_ids == renderer.whole_string_ids(conversation):
        assert every.input_ids[: len(prompt)] == prompt


# In `plain` nothing stands between the prompt and its completion, so they may merge.
ends_with_special = pytest.mark.parametrize(
    "template_name", [name for name, template in TEMPLATES.items() if template.end.endswith(EOS) and name != "plain"]
)


@every_tokenizer
@ends_with_special
@given(data=st.data())
@few
def test_ids_are_those_of_the_whole_string_where_answers_begin_and_end_with_letters(
    template_name: str, tokenizer_name: str, data: st.DataObject
) -> None:
    tokenizer, template = real_tokenizers.load(tokenizer_name), get_template(template_name)
    word = st.sampled_from(["Yes", "Grüße", "中文", "7", "Ω"])
    conversation = data.draw(chats(None, tokenizer))
    messages = tuple(
        Message(m.role, data.draw(word) + m.content + data.draw(word)) if m.role is Role.ASSISTANT else m
        for m in conversation.messages
    )
    conversation = Conversation("c", messages)
    renderer = Renderer(template, tokenizer)
    ids = renderer.render_for_training(conversation).input_ids
    assert ids == renderer.whole_string_ids(conversation)
    bos = (tokenizer.bos or "") if tokenizer.adds_bos else ""
    joined = "".join(
        re.sub("[<>|｜\\[\\]]", "_", segment.text) if segment.is_content else segment.text
        for segment in template.lay_out(conversation, bos=bos, eos=tokenizer.eos)
    )
    assert renderer.whole_string_ids(_cleaned(conversation)) == whole_string(joined, tokenizer_name)


def _cleaned(conversation: Conversation) -> Conversation:
    return Conversation(
        "c", tuple(Message(m.role, re.sub("[<>|｜\\[\\]]", "_", m.content)) for m in conversation.messages)
    )


def whole_string(text: str, tokenizer_name: str) -> list[int]:
    """The rendered string cut at every special token it spells, each run encoded at once: what engines do."""
    from chaku.chat.tokenizer import Before

    tokenizer = real_tokenizers.load(tokenizer_name)
    spellings = sorted(tokenizer.special_ids, key=len, reverse=True)
    ids: list[int] = []
    before = Before.START
    for part in re.split(f"({'|'.join(map(re.escape, spellings))})", text):
        if part in tokenizer.special_ids:
            ids.append(tokenizer.special_ids[part])
            before = Before.SPECIAL
        elif part:
            ids += tokenizer.encode_text(part, before)
    return ids


@every_tokenizer
def test_tool_calls_and_reasoning_carry_loss_and_results_do_not(tokenizer_name: str) -> None:
    tokenizer = real_tokenizers.load(tokenizer_name)
    conversation = Conversation(
        "c",
        (
            Message(Role.USER, "Rain?"),
            Message(Role.ASSISTANT, "Wait.", "Hm.", (ToolCall("a", "weather", '{"city": "Lima </tool_call>"}'),)),
            Message(Role.TOOL, "dry", tool_call_id="a"),
            Message(Role.ASSISTANT, "No."),
        ),
        ({"type": "function", "function": {"name": "weather"}},),
    )
    rendered = Renderer(get_template("chatml"), tokenizer).render_for_training(conversation)
    assert supervised_texts(rendered.input_ids, rendered.loss_mask, tokenizer) == [
        "<think>\nHm.\n</think>\n\nWait.\n<tool_call>\n"
        '{"name": "weather", "arguments": {"city": "Lima </tool_call>"}}\n</tool_call><|im_end|>',
        "No.<|im_end|>",
    ]


def test_a_border_of_loss_wins_over_a_merge_across_it() -> None:
    tokenizer = real_tokenizers.load("deepseek")
    renderer = Renderer(get_template("chatml"), tokenizer)
    conversation = Conversation("c", (Message(Role.USER, "a"), Message(Role.ASSISTANT, "\nb")))
    rendered = renderer.render_for_training(conversation)
    assert tokenizer.encode_text("assistant\n\nb") != tokenizer.encode_text("assistant\n") + tokenizer.encode_text(
        "\nb"
    )
    assert rendered.input_ids != renderer.whole_string_ids(conversation)
    assert supervised_texts(rendered.input_ids, rendered.loss_mask, tokenizer) == ["\nb<|im_end|>"]
    prompt = renderer.render_prompt(Conversation("c", conversation.messages[:1]))
    assert rendered.input_ids[: len(prompt)] == prompt


@given(any_text)
def test_a_conversation_without_an_answer_carries_no_loss(content: str) -> None:
    renderer = Renderer(get_template("vicuna_v1.1"), real_tokenizers.load("llama_spm"))
    rendered = renderer.render_for_training(Conversation("c", (Message(Role.USER, content),)))
    assert rendered.input_ids and not any(rendered.loss_mask)


@pytest.mark.parametrize(
    ("template_name", "tokenizer_name", "ids", "strings"),
    [
        ("vicuna_v1.1", "llama_spm", {2}, ()),
        ("vicuna_v0", "llama_spm", {2}, ("###",)),
        ("chatml", "llama_spm", {2}, ("<|im_end|>",)),
        pytest.param("chatml", "smollm2", {2}, (), marks=pytest.mark.model),
    ],
)
def test_an_answer_stops_at_its_end_token_or_where_there_is_none_at_its_text(
    template_name: str, tokenizer_name: str, ids: set[int], strings: tuple[str, ...]
) -> None:
    renderer = Renderer(get_template(template_name), real_tokenizers.load(tokenizer_name))
    assert (renderer.stop_ids, renderer.stop_strings) == (ids, strings)


@pytest.mark.parametrize("template_name", ["vicuna_v1.1", "llama3", "chatml", "mistral_v3", "gemma", "zephyr"])
def test_trainers_over_transformers_get_our_masks_from_the_exported_template(template_name: str) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from chaku.chat.export import to_jinja

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    theirs = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.decoder = decoders.ByteLevel()
    template = get_template(template_name)
    theirs.add_special_tokens([AddedToken(text, special=True) for text in ("<s>", "</s>", *template.tokens)])
    fast = PreTrainedTokenizerFast(tokenizer_object=theirs, bos_token="<s>", eos_token="</s>")
    turns = [
        {"role": "user", "content": "How deep is it?"}, {"role": "assistant", "content": "Twelve metres. "},
        {"role": "user", "content": "And wide?"}, {"role": "assistant", "content": "Forty:\n\n* here\n* there"},
    ]  # fmt: skip
    encoded = fast.apply_chat_template(
        turns, chat_template=to_jinja(template, generation=True), return_assistant_tokens_mask=True, return_dict=True
    )
    conversation = Conversation("c", tuple(Message(Role(turn["role"]), turn["content"]) for turn in turns))
    ids: list[int] = []
    mask: list[int] = []
    for segment in template.lay_out(conversation, bos="<s>", eos="</s>"):
        tokens = theirs.encode(segment.text, add_special_tokens=False).ids
        ids += tokens
        mask += [int(segment.turn is not None)] * len(tokens)
    assert encoded["input_ids"] == ids
    assert encoded["assistant_masks"] == mask
