"""Runs the batches of a database: requests go to the gateway's own API, as their owner, while slots are free.

So a batch passes the same checks, limits, moderation and accounts as any other request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from chaku import batch as batch_files
from chaku import tasks
from chaku.batch import BatchLine, has_failed, lines_of
from chaku.engines.base import Route
from chaku.errors import ChakuError, StoreError
from chaku.http_out import Retries, Transport
from chaku.serve.access import Access
from chaku.serve.batches.input import fault, faults_of, read_line
from chaku.serve.table import ModelTable
from chaku.store.batches import Batch, Batches, Claimed, ClaimLost
from chaku.store.database import Store
from chaku.store.files import Files
from chaku.store.leases import LEASE_S

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
"""Seconds between two looks for batches that another gateway left."""
MAX_BATCHES = 4
"""Batches that one gateway runs side by side; their requests take turns."""
_YIELD_S = 0.05
_PAUSES_S = (0.2, 1.0, 5.0, 15.0)
_LONGEST_PAUSE_S = 60.0
_RETRIES = Retries(limit=3, budget_s=2.0)
"""Whoever waits for longer lets other batches have the turn."""
_ROUTES: dict[str, Route] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "chat",
}
ENDPOINTS = tuple(_ROUTES)


class _Ended(ChakuError):
    """No further request of the batch is sent."""


class _Waits(ChakuError):
    """The models are away, or a limit of the key is used up for long."""


class BatchRunner:
    """Claims batches and runs them. `transport_for` opens a way to the gateway's own API, as one caller."""

    def __init__(
        self,
        store: Store,
        table: ModelTable,
        access: Access,
        transport_for: Callable[[str | None], Transport],
        *,
        parallel: int,
        lease_s: float = LEASE_S,
    ) -> None:
        """At most `parallel` requests of batches run at once; with 0, batches are left to other gateways."""
        self.files = Files(store)
        self.batches = Batches(store, lease_s=lease_s)
        self._table = table
        self._access = access
        self._transport_for = transport_for
        self._parallel = parallel
        self._lease_s = lease_s
        self._turns = asyncio.Semaphore(parallel)
        self._begun: Counter[tuple[str, Route]] = Counter()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._resting: dict[str, tuple[Batch, float]] = {}
        """Batches that wait, and the time by the loop's clock at which each is tried again."""
        self._looking: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    async def start(self) -> None:
        """Begin to look for batches."""
        if self._parallel:
            self._looking = tasks.repeat(self._keep_looking, "batches")

    def wake(self) -> None:
        """Look at once: there is a batch that is new, or to be cancelled."""
        self._woken.set()

    def end_streams(self) -> None:
        """Send no more; what runs is taken up by the next gateway."""
        for task in (self._looking, *self._running.values()):
            if task is not None:
                task.cancel()

    async def stop(self) -> None:
        """End."""
        await tasks.cancel(self._looking, *self._running.values())

    async def _keep_looking(self) -> None:
        while True:
            self._woken.clear()
            while len(self._running) < MAX_BATCHES:
                claimed = await self._claim()
                if claimed is None:
                    break
                batch_id = claimed.batch.id
                task = tasks.start(_Run(self, claimed).to_its_end(), "batch")
                self._running[batch_id] = task
                task.add_done_callback(lambda _, batch_id=batch_id: self._running.pop(batch_id))  # type: ignore[misc]
            await tasks.wait_for(self._woken, LOOK_EVERY_S)

    async def _claim(self) -> Claimed | None:
        """A batch to run, one that has waited last: many of a key at its limit must not hold up the others."""
        resting, due = list(self._resting), self._due()
        for left_out in (resting, [batch_id for batch_id in resting if batch_id not in due]):
            claim = self.batches.claim
            claimed = await asyncio.to_thread(claim, but=tuple(self._running), resting=left_out)
            if claimed is not None:
                self._resting.pop(claimed.batch.id, None)
                return claimed
        for batch_id in due:  # another gateway runs it, or it is over
            self._resting.pop(batch_id, None)
        return None

    def _due(self) -> set[str]:
        """Batches that have waited long enough, or have to end."""
        now = asyncio.get_running_loop().time()
        return {
            batch_id
            for batch_id, (batch, until) in self._resting.items()
            if now >= until or is_late(batch) or not self.may_run(batch)
        }

    def rest(self, batch: Batch, asked_s: float | None) -> None:
        """Leave a batch alone for a while; another has its place."""
        rest_s = min(asked_s or _PAUSES_S[-1], _LONGEST_PAUSE_S)
        self._resting[batch.id] = batch, asyncio.get_running_loop().time() + rest_s

    async def send(self, transport: Transport, request: BatchLine, run: _Run) -> dict[str, Any]:
        """Answer one request, when it is its turn and nobody else waits for the model. Raises _Ended."""
        while True:
            while not run.is_ending and not self._has_room(request):  # noqa: ASYNC110 - queues tell nobody
                await asyncio.sleep(_YIELD_S)
            async with self._turns:  # others may have begun meanwhile
                if run.is_ending:
                    raise _Ended("the batch ends")
                if self._has_room(request):
                    begun = _queue_of(request)
                    self._begun[begun] += 1
                    try:
                        return await batch_files.ask(transport, request, _RETRIES)
                    finally:
                        self._begun[begun] -= 1

    def _has_room(self, request: BatchLine) -> bool:
        """Whether a slot is free that nobody waits for."""
        model, route = queue = _queue_of(request)
        served = next((served for served in self._table if served.name == model), None)
        if served is None:
            return True  # the answer says that it is not served
        admission = served.admission_of(route)
        if admission.slots is None:
            return not admission.num_waiting
        # What has begun here may not have reached the queue yet.
        return max(admission.num_running, self._begun[queue]) < admission.slots and not admission.num_waiting

    def transport_of(self, batch: Batch) -> Transport:
        """The way to the gateway's API as the owner of a batch."""
        return self._transport_for(batch.owner_id)

    def may_run(self, batch: Batch) -> bool:
        """Whether the owner may still ask models."""
        return batch.owner_id is None or self._access.may_infer(batch.owner_id)

    @property
    def parallel(self) -> int:
        """Requests that run at once."""
        return self._parallel

    @property
    def renew_every_s(self) -> float:
        """Seconds between two renewals of a claim."""
        return self._lease_s / 5


