"""How far do the numbers spread if chance falls otherwise?"""

from collections.abc import Sequence

import pandas as pd

from .. import metrics
from ..data import Split
from ..experiment import Result, Run, cnn, probe
from ..io.files import write_csv
from ..io.progress import Progress
from ..training import Predictions
from .common import train_only


def seeds(results: list[Result], test: Split) -> pd.DataFrame:
    """Repeat the trainings with further seeds, on the same split and the same features. Writes seeds.csv.

    A seed decides initial weights, order and augmentation. `Config.seeds` says how many; None: see `_count`.

    Returns:
        One row per model and seed: model, name, seed, leading, and accuracy and the leading measure on val and test.
    """
    rows, progress = [], None
    further = {result.run.title: _count(result.run) - 1 for result in results}
    seconds = sum(further[result.run.title] * result.trained.seconds["training_seconds"] for result in results)
    print(f"Up to {seconds:,.0f} s for {sum(further.values())} further trainings")
    for result in results:
        own = result.run
        rows.append(_row(own, (result.trained.val, result.test)))
        for name, run in seed_runs(own):
            what = f"{run.title}, seed {run.seed}"
            with Progress(what, run.epochs, "epochs", instead_of=progress) as progress:
                found = train_only(run, test, name=name, progress=progress)
                progress.close(f"{what}: val {found[0].accuracy:.1%}, test {found[1].accuracy:.1%}")
            rows.append(_row(run, found))
    table = pd.DataFrame(rows)
    write_csv(own.context.config.results_path / "seeds.csv", table)
    return table


def seed_runs(run: Run) -> list[tuple[str, Run]]:
    """The trainings with further seeds, each with the name of its checkpoint."""
    return [
        # Of a probe, the features are those that it was trained on.
        (
            f"seed-{seed}",
            probe(run.features, run.variant, seed=seed) if run.features else cnn(run.data, run.variant, seed=seed),
        )
        for seed in range(run.seed + 1, run.seed + _count(run))
    ]


def _count(run: Run) -> int:
    """Seeds of a model. A probe's cost nothing once the features are there; on a CPU the CNN's are asked for."""
    cheap = run.kind == "probe" or run.context.device.type == "cuda"
    return run.context.config.seeds or (3 if cheap else 1)


def _row(run: Run, predictions: Sequence[Predictions]) -> dict:
    """`predictions`: on val and on test."""
    measure = run.data.leading
    row = {"model": run.title, "name": run.name, "seed": run.seed, "leading": measure}
    for part, one in zip(("val", "test"), predictions, strict=True):
        row[f"{part}_accuracy"] = one.accuracy
        row[f"{part}_score"] = metrics.score(one.labels.numpy(), one.guesses, measure)
    return row
