"""A Hugging Face folder as one GGUF file that llama.cpp runs, with tokenizer and chat template."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from chaku.errors import ModelError
from chaku.models.fetch.converted import DEFAULT_QUANT
from chaku.models.files.modelconfig import CONFIG, require_config
from chaku.models.tokenizers.tokenizer import load_tokenizer
from chaku.weights.gguf_architecture import Architecture, read_architecture, write_architecture
from chaku.weights.gguf_tokenizer import Vocabulary, read_tokenizer, write_tokenizer
from chaku.weights.quantise import PlannedTensor, type_of, write_gguf

if TYPE_CHECKING:
    import torch

    from chaku.weights.place import TensorMetadata
    from chaku.weights.quantise import FloatArray
    from chaku.weights.shards import Watch

_EMBEDDING = "model.embed_tokens.weight"
# Texts on which tokenizers differ: numbers, case, marks, runs of white space, scripts, bytes, spelled specials.
_PROBES = (
    "The year 2024 costs 12,345.67 dollars. I'LL say it's DON'T don't",
    " leading,  double   triple\ttab\n\nlines\r\n \n  end  ",
    "ümläut éa naïve Ελληνικά кириллица 中文字符 日本語 العربية हिन्दी",
    "👩🏽‍🚀🎉 \u200d \u00a0 \ufeff ﬁ ½ ٣ \x00\x1b",
    "<s></s><|im_end|>[INST]<unk>▁ def f(x):\n\treturn {'a': x**2}  # done",
)


class TensorSource(Protocol):
    """Tensors by name: a folder's own, or merged ones."""

    @property
    def names(self) -> list[str]:
        """Every tensor's name."""

    def metadata(self, name: str) -> TensorMetadata:
        """Shape and dtype."""

    def load(self, name: str) -> torch.Tensor:
        """The values."""


def export_gguf(
    folder: Path,
    tensors: TensorSource,
    target: Path,
    quant: str = DEFAULT_QUANT,
    *,
    name: str | None = None,
    watch: Watch | None = None,
) -> tuple[str, ...]:
    """Write the model with the config and tokenizer in `folder` and the weights `tensors` to the file `target`.

    The file is whole or absent; one tensor is in memory at a time. Returns notes for the user. Raises ModelError for a
    model that llama.cpp would compute otherwise, and for a tokenizer that gives other ids there.
    """
    import gguf

    architecture = read_architecture(require_config(folder), folder / CONFIG)
    num_rows = tensors.metadata(_embedding_of(tensors)).shape[0]
    vocabulary = read_tokenizer(folder, num_rows)
    _check_tokenizer(folder, vocabulary)
    planned = _plan(architecture, tensors, quant)
    writer = gguf.GGUFWriter(None, architecture.family.architecture)
    writer.add_type("model")
    writer.add_name(name or folder.resolve().name)
    write_architecture(writer, architecture, num_rows)
    write_tokenizer(writer, vocabulary)
    write_gguf(target, writer, planned, quant, watch=watch)
    return architecture.notes


def _embedding_of(tensors: TensorSource) -> str:
    if _EMBEDDING not in tensors.names:
        raise ModelError(f"the weights have no {_EMBEDDING}", fix="check that the folder holds a whole language model")
    return _EMBEDDING


def _plan(architecture: Architecture, tensors: TensorSource, quant: str) -> list[PlannedTensor]:
    planned: list[PlannedTensor] = []
    for source_name in tensors.names:
        name = architecture.name_of(source_name)
        if name is None:
            continue
        shape = tensors.metadata(source_name).shape
        heads = architecture.heads_to_interleave(name)
        planned.append(_planned(name, source_name, shape, heads, tensors, quant))
    found = {tensor.name for tensor in planned}
    expected = {f"blk.{layer}.{part}.weight" for layer in range(architecture.sizes.num_layers) for part in _PARTS}
    expected |= {"token_embd.weight", "output_norm.weight"}
    expected |= set() if architecture.sizes.ties_embeddings else {"output.weight"}
    if missing := sorted(expected - found):
        raise ModelError(
            f"the weights lack {len(missing)} tensors, among them {missing[0]}",
            fix="check that all shards are there and that config.json belongs to them",
        )
    if (factors := architecture.rope_factors()) is not None:
        planned.append(PlannedTensor("rope_freqs.weight", factors.shape, "F32", lambda: factors))
    return planned


_PARTS = (
    *("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output"),
    *("ffn_norm", "ffn_gate", "ffn_up", "ffn_down"),
)


def _planned(
    name: str, source_name: str, shape: tuple[int, ...], heads: int | None, tensors: TensorSource, quant: str
) -> PlannedTensor:
    def load() -> FloatArray:
        values: FloatArray = tensors.load(source_name).float().numpy()
        return values if heads is None else interleave(values, heads)

    return PlannedTensor(name, shape, type_of(name, shape, quant), load)


def interleave(values: FloatArray, num_heads: int) -> FloatArray:
    """Rows of each head from first half, second half to pairs of one of each: how llama.cpp rotates Llama's heads."""
    halves = values.reshape(num_heads, 2, values.shape[0] // num_heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def _check_tokenizer(folder: Path, vocabulary: Vocabulary) -> None:
    """Raise ModelError when text would get other ids from the GGUF than from the folder."""
    import gguf
    import numpy as np

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "vocabulary.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        write_tokenizer(writer, vocabulary)
        writer.add_tensor("nothing", np.zeros(1, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        theirs, ours = load_tokenizer(folder), load_tokenizer(path)
    for text in _PROBES:
        expected, found = theirs.encode_text(text), ours.encode_text(text)
        if expected != found:
            raise ModelError(
                f"the tokenizer would read {text!r} as {found} in a GGUF, not as {expected}",
                fix="use llama.cpp's own converter for this model",
            )
