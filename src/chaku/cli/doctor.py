"""`chaku doctor`: looks at everything serving depends on, and says for each fault the command that mends it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
import orjson
import sqlalchemy
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from chaku import __version__, config
from chaku.models.fetch.cache import free_disk_bytes, models_dir, pulled
from chaku.models.plan.free_memory import available_bytes
from chaku.models.plan.memory_plan import gigabytes
from chaku.models.registry import DEFAULT_MODEL
from chaku.packages import install_command

Level = Literal["ok", "warn", "FAIL"]
_LOW_BYTES = 10**9

_EXTRAS = {
    "local": ("xllamacpp", "serves models on this machine", "102 MB"),
    "hub": ("huggingface_hub", "pulls hf: models", "20 MB"),
    "data": ("pyarrow", "builds training rows", "250 MB"),
    "train": ("torch", "trains, and works on weights", "2 GB"),
    "postgres": ("psycopg", "keeps the store in PostgreSQL", "13 MB"),
}
"""Extra: its import name, what it is for, what it adds to the disk."""

_CPU_FEATURES = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"),
    *("asimd", "asimddp", "sve", "i8mm"),
)


@dataclass(frozen=True)
class Check:
    """One finding; `fix` is a command where there is one."""

    level: Level
    about: str
    finding: str
    fix: str | None = None


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=config.DEFAULT_PORT, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def doctor(port: int, as_json: bool) -> None:
    """Check this machine and installation. Exits 1 when something must be mended before chaku can serve."""
    checks = list(examine(port))
    if as_json:
        click.echo(orjson.dumps([dataclasses.asdict(check) for check in checks], option=orjson.OPT_INDENT_2).decode())
    else:
        for check in checks:
            click.echo(f"{check.level:<4}  {check.about:<12}  {check.finding}")
            if check.fix:
                click.echo(f"{'':<20}-> {check.fix}")
    if any(check.level == "FAIL" for check in checks):
        raise SystemExit(1)


def examine(port: int) -> Iterator[Check]:
    """All checks, in the order they are shown."""
    yield _python()
    yield Check("ok", "chaku", __version__)
    yield from (_extra(name) for name in _EXTRAS)
    if importlib.util.find_spec("xllamacpp"):
        yield _engine()
    yield _cpu()
    yield _memory()
    yield _cache_disk()
    yield _port(port)
    yield _database()
    yield from (_variable(name) for name in ("HF_TOKEN", "OPENAI_API_KEY", "OPENAI_BASE_URL"))
    yield _pulled()


def _python() -> Check:
    return Check("ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _extra(name: str) -> Check:
    package, purpose, size = _EXTRAS[name]
    if importlib.util.find_spec(package):
        return Check("ok", f"[{name}]", f"{package} {importlib.metadata.version(package)}: {purpose}")
    fix = f"{install_command(name)}  (about {size})"
    return Check("warn", f"[{name}]", f"{package} is missing: it {purpose}", fix)


def _engine() -> Check:
    """Load llama.cpp in a child: a build for another CPU dies of an illegal instruction."""
    command = [sys.executable, "-P", "-c", "import xllamacpp"]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=60)  # noqa: S603
    except subprocess.TimeoutExpired:
        return Check("FAIL", "llama.cpp", "importing xllamacpp took more than 60 s", "chaku doctor, on an idle machine")
    if child.returncode == 0:
        return Check("ok", "llama.cpp", "loads; waiting threads sleep (--spin is faster on an idle machine)")
    if child.returncode < 0:
        why = f"dies of {signal.Signals(-child.returncode).name}: it was built for another CPU"
    else:
        why = (child.stderr.strip().splitlines() or ["no message"])[-1]
    fix = f"{sys.executable} -m pip install --force-reinstall --no-cache-dir xllamacpp"
    return Check("FAIL", "llama.cpp", f"importing xllamacpp failed: {why}", fix)


def _cpu() -> Check:
    flags: set[str] = set()
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith(("flags", "Features")):
            flags.update(line.partition(":")[2].split())
            break
    known = [feature for feature in _CPU_FEATURES if feature in flags]
    finding = f"{os.cpu_count()} threads" + (f", {' '.join(known)}" if known else "")
    if platform.machine() == "x86_64" and flags and "avx2" not in flags:
        return Check("warn", "cpu", f"{finding}: no AVX2, so answers will be slow")
    return Check("ok", "cpu", finding)


def _memory() -> Check:
    available = available_bytes()
    if available is None:
        return Check("warn", "memory", "can't be told on this system: plans assume that everything fits")
    if available < _LOW_BYTES:
        fix = "chaku serve MODEL --slots 1 --context 2048"
        return Check("warn", "memory", f"{gigabytes(available)} available, little for a model", fix)
    return Check("ok", "memory", f"{gigabytes(available)} available")


def _cache_disk() -> Check:
    folder = models_dir()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check("FAIL", "cache", f"{existing} can't be written", "export CHAKU_CACHE=FOLDER")
    free_bytes = free_disk_bytes(folder)
    finding = f"{folder}, {gigabytes(free_bytes)} free"
    if free_bytes < _LOW_BYTES:
        return Check("warn", "cache", finding, "chaku models rm MODEL, or export CHAKU_CACHE=FOLDER on a larger disk")
    return Check("ok", "cache", finding)


def _port(port: int) -> Check:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return Check("warn", "port", f"{port} needs privileges", f"chaku serve --port {config.DEFAULT_PORT}")
        except OSError:
            holder = _holder(port) or "a process that can't be seen"
            return Check("warn", "port", f"{port} is held by {holder}", "chaku serve --port 0, or stop that process")
    return Check("ok", "port", f"{port} is free")


def _holder(port: int) -> str | None:
    """Which process listens there, from /proc: the socket's inode, then whose open file that is."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _read(table).splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(file.readlink()) in inodes for file in (process / "fd").iterdir()):
                command = _read(str(process / "cmdline")).replace("\0", " ").strip()
                return f"process {process.name} ({command[:60]})"
        except OSError:  # another user's process, or one that has just ended
            continue
    return None


def _database() -> Check:
    """Reach the database without making or changing it."""

    try:
        url = sqlalchemy.make_url(config.database_url())
    except ArgumentError:
        return Check("FAIL", "database", "CHAKU_DATABASE is not a database URL", "unset CHAKU_DATABASE")
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        return Check("ok", "database", f"{shown} will be made when it is first needed")
    try:
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()
            version = None
            if "alembic_version" in tables:
                version = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar()
        engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        fix = install_command("postgres") if isinstance(error, ImportError) else "check CHAKU_DATABASE"
        return Check("FAIL", "database", f"{shown}: {str(error).splitlines()[0]}", fix)
    return Check("ok", "database", f"{shown}, {f'version {version}' if version else 'empty'}")


def _variable(name: str) -> Check:
    """Whether it is set; never its value."""
    return Check("ok", "environment", f"{name} is {'set' if config.environment(name) else 'not set'}")


def _pulled() -> Check:
    sources = [model.source for model in pulled()]
    if not sources:
        return Check("warn", "models", "none is pulled", f"chaku pull {DEFAULT_MODEL}")
    return Check("ok", "models", ", ".join(sources))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:  # not Linux, or gone
        return ""