class _Run:
    """One claimed batch, from where it stands to its end."""

    def __init__(self, runner: BatchRunner, claimed: Claimed) -> None:
        self._runner = runner
        self._claimed = claimed
        self._batch = claimed.batch
        self._batches = runner.batches
        self._has_lost = False

    @property
    def is_ending(self) -> bool:
        """Whether no further request may be sent."""
        return self._has_lost or self._batch.state == "cancelling" or is_late(self._batch) or not self._may_run()

    def _may_run(self) -> bool:
        return self._runner.may_run(self._batch)

    async def to_its_end(self) -> None:
        """Run it. Where that fails, the batch stays as it is, for whoever claims it next."""
        renewing = tasks.repeat(self._keep_claim, "batch-claim")
        try:
            await self._advance()
        except ClaimLost:
            log.warning("batch runs elsewhere id=%s", self._batch.id)
        except _Waits as waits:
            self._runner.rest(self._batch, waits.retry_after_s)
        finally:
            await tasks.cancel(renewing)
            if not self._has_lost:
                await asyncio.shield(asyncio.to_thread(self._release))

    def _release(self) -> None:
        try:
            self._batches.release(self._claimed)
        except StoreError as error:
            log.error("batch can't be released, its claim ends by itself: %s", error)

    async def _keep_claim(self) -> None:
        while True:
            await asyncio.sleep(self._runner.renew_every_s)
            try:
                self._batch = await asyncio.to_thread(self._batches.renew, self._claimed)
            except ClaimLost:
                self._has_lost = True
                return
            except StoreError as error:
                log.error("batch can't be renewed: %s", error)

    async def _advance(self) -> None:
        content = await asyncio.to_thread(b"".join, self._runner.files.parts(self._batch.input_file_id))
        if self._batch.state == "validating":
            faults, num_requests = await asyncio.to_thread(faults_of, content, self._batch.endpoint)
            if faults:
                await self._move("failed", errors=faults)
                return
            self._batch = await asyncio.to_thread(self._batches.begin, self._claimed, num_requests, now=_now())
        if self._batch.state == "in_progress":
            await self._answer(content)
        if self._batch.state == "cancelling":
            await self._move("cancelled")
        elif not self._may_run():
            await self._move("failed", errors=[fault("invalid_api_key", "the key may not ask models any more")])
        elif self._batch.state != "finalizing" and is_late(self._batch):
            await self._expire(content)
            await self._move("expired")
        else:
            await self._move("finalizing")
            await self._move("completed")

    async def _move(self, state: str, **values: Any) -> None:
        self._batch = await asyncio.to_thread(self._batches.move, self._claimed, state, now=_now(), **values)
        log.info("batch id=%s state=%s", self._batch.id, self._batch.state)

    async def _answer(self, content: bytes) -> None:
        """Answer what has no recorded answer, until nothing is left or the batch ends. Raises _Waits."""
        transport = self._runner.transport_of(self._batch)

        async def answer(item: tuple[int, bytes]) -> None:
            number, line = item
            answered = await self._runner.send(transport, read_line(line, number), self)
            await self._record(number, answered)

        try:
            done = await asyncio.to_thread(self._batches.answered, self._batch)
            missing = ((number, line) for number, line in lines_of(content) if number not in done)
            await batch_files.run(missing, answer, parallel=self._runner.parallel)
        except (_Ended, ClaimLost):
            return  # whoever lost the claim hears of it with the next write
        except ChakuError as error:
            if not self.is_ending:
                log.info("batch waits id=%s reason=%s", self._batch.id, error.for_log)
                raise _Waits(error.message, retry_after_s=error.retry_after_s) from error
        finally:
            await transport.close()

    async def _record(self, number: int, answered: dict[str, Any]) -> None:
        line = orjson.dumps(answered, option=orjson.OPT_APPEND_NEWLINE)
        for pause_s in (*_PAUSES_S, None):
            try:
                await asyncio.to_thread(
                    self._batches.record, self._claimed, number, line, has_failed=has_failed(answered)
                )
                return
            except StoreError:
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)

    async def _expire(self, content: bytes) -> None:
        """Give each request that was not answered in time an error."""
        done = await asyncio.to_thread(self._batches.answered, self._batch)
        why = {"code": "batch_expired", "message": "the request was not answered within the completion window"}
        for number, line in lines_of(content):
            if number not in done:
                request = read_line(line, number)
                expired = {"id": request.id, "custom_id": request.custom_id, "response": None, "error": why}
                await self._record(number, expired)


def is_late(batch: Batch) -> bool:
    """Whether its time is over."""
    return datetime.now(UTC) >= batch.expires_at


def _queue_of(request: BatchLine) -> tuple[str, Route]:
    """Model and route: requests that wait for the same slots."""
    return str(request.body["model"]), _ROUTES[request.url]


def _now() -> datetime:
    return datetime.now(UTC)
