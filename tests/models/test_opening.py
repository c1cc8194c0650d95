"""From a reference to an engine: what several models take together, and what an engine can't honour."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from chaku import packages
from chaku.engines import machine, opening
from chaku.engines.llamacpp import devices
from chaku.engines.llamacpp.engine import LlamaCppEngine, Settings
from chaku.engines.llamacpp.resources import Resources, physical_cores
from chaku.engines.opening import ENGINES, check_settings, choose_engine, open_engine, require_usable
from chaku.engines.transformers.opening import TransformersArgs, open_folder
from chaku.errors import ConfigError, ModelError, UsageError
from chaku.models.files import gguf
from chaku.models.reference import LocalFile, Reference, Scripted, parse
from chaku.settings import ModelConfig
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
    memory = Resources(2_500_000_000)
    config = ModelConfig(source=str(model), context=8192, slots=8)
    open_engine("first", config, LocalFile(model), model, memory)
    assert memory.available_bytes is not None
    assert memory.available_bytes < 1_000_000_000
    with pytest.raises(ModelError, match="small with 8 slots"):
        open_engine("second", config, LocalFile(model), model, memory)


def test_the_process_for_embeddings_is_counted_where_there_is_one(model: Path) -> None:
    left = []
    for embeddings in (True, False):
        memory = Resources(4_000_000_000)
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


def test_every_kind_of_reference_has_an_engine_and_every_setting_of_an_engine_is_a_field() -> None:
    opened = {kind for engine in ENGINES.values() for kind in engine.opens}
    assert opened == set(typing.get_args(Reference))
    assert all(engine.settings <= ModelConfig.model_fields.keys() for engine in ENGINES.values())


@pytest.mark.parametrize(
    ("engine", "way_out"),
    [("scriptd", "did you mean scripted?"), ("zzz", "engines: auto, vllm"), ("openai", "set it to scripted")],
)
def test_an_engine_that_cannot_serve_the_source_is_refused_with_the_way_out(engine: str, way_out: str) -> None:
    with pytest.raises(ConfigError, match=engine) as caught:
        check_settings("s", ModelConfig(source="scripted:", engine=engine), Scripted())
    assert way_out in str(caught.value.fix)
    check_settings("s", ModelConfig(source="scripted:", engine="scripted"), Scripted())


@pytest.mark.parametrize(
    ("source", "engine"),
    [("m.gguf", "llamacpp"), ("folder", "llamacpp"), ("http://127.0.0.1:9/v1", "openai"), ("scripted:", "scripted")],
)
def test_auto_chooses_by_the_source_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, engine: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_gguf(tmp_path / "m.gguf")
    save_config(tmp_path / "folder", "llama")
    choice = choose_engine("m", ModelConfig(source=source), parse(source).reference)
    assert choice.kind is ENGINES[engine] and choice.reason
    again = choose_engine("m", ModelConfig(source=source, engine=engine), parse(source).reference)
    assert again.kind is choice.kind and again.reason == "by request"


def save_config(folder: Path, model_type: str) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))


@pytest.mark.parametrize(
    ("engine_args", "words"),
    [({"batsh": "3"}, "did you mean batch"), ({"zzz": 1}, "llamacpp takes batch"),
     ({"batch": "many"}, "batch is 'many'"),
     ({"batch": 0}, "batch is 0")],
)  # fmt: skip
def test_an_engine_argument_is_checked_by_the_engine_that_takes_it(engine_args: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_settings("m", ModelConfig(source="m.gguf", engine_args=engine_args), LocalFile(Path("m.gguf")))
    assert words in str(caught.value)


CHOICES = [
    (kind.name, key, choice)
    for kind in ENGINES.values()
    for key, field in kind.args.model_fields.items()
    for part in (field.annotation, *typing.get_args(field.annotation))
    for choice in (
        (True, False) if part is bool else typing.get_args(part) if typing.get_origin(part) is Literal else ()
    )
]
"""Engine, key and value of every engine argument with a short list of values."""


@pytest.mark.parametrize(("engine", "key", "value"), CHOICES)
def test_every_choice_of_an_engine_argument_can_be_written_as_a_flag(engine: str, key: str, value: object) -> None:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    assert getattr(ENGINES[engine].args.model_validate({key: text}), key) == value


def test_bits_without_bitsandbytes_are_refused_with_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = packages.version
    monkeypatch.setattr(packages, "version", lambda name: None if name == "bitsandbytes" else genuine(name))
    save_config(tmp_path / "folder", "llama")
    config = ModelConfig(source=str(tmp_path / "folder"))
    with pytest.raises(ModelError, match="8 bits need bitsandbytes, which is not installed") as caught:
        open_folder("m", config, tmp_path / "folder", 1, TransformersArgs.model_validate({"bits": "8"}))
    assert "pip install" in (caught.value.fix or "")


def test_an_engine_argument_reaches_the_engine(model: Path) -> None:
    assert opened(model, Resources(), engine_args={"batch": "512"}).batch == 512
    config = ModelConfig.model_validate({"source": "x", "engine_args": ("batch=512",)})
    assert config.engine_args == {"batch": "512"}
    with pytest.raises(ValidationError, match="KEY=VALUE"):
        ModelConfig.model_validate({"source": "x", "engine_args": ("batch",)})


def test_an_engine_that_is_not_installed_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require_usable(ENGINES["scripted"])
    monkeypatch.setattr("chaku.packages.version", lambda package: None)
    with pytest.raises(UsageError, match="llamacpp can't be used: xllamacpp is not installed") as caught:
        require_usable(ENGINES["llamacpp"])
    assert "[local]" in str(caught.value.fix)


GB = 10**9


@pytest.fixture
def large(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small model's shape with weights of 40 GB, on a machine with a GPU of 80 GB."""
    real = gguf.read_metadata
    monkeypatch.setattr(
        "chaku.engines.llamacpp.opening.read_metadata", lambda path: dataclasses.replace(real(path), file_bytes=40 * GB)
    )
    monkeypatch.setattr("chaku.engines.llamacpp.resources.free_gpu_bytes", lambda: 80 * GB)
    return model


