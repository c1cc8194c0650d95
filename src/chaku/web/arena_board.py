"""The leaderboard over HTTP, the battles of one of its cells, and what only an operator sees."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from chaku.arena import pairs
from chaku.arena.standings import Filters, Standings, show_matrix, show_rows, standings
from chaku.arena.voters import judge_voters
from chaku.errors import InvalidRequest, NotFound
from chaku.store.battle_list import BattleList, ListedBattle
from chaku.store.comparisons import ComparisonBook, Exclusion
from chaku.store.database import Store
from chaku.web import arena_shapes, shapes
from chaku.web.arena import Arena
from chaku.web.requests import Handler, actor_of, check_admin, json_response, read_json, visitor_of

if TYPE_CHECKING:
    from chaku.arena.board import Board

SOURCES = ("human", "judge", "import")
MOST_BATTLES = 100
_MOST_KEPT = 32
_COSTLY_S, _COSTS_KEPT = 1.0, 10
"""Standings that cost more than a second stay for ten times that: a large arena is not rated all the time."""
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class _Kept:
    """Standings, the version of the comparisons that they are of, and until when newer votes may wait."""

    version: Any
    fresh_until: float
    standings: Standings


class ArenaBoard:
    """The routes that show what votes came to."""

    def __init__(self, store: Store, arena: Arena) -> None:
        self._book = ComparisonBook(store)
        self._battles = BattleList(store)
        self._arena = arena
        self._kept: dict[tuple[Any, ...], _Kept] = {}
        self._rating = asyncio.Lock()

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path below /api, handler."""
        return [
            ("GET", "/leaderboard", self.show),
            ("GET", "/arena/battles", self.list_battles),
            ("GET", "/arena/operator", self.show_operator),
            ("POST", "/arena/operator/exclusions", self.exclude),
        ]

    async def show(self, request: Request) -> Response:
        """Ratings of what the filters let through."""
        asked = request.query_params
        sources = tuple(sorted(filter(None, asked.get("sources", "").split(","))))
        if unknown := set(sources) - set(SOURCES):
            raise InvalidRequest(f"{min(unknown)[:40]!r} is not a source of games", fix=f"known: {', '.join(SOURCES)}")
        since, until = (_date(asked.get(name, ""), name) for name in ("from", "to"))
        filters = Filters(asked.get("category", ""), asked.get("language", ""), asked.get("style", "") in ("1", "true"))
        examples = asked.get("examples", "") in ("1", "true")
        async with self._rating:  # one reader has them rated; the others wait here, and hold no thread
            now = await asyncio.to_thread(self._standings, sources, since, until, filters, examples)
        return json_response(
            arena_shapes.Leaderboard(
                rows=show_rows(now.board),  # type: ignore[typeddict-item]
                error=now.error,
                note=str(now.board.flips) if now.board is not None and now.board.flips is not None else None,
                matrix=show_matrix(now.board, now.games),  # type: ignore[typeddict-item]
                counts=now.counts,
                months=[_show_month(month, *found) for month, found in now.months.items()],
                method=now.board.method if now.board is not None else "",
                data_sha256=now.board.data_sha256 if now.board is not None else "",
                style={
                    name: {"effect": effect, "error": error}
                    for name, (effect, error) in (now.board.effects if now.board is not None else {}).items()
                },
                excluded=now.excluded,
                exclusions=await asyncio.to_thread(self._exclusions),
                sampling=await self._sampling(),
                sampling_method=pairs.METHOD,
                has_examples=await asyncio.to_thread(self._book.has_examples),
            )
        )

    def _standings(
        self, sources: tuple[str, ...], since: str | None, until: str | None, filters: Filters, examples: bool
    ) -> Standings:
        """The same question about the same games is answered from memory."""
        key = (sources, since, until, filters, examples)
        version, now = self._book.version(), time.monotonic()
        kept = self._kept.get(key)
        if kept is None or (kept.version != version and now > kept.fresh_until):
            games = self._book.games(sources=sources, since=since, until=until, examples=examples)
            found = standings(games, filters)
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            cost_s = time.monotonic() - now
            waits_s = _COSTS_KEPT * cost_s if cost_s > _COSTLY_S else 0
            kept = self._kept[key] = _Kept(version, time.monotonic() + waits_s, found)
        return kept.standings

    async def list_battles(self, request: Request) -> Response:
        """The voted battles of a pair, in either order; their texts where the voter agreed."""
        names = [request.query_params.get(name, "") for name in ("model_a", "model_b")]
        if not all(names):
            raise InvalidRequest("no pair of models is named", fix="give model_a and model_b", param="model_a")
        total, found = await asyncio.to_thread(self._battles.of_pair, names[0], names[1], limit=MOST_BATTLES)
        return json_response(arena_shapes.BattleList(battles=[_show_listed(one) for one in found], total=total))

    async def show_operator(self, request: Request) -> Response:
        """What an operator decides by."""
        check_admin(request)
        games = await asyncio.to_thread(self._book.games)
        voters = await asyncio.to_thread(judge_voters, [game for game in games if game.counted])
        exclusions = await asyncio.to_thread(self._book.exclusions)
        out = {(one.kind, one.subject) for one in exclusions if one.lifted_at is None}
        flagged = await asyncio.to_thread(self._battles.flagged, limit=MOST_BATTLES)
        return json_response(
            arena_shapes.Operator(
                battles=await asyncio.to_thread(self._battles.states),
                voters=[
                    {
                        "id": short(one.voter),
                        "votes": one.num_votes,
                        "e_value": round(one.e_value, 4),
                        "is_outlier": one.is_outlier,
                        "is_excluded": ("voter", one.voter) in out,
                    }
                    for one in voters
                ],
                flagged=[
                    {
                        "id": one.id,
                        "created_at": shapes.show_time(one.created_at),
                        "state": one.state,
                        "flags": one.flags,
                        "model_a": one.model_a,
                        "model_b": one.model_b,
                        "is_excluded": ("battle", one.id) in out,
                    }
                    for one in flagged
                ],
                exclusions=[_show_exclusion(one) for one in exclusions],
                sampling=await self._sampling(),
            )
        )

    async def exclude(self, request: Request) -> Response:
        """Leave a voter, a battle or a contestant out of the ratings, or take that back."""
        check_admin(request)
        asked = await read_json(request, arena_shapes.NewExclusion)
        subject = await asyncio.to_thread(self._subject, asked.kind, asked.id)
        now = datetime.now(UTC)
        if asked.lifted:
            changed = await asyncio.to_thread(self._book.lift, asked.kind, subject, now=now, actor=actor_of(request))
        else:
            by, actor = visitor_of(request).name, actor_of(request)
            changed = await asyncio.to_thread(
                self._book.exclude, asked.kind, subject, asked.reason, by=by, now=now, actor=actor
            )
        self._kept.clear()  # the operator sees at once what it did
        return json_response(_show_exclusion(changed), 201)

    def _subject(self, kind: str, shown_id: str) -> str:
        """What an id on the operator's screen stands for. Raises NotFound."""
        if kind == "voter":
            found = next((voter for voter in self._battles.voters() if short(voter) == shown_id), None)
        elif kind == "battle":
            found = shown_id if self._battles.exists(shown_id) else None
        else:
            found = shown_id
        if found is None:
            raise NotFound(f"no {kind} {shown_id!r}")
        return found

    def _exclusions(self) -> list[arena_shapes.ExclusionShown]:
        return [_show_exclusion(one) for one in self._book.exclusions()]

    async def _sampling(self) -> list[arena_shapes.PairShown]:
        counts = await asyncio.to_thread(self._book.pair_counts, now=datetime.now(UTC))
        probabilities = await self._arena.probabilities(self._arena.ready())
        shown: list[arena_shapes.PairShown] = []
        for pair in sorted({*counts, *probabilities}):
            num_battles, num_votes = counts.get(pair, (0, 0))
            probability = probabilities.get(pair)
            shown.append(
                {
                    "model_a": pair[0],
                    "model_b": pair[1],
                    "probability": None if probability is None else round(probability, 6),
                    "battles": num_battles,
                    "votes": num_votes,
                }
            )
        return shown


