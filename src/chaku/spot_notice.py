"""Whether the cloud is about to take this machine back: what its metadata service says, asked every few seconds.

AWS: EC2 user guide, "Spot Instance interruption notices" (IMDSv2). Google Cloud: Compute Engine, "Detect if a VM was
preempted". Azure: "Scheduled Events for Linux VMs", event type Preempt. All three answer at one link-local address.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson

_log = logging.getLogger(__name__)

ADDRESS = "http://169.254.169.254"
POLL_EVERY_S = 5.0
_TIMEOUT_S = 2.0
_ROUNDS_WITHOUT_ANSWER = 30  # Azure takes up to two minutes to switch scheduled events on
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy would answer for another machine
_SILENT = (OSError, http.client.HTTPException)


def _ask(path: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """The body; None where the service has no such page (404). Raises OSError or HTTPException where none answers."""
    request = urllib.request.Request(ADDRESS + path, headers=headers, method=method)  # noqa: S310 (the constant above)
    try:
        with _DIRECT.open(request, timeout=_TIMEOUT_S) as answer:
            body: bytes = answer.read()
            return body.decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.NOT_FOUND:
                return None
            raise


def _aws() -> str | None:
    token = _ask("/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT")
    if token is None:
        raise OSError("it hands out no token")
    action = _ask("/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    if action is None:
        return None
    notice = orjson.loads(action)
    return f"{notice['action']} at {notice['time']}"


def _google() -> str | None:
    answer = _ask("/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    if answer is None:
        raise OSError("it has no instance")
    return "preempted" if answer.strip() == "TRUE" else None


def _azure() -> str | None:
    name = _ask("/metadata/instance/compute/name?api-version=2021-02-01&format=text", {"Metadata": "true"})
    answer = _ask("/metadata/scheduledevents?api-version=2020-07-01", {"Metadata": "true"})
    if name is None or answer is None:
        raise OSError("it has no scheduled events")
    for event in orjson.loads(answer)["Events"]:
        if (
            event["EventType"] == "Preempt" and name.strip() in event["Resources"]
        ):  # a scale set hears of its others too
            return f"preempted from {event['NotBefore'] or 'now on'}"
    return None


SERVICES: dict[str, Callable[[], str | None]] = {"AWS": _aws, "Google Cloud": _google, "Azure": _azure}
"""What each one says: the notice, None as long as there is none; OSError where none answers, or another cloud's."""


@dataclass
class Watch:
    """What was heard so far. `notice` names the cloud and what it said."""

    notice: str | None = None

    @property
    def has_notice(self) -> bool:
        """The machine will be taken."""
        return self.notice is not None


def look(services: dict[str, Callable[[], str | None]]) -> tuple[str | None, list[str]]:
    """One round: the first notice, and the services that answered. What can't be understood counts as no answer."""
    answered = []
    for name, service in services.items():
        try:
            notice = service()
        except _SILENT:
            continue
        except (ValueError, KeyError, TypeError) as error:
            _log.debug("the metadata service of %s was not understood: %r", name, error)
            continue
        answered.append(name)
        if notice is not None:
            return f"{name}: {notice}", answered
    return None, answered


@contextlib.contextmanager
def watched(wanted: bool, on_notice: Callable[[str], None] = lambda notice: None) -> Iterator[Watch]:
    """A thread that looks for a notice while the block runs; it ends by itself where no service answers.

    `on_notice` is called once, from the thread.
    """
    watch, ended = Watch(), threading.Event()

    def look_on() -> None:
        services, silent_rounds = SERVICES, 0
        while not ended.is_set():
            watch.notice, answered = look(services)
            if watch.notice is not None:
                _log.warning("spot notice from %s: this process is about to stop", watch.notice)
                on_notice(watch.notice)
                return
            if answered and services is SERVICES:
                services = {name: SERVICES[name] for name in answered}  # the others' are not asked again
            silent_rounds = 0 if answered else silent_rounds + 1
            if silent_rounds >= _ROUNDS_WITHOUT_ANSWER and services is SERVICES:
                _log.warning("no cloud's metadata service answers here: spot notices are not watched")
                return
            ended.wait(POLL_EVERY_S)

    thread = threading.Thread(target=look_on, name="spot-notice", daemon=True)
    if wanted:
        thread.start()
    try:
        yield watch
    finally:
        ended.set()
        if wanted:
            thread.join(len(SERVICES) * 2 * _TIMEOUT_S)
