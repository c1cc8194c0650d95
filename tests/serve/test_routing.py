"""Where a request goes: books that can't leak, an index that stays bounded, and policies that keep their word."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chaku.serve.routing.load import BEAT_COUNTS_S, CallLoad, Load, Work
from chaku.serve.routing.prefix import BLOCK_BYTES, BLOCK_TOKENS, MAX_BYTES, PrefixIndex, work_of
from chaku.serve.routing.router import _POLICIES, LOOKS_AT_ALL, Router


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


CLOCK = Clock()


def loads(*slots: int | None) -> list[Load]:
    return [Load(CLOCK, number) for number in slots]


def prompt(*turns: str) -> Work:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return work_of("m", {"messages": messages}, 1)


class FleetEvents(RuleBasedStateMachine):
    """Workers and calls in any order; the model is the set of calls that are not over."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.router = Router("prefix", Random(0), max_entries=20)
        self.replicas: list[Load] = []
        self.gone: list[Load] = []
        self.calls: list[tuple[Load, CallLoad, Work, bool]] = []

    @rule(slots=st.none() | st.integers(1, 4))
    def join(self, slots: int | None) -> None:
        self.replicas.append(Load(self.clock, slots))

    @precondition(lambda self: self.replicas)
    @rule(data=st.data(), running=st.integers(0, 20))
    def beat(self, data: st.DataObject, running: int) -> None:
        data.draw(st.sampled_from(self.replicas)).hear(running)

    @precondition(lambda self: self.replicas)
    @rule(num_slots=st.integers(1, 3), text=st.text("ab", max_size=3))
    def dispatch(self, num_slots: int, text: str) -> None:
        work = work_of("m", {"prompt": text * BLOCK_BYTES}, num_slots)
        index, call = self.router.send(self.replicas, work)
        self.calls.append((self.replicas[index], call, work, False))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def first_token(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.calls) - 1))
        load, call, work, _ = self.calls[at]
        call.read()
        self.calls[at] = (load, call, work, True)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), times=st.integers(1, 3))
    def finish_or_hang_up(self, data: st.DataObject, times: int) -> None:
        _, call, _, _ = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        for _ in range(times):
            call.end()
            call.read()

    @precondition(lambda self: self.replicas)
    @rule(data=st.data())
    def die_or_expire(self, data: st.DataObject) -> None:
        self.gone.append(self.replicas.pop(data.draw(st.integers(0, len(self.replicas) - 1))))

    @precondition(lambda self: self.gone)
    @rule(data=st.data(), is_same_process=st.booleans())
    def rejoin(self, data: st.DataObject, is_same_process: bool) -> None:
        load = self.gone.pop(data.draw(st.integers(0, len(self.gone) - 1)))
        if not is_same_process:
            load.lose_cache()
        self.replicas.append(load)

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @invariant()
    def the_books_are_the_calls_that_are_not_over(self) -> None:
        for load in (*self.replicas, *self.gone):
            there = [(work, was_read) for at, _, work, was_read in self.calls if at is load]
            assert load.num_running == sum(work.num_slots for work, _ in there)
            assert 0 <= load.unread_tokens <= sum(work.prompt_tokens for work, was_read in there if not was_read)
            assert load.num_foreign >= 0
        assert 0 <= self.router.index.num_entries <= 20


FleetEvents.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestFleetEvents = FleetEvents.TestCase


def test_a_beat_counts_others_calls_only_and_not_for_ever() -> None:
    clock = Clock()
    load = Load(clock, slots=8)
    call = load.begin(Work(num_slots=2))
    load.hear(5)
    assert (load.num_running, load.num_foreign) == (2, 3)
    call.end()
    assert (load.num_running, load.num_foreign) == (0, 3)
    clock.now_s = BEAT_COUNTS_S
    assert load.num_foreign == 0


def test_the_next_turn_of_a_chat_goes_where_the_last_was_read() -> None:
    router = Router("prefix", Random(1))
    replicas = loads(4, 4, 4)
    turns = ["a long question " * 30]
    first, call = router.send(replicas, prompt(*turns))
    call.end()
    for _ in range(5):
        turns += ["an answer " * 20, "and then? " * 20]
        index, call = router.send(replicas, prompt(*turns))
        assert index == first
        call.end()


def test_the_load_guard_wins_over_the_prefix() -> None:
    router = Router("prefix", Random(1))
    replicas = loads(8, 8)
    work = prompt("one system prompt for all " * 200)
    taken = Counter(router.send(replicas, work)[0] for _ in range(16))
    assert taken == {0: 8, 1: 8}


