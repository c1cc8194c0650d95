"""Tokenizers without torch: from tokenizer.json, a SentencePiece model, tekken.json or a GGUF file.

What they give is what `chaku.chat.tokenizer` asks for: text is only ever text, whatever it spells.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaku.chat.detokenize import StreamDetokenizer
from chaku.chat.tokenizer import Before
from chaku.errors import ModelError
from chaku.models.files.modelconfig import read_optional
from chaku.models.tokenizers.encoders import (
    MARKER,
    Encoder,
    SentencePieceEncoder,
    TokenizersEncoder,
    byte_level_bpe,
    byte_of_letter,
    gguf_bpe,
    sentencepiece_model,
)
from chaku.models.tokenizers.vocabulary import CONTROL, UNKNOWN, USER_DEFINED, read_vocabulary
from chaku.packages import install_command

# Everything a conversation may hold and a lossy tokenizer would change.
_PROBE = " a\n\n  b\tc\r\n x='1234567'; é ﬁ 中文 \u200d👩🏽‍🚀 </s> <|im_end|> [INST]  "


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer as `chaku.chat` wants it, around one of the encoders below."""

    name: str
    hash: str
    vocab_size: int
    special_ids: Mapping[str, int]
    bos: str | None
    eos: str
    adds_bos: bool
    chat_template: str | None
    encoder: Encoder
    _space_before: frozenset[Before] = frozenset()
    _spellings: Mapping[int, bytes] = field(init=False)
    _breaks: re.Pattern[str] | None = field(init=False)

    def __post_init__(self) -> None:
        spellings = {token_id: text.encode() for text, token_id in self.special_ids.items()}
        object.__setattr__(self, "_spellings", spellings)
        parsed = [text for text, token_id in self.special_ids.items() if token_id in self.encoder.encode(text)]
        breaks = "|".join(f"(?<={re.escape(text[0])})(?={re.escape(text[1:])})" for text in parsed if len(text) > 1)
        object.__setattr__(self, "_breaks", re.compile(breaks) if breaks else None)
        ids = self.encode_text(_PROBE)
        if self.decode(ids) != _PROBE or not spellings.keys().isdisjoint(ids):
            raise ModelError(
                f"{self.name} does not give text back as it was: {self.decode(ids)!r} for {_PROBE!r}",
                fix="choose a tokenizer that encodes every byte",
            )

    def special_id(self, spelling: str) -> int | None:
        """The id of a special token, or None if there is none so spelled."""
        return self.special_ids.get(spelling)

    def prepends_space(self, before: Before) -> bool:
        """Whether `encode_text` puts a space in front that decoding takes away again."""
        return before in self._space_before

    def encode_text(self, text: str, before: Before = Before.START) -> list[int]:
        """Ids of plain text. A special token's spelling that the vocabulary would take whole is broken in two."""
        if text and before in self._space_before:
            text = " " + text
        if self._breaks is None:
            return self.encoder.encode(text)
        return [token_id for piece in self._breaks.split(text) for token_id in self.encoder.encode(piece)]

    def lost_characters(self, text: str) -> str:
        """Characters in `text` that no ids of this tokenizer give back, as every engine drops or changes them."""
        return "".join(sorted(filter(self.encoder.loses, set(text))))

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one id stands for; special tokens give their spelling."""
        return self._spellings[token_id] if token_id in self._spellings else self.encoder.token_bytes(token_id)

    def decode(self, token_ids: Sequence[int], before: Before = Before.START) -> str:
        """Text of ids, special tokens spelled out, bytes that are not UTF-8 replaced."""
        stream = StreamDetokenizer(self, before)
        return stream.push(token_ids) + stream.flush()


def load_tokenizer(path: Path) -> LoadedTokenizer:
    """Load a GGUF file, a tokenizer.json, a SentencePiece .model, a tekken.json, or a folder with one of these.

    Raises ModelError for anything else, for a tokenizer that changes text, and for kinds that are not supported.
    """
    if path.is_dir():
        names = ("tokenizer.json", "tekken.json", "tokenizer.model")
        found = next((path / name for name in names if (path / name).is_file()), None)
        found = found or next(iter(sorted(path.glob("*.gguf"))), None)
        if found is None:
            raise ModelError(f"{path} holds no tokenizer ({', '.join(names)} or a GGUF)", fix="check the folder")
        path = found
    try:
        if path.suffix == ".gguf":
            return _from_gguf(path)
        if path.suffix == ".json":
            data = path.read_bytes()
            content = json.loads(data)
            if not isinstance(content, dict):
                raise ValueError("it holds no JSON object")
            return (_from_tekken if "model" not in content and "vocab" in content else _from_json)(path, data, content)
        return _from_sentencepiece(path)
    except ImportError as error:
        raise ModelError(f"reading {path} needs {error.name}", fix=install_command("data")) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"can't read the tokenizer {path}: {error}", fix="check the file") from None
    except (KeyError, TypeError, AttributeError) as error:  # JSON of another shape
        raise ModelError(f"{path} is not a tokenizer.json: {error!r}", fix="check the file") from None


def _from_json(path: Path, data: bytes, content: dict[str, Any]) -> LoadedTokenizer:
    from tokenizers import Tokenizer

    model, added = content["model"], content.get("added_tokens") or []
    types = {step["type"] for step in steps_of(content.get("pre_tokenizer"))}
    byte_level = "ByteLevel" in types
    if model.get("type") != "BPE" or not (byte_level or model.get("byte_fallback")):
        raise ModelError(
            f"{path} is of type {model.get('type')}, not BPE down to bytes", fix="choose another tokenizer"
        )
    for token in added:
        token["special"] = token["special"] or MARKER.fullmatch(token["content"]) is not None
    specials = {token["content"]: token["id"] for token in added if token["special"]}
    swallowing = [token["content"] for token in added if token["lstrip"] or token["rstrip"]]
    if swallowing:
        raise ModelError(
            f"{path}: {', '.join(swallowing[:3])} remove the white space beside them", fix="choose another tokenizer"
        )
    config = read_optional(path.with_name("tokenizer_config.json"))
    bos, eos = token_text(config.get("bos_token")), token_text(config.get("eos_token"))
    if eos is None:
        raise ModelError(f"{path} does not say which token ends an answer", fix="put tokenizer_config.json beside it")
    adds_bos = config.get("add_bos_token", f'"{bos}"' in json.dumps(content.get("post_processor"), ensure_ascii=False))
    space_before = _take_space_prefix(path, content)
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.encode_special_tokens = True  # that is: as text
    return LoadedTokenizer(
        name=str(path),
        hash=hashlib.sha256(data).hexdigest(),
        vocab_size=tokenizer.get_vocab_size(with_added_tokens=True),
        special_ids=specials,
        bos=bos,
        eos=eos,
        adds_bos=bos is not None and bool(adds_bos),
        chat_template=_own_template(path, config),
        encoder=TokenizersEncoder(tokenizer, byte_level=byte_level),
        _space_before=space_before,
    )


def steps_of(component: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A normaliser or pre-tokeniser as a flat list of its steps."""
    if not component:
        return []
    inner = component.get("normalizers") or component.get("pretokenizers")
    return [step for part in inner for step in steps_of(part)] if inner is not None else [dict(component)]


