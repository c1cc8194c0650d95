"""`chaku doctor`: looks at everything serving depends on, and says for each fault the command that mends it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import sqlalchemy
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from chaku import __version__, config, packages
from chaku.cli import exposure
from chaku.cli.checks import Check, report
from chaku.cli.gateway_here import health, listener, read_text
from chaku.cli.help_page import command
from chaku.engines.kinds import EngineKind
from chaku.engines.opening import ENGINES
from chaku.errors import UsageError
from chaku.models.fetch.cache import free_disk_bytes, models_dir, pulled
from chaku.models.plan.free_memory import available_bytes
from chaku.models.plan.memory_plan import gigabytes
from chaku.models.registry import DEFAULT_MODEL
from chaku.store.database import without_password

_LOW_BYTES = 10**9

_DISK = {
    "local": "102 MB",
    "hub": "20 MB",
    "data": "250 MB",
    "train": "2 GB",
    "transformers": "2 GB",
    "evals": "900 MB",
    "postgres": "13 MB",
}
"""What the extras that a user chooses from add to the disk; the others are for work on chaku itself."""

_CPU_FEATURES = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"),
    *("asimd", "asimddp", "sve", "i8mm"),
)


@command()
@click.option(
    "--port", metavar="PORT", type=click.IntRange(1, config.MAX_PORT), default=config.DEFAULT_PORT, show_default=True,
    help="Port that chaku would listen on.",
)  # fmt: skip
@click.option("--exposed", metavar="URL", help="Check what a stranger can reach there, instead.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def doctor(port: int, exposed: str | None, as_json: bool) -> None:
    """Check this machine and installation, or what a gateway shows to strangers.

    Exits with 1 when something must be mended before chaku can serve.

    With --exposed, sends requests without a key. Reports whether a key is needed, whether the connection is encrypted,
    and what a stranger can reach of the API, the page and the workers. Exits with 1 when something is open.
    """
    if exposed is not None:
        if not exposed.startswith(("http://", "https://")):
            raise UsageError(f"{exposed!r} is no address of a gateway", fix="write it such as https://chat.example")
        report(asyncio.run(exposure.examine(exposed)), as_json=as_json)
        return
    report(examine(port), as_json=as_json)


def examine(port: int) -> Iterator[Check]:
    """All checks, in the order they are shown."""
    yield _python()
    yield Check("ok", "chaku", __version__)
    yield from (_extra(name) for name in packages.PURPOSES)
    yield from (_usable(kind) for kind in ENGINES.values())
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
    absent, purpose = packages.missing(name), packages.PURPOSES[name]
    if not absent:
        versions = ", ".join(f"{package} {packages.version(package)}" for package in packages.packages_of(name)[:3])
        return Check("ok", f"[{name}]", f"{purpose}: {versions}{' ...' if len(packages.packages_of(name)) > 3 else ''}")
    if name not in _DISK:
        return Check("ok", f"[{name}]", f"not installed: it {purpose}")
    are = f"{absent[0]} is" if len(absent) == 1 else f"{', '.join(absent)} are"
    fix = f"{packages.install_command(name)}  (about {_DISK[name]})"
    return Check("warn", f"[{name}]", f"{are} missing: it {purpose}", fix)


def _usable(kind: EngineKind) -> Check:
    if missing := kind.missing(None):
        return Check("warn", f"engine {kind.name}", f"can't be used: {missing.reason}", missing.fix)
    return Check("ok", f"engine {kind.name}", kind.summary)


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
    for line in read_text("/proc/cpuinfo").splitlines():
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
    if why := _why_unwritable(folder):
        return Check("FAIL", "cache", f"{folder} can't be written: {why}", "export CHAKU_CACHE=FOLDER")
    free_bytes = free_disk_bytes(folder)
    finding = f"{folder} can be written, {gigabytes(free_bytes)} free"
    if free_bytes < _LOW_BYTES:
        return Check("warn", "cache", finding, "chaku models rm MODEL, or export CHAKU_CACHE=FOLDER on a larger disk")
    return Check("ok", "cache", finding)


def _why_unwritable(folder: Path) -> str | None:
    """Why no file can be written in a folder, or in the nearest one above it that exists; None where one can.

    Asked by writing one, which is deleted at once: rights alone say nothing for root, or of a read-only disk.
    """
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"chaku")
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def _port(port: int) -> Check:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return Check("warn", "port", f"{port} needs privileges", f"chaku serve --port {config.DEFAULT_PORT}")
        except OSError:
            return _held(port)
    return Check("ok", "port", f"{port} is free")


def _held(port: int) -> Check:
    found = listener(port)
    who = f"process {found.pid}" if found else "a process that can't be seen"
    if state := health(port):
        models = ", ".join(state["models"]) or "no model"
        return Check("ok", "port", f"{port} is held by chaku {state['version']} itself, {who}, which serves {models}")
    name = f" ({found.command[:60]})" if found else ""
    return Check("warn", "port", f"{port} is held by {who}{name}", "chaku serve --port 0, or stop that process")


def _database() -> Check:
    """Write to the database and take it back: nothing is made or changed."""
    try:
        url = sqlalchemy.make_url(config.database_url())
    except ArgumentError:
        return Check("FAIL", "database", "CHAKU_DATABASE is not a database URL", "unset CHAKU_DATABASE")
    shown = without_password(config.database_url())
    file = url.database or "" if url.get_backend_name() == "sqlite" else ""
    if file and not file.startswith("file:") and not Path(file).exists():
        if why := _why_unwritable(Path(file).parent):
            return Check("FAIL", "database", f"{shown} can't be made: {why}", "export CHAKU_DATA=FOLDER")
        return Check("ok", "database", f"{shown} will be made when it is first needed")
    try:
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            version = _written_version(connection)
        engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        fix = packages.install_command("postgres") if isinstance(error, ImportError) else "check CHAKU_DATABASE"
        return Check("FAIL", "database", f"{shown}: {str(error).splitlines()[0]}", fix)
    return Check("ok", "database", f"{shown} can be written, {f'version {version}' if version else 'empty'}")


def _written_version(connection: sqlalchemy.Connection) -> str | None:
    """The schema's version, None for an empty database. Writes in a transaction that is rolled back."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver would only begin before data changes
    try:
        if "alembic_version" not in sqlalchemy.inspect(connection).get_table_names():
            connection.exec_driver_sql("CREATE TABLE chaku_doctor (written INTEGER)")
            return None
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")
        return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())
    finally:
        connection.rollback()


def _variable(name: str) -> Check:
    """Whether it is set; never its value."""
    return Check("ok", "environment", f"{name} is {'set' if config.environment(name) else 'not set'}")


def _pulled() -> Check:
    sources = [model.source for model in pulled()]
    if not sources:
        return Check("warn", "models", "none is pulled", f"chaku pull {DEFAULT_MODEL}")
    return Check("ok", "models", ", ".join(sources))
