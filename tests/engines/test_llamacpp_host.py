"""The child that holds llama.cpp, as far as it runs without it."""

from __future__ import annotations

import resource

import pytest

from chaku.engines.llamacpp import host


@pytest.mark.parametrize("free_bytes", [3 << 30, None])
def test_the_child_takes_no_more_than_machine_and_container_have_free(
    monkeypatch: pytest.MonkeyPatch, free_bytes: int | None
) -> None:
    limits: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(host.sys, "platform", "linux")
    monkeypatch.setattr(host, "available_bytes", lambda: free_bytes)  # of control groups too: see test_memory.py
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limit: limits.append((kind, limit)))
    host._limit_memory(reserve_bytes=5)
    expected = [] if free_bytes is None else [(resource.RLIMIT_DATA, free_bytes + 5)]
    assert [(kind, soft) for kind, (soft, _) in limits] == expected
