"""What a GGUF file says of itself: its header's metadata, read without its weights and without trusting it.

Our own reader, because the `gguf` package (0.19.0) takes 1.9 s and 189 MB of memory for the 98 MB SmolLM2-135M file
(it makes numpy objects of all 98,000 vocabulary entries) and brings tqdm and requests; this one takes 0.03 s and 20 MB.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chaku.errors import ModelError

_PREFIX_BYTES = (8 << 20, 128 << 20)  # a header is under 2 MB for 49,000 tokens, about 15 MB for 262,000
_MAX_LAYERS = 10_000
_MAX_TENSORS = 1 << 17
_MAX_VALUES = 1 << 14
_MAX_TEXT_BYTES = 4 << 20

# https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, gguf_metadata_value_type: struct format, bytes
_NUMBERS = {
    0: ("B", 1), 1: ("b", 1), 2: ("H", 2), 3: ("h", 2), 4: ("I", 4), 5: ("i", 4), 6: ("f", 4), 7: ("?", 1),
    10: ("Q", 8), 11: ("q", 8), 12: ("d", 8),
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_CONTROL, _USER_DEFINED = 3, 4  # tokenizer.ggml.token_type

# ggml_type: elements per block, bytes per block
TENSOR_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17),
}  # fmt: skip

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


class _Cut(Exception):
    """The header goes on to at least `end`, past the bytes at hand."""

    def __init__(self, end: int) -> None:
        self.end = end


@dataclass(frozen=True)
class _Array:
    kind: int
    count: int
    start: int


_Value = int | float | bool | bytes | _Array


@dataclass(frozen=True)
class _Tensor:
    kind: int
    num_elements: int
    offset: int


@dataclass(frozen=True)
class _Header:
    data: bytes
    values: dict[str, _Value]
    tensors: list[_Tensor]
    data_start: int


class _Malformed(Exception):
    """The header breaks the format; the text says how."""


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def number(self, kind: int) -> int | float | bool:
        code, width = _NUMBERS[kind]
        self.skip(width)
        value: int | float | bool = struct.unpack_from("<" + code, self.data, self.position - width)[0]
        return value

    def count(self) -> int:
        return int(self.number(10))

    def text(self) -> bytes:
        length = self.count()
        if length > _MAX_TEXT_BYTES:
            raise _Malformed(f"a text of {length:,} bytes (the limit is {_MAX_TEXT_BYTES:,})")
        self.skip(length)
        return self.data[self.position - length : self.position]

    def skip(self, num_bytes: int) -> None:
        self.position += num_bytes
        if self.position > len(self.data):
            raise _Cut(self.position)

    def array(self) -> _Array:
        kind, count = int(self.number(4)), self.count()
        array = _Array(kind, count, self.position)
        if kind in _NUMBERS:
            self.skip(count * _NUMBERS[kind][1])
        elif kind == _STRING:
            self.skip(_string_starts(self.data, array)[1] - self.position)
        else:
            raise _Malformed(f"an array of type {kind}")
        return array

    def value(self) -> _Value:
        kind = int(self.number(4))
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self.array()
        if kind not in _NUMBERS:
            raise _Malformed(f"a value of type {kind}")
        return self.number(kind)


def _string_starts(data: bytes, array: _Array, wanted: frozenset[int] = frozenset()) -> tuple[dict[int, bytes], int]:
    """Walk an array of strings: the wanted elements, and where the array ends. The hot loop: no calls but one."""
    found: dict[int, bytes] = {}
    position, end = array.start, len(data)
    length_at = struct.Struct("<Q").unpack_from
    if array.count * 8 > end - position:
        raise _Cut(position + array.count * 8)
    for index in range(array.count):
        if position + 8 > end:
            raise _Cut(position + 8)
        length = length_at(data, position)[0]
        if index in wanted:
            found[index] = data[position + 8 : position + 8 + length]
        position += 8 + length
    if position > end:
        raise _Cut(position)
    return found, position


def _parse(data: bytes) -> _Header:
    cursor = _Cursor(data)
    cursor.skip(4)
    if data[:4] != b"GGUF":
        raise _Malformed(f"begins with {data[:4]!r}, not b'GGUF'")
    version = int(cursor.number(4))
    if version not in (2, 3):
        big_endian = version in (2 << 24, 3 << 24)
        raise _Malformed("is big-endian" if big_endian else f"has GGUF version {version}, known are 2 and 3")
    num_tensors, num_values = cursor.count(), cursor.count()
    if num_tensors > _MAX_TENSORS or num_values > _MAX_VALUES:
        raise _Malformed(f"claims {num_tensors:,} tensors and {num_values:,} values")
    values: dict[str, _Value] = {}
    for _ in range(num_values):
        key = cursor.text().decode("utf-8", "replace")
        values[key] = cursor.value()
    tensors = []
    for _ in range(num_tensors):
        cursor.text()
        num_dimensions = int(cursor.number(4))
        if num_dimensions > 4:
            raise _Malformed(f"a tensor of {num_dimensions} dimensions")
        num_elements = 1
        for _ in range(num_dimensions):
            num_elements *= cursor.count()
        tensors.append(_Tensor(int(cursor.number(4)), num_elements, cursor.count()))
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise _Malformed(f"general.alignment is {alignment!r}")
    return _Header(data, values, tensors, -(-cursor.position // alignment) * alignment)


def _read_header(path: Path) -> tuple[_Header, int]:
    """The header and the file's size in bytes. Raises ModelError in one line for whatever is wrong with it."""
    try:
        with path.open("rb") as file:
            file_bytes = path.stat().st_size
            for prefix_bytes in _PREFIX_BYTES:
                file.seek(0)
                try:
                    header = _parse(file.read(prefix_bytes))
                    break
                except _Cut as cut:
                    if cut.end > file_bytes:
                        raise _Malformed(f"is cut short: {file_bytes:,} bytes, its header needs more") from None
            else:
                raise _Malformed(f"has a header of more than {_PREFIX_BYTES[-1] >> 20} MiB")
            needed = header.data_start + max((_end_of(tensor) for tensor in header.tensors), default=0)
            if needed > file_bytes:
                raise _Malformed(f"is cut short: {file_bytes:,} bytes of {needed:,}")
    except _Malformed as error:
        raise ModelError(f"{path} is not a usable GGUF file: {error}", fix="fetch it again") from None
    except OSError as error:
        raise ModelError(f"can't read {path}: {error.strerror}", fix="check the path and its permissions") from None
    return header, file_bytes


