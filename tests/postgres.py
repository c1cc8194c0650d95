"""A private PostgreSQL for tests: own cluster in a temporary folder, on a Unix socket only, gone afterwards."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

DEBIAN_BINARIES = Path("/usr/lib/postgresql")


def find_binaries() -> Path | None:
    """The folder with initdb and postgres: on PATH, or the newest that Debian's package keeps off it."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = [path.parent for path in DEBIAN_BINARIES.glob("*/bin/initdb")]
    return max(folders, key=lambda folder: float(folder.parent.name), default=None)


class PostgresCluster:
    """Started by the constructor; `stop` ends it. PostgreSQL refuses root, so root lends it another user."""

    def __init__(self, binaries: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="chaku-pg-", dir="/tmp"))  # a socket's path has 107 bytes
        self._as_user: dict[str, object] = {}
        if os.geteuid() == 0:
            user = _other_user()
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        data = self._folder / "data"
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "chaku", "--auth=trust", "--encoding=UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=self._folder,
            **self._as_user,
        )
        settings = [f"unix_socket_directories={self._folder}", "listen_addresses=", "fsync=off", "timezone=Asia/Tokyo"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [binaries / "postgres", "-D", data, *(part for setting in settings for part in ("-c", setting))],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._as_user,
            )
        self._num_databases = 0
        self._wait_until_up()

    def url(self, database: str) -> str:
        return f"postgresql://chaku@/{database}?host={self._folder}"

    def new_database(self, template: str = "template0") -> str:
        """The URL of a copy of `template`, by default an empty database."""
        self._num_databases += 1
        name = f"test_{self._num_databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return self.url(name)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown: ends sessions
        self._process.wait(30)
        shutil.rmtree(self._folder)

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self._folder / "log").read_text()) from None
                time.sleep(0.05)


def _other_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("there is no user postgres or nobody to run PostgreSQL as")
