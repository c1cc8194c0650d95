"""Who runs and who waits: whatever comes, leaves and gives up in whatever order."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaku.errors import Overloaded
from chaku.serve.admission import Admission

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.integers(1, 6)),
        st.tuples(st.just("leave"), st.integers(0, 20)),
        st.tuples(st.just("give_up"), st.integers(0, 20)),
        st.tuples(st.just("give_up_and_leave"), st.integers(0, 20)),
    ),
    max_size=60,
)


async def settle() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


class Line:
    """Drives an Admission and keeps its own books."""

    def __init__(self, slots: int, queue_limit: int) -> None:
        self.admission = Admission("m", slots, queue_limit)
        self.slots = slots
        self.running: list[int] = []
        self.waiting: list[tuple[int, asyncio.Task[None]]] = []
        self.came: list[asyncio.Task[None]] = []
        self.went_in: list[asyncio.Task[None]] = []

    async def _enter(self, wanted: int) -> None:
        await self.admission.enter(wanted)
        task = asyncio.current_task()
        assert task is not None
        self.went_in.append(task)

    async def come(self, wanted: int) -> None:
        was_full = len(self.waiting) >= self.admission.queue_limit
        held = min(wanted, self.slots)
        must_wait = bool(self.waiting) or sum(self.running) + held > self.slots
        task = asyncio.create_task(self._enter(wanted))
        await settle()
        if must_wait and was_full:
            with pytest.raises(Overloaded) as caught:
                task.result()
            assert caught.value.retry_after_s is not None
            assert caught.value.retry_after_s >= 1
        elif must_wait:
            assert not task.done(), "it overtook the line or took more than there is"
            self.came.append(task)
            self.waiting.append((wanted, task))
        else:
            task.result()
            self.came.append(task)
            self.running.append(held)

    async def leave(self, which: int) -> None:
        if self.running:
            self.admission.leave(self.running.pop(which % len(self.running)), 0.1)
            await self._move_up()

    async def give_up(self, which: int) -> None:
        if self.waiting:
            _, task = self.waiting.pop(which % len(self.waiting))
            task.cancel()
            await self._move_up()
            assert task.cancelled()
            self.came.remove(task)

    async def give_up_and_leave(self, which: int) -> None:
        """A slot is granted to the first in line in the same instant in which that one gives up."""
        if self.waiting and self.running:
            _, task = self.waiting.pop(0)
            self.admission.leave(self.running.pop(which % len(self.running)))
            task.cancel()
            await self._move_up()
            assert task.cancelled()
            self.came.remove(task)

    async def _move_up(self) -> None:
        await settle()
        while self.waiting and sum(self.running) + min(self.waiting[0][0], self.slots) <= self.slots:
            wanted, task = self.waiting.pop(0)
            assert task.done(), "a slot is free and the first in line was not let in"
            task.result()
            self.running.append(min(wanted, self.slots))

    def check(self) -> None:
        assert self.admission.num_running == sum(self.running) <= self.slots
        assert self.admission.num_waiting == len(self.waiting) <= self.admission.queue_limit
        assert [task for task in self.went_in if task in self.came] == self.came[: len(self.came) - len(self.waiting)]


@given(slots=st.integers(1, 4), queue_limit=st.integers(0, 5), steps=STEPS)
@settings(max_examples=200, deadline=None)
def test_never_more_than_the_slots_run_first_come_first_served_and_no_slot_is_lost(
    slots: int, queue_limit: int, steps: list[tuple[str, int]]
) -> None:
    async def play() -> None:
        line = Line(slots, queue_limit)
        for action, number in steps:
            await getattr(line, action)(number)
            line.check()
        while line.running or line.waiting:
            await line.leave(0)
            line.check()
        assert line.admission.num_running == line.admission.num_waiting == 0

    asyncio.run(play())


async def test_where_nobody_knows_the_slots_nobody_waits() -> None:
    admission = Admission("m", None, queue_limit=0)
    for _ in range(100):
        await admission.enter(3)
    assert admission.num_running == 300
    for _ in range(100):
        admission.leave(3)
    assert admission.num_running == 0


async def test_retry_after_grows_with_the_line_and_with_how_long_answers_take() -> None:
    async def wait_s(service_s: float, waiting: int) -> float:
        admission = Admission("m", 1, queue_limit=waiting)
        for _ in range(100):
            await admission.enter()
            admission.leave(1, service_s)
        await admission.enter()
        tasks = [asyncio.create_task(admission.enter()) for _ in range(waiting)]
        await settle()
        with pytest.raises(Overloaded) as caught:
            await admission.enter()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert caught.value.retry_after_s is not None
        return caught.value.retry_after_s

    assert await wait_s(0.01, 0) == 1
    assert await wait_s(2, 3) == 8
    assert await wait_s(2, 1) < await wait_s(2, 3) < await wait_s(10, 3)
