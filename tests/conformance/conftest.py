"""The real program with the real model, started once, and the official clients pointed at it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from openai import AsyncOpenAI, OpenAI

from chaku_server import ONE_THREAD, SOURCE, ChakuServer, serving


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChakuServer]:
    """`chaku serve smollm2-135m`, ready."""
    with serving(tmp_path_factory.mktemp("served"), SOURCE, *ONE_THREAD) as server:
        yield server


@pytest.fixture
def client(served: ChakuServer) -> Iterator[OpenAI]:
    """The official client, which repeats nothing by itself: a test sees every answer."""
    with OpenAI(base_url=served.base_url, api_key="any", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
async def async_client(served: ChakuServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=served.base_url, api_key="any", max_retries=0, timeout=60) as client:
        yield client
