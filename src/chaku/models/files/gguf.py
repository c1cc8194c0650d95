"""What a GGUF file says of itself, in the field's words; of a sharded model, all files together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from chaku.errors import ModelError
from chaku.models.files.gguf_header import INTEGERS, STRING, Array, Header, numbers, read_header, strings

_MAX_LAYERS = 10_000
_ARCHITECTURE = re.compile(r"[\w.-]{1,64}")
_CONTROL, _USER_DEFINED = 3, 4  # tokenizer.ggml.token_type
# general.file_type (llama_ftype)
QUANTISATIONS = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
}  # fmt: skip

_POOLINGS = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


@dataclass(frozen=True)
class GgufMetadata:
    """What the header says. None: the file does not say it."""

    path: Path
    """The file, or the first of its shards."""
    file_bytes: int
    """All shards together."""
    weights_bytes: int
    """Tensor data alone, all shards together."""
    num_shards: int
    kind: str
    """"model", "adapter" (a LoRA), "mmproj" (an image projector), ..."""
    architecture: str
    name: str | None
    quantisation: str
    """Such as Q4_1; "unknown" where the file does not say."""
    num_parameters: int
    context_length: int | None
    """Tokens the model was trained for."""
    num_layers: int
    embedding_length: int
    feed_forward_length: int | None
    head_count: int
    head_count_kv: tuple[int, ...]
    """Key-value heads of each layer; 0 for a layer without attention."""
    key_length: int
    value_length: int
    """Width of one head's key and value."""
    sliding_window: int | None
    vocab_size: int
    tokenizer: str | None
    """tokenizer.ggml.model: "gpt2" is byte-pair encoding, "llama" SentencePiece."""
    chat_template: str | None
    """Jinja source."""
    bos_token_id: int | None
    eos_token_id: int | None
    bos_token: str | None
    eos_token: str | None
    add_bos: bool | None
    special_tokens: tuple[str, ...]
    """Texts of all control and user-defined tokens, in the order of their ids."""
    pooling: str | None
    """How embeddings are pooled: "none", "mean", "cls", "last" or "rank"."""


def shard_paths(path: Path) -> list[Path]:
    """All files of a model in the order of their numbers: `path` alone, or its -00001-of-0000N.gguf siblings."""
    match = _SHARD.search(path.name)
    if match is None:
        return [path]
    stem, total = path.name[: match.start()], int(match[2])
    return [path.with_name(f"{stem}-{number:05}-of-{total:05}.gguf") for number in range(1, total + 1)]


def read_metadata(path: Path) -> GgufMetadata:
    """Read a GGUF's header (the headers of all shards, when it is one of several).

    Raises ModelError for a file that is missing, cut short, no GGUF, of an unknown version, or nonsense.
    """
    paths = shard_paths(path)
    if missing := [shard.name for shard in paths if not shard.is_file()]:
        raise ModelError(
            f"{path.name} has no {', '.join(missing[:3])} beside it" if len(paths) > 1 else f"no such file: {path}",
            fix="fetch all shards into one folder" if len(paths) > 1 else "check the path",
        )
    first, file_bytes = read_header(paths[0])
    weights_bytes = file_bytes - first.data_start
    num_parameters = sum(tensor.num_elements for tensor in first.tensors)
    for shard in paths[1:]:
        header, shard_bytes = read_header(shard)
        file_bytes += shard_bytes
        weights_bytes += shard_bytes - header.data_start
        num_parameters += sum(tensor.num_elements for tensor in header.tensors)
    return _Fields(paths[0], first).metadata(len(paths), file_bytes, weights_bytes, num_parameters)


