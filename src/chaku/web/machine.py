"""Training runs and pulled models of this machine, shown to the local user and to admins."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import orjson
import yaml
from starlette.requests import Request
from starlette.responses import Response

from chaku.errors import NotFound
from chaku.runs import read_log, run_folders, steps_of
from chaku.web.requests import Handler, check_admin, json_response

MAX_POINTS = 2000
"""Steps of one run that are sent for a plot; of a longer run, every n-th."""


class Machine:
    """The routes below /runs, and /models/kept."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path below /api, handler."""
        return [
            ("GET", "/runs", self.list_runs),
            ("GET", "/runs/{run}", self.show_run),
            ("GET", "/models/kept", self.list_models),
        ]

    async def list_runs(self, request: Request) -> Response:
        """Every run, the newest first."""
        check_admin(request)
        rows = await asyncio.to_thread(lambda: [_row(folder) for folder in run_folders(self._runs)])
        return json_response({"runs": sorted(rows, key=lambda row: str(row["started"]), reverse=True)})

    async def show_run(self, request: Request) -> Response:
        """One run: what it was made of, its steps and its events; `after` leaves out steps that are known."""
        check_admin(request)
        name, after = request.path_params["run"], request.query_params.get("after", "")
        folders = {folder.name: folder for folder in await asyncio.to_thread(run_folders, self._runs)}
        if name not in folders:
            raise NotFound(f"no run {name[:60]!r}")
        return json_response(await asyncio.to_thread(_show, folders[name], int(after) if after.isdecimal() else 0))

    async def list_models(self, request: Request) -> Response:
        """The built-in models, pulled or not, and what else was pulled or converted."""
        check_admin(request)
        return json_response({"models": await asyncio.to_thread(_models)})


def _row(folder: Path) -> dict[str, Any]:
    manifest, steps = orjson.loads((folder / "manifest.json").read_bytes()), steps_of(folder)
    heldout = [one["heldout_loss"] for one in steps if "heldout_loss" in one]
    last = steps[-1] if steps else {}
    return {
        "name": folder.name,
        "base": manifest["base"]["name"],
        "continued_from": (manifest.get("continued_from") or {}).get("name"),
        "started": manifest["started"],
        "finished": manifest["finished"],
        "steps": last.get("step", 0),
        "loss": _number(last.get("loss")),
        "heldout_loss": _number(heldout[-1]) if heldout else None,
        "tokens_per_s": _number(last.get("tokens_per_s")),
        "dollars": _number(last.get("dollars")),
    }


def _show(folder: Path, after: int) -> dict[str, Any]:
    lines = list(read_log(folder / "log.jsonl"))
    steps = [one for one in lines if "loss" in one and one["step"] > after]
    stride = max(1, math.ceil(len(steps) / MAX_POINTS))
    kept = [one for i, one in enumerate(steps) if i % stride == 0 or "heldout_loss" in one or i == len(steps) - 1]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    return {
        **_row(folder),
        "config": {name: value for name, value in config.items() if isinstance(name, str)},
        "planned_steps": config.get("steps"),
        "seconds": sum(one["seconds"] for one in lines if "seconds" in one),
        "points": [{name: _number(value) for name, value in one.items()} for one in kept],
        "events": [one for one in lines if "event" in one][-200:],
    }


def _number(value: Any) -> Any:
    """A value as JSON has it: a loss that is not a number any more is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _models() -> list[dict[str, Any]]:
    from chaku.models.fetch import cache
    from chaku.models.fetch.converted import conversions
    from chaku.models.reference import BuiltIn
    from chaku.models.registry import BUILT_IN

    rows = [
        {
            "name": row.name,
            "parameters": row.num_parameters,
            "bytes": row.num_bytes,
            "context_tokens": row.context_tokens,
            "state": "pulled" if cache.find(BuiltIn(row)) else None,
        }
        for row in BUILT_IN.values()
    ]
    others = [(model.source, model.num_bytes, "pulled") for model in cache.pulled() if model.source not in BUILT_IN]
    others += [(made.name, made.num_bytes, "converted") for made in conversions()]
    for name, num_bytes, state in others:
        rows.append({"name": name, "parameters": None, "bytes": num_bytes, "context_tokens": None, "state": state})
    return rows
