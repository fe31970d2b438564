"""`python -m benchmarks.startup`: how long until something happens, each time in a new process."""

import statistics
import subprocess
import sys

from .common import load, show

ROUNDS = 5
WORK = {
    "`import hw1_utils`": "import hw1_utils",
    "`import torch` alone": "import torch",
    "`import hw1_utils.experiment` (torch included)": "import hw1_utils.experiment",
    "second run: start of Python to the first training step": """
from benchmarks.common import load_apart
from hw1_utils.experiment import cnn
run = cnn(load_apart(), "tuned")
inputs, labels = next(run.train.batches(run.batch_size, epoch=1))
""",
}


def seconds(code: str) -> list[float]:
    """Wall time of new processes that run `code`, after one that warms the disk cache."""
    timed = "import time; started = time.perf_counter()\n" + code + "\nprint(time.perf_counter() - started)"
    outputs = [
        subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True).stdout
        for _ in range(ROUNDS + 1)
    ]
    return [float(output.split()[-1]) for output in outputs[1:]]


if __name__ == "__main__":
    data = load()
    rows = []
    for what, code in WORK.items():
        measured = seconds(code)
        rows.append([what, f"{statistics.median(measured):.2f} ({min(measured):.2f} – {max(measured):.2f})"])
    show(f"Start-up, {ROUNDS} new processes each", ["What", "Seconds: median (range)"], rows, data)
