from __future__ import annotations

import sys
from pathlib import Path

import pytest

from chaku.models.plan.free_memory import available_bytes

MB = 1 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc and /sys")


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    write(tmp_path, {"proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable:    4096000 kB\n"})
    return tmp_path


def available(machine: Path) -> int | None:
    return available_bytes(machine / "proc", machine / "cgroup")


def test_this_machine_has_memory() -> None:
    assert 0 < (available_bytes() or 0) < 1 << 50


def test_without_a_limit_it_is_what_the_kernel_says(machine: Path) -> None:
    assert available(machine) == 4_096_000 * 1024


def test_the_tightest_group_of_version_2_counts_and_its_cold_pages_are_free(machine: Path) -> None:
    write(machine, {"proc/self/cgroup": "0::/user/job\n"})
    write(machine / "cgroup", {"user/job/memory.max": "max", "user/job/memory.current": "1"})
    write(machine / "cgroup/user", {"memory.max": str(1000 * MB), "memory.current": str(700 * MB)})
    write(machine / "cgroup/user", {"memory.stat": f"anon 5\ninactive_file {200 * MB}\n"})
    assert available(machine) == 500 * MB


def test_a_limit_of_version_1_counts_in_a_container_that_is_its_own_root(machine: Path) -> None:
    write(machine, {"proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n"})
    write(
        machine / "cgroup/memory",
        {"memory.limit_in_bytes": str(512 * MB), "memory.usage_in_bytes": str(112 * MB), "memory.stat": "cache 1\n"},
    )
    assert available(machine) == 400 * MB


def test_no_limit_of_version_1_is_no_limit(machine: Path) -> None:
    write(machine, {"proc/self/cgroup": "4:memory:/\n"})
    write(machine / "cgroup/memory", {"memory.limit_in_bytes": "9223372036854771712", "memory.usage_in_bytes": "1"})
    assert available(machine) == 4_096_000 * 1024


def test_where_nothing_is_known_nothing_is_claimed(tmp_path: Path) -> None:
    assert available(tmp_path) is None
