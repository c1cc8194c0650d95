"""From a reference to an engine: what several models take together, and what an engine can't honour."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaku.config import ModelConfig
from chaku.engines.opening import Memory, check_settings, open_engine
from chaku.errors import ConfigError, ModelError
from chaku.models.reference import LocalFile, Scripted
from gguf_files import write_gguf


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_gguf(
        tmp_path / "small.gguf",
        llama__block_count=30,
        llama__context_length=8192,
        llama__embedding_length=576,
        llama__feed_forward_length=1536,
        llama__attention__head_count=9,
        llama__attention__head_count_kv=3,
    )


def test_what_one_model_takes_is_not_there_for_the_next(model: Path) -> None:
    memory = Memory(2_500_000_000)
    config = ModelConfig(source=str(model), context=8192, slots=8)
    open_engine("first", config, LocalFile(model), model, memory)
    assert memory.available_bytes is not None
    assert memory.available_bytes < 1_000_000_000
    with pytest.raises(ModelError, match="small with 8 slots"):
        open_engine("second", config, LocalFile(model), model, memory)


def test_the_process_for_embeddings_is_counted_where_there_is_one(model: Path) -> None:
    left = []
    for embeddings in (True, False):
        memory = Memory(4_000_000_000)
        config = ModelConfig(source=str(model), context=2048, slots=2, embeddings=embeddings)
        open_engine("m", config, LocalFile(model), model, memory)
        left.append(memory.available_bytes)
    # 2 slots of 2,048 tokens of cache, 22.5 KiB each, are 94 MB; the rest is the process and its buffers
    assert 94_000_000 < left[1] - left[0] < 250_000_000


def test_a_context_beyond_the_trained_one_is_refused_not_cut(model: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_engine("m", ModelConfig(source=str(model), context=9000, slots=1), LocalFile(model), model)
    assert "9,000" in caught.value.message
    assert "8192" in str(caught.value.fix)


def test_a_scripts_slots_and_context_are_those_that_were_asked_for() -> None:
    engine = open_engine("s", ModelConfig(source="scripted:", slots=3, context=512), Scripted(), None)
    assert (engine.capabilities.slots, engine.capabilities.context_tokens) == (3, 512)


def test_what_an_engine_cannot_honour_is_known_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="threads"):
        check_settings("s", ModelConfig(source="scripted:", threads=2), Scripted())
    with pytest.raises(ModelError, match=r"none\.gguf"):
        config = ModelConfig(source="x", lora=(tmp_path / "none.gguf",))
        check_settings("m", config, LocalFile(tmp_path / "x.gguf"))
