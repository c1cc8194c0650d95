"""What the page is told of this machine: runs and models, for its own user and for admins."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from chaku.store import keys
from chaku.store.database import open_store
from gateways import page_gateway
from tabs import Refused, tab
from web.test_page_screens import add_steps, write_run


async def test_runs_are_listed_and_shown_and_what_is_known_is_left_out(database: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_run(runs, "done", 60)
    write_run(runs, "going", 10, finished=False)
    (runs / "no run").mkdir()
    async with page_gateway(database, runs=runs) as g, tab(g) as me:
        assert (await me.call("GET", "/session"))["sees_runs"] is True
        rows = {row["name"]: row for row in (await me.call("GET", "/runs"))["runs"]}
        assert {name: (row["steps"], row["finished"] is None) for name, row in rows.items()} == {
            "done": (60, False),
            "going": (10, True),
        }
        run = await me.call("GET", "/runs/going")
        assert [point["step"] for point in run["points"]] == list(range(1, 11))
        assert (run["planned_steps"], run["config"]["train.lr"]) == (400, 0.001)
        add_steps(runs / "going", 11, 12)
        with (runs / "going" / "log.jsonl").open("a") as log:
            log.write('{"step": 13, "lo')  # being written
        after = await me.call("GET", "/runs/going?after=10")
        assert [point["step"] for point in after["points"]] == [11, 12]
        for name in ("none", "..", "%2e%2e%2fetc"):
            with pytest.raises(Refused) as caught:
                await me.call("GET", f"/runs/{name}")
            assert caught.value.status == 404


async def test_a_loss_that_is_no_number_is_null_and_a_long_run_is_thinned(database: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path, "long", 5000, finished=False)
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"step": 5001, "loss": null, "seconds": 1}\n')
    async with page_gateway(database, runs=tmp_path) as g, tab(g) as me:
        points = (await me.call("GET", "/runs/long"))["points"]
        assert len(points) <= 2200
        assert (points[-1]["step"], points[-1]["loss"]) == (5001, None)
        assert {point["step"] for point in points if "heldout_loss" in point} == set(range(50, 5001, 50))


async def test_models_of_the_machine_are_named_with_what_to_do(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        rows = {row["name"]: row for row in (await me.call("GET", "/models/kept"))["models"]}
        assert rows["smollm2-135m"]["context_tokens"] == 8192
        assert {row["state"] for row in rows.values()} <= {None, "pulled", "converted"}


@pytest.mark.parametrize(("scopes", "is_shown"), [({"infer", "page"}, False), ({"admin"}, True)])
async def test_of_those_who_came_by_a_key_admins_alone_see_the_machine(
    database: Path, tmp_path: Path, scopes: set[str], is_shown: bool
) -> None:
    write_run(tmp_path, "secret", 5)
    with open_store(f"sqlite:///{database}") as store:
        bob = keys.create(store, "bob", now=datetime.now(UTC), scopes=scopes)
    async with page_gateway(database, runs=tmp_path) as g, tab(g) as me:
        await me.call("POST", "/login", {"key": bob.token})
        assert (await me.call("GET", "/session"))["sees_runs"] is is_shown
        for path in ("/runs", "/runs/secret", "/models/kept", "/evals"):
            assert (await me.raw("GET", f"/api{path}"))[0] == (200 if is_shown else 403)
