"""How much memory is free: the kernel's word, or what a control group leaves."""

from __future__ import annotations

import os
from pathlib import Path

from topokd_edge.memory import free_memory

MEMINFO = "MemTotal:       32000 kB\nMemFree:   9 kB\nMemAvailable:   8000 kB\n"


def put(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def group(root: Path, path: str, **files: object) -> None:
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / f"memory.{name}").write_text(f"{value}\n", encoding="utf-8")


def test_what_the_kernel_calls_available(tmp_path: Path) -> None:
    put(tmp_path, proc__meminfo=MEMINFO)
    assert free_memory(tmp_path) == 8000 * 1024


def test_a_limit_of_a_parent_group_without_its_file_cache(tmp_path: Path) -> None:
    put(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/job/step\n")
    stat = "anon 4000000\ninactive_file 800000\nactive_file 200000\nfile 1100000\n"
    group(tmp_path, "job", max=6_000_000, current=5_000_000, stat=stat)
    group(tmp_path, "job/step", max="max", current=5_000_000, stat=stat)
    assert free_memory(tmp_path) == 1_000_000 + 1_000_000


def test_a_container_that_sees_its_own_group_as_the_top(tmp_path: Path) -> None:
    put(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/../../docker/abc\n")
    group(tmp_path, "", max=3_000_000, current=1_000_000, stat="")
    assert free_memory(tmp_path) == 2_000_000


def test_the_first_version_of_control_groups(tmp_path: Path) -> None:
    cgroup = "9:cpu,cpuacct:/job\n4:memory:/job\n0::/\n"
    put(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup=cgroup)
    group(tmp_path, "memory", limit_in_bytes=2**63 - 4096, usage_in_bytes=10**9, stat="total_active_file 7\n")
    group(tmp_path, "cpu/job", limit_in_bytes=1, usage_in_bytes=0)
    assert free_memory(tmp_path) == 8000 * 1024
    group(tmp_path, "memory/job", limit_in_bytes=5000, usage_in_bytes=4000, stat="total_inactive_file 70\n")
    assert free_memory(tmp_path) == 1070


def test_a_group_above_its_limit_has_nothing_free(tmp_path: Path) -> None:
    put(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/job\n")
    group(tmp_path, "job", max=1000, current=4000, stat="")
    assert free_memory(tmp_path) == 0


def test_half_of_the_machine_where_the_kernel_does_not_say(tmp_path: Path) -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert free_memory(tmp_path) == total // 2
    assert 0 < free_memory() <= total
