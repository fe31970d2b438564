"""How many training images does each model need?"""

from collections.abc import Sequence
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
    rows, progress = [], None
    trainings = curve_runs(cnn.run, [trained.run for trained in probes])
    of_cnn = [run for _, run in trainings if run.kind == "cnn"]
    seconds = sum(len(run.train) * run.epochs for run in of_cnn) / cnn.seconds["loop_images_per_second"]
    print(f"Up to {seconds:,.0f} s for {len(of_cnn)} further trainings of the CNN")
    for name, run in trainings:
        what = f"  {len(run.train):,} images, {run.title}"
        with Progress(what, run.epochs, "epochs", instead_of=progress) as progress:
            (val,) = train_only(run, name=name, progress=progress)
            progress.close(f"{what}, {run.epochs} epochs: val {val.accuracy:.1%}")
        rows.append(_row(data, run, val))
    rows += [_row(data, trained.run, trained.val) for trained in (cnn, *probes)]
    table = pd.DataFrame(rows)
    write_csv(config.results_path / "learning_curve.csv", table)
    figures.save(figures.learning_curve(table), config.results_path / "learning_curve.png")
    return table


def curve_runs(cnn: Run, probes: Sequence[Run]) -> list[tuple[str, Run]]:
    """The trainings on fewer images than all, each with the name of its checkpoint."""
    data, seed, runs = cnn.data, cnn.context.config.seed, []
    for count in (n * len(data.classes) for n in PER_CLASS):
        if count < 0.8 * len(data.train):
            some = [cnn_on(data.subset(count, seed), cnn)]
            for probe in probes:
                features = probe.features.subset(count, seed)  # they are there
                some.append(experiment.probe(features, probe.variant, seed=probe.seed))
            runs += [(f"images-{count}", run) for run in some]
    return runs


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