def opened(model: Path, resources: Resources, **config: Any) -> Settings:
    engine = open_engine("large", ModelConfig(source=str(model), **config), LocalFile(model), model, resources)
    assert isinstance(engine, LlamaCppEngine)
    return engine._settings


def test_a_model_larger_than_main_memory_is_served_from_a_gpu_that_holds_it(large: Path) -> None:
    resources = Resources(32 * GB)
    assert opened(large, resources).gpu_layers == 31
    assert resources.gpu_bytes is not None and resources.gpu_bytes < 40 * GB
    assert resources.available_bytes is not None and resources.available_bytes > 30 * GB
    second = opened(large, resources)  # what is left holds a part of it
    assert second.gpu_layers is not None and 0 < second.gpu_layers < 31


def test_without_layers_on_the_gpu_it_does_not_fit(large: Path) -> None:
    with pytest.raises(ModelError, match=r"32\.00 GB are available"):
        opened(large, Resources(32 * GB), gpu_layers=0)
    with pytest.raises(ModelError, match="on the GPU") as caught:
        opened(large, Resources(32 * GB, gpu_bytes=20 * GB), gpu_layers=31)
    assert "--gpu-layers" in str(caught.value)


def test_force_goes_ahead_and_says_what_it_overrides(large: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = opened(large, Resources(32 * GB), gpu_layers=0, force=True)
    assert not settings.limits_memory
    assert "--force" in caplog.text and "32.00 GB are available" in caplog.text


@pytest.mark.parametrize(("num_local", "cores", "threads"), [(1, 8, None), (2, 8, 4), (3, 8, 2), (16, 8, 1)])
def test_engines_share_the_cores(
    model: Path, monkeypatch: pytest.MonkeyPatch, num_local: int, cores: int, threads: int | None
) -> None:
    monkeypatch.setattr("chaku.engines.llamacpp.resources.physical_cores", lambda: cores)
    assert opened(model, Resources(num_local=num_local)).threads == threads


def test_more_threads_than_cores_are_taken_with_a_warning(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("chaku.engines.llamacpp.resources.physical_cores", lambda: 4)
    assert opened(model, Resources(num_local=2), threads=2).threads == 2
    assert "more threads than cores" not in caplog.text
    assert opened(model, Resources(num_local=2), threads=3).threads == 3
    assert "more threads than cores" in caplog.text


def test_threads_of_one_core_are_counted_once(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings)
    assert 1 <= physical_cores(tmp_path) <= max(2, len(os.sched_getaffinity(0)) - 2)


def test_a_machine_without_a_gpu_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "python_argv", lambda module: ["/nonexistent"])
    assert devices.free_gpu_bytes(tmp_path) == 0


@pytest.mark.parametrize(("answer", "num_bytes"), [('{"gpu_free_bytes": 7}', 7), ("no JSON", 0), ("", 0)])
def test_gpus_are_asked_for_in_a_child_and_no_answer_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, num_bytes: int
) -> None:
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(devices, "python_argv", lambda module: [sys.executable, "-c", f"print({answer!r})"])
    assert devices.free_gpu_bytes(tmp_path) == num_bytes


def test_a_folder_goes_to_transformers_where_llama_cpp_can_t_have_it_or_a_gpu_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_config(tmp_path / "gpt", "gpt_neox")
    save_config(tmp_path / "llama", "llama")
    real = packages.version

    def chosen(folder: str, **settings: Any) -> str:
        config = ModelConfig(source=str(tmp_path / folder), **settings)
        return choose_engine("m", config, parse(config.source).reference).kind.name

    assert chosen("gpt") == "transformers"
    assert chosen("llama") == "llamacpp"
    assert chosen("llama", adapters={"a": tmp_path}) == "transformers"  # only it takes adapters
    with monkeypatch.context() as bare:
        bare.setattr(packages, "missing", lambda extra: ["xllamacpp"] if extra == "local" else [])
        assert chosen("llama") == "transformers"
        bare.setattr(packages, "missing", lambda extra: ["a package"])
        assert chosen("llama") == "llamacpp"
    monkeypatch.setattr(opening, "gpu", lambda: "an NVIDIA GPU")
    monkeypatch.setattr(packages, "version", lambda name: "2.13.0" if name == "torch" else real(name))
    monkeypatch.setattr(packages, "missing", lambda extra: [])
    assert chosen("llama") == "transformers"
    assert chosen("llama", quant="q4_0") == "llamacpp"  # a setting that transformers does not take
    monkeypatch.setattr(packages, "version", lambda name: "2.13.0+cpu" if name == "torch" else real(name))
    assert chosen("llama") == "llamacpp"  # this PyTorch can't use the GPU


def test_a_gpu_shows_by_its_driver(tmp_path: Path) -> None:
    assert machine.gpu(tmp_path) is None
    (tmp_path / "nvidiactl").touch()
    assert machine.gpu(tmp_path) == "an NVIDIA GPU"
