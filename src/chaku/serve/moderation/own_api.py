"""The gateway as a client of its own API: how a guard model is asked, on whichever replica it runs."""

from __future__ import annotations

from collections.abc import Callable

from chaku.client import Client

MAX_TOKENS = 64


class OwnApi:
    """Asks served models. `base_url` is set once the gateway has an address."""

    def __init__(self, token: Callable[[], str], certificate: str | None) -> None:
        """`certificate` is the sha256 of the gateway's own, where it has one."""
        self.base_url: str | None = None
        self._token = token
        self._certificate = certificate

    async def ask(self, model: str, text: str) -> str:
        """The answer to one user message, by greedy decoding. Raises ChakuError."""
        assert self.base_url is not None, "the gateway has no address yet"
        async with Client(self.base_url, self._token(), certificate=self._certificate) as client:
            messages = [{"role": "user", "content": text}]
            return (await client.chat(messages, model, temperature=0, max_tokens=MAX_TOKENS)).text
