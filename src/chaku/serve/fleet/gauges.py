"""The table of workers for Prometheus, read at scrape time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from chaku.serve.fleet.registry import Fleet
from chaku.serve.fleet.worker import WorkerRow

STATES = ("joining", "ready", "draining", "suspect", "gone")
_GAUGES: tuple[tuple[str, str, Callable[[WorkerRow], float | None]], ...] = (
    ("chaku_worker_slots", "Requests that the worker runs at once", lambda row: row["slots"]),
    ("chaku_worker_slots_in_use", "Slots taken, by every gateway", lambda row: row["running"]),
    ("chaku_worker_queue_length", "Requests waiting at the worker", lambda row: row["waiting"]),
    ("chaku_worker_tokens_per_second", "Tokens generated, of the last seconds", lambda row: row["tokens_per_s"]),
    ("chaku_worker_memory_bytes", "Resident memory of the worker and its engine", lambda row: row["memory_bytes"]),
    ("chaku_worker_uptime_seconds", "Time since the worker started", lambda row: row["uptime_s"]),
    ("chaku_worker_last_beat_seconds", "Time since its last beat", lambda row: row["last_beat_s"]),
)


class WorkerGauges(Collector):
    """Collects the workers of a gateway."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        """Read the table now."""
        rows = self._fleet.rows()
        state = GaugeMetricFamily(
            "chaku_worker_state", "1 for the state that the worker is in", labels=["worker", "state"]
        )
        about = InfoMetricFamily("chaku_worker", "Where the worker runs, and what", labels=["worker"])
        for row in rows:
            for name in STATES:
                state.add_metric([row["name"], name], row["state"] == name)
            facts = {"model": row["models"][0], **{key: row[key] for key in ("host", "device", "version")}}
            about.add_metric([row["name"]], facts)
        yield from (state, about)
        for metric, text, read in _GAUGES:
            family = GaugeMetricFamily(metric, text, labels=["worker"])
            for row in rows:
                if row["state"] != "gone" and (value := read(row)) is not None:
                    family.add_metric([row["name"]], value)
            yield family
