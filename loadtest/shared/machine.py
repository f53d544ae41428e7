"""CPU and memory of processes, read from Linux' /proc."""

import os
import re
from pathlib import Path


def cpu_s(pid: int, *, with_children: bool = False) -> float:
    """CPU seconds that a process has used; with those of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    ticks = sum(map(int, fields[11 : 15 if with_children else 13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[int]:
    """The processes that this one has started and that live."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def postgres_pids(data_dir: Path) -> list[int]:
    """The postmaster, then all of its sessions."""
    postmaster = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
    return [postmaster, *children_of(postmaster)]


def postgres_cpu_s(data_dir: Path) -> float:
    """CPU seconds of a Postgres and of all its sessions so far."""
    postmaster, *sessions = postgres_pids(data_dir)
    return cpu_s(postmaster, with_children=True) + sum(map(cpu_s, sessions))


def resident_kib(pid: int) -> int:
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) if match else 0


def memory_kib(pid: int) -> int:
    """Physical memory of a process; what it shares with others counts in part (PSS), so that a sum is true."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) if match else 0
