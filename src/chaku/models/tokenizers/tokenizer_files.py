"""A GGUF's tokenizer as the files that a Hugging Face folder has, and how two tokenizers differ."""

from __future__ import annotations

import json
from pathlib import Path

from chaku.chat.tokenizer import Before, Tokenizer
from chaku.errors import ModelError
from chaku.models.files.gguf import shard_paths
from chaku.models.files.gguf_header import read_header
from chaku.models.tokenizers.encoders import TokenizersEncoder, sentencepiece_model
from chaku.models.tokenizers.tokenizer import LoadedTokenizer, load_tokenizer
from chaku.models.tokenizers.vocabulary import read_vocabulary

_PROBE = "Who are you? I'm 2,048 years old;\n\n\tdéjà vu  中文 👍 <|im_end|> </s>"


def write_tokenizer(folder: Path, source: Path) -> None:
    """Write the tokenizer in the GGUF `source`, and its chat template if it has one.

    Raises ModelError unless the files say what the GGUF says.
    """
    tokenizer = load_tokenizer(source)
    if isinstance(tokenizer.encoder, TokenizersEncoder):
        (folder / "tokenizer.json").write_text(_tokenizer_json(tokenizer.encoder, tokenizer), encoding="utf-8")
        kind = "PreTrainedTokenizerFast"
    else:
        (folder / "tokenizer.model").write_bytes(sentencepiece_model(read_vocabulary(source)))
        kind = "LlamaTokenizer"
    config = {
        "tokenizer_class": kind, "bos_token": tokenizer.bos, "eos_token": tokenizer.eos,
        "add_bos_token": tokenizer.adds_bos, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config | _further(source, tokenizer), ensure_ascii=False))
    if tokenizer.chat_template is not None:
        (folder / "chat_template.jinja").write_text(tokenizer.chat_template, encoding="utf-8")
    check_same(tokenizer, folder)


def check_same(tokenizer: Tokenizer, folder: Path) -> None:
    """Raise ModelError unless the tokenizer files in `folder` say what `tokenizer` says."""
    if reason := difference(tokenizer, load_tokenizer(folder)):
        raise ModelError(f"the tokenizer of {tokenizer.name} does not survive being written: {reason}")


def _further(source: Path, tokenizer: LoadedTokenizer) -> dict[str, str]:
    """Which tokens stand for padding and for what has no token, where the GGUF says so."""
    header, _ = read_header(shard_paths(source)[0])
    named = {"pad_token": "padding", "unk_token": "unknown"}
    ids = {name: header.values.get(f"tokenizer.ggml.{key}_token_id") for name, key in named.items()}
    return {name: text for name in ids for text, token_id in tokenizer.special_ids.items() if token_id == ids[name]}


def _tokenizer_json(encoder: TokenizersEncoder, tokenizer: Tokenizer) -> str:
    """The encoder with its special tokens recognised, as others expect of a tokenizer.json."""
    from tokenizers import AddedToken, decoders, processors
    from tokenizers import Tokenizer as FastTokenizer

    content = json.loads(encoder.to_json())
    model = content["model"]
    if model.get("unk_token") is not None:  # our own sign for bytes without a token; no model has a row for it
        model["vocab"].pop(model["unk_token"])
        model["unk_token"] = None
    fast = FastTokenizer.from_str(json.dumps(content))
    by_id = sorted(tokenizer.special_ids.items(), key=lambda item: item[1])
    fast.add_special_tokens([AddedToken(text, special=True, normalized=False) for text, _ in by_id])
    fast.decoder = decoders.ByteLevel()
    if tokenizer.adds_bos and tokenizer.bos:
        marker = (tokenizer.bos, tokenizer.special_ids[tokenizer.bos])
        fast.post_processor = processors.TemplateProcessing(
            single=f"{tokenizer.bos} $A", pair=f"{tokenizer.bos} $A {tokenizer.bos} $B", special_tokens=[marker]
        )
    return str(fast.to_str())


def difference(one: Tokenizer, other: Tokenizer) -> str | None:
    """In which way two tokenizers give other ids; None where they are the same."""
    if one.hash == other.hash:
        return None
    if dict(one.special_ids) != dict(other.special_ids):
        apart = {key for key, _ in one.special_ids.items() ^ other.special_ids.items()}
        return f"special tokens differ: {', '.join(sorted(apart)[:5])}"
    if one.vocab_size != other.vocab_size:
        return f"{one.vocab_size:,} tokens against {other.vocab_size:,}"
    for number in range(one.vocab_size):
        if one.token_bytes(number) != other.token_bytes(number):
            return f"token {number} is {one.token_bytes(number)!r} against {other.token_bytes(number)!r}"
    if one.encode_text(_PROBE, Before.SPECIAL) != other.encode_text(_PROBE, Before.SPECIAL):
        return f"{_PROBE!r} becomes other ids"
    return None
