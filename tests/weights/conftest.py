"""Small models of which one was trained further."""

import pytest

from weights.small_models import llama, moved


@pytest.fixture
def pair(tmp_path):
    """A base and a target of 50 tokens."""
    base = llama(50)
    base.save_pretrained(tmp_path / "base")
    moved(base).save_pretrained(tmp_path / "target")
    return tmp_path / "base", tmp_path / "target"
