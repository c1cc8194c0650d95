"""What a fleet leaves on disk: its settings, how many workers are wanted, and what runs. One folder per fleet.

A lock that the keeper holds says whether it lives: a process id alone may belong to another process by now.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from chaku.config import data_dir
from chaku.errors import UsageError
from chaku.launch.fleet.spec import FleetConfig, Place, as_yaml, read_fleet
from chaku.nearest import did_you_mean
from chaku.records import atomic_write


@dataclass(frozen=True)
class Record:
    """The folder of one fleet. Whoever starts it writes; `down` and `fleet scale` read, and write what is wanted."""

    folder: Path

    @property
    def name(self) -> str:
        """Of the fleet."""
        return self.folder.name

    @property
    def logs(self) -> Path:
        """Folder of the log files, one for each process."""
        return self.folder / "logs"

    def begin(self, fleet: FleetConfig, place: Place) -> None:
        """Keep the settings, and forget what an earlier fleet of that name wanted."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        settings = fleet.model_dump(mode="json", exclude_unset=True)
        self._write("fleet.yaml", as_yaml({**settings, "name": fleet.name}).encode())
        self._write("wanted.json", b"{}")
        self.tell({"place": place, "workers": {}})

    def fleet(self) -> FleetConfig:
        """The settings with which it was started."""
        return read_fleet(self.folder / "fleet.yaml")

    def tell(self, state: dict[str, Any]) -> None:
        """Write what runs."""
        self._write("state.json", orjson.dumps(state, option=orjson.OPT_INDENT_2))

    def state(self) -> dict[str, Any]:
        """What was told last; empty before the first time."""
        return self._read("state.json")

    def want(self, model: str, number: int) -> None:
        """Write how many workers of a model are wanted from now on."""
        self._write("wanted.json", orjson.dumps({**self.wanted(), model: number}))

    def wanted(self) -> dict[str, int]:
        """Models to the number of workers that was asked for since the start."""
        return self._read("wanted.json")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the fleet's lock while the block runs. Raises UsageError where another process holds it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock_file() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"fleet {self.name!r} is up already",
                    fix=f"`chaku down {self.name}` ends it; `chaku fleet scale MODEL N` changes its size",
                ) from None
            yield

    def is_held(self) -> bool:
        """Whether the process that keeps the fleet up lives."""
        if not self.folder.is_dir():
            return False
        with self._lock_file() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextlib.contextmanager
    def _lock_file(self) -> Iterator[int]:
        descriptor = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _write(self, name: str, content: bytes) -> None:
        with atomic_write(self.folder / name, mode=0o600) as file:
            file.write(content)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = orjson.loads((self.folder / name).read_bytes())
        except FileNotFoundError:
            return {}
        return content


def record_of(name: str) -> Record:
    """The record of the fleet with that name, whether it is up or not."""
    return Record(data_dir() / "fleets" / name)


def up() -> list[Record]:
    """The fleets that are up: a keeper lives, or a cluster was told to run them."""
    records = [Record(file.parent) for file in sorted((data_dir() / "fleets").glob("*/state.json"))]
    return [record for record in records if record.is_held() or record.state().get("is_elsewhere")]


def find_up(text: str | None) -> Record:
    """The fleet that is meant: by its name, its file, or because no other is up. Raises UsageError."""
    running = {record.name: record for record in up()}
    if text is None:
        if len(running) == 1:
            return next(iter(running.values()))
        names = ", ".join(running)
        raise UsageError(
            f"several fleets are up: {names}" if running else "no fleet is up",
            fix="name one" if running else "`chaku up fleet.yaml` starts one",
        )
    name = read_fleet(Path(text)).name if Path(text).is_file() else text
    if name not in running:
        fix = did_you_mean(name, running, f"up: {', '.join(running) or 'none'}")
        raise UsageError(f"no fleet {name!r} is up", fix=fix)
    return running[name]
