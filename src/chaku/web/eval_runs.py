"""Evaluation runs of this machine, shown to its local user, who may disagree with the judge."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from chaku.comparison import Comparison
from chaku.errors import InvalidRequest, NotFound, UsageError
from chaku.evals.records import Run
from chaku.store.battles import Battles
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import Store
from chaku.web.requests import Handler, check_admin, json_response, read_json, visitor_of

REASON = "a disagreement with a judge: the names were shown"


class Disagreement(BaseModel):
    """POST /api/evals/RUN/disagree: 201. `key` is the judgement's; a is the answer that its judge saw first."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: str
    outcome: Literal["a", "b", "tie"]


class EvalRuns:
    """The routes below /evals."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self._store = store

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path below /api, handler."""
        return [
            ("GET", "/evals", self.list_runs),
            ("GET", "/evals/{run}", self.show_run),
            ("POST", "/evals/{run}/disagree", self.disagree),
        ]

    async def list_runs(self, request: Request) -> Response:
        """Every run, the newest first; one that can't be read is listed with the reason."""
        check_admin(request)
        rows = await asyncio.to_thread(self._rows)
        return json_response({"runs": sorted(rows, key=lambda row: str(row.get("created")), reverse=True)})

    async def show_run(self, request: Request) -> Response:
        """One run as far as it is; `against` names another one, to mark what its judge decided otherwise."""
        check_admin(request)
        name, other = request.path_params["run"], request.query_params.get("against")
        return json_response(await asyncio.to_thread(self._show, name, other))

    async def disagree(self, request: Request) -> Response:
        """Keep what the reader thinks of a judged pair. It is never rated, since the names were shown."""
        check_admin(request)
        asked = await read_json(request, Disagreement)
        game = await asyncio.to_thread(self._game, request, asked)
        return json_response({"kept": await asyncio.to_thread(ComparisonBook(self._store).add, [game])}, 201)

    def _folders(self) -> list[Path]:
        return sorted(path.parent for path in self._folder.glob("*/run.json"))

    def _rows(self) -> list[dict[str, Any]]:
        from chaku.evals.summary import row_of  # numpy comes with the first look at an evaluation

        rows: list[dict[str, Any]] = []
        for folder in self._folders():
            try:
                rows.append({**row_of(Run.load(folder)), "error": None})
            except UsageError as error:
                rows.append({"name": folder.name, "created": "", "error": error.message})
        return rows

    def _run(self, name: str) -> Run:
        folders = {folder.name: folder for folder in self._folders()}
        if name not in folders:
            raise NotFound(f"no evaluation run {name[:60]!r}")
        return Run.load(folders[name])

    def _show(self, name: str, other: str | None) -> dict[str, Any]:
        from chaku.evals.summary import summary

        return summary(self._run(name), self._run(other) if other else None)

    def _game(self, request: Request, asked: Disagreement) -> Comparison:
        run = self._run(request.path_params["run"])
        judgement = next((one for one in run.judgements if one.key == asked.key), None)
        if judgement is None:
            raise NotFound("the run has no such judgement")
        if len(judgement.models) != 2:
            raise InvalidRequest("you can disagree about two answers, not about one alone")
        question = run.questions.get(judgement.question_id)
        voter = Battles(self._store, visitor_of(request).key_id).visitor
        return Comparison(
            source="human",
            model_a=judgement.models[0],
            model_b=judgement.models[1],
            outcome=asked.outcome,
            prompt_id=judgement.question_id,
            cluster=voter,
            category=question.category if question else None,
            turn=judgement.turn,
            voter=voter,
            counted=False,
            reason=REASON,
            consent=True,
            created=datetime.now(UTC).isoformat(),
        )