def test_a_replica_without_a_free_slot_waits_until_all_are_full() -> None:
    router = Router("prefix", Random(1))
    replicas = loads(1, 4)
    work = prompt("the same " * 500)
    assert Counter(router.send(replicas, work)[0] for _ in range(5)) == {0: 1, 1: 4}


def test_a_restarted_engine_holds_no_prompt() -> None:
    router = Router("prefix", Random(1))
    replicas = loads(4, 4)
    work = prompt("x" * 4 * BLOCK_BYTES)
    routed = router.choose(replicas, work)
    assert router.index.hits(replicas, work.blocks)[routed.index] == 4 * BLOCK_TOKENS
    replicas[routed.index].lose_cache()
    assert router.index.hits(replicas, work.blocks) == [0, 0]


@given(common=st.text(max_size=600), one=st.text(max_size=300), other=st.text(max_size=300))
def test_prompts_share_the_blocks_of_their_common_beginning_and_no_other(common: str, one: str, other: str) -> None:
    first, second = (work_of("m", {"prompt": common + end}, 1) for end in (one, other))
    num_shared = 0
    left, right = ((common + end).encode() for end in (one, other))
    while num_shared < min(len(first.blocks), len(second.blocks)) and (
        left[: (num_shared + 1) * BLOCK_BYTES] == right[: (num_shared + 1) * BLOCK_BYTES]
    ):
        num_shared += 1
    assert first.blocks[:num_shared] == second.blocks[:num_shared]
    assert not set(first.blocks[num_shared:]) & set(second.blocks[num_shared:])
    assert not set(first.blocks) & set(work_of("another", {"prompt": common + one}, 1).blocks)


def test_only_the_beginning_is_hashed_and_the_whole_is_counted() -> None:
    work = work_of("m", {"prompt": "x" * 10 * MAX_BYTES}, 1)
    assert len(work.blocks) == MAX_BYTES // BLOCK_BYTES
    assert work.prompt_tokens == 10 * MAX_BYTES // 4


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": [1, 2, 3]},
        {"prompt": ["a", "b"]},
        {"input": "embed me"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}], "tools": [{"type": "x"}]},
    ],
)
def test_every_form_of_prompt_has_a_chain(body: dict[str, Any]) -> None:
    assert work_of("m", body, 1).prompt_tokens >= 0


def test_the_index_forgets_the_blocks_that_were_not_asked_for_the_longest() -> None:
    index, (load,) = PrefixIndex(max_entries=3), loads(1)
    index.add(load, [1, 2])
    index.add(load, [3])
    index.add(load, [1, 2])
    index.add(load, [4])
    assert index.hits([load], [1, 2]) == [2 * BLOCK_TOKENS]
    assert index.hits([load], [3]) == [0]


@given(
    policy=st.sampled_from(sorted(_POLICIES)),
    states=st.lists(st.tuples(st.none() | st.integers(1, 64), st.integers(0, 50)), min_size=1, max_size=20),
    seed=st.integers(),
    text=st.text(max_size=500),
)
def test_every_policy_picks_a_replica_that_there_is(
    policy: Any, states: list[tuple[int | None, int]], seed: int, text: str
) -> None:
    replicas = loads(*(slots for slots, _ in states))
    for load, (_, running) in zip(replicas, states, strict=True):
        load.begin(Work(running))
    router = Router(policy, Random(seed))
    for _ in range(3):
        assert 0 <= router.choose(replicas, prompt(text)).index < len(replicas)


@given(
    states=st.lists(st.tuples(st.none() | st.integers(1, 64), st.integers(0, 50)), min_size=1, max_size=LOOKS_AT_ALL),
    seed=st.integers(),
)
def test_least_loaded_never_picks_a_replica_with_more_work_per_slot(
    states: list[tuple[int | None, int]], seed: int
) -> None:
    replicas = loads(*(slots for slots, _ in states))
    for load, (_, running) in zip(replicas, states, strict=True):
        load.begin(Work(running))
    chosen = replicas[Router("least_loaded", Random(seed)).choose(replicas, Work()).index]
    with_room = [load for load in replicas if load.has_room(1)] or replicas
    assert chosen in with_room
    assert chosen.cost() == min(load.cost() for load in with_room)


def test_round_robin_takes_turns_and_lottery_draws_by_slots() -> None:
    replicas = loads(3, 1, 2)
    robin = Router("round_robin", Random(0))
    assert Counter(robin.choose(replicas, Work()).index for _ in range(9)) == {0: 3, 1: 3, 2: 3}
    lottery = Router("lottery", Random(0))
    drawn = Counter(lottery.choose(replicas, Work()).index for _ in range(6000))
    assert [round(drawn[i] / 1000) for i in range(3)] == [3, 1, 2]
