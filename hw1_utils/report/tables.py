"""What is left when a run is over: CSVs, pictures, and the stamp that says where their numbers come from."""

from pathlib import Path

import pandas as pd

from .. import metrics
from ..data import Split
from ..deploy.saved import save_model
from ..experiment import Training
from ..io.files import write_csv, write_json
from ..judging import Result, evaluate_both_ways
from ..measure.environment import peak_rss_mb
from ..preparation import Setup
from . import charts, figures

MILESTONES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9)  # validation accuracies


def draw_curves(training: Training) -> Path:
    """Write the learning curves of one model; the PNG's path."""
    task = training.task
    shade = figures.colour(task.name, task.rank)
    return figures.save(figures.learning_curves(training.history, task.title, shade), task.results / "curves.png")


def stamp(setup: Setup) -> dict:
    """Columns that stand in every row of every table: where the number comes from."""
    config, machine = setup.config, setup.environment
    return {
        "profile": config.profile,
        "seed": config.seed,
        "device": machine["device"],
        "threads": machine["torch_threads"],
        "precision": setup.precision.name,
        "torch": machine["packages"]["torch"],
        "timm": machine["packages"]["timm"],
    }


def spent_before(training: Training) -> float:
    """Seconds before the first epoch: computing features, training the teacher."""
    return training.costs["extraction_seconds"] + training.costs["teacher_seconds"]


def milestones(training: Training) -> pd.DataFrame:
    """Epochs and seconds until validation accuracy first reaches 50, 60, ... %; empty cells where it never does.

    Columns: model, name, val_accuracy, epochs, seconds (of training, with what came before the first epoch).
    """
    history, rows = training.history, []
    for target in MILESTONES:
        reached = history[history["val_accuracy"] >= target]
        epochs, seconds = reached[["epoch", "elapsed_seconds"]].iloc[0] if len(reached) else (None, None)
        rows.append(
            {
                "model": training.task.title,
                "name": training.task.name,
                "val_accuracy": target,
                "epochs": epochs,
                "seconds": None if seconds is None else seconds + spent_before(training),
            }
        )
    return pd.DataFrame(rows).astype({"epochs": "Int64", "seconds": "float64"})


def metrics_row(result: Result) -> dict:
    """One row of model_metrics_comparison.csv."""
    training, task = result.training, result.task
    setup = task.setup
    history = training.history
    epoch = metrics.converged_at(history["val_accuracy"].tolist())
    train_seconds = float(history["elapsed_seconds"].iloc[epoch - 1])
    quality = result.quality
    train, val = training.evaluations["train"], training.evaluations["val"]
    return {
        "model": task.title,
        "name": task.name,  # its folder in results/ and runs/
        **task.details,
        "leading": metrics.leading(setup.train.counts().values()),
        **{f"test_{name}": value for name, value in quality.items()},
        "val_accuracy": val.accuracy,
        "val_score": training.val_score,
        "val_loss": val.loss,
        "train_accuracy": train.accuracy,
        "train_loss": train.loss,
        "generalisation_gap": train.accuracy - quality["accuracy"],
        "epochs": len(history),
        "epochs_to_converge": epoch,
        "seconds_to_converge": train_seconds + spent_before(training),
        "train_images": len(train.labels),
        "val_images": len(val.labels),
        "test_images": len(result.test.labels),
        **stamp(setup),
    }


def costs_row(result: Result) -> dict:
    """One row of model_profile_comparison.csv."""
    task, top = result.task, result.training.operators.iloc[0]
    return {
        "model": task.title,
        "name": task.name,
        **task.details,
        **result.training.costs,
        "top_operator": top["operator"],  # of the traced steps
        "top_operator_share": top["share"],
        **stamp(task.setup),
    }


def outcomes(results: list[Result]) -> pd.DataFrame:
    """One row a test image: `label` (int), and under each model's name whether it got the image right."""
    return pd.DataFrame({"label": results[0].test.labels.numpy()} | {r.task.name: r.correct for r in results})


def write_model(result: Result, test: Split) -> None:
    """Everything about one model: `results/<name>/` with confusion matrices, curves, tables and predictions."""
    task, folder = result.task, result.task.results
    matrix = result.confusion()
    for file, normalised in (("cm.png", False), ("cm_norm.png", True)):
        what = "share of each true class" if normalised else f"{matrix.sum():,} test images"
        picture = figures.confusion_figure(matrix, result.classes, f"{task.title}\n{what}", normalised=normalised)
        figures.save(picture, folder / file)
    predictions = pd.DataFrame(
        {
            "path": test.paths,
            "label": [result.classes[i] for i in test.labels.tolist()],
            "prediction": [result.classes[i] for i in result.predictions],
        }
    )
    probabilities = pd.DataFrame(result.test.probabilities.numpy(), columns=[f"p_{name}" for name in result.classes])
    write_csv(folder / "predictions.csv", pd.concat([predictions, probabilities], axis=1), "%.4f")
    write_csv(folder / "history.csv", result.training.history)
    write_csv(folder / "per_class.csv", result.per_class().rename_axis("class").reset_index())


def write_comparison(results: list[Result]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write both comparison CSVs, milestones.csv, the figures, and the files that say where it all comes from.

    Returns:
        The tables of model_metrics_comparison.csv and model_profile_comparison.csv.
    """
    setup = results[0].task.setup
    folder = setup.config.results_path
    quality = pd.DataFrame([metrics_row(result) for result in results])
    costs = pd.DataFrame([costs_row(result) for result in results])
    write_csv(folder / "model_metrics_comparison.csv", quality)
    write_csv(folder / "model_profile_comparison.csv", costs)
    write_csv(folder / "milestones.csv", pd.concat([milestones(result.training) for result in results]))
    names = [result.task.name for result in results]
    titles = [result.task.title for result in results]
    histories = {title: result.training.history for title, result in zip(titles, results, strict=True)}
    operators = {title: result.training.operators for title, result in zip(titles, results, strict=True)}
    before = [spent_before(result.training) for result in results]
    figures.save(charts.comparison(histories, names, before), folder / "convergence.png")
    figures.save(charts.operator_shares(operators), folder / "operators.png")
    figures.save(charts.quality_and_cost(quality, costs, names), folder / "quality_and_cost.png")
    write_json(folder / "config.json", setup.config.shown())
    write_json(folder / "environment.json", {**setup.environment, "peak_rss_mb": peak_rss_mb()})
    return quality, costs


def save_models(results: list[Result]) -> list[Path]:
    """Write each model to a file of its own, to be used without data and settings; see `saved.save_model`."""
    return [save_model(r.training, {"test_images": len(r.test.labels)} | r.quality) for r in results]


def write_flips(results: list[Result], test: Split) -> pd.DataFrame:
    """Write flip_averaging.csv: what a CNN gains by averaging over an image and its mirror image. Never a headline."""
    rows = []
    for result in (r for r in results if r.task.kind == "cnn"):
        both = evaluate_both_ways(result.training, test)
        twice = metrics.summary(both.labels.numpy(), both.probabilities.numpy())
        for passes, quality in ((1, result.quality), (2, twice)):
            rows.append({"model": result.task.title, "name": result.task.name, "passes_per_image": passes} | quality)
    table = pd.DataFrame(rows)
    write_csv(results[0].task.setup.config.results_path / "flip_averaging.csv", table)
    return table
