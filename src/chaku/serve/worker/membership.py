"""A worker's side of a fleet: it joins one gateway or several, beats from a thread of its own, drains and leaves.

The thread has its own event loop, so that a worker whose main loop is busy still beats.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from pydantic import ValidationError

from chaku import tasks
from chaku.errors import (
    AuthenticationFailed,
    ChakuError,
    Conflict,
    EngineError,
    InvalidRequest,
    NotFound,
    PermissionRefused,
)
from chaku.http_out import NEVER_AGAIN, Transport, read_json, refusal
from chaku.protocol.fleet import BEAT_EVERY_S, MAX_TAKEN, Beat, CommandKind, Heard, Join, Joined, Leave, as_json

log = logging.getLogger(__name__)

ANSWER_S = 10.0
"""A join waits for the gateway's call-back."""
RETRY_S = 1.0
LONGEST_RETRY_S = 30.0
_REFUSALS = (AuthenticationFailed, PermissionRefused, InvalidRequest, Conflict)
"""Answers that waiting does not change by itself."""

Answer = TypeVar("Answer", Joined, Heard)


@dataclass(frozen=True)
class Member:
    """What a worker tells of itself."""

    join: Callable[[str], Join]
    """The message for a gateway, by the gateway's URL."""
    beat: Callable[[], Beat]
    """The worker as it is now; called from the thread, so it must only read."""
    logs: Callable[[], tuple[str, ...]]
    on_command: Callable[[CommandKind], None]
    """Takes `drain` and `reload`; called from the thread."""
    on_refusal: Callable[[str, ChakuError], None] = field(default=lambda url, error: None)
    """Takes a gateway's URL and its first refusal, before the worker had joined it; called from the thread."""


class Membership:
    """The bonds of one worker with its gateways."""

    def __init__(
        self, gateways: tuple[str, ...], token: str | None, member: Member, *, certificate: str | None = None
    ) -> None:
        """With `certificate`, its sha256 in hex, the gateways' is that one, and no authority is asked."""
        self._bonds = [_Bond(url.rstrip("/"), token, member, certificate) for url in gateways]
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> None:
        """Join, and beat from now on."""
        assert self._thread is None, "the worker has joined"
        self._thread = tasks.repeat_in_thread(lambda: asyncio.run(self._run()), "beats", self._closing)

    def beat_now(self) -> None:
        """Send a beat at once: the state has changed."""
        self._call(self._hurry)

    async def told(self, state: str, timeout_s: float = 2 * BEAT_EVERY_S) -> None:
        """Wait until every gateway that can be reached has heard that the state is `state`."""
        self.beat_now()
        deadline = asyncio.get_running_loop().time() + timeout_s
        while any(bond.lease and bond.told_state != state for bond in self._bonds):
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(0.02)

    async def leave(self) -> None:
        """Say farewell, and end the thread."""
        self._closing.set()
        self._call(self._hurry)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, ANSWER_S)

    def _hurry(self) -> None:
        for bond in self._bonds:
            bond.hurry.set()

    def _call(self, function: Callable[[], object]) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(function)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        # One by one: what goes wrong with one gateway must not keep beats from the others.
        await asyncio.gather(
            *(tasks.repeat(partial(bond.run, self._closing), f"beats {bond.url}") for bond in self._bonds)
        )


