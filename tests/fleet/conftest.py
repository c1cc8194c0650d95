"""Fleets in a hurry."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaku.serve.fleet import registry
from chaku.serve.worker import membership


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Beats and leases at a tenth of their length."""
    monkeypatch.setattr(membership, "BEAT_EVERY_S", 0.2)
    monkeypatch.setattr(membership, "RETRY_S", 0.1)
    monkeypatch.setattr(registry, "LEASE_S", 1.0)
    monkeypatch.setattr(registry, "SUSPECT_S", 0.5)
    monkeypatch.setattr(registry, "LOOK_EVERY_S", 0.02)
    yield
