"""Which packages an extra brings, and the error of a command that needs one that is not installed.

The list is read from chaku's own metadata, so what a command may import and what pip installs can't differ.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import re
import shlex
import sys
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from chaku.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])

PURPOSES = {
    "local": "serves models on this machine",
    "hub": "pulls hf: models",
    "data": "builds training rows",
    "transformers": "serves Hugging Face folders as they are, on GPU or CPU",
    "evals": "runs standard benchmarks (chaku eval bench)",
    "train": "trains, and works on weights",
    "ray": "runs workers on a Ray cluster (chaku up --on ray)",
    "otel": "sends traces by OpenTelemetry (chaku serve --traces)",
    "postgres": "keeps the store in PostgreSQL",
    "bench": "runs bench/clean.py beside other cleaners",
    "dev": "runs chaku's own tests and checks",
}
"""What each extra is for."""
_REQUIREMENT = re.compile(r"(?P<package>[A-Za-z0-9._-]+)[^;]*;\s*extra == ['\"](?P<extra>\w+)['\"]")


def packages_of(extra: str) -> list[str]:
    """The distributions that an extra names; those for one platform alone are left out."""
    try:
        requirements = importlib.metadata.requires("chaku") or []
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        requirements = []
    found = (_REQUIREMENT.fullmatch(text.strip()) for text in requirements)
    return [match["package"] for match in found if match and match["extra"] == extra]


def missing(extra: str) -> list[str]:
    """The packages of an extra that are not installed."""
    return [name for name in packages_of(extra) if version(name) is None]


def version(package: str) -> str | None:
    """The installed version of a distribution; None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def install_command(*extras: str) -> str:
    """The line that installs extras into the environment of the running interpreter, from where chaku came from.

    pip records a folder or a wheel that it installed from (PEP 610); without that record chaku came from an index.
    """
    wanted = f"[{','.join(extras)}]"
    try:
        record = json.loads(importlib.metadata.distribution("chaku").read_text("direct_url.json") or "{}")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        record = {}
    url = urlsplit(record.get("url", ""))
    if url.scheme == "file":
        what = unquote(url.path) + wanted
    else:
        what = f"chaku{wanted}" + (f" @ {record['url']}" if url.scheme else "")
    editable = "--editable " if record.get("dir_info", {}).get("editable") else ""
    return f"{shlex.quote(sys.executable)} -m pip install {editable}{shlex.quote(what)}"


def require(*extras: str) -> None:
    """Raise UsageError naming what is missing of these extras, and the command that installs it."""
    absent = sorted({package for extra in extras for package in missing(extra)})
    if absent:
        are = "is" if len(absent) == 1 else "are"
        raise UsageError(f"{', '.join(absent)} {are} not installed", fix=install_command(*extras))


def needs(*extras: str) -> Callable[[Command], Command]:
    """Decorate a command that needs extras: it says so before anything else happens."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def checked(*args: Any, **kwargs: Any) -> Any:
            require(*extras)
            return command(*args, **kwargs)

        checked.extras = extras  # type: ignore[attr-defined]  # for the test that walks a command's imports
        return checked  # type: ignore[return-value]

    return decorate
