"""The real program with the real model, started once, and the official clients pointed at it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from openai import AsyncOpenAI, OpenAI

import smollm2
from chaku_server import MODEL, ONE_THREAD, SOURCE, ChakuServer, serving

pytest.register_assert_rewrite("conformance.asking", "conformance.parameter_checks")

ENGINE = os.environ.get("CHAKU_TEST_ENGINE", "llamacpp")
"""Which engine answers the suite: llamacpp, or transformers or vllm with the same weights in fp32."""
_FP32 = ("--engine-arg", "dtype=float32")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "llamacpp": (),
    "transformers": ("--engine", "transformers", *_FP32, "--slots", "4"),
    "vllm": ("--engine", "vllm", *_FP32, "--slots", "16", "--context", "2048",
             "--engine-arg", "options=--enforce-eager"),
}  # fmt: skip
"""Of `chaku serve`, by engine. CHAKU_TEST_ENGINE_PYTHON is the Python of an environment that has vLLM."""


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChakuServer]:
    """`chaku serve smollm2-135m`, ready."""
    source, options = SOURCE, _OPTIONS[ENGINE]
    if ENGINE != "llamacpp":
        source = f"{MODEL}={smollm2.folder()}"
    if ENGINE == "vllm":
        options = (*options, "--engine-python", os.environ["CHAKU_TEST_ENGINE_PYTHON"])
    else:
        options = (*options, *ONE_THREAD)
    with serving(tmp_path_factory.mktemp("served"), source, *options) as server:
        yield server


@pytest.fixture(scope="session")
def abilities(served: ChakuServer) -> frozenset[str]:
    """What the served model can do, as /v1/models lists it; `recommended` where a release recommends its sampling."""
    row = served.get(f"/v1/models/{MODEL}")[1]
    return frozenset(row["capabilities"]) | ({"recommended"} if row["recommended"] else set())


@pytest.fixture(autouse=True)
def _has_what_it_needs(request: pytest.FixtureRequest) -> None:
    """Skip a test marked `needs` where the engine under test lacks the ability; the built-in one lacks none."""
    marker = request.node.get_closest_marker("needs")
    if marker is None or ENGINE == "llamacpp":
        return
    if missing := set(marker.args) - request.getfixturevalue("abilities"):
        pytest.skip(f"{ENGINE} lacks {', '.join(sorted(missing))}, as /v1/models says")


@pytest.fixture
def client(served: ChakuServer) -> Iterator[OpenAI]:
    """The official client, which repeats nothing by itself: a test sees every answer."""
    with OpenAI(base_url=served.base_url, api_key="any", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
async def async_client(served: ChakuServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=served.base_url, api_key="any", max_retries=0, timeout=60) as client:
        yield client