def short(voter: str) -> str:
    """A voter's name on the screen: it can't be turned back into a key's id."""
    return hashlib.sha256(voter.encode()).hexdigest()[:12]


def _date(text: str, name: str) -> str | None:
    if not text:
        return None
    if not _DATE.fullmatch(text):
        raise InvalidRequest(f"{name} is not a date: {text[:40]!r}", fix="write it as 2026-01-31", param=name)
    return text


def _show_month(month: str, num_games: int, found: Board | str) -> arena_shapes.Month:
    board = None if isinstance(found, str) else found
    return {
        "month": month,
        "votes": num_games,
        "error": None if board is not None else str(found),
        "rows": show_rows(board),  # type: ignore[typeddict-item]
    }


def _show_exclusion(one: Exclusion) -> arena_shapes.ExclusionShown:
    return {
        "kind": one.kind,
        "id": short(one.subject) if one.kind == "voter" else one.subject,
        "reason": one.reason,
        "created_at": shapes.show_time(one.created_at),
        "lifted_at": None if one.lifted_at is None else shapes.show_time(one.lifted_at),
    }


def _show_listed(one: ListedBattle) -> arena_shapes.BattleListed:
    texts = one.texts
    return {
        "id": one.id,
        "created_at": shapes.show_time(one.created_at),
        "model_a": one.model_a,
        "model_b": one.model_b,
        "outcome": one.outcome or "",
        "category": one.category,
        "language": one.language,
        "turns": one.turn,
        "prompts": None if texts is None else texts["user"],
        "answers_a": None if texts is None else texts["a"],
        "answers_b": None if texts is None else texts["b"],
    }
