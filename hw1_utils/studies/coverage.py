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
    accuracy and by images, whatever their class, their series or the measure that leads. Writes coverage.csv,
    accuracy_by_coverage.csv (the accuracy of the surest tenth of the test images, of two tenths, and so on) and
    coverage.png.

    Returns:
        One row per model: model, name, target_accuracy; reached and threshold (empty where validation shows none);
        val_images, least_val_images (without which nothing can be shown), test_images; val_coverage, the share of
        images that is answered, and val_answered_accuracy, that of the answers; test_coverage and
        test_answered_accuracy, with their 95 % Wilson intervals (by images, also where these come in groups); and
        test_accuracy, where all are answered. What has no threshold or no answers is empty.
    """
    known = {
        result.run.title: [
            selective.confidences(part.labels.numpy(), part.probabilities.numpy())
            for part in (result.trained.val, result.test)
        ]
        for result in results
    }
    models = pd.DataFrame({"model": list(known), "name": [result.run.name for result in results]})
    table = models.join(pd.DataFrame([_row(*both, target) for both in known.values()]))
    tests = [test for _, test in known.values()]
    steps = [models.assign(coverage=share, test_accuracy=[_surest(test, share) for test in tests]) for share in SHARES]
    folder = results[0].run.context.config.results_path
    write_csv(folder / "coverage.csv", table)
    write_csv(folder / "accuracy_by_coverage.csv", pd.concat(steps, ignore_index=True))
    curves = {title: selective.curve(test)[1:] for title, (_, test) in known.items()}
    figures.save(figures.coverage(curves, table), folder / "coverage.png")
    return table


def _row(val: selective.Confidences, test: selective.Confidences, target: float) -> dict:
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
        images, (answered, right) = (0, (0, 0)) if threshold is None else (len(of), of.answered(threshold))
        shares = {"coverage": (answered, images), "answered_accuracy": (right, answered)}
        for what, (some, of_all) in shares.items():
            row[f"{part}_{what}"] = some / of_all if of_all else math.nan
            if part == "test":
                low, high = metrics.wilson(some, of_all) if of_all else (math.nan, math.nan)
                row |= {f"{part}_{what}_low": low, f"{part}_{what}_high": high}
    return row | {"test_accuracy": float(test.right.mean())}


def _surest(test: selective.Confidences, share: float) -> float:
    """Accuracy of this share of the images, those of equal confidence all in."""
    _, answered, right = selective.curve(test)
    at = int(np.searchsorted(answered, share * len(test) - 1e-9))
    return float(right[at] / answered[at])
