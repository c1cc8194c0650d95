"""What tests of several parts share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fake_openai import FakeServer


@pytest.fixture
def server():
    with FakeServer().running() as running:
        yield running


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real 135M model: CHAKU_TEST_MODEL, or the built-in one, pulled once into the user's cache."""
    if given := os.environ.get("CHAKU_TEST_MODEL"):
        return Path(given)
    from chaku.models.pull import pull
    from chaku.models.reference import parse

    return pull(parse("smollm2-135m").reference).path
