"""What tests of the commands share."""

import pytest

from processes import environment


@pytest.fixture
def env(tmp_path):
    """A fresh user's environment."""
    return environment(CHAKU_DATA=str(tmp_path / "data"))
