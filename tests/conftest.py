from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real 135M model: CHAKU_TEST_MODEL."""
    path = os.environ.get("CHAKU_TEST_MODEL")
    if not path:
        pytest.skip("set CHAKU_TEST_MODEL to SmolLM2-135M-Instruct.Q4_1.gguf")
    return Path(path)
