"""The base of every API's requests: how past messages are tidied, and which known fields are refused with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from chaku.protocol.messages import Shape


class Request(Shape):
    """A request of one API. An unknown field is refused by name."""

    refused: ClassVar[Mapping[str, str]] = {}
    """Fields that the API has and chaku refuses, with the reason."""

    @classmethod
    def tidy(cls, messages: list[Any], first: int = 0) -> set[str]:
        """Clean past messages in place; returns the names of what was dropped. `first` is the index of the first one.

        Raises InvalidRequest for a message with too many fields.
        """
        return set()