class _Fields:
    """Typed look-ups in a header; a value of another type than the format says is an error."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.header = header

    def wrong(self, key: str, problem: str) -> ModelError:
        return ModelError(f"{self.path} is not a usable GGUF file: {key} {problem}", fix="fetch it again")

    def integer(self, key: str, limit: int = 1 << 40) -> int | None:
        value = self.header.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
            raise self.wrong(key, "is not a sensible count")
        return value

    def text(self, key: str) -> str | None:
        value = self.header.values.get(key)
        if value is None:
            return None
        if not isinstance(value, bytes):
            raise self.wrong(key, "is not a text")
        return value.decode("utf-8", "replace")

    def per_layer(self, key: str, num_layers: int) -> tuple[int, ...] | None:
        """One count for each layer, from a single number or an array."""
        value = self.header.values.get(key)
        if not isinstance(value, Array):
            one = self.integer(key, 1 << 20)
            return None if one is None else (one,) * num_layers
        if value.kind not in INTEGERS or value.count != num_layers:
            raise self.wrong(key, f"does not have one number for each of {num_layers} layers")
        counts = tuple(int(number) for number in numbers(self.header.data, value))
        if any(not 0 <= count <= 1 << 20 for count in counts):
            raise self.wrong(key, "is not a sensible count")
        return counts

    def tokens(self, *further: int | None) -> tuple[int, dict[int, str], tuple[str, ...]]:
        """The number of tokens, the texts of the `further` ids, and the texts of all special tokens."""
        tokens, kinds = (self.header.values.get(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type"))
        if not isinstance(tokens, Array) or tokens.kind != STRING:
            return 0, {}, ()
        special: list[int] = []
        if isinstance(kinds, Array) and kinds.kind in (4, 5):
            kinds_of = enumerate(numbers(self.header.data, kinds))
            special = [index for index, kind in kinds_of if kind in (_CONTROL, _USER_DEFINED)]
        wanted = frozenset(special) | {index for index in further if index is not None}
        found, _ = strings(self.header.data, tokens, wanted)
        texts = {index: text.decode("utf-8", "replace") for index, text in found.items()}
        return tokens.count, texts, tuple(texts[index] for index in special if index in texts)

    def metadata(self, num_shards: int, file_bytes: int, weights_bytes: int, num_parameters: int) -> GgufMetadata:
        architecture = self.text("general.architecture")
        if not architecture or not _ARCHITECTURE.fullmatch(architecture):
            raise self.wrong("general.architecture", "is missing or no name")
        num_layers = self.integer(f"{architecture}.block_count", _MAX_LAYERS) or 0
        embedding_length = self.integer(f"{architecture}.embedding_length") or 0
        attention = f"{architecture}.attention"
        heads = self.per_layer(f"{attention}.head_count", num_layers) or (0,) * num_layers
        head_count = max(heads, default=0)
        head_length = embedding_length // head_count if head_count else 0
        bos, eos = (self.integer(f"tokenizer.ggml.{which}_token_id") for which in ("bos", "eos"))
        num_tokens, texts, special_tokens = self.tokens(bos, eos)
        add_bos = self.header.values.get("tokenizer.ggml.add_bos_token")
        file_type, pooling = self.integer("general.file_type"), self.integer(f"{architecture}.pooling_type")
        return GgufMetadata(
            path=self.path,
            file_bytes=file_bytes,
            weights_bytes=weights_bytes,
            num_shards=num_shards,
            kind=self.text("general.type") or "model",
            architecture=architecture,
            name=self.text("general.name"),
            quantisation=QUANTISATIONS.get(file_type, "unknown") if file_type is not None else "unknown",
            num_parameters=num_parameters,
            context_length=self.integer(f"{architecture}.context_length"),
            num_layers=num_layers,
            embedding_length=embedding_length,
            feed_forward_length=max(self.per_layer(f"{architecture}.feed_forward_length", num_layers) or (0,)) or None,
            head_count=head_count,
            head_count_kv=self.per_layer(f"{attention}.head_count_kv", num_layers) or heads,
            key_length=self.integer(f"{attention}.key_length", 1 << 20) or head_length,
            value_length=self.integer(f"{attention}.value_length", 1 << 20) or head_length,
            sliding_window=self.integer(f"{attention}.sliding_window"),
            vocab_size=num_tokens or self.integer(f"{architecture}.vocab_size") or 0,
            tokenizer=self.text("tokenizer.ggml.model"),
            chat_template=self.text("tokenizer.chat_template"),
            bos_token_id=bos,
            eos_token_id=eos,
            bos_token=texts.get(bos) if bos is not None else None,
            eos_token=texts.get(eos) if eos is not None else None,
            add_bos=add_bos if isinstance(add_bos, bool) else None,
            special_tokens=special_tokens,
            pooling=_POOLINGS.get(pooling) if pooling is not None else None,
        )
