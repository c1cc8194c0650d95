from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import real_tokenizers
from chaku.chat.messages import Conversation, Message, Role, ToolCall
from chaku.chat.render import Renderer
from chaku.chat.templates import get_template
from chaku.chat.tokenizer import Before
from chaku.errors import ModelError
from chaku.models.tokenizers.tokenizer import load_tokenizer
from conversations import TEXTS, any_text
from gguf_files import write_gguf
from gguf_llama import write_llama

sentencepiece_names = ["llama_spm", "mistral_v2", "mistral_v3"]


@pytest.mark.parametrize("name", sentencepiece_names)
@given(text=any_text)
@settings(max_examples=80, deadline=None)
def test_a_sentencepiece_model_gives_sentencepieces_own_ids_and_text(name: str, text: str) -> None:
    from sentencepiece import SentencePieceProcessor

    original = SentencePieceProcessor(model_file=str(real_tokenizers.file_of(name)))
    tokenizer = real_tokenizers.load(name)
    ids = tokenizer.encode_text(text)
    assert ids == original.encode(text)
    if not tokenizer.lost_characters(text):
        assert tokenizer.decode(ids) == text == original.decode(ids)


@given(text=any_text)
@settings(max_examples=80, deadline=None)
def test_tekken_gives_mistral_commons_ids(text: str) -> None:
    tokenizer = real_tokenizers.load("tekken")
    assert tokenizer.encode_text(text) == tekkenizer().encode(text, bos=False, eos=False)


_tekkenizer: list[Any] = []


def tekkenizer() -> Any:
    if not _tekkenizer:
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer

        _tekkenizer.append(Tekkenizer.from_file(real_tokenizers.file_of("tekken")))
    return _tekkenizer[0]


@pytest.mark.parametrize("name", real_tokenizers.names)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_text_never_yields_a_special_token_and_comes_back(name: str, data: st.DataObject) -> None:
    tokenizer = real_tokenizers.load(name)
    text = data.draw(any_text) + data.draw(st.sampled_from(sorted(tokenizer.special_ids)))
    lost = tokenizer.lost_characters(text)
    for before in Before:
        ids = tokenizer.encode_text(text, before)
        assert set(ids).isdisjoint(tokenizer.special_ids.values())
        kept = "".join(character for character in text if character not in lost)
        if not lost:
            assert tokenizer.decode(ids, before) == kept
        assert b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", "replace").endswith(text[-1:])


def test_vicuna_ids_are_the_whole_strings_in_a_llama_tokenizer() -> None:
    """Golden: `<s>`, the text to the first answer's end, `</s>`, the rest, each encoded whole by sentencepiece 0.2."""
    conversation = Conversation(
        "c",
        (
            Message(Role.SYSTEM, "Be brief."),
            Message(Role.USER, "Hello!"),
            Message(Role.ASSISTANT, "Hi there."),
            Message(Role.USER, "Count to 12"),
            Message(Role.ASSISTANT, " 1\n2"),
        ),
    )
    rendered = Renderer(get_template("vicuna_v1.1"), real_tokenizers.load("llama_spm")).render_for_training(
        conversation
    )
    assert rendered.input_ids == GOLDEN_IDS
    assert rendered.loss_mask == GOLDEN_MASK


GOLDEN_IDS = [
    1, 1739, 6817, 28723, 2223, 725, 28747, 22557, 28808, 8602, 8048, 12738, 28747, 15359, 736, 28723, 2, 2223,
    725, 28747, 4165, 298, 28705, 28740, 28750, 8602, 8048, 12738, 28747, 259, 28740, 13, 28750, 2,
]  # fmt: skip
GOLDEN_MASK = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1,
]  # fmt: skip


MISTRAL_CHAT = Conversation(
    "c",
    (
        Message(Role.USER, "Hello [/INST] you"),
        Message(Role.ASSISTANT, "Hi </s>"),
        Message(Role.USER, "Bye\n"),
    ),
)


@pytest.mark.parametrize(
    ("template", "name", "version"),
    [("mistral", "llama_spm", "V1"), ("mistral_v3", "mistral_v2", "V2"), ("mistral_v3", "mistral_v3", "V3")],
)
def test_mistral_ids_are_mistral_commons(template: str, name: str, version: str) -> None:
    from mistral_common.protocol.instruct.messages import AssistantMessage, UserMessage
    from mistral_common.protocol.instruct.request import InstructRequest
    from mistral_common.tokens.tokenizers import instruct
    from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer

    kinds = {Role.USER: UserMessage, Role.ASSISTANT: AssistantMessage}
    turns = [kinds[message.role](content=message.content) for message in MISTRAL_CHAT.messages]
    theirs = getattr(instruct, f"InstructTokenizer{version}")(SentencePieceTokenizer(real_tokenizers.file_of(name)))
    expected = theirs.encode_instruct(InstructRequest(messages=turns)).tokens
    assert Renderer(get_template(template), real_tokenizers.load(name)).render_prompt(MISTRAL_CHAT) == expected


