"""llama-server, a program of the user's, as an engine: chosen, started, asked, and its failures named."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaku.engines import opening
from chaku.engines.llamacpp import program
from chaku.engines.opening import ENGINES, check_settings, choose_engine, require_usable
from chaku.errors import ModelError, UsageError
from chaku.models.reference import LocalFile
from chaku.settings import ModelConfig
from engines.llama_server_stand_in import make_program
from engines.llamacpp_calls import PARIS, call, joined, started, streamed, text_of, whole
from gguf_files import write_gguf
from processes import is_alive


@pytest.fixture
def path_of_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def test_auto_prefers_a_program_that_can_use_a_gpu(
    tmp_path: Path, path_of_programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LocalFile(write_gguf(tmp_path / "m.gguf"))
    config = ModelConfig(source=str(model.path))
    monkeypatch.setattr(opening, "gpu", lambda: "a GPU")
    assert choose_engine("m", config, model).kind.name == "llamacpp"
    with pytest.raises(UsageError, match="no llama-server") as caught:
        require_usable(ENGINES["llama-server"], config)
    assert "--engine-arg binary=PATH" in str(caught.value.fix)
    monkeypatch.setenv("PATH", f"{path_of_programs}:/bin")
    make_program(path_of_programs)
    choice = choose_engine("m", config, model)
    assert choice.kind.name == "llama-server" and choice.reason.endswith("can use Vulkan0, CUDA1")
    monkeypatch.setattr(opening, "gpu", lambda: None)
    assert choose_engine("m", config, model).kind.name == "llamacpp"


def test_the_program_may_lie_anywhere_and_its_gpus_count_in_the_plan(tmp_path: Path, path_of_programs: Path) -> None:
    binary = make_program(tmp_path / "mine")
    model = write_gguf(tmp_path / "m.gguf")
    config = ModelConfig(source=str(model), engine_args={"binary": str(binary)})
    assert choose_engine("m", config, LocalFile(model)).kind.name == "llama-server"
    require_usable(ENGINES["llama-server"], config)
    assert program.devices(binary) == {"Vulkan0": 15000 << 20, "CUDA1": 8 << 20}
    assert program.devices(tmp_path / "none") == {}
    check_settings("m", config, LocalFile(model))


@pytest.mark.model
async def test_it_answers_as_the_wheel_does(tmp_path: Path, smollm2_path: Path) -> None:
    engine = await started(smollm2_path, slots=1, context=256, program=make_program(tmp_path))
    try:
        pid = engine.status().pid
        response = await whole(engine)
        assert "Paris" in text_of(response) and joined(await streamed(engine)) == text_of(response)
        assert (engine.capabilities.context_tokens, engine.capabilities.slots) == (256, 1)
        begun = [*PARIS, {"role": "assistant", "content": "The capital of"}]
        assert (await engine.planner.plan(call(messages=begun))).path == "/v1/completions"  # others may repeat it
        assert text_of(await whole(engine, messages=begun)).startswith(" France")
        assert engine.endpoint[1].encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    finally:
        await engine.stop()
    assert pid is not None and not is_alive(pid)


def test_embeddings_and_a_template_are_asked_for_in_its_words() -> None:
    params = {"n_parallel": 2, "n_ctx": 4096, "n_batch": 2048, "n_ubatch": 2048, "embedding": True}
    config = {"model": "m.gguf", "alias": "m", "key": "secret", "params": params, "kv_type": "f16", "lora": ["a", "b"],
              "batch": None, "threads": 3, "gpu_layers": 0, "mmproj": None, "pooling": "cls"}  # fmt: skip
    words = " ".join(program.command(Path("/llama-server"), config, 9))
    for piece in ("--embedding --pooling cls", "--batch-size 2048 --ubatch-size 2048", "--gpu-layers 0", "--threads 3",
                  "--lora a --lora b", "--host 127.0.0.1 --port 9"):  # fmt: skip
        assert piece in words
    assert "secret" not in words and program.environment(config)["LLAMA_API_KEY"] == "secret"
    params["chat_template"] = "{{ messages }}"
    assert program.environment(config)["LLAMA_ARG_CHAT_TEMPLATE"] == "{{ messages }}"


@pytest.mark.parametrize(
    ("does", "words"),
    [("echo '0.0 E error: invalid argument: --slots'; exit 1", "invalid argument"), ("kill -ILL $$", "another CPU")],
)
async def test_why_it_did_not_start_is_said(tmp_path: Path, does: str, words: str) -> None:
    binary = make_program(tmp_path)
    binary.write_text(f"#!/bin/sh\n{does}\n")
    model = write_gguf(tmp_path / "m.gguf")
    with pytest.raises(ModelError, match=words):
        await started(model, special_tokens=(), program=binary)
