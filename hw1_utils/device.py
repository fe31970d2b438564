"""What this machine is and can do: device, number format, memory, and the stamp that goes beside every result."""

import ctypes
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import torch

from .errors import Hw1Error

T = TypeVar("T")
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "scikit-learn", "scipy", "tensorboard", "thop")
PASS = 16  # images at most a pass on a CPU: last digits could hang on it, so it hangs on no number of threads


@dataclass(frozen=True)
class Precision:
    """Number format of the forward pass. Losses and metrics are fp32 whatever it is."""

    name: str  # bf16, fp16 or fp32

    @property
    def dtype(self) -> torch.dtype:
        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[self.name]

    def autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, dtype=self.dtype, enabled=self.name != "fp32")

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Only fp16 needs its gradients scaled; for the others this is a pass-through."""
        return torch.amp.GradScaler(device.type, enabled=self.name == "fp16")


def find_device(name: str = "auto") -> torch.device:
    """`auto`: the GPU if it really computes, else the CPU.

    Raises:
        Hw1Error: `cuda` was asked for and cannot be used.
    """
    if name == "cpu":
        return torch.device("cpu")
    # With it cuBLAS gives the same numbers each time. It is read once, at the first product, which comes now.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        # A visible GPU can be too old for this build of torch and fail only at its first operation.
        torch.ones(2, 2, device="cuda").matmul(torch.ones(2, 2, device="cuda")).sum().item()
        return torch.device("cuda")
    except (RuntimeError, AssertionError) as error:
        if name == "cuda":
            raise Hw1Error(f"device='cuda' cannot be used here ({error}); use device='auto'.") from error
        if torch.cuda.is_available():
            print(f"A GPU is visible but fails its first operation, so the CPU is used: {error}")
        return torch.device("cpu")


def choose_precision(name: str, device: torch.device) -> Precision:
    """`auto`: the fastest format the hardware computes natively.

    `torch.cuda.is_bf16_supported()` is not asked: it says yes on a T4, which emulates bf16 slowly.
    """
    if name != "auto":
        return Precision(name)
    if device.type == "cuda":
        return Precision("bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16")
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return Precision("bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32")


def make_deterministic() -> None:
    """Same machine, same config: same numbers. What cuBLAS needs for it is set by `find_device`."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks for the next batch instead of giving them back to the system each time.

    Activations are tens of megabytes and live for one step. Mapping and unmapping them costs the CPU a third of a
    training step (see benchmarks/). Elsewhere than on Linux with glibc this does nothing.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD in malloc.h
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def halving(work: Callable[[int], T], size: int) -> tuple[int, T]:
    """(batch size, what `work` made of it): `size`, halved as often as it takes to fit into the GPU's memory.

    Raises:
        torch.OutOfMemoryError: not even a single one fits.
    """
    while True:
        try:
            return size, work(size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size //= 2


def beside_each_other(one_pass: Callable[[range], torch.Tensor], rows: range, size: int = PASS) -> torch.Tensor:
    """What a model on a CPU makes of these rows, `size` at a time, in their order: a pass on each of torch's threads.

    Passes beside one another do not wait for each other after every operator, as threads within a pass do (what it
    gives on 2 cores: benchmarks/README.md).
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as workers:
            return torch.cat(list(workers.map(one_pass, (rows[at : at + size] for at in range(0, len(rows), size)))))
    finally:
        torch.set_num_threads(threads)  # of threads yet to come; this one's has not changed


def now(device: torch.device) -> float:
    """Seconds on a monotonic clock, once the device has finished what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def room_for_arrays(device: torch.device, memory_mb: int | None, processes: int = 1) -> int:
    """Bytes that all arrays may take on the device: `memory_mb` (10^6 bytes), or half of what is free now.

    What finds no room stays in its file and is streamed. Where nobody can tell what is free, all is taken to fit. Of
    the memory of a CPU each of several processes on this machine has its share; a GPU is each one's own.
    """
    if device.type != "cuda" and processes > 1:
        return room_for_arrays(device, memory_mb) // processes
    if memory_mb is not None:
        return memory_mb * 10**6
    if device.type == "cuda":
        return torch.cuda.mem_get_info()[0] // 2
    info = Path("/proc/meminfo")
    return int(info.read_text().split("MemAvailable:")[1].split()[0]) * 1024 // 2 if info.exists() else sys.maxsize


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
