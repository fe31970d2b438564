"""What several studies need: a training without trace and logs, scores of some images, a fair choice of images."""

import numpy as np

from .. import metrics
from ..data import Data, Split
from ..experiment import Result, Run, fit_run, judge
from ..io.splits import stratified_subset
from ..training import Predictions


def train_only(run: Run, *others: Split, name: str = "", **options: object) -> list[Predictions]:
    """Train without trace and logs; what the model then says about validation and `others`.

    Args:
        name: of the checkpoint, beside the run's own; none is kept without.
        options: for `fit`.
    """
    model, _ = fit_run(run, checkpoint=run.checkpoint(name) if name else None, **options)
    splits = [run.val, *(run.samples(split) for split in others)]
    return [judge(run, model, samples, run.context.room.for_a_while()) for samples in splits]


def val_columns(data: Data, val: Predictions) -> dict:
    """Accuracy on validation, and the measure that leads on `data`, the whole run's, with its interval."""
    groups = None if data.val.groups is None else data.val.groups.numpy()
    scores = metrics.with_interval(val.labels.numpy(), val.guesses, data.leading, groups)
    return {"leading": data.leading, "val_accuracy": val.accuracy, **interval_columns("val_score", scores)}


def interval_columns(name: str, values: tuple[float, float, float]) -> dict[str, float]:
    """A value and the ends of its interval as columns: name, name_low, name_high."""
    return {f"{name}{end}": value for end, value in zip(("", "_low", "_high"), values, strict=True)}


def compared(results: list[Result]) -> tuple[Result | None, Result | None]:
    """The two that the conclusion compares, as far as they are there: the first CNN, the plain probe best on val."""
    cnn = next((result for result in results if result.run.kind == "cnn"), None)
    plain = [result for result in results if result.run.variant == "cls"]
    return cnn, max(plain, key=lambda result: result.trained.val_score, default=None)


def score_on(result: Result, rows: np.ndarray) -> tuple[float, float, float]:
    """The leading measure on some test images (indices or bool N), with its 95 % interval."""
    labels, groups = result.test.labels.numpy()[rows], None if result.groups is None else result.groups[rows]
    return metrics.with_interval(labels, result.test.guesses[rows], result.run.data.leading, groups)


def difference_on(first: Result, second: Result, rows: np.ndarray) -> tuple[float, float, float]:
    """The second's leading measure minus the first's on some test images, with its 95 % interval."""
    balanced = first.run.data.leading == "balanced_accuracy"
    labels = first.test.labels.numpy()[rows] if balanced else None
    groups = None if first.groups is None else first.groups[rows]
    return metrics.paired_difference(first.correct[rows], second.correct[rows], labels, groups)


def fair_part(split: Split, most: int, seed: int, what: str) -> np.ndarray:
    """Rows of a seeded part of `most`, int64 in order: see `stratified_subset`. All, if there are no more.

    Of a part it is said before the work begins; `what`: what is done with it, as "penalties are fitted on".
    """
    rows = stratified_subset(split.labels.cpu().numpy(), most, seed)
    if len(rows) < len(split):
        print(f"{what} {len(rows):,} of {len(split):,} {split.name} images, drawn class by class (seed {seed})")
    return rows


def spread(mask: np.ndarray, most: int) -> np.ndarray:
    """Up to `most` indices, spread evenly over all where the mask holds: not picked, not the first class only."""
    return evenly(np.flatnonzero(mask), most)


def evenly(rows: np.ndarray, most: int) -> np.ndarray:
    """Up to `most` of N rows, the first and the last among them, spread evenly over all."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)] if len(rows) and most else rows[:0]
