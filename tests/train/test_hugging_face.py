"""The example for Hugging Face's libraries does what it says, on a run of a small model and a real gateway."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from chaku_server import serving
from train import small


@pytest.fixture
def example() -> Any:
    spec = importlib.util.spec_from_file_location("hugging_face", Path("examples/hugging_face.py").absolute())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_plain_transformers_loads_a_run(example: Any, base: Path, small_set: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    run = small.trained(small.recipe("run", base, tmp_path, epochs=1), small_set)
    loaded = AutoModelForCausalLM.from_pretrained(run / "final").state_dict()
    saved = load_file(run / "final" / "model.safetensors")
    assert saved.keys() <= loaded.keys() and all(torch.equal(loaded[name], saved[name]) for name in saved)
    answer = example.load(str(run), "hello", num_tokens=4)
    assert isinstance(answer, str) and answer == example.load(str(run), "hello", num_tokens=4)


def test_the_client_of_huggingface_hub_talks_to_a_gateway(example: Any, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    with serving(tmp_path, "parrot=scripted:", "--no-ui") as server:
        assert example.ask(server.base_url, "parrot", "Tell me a story.") == "You said: Tell me a story."
