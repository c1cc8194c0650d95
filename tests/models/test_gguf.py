from __future__ import annotations

import os
import time
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaku.errors import ModelError
from chaku.models.files.gguf import QUANTISATIONS, read_metadata
from chaku.models.files.gguf_header import TENSOR_BLOCKS
from gguf_files import TEMPLATE, gguf_bytes, llama_values, tensor, write_gguf, write_shards


def refuse(path: Path, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        read_metadata(path)
    assert "\n" not in str(caught.value)


def test_a_llama_file_tells_its_shape_and_its_tokens(tmp_path: Path) -> None:
    metadata = read_metadata(write_gguf(tmp_path / "tiny.gguf"))
    assert (metadata.architecture, metadata.name, metadata.quantisation) == ("llama", "Tiny Llama", "F32")
    assert (metadata.context_length, metadata.num_layers, metadata.embedding_length) == (4096, 2, 64)
    assert (metadata.head_count, metadata.head_count_kv) == (4, (2, 2))
    assert (metadata.key_length, metadata.value_length) == (16, 16)
    assert metadata.chat_template == TEMPLATE
    assert (metadata.bos_token, metadata.eos_token, metadata.add_bos) == ("<|im_start|>", "<|im_end|>", False)
    assert metadata.special_tokens == ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>")
    assert (metadata.vocab_size, metadata.num_parameters) == (5, 64 * 5)
    assert metadata.file_bytes == (tmp_path / "tiny.gguf").stat().st_size
    assert metadata.weights_bytes == 64 * 5 * 4


def test_every_layer_may_have_its_own_number_of_heads(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", llama__attention__head_count_kv=[4, 0])
    assert read_metadata(path).head_count_kv == (4, 0)


def test_given_key_and_value_lengths_win_over_the_computed_one(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", llama__attention__key_length=32, llama__attention__value_length=8)
    assert (read_metadata(path).key_length, read_metadata(path).value_length) == (32, 8)


def test_shards_are_summed_whichever_is_named(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, "big", 3)
    metadata = read_metadata(shards[1])
    assert metadata.path == shards[0]
    assert metadata.num_shards == 3
    assert metadata.num_parameters == 3 * 64 * 5
    assert metadata.file_bytes == sum(shard.stat().st_size for shard in shards)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, "big", 3)
    shards[2].unlink()
    refuse(shards[0], "big-00003-of-00003.gguf")


def test_it_agrees_with_the_gguf_package_on_a_file_that_package_wrote(tmp_path: Path) -> None:
    import numpy as np

    writer = gguf.GGUFWriter(str(tmp_path / "w.gguf"), "llama")
    writer.add_context_length(777)
    writer.add_block_count(1)
    writer.add_head_count(8)
    writer.add_embedding_length(256)
    writer.add_token_list(["a", "<s>", "é"])
    writer.add_token_types([1, 3, 1])
    writer.add_bos_token_id(1)
    writer.add_pooling_type(gguf.PoolingType.CLS)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    data = np.zeros((4, 256), dtype=np.float32)
    writer.add_tensor(
        "q", gguf.quantize(data, gguf.GGMLQuantizationType.Q8_0), raw_dtype=gguf.GGMLQuantizationType.Q8_0
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata = read_metadata(tmp_path / "w.gguf")
    assert (metadata.context_length, metadata.pooling, metadata.quantisation) == (777, "cls", "Q8_0")
    assert (metadata.special_tokens, metadata.bos_token, metadata.num_parameters) == (("<s>",), "<s>", 1024)
    assert metadata.head_count_kv == (8,)


def test_tables_agree_with_the_gguf_package() -> None:
    for kind, sizes in TENSOR_BLOCKS.items():
        assert tuple(gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]) == sizes
    for kind, name in QUANTISATIONS.items():
        assert gguf.LlamaFileType(kind).name.removeprefix("MOSTLY_").removeprefix("ALL_") == name


@pytest.mark.parametrize("keep", [0, 3, 12, 60, 400])
def test_a_file_cut_in_its_header_is_refused(tmp_path: Path, keep: int) -> None:
    path = write_gguf(tmp_path / "a.gguf")
    path.write_bytes(path.read_bytes()[:keep])
    refuse(path, "not a usable GGUF")


def test_a_file_cut_in_its_weights_is_refused_with_both_sizes(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf")
    whole = path.stat().st_size
    os.truncate(path, whole - 100)
    refuse(path, f"cut short: {whole - 100:,} bytes of {whole:,}")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    refuse(tmp_path / "nowhere.gguf", "no such file")
    refuse(tmp_path, "no such file")


def test_html_in_place_of_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_text("<html>Not found</html>" * 10)
    refuse(tmp_path / "a.gguf", "begins with")


def test_unknown_versions_are_refused(tmp_path: Path) -> None:
    for version, reason in ((1, "version 1"), (9, "version 9"), (3 << 24, "big-endian")):
        (tmp_path / "a.gguf").write_bytes(gguf_bytes(llama_values(), version=version))
        refuse(tmp_path / "a.gguf", reason)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.block_count", 4_000_000_000),
        ("llama.block_count", "two"),
        ("llama.attention.head_count_kv", [1, 2, 3]),
        ("llama.attention.head_count_kv", [float("nan"), 1.0]),
        ("general.alignment", 0),
        ("general.architecture", 7),
        ("general.architecture", "two\nlines"),
        ("tokenizer.chat_template", 5),
    ],
)
def test_nonsense_values_are_refused(tmp_path: Path, key: str, value: object) -> None:
    (tmp_path / "a.gguf").write_bytes(gguf_bytes(llama_values() | {key: value}))
    refuse(tmp_path / "a.gguf", key)


def test_huge_claims_cost_neither_time_nor_memory(tmp_path: Path) -> None:
    header = gguf_bytes({}, [])[:8]
    endless = b"\xff" * 8
    for tail in (
        endless * 2,
        bytes(8) + endless,
        b"\x01" + bytes(7) + bytes(8),
        bytes(8) + b"\x01" + bytes(7) + endless,
    ):
        (tmp_path / "a.gguf").write_bytes(header + tail + bytes(64))
        started = time.monotonic()
        with pytest.raises(ModelError):
            read_metadata(tmp_path / "a.gguf")
        assert time.monotonic() - started < 10


WHOLE = gguf_bytes(llama_values(), [tensor()])


@settings(max_examples=400, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4)
)
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, edits: list[tuple[int, bytes]]) -> None:
    damaged = bytearray(WHOLE)
    for position, replacement in edits:
        damaged[position : position + len(replacement)] = replacement
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damaged)
    try:
        read_metadata(path)
    except ModelError as error:
        assert "\n" not in str(error)


@settings(max_examples=200, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_arbitrary_bytes_behind_the_magic_never_crash_the_reader(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "random.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + content)
    try:
        read_metadata(path)
    except ModelError as error:
        assert "\n" not in str(error)
