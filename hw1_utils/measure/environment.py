"""Where numbers come from: code, versions, hardware, threads; the stamp that goes beside every result."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ..device import Precision

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "scikit-learn", "scipy", "tensorboard", "thop")


def peak_rss_mb() -> float | None:
    """Largest resident memory of this process so far, in MB (10^6 bytes); None where it cannot be read.

    Linux's VmHWM, not getrusage: a child's `ru_maxrss` starts at its parent's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    if sys.platform == "darwin":
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return None


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    root = Path(__file__).parent
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def timed_on(stamp: dict) -> str:
    """What seconds depend on, of an `environment`, in one line: on a GPU hardly on the threads that feed it."""
    threads = f", {stamp['torch_threads']} threads" if stamp["device_type"] == "cpu" else ""
    return f"{stamp['device']}{threads}, torch {stamp['packages']['torch']}"


def environment(device: torch.device, precision: Precision) -> dict:
    """Where the numbers come from: code, versions, hardware, threads. No host name, no path."""
    try:
        commit = _git_commit()
    except FileNotFoundError:  # no git on this machine
        commit = None
    return {
        "git_commit": commit,
        "python": platform.python_version(),
        "packages": {package: _installed(package) for package in PACKAGES},
        "device": torch.cuda.get_device_name() if device.type == "cuda" else _cpu_name(),
        "device_type": device.type,
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "precision": precision.name,
        "system": platform.system(),
    }
