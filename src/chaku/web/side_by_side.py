"""Votes of the Compare screen. The names were shown or could be guessed, so that they are kept and never rated."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from chaku.arena.battle_files import style_of
from chaku.comparison import Comparison, Outcome
from chaku.errors import InvalidRequest
from chaku.store.battles import Battles
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import Store
from chaku.store.folding import plain_text
from chaku.store.message_record import StoredMessage
from chaku.web.requests import ChatRoutes, Handler, id_in, json_response, read_json, visitor_of

REASON = "side by side: the names were shown"
REASON_BLIND = "side by side: names hidden, models chosen by the voter"


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ShownAnswer(_Asked):
    """An answer of one column."""

    chat: str
    message: str


class SideBySideVote(_Asked):
    """POST /api/compare/votes: 201 with the number of games kept. `best` is the place of the best answer, from 0.

    It replaces what the same visitor said of the same answers before; `none` takes that back.
    """

    answers: Annotated[list[ShownAnswer], Field(min_length=2, max_length=4)]
    choice: Literal["best", "tie", "all_bad", "none"]
    best: Annotated[int, Field(ge=0, le=3)] | None = None
    is_blind: bool

    @model_validator(mode="after")
    def _names_the_best(self) -> SideBySideVote:
        if (self.best is not None) != (self.choice == "best") or (self.best or 0) >= len(self.answers):
            raise ValueError("`best` goes with the choice best, and is the place of an answer")
        return self


class SideBySide(ChatRoutes):
    """The route that keeps a vote over columns."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._book = ComparisonBook(store)

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path below /api, handler."""
        return [("POST", "/compare/votes", self.vote)]

    async def vote(self, request: Request) -> Response:
        """Keep one game for each pair of different models that the choice decides."""
        asked = await read_json(request, SideBySideVote)
        kept = await asyncio.to_thread(self._keep, request, asked)
        return json_response({"kept": kept}, 201)

    def _keep(self, request: Request, asked: SideBySideVote) -> int:
        games = self._games(request, asked)
        if not games:
            raise InvalidRequest("all columns hold the same model", fix="compare different models")
        return self._book.put_side_by_side(games, is_withdrawn=asked.choice == "none")

    def _games(self, request: Request, asked: SideBySideVote) -> list[Comparison]:
        """The games that the choice decides. Votes about the same answers are of the same moment: of the newest one."""
        mine = self._mine(request)
        found: list[tuple[StoredMessage, list[str]]] = []
        for answer in asked.answers:
            tree = mine.tree(mine.get(id_in(answer.chat)).id)
            path = tree.path(id_in(answer.message, "message"))
            found.append((path[-1], [plain_text(message.content) for message in path if message.role == "user"]))
        if any(message.role != "assistant" or message.model is None for message, _ in found):
            raise InvalidRequest("a vote is about answers of models")
        voter = Battles(self._store, visitor_of(request).key_id).visitor
        moment = max(message.created_at for message, _ in found).isoformat()
        games = []
        for first, second in itertools.combinations(range(len(found)), 2):
            (a, prompts), (b, _) = found[first], found[second]
            outcome = _outcome(asked, first, second)
            if outcome is None or a.model == b.model or a.model is None or b.model is None:
                continue
            games.append(
                Comparison(
                    source="human",
                    model_a=a.model,
                    model_b=b.model,
                    outcome=outcome,
                    prompt_id=hashlib.sha256("\n".join(prompts).encode(errors="replace")).hexdigest()[:16],
                    cluster=voter,
                    turn=max(1, len(prompts)),
                    voter=voter,
                    style_a=style_of(plain_text(a.content)),
                    style_b=style_of(plain_text(b.content)),
                    counted=False,
                    reason=REASON_BLIND if asked.is_blind else REASON,
                    consent=True,
                    created=moment,
                )
            )
        return games


def _outcome(asked: SideBySideVote, first: int, second: int) -> Outcome | None:
    """What the choice says of two columns; None where it says nothing."""
    if asked.choice == "best":
        return "a" if asked.best == first else "b" if asked.best == second else None
    return "both_bad" if asked.choice == "all_bad" else "tie"
