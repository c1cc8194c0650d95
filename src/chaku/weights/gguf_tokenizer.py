"""A Hugging Face folder's tokenizer in a GGUF's terms: tokens, their kinds, merges or scores, and the special ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaku.chat.tokenizer import Before
from chaku.errors import ModelError
from chaku.models.files.modelconfig import read_optional
from chaku.models.tokenizers.encoders import PRETOKENIZERS
from chaku.models.tokenizers.tokenizer import LoadedTokenizer, load_tokenizer, steps_of, token_text
from chaku.models.tokenizers.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

_GPT2_LIKE = PRETOKENIZERS["gpt-2"][0][0]
_DIGIT = r"\p{N}"
TRAINED_TEMPLATE = "trained_chat_template_sha256"
"""Key of tokenizer_config.json in what training wrote: the template that a model's rows were made with."""


@dataclass
class Vocabulary:
    """What a GGUF says of its tokenizer."""

    kind: str
    """tokenizer.ggml.model: "gpt2" is byte-pair encoding, "llama" SentencePiece."""
    tokens: list[str]
    kinds: list[int]
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    pre: str | None = None
    adds_space_prefix: bool | None = None
    special_ids: dict[str, int] = field(default_factory=dict)
    """By the key's middle part: "bos", "eos", "unknown", "padding", "eot"."""
    adds_bos: bool = False
    adds_eos: bool = False
    chat_template: str | None = None


def read_tokenizer(folder: Path, num_rows: int) -> Vocabulary:
    """The tokenizer of `folder` for a model with `num_rows` rows in its embedding.

    Rows without a token get an unused one; added tokens without a row are left out, as the model can't read them.
    Raises ModelError for a folder without a tokenizer, or with one of a kind that llama.cpp would read otherwise.
    """
    loaded = load_tokenizer(folder)
    config = read_optional(folder / "tokenizer_config.json")
    require_trained_template(folder, loaded.chat_template, config)
    if Path(loaded.name).name == "tokenizer.json":
        vocabulary = _from_json(folder / "tokenizer.json", config)
    elif Path(loaded.name).suffix == ".model":
        vocabulary = _from_sentencepiece(folder, loaded, config)
    else:
        raise ModelError(
            f"{folder} has its tokenizer in {Path(loaded.name).name}",
            fix="convert it to tokenizer.json with transformers",
        )
    _fit(vocabulary, num_rows)
    _name_special_tokens(vocabulary, folder, loaded, config)
    vocabulary.adds_bos = loaded.adds_bos
    vocabulary.adds_eos = bool(config.get("add_eos_token", False))
    vocabulary.chat_template = loaded.chat_template
    return vocabulary


def require_trained_template(folder: Path, template: str | None, config: Mapping[str, Any]) -> None:
    """Raise ModelError where training left another template than the folder has now."""
    trained = config.get(TRAINED_TEMPLATE)
    if trained is not None and trained != hashlib.sha256((template or "").encode()).hexdigest():
        raise ModelError(
            f"the chat template in {folder} is not the one that the model was trained with",
            fix=f"restore chat_template.jinja; if it is meant, remove {TRAINED_TEMPLATE} from tokenizer_config.json",
        )


def write_tokenizer(writer: Any, vocabulary: Vocabulary) -> None:
    """Put it into a gguf.GGUFWriter."""
    writer.add_tokenizer_model(vocabulary.kind)
    if vocabulary.pre is not None:
        writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.adds_space_prefix is not None:
        writer.add_add_space_prefix(vocabulary.adds_space_prefix)
    for name, token_id in vocabulary.special_ids.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token_id)
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(vocabulary.adds_eos)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)


def _from_json(path: Path, config: Mapping[str, Any]) -> Vocabulary:
    content = json.loads(path.read_bytes())
    model = content["model"]
    token_ids: dict[str, int] = dict(model["vocab"])
    added = {token["content"]: token for token in content.get("added_tokens") or ()}
    token_ids |= {text: token["id"] for text, token in added.items()}
    tokens = _in_order(path, token_ids)
    # transformers' own list wins where it knows more of a token than tokenizer.json does
    declared = {entry["content"]: entry for entry in (config.get("added_tokens_decoder") or {}).values()}
    kinds = [NORMAL] * len(tokens)
    for text, token in (added | declared).items():
        if text in token_ids:
            kinds[token_ids[text]] = CONTROL if token.get("special") else USER_DEFINED
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    if "ByteLevel" in {step["type"] for step in steps_of(content.get("pre_tokenizer"))}:
        return Vocabulary("gpt2", tokens, kinds, merges, pre=_pre_of(path, content, model))
    for token_id, text in enumerate(tokens):
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            kinds[token_id] = BYTE
    if model.get("unk_token") in token_ids:
        kinds[token_ids[model["unk_token"]]] = UNKNOWN
    return Vocabulary("llama", tokens, kinds, scores=_scores(tokens, merges), adds_space_prefix=_adds_space(content))


def _in_order(path: Path, token_ids: Mapping[str, int]) -> list[str]:
    """Tokens by id. Ids without a token get a name that no text spells."""
    by_id = {token_id: text for text, token_id in token_ids.items()}
    if len(by_id) != len(token_ids) or not by_id or min(by_id) < 0 or max(by_id) > 4 * len(by_id):
        raise ModelError(f"{path} uses an id twice, or ids far beyond its size", fix="check the file")
    return [by_id.get(token_id, _unused(token_id)) for token_id in range(max(by_id) + 1)]


