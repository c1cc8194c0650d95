"""Who runs and who waits: whatever comes, leaves, gives up and changes, in whatever order and in the same loop turn."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaku.errors import Overloaded
from chaku.serve.admission import Admission

EVENTS = st.one_of(
    st.tuples(st.just("come"), st.integers(1, 6)),
    st.tuples(st.just("leave"), st.integers(0, 20)),
    st.tuples(st.just("leave_while_the_engine_works"), st.integers(0, 20)),
    st.tuples(st.just("engine_stops"), st.integers(0, 20)),
    st.tuples(st.just("give_up"), st.integers(0, 20)),
    st.tuples(st.just("slots"), st.integers(1, 8)),
)
TURNS = st.lists(st.lists(EVENTS, min_size=1, max_size=6), max_size=25)
"""The events of one inner list happen before the loop turns."""


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


@dataclass(eq=False)
class Caller:
    """One request: asks for slots, holds them until it is told to leave."""

    admission: Admission
    wanted: int
    leaves: asyncio.Event = field(default_factory=asyncio.Event)
    keeps_until: asyncio.Future[None] | None = None
    is_in: bool = False
    was_refused: bool = False

    async def run(self, went_in: list[Caller]) -> None:
        try:
            async with self.admission.hold(self.wanted) as hold:
                self.is_in = True
                went_in.append(self)
                try:
                    await self.leaves.wait()
                finally:
                    self.is_in = False
                    if self.keeps_until is not None:
                        hold.keep_until(self.keeps_until)
        except Overloaded:
            self.was_refused = True


class Crowd:
    """Drives an Admission; `check` compares it with what must hold whenever the loop is quiet."""

    def __init__(self, slots: int, queue_limit: int) -> None:
        self.admission = Admission("m", slots, queue_limit)
        self.callers: list[Caller] = []
        self.tasks: dict[Caller, asyncio.Task[None]] = {}
        self.went_in: list[Caller] = []
        self.working: list[asyncio.Future[None]] = []

    def come(self, wanted: int) -> None:
        caller = Caller(self.admission, wanted)
        self.callers.append(caller)
        self.tasks[caller] = asyncio.create_task(caller.run(self.went_in))

    def leave(self, which: int) -> None:
        if inside := [caller for caller in self.callers if caller.is_in]:
            inside[which % len(inside)].leaves.set()

    def leave_while_the_engine_works(self, which: int) -> None:
        if inside := [caller for caller in self.callers if caller.is_in and caller.keeps_until is None]:
            caller = inside[which % len(inside)]
            caller.keeps_until = asyncio.get_running_loop().create_future()
            self.working.append(caller.keeps_until)
            caller.leaves.set()

    def engine_stops(self, which: int) -> None:
        if self.working:
            self.working.pop(which % len(self.working)).set_result(None)

    def give_up(self, which: int) -> None:
        if open_tasks := [task for task in self.tasks.values() if not task.done()]:
            open_tasks[which % len(open_tasks)].cancel()

    def slots(self, number: int) -> None:
        self.admission.slots = number

    def check(self) -> None:
        came = {caller: at for at, caller in enumerate(self.callers)}
        waiting = [c for c in self.callers if not (c.is_in or c.was_refused or self.tasks[c].done())]
        assert self.admission.num_waiting == len(waiting) <= self.admission.queue_limit
        slots = self.admission.slots
        assert slots is not None
        if not any(c.is_in for c in self.callers) and not self.working:
            assert self.admission.num_running == 0, "slots were lost"
            assert not waiting, "nobody runs and somebody waits"
        if waiting:
            first = min(waiting[0].wanted, slots)
            assert self.admission.num_running + first > slots, "the first in the queue was not let in"
        # Whoever is let in in the same loop turn may start in any order.
        assert not waiting or all(came[c] < came[waiting[0]] for c in self.went_in), "somebody overtook the queue"
        failures = [task.exception() for task in self.tasks.values() if task.done() and not task.cancelled()]
        assert failures == [None] * len(failures)


@given(slots=st.integers(1, 4), queue_limit=st.integers(0, 5), turns=TURNS)
@settings(max_examples=300, deadline=None)
def test_no_slot_is_lost_and_nobody_is_forgotten_or_overtaken(
    slots: int, queue_limit: int, turns: list[list[tuple[str, int]]]
) -> None:
    async def play() -> None:
        crowd = Crowd(slots, queue_limit)
        for events in turns:
            for action, number in events:
                getattr(crowd, action)(number)
            await settle()
            crowd.check()
        for caller in crowd.callers:
            caller.leaves.set()
        for working in crowd.working:
            working.set_result(None)
        await settle()
        async with asyncio.timeout(5):
            await asyncio.gather(*crowd.tasks.values(), return_exceptions=True)
        assert crowd.admission.num_running == crowd.admission.num_waiting == 0

    asyncio.run(play())


@given(slots=st.integers(1, 6), changes=st.lists(st.integers(1, 8), min_size=1, max_size=10))
def test_never_more_run_than_the_slots_allowed_when_they_came_in(slots: int, changes: list[int]) -> None:
    async def play() -> None:
        crowd = Crowd(slots, queue_limit=100)
        for number in changes:
            running_before = crowd.admission.num_running
            crowd.come(number)
            crowd.slots(number)
            await settle()
            if crowd.admission.num_running > running_before:
                assert crowd.admission.num_running <= number
        for task in crowd.tasks.values():
            task.cancel()
        await asyncio.gather(*crowd.tasks.values(), return_exceptions=True)

    asyncio.run(play())


async def test_slots_that_are_reduced_while_taken_all_come_back() -> None:
    crowd = Crowd(slots=8, queue_limit=10)
    crowd.come(5)
    await settle()
    crowd.slots(2)
    crowd.leave(0)
    await settle()
    assert crowd.admission.num_running == 0


async def test_more_slots_let_the_queue_in_at_once() -> None:
    crowd = Crowd(slots=1, queue_limit=10)
    for _ in range(3):
        crowd.come(1)
    await settle()
    assert crowd.admission.num_waiting == 2
    crowd.slots(3)
    await settle()
    assert (crowd.admission.num_running, crowd.admission.num_waiting) == (3, 0)
    for task in crowd.tasks.values():
        task.cancel()
    await asyncio.gather(*crowd.tasks.values(), return_exceptions=True)


async def test_where_nobody_knows_the_slots_nobody_waits() -> None:
    crowd = Crowd(slots=1, queue_limit=0)
    crowd.admission.slots = None
    for _ in range(100):
        crowd.come(3)
    await settle()
    assert crowd.admission.num_running == 300
    for caller in crowd.callers:
        caller.leaves.set()
    await settle()
    assert crowd.admission.num_running == 0


async def test_retry_after_grows_with_the_queue_and_with_how_long_answers_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("chaku.serve.admission.time.monotonic", lambda: now)

    async def wait_s(service_s: float, waiting: int) -> float:
        nonlocal now
        crowd = Crowd(slots=1, queue_limit=waiting)
        for _ in range(100):
            async with crowd.admission.hold():
                now += service_s
        for _ in range(1 + waiting):
            crowd.come(1)
        await settle()
        with pytest.raises(Overloaded) as caught:
            async with crowd.admission.hold():
                pass
        for task in crowd.tasks.values():
            task.cancel()
        await asyncio.gather(*crowd.tasks.values(), return_exceptions=True)
        assert caught.value.retry_after_s is not None
        return caught.value.retry_after_s

    assert await wait_s(0.01, 0) == 1
    assert await wait_s(2, 3) == 8
    assert await wait_s(2, 1) < await wait_s(2, 3) < await wait_s(10, 3)
