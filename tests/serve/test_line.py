"""The waits of a call for its replica: cut, cancelled from outside, and both in one turn of the loop."""

from __future__ import annotations

import asyncio
from itertools import permutations

import pytest

from chaku.errors import EngineError
from chaku.serve.failover.line import Line

GONE = EngineError("the replica is gone")


async def turns(number: int) -> str:
    """A word that comes after so many turns of the loop."""
    for _ in range(number):
        await asyncio.sleep(0)
    return "word"


async def is_undisturbed() -> bool:
    """Whether the task goes on as if nothing had been."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task = asyncio.current_task()
    return task is not None and not task.cancelling()


async def test_a_wait_ends_with_the_error_of_the_cut() -> None:
    line = Line()
    asyncio.get_running_loop().call_soon(line.cut, GONE)
    with pytest.raises(EngineError, match="gone"):
        await line.wait(asyncio.sleep(60))
    assert await is_undisturbed()


async def test_after_the_cut_what_is_here_already_is_taken_and_the_next_wait_ends() -> None:
    line = Line()
    line.cut(GONE)
    assert await line.wait(turns(0)) == "word"
    with pytest.raises(EngineError, match="gone"):
        await line.wait(asyncio.sleep(60))
    assert await is_undisturbed()


async def ended(order: tuple[str, ...]) -> tuple[object, bool]:
    """What a wait ends with when these come in one turn of the loop, and whether its task goes on undisturbed."""
    loop, line, word = asyncio.get_running_loop(), Line(), asyncio.Future[str]()

    async def call() -> tuple[object, bool]:
        try:
            heard: object = await line.wait(word)
        except EngineError as error:
            heard = error
        return heard, await is_undisturbed()

    task = asyncio.create_task(call())
    events = {
        "cut": lambda: line.cut(GONE),
        "leave": task.cancel,
        "word": lambda: word.done() or word.set_result("word"),
        "failure": lambda: word.done() or word.set_exception(EngineError("failed")),
    }
    await turns(2)
    for event in order:
        loop.call_soon(events[event])
    return await task


@pytest.mark.parametrize("order", list(permutations(["cut", "word", "failure"])), ids="-".join)
async def test_a_cut_in_the_turn_of_a_word_or_a_failure_leaves_the_task_as_it_was(order: tuple[str, ...]) -> None:
    heard, is_well = await ended(order)
    assert heard in ("word", GONE) or str(heard) == "failed"
    assert is_well


@pytest.mark.parametrize("order", list(permutations(["cut", "leave", "word"])), ids="-".join)
async def test_a_client_that_leaves_in_the_turn_of_the_cut_is_never_forgotten(order: tuple[str, ...]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await ended(order)
