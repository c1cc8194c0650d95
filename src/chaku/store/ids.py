"""Identifiers that sort by the time they were made: UUID version 7 (RFC 9562, section 5.7)."""

from __future__ import annotations

import secrets
import uuid
from datetime import datetime


def new_id(now: datetime) -> str:
    """A UUIDv7 string; two made in the same millisecond sort at random."""
    milliseconds = int(now.timestamp() * 1000) & ((1 << 48) - 1)
    version, variant = 0x7, 0b10
    value = milliseconds << 80 | version << 76 | secrets.randbits(12) << 64 | variant << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))
