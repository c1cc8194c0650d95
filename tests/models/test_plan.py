from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaku.errors import ModelError
from chaku.models.files.gguf import GgufMetadata, read_metadata
from chaku.models.plan.memory_plan import kv_bytes_per_token, plan, require_fit
from gguf_files import write_gguf

GB = 10**9


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> GgufMetadata:
    """The shape of SmolLM2-135M, its size and its vocabulary."""
    path = write_gguf(
        tmp_path_factory.mktemp("shape") / "smollm2.gguf",
        llama__block_count=30,
        llama__context_length=8192,
        llama__embedding_length=576,
        llama__feed_forward_length=1536,
        llama__attention__head_count=9,
        llama__attention__head_count_kv=3,
    )
    return dataclasses.replace(read_metadata(path), file_bytes=98_362_432, vocab_size=49_152)


def test_the_cache_of_a_token_is_what_llama_cpp_allocates(smollm2: GgufMetadata) -> None:
    # llama.cpp prints "KV buffer size = 180.00 MiB" for 8,192 tokens and 1440.00 MiB for 65,536
    assert kv_bytes_per_token(smollm2) * 8192 == 180 << 20
    assert plan(smollm2, 2048, 32, available_bytes=None).total_kv_bytes == 1440 << 20


def test_with_much_memory_32_clients_share_the_small_model(smollm2: GgufMetadata) -> None:
    chosen = plan(smollm2, available_bytes=24 * GB)
    assert (chosen.slots, chosen.context_per_slot, chosen.fits) == (32, 2048, True)


def test_with_few_slots_each_gets_the_trained_context(smollm2: GgufMetadata) -> None:
    assert plan(smollm2, slots=4, available_bytes=24 * GB).context_per_slot == 8192


def test_with_a_long_context_there_are_fewer_slots(smollm2: GgufMetadata) -> None:
    assert plan(smollm2, context=8192, available_bytes=24 * GB).slots == 8


def test_what_is_asked_for_is_planned_and_never_cut(smollm2: GgufMetadata) -> None:
    asked = plan(smollm2, 16_384, 100, available_bytes=24 * GB)
    assert (asked.context_per_slot, asked.slots, asked.fits) == (16_384, 100, False)
    assert "trained for 8,192 tokens: answers get worse beyond that" in asked.notes


def test_a_context_is_rounded_up_as_llama_cpp_does(smollm2: GgufMetadata) -> None:
    assert plan(smollm2, 1000, 3, available_bytes=None).total_context == 3 * 1024


def test_too_little_memory_names_settings_that_do_fit(smollm2: GgufMetadata) -> None:
    with pytest.raises(ModelError) as caught:
        require_fit(plan(smollm2, 8192, 8, available_bytes=GB))
    assert str(caught.value) == (
        "smollm2 with 8 slots of 8,192 tokens needs 1.79 GB, 1.00 GB are available: "
        "--slots 3 or --context 3840 would fit"
    )
    assert plan(smollm2, 8192, 3, available_bytes=GB).fits
    assert plan(smollm2, 3840, 8, available_bytes=GB).fits


def test_a_context_beyond_the_trained_one_is_never_the_advice(smollm2: GgufMetadata) -> None:
    with pytest.raises(ModelError) as caught:
        require_fit(plan(smollm2, 100_000, 2, available_bytes=2 * GB))
    assert caught.value.fix == "--context 8192 would fit"


def test_no_memory_at_all_is_said(smollm2: GgufMetadata) -> None:
    with pytest.raises(ModelError, match="free some memory, or take a smaller model"):
        require_fit(plan(smollm2, available_bytes=GB // 10))


def test_unknown_memory_refuses_nothing(smollm2: GgufMetadata) -> None:
    require_fit(plan(smollm2, 8192, 256, available_bytes=None))


def test_a_model_without_attention_has_no_cache(smollm2: GgufMetadata) -> None:
    recurrent = dataclasses.replace(smollm2, head_count_kv=(0,) * 30)
    assert plan(recurrent, available_bytes=GB).total_kv_bytes == 0


@given(available_bytes=st.integers(GB // 2, 100 * GB))
def test_default_plans_always_fit(smollm2: GgufMetadata, available_bytes: int) -> None:
    chosen = plan(smollm2, available_bytes=available_bytes)
    require_fit(chosen)
    assert 1 <= chosen.slots <= 32
    assert 256 <= chosen.context_per_slot <= 8192


@given(
    context=st.integers(64, 200_000),
    slots=st.integers(1, 256),
    available_bytes=st.integers(GB // 4, 20 * GB),
)
def test_the_advice_of_a_refusal_fits(smollm2: GgufMetadata, context: int, slots: int, available_bytes: int) -> None:
    try:
        require_fit(plan(smollm2, context, slots, available_bytes=available_bytes))
    except ModelError as error:
        fix = error.fix or ""
        for option in fix.removesuffix(" would fit").split(" or ") if fix.endswith("would fit") else ():
            words = option.split()
            advice = dict(zip(words[::2], map(int, words[1::2]), strict=True))
            better = plan(
                smollm2, advice.get("--context", context), advice.get("--slots", slots), available_bytes=available_bytes
            )
            require_fit(better)


def test_the_line_for_people_says_what_a_request_gets(smollm2: GgufMetadata, tmp_path: Path) -> None:
    assert plan(smollm2, available_bytes=24 * GB).describe() == (
        "32 slots of 2,048 tokens (trained for 8,192); cache 1.51 GB, in all 1.79 GB of 24.00 GB available"
    )
