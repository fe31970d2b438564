"""What several studies need: a training without trace and logs, columns of validation, a fair choice of images."""

import numpy as np

from .. import metrics
from ..data import Data, Split
from ..experiment import Run, fit_run
from ..training import Predictions, evaluate


def train_only(run: Run, *others: Split, name: str = "", **options: object) -> list[Predictions]:
    """Train without trace and logs; what the model then says about validation and `others`.

    Args:
        name: of the checkpoint, beside the run's own; none is kept without.
        options: for `fit`.
    """
    model, _ = fit_run(run, checkpoint=run.checkpoint(name) if name else None, **options)
    splits = [run.val, *(run.samples(split) for split in others)]
    return [evaluate(model, samples.in_order(), run.precision) for samples in splits]


def val_columns(data: Data, val: Predictions) -> dict:
    """Accuracy on validation, and the measure that leads on `data`, the whole run's, with its interval."""
    groups = None if data.val.groups is None else data.val.groups.numpy()
    scores = metrics.with_interval(val.labels.numpy(), val.guesses, data.leading, groups)
    columns = {f"val_score{end}": score for end, score in zip(("", "_low", "_high"), scores, strict=True)}
    return {"leading": data.leading, "val_accuracy": val.accuracy, **columns}


def spread(mask: np.ndarray, most: int) -> np.ndarray:
    """Up to `most` indices, spread evenly over all where the mask holds: not picked, not the first class only."""
    where = np.flatnonzero(mask)
    return where[np.linspace(0, len(where) - 1, min(most, len(where))).astype(int)] if len(where) else where
