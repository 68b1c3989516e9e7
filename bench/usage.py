"""What processes use, as /proc tells: processor time and memory.

Where there is no /proc every figure is 0, and those that rest on it say nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Meter:
    """Processor time of some processes, and of everybody else, between two moments."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        tree = _Tree()
        seconds = {name: tree.cpu_seconds(pid) for name, pid in self._pids.items()}
        return {**seconds, "bench": own_cpu_seconds(), "machine": machine_cpu_seconds()}

    def seconds(self) -> dict[str, float]:
        """By process since the start, this one as `bench`, and `others` on the same machine."""
        now = self._read()
        used = {name: now[name] - before for name, before in self._before.items()}
        machine = used.pop("machine")
        return {**used, "others": max(0.0, machine - sum(used.values()))}


class _Tree:
    """All processes of this moment, and who started whom."""

    def __init__(self) -> None:
        names = os.listdir(_PROC) if _PROC.is_dir() else []
        self._fields = {int(name): _fields(int(name)) for name in names if name.isdigit()}
        self._children: dict[int, list[int]] = {}
        for pid, fields in self._fields.items():
            if fields:
                self._children.setdefault(int(fields[1]), []).append(pid)

    def cpu_seconds(self, pid: int) -> float:
        """User and system time of a process, of its children, and of those that have ended."""
        fields = self._fields.get(pid)
        own = sum(map(int, fields[11:15])) / _TICK if fields else 0.0
        return own + sum(map(self.cpu_seconds, self._children.get(pid, ())))


def _fields(pid: int) -> list[str]:
    """proc(5): the fields after the command's name, from the state on; none if it is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def own_cpu_seconds() -> float:
    """User and system time of this process, without its children."""
    times = os.times()
    return times.user + times.system


def machine_cpu_seconds() -> float:
    """Time that all processors were busy since the machine started."""
    try:
        first = (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq = map(int, first[:7])
    return (user + nice + system + irq + softirq) / _TICK


def by_step(seconds: dict[str, float], steps: int) -> dict[str, float]:
    """Microseconds of processor time per step, without what others used."""
    return {
        name: round(used / steps * 1e6, 1) for name, used in seconds.items() if name != "others"
    }


def resident_bytes(pid: int) -> int:
    """Memory that a process holds now, what it shares with others included."""
    try:
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * _PAGE