def _unused(token_id: int) -> str:
    return f"[PAD{token_id}]"


def _pre_of(path: Path, content: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """llama.cpp's name for the rule by which text is cut, found by the rule itself."""
    patterns: list[str] = []
    for step in steps_of(content.get("pre_tokenizer")):
        match step["type"]:
            case "Digits" if step.get("individual_digits"):
                patterns.append(_DIGIT)
            case "Split" if "Regex" in step.get("pattern", {}):
                patterns.append(step["pattern"]["Regex"])
            case "ByteLevel":
                patterns += [_GPT2_LIKE] if step.get("use_regex", True) else []
            case other:
                patterns.append(f"a step {other}")
    takes_whole = bool(model.get("ignore_merges"))
    known = (tuple(patterns), takes_whole)
    for name, rule in PRETOKENIZERS.items():
        if rule == known:
            return name
    # Without `ignore_merges` a rule may still be one of those that llama.cpp takes whole; merging gives the same there.
    for name, (rule_patterns, _) in PRETOKENIZERS.items():
        if rule_patterns == tuple(patterns):
            return name
    raise ModelError(
        f"{path} cuts text by a rule that llama.cpp has no name for here: {patterns}",
        fix="use llama.cpp's own converter for this model",
    )


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """SentencePiece's order of merging as scores: the sooner a piece is made, the higher."""
    rank_of: dict[str, int] = {}
    for merge in merges:
        left, _, right = merge.partition(" ")
        rank_of.setdefault(left + right, len(rank_of))
    last = len(rank_of)
    return [-float(rank_of.get(token, last)) for token in tokens]


def _adds_space(content: Mapping[str, Any]) -> bool:
    normalizers, cuts = steps_of(content.get("normalizer")), steps_of(content.get("pre_tokenizer"))
    return any(step["type"] == "Prepend" for step in normalizers) or any(
        step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never" for step in cuts
    )


def _from_sentencepiece(folder: Path, loaded: LoadedTokenizer, config: Mapping[str, Any]) -> Vocabulary:
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=loaded.name)
    ids = range(pieces.vocab_size())
    tokens = [pieces.id_to_piece(token_id) for token_id in ids]
    kinds = [
        BYTE if pieces.is_byte(i)
        else UNKNOWN if pieces.is_unknown(i)
        else CONTROL if pieces.is_control(i)
        else UNUSED if pieces.is_unused(i)
        else NORMAL
        for i in ids
    ]  # fmt: skip
    scores = [float(pieces.get_score(token_id)) for token_id in ids]
    added: dict[int, tuple[str, bool]] = {
        token_id: (text, False) for text, token_id in read_optional(folder / "added_tokens.json").items()
    }
    for token_id, entry in (config.get("added_tokens_decoder") or {}).items():
        added[int(token_id)] = (entry["content"], bool(entry.get("special")))
    for token_id, (text, is_special) in sorted(added.items()):
        if token_id >= len(tokens):
            for hole in range(len(tokens), token_id + 1):
                tokens.append(_unused(hole))
                kinds.append(UNUSED)
                scores.append(-1e4)
            tokens[token_id], kinds[token_id] = text, CONTROL if is_special else USER_DEFINED
    adds_space = loaded.prepends_space(Before.START)
    return Vocabulary("llama", tokens, kinds, scores=scores, adds_space_prefix=adds_space)


def _fit(vocabulary: Vocabulary, num_rows: int) -> None:
    """As many tokens as the embedding has rows."""
    for token_id in range(len(vocabulary.tokens), num_rows):
        vocabulary.tokens.append(_unused(token_id))
        vocabulary.kinds.append(UNUSED)
        if vocabulary.scores:
            vocabulary.scores.append(-1e4)
    lost = [kind for kind in vocabulary.kinds[num_rows:] if kind in (NORMAL, BYTE)]
    if lost:
        raise ModelError(
            f"the tokenizer has {len(vocabulary.tokens):,} tokens, the model an embedding for {num_rows:,}",
            fix="put the model's own tokenizer into the folder",
        )
    for column in (vocabulary.tokens, vocabulary.kinds, vocabulary.scores):
        del column[num_rows:]


def _name_special_tokens(
    vocabulary: Vocabulary, folder: Path, loaded: LoadedTokenizer, config: Mapping[str, Any]
) -> None:
    ids = {text: token_id for token_id, text in enumerate(vocabulary.tokens)}
    named = {"bos": loaded.bos, "eos": loaded.eos}
    named |= {"unknown": token_text(config.get("unk_token")), "padding": token_text(config.get("pad_token"))}
    vocabulary.special_ids = {name: ids[text] for name, text in named.items() if text in ids}
    if "eos" not in vocabulary.special_ids:
        raise ModelError(f"{folder}: the end token {loaded.eos!r} has no embedding", fix="check eos_token")
    # A model may end with more than one token; llama.cpp takes one more, and knows the usual ones by their spelling.
    generation: Any = read_optional(folder / "generation_config.json").get("eos_token_id")
    for token_id in generation if isinstance(generation, list) else [generation]:
        known = isinstance(token_id, int) and token_id in range(len(vocabulary.tokens))
        if known and token_id != vocabulary.special_ids["eos"]:
            vocabulary.special_ids["eot"] = token_id
            break
