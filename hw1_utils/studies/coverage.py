"""When should a model say that it does not know?"""

import math

import numpy as np
import pandas as pd

from .. import metrics, selective
from ..experiment import Result
from ..io.files import write_csv
from ..report import figures

TARGET = 0.95  # accuracy of the answers
SHARES = np.linspace(0.1, 1, 10)  # of the test images, the surest ones first


def coverage(results: list[Result], target: float = TARGET) -> pd.DataFrame:
    """Choose for each model, on validation, the confidence from which on it answers; see on test what comes of it.

    Answers shall be right with at least the probability `target`: see `selective.threshold_for`, which goes by plain
    accuracy and takes validation images for independent, whatever their class, their series or the measure that leads;
    where they come in groups the promise may be broken more often. Writes coverage.csv,
    accuracy_by_coverage.csv (the accuracy of the surest tenth of the test images, of two tenths, and so on) and
    coverage.png.

    Returns:
        One row per model: model, name, target_accuracy; reached and threshold (empty where validation shows none);
        val_images, least_val_images (without which nothing can be shown), test_images; val_coverage, the share of
        images that is answered, and val_answered_accuracy, that of the answers; test_coverage and
        test_answered_accuracy, with their 95 % intervals (Wilson's or, where images come in groups, by these: see
        `clusters.reach`); test_accuracy, where all are answered; and test_groups, where there are any. What has no
        threshold or no answers is empty.
    """
    known = {
        result.run.title: [
            selective.confidences(part.labels.numpy(), part.probabilities.numpy())
            for part in (result.trained.val, result.test)
        ]
        for result in results
    }
    models = pd.DataFrame({"model": list(known), "name": [result.run.name for result in results]})
    judged = zip(known.values(), (result.groups for result in results), strict=True)
    table = models.join(pd.DataFrame([_row(*both, target, groups) for both, groups in judged]))
    tests = [test for _, test in known.values()]
    steps = [models.assign(coverage=share, test_accuracy=[_surest(test, share) for test in tests]) for share in SHARES]
    folder = results[0].run.context.config.results_path
    write_csv(folder / "coverage.csv", table)
    write_csv(folder / "accuracy_by_coverage.csv", pd.concat(steps, ignore_index=True))
    curves = {title: selective.curve(test)[1:] for title, (_, test) in known.items()}
    figures.save(figures.coverage(curves, table), folder / "coverage.png")
    return table


def _row(
    val: selective.Confidences, test: selective.Confidences, target: float, groups: np.ndarray | None = None
) -> dict:
    """`groups`: int64 N, of the test images."""
    threshold = selective.threshold_for(val, target)
    row = {
        "target_accuracy": target,
        "reached": threshold is not None,
        "threshold": math.nan if threshold is None else threshold,
        "val_images": len(val),
        "least_val_images": selective.least_images(target),
        "test_images": len(test),
    }
    for part, of in (("val", val), ("test", test)):
        all_of_them = np.full(len(of), threshold is not None)
        answered = all_of_them & (of.confidence >= (threshold or 0))
        for what, flags, among in (("coverage", answered, all_of_them), ("answered_accuracy", of.right, answered)):
            value, *ends = _share(flags[among], groups[among] if part == "test" and groups is not None else None)
            row[f"{part}_{what}"] = value
            if part == "test":
                row |= dict(zip((f"test_{what}_low", f"test_{what}_high"), ends, strict=True))
    row["test_accuracy"] = float(test.right.mean())
    return row if groups is None else row | {"test_groups": len(np.unique(groups))}


def _share(flags: np.ndarray, groups: np.ndarray | None) -> tuple[float, float, float]:
    """Of bool N those that are true, with the 95 % interval; nothing of nothing."""
    if not len(flags):
        return (math.nan,) * 3
    return metrics.with_interval(np.ones(len(flags), bool), flags, "accuracy", groups)


def _surest(test: selective.Confidences, share: float) -> float:
    """Accuracy of this share of the images, those of equal confidence all in."""
    _, answered, right = selective.curve(test)
    at = int(np.searchsorted(answered, share * len(test) - 1e-9))
    return float(right[at] / answered[at])