def _end_of(tensor: _Tensor) -> int:
    block, block_bytes = TENSOR_BLOCKS.get(tensor.kind, (1, 0))
    return tensor.offset + tensor.num_elements // block * block_bytes


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
    first, file_bytes = _read_header(paths[0])
    weights_bytes = file_bytes - first.data_start
    num_parameters = sum(tensor.num_elements for tensor in first.tensors)
    for shard in paths[1:]:
        header, shard_bytes = _read_header(shard)
        file_bytes += shard_bytes
        weights_bytes += shard_bytes - header.data_start
        num_parameters += sum(tensor.num_elements for tensor in header.tensors)
    return _Fields(paths[0], first).metadata(len(paths), file_bytes, weights_bytes, num_parameters)


class _Fields:
    """Typed look-ups in a header; a value of another type than the format says is an error."""

    def __init__(self, path: Path, header: _Header) -> None:
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
        if not isinstance(value, _Array):
            one = self.integer(key, 1 << 20)
            return None if one is None else (one,) * num_layers
        if value.kind not in _NUMBERS or value.count != num_layers:
            raise self.wrong(key, f"does not have one number for each of {num_layers} layers")
        numbers = tuple(int(number) for number in self.numbers(value))
        if any(not 0 <= number <= 1 << 20 for number in numbers):
            raise self.wrong(key, "is not a sensible count")
        return numbers

    def numbers(self, array: _Array) -> Iterator[float]:
        code, width = _NUMBERS[array.kind]
        view = memoryview(self.header.data)[array.start : array.start + array.count * width]
        return (number for (number,) in struct.iter_unpack("<" + code, view))

    def tokens(self, *further: int | None) -> tuple[int, dict[int, str], tuple[str, ...]]:
        """The number of tokens, the texts of the `further` ids, and the texts of all special tokens."""
        tokens, kinds = (self.header.values.get(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type"))
        if not isinstance(tokens, _Array) or tokens.kind != _STRING:
            return 0, {}, ()
        special: list[int] = []
        if isinstance(kinds, _Array) and kinds.kind in (4, 5):
            kinds_of = enumerate(self.numbers(kinds))
            special = [index for index, kind in kinds_of if kind in (_CONTROL, _USER_DEFINED)]
        wanted = frozenset(special) | {index for index in further if index is not None}
        found, _ = _string_starts(self.header.data, tokens, wanted)
        texts = {index: text.decode("utf-8", "replace") for index, text in found.items()}
        return tokens.count, texts, tuple(texts[index] for index in special if index in texts)

    def metadata(self, num_shards: int, file_bytes: int, weights_bytes: int, num_parameters: int) -> GgufMetadata:
        architecture = self.text("general.architecture")
        if not architecture:
            raise self.wrong("general.architecture", "is missing")
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
