"""What is left when a run is over: one row a model, of which every table is a view; pictures; where it comes from."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .. import metrics
from ..device import peak_rss_mb
from ..io.files import write_csv, write_json
from . import figures

if TYPE_CHECKING:  # results are handed in
    from ..data import Split
    from ..experiment import Result, Trained
    from ..measure.costs import Costs

WIDE = 100  # classes; of more, predictions.csv has the probabilities of label and prediction alone
MILESTONES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9)  # validation accuracies


def record(result: "Result", costs: "Costs") -> dict:
    """A model's row of the comparison: of it are both comparison CSVs, their figures, the conclusion and the page.

    (Each model's own files, see `write_model`, and the studies' tables have columns of their own.)

    From `leading` to `test_images` they are quality, from `parameters` to `top_operator_share` cost, both with model,
    name and what it was trained with in front, and with profile, seed and machine behind.
    """
    trained, run, quality = result.trained, result.run, result.quality
    context, history = run.context, trained.history
    epoch = metrics.converged_at(history["val_accuracy"].tolist())
    machine, top = context.environment, costs.operators.iloc[0]
    return {
        "model": run.title,
        "name": run.name,  # its folder in results/ and runs/
        **run.details,
        "leading": run.data.leading,
        **{f"test_{name}": value for name, value in quality.items()},
        "val_accuracy": trained.val.accuracy,
        "val_score": trained.val_score,
        "val_loss": trained.val.loss,
        "train_accuracy": trained.train.accuracy,
        "train_loss": trained.train.loss,
        "generalisation_gap": trained.train.accuracy - quality["accuracy"],
        "epochs": len(history),
        "epochs_to_converge": epoch,
        "seconds_to_converge": float(history["elapsed_seconds"].iloc[epoch - 1]) + spent_before(trained),
        "train_images": len(trained.train.labels),
        "val_images": len(trained.val.labels),
        **groups_columns(result),
        "test_images": len(result.test.labels),
        **costs.columns,
        **trained.seconds,
        "top_operator": top["operator"],  # of the traced steps
        "top_operator_share": top["share"],
        "profile": context.config.profile,
        "seed": run.seed,
        "device": machine["device"],
        "threads": machine["torch_threads"],
        "precision": context.precision.name,
        "torch": machine["packages"]["torch"],
        "timm": machine["packages"]["timm"],
    }


def compare(results: list["Result"], costs: list["Costs"]) -> pd.DataFrame:
    """One row a model, see `record`. Writes both comparison CSVs, milestones.csv, the figures, and what it comes from.

    `costs` are those of the results' runs, in the same order.
    """
    context = results[0].run.context
    folder = context.config.results_path
    table = pd.DataFrame([record(*pair) for pair in zip(results, costs, strict=True)])
    front, behind = table.loc[:, :"weights_sha256"], table.loc[:, "profile":]
    quality, cost = table.loc[:, "leading":"test_images"], table.loc[:, "parameters":"top_operator_share"]
    write_csv(folder / "model_metrics_comparison.csv", pd.concat([front, quality, behind], axis=1))
    write_csv(folder / "model_profile_comparison.csv", pd.concat([front, cost, behind], axis=1))
    write_csv(folder / "milestones.csv", pd.concat([time_to_accuracy(result.trained) for result in results]))
    histories = {result.run.title: result.trained.history for result in results}
    before = [spent_before(result.trained) for result in results]
    operators = {title: one.operators for title, one in zip(table["model"], costs, strict=True)}
    names = table["name"].tolist()
    figures.save(figures.convergence(histories, names, before), folder / "convergence.png")
    figures.save(figures.operator_shares(operators), folder / "operators.png")
    figures.save(figures.quality_and_cost(table), folder / "quality_and_cost.png")
    write_json(folder / "config.json", context.config.shown())
    write_json(folder / "environment.json", {**context.environment, "peak_rss_mb": peak_rss_mb()})
    return table


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """What one wants to see of `compare`'s table: a row a model, eight columns, numbers as one reads them."""
    leading = table["leading"].iloc[0]

    def shown(column: str, pattern: str, scale: float = 1) -> pd.Series:
        return (table[column] * scale).map(pattern.format)

    def with_interval(measure: str) -> pd.Series:
        low, high = (shown(f"{measure}_{end}", "{:.1%}") for end in ("low", "high"))
        return shown(measure, "{:.1%}") + " (" + low + " to " + high + ")"

    columns = {
        f"test {leading.replace('_', ' ')} (95 % interval)": with_interval(f"test_{leading}"),
        "macro F1": shown("test_macro_f1", "{:.3f}"),
        "gap, points": shown("generalisation_gap", "{:.1f}", 100),
        "trained parameters": shown("trainable_parameters", "{:,}"),
        "multiply-adds, M": shown("macs", "{:,.1f}", 1e-6),
        "epochs to converge": shown("epochs_to_converge", "{}"),
        "training, s": shown("total_training_seconds", "{:,.0f}"),
        "images/s": shown("inference_images_per_second", "{:,.0f}"),
    }
    return pd.DataFrame(columns).set_axis(table["model"])


