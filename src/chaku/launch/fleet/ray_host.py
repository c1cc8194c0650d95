"""The process that speaks to Ray, as a child of the keeper: each worker is an actor, which Ray places and restarts.

Ray prints much and starts threads, so it gets a process of its own. Commands come as JSON lines on standard input; what
becomes of the workers goes out as JSON lines. Its end is the end of the actors, whom Ray kills with their owner.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import orjson

from chaku.config import JOIN_TOKEN_VARIABLE
from chaku.engines.process import Lifeline, die_with_parent, read_config
from chaku.launch.fleet.processes import LASTING, tail
from chaku.launch.fleet.spec import as_yaml

LOOK_EVERY_S = 0.5
_FIRST_PAUSE_S = 1.0
"""Before an actor whose worker ended makes room for the next one."""


class WorkerActor:
    """One `chaku worker` on a node of Ray. Ray makes it anew, there or elsewhere, when its process or node is lost."""

    def __init__(self, name: str, settings: dict[str, Any], token: str | None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="chaku-worker-")
        folder = Path(self._folder.name)
        file, self._log = folder / "worker.yaml", folder / "worker.log"
        file.write_text(as_yaml(settings))
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "chaku", "worker", "--config", str(file), "--exit-with-parent"],
                env={**os.environ, **({JOIN_TOKEN_VARIABLE: token} if token else {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._is_ending = False
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def look(self) -> dict[str, Any]:
        """The worker's process, and how it ended; None while it runs."""
        code = self._process.poll()
        is_over = code is not None and (self._is_ending or code in LASTING)
        return {
            "pid": self._process.pid,
            "code": code if is_over else None,
            "lines": tail(self._log) if is_over else [],
        }

    def end(self) -> None:
        """SIGTERM: it drains, and is not started again."""
        self._is_ending = True
        self._process.send_signal(signal.SIGTERM)

    def _watch(self) -> None:
        """End this actor with its worker, so that Ray makes another; not where that would end the same way."""
        code = self._process.wait()
        if not self._is_ending and code not in LASTING:
            print(f"the worker ended with code {code}", *tail(self._log), sep="\n", file=sys.stderr, flush=True)  # noqa: T201
            time.sleep(_FIRST_PAUSE_S)
            os._exit(1)


class RayHost:
    """The actors by the names of their workers."""

    def __init__(self, ray: Any, token: str | None) -> None:
        self._ray = ray
        self._token = token
        self._actors: dict[str, Any] = {}
        self._told: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def start(self, name: str, settings: dict[str, Any], resources: dict[str, Any]) -> None:
        """Make an actor; it waits where no node has what it needs."""
        kind = self._ray.remote(max_restarts=-1, max_concurrency=4, **resources)(WorkerActor)
        with self._lock:
            self._actors[name] = kind.remote(name, settings, self._token)
            self._told.pop(name, None)

    def end(self, name: str) -> None:
        """Have a worker drain and end."""
        if name in self._actors:
            self._actors[name].end.remote()

    def kill(self, name: str) -> None:
        """End an actor at once, and its worker with it."""
        with self._lock:
            actor = self._actors.pop(name, None)
        if actor is not None:
            self._ray.kill(actor, no_restart=True)
            Lifeline.say({"name": name, "code": -signal.SIGKILL, "lines": []})

    def keep_looking(self) -> None:
        """Say what changed about the workers, for ever."""
        pending: dict[str, Any] = {}
        while True:
            with self._lock:
                actors = dict(self._actors)
            for name, actor in actors.items():
                pending.setdefault(name, actor.look.remote())
            looks = list(pending.values())
            ready = self._ray.wait(looks, num_returns=len(looks), timeout=LOOK_EVERY_S)[0] if looks else []
            for name, look in list(pending.items()):
                if look in ready:
                    del pending[name]
                    if name in actors:
                        self._take(name, actors[name], look)
            time.sleep(LOOK_EVERY_S)

    def _take(self, name: str, actor: Any, look: Any) -> None:
        try:
            seen = {"name": name, **self._ray.get(look)}
        except self._ray.exceptions.RayActorError as error:  # it is being made anew, or will be once a node has room
            seen = {"name": name, "pid": None, "code": None, "lines": [], "detail": type(error).__name__}
        if seen["code"] is not None:
            with self._lock:
                if self._actors.get(name) is actor:
                    del self._actors[name]
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor, no_restart=True)
        if self._told.get(name) != seen:
            self._told[name] = seen
            Lifeline.say(seen)


def main() -> int:
    """Connect to Ray, and do what the keeper says until it is gone."""
    config, parent_pid = read_config()
    die_with_parent(parent_pid)
    import ray

    ray.init(
        address=config["address"],
        namespace=f"chaku-{config['name']}",
        include_dashboard=False if config["address"] is None else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    host = RayHost(ray, config["token"])
    Lifeline.say({"is_connected": True, "address": ray.util.get_node_ip_address()})
    threading.Thread(target=host.keep_looking, name="look", daemon=True).start()
    for line in sys.stdin.buffer:
        message = orjson.loads(line)
        getattr(host, message.pop("do"))(**message)
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
