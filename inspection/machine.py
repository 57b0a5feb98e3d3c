"""What this process may use of the machine it runs on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

# Instructions that decide how fast a network runs on this processor, and what for.
CPU_FEATURES = {
    "avx2": "float, 8 lanes",
    "avx512f": "float, 16 lanes",
    "avx512_vnni": "int8",
    "avx_vnni": "int8",
    "amx_int8": "int8",
    "avx512_bf16": "bf16",
    "amx_bf16": "bf16",
    "asimddp": "int8",
    "i8mm": "int8",
    "bf16": "bf16",
}


def usable_cores() -> int:
    """Cores that this process may really use: its affinity and the container's quota, not what the machine has.

    With one thread per core of the whole machine inside a small container, threads wait for each other for most of
    their time.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    quota = _quota()
    return max(1, cores if quota is None else min(cores, round(quota)))


def _quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores that the control group grants; None without a limit."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit_us = int((root / "cpu/cpu.cfs_quota_us").read_text())
        return None if limit_us <= 0 else limit_us / int((root / "cpu/cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None


def processor() -> str:
    """The processor's name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """Those of `CPU_FEATURES` that this processor has."""
    flags = set((_cpuinfo("flags") or _cpuinfo("Features") or "").split())
    return [feature for feature in CPU_FEATURES if feature in flags]


def memory_bytes() -> tuple[int, int] | None:
    """Memory in all and available, in bytes; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)


def _cpuinfo(key: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), None)