def outcomes(results: list["Result"]) -> pd.DataFrame:
    """One row a test image: `label` (int), and under each model's name whether it got the image right.

    Where images belong together, with `group` (int): of which group each is.
    """
    first = results[0]
    groups = {} if first.groups is None else {"group": first.groups}
    labels = {"label": first.test.labels.numpy()}
    return pd.DataFrame(labels | groups | {result.run.name: result.correct for result in results})


def groups_columns(result: "Result") -> dict[str, int]:
    """Of groups, where there are any: how many the test images belong to, and how many of these images are of a group
    that was trained or validated on as well.
    """
    if result.groups is None:
        return {}
    data = result.run.data
    known = np.concatenate([split.groups.numpy() for split in (data.train, data.val)])
    images = int(np.isin(result.groups, known).sum())
    return {"test_groups": len(np.unique(result.groups)), "test_images_of_known_groups": images}


def time_to_accuracy(trained: "Trained") -> pd.DataFrame:
    """Epochs and seconds until validation accuracy first reaches 50, 60, ... %; empty cells where it never does.

    Columns: model, name, val_accuracy, epochs, seconds (of training, with what came before the first epoch).
    """
    history, rows = trained.history, []
    for target in MILESTONES:
        reached = history[history["val_accuracy"] >= target]
        epochs, seconds = reached[["epoch", "elapsed_seconds"]].iloc[0] if len(reached) else (None, None)
        row = {"model": trained.run.title, "name": trained.run.name, "val_accuracy": target, "epochs": epochs}
        rows.append(row | {"seconds": None if seconds is None else seconds + spent_before(trained)})
    return pd.DataFrame(rows).astype({"epochs": "Int64", "seconds": "float64"})


def spent_before(trained: "Trained") -> float:
    """Seconds before the first epoch: computing features, training the teacher."""
    return trained.seconds["extraction_seconds"] + trained.seconds["teacher_seconds"]


def draw_curves(trained: "Trained") -> Path:
    """Write the learning curves of one model; the PNG's path."""
    run = trained.run
    shade = figures.colour(run.name, run.rank)
    return figures.save(figures.training_curves(trained.history, run.title, shade), run.results / "curves.png")


def write_model(result: "Result", test: "Split") -> None:
    """Everything about one model: `results/<name>/` with confusion matrices, curves, tables and predictions."""
    run, folder, classes = result.run, result.run.results, test.classes
    matrix = result.confusion()
    for file, normalised in (("cm.png", False), ("cm_norm.png", True)):
        what = "share of each true class" if normalised else f"{matrix.sum():,} test images"
        picture = figures.confusion(matrix, classes, f"{run.title}\n{what}", normalised=normalised)
        figures.save(picture, folder / file)
    predictions = pd.DataFrame(
        {
            "path": test.paths,
            "label": [classes[i] for i in test.labels.tolist()],
            "prediction": [classes[i] for i in result.test.guesses],
        }
    )
    probabilities = result.test.probabilities.numpy()
    if len(classes) <= WIDE:
        probabilities = pd.DataFrame(probabilities, columns=[f"p_{name}" for name in classes])
    else:
        rows = np.arange(len(test))
        columns = {"p_label": result.test.labels.numpy(), "p_prediction": result.test.guesses}
        probabilities = pd.DataFrame({name: probabilities[rows, column] for name, column in columns.items()})
    write_csv(folder / "predictions.csv", pd.concat([predictions, probabilities], axis=1), "%.4f")
    write_csv(folder / "history.csv", result.trained.history)
    write_csv(folder / "per_class.csv", result.per_class().rename_axis("class").reset_index())
