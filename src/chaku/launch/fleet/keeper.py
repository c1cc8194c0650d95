"""Keeps a fleet up: starts its gateway and workers, starts again what ended, and follows the number that is wanted.

Where workers run is a `Workers`: child processes of this one, or Ray. The gateway is always a child of this process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from chaku import tasks
from chaku.errors import ChakuError
from chaku.http_out import NEVER_AGAIN, Transport
from chaku.launch.fleet.member import Member
from chaku.launch.fleet.processes import LASTING, GatewayProcess, Running, Workers
from chaku.launch.fleet.record import Record
from chaku.launch.fleet.scaling import Demand, Restarts, Scaler
from chaku.launch.fleet.spec import FleetConfig, Place, worker_names

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.2
ASK_EVERY_S = 1.0
KILL_AFTER_S = 10.0
"""A worker that was asked twice to end gets so long; the gateway gets as long."""
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - not bound here
_MOST_ASKED = 2
"""The second signal does not wait for requests."""


class Keeper:
    """One fleet that is up. `run` returns once it is down."""

    def __init__(
        self,
        fleet: FleetConfig,
        place: Place,
        workers: Workers,
        record: Record,
        note: Callable[[str], None],
    ) -> None:
        """`note` takes a line of text for every change."""
        self._fleet = fleet
        self._place = place
        self._workers = workers
        self._record = record
        self._note = note
        self._members: dict[str, Member] = {}
        self._gateway: GatewayProcess | None = None
        self._gateway_restarts = Restarts()
        self._scalers = {
            pool.model: Scaler(pool.replicas, pool.max_replicas, pool.replicas)
            for pool in fleet.workers
            if pool.max_replicas is not None
        }
        self._stopping = asyncio.Event()
        self._is_hurried = False
        self._was_ready = False
        self._told: dict[str, Any] = {}

    def stop(self) -> None:
        """End: workers finish their requests first. A second call ends them at once."""
        self._is_hurried = self._stopping.is_set()
        self._stopping.set()

    async def run(self) -> None:
        """Keep the fleet up until `stop`. Raises ChakuError where the gateway or the place can't be had at first."""
        watching: asyncio.Task[None] | None = None
        try:
            await self._workers.open()
            self._gateway = await self._start_gateway()
            self._note(f"the gateway is at {self._gateway.url}")
            watching = tasks.repeat(self._watch_gateway, "fleet-gateway")
            asking = tasks.repeat(self._keep_asking, "fleet-asker")
            try:
                while not self._stopping.is_set():
                    self._follow(time.monotonic())
                    self._tell()
                    await tasks.wait_for(self._stopping, LOOK_EVERY_S)
            finally:
                await tasks.cancel(asking)
        finally:
            await self._end(watching)

    async def _start_gateway(self) -> GatewayProcess:
        settings = self._fleet.gateway.model_dump(mode="json", exclude_unset=True)
        if self._gateway is not None:  # workers know it by the port that it had
            settings["port"] = int(self._gateway.url.rpartition(":")[2])
        return await GatewayProcess.start(settings, self._record.folder)

    async def _watch_gateway(self) -> None:
        """Start the gateway again whenever it has ended; its workers join again by themselves."""
        began = time.monotonic()
        while True:
            assert self._gateway is not None
            while self._gateway.process.exit_code is None:  # noqa: ASYNC110 - a child process has no event
                await asyncio.sleep(LOOK_EVERY_S)
            pause_s = self._gateway_restarts.pause_s(time.monotonic() - began)
            self._note(f"the gateway ended with code {self._gateway.process.exit_code}: restart in {pause_s:g} s")
            await asyncio.sleep(pause_s)
            try:
                began = time.monotonic()
                self._gateway = await self._start_gateway()
                self._note("the gateway is back")
            except ChakuError as error:
                self._note(error.message)

    def _follow(self, now: float) -> None:
        """Start, end and restart workers, so that those run that are wanted."""
        wanted = self._record.wanted()
        names: set[str] = set()
        for pool in self._fleet.workers:
            scaler = self._scalers.get(pool.model)
            number = scaler.number if scaler else wanted.get(pool.model, pool.replicas)
            for name in worker_names(self._fleet, pool, number):
                names.add(name)
                self._members.setdefault(name, Member(name, pool, now))
        for member in list(self._members.values()):
            if member.name not in names or member.end_by is not None:
                self._dismiss(member, now)
            elif member.running is None:
                if not member.failure and now >= member.start_at:
                    self._start(member, now)
            elif member.running.exit_code is not None:
                self._restart(member, member.running, now)

    def _start(self, member: Member, now: float) -> None:
        assert self._gateway is not None
        settings = {
            "model": member.pool.settings,
            "join": [self._join_url()],
            "name": member.name,
            **({"gateway_certificate": self._gateway.certificate} if self._gateway.certificate else {}),
        }
        member.running, member.began_at = self._workers.start(member.name, member.pool, settings), now
        member.state = "starting"

    def _join_url(self) -> str:
        """The gateway's address as the workers reach it."""
        assert self._gateway is not None
        if self._fleet.gateway.public_url is not None:
            return self._fleet.gateway.public_url
        if self._fleet.gateway.host in _EVERY_ADDRESS:
            return self._gateway.url.replace("127.0.0.1", self._workers.node_address, 1)
        return self._gateway.url

    def _restart(self, member: Member, ended: Running, now: float) -> None:
        code, said = ended.exit_code, ended.last_lines()
        pause_s = member.restarts.pause_s(now - member.began_at)
        member.running, member.start_at, member.state = None, now + pause_s, "restarting"
        if code in LASTING:
            member.failure = said[-1] if said else f"it ended with code {code}"
            self._note(f"{member.name} ended with code {code}, and another start would end the same way:")
            for line in said:
                self._note(f"  {line}")
        else:
            self._note(f"{member.name} ended with code {code}: restart {member.restarts.number} in {pause_s:g} s")

    def _dismiss(self, member: Member, now: float) -> None:
        """Have a worker end: ask, ask again after `drain_s`, then kill."""
        if member.running is None or member.running.exit_code is not None:
            del self._members[member.name]
            self._note(f"{member.name} has ended")
            return
        has_to_act = (
            member.end_by is None or now >= member.end_by or (self._is_hurried and member.num_asked < _MOST_ASKED)
        )
        if not has_to_act:
            return
        if member.num_asked < _MOST_ASKED:
            member.running.ask_to_end()
            member.num_asked += 1
            member.state = "draining"
            member.end_by = now + (self._fleet.drain_s if member.num_asked == 1 else KILL_AFTER_S)
        else:
            member.running.kill()

    async def _keep_asking(self) -> None:
        """Read the states of the workers and the queues from the gateway, and move the pools' sizes."""
        while True:
            await asyncio.sleep(ASK_EVERY_S)
            gateway = self._gateway
            if gateway is None or gateway.process.exit_code is not None:
                continue
            transport = Transport(
                gateway.url,
                who="the gateway",
                headers={"Authorization": f"Bearer {gateway.api_key}"},
                retries=NEVER_AGAIN,
                silence_s=10.0,
                certificate=gateway.certificate,
            )
            try:
                _, table = await transport.json("GET", "/fleet")
                _, models = await transport.json("GET", "/v1/models")
            except ChakuError as error:
                _log.debug("the gateway did not answer why=%r", error.message)
                continue
            finally:
                await transport.close()
            self._take(table["workers"], models["data"], time.monotonic())

    def _take(self, rows: list[dict[str, Any]], models: list[dict[str, Any]], now: float) -> None:
        for row in rows:
            member = self._members.get(row["name"])
            if member is None or member.running is None or member.end_by is not None:
                continue
            if row["state"] != member.state and not (member.state == "starting" and row["state"] == "gone"):
                if row["state"] == "ready":
                    self._note(f"{member.name} is ready ({member.pool.model}, {member.running.place})")
                member.state = row["state"]
        for model in models:
            scaler = self._scalers.get(model["id"])
            if scaler is not None:
                num_ready = sum(one.state == "ready" for one in self._members.values() if one.pool.model == model["id"])
                before = scaler.number
                demand = Demand(model["running"], model["waiting"], model["slots"])
                if (number := scaler.look(demand, num_ready, now)) != before:
                    self._note(f"{model['id']}: {before} to {number} workers ({demand.waiting} requests wait)")

    def _tell(self) -> None:
        """Write the record where something changed."""
        assert self._gateway is not None
        members = self._members.values()
        is_settled = all(member.failure or member.state == "ready" for member in members)
        if is_settled and not self._was_ready:
            self._was_ready = True
            self._note(f"fleet {self._fleet.name} is up: {self._gateway.url}/v1")
        told = {
            "place": self._place,
            "pid": os.getpid(),
            "url": self._gateway.url,
            "is_ready": self._was_ready,
            "gateway": self._gateway.process.place,
            "gateway_restarts": self._gateway_restarts.number,
            "workers": {member.name: member.told() for member in members},
        }
        if told != self._told:
            self._record.tell(told)
            self._told = told

    async def _end(self, watching: asyncio.Task[None] | None) -> None:
        """Workers first: the gateway still answers what they finish."""
        try:
            while self._members:
                for member in list(self._members.values()):
                    self._dismiss(member, time.monotonic())
                await asyncio.sleep(LOOK_EVERY_S / 2)
            await tasks.cancel(watching)
            if self._gateway is not None and self._gateway.process.exit_code is None:
                self._gateway.process.ask_to_end()
                await self._gateway.process.wait(KILL_AFTER_S)
        finally:
            for member in self._members.values():
                if member.running is not None:
                    member.running.kill()
            if self._gateway is not None:
                self._gateway.process.kill()
            await self._workers.close()