class _Bond:
    """One gateway."""

    def __init__(self, url: str, token: str | None, member: Member, certificate: str | None) -> None:
        self.url = url
        self._certificate = certificate
        self.lease = ""
        self.told_state = ""
        """The state in the last beat that the gateway has answered."""
        self.hurry = asyncio.Event()
        self._member = member
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._logs_wanted = False
        self._taken: deque[str] = deque(maxlen=MAX_TAKEN)
        """Ids of the last commands that were taken."""
        self._has_joined = False
        self._num_failures = 0
        self._is_replaced = False

    async def run(self, closing: threading.Event) -> None:
        """Join and beat until `closing`, then leave."""
        transport = Transport(
            self.url,
            who=f"the gateway at {self.url}",
            headers=self._headers,
            retries=NEVER_AGAIN,
            connect_s=BEAT_EVERY_S,
            silence_s=ANSWER_S,
            keepalive=False,
            certificate=self._certificate,
        )
        try:
            while not closing.is_set() and not self._is_replaced:
                pause_s = await self._try(transport)
                self.hurry.clear()
                if not closing.is_set():
                    await tasks.wait_for(self.hurry, pause_s)
            if self.lease:
                leave = Leave(name=self._beat().name, generation=self._beat().generation, lease=self.lease)
                await _post(transport, "/fleet/leave", leave)
        except ChakuError as error:
            log.warning("could not leave gateway=%s why=%r", self.url, error.message)
        finally:
            self.lease = ""
            await transport.close()

    async def _try(self, transport: Transport) -> float:
        """One join or beat; the pause after it in seconds."""
        try:
            if not self.lease:
                await self._join(transport)
            else:
                await self._send_beat(transport)
        except NotFound as error:
            if error.code == "not_joined" and self.lease:
                self.lease = ""  # the gateway has restarted, or has lost us
                return 0.0
            return self._failed(error)
        except ChakuError as error:
            return self._failed(error)
        self._num_failures = 0
        return 0.0 if self._logs_wanted else BEAT_EVERY_S

    def _failed(self, error: ChakuError) -> float:
        if error.code == "superseded":
            log.error("another process has this worker's name gateway=%s: it does not join again", self.url)
            self._is_replaced, self.lease = True, ""
            return 0.0
        self._num_failures += 1
        if self._num_failures == 1:
            log.warning("gateway does not take us gateway=%s why=%r", self.url, error.message)
        is_refusal = isinstance(error, _REFUSALS)
        if is_refusal:
            self.lease = ""
            if not self._has_joined:
                self._member.on_refusal(self.url, error)
        return min(RETRY_S * (2.0 ** (self._num_failures - 1) if is_refusal else 1.0), LONGEST_RETRY_S)

    async def _join(self, transport: Transport) -> None:
        message = self._member.join(self.url).model_copy(update={"taken": tuple(self._taken)})
        joined = await _ask(transport, "/fleet/join", message, Joined)
        self.lease, self.told_state, self._has_joined = joined.lease, message.state, True
        log.info("joined gateway=%s url=%s", self.url, message.url)

    async def _send_beat(self, transport: Transport) -> None:
        beat = self._beat()
        heard = await _ask(transport, "/fleet/beat", beat, Heard)
        self.told_state = beat.state
        self._logs_wanted = False
        for command in heard.commands:
            if command.id in self._taken:
                continue
            self._taken.append(command.id)
            log.info("command from gateway=%s command=%s", self.url, command.kind)
            if command.kind == "logs":
                self._logs_wanted = True
            else:
                self._member.on_command(command.kind)

    def _beat(self) -> Beat:
        lines = self._member.logs() if self._logs_wanted else None
        return self._member.beat().model_copy(update={"lease": self.lease, "logs": lines, "taken": tuple(self._taken)})


async def _ask(transport: Transport, path: str, message: Beat, kind: type[Answer]) -> Answer:
    """The gateway's answer. Raises as `_post`, and EngineError for an answer that is not chaku's."""
    try:
        return kind.model_validate(await _post(transport, path, message))
    except ValidationError:
        raise EngineError(f"{transport.who} answered {path} with something that is not chaku's answer") from None


async def _post(transport: Transport, path: str, message: Beat | Leave) -> object:
    """The gateway's answer. Raises the error that it answered, or as Transport."""
    async with transport.request("POST", path, as_json(message)) as response:
        if response.status == 204:
            return None
        if response.status != 200:
            raise await refusal(response)
        return await read_json(response, who=transport.who)
