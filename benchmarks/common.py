"""What every benchmark needs: interleaved timing, a process apart, the machine in one line, a Markdown table."""

import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import torch

from hw1_utils import experiment
from hw1_utils.config import make_config
from hw1_utils.data import Data
from hw1_utils.device import now


def load(profile: str = "full", **overrides: object) -> Data:
    """The full data under the environment's settings (HW1_DATA, HW1_WEIGHTS)."""
    return experiment.load(make_config(profile, **overrides))


def load_apart(profile: str = "full", **overrides: object) -> Data:
    """The same in a process beside one that has data: with an output folder of its own, as two may not share one."""
    _homes.append(tempfile.TemporaryDirectory())
    return load(profile, output_dir=_homes[-1].name, **overrides)


_homes: list[tempfile.TemporaryDirectory] = []  # each is there as long as the process


def side_by_side(
    work: dict[str, Callable[[], object]], device: torch.device, rounds: int = 5
) -> dict[str, list[float]]:
    """Seconds of each piece of work, `rounds` times in turn after one round of warm-up.

    In turn, so that a machine that grows slower or busier does so for all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, call in work.items():
            started = now(device)
            call()
            if turn:
                seconds[name].append(now(device) - started)
    return seconds


@contextmanager
def own_process(make: Callable[..., object], *args: object) -> Iterator[Callable[[str], object]]:
    """Make an object in a new process; yields a function that calls one of its methods there, by name."""
    given = (multiprocessing.get_start_method(), make, *args)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_make, initargs=given) as pool:
        yield lambda method: pool.submit(_call, method).result()


def _make(start_method: str, make: Callable[..., object], *args: object) -> None:
    # A spawned process would spawn its children too: seconds at each start of a DataLoader's workers.
    multiprocessing.set_start_method(start_method, force=True)
    global _made  # lives as long as the process
    _made = make(*args)


def _call(method: str) -> object:
    return getattr(_made, method)()


def rate(count: int, seconds: list[float]) -> str:
    """Median images per second, and the slowest and fastest round."""
    low, high = count / max(seconds), count / min(seconds)
    return f"{count / statistics.median(seconds):,.0f} ({low:,.0f} – {high:,.0f})"


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median seconds over median seconds."""
    return statistics.median(slow) / statistics.median(fast)


def show(title: str, columns: list[str], rows: list[list[object]], data: Data) -> None:
    """Print a Markdown table and the machine it was measured on."""
    print(f"\n**{title}**\n\n{table(columns, rows)}\n\n{machine(data)}")


def table(columns: list[str], rows: list[list[object]]) -> str:
    """In Markdown."""
    lines = [" | ".join(map(str, row)) for row in (columns, *rows)]
    return "\n".join([f"| {lines[0]} |", "|---" * len(columns) + "|", *(f"| {line} |" for line in lines[1:])])


def machine(data: Data) -> str:
    """In one line: what the numbers were measured on, and with which versions."""
    stamp = data.context.environment
    packages = stamp["packages"]
    return (
        f"{stamp['device']}, {stamp['torch_threads']} threads, {data.context.precision.name}, "
        f"Python {stamp['python']}, torch {packages['torch']}, timm {packages['timm']}, "
        f"commit {stamp['git_commit']}"
    )
