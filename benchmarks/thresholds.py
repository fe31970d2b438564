"""`python -m benchmarks.thresholds`: ways to choose the confidence from which on a model answers, by simulation.

The test predictions of a run are all images that there are; validation parts are drawn from them. How often is the
promise broken, how often is nothing promised, and how much is answered on average?
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import bdtr

from hw1_utils.config import ROOT
from hw1_utils.selective import RISK, Confidences, curve, least_images, threshold_for

from .common import table

ROUNDS = 300


def read(results: Path) -> dict[str, Confidences]:
    """Name -> confidences on test, of the models whose predictions are kept."""
    found = {}
    for file in sorted(results.glob("*/predictions.csv")):
        predictions = pd.read_csv(file, keep_default_na=False)
        confidence = predictions.filter(like="p_").max(axis=1).to_numpy()
        # Four digits are kept: what they make equal is told apart again, at random.
        confidence = confidence + np.random.default_rng(0).uniform(0, 1e-5, len(confidence))
        found[file.parent.name] = Confidences(
            confidence, (predictions["label"] == predictions["prediction"]).to_numpy()
        )
    return found


def by_accuracy(val: Confidences, target: float) -> float | None:
    """The lowest threshold at which validation's own accuracy reaches the target."""
    thresholds, answered, right = curve(val)
    reached = np.flatnonzero(right / answered >= target)
    return float(thresholds[reached[-1]]) if len(reached) else None


def by_bisection(val: Confidences, target: float) -> float | None:
    """SGR (Geifman and El-Yaniv 2017, algorithm 2): bisection over images, each step with an equal part of the risk."""
    thresholds, answered, right = curve(val)
    low, high, best, steps = 0, len(answered) - 1, None, math.ceil(math.log2(len(answered)))
    for _ in range(steps):
        middle = math.ceil((low + high) / 2)
        if bdtr(answered[middle] - right[middle], answered[middle], 1 - target) <= RISK / steps:
            best, low = float(thresholds[middle]), middle
        else:
            high = middle
    return best


def from_one_start(val: Confidences, target: float) -> float | None:
    """Learn then Test from the fewest images that prove anything: one sequence with all of the risk."""
    thresholds, answered, right = curve(val)
    refuted = bdtr(answered - right, answered, 1 - target) <= RISK
    at = int(np.searchsorted(answered, least_images(target)))
    if at >= len(answered) or not refuted[at]:
        return None
    failures = np.flatnonzero(~refuted[at:])
    return float(thresholds[at + (failures[0] if len(failures) else len(refuted) - at) - 1])


WAYS: dict[str, Callable[[Confidences, float], float | None]] = {
    "validation's own accuracy": by_accuracy,
    "bisection (SGR)": by_bisection,
    "one sequence": from_one_start,
    "several sequences (`threshold_for`)": threshold_for,
}


def compare(models: dict[str, Confidences], sizes: Iterable[int], targets: Iterable[float]) -> None:
    """Print, for each way, how often its promise is broken, how often it makes none, and what is answered."""
    rng, rows = np.random.default_rng(0), []
    for name, of in models.items():
        for target, size in ((target, size) for target in targets for size in sizes):
            drawn = [rng.integers(0, len(of), size) for _ in range(ROUNDS)]
            for way, choose in WAYS.items():
                found = [choose(Confidences(of.confidence[part], of.right[part]), target) for part in drawn]
                ends = [of.answered(threshold) for threshold in found if threshold is not None]
                broken = sum(right < target * answered for answered, right in ends) / ROUNDS
                covered = sum(answered for answered, _ in ends) / ROUNDS / len(of)
                none = 1 - len(ends) / ROUNDS
                rows.append([name, f"{target:.0%}", size, way, f"{broken:.1%}", f"{none:.0%}", f"{covered:.1%}"])
    heads = ["Model", "Target", "Validation images", "Way", "Broken", "Nothing promised", "Answered on average"]
    print(table(heads, rows))


if __name__ == "__main__":
    compare(read(ROOT / "results"), sizes=(100, 200, 500, 1000, 5000), targets=(0.95, 0.99))
