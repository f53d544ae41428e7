"""CPU and memory of processes, read from Linux' /proc."""

import os
import re
from pathlib import Path


def cpu_s(pid: int, *, with_children: bool = False) -> float:
    """Return the CPU seconds used by a process, 0 if it has ended; optionally with those of its ended children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    ticks = sum(map(int, fields[11 : 15 if with_children else 13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[int]:
    """Return the running child processes of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def postgres_pids(data_dir: Path) -> list[int]:
    """Return the postmaster, then all of its sessions."""
    postmaster = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
    return [postmaster, *children_of(postmaster)]


def postgres_cpu_s(data_dir: Path) -> float:
    """Return the CPU seconds used so far by a Postgres and all of its sessions."""
    postmaster, *sessions = postgres_pids(data_dir)
    return cpu_s(postmaster, with_children=True) + sum(map(cpu_s, sessions))


def resident_kib(pid: int) -> int:
    """Return the physical memory of a process (RSS)."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) if match else 0


def memory_kib(pid: int) -> int:
    """Return the physical memory of a process, with shared pages counted proportionally (PSS), so sums are correct."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) if match else 0