def test_mistral_tool_calls_and_results_are_mistral_commons() -> None:
    from mistral_common.protocol.instruct.messages import AssistantMessage, ToolMessage, UserMessage
    from mistral_common.protocol.instruct.request import InstructRequest
    from mistral_common.protocol.instruct.tool_calls import FunctionCall
    from mistral_common.protocol.instruct.tool_calls import ToolCall as MistralCall
    from mistral_common.tokens.tokenizers.instruct import InstructTokenizerV3
    from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer

    call = MistralCall(id="123456789", function=FunctionCall(name="weather", arguments='{"city": "Lima"}'))
    turns = [
        UserMessage(content="Rain?"),
        AssistantMessage(content=None, tool_calls=[call]),
        ToolMessage(content="dry", tool_call_id="123456789"),
    ]
    theirs = InstructTokenizerV3(SentencePieceTokenizer(real_tokenizers.file_of("mistral_v3")))
    expected = theirs.encode_instruct(InstructRequest(messages=turns)).tokens
    conversation = Conversation(
        "c",
        (
            Message(Role.USER, "Rain?"),
            Message(Role.ASSISTANT, tool_calls=(ToolCall("123456789", "weather", '{"city": "Lima"}'),)),
            Message(Role.TOOL, "dry", tool_call_id="123456789"),
        ),
    )
    renderer = Renderer(get_template("mistral_v3"), real_tokenizers.load("mistral_v3"))
    assert renderer.render_prompt(conversation) == expected


@pytest.fixture(scope="module")
def llama_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Llama-like SentencePiece vocabulary, written as a GGUF would hold it."""
    return write_llama(tmp_path_factory.mktemp("gguf") / "llama.gguf", real_tokenizers.file_of("llama_spm"))


def test_a_ggufs_sentencepiece_vocabulary_gives_the_models_ids(llama_gguf: Path) -> None:
    loaded, original = load_tokenizer(llama_gguf), real_tokenizers.load("llama_spm")
    assert (loaded.bos, loaded.eos, loaded.adds_bos, loaded.vocab_size) == ("<s>", "</s>", True, 32000)
    assert loaded.special_ids == original.special_ids
    for text in TEXTS:
        assert loaded.encode_text(text) == original.encode_text(text)


@pytest.fixture(scope="module")
def llama_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same vocabulary as Hugging Face's tokenizer.json for Llama 2."""
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=str(real_tokenizers.file_of("llama_spm")))
    vocab = {pieces.id_to_piece(token_id): token_id for token_id in range(pieces.vocab_size())}
    merges = []
    for piece in sorted(vocab, key=lambda piece: -pieces.get_score(vocab[piece])):
        if not pieces.is_byte(vocab[piece]) and vocab[piece] > 2:
            halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
            known = [pair for pair in halves if pair[0] in vocab and pair[1] in vocab]
            merges += sorted(known, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    added = [
        {
            "id": i,
            "content": text,
            "special": True,
            "lstrip": False,
            "rstrip": False,
            "single_word": False,
            "normalized": False,
        }
        for i, text in enumerate(("<unk>", "<s>", "</s>"))
    ]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    content = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
            "vocab": vocab, "merges": merges,
        },
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("llama")
    (folder / "tokenizer.json").write_text(json.dumps(content))
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "add_bos_token": True, "chat_template": "x"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_a_llama_tokenizer_json_gives_sentencepieces_ids(llama_json: Path) -> None:
    loaded, original = load_tokenizer(llama_json), real_tokenizers.load("llama_spm")
    assert (loaded.bos, loaded.eos, loaded.adds_bos, loaded.chat_template) == ("<s>", "</s>", True, "x")
    for text in TEXTS:
        for before in Before:
            assert loaded.encode_text(text, before) == original.encode_text(text, before)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": {"type": "Unigram"}}, "is of type Unigram"),
        ({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "always"}}, "adds a space before text"),
    ],
)
def test_a_tokenizer_that_would_change_text_is_refused(
    llama_json: Path, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    content = json.loads((llama_json / "tokenizer.json").read_bytes()) | change
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    with pytest.raises(ModelError, match=reason):
        load_tokenizer(tmp_path)


def test_a_sentencepiece_model_that_normalises_text_is_refused(tmp_path: Path) -> None:
    from sentencepiece import SentencePieceTrainer

    lines = [f"word{number} and ﬁne text" for number in range(200)]
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(tmp_path / "m"), vocab_size=60, model_type="bpe", minloglevel=2
    )
    with pytest.raises(ModelError, match="does not give text back as it was"):
        load_tokenizer(tmp_path / "m.model")


@pytest.mark.parametrize(("name", "content"), [("a.model", b"x"), ("tokenizer.json", b"{"), ("a.gguf", b"GGUF")])
def test_a_broken_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=re.escape(str(tmp_path / name))):
        load_tokenizer(tmp_path / name)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)


def test_a_gguf_with_an_unknown_pretokenizer_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", tokenizer__ggml__pre="martian")
    with pytest.raises(ModelError, match="'martian', which is not known here"):
        load_tokenizer(path)
