"""How many training images does each model need?"""

from dataclasses import replace

import pandas as pd

from .. import experiment
from ..data import Data
from ..experiment import Run, Trained
from ..io.files import write_csv
from ..io.progress import Progress
from ..report import figures
from ..training import Predictions
from .common import train_only, val_columns

PER_CLASS = (10, 30, 100, 300, 1000)  # training images, as far as there are so many
LONGER = 5.0  # on few images the CNN gets up to this many times the epochs


def learning_curve(cnn: Trained, probes: list[Trained]) -> pd.DataFrame:
    """Train the same models on fewer images, judged on validation. Writes learning_curve.csv and learning_curve.png.

    Each size is a stratified part of the training images. The last size is all of them: the trainings themselves.

    Returns:
        One row per size and model: model, name, train_images, leading, val_accuracy, the leading measure as val_score
        with its 95 % interval, epochs.
    """
    data, config = cnn.run.data, cnn.run.context.config
    total, rows, progress = len(data.train), [], None
    counts = [n * len(data.classes) for n in PER_CLASS if n * len(data.classes) < 0.8 * total]
    work = sum(count * cnn.run.epochs * _longer(count, total) for count in counts)
    seconds = work / cnn.seconds["loop_images_per_second"]
    print(f"Up to {seconds:,.0f} s for {len(counts)} further trainings of the CNN")
    for count in counts:
        runs = [cnn_on(data.subset(count, config.seed), cnn.run)]
        for run in (one.run for one in probes):
            features = run.features.subset(count, config.seed)  # they are there
            runs.append(experiment.probe(features, run.variant, seed=run.seed))
        for run in runs:
            what = f"  {count:,} images, {run.title}"
            with Progress(what, run.epochs, "epochs", instead_of=progress) as progress:
                (val,) = train_only(run, name=f"images-{count}", progress=progress)
                progress.close(f"{what}, {run.epochs} epochs: val {val.accuracy:.1%}")
            rows.append(_row(data, run, val))
    rows += [_row(data, trained.run, trained.val) for trained in (cnn, *probes)]
    table = pd.DataFrame(rows)
    write_csv(config.results_path / "learning_curve.csv", table)
    figures.save(figures.learning_curve(table), config.results_path / "learning_curve.png")
    return table


def cnn_on(few: Data, run: Run) -> Run:
    """The same CNN on a part of its images, for more epochs."""
    longer = _longer(len(few.train), len(run.train))
    return replace(experiment.cnn(few, run.variant, seed=run.seed), epochs=round(run.epochs * longer))


def _longer(count: int, total: int) -> float:
    """Times as many epochs on `count` of `total` images: their epoch has fewer steps."""
    return min(LONGER, (total / count) ** 0.5)


def _row(data: Data, run: Run, val: Predictions) -> dict:
    """`data`: the whole run's, which says what leads; the run's own may be a part of it."""
    model = {"model": run.title, "name": run.name, "train_images": len(run.train)}
    return model | val_columns(data, val) | {"epochs": run.epochs}
