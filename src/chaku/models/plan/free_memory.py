"""How much memory a new process may take here: what the machine has free, and what its control group allows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int | None:
    """Bytes that can be had without swapping: the smaller of the machine's and the container's. None: can't be told."""
    if sys.platform == "darwin":
        return _darwin_bytes()
    machine = _meminfo_bytes(proc / "meminfo")
    known = [limit for limit in (machine, _cgroup_bytes(proc / "self" / "cgroup", cgroup)) if limit is not None]
    return min(known, default=None)


def _meminfo_bytes(meminfo: Path) -> int | None:
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup_bytes(membership: Path, root: Path) -> int | None:
    """The least that any group from ours up to the root leaves, version 2 (memory.max) or 1 (memory.limit_in_bytes)."""
    left: list[int] = []
    for line in _lines(membership):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit_file, usage_file = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit_file, usage_file = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = base / path.strip("/")
        # In a container the path may be the host's; then the root of the mount is our own group.
        for folder in (group, *group.parents):
            limit, usage = _number(folder / limit_file), _number(folder / usage_file)
            if limit is not None and usage is not None and limit < 1 << 60:
                left.append(max(limit - usage + _reclaimable_bytes(folder / "memory.stat"), 0))
            if folder == base:
                break
    return min(left, default=None)


def _reclaimable_bytes(stat: Path) -> int:
    """File pages not used of late: they count as usage, and go when memory is wanted."""
    for line in _lines(stat):
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def _number(file: Path) -> int | None:
    lines = _lines(file)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:  # not Linux, or not that version of control groups
        return []


def _darwin_bytes() -> int | None:
    """Half of the memory: macOS compresses and caches so freely that its count of free pages says little."""
    try:
        answer = subprocess.run(["/usr/sbin/sysctl", "-n", "hw.memsize"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return int(answer.stdout) // 2
