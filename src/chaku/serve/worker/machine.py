"""What a worker says of its machine: the address that a gateway can reach, the device, the memory in use."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from chaku.errors import UsageError

_NVIDIA_S = 5.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def address_toward(url: str) -> str:
    """This machine's address on the way to a gateway. Raises UsageError where there is no way. Sends nothing."""
    parts = urlsplit(url)
    try:
        family, _, _, _, address = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            found: str = probe.getsockname()[0]
    except OSError as error:
        raise UsageError(f"can't reach {url}: {error.strerror or error}", fix="check the address") from None
    return found.partition("%")[0]


def device_name() -> str:
    """The GPUs by their driver's name, or the CPU with its number of cores."""
    if (tool := shutil.which("nvidia-smi")) is not None:
        try:
            command = [tool, "--query-gpu=name", "--format=csv,noheader"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_NVIDIA_S)  # noqa: S603 - no word of it is anybody's
        except (OSError, subprocess.TimeoutExpired):
            done = None
        if done is not None and done.returncode == 0 and (names := done.stdout.split("\n")[:-1]):
            return f"{len(names)} x {names[0]}" if len(names) > 1 else names[0]
    return f"CPU, {os.cpu_count()} cores"


def resident_bytes(pids: Iterable[int]) -> int | None:
    """Resident memory of these processes together; None where the system does not tell."""
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
        except (OSError, IndexError):  # it has just ended, or this is not Linux
            continue
    return total or None
