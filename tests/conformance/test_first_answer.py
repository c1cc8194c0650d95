"""The first answer that a newcomer sees: `chaku chat` with the demo model and what the model recommends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chaku_server import ChakuServer, run_chaku

pytestmark = [pytest.mark.model, pytest.mark.needs("recommended")]


def test_the_demo_model_says_paris_and_ends(served: ChakuServer, tmp_path: Path) -> None:
    done = run_chaku(tmp_path, "chat", "What is the capital of France?", "--json", OPENAI_BASE_URL=served.base_url)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert "Paris" in answer["answer"]
    assert answer["finish_reason"] == "stop"


def test_a_greeting_is_answered_with_words_and_ends(served: ChakuServer, tmp_path: Path) -> None:
    done = run_chaku(tmp_path, "chat", "hello", "--json", OPENAI_BASE_URL=served.base_url)
    answer = json.loads(done.stdout)
    assert answer["finish_reason"] == "stop"
    assert answer["answer"].isascii() and "hel" in answer["answer"].lower()