def _take_space_prefix(path: Path, content: dict[str, Any]) -> frozenset[Before]:
    """Switch off the space that the tokenizer puts in front, and say where it puts it."""
    normalizers, pretokenizers = steps_of(content.get("normalizer")), steps_of(content.get("pre_tokenizer"))
    before: frozenset[Before] = frozenset()
    for step in list(normalizers):
        if step["type"] == "Prepend":
            normalizers.remove(step)
            before = frozenset((Before.START, Before.SPECIAL))
    for step in pretokenizers:
        if step.get("add_prefix_space") or step.get("prepend_scheme") == "always":
            raise ModelError(
                f"{path} adds a space before text that does not begin with one", fix="choose another tokenizer"
            )
        if step.get("prepend_scheme") == "first":
            step["prepend_scheme"] = "never"
            before = frozenset((Before.START,))
    content["normalizer"] = {"type": "Sequence", "normalizers": normalizers}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": pretokenizers} if pretokenizers else None
    return before


def token_text(value: Any) -> str | None:
    """A token in tokenizer_config.json: a text, or an object around it."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _own_template(path: Path, config: Mapping[str, Any]) -> str | None:
    file = path.with_name("chat_template.jinja")
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = next((one["template"] for one in template if one["name"] == "default"), None)
    return template if isinstance(template, str) else None


def _from_sentencepiece(path: Path) -> LoadedTokenizer:
    from sentencepiece import SentencePieceProcessor

    data = path.read_bytes()
    try:
        given = SentencePieceProcessor(model_proto=data)
    except RuntimeError:
        raise ModelError(f"{path} is not a SentencePiece model", fix="check the file") from None
    pieces = [given.id_to_piece(token_id) for token_id in range(given.vocab_size())]
    specials = {
        piece: token_id
        for token_id, piece in enumerate(pieces)
        if given.is_control(token_id) or given.is_unknown(token_id) or MARKER.fullmatch(piece)
    }
    if given.eos_id() < 0:
        raise ModelError(f"{path} does not say which token ends an answer", fix="choose another tokenizer")
    config = read_optional(path.with_name("tokenizer_config.json"))
    encoder = SentencePieceEncoder(data)
    adds_space = given.encode("a") != encoder.encode("a")
    return LoadedTokenizer(
        name=str(path),
        hash=hashlib.sha256(data).hexdigest(),
        vocab_size=len(pieces),
        special_ids=specials,
        bos=pieces[given.bos_id()] if given.bos_id() >= 0 else None,
        eos=pieces[given.eos_id()],
        adds_bos=given.bos_id() >= 0 and bool(config.get("add_bos_token", True)),
        chat_template=_own_template(path, config),
        encoder=encoder,
        _space_before=frozenset((Before.START, Before.SPECIAL)) if adds_space else frozenset(),
    )


def _from_gguf(path: Path) -> LoadedTokenizer:
    vocabulary = read_vocabulary(path)
    metadata, tokens = vocabulary.metadata, vocabulary.tokens
    specials = {
        token: token_id
        for token_id, (token, kind) in enumerate(zip(tokens, vocabulary.kinds, strict=True))
        if kind in (CONTROL, UNKNOWN) or (kind == USER_DEFINED and MARKER.fullmatch(token))
    }
    if metadata.eos_token is None:
        raise ModelError(f"{path} does not say which token ends an answer", fix="choose another file")
    space_before: frozenset[Before] = frozenset()
    encoder: Encoder
    if metadata.tokenizer == "gpt2":
        encoder = gguf_bpe(vocabulary, specials)
    elif metadata.tokenizer == "llama":
        encoder = SentencePieceEncoder(sentencepiece_model(vocabulary))
        if vocabulary.adds_space_prefix:
            space_before = frozenset((Before.START, Before.SPECIAL))
    else:
        raise ModelError(f"{path} has a tokenizer of kind {metadata.tokenizer!r}", fix="give its tokenizer.json")
    adds_bos = metadata.add_bos if metadata.add_bos is not None else metadata.tokenizer == "llama"
    return LoadedTokenizer(
        name=str(path),
        hash=vocabulary.hash,
        vocab_size=len(tokens),
        special_ids=specials,
        bos=metadata.bos_token,
        eos=metadata.eos_token,
        adds_bos=metadata.bos_token is not None and adds_bos,
        chat_template=metadata.chat_template,
        encoder=encoder,
        _space_before=space_before,
    )


def _from_tekken(path: Path, data: bytes, content: dict[str, Any]) -> LoadedTokenizer:
    """Mistral's tekken.json: byte-pair ranks; the first ids are special."""
    config = content["config"]
    num_special, vocab_size = config["default_num_special_tokens"], config["default_vocab_size"]
    named = {token["token_str"]: token["rank"] for token in content.get("special_tokens") or ()}
    named = named or {text: rank for rank, text in enumerate(_TEKKEN_SPECIALS)}
    letters = {byte: letter for letter, byte in byte_of_letter().items()}
    ranks = [base64.b64decode(entry["token_bytes"]) for entry in content["vocab"][: vocab_size - num_special]]
    vocab = {"".join(letters[byte] for byte in token): num_special + rank for rank, token in enumerate(ranks)}
    pairs = []
    for token in vocab:
        halves = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(vocab[left], vocab[right]) for left, right in halves if left in vocab and right in vocab]
        pairs += [(vocab[token], left, right) for left, right in sorted(known)]
    text_of = {token_id: text for text, token_id in vocab.items()}
    merges = [(text_of[left], text_of[right]) for _, left, right in pairs]
    return LoadedTokenizer(
        name=str(path),
        hash=hashlib.sha256(data).hexdigest(),
        vocab_size=vocab_size,
        special_ids=named,
        bos="<s>",
        eos="</s>",
        adds_bos=True,
        chat_template=_own_template(path, {}),
        encoder=byte_level_bpe(vocab, merges, (config["pattern"],), takes_whole=True),
    )


# Files from before special tokens were written down (v3): mistral-common, Tekkenizer.
_TEKKEN_SPECIALS = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]",
    "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
