"""Which penalty does a probe want? A logistic regression on its features, its penalty chosen on validation."""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ..context import Context
from ..data import Split
from ..experiment import Run, Trained
from ..io.files import write_csv
from ..report import figures

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of LogisticRegression: the inverse of the penalty
SWEEP_IMAGES = 50_000  # training images at most, fewer where memory has no room for scikit-learn's copies of them,
LEAST_IMAGES = 2000  # but this many always
SECONDS = 7e-8  # on two cores, of a fit: for each row, column and class
COPIES = 4  # float32: the rows, rows and validation together, both standardised


def logreg(probes: list[Trained], test: Split) -> pd.DataFrame:
    """Choose the penalty of a logistic regression on each probe's features, as DINOv2's evaluation does.

    scikit-learn's L-BFGS on standardised features, one fit for each strength on train, the smallest validation loss
    wins; refitted on train and val together, it is evaluated on test once. Writes penalty.csv and penalty.png.

    Returns:
        One row per probe and strength: model, name, strength, val_accuracy, val_loss, chosen, and for the chosen one
        refitted_test_accuracy.
    """
    table = pd.concat([_sweep(trained.run, test) for trained in probes], ignore_index=True)
    folder = probes[0].run.context.config.results_path
    write_csv(folder / "penalty.csv", table)
    own = {trained.run.title: {"accuracy": trained.val.accuracy, "loss": trained.val.loss} for trained in probes}
    figures.save(figures.penalty(table, pd.DataFrame(own).T), folder / "penalty.png")
    return table


def most_images(context: Context, columns: int) -> int:
    """Images with so many features that scikit-learn may be given at once."""
    return min(SWEEP_IMAGES, max(LEAST_IMAGES, context.room.left // (COPIES * columns * 4)))


def _sweep(run: Run, test: Split) -> pd.DataFrame:
    context, classes = run.context, len(run.data.classes)
    samples = [run.train, run.val, run.samples(test)]
    features, labels = [one.inputs for one in samples], [one.targets for one in samples]
    most = most_images(context, features[0].shape[1])
    if len(labels[0]) > most:
        part = run.data.subset(most, context.config.seed).train
        features[0], labels[0] = features[0].subset(part.images.index), part.labels
    features = [rows[:].cpu().numpy() for rows in features]
    labels = [one.cpu().numpy() for one in labels]
    work = len(labels[0]) * features[0].shape[1] * classes * (len(STRENGTHS) + 1)
    print(f"{run.title}: about {work * SECONDS:,.0f} s for {len(STRENGTHS) + 1} fits")
    balance = "balanced" if context.config.class_weights else None

    def head(strength: float) -> Pipeline:
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500, class_weight=balance))

    rows = []
    for strength in STRENGTHS:
        probabilities = head(strength).fit(features[0], labels[0]).predict_proba(features[1])
        accuracy = float((probabilities.argmax(1) == labels[1]).mean())
        loss = log_loss(labels[1], probabilities, labels=range(classes))
        rows.append({"strength": strength, "val_accuracy": accuracy, "val_loss": loss})
    table = pd.DataFrame(rows)
    table["chosen"] = table.index == table["val_loss"].idxmin()
    refitted = head(float(table.loc[table["chosen"], "strength"].iloc[0]))
    refitted.fit(np.concatenate(features[:2]), np.concatenate(labels[:2]))
    score = float(refitted.score(features[2], labels[2]))
    table["refitted_test_accuracy"] = [score if chosen else None for chosen in table["chosen"]]
    table.insert(0, "model", run.title)
    table.insert(1, "name", run.name)
    return table
