"""What tests of several parts share."""

from __future__ import annotations

from pathlib import Path

import pytest

import smollm2
from fake_openai import FakeServer

smollm2.gguf()  # before any test points the cache elsewhere


@pytest.fixture
def server():
    with FakeServer().running() as running:
        yield running


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real 135M model."""
    return smollm2.gguf()
