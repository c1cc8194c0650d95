"""fleet.yaml as it is read, planned and scaled: nothing is started."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from chaku.cli.main import root
from chaku.errors import ConfigError
from chaku.launch.fleet.plan import plan_lines
from chaku.launch.fleet.scaling import IDLE_S, LONGEST_PAUSE_S, Demand, Restarts, Scaler
from chaku.launch.fleet.spec import FleetConfig, read_fleet, worker_names
from chaku.protocol.fleet import WORKER_NAME

MODEL = {"source": "m=scripted:", "replicas": 2}


def written(folder: Path, **settings: Any) -> Path:
    file = folder / "fleet.yaml"
    file.write_text(yaml.safe_dump({"workers": [MODEL], **settings}))
    return file


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"worker": []}, "unknown key 'worker': did you mean workers"),
        ({"workers": [{**MODEL, "replica": 3}]}, "did you mean replicas"),
        ({"gateway": {"prt": 1}}, "did you mean port"),
        ({"kubernetes": {"images": "x"}}, "did you mean image"),
        ({"sky": {"gateway": "gateway:8000"}}, "write scheme, host and port"),
        ({"name": "My Fleet"}, "lower-case letters"),
        ({"workers": []}, "workers is []"),
        ({"workers": [{**MODEL, "replicas": -1}]}, "workers.0.replicas is -1"),
        ({"workers": [{**MODEL, "max_replicas": 1}]}, "max_replicas is 1, below replicas, which is 2"),
        ({"workers": [{**MODEL, "gpu": "L4"}]}, "set gpus to the number"),
        ({"workers": [{"source": "http://127.0.0.1:9/v1"}]}, "needs a name"),
        ({"workers": [MODEL, MODEL]}, "two entries of workers serve 'm'"),
        ({"gateway": {"joins": False}}, "no worker may join"),
    ],
)
def test_a_mistake_is_named_with_the_way_out(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_fleet(written(tmp_path, **settings))
    assert words in str(caught.value)


def test_the_schema_takes_what_is_read_and_refuses_an_unknown_key() -> None:
    shown = CliRunner().invoke(root, ["up", "--schema"])
    schema = json.loads(shown.output)
    jsonschema_rs.meta.validate(schema)
    validator = jsonschema_rs.validator_for(schema)
    validator.validate({"workers": [MODEL], "gateway": {"port": 8000}})
    with pytest.raises(jsonschema_rs.ValidationError, match="replica"):
        validator.validate({"workers": [{"source": "m", "replica": 2}]})


def test_the_plan_has_what_it_costs_per_hour_and_the_keys_that_mean_nothing_there(tmp_path: Path) -> None:
    pools = [
        {**MODEL, "max_replicas": 5, "price_per_hour": 0.25},
        {"source": "big=scripted:", "gpus": 2, "gpu": "L40S"},
        {"source": "free=scripted:"},
    ]
    file = written(tmp_path, workers=pools)
    shown = CliRunner().invoke(root, ["up", str(file), "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert "m      2 to 5   -         $0.25           $0.50" in shown.output
    assert "big    1        2 x L40S  $2.80 to $3.96  $2.80 to $3.96" in shown.output
    assert "cost: $3.30 to $4.46 an hour, at most $5.21, and 1 of 3 pools without a known price" in shown.output
    assert "note: gpus, gpu of big means nothing with --on local" in shown.output
    spot = "\n".join(plan_lines(read_fleet(file), "sky"))
    assert "2 x L40S  $0.80 to $1.58" in spot and "note: max_replicas of m means nothing with --on sky" in spot


@given(st.lists(st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=60), min_size=1,
                max_size=5, unique=True))  # fmt: skip
def test_workers_of_a_fleet_have_names_of_their_own_that_every_place_allows(models: list[str]) -> None:
    pools = [{"source": "scripted:", "name": model, "replicas": 2} for model in models]
    fleet = FleetConfig.model_validate({"name": "a" * 40, "workers": pools})
    names = [name for pool in fleet.workers for name in worker_names(fleet, pool, 2)]
    assert len(set(names)) == len(names)
    for name in names:
        assert len(name) <= 63 and name == name.lower()
        assert re.fullmatch(WORKER_NAME, name)


DEMANDS = st.builds(Demand, st.integers(0, 40), st.integers(0, 40), st.integers(1, 16))


@given(st.integers(0, 3), st.integers(0, 5), st.lists(st.tuples(DEMANDS, st.integers(0, 9), st.floats(0, 90))))
def test_the_number_of_workers_stays_within_its_bounds_and_moves_for_a_reason(
    fewest: int, more: int, looks: list[tuple[Demand, int, float]]
) -> None:
    most, now, idle_since = max(1, fewest + more), 0.0, 0.0
    scaler = Scaler(fewest, most, fewest)
    for demand, num_ready, pause_s in looks:
        now += pause_s
        before = scaler.number
        number = scaler.look(demand, num_ready, now)
        assert fewest <= number <= most
        if number > before:
            assert demand.waiting and num_ready >= before
        if number < before:
            assert number == before - 1 and not demand.waiting and now - idle_since >= IDLE_S
        if demand.waiting or number != before:
            idle_since = now


def test_a_queue_adds_the_workers_that_it_would_fill_and_a_minute_of_quiet_takes_one_away() -> None:
    scaler = Scaler(1, 6, 1)
    assert scaler.look(Demand(4, 8, 4), 1, now=0) == 3
    assert scaler.look(Demand(4, 8, 4), 1, now=1) == 3, "those that load are not counted twice"
    assert scaler.look(Demand(12, 40, 12), 3, now=2) == 6
    assert scaler.look(Demand(0, 0, 24), 6, now=3) == 6
    assert scaler.look(Demand(0, 0, 24), 6, now=62) == 6
    assert scaler.look(Demand(0, 0, 24), 6, now=63) == 5
    assert scaler.look(Demand(0, 0, 20), 5, now=64) == 5


def test_a_pool_of_no_workers_gets_one_when_somebody_asks() -> None:
    assert Scaler(0, 2, 0).look(Demand(0, 1, None), 0, now=0) == 1


@given(st.lists(st.floats(0, 100)))
def test_pauses_grow_to_a_bound_and_begin_anew_after_a_long_life(lives: list[float]) -> None:
    restarts, before = Restarts(), 0.5
    for lived_s in lives:
        pause_s = restarts.pause_s(lived_s)
        assert pause_s == (1.0 if lived_s > 60 else min(2 * before, LONGEST_PAUSE_S))
        before = pause_s
    assert restarts.number == len(lives)
