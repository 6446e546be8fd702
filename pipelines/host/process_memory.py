"""How much memory a process has held at most, and how much is left: what stages, benchmarks and tests report.

Linux's `getrusage` cannot tell: a process begins with the peak of the one that started it, so that a stage started from
a large notebook would be charged with the notebook. The kernel's own high-water mark of the address space starts anew
with each program.
"""

import os
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
MEMORY = Path("/proc/meminfo")
EVENTS = (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events"))
KIB_PER_GIB = 2**20


def peak_memory_gib() -> float:
    """Largest resident memory of this process since its program started, GiB."""
    if STATUS.exists():
        for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / KIB_PER_GIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return peak / 2**30 if sys.platform == "darwin" else peak / KIB_PER_GIB


def available_memory() -> int:
    """Bytes of memory that can be had without swapping."""
    if MEMORY.exists():
        for line in MEMORY.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def total_memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def kills_for_memory() -> int:
    """How many processes the system has killed for want of memory since it started, in this container too; 0 where it
    does not say."""
    found = 0
    for path in EVENTS:
        if path.exists():
            for line in path.read_text(encoding="ascii", errors="replace").splitlines():
                if line.startswith("oom_kill "):
                    found += int(line.split()[1])
    return found
