"""The circumstances of a result: machine, versions, commit, and how noisy the machine was meanwhile."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from load.system import ROOT

PACKAGES = ("confluent-kafka", "msgspec", "numba", "numpy", "onnxruntime")


def header() -> dict[str, Any]:
    """Facts that do not change during a run."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "memory_gib": memory_gib()},
        "versions": {"python": platform.python_version(), **versions()},
    }


def commit() -> str:
    """The commit measured; with `+` if the working tree differs from it."""
    try:
        name = _git("rev-parse", "--short=12", "HEAD")
        return name + ("+" if _git("status", "--porcelain", "--untracked-files=no", "streamer", "load") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def cpu_model() -> str:
    """Model name of the first processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def memory_gib() -> int:
    """Installed memory."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def versions() -> dict[str, str]:
    """Versions of the packages that decide the speed."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


class Noise:
    """What else the machine did between two moments: share of stolen processor time, load average before."""

    def __init__(self) -> None:
        self._load = os.getloadavg()[0]
        self._before = _cpu_ticks()

    def read(self) -> dict[str, float]:
        """The noise since this object was made."""
        spent = [after - before for after, before in zip(_cpu_ticks(), self._before, strict=True)]
        return {
            "load_average_before": round(self._load, 2),
            "stolen_share": round(spent[7] / max(sum(spent), 1), 4),
        }


def _cpu_ticks() -> list[int]:
    """User nice system idle iowait irq softirq steal, summed over all cores."""
    return [int(ticks) for ticks in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
