import pytest

from fake_openai import FakeServer


@pytest.fixture
def server():
    with FakeServer().running() as running:
        yield running
