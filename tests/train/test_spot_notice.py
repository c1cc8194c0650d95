"""A cloud that takes the machine back is heard in time, through a metadata service played on loopback."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaku import spot_notice
from chaku.errors import RunInterrupted
from metadata_service import Metadata
from train import small

AZURE_NAME = ("GET", "/metadata/instance/compute/name?api-version=2021-02-01&format=text", "metadata: true")
AZURE_EVENTS = ("GET", "/metadata/scheduledevents?api-version=2020-07-01", "metadata: true")
AWS_TOKEN = ("PUT", "/latest/api/token", "x-aws-ec2-metadata-token-ttl-seconds: 60")
AWS_ACTION = ("GET", "/latest/meta-data/spot/instance-action", "x-aws-ec2-metadata-token: secret")
GOOGLE = ("GET", "/computeMetadata/v1/instance/preempted", "metadata-flavor: Google")


def azure_events(kind: str, vm: str) -> str:
    event = {"EventId": "1", "EventType": kind, "Resources": [vm], "NotBefore": "Mon, 19 Sep 2026 18:29:47 GMT"}
    return json.dumps({"DocumentIncarnation": 1, "Events": [event]})


CALM = {
    "AWS": {AWS_TOKEN: "secret"},
    "Google Cloud": {GOOGLE: "FALSE"},
    "Azure": {AZURE_NAME: "vm-1", AZURE_EVENTS: json.dumps({"DocumentIncarnation": 1, "Events": []})},
}
TAKEN = {
    "AWS": {**CALM["AWS"], AWS_ACTION: json.dumps({"action": "terminate", "time": "2026-09-18T08:22:00Z"})},
    "Google Cloud": {GOOGLE: "TRUE"},
    "Azure": {**CALM["Azure"], AZURE_EVENTS: azure_events("Preempt", "vm-1")},
}
SAID = {
    "AWS": "AWS: terminate at 2026-09-18T08:22:00Z",
    "Google Cloud": "Google Cloud: preempted",
    "Azure": "Azure: preempted from Mon, 19 Sep 2026 18:29:47 GMT",
}


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    monkeypatch.setattr(spot_notice, "POLL_EVERY_S", 0.02)
    for variable in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    with Metadata.running() as server:
        monkeypatch.setattr(spot_notice, "ADDRESS", server.url)
        yield server


@pytest.mark.parametrize("cloud", spot_notice.SERVICES)
def test_the_notice_of_each_cloud_is_heard_and_named(metadata: Metadata, cloud: str) -> None:
    metadata.pages = CALM[cloud]
    assert spot_notice.look(spot_notice.SERVICES) == (None, [cloud])
    metadata.pages = TAKEN[cloud]
    assert spot_notice.look(spot_notice.SERVICES) == (SAID[cloud], [cloud])


@pytest.mark.parametrize(
    "events", [azure_events("Freeze", "vm-1"), azure_events("Preempt", "vm-2"), "no json", '{"Events": [1]}']
)
def test_what_is_no_notice_for_this_machine_stops_nothing(metadata: Metadata, events: str) -> None:
    metadata.pages = {**CALM["Azure"], AZURE_EVENTS: events}
    assert spot_notice.look(spot_notice.SERVICES)[0] is None


def test_where_no_service_answers_the_watch_ends_and_says_so(
    metadata: Metadata, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), spot_notice.watched(True) as watch:
        for thread in threading.enumerate():
            if thread.name == "spot-notice":
                thread.join(10)
                assert not thread.is_alive()
    assert not watch.has_notice
    assert "spot notices are not watched" in caplog.text


def test_a_run_that_hears_a_notice_saves_and_exits_with_75(
    metadata: Metadata, base: Path, small_set: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metadata.pages = CALM["AWS"]
    changes = {"epochs": 100, "max_steps": 100, "save_every": 1000, "evaluate_every": 0, "batch_rows": 2}
    made = small.recipe("run", base, tmp_path, **changes, spot_notice=True)

    def then(record: object) -> None:
        if getattr(record, "step", 0) == 3:
            metadata.pages = TAKEN["AWS"]

    with pytest.raises(RunInterrupted) as caught:
        small.trained(made, small_set, heard=small.Heard(then))
    assert caught.value.exit_code == 75
    last = small.numbers(tmp_path / "run")[-1][0]
    assert last >= 3
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [f"step-{last}"]
    assert "spot notice from AWS: terminate at 2026-09-18T08:22:00Z" in caplog.text

    calm = small.recipe("run", base, tmp_path, **changes)  # the key is free on resume
    heard = small.Heard()
    small.trained(calm, small_set, resume=True, heard=heard)
    assert heard.lines[0] == f"resuming after step {last} of 100"
