"""Which penalty does a probe want? A logistic regression on its features, its penalty chosen on validation."""

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ..context import Context
from ..data import Samples, Split
from ..experiment import Run, Trained
from ..features import CHUNK
from ..io.files import write_csv
from ..report import figures
from .common import fair_part

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of LogisticRegression: the inverse of the penalty
SWEEP_IMAGES = 50_000  # training images at most, fewer where memory has no room for scikit-learn's copies of them,
WORK = 2e9  # or where rows · columns · classes are more: a fit of two or three minutes,
LEAST_IMAGES = 2000  # but this many always
SECONDS = 7e-8  # on two cores, of a fit: for each row, column and class
COPIES = 5  # float32: the rows, half as many of validation, both together, and these standardised


def logreg(probes: list[Trained], test: Split) -> pd.DataFrame:
    """Choose the penalty of a logistic regression on each probe's features, as DINOv2's evaluation does.

    scikit-learn's L-BFGS on standardised features, one fit for each strength on train, the smallest validation loss
    wins; refitted on train and val together, it is evaluated on test once. Writes penalty.csv and penalty.png. What is
    fitted is in memory, and may be a part (see `most_images`); what is judged is read CHUNK rows at a time.

    Returns:
        One row per probe and strength: model, name, strength, train_images and of_train_images (fitted, of how many),
        val_accuracy, val_loss, chosen, and for the chosen one refitted_test_accuracy.
    """
    table = pd.concat([_sweep(trained.run, test) for trained in probes], ignore_index=True)
    folder = probes[0].run.context.config.results_path
    write_csv(folder / "penalty.csv", table)
    own = {trained.run.title: {"accuracy": trained.val.accuracy, "loss": trained.val.loss} for trained in probes}
    figures.save(figures.penalty(table, pd.DataFrame(own).T), folder / "penalty.png")
    return table


def most_images(context: Context, columns: int, classes: int) -> int:
    """Images with so many features and classes that scikit-learn may be given at once."""
    fit = min(context.room.left // (COPIES * columns * 4), int(WORK / (columns * classes)))
    return min(SWEEP_IMAGES, max(LEAST_IMAGES, fit))


def _sweep(run: Run, test: Split) -> pd.DataFrame:
    context, classes, seed = run.context, len(run.data.classes), run.context.config.seed
    most = most_images(context, run.train.inputs.shape[1], classes)
    train = _taken(run.train, fair_part(run.data.train, most, seed, f"{run.title}: penalties are fitted on"))
    val = _taken(run.val, fair_part(run.data.val, most // 2, seed, f"{run.title}: the refit has beside them"))
    work = len(train[1]) * train[0].shape[1] * classes * (len(STRENGTHS) + 1)
    print(f"{run.title}: about {work * SECONDS:,.0f} s for {len(STRENGTHS) + 1} fits")
    balance = "balanced" if context.config.class_weights else None

    def head(strength: float) -> Pipeline:
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500, class_weight=balance))

    rows = []
    for strength in STRENGTHS:
        accuracy, loss = _judged(head(strength).fit(*train), run.val)
        rows.append({"strength": strength, "val_accuracy": accuracy, "val_loss": loss})
    table = pd.DataFrame(rows)
    table["chosen"] = table.index == table["val_loss"].idxmin()
    refitted = head(float(table.loc[table["chosen"], "strength"].iloc[0]))
    refitted.fit(*(np.concatenate(both) for both in zip(train, val, strict=True)))
    score, _ = _judged(refitted, run.samples(test))
    table["refitted_test_accuracy"] = [score if chosen else None for chosen in table["chosen"]]
    for name, value in {"of_train_images": len(run.train), "train_images": len(train[1])}.items():
        table.insert(1, name, value)
    table.insert(0, "model", run.title)
    table.insert(1, "name", run.name)
    return table


def _taken(samples: Samples, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """These features, float32 M×D, and labels, int64 M."""
    chosen = torch.from_numpy(rows)
    values = torch.cat([samples.inputs[part].cpu() for part in chosen.split(CHUNK)])
    return values.numpy(), samples.targets.cpu()[chosen].numpy()


def _judged(head: Pipeline, samples: Samples) -> tuple[float, float]:
    """(accuracy, mean log-loss) of a fitted head, CHUNK rows at a time; no probability is less than scikit-learn's."""
    right, loss = 0, 0.0
    for start in range(0, len(samples), CHUNK):
        part = slice(start, start + CHUNK)
        labels = samples.targets[part].cpu().numpy()
        probabilities = head.predict_proba(samples.inputs[part].cpu().numpy())
        own = (probabilities * (head.classes_ == labels[:, None])).sum(1)  # 0 for a class that the head has not seen
        right += int((head.classes_[probabilities.argmax(1)] == labels).sum())
        loss -= float(np.log(np.maximum(own, np.finfo(own.dtype).eps), dtype=np.float64).sum())
    return right / len(samples), loss / len(samples)
