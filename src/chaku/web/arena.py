"""The arena over HTTP: battles between anonymous sides, their votes, the leaderboard, and the operator's view.

Nothing that is answered about a battle before its vote has a contestant's or a model's name.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from chaku import tasks
from chaku.arena import pairs
from chaku.comparison import Outcome
from chaku.errors import ConfigError, Conflict, InvalidRequest
from chaku.protocol.validation import check
from chaku.settings import Contestant
from chaku.store.battles import SIDES, UNDO, Battles, Side, StoredBattle, StoredVote
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import Store
from chaku.web import arena_shapes, shapes, streams
from chaku.web.answers import KEEP_S, Answers
from chaku.web.battle_record import is_streaming, paths_of, settle, side_state, streaming, texts_of
from chaku.web.battle_turn import BattleTurn
from chaku.web.battle_vote import flags_of_vote, game_of, reveal
from chaku.web.messages import Opener
from chaku.web.requests import Handler, id_in, json_response, read_json, visitor_of

RESULTS_S = 5.0
"""The votes from which pairs are drawn are counted again after so long."""
HIDDEN_S = 2.0
"""So long after a turn its models count as answering it, since an engine takes a moment to stop."""

CheckPrompt = Callable[[str], Awaitable[None]]
"""Raises the error that refuses a prompt."""
MayAsk = Callable[[str | None, str], bool]
"""Whether a visitor may ask the model of that name."""


@dataclass(frozen=True)
class ArenaSettings:
    """Who stands in the arena (empty: every model that answers chats), and what a visitor may do."""

    contestants: tuple[Contestant, ...] = ()
    battles_per_hour: int = 60
    turns: int = 10


class Arena:
    """The routes below /arena that a battle needs."""

    def __init__(
        self,
        store: Store,
        answers: Answers,
        models: Callable[[], list[Any]],
        may_ask: MayAsk,
        open_stream: Opener,
        settings: ArenaSettings,
        check_prompt: CheckPrompt | None = None,
    ) -> None:
        """`check_prompt` refuses a prompt that moderation does not let in, before any side gets it."""
        for contestant in settings.contestants:
            try:
                check(shapes.Settings, contestant.sampling)
            except InvalidRequest as error:
                raise ConfigError(f"contestant {contestant.name}: {error.message}", fix=error.fix) from None
        self._check_prompt = check_prompt
        self._store = store
        self._answers = answers
        self._models = models
        self._may_ask = may_ask
        self._open_stream = open_stream
        self._contestants = settings.contestants
        self._per_hour = settings.battles_per_hour
        self._turns = settings.turns
        self._comparisons = ComparisonBook(store)
        self._chance = random.SystemRandom()
        self._running: dict[str, BattleTurn] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._recent: dict[str, BattleTurn] = {}
        """Turns that run or have just ended."""
        self._results: tuple[float, dict[pairs.Pair, tuple[float, int]]] | None = None

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path below /api, handler."""
        battle = "/arena/battles/{battle}"
        return [
            ("GET", "/arena", self.show),
            ("POST", "/arena/battles", self.begin),
            ("GET", battle, self.show_battle),
            ("POST", f"{battle}/turns", self.take_turn),
            ("GET", f"{battle}/events", self.follow),
            ("POST", f"{battle}/vote", self.vote),
            ("PATCH", f"{battle}/vote", self.give_reasons),
            ("DELETE", f"{battle}/vote", self.undo),
        ]

    async def stop(self) -> None:
        """Let the turns under way end; their answers have been stopped."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def without_battles(self, rows: list[Any]) -> list[Any]:
        """Rows of models as visitors see them: what runs for battles is in no count, which would tell who answers."""
        hidden = Counter(model for turn in list(self._recent.values()) for model in turn.models)
        return [
            {**row, **{name: max(0, row[name] - hidden[row["id"]]) for name in ("running", "waiting")}}
            if row["id"] in hidden
            else row
            for row in rows
        ]

    def ready(self) -> dict[str, Contestant]:
        """The contestants whose model takes requests now, by name."""
        rows = [row for row in self._models() if row["state"] == "ready" and "chat" in row["capabilities"]]
        serving = {row["id"]: row for row in rows}
        standing = self._contestants or [_as_recommended(serving[name]) for name in sorted(serving)]
        return {one.name: one for one in standing if one.model in serving}

    def _ready_for(self, visitor_id: str | None) -> dict[str, Contestant]:
        """Those whose model the visitor may ask."""
        return {name: one for name, one in self.ready().items() if self._may_ask(visitor_id, one.model)}

    async def probabilities(self, contestants: Iterable[str]) -> dict[pairs.Pair, float]:
        """How likely each pair of these contestants is to be drawn next."""
        if self._results is None or time.monotonic() - self._results[0] > RESULTS_S:
            self._results = (time.monotonic(), await asyncio.to_thread(self._comparisons.outcome_counts))
        return pairs.pair_probabilities(list(contestants), self._results[1])

    async def show(self, request: Request) -> Response:
        """Whether there can be a battle, and on what terms."""
        book, ready = self._book(request), self._ready_for(visitor_of(request).key_id)
        num_recent = await asyncio.to_thread(book.num_recent, now=_now())
        publish = await asyncio.to_thread(book.last_consent)
        return json_response(
            arena_shapes.ArenaShown(
                contestants_count=len(ready),
                is_open=len(ready) >= 2,
                why_closed=None if len(ready) >= 2 else _why_closed(ready),
                consent_needed=publish is None,
                consent=None if publish is None else {"keep": True, "publish": publish},
                limits={
                    "battles_per_hour": self._per_hour,
                    "battles_left": max(0, self._per_hour - num_recent),
                    "turns": self._turns,
                    "prompt_characters": arena_shapes.MAX_PROMPT_CHARACTERS,
                    "undo_s": UNDO.total_seconds(),
                },
                sampling=pairs.METHOD,
                reasons=list(arena_shapes.REASONS),
                is_operator=visitor_of(request).is_admin,
            )
        )

    async def begin(self, request: Request) -> Response:
        """Draw a pair."""
        asked = await read_json(request, arena_shapes.NewBattle)
        book, ready = self._book(request), self._ready_for(visitor_of(request).key_id)
        probabilities = await self.probabilities(ready)
        if not probabilities:
            raise Conflict(_why_closed(ready), fix="try again when another model is ready", code="arena_closed")
        drawn, probability = pairs.draw(probabilities, self._chance)
        battle = await asyncio.to_thread(
            book.create,
            (ready[drawn[0]], ready[drawn[1]]),
            probability,
            publish=asked.consent.publish,
            per_hour=self._per_hour,
            now=_now(),
        )
        return json_response(await self._shown(book, battle.id), 201)

    async def show_battle(self, request: Request) -> Response:
        """A battle as it stands, its sides named after the vote only."""
        book = self._book(request)
        return json_response(await self._shown(book, (await self._settled(book, _battle_id(request))).id))

    async def take_turn(self, request: Request) -> Response:
        """Send a message to both sides."""
        asked = await read_json(request, arena_shapes.NewTurn)
        if self._check_prompt is not None:
            await self._check_prompt(asked.content)
        book = self._book(request)
        battle = await self._settled(book, _battle_id(request))
        if battle.id in self._running or await asyncio.to_thread(is_streaming, book, battle):
            raise Conflict("an answer is being written", fix="wait until both have ended", code="battle_answering")
        # Shielded: if the caller leaves now, the turn still runs.
        battle = await asyncio.shield(self._start(book, battle, asked.content))
        return json_response(await self._shown(book, battle.id), 202)

    async def _start(self, book: Battles, battle: StoredBattle, content: str) -> StoredBattle:
        battle = await asyncio.to_thread(book.begin_turn, battle.id, most=self._turns, now=_now())
        turn = BattleTurn(book, battle, self._answers, partial(self._substitute, battle.owner_id))
        self._running[battle.id] = self._recent[battle.id] = turn
        task = tasks.start(turn.run(content), f"battle-{battle.id}")
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            del self._running[battle.id]
            asyncio.get_running_loop().call_later(HIDDEN_S, self._recent.pop, battle.id, None)

        task.add_done_callback(ended)
        return battle

    def _substitute(self, visitor_id: str | None, tried: set[str]) -> Contestant | None:
        others = [contestant for name, contestant in sorted(self._ready_for(visitor_id).items()) if name not in tried]
        return self._chance.choice(others) if others else None

    async def follow(self, request: Request) -> Response:
        """The turn under way, from where the reader was."""
        book, battle_id = self._book(request), _battle_id(request)
        await self._settled(book, battle_id)
        return self._open_stream(request, self._events(book, battle_id, streams.read_last_id(request)))

    async def _events(self, book: Battles, battle_id: str, after: int | None) -> AsyncGenerator[streams.Numbered]:
        async def snapshot() -> arena_shapes.BattleEvent:
            return arena_shapes.BattleEvent(kind="snapshot", battle=await self._shown(book, battle_id))

        if (turn := self._running.get(battle_id)) is not None:
            async for numbered in turn.feed.read(after, snapshot):
                yield numbered
            return
        before = None
        while True:  # another gateway's turn, if any: what it writes down is what there is to see
            battle = await self._settled(book, battle_id)
            event = await snapshot()
            if event != before:
                before = event
                yield streams.ELSEWHERE, dict(event)
            if battle.state != "answering" and not await asyncio.to_thread(is_streaming, book, battle):
                return
            await asyncio.sleep(KEEP_S)

    async def vote(self, request: Request) -> Response:
        """Judge both sides: the answer comes when the vote is on the disk, and has the names."""
        asked = await read_json(request, arena_shapes.NewVote)
        book = self._book(request)
        battle = await self._settled(book, _battle_id(request))
        given = await asyncio.to_thread(self._keep_vote, book, battle, asked.choice, asked.token, asked.reasons)
        self._results = None
        ending = tasks.start(self._end_answers(book, battle), f"end-{battle.id}")
        self._tasks.add(ending)
        ending.add_done_callback(self._tasks.discard)
        return json_response(await asyncio.to_thread(self._revealed, book, battle.id, given))

    async def _end_answers(self, book: Battles, battle: StoredBattle) -> None:
        """Stop what the sides still write, on any gateway: after the vote nobody waits for it."""
        for message in await asyncio.to_thread(streaming, book, battle):
            await self._answers.end(battle.owner_id, message.conversation_id, message.id)

    def _keep_vote(
        self, book: Battles, battle: StoredBattle, choice: Outcome, token: str, reasons: Sequence[str]
    ) -> StoredVote:
        if battle.turn == 0:
            raise Conflict("nothing was asked yet", fix="send a message first", code="not_votable")
        sides, paths = book.sides(battle), paths_of(book, battle)
        answers = {side: texts_of(paths[side], "assistant") for side in SIDES}
        if (turn := self._running.get(battle.id)) is not None:  # the store has what there was a second ago
            answers = {side: [*answers[side][: battle.turn - 1], turn.shown[side]] for side in SIDES}
        prompts = texts_of(paths["a"], "user")
        now, flags = _now(), flags_of_vote(sides, answers)
        all_flags = [*battle.flags, *flags]
        game = game_of(battle, sides, prompts, answers, choice, flags=all_flags, voter=book.visitor, now=now)
        return book.vote(battle.id, choice, token, game, reasons=reasons, flags=flags, now=now)

    async def give_reasons(self, request: Request) -> Response:
        """Say why: the choice stays as it was made before the names were shown."""
        asked = await read_json(request, arena_shapes.NewReasons)
        book, battle_id = self._book(request), _battle_id(request)
        given = await asyncio.to_thread(book.give_reasons, battle_id, asked.reasons)
        return json_response(await asyncio.to_thread(self._revealed, book, battle_id, given))

    async def undo(self, request: Request) -> Response:
        """Take the vote back."""
        book = self._book(request)
        battle = await asyncio.to_thread(book.undo, _battle_id(request), now=_now())
        self._results = None
        return json_response(await self._shown(book, battle.id))

    def _book(self, request: Request) -> Battles:
        return Battles(self._store, visitor_of(request).key_id)

    async def _settled(self, book: Battles, battle_id: str) -> StoredBattle:
        """The battle; one whose turn was broken off by the end of its gateway is votable or has failed."""
        battle = await asyncio.to_thread(book.get, battle_id)
        if battle.state == "answering" and battle_id not in self._running:
            return await asyncio.to_thread(settle, book, battle)
        return battle

    async def _shown(self, book: Battles, battle_id: str) -> arena_shapes.BattleShown:
        while True:  # until no turn ended or began while this read: what is shown is of one moment
            turn = self._running.get(battle_id)
            battle = await asyncio.to_thread(book.get, battle_id)
            paths = await asyncio.to_thread(paths_of, book, battle)
            given = await asyncio.to_thread(book.vote_of, battle_id)
            revealed = None if given is None else await asyncio.to_thread(self._revealed, book, battle_id, given)
            if turn is self._running.get(battle_id):
                break
        if turn is not None and given is None:
            battle = turn.battle

        def show_side(side: Side) -> arena_shapes.SideShown:
            answers = texts_of(paths[side], "assistant")
            if turn is None:
                return {"state": side_state(battle, paths[side]), "answers": answers}
            earlier = answers[: battle.turn - 1]
            return {"state": turn.state_of(side), "answers": [*earlier, turn.shown[side]]}

        return {
            "id": battle.id,
            "state": battle.state,  # type: ignore[typeddict-item]
            "turn": battle.turn,
            "token": battle.token or None,
            "consent": {"keep": True, "publish": battle.publish},
            "prompts": texts_of(max(paths.values(), key=len), "user"),
            "sides": {side: show_side(side) for side in SIDES},
            "side_replaced": "replaced" in battle.flags,
            "revealed": revealed,
        }

    def _revealed(self, book: Battles, battle_id: str, given: StoredVote) -> arena_shapes.Revealed:
        return reveal(book, battle_id, given, {row["id"]: row["num_parameters"] for row in self._models()})


def _as_recommended(row: dict[str, Any]) -> Contestant:
    """A served model under the settings that suit it, as the chat uses them."""
    known = row["recommended"] or {}
    sampling = {name: value for name, value in known.items() if name in row["capabilities"]}
    return Contestant(name=row["id"], model=row["id"], system=known.get("system"), sampling=sampling)


def _why_closed(ready: dict[str, Contestant]) -> str:
    return f"a battle needs two contestants that you may ask, and {'one is' if ready else 'none is'} ready"


def _battle_id(request: Request) -> str:
    return id_in(request.path_params["battle"], "battle")


def _now() -> datetime:
    return datetime.now(UTC)
