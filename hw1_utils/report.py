"""What is left when a run is over: CSVs, pictures, the stamp, and the conclusion in words, all from its numbers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from . import figures, metrics
from .data import Split
from .experiment import Training, evaluate_both_ways, evaluate_on_test
from .files import atomic, write_csv, write_json
from .runtime import peak_rss_mb
from .tasks import Setup, Task
from .training import Evaluation


@dataclass(frozen=True)
class Result:
    """A trained model, judged on test."""

    training: Training
    test: Evaluation
    classes: list[str]

    @property
    def task(self) -> Task:
        return self.training.task

    @property
    def predictions(self) -> np.ndarray:
        return self.test.probabilities.argmax(1).numpy()

    @property
    def correct(self) -> np.ndarray:
        return self.predictions == self.test.labels.numpy()

    def per_class(self) -> pd.DataFrame:
        return metrics.per_class(self.test.labels.numpy(), self.predictions, self.classes)

    def confusion(self) -> np.ndarray:
        return metrics.confusion(self.test.labels.numpy(), self.predictions, len(self.classes))


def judge(training: Training, test: Split) -> Result:
    """Evaluate a trained model on test."""
    return Result(training, evaluate_on_test(training, test), training.task.setup.classes)


def draw_curves(training: Training) -> Path:
    """Write the learning curves of one model; the PNG's path."""
    task = training.task
    return figures.save(figures.learning_curves(training.history, task.title, task.name), task.results / "curves.png")


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


def metrics_row(result: Result) -> dict:
    """One row of model_metrics_comparison.csv."""
    training, task = result.training, result.task
    setup = task.setup
    history = training.history
    epoch = metrics.converged_at(history["val_accuracy"].tolist())
    train_seconds = float(history["elapsed_seconds"].iloc[epoch - 1])
    quality = metrics.summary(result.test.labels.numpy(), result.test.probabilities.numpy())
    train, val = training.evaluations["train"], training.evaluations["val"]
    return {
        "model": task.title,
        **task.details,
        **{f"test_{name}": value for name, value in quality.items()},
        "val_accuracy": val.accuracy,
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
    """Write both comparison CSVs, the figures, the conclusion, and the files that say where it all comes from.

    Returns:
        The tables of model_metrics_comparison.csv and model_profile_comparison.csv.
    """
    # With cnn_recipe="assignment" the headline CNN and the assignment's are one experiment: one row.
    results = list({result.task.name: result for result in results}.values())
    setup = results[0].task.setup
    folder = setup.config.results_path
    quality = pd.DataFrame([metrics_row(result) for result in results])
    costs = pd.DataFrame(
        [{"model": r.task.title, **r.task.details, **r.training.costs, **stamp(setup)} for r in results]
    )
    write_csv(folder / "model_metrics_comparison.csv", quality)
    write_csv(folder / "model_profile_comparison.csv", costs)
    names = [result.task.name for result in results]
    titles = [result.task.title for result in results]
    histories = {title: result.training.history for title, result in zip(titles, results, strict=True)}
    operators = {title: result.training.operators for title, result in zip(titles, results, strict=True)}
    before = [spent_before(result.training) for result in results]
    figures.save(figures.comparison(histories, names, before), folder / "convergence.png")
    figures.save(figures.operator_shares(operators), folder / "operators.png")
    figures.save(figures.quality_and_cost(quality, costs, names), folder / "quality_and_cost.png")
    write_json(folder / "config.json", setup.config.shown())
    write_json(folder / "environment.json", {**setup.environment, "peak_rss_mb": peak_rss_mb()})
    with atomic(folder / "conclusion.md") as partial:
        partial.write_text(conclusion(results, quality, costs), encoding="utf-8")
    return quality, costs


def conclusion(results: list[Result], quality: pd.DataFrame, costs: pd.DataFrame) -> str:
    """The assignment's discussion as Markdown: convergence, generalisation, performance, bottlenecks, conclusion.

    Compares the first CNN (the headline) with the first probe (the plain one).
    """
    pair = [next(i for i, r in enumerate(results) if r.task.kind == kind) for kind in ("cnn", "probe")]
    cnn, probe = (quality.iloc[i] for i in pair)
    cnn_cost, probe_cost = (costs.iloc[i] for i in pair)
    only_cnn, only_probe, p = metrics.mcnemar(*(results[i].correct for i in pair))
    gap = probe["test_accuracy"] - cnn["test_accuracy"]
    total = int(cnn["test_images"])
    significant = p < 0.05
    better, other = (probe, cnn) if gap > 0 else (cnn, probe)
    verdict = (
        f"**{better['model']}** is better than {other['model']} by {abs(gap) * 100:.1f} points"
        if significant
        else f"The difference of {abs(gap) * 100:.1f} points between the two models is within the noise"
    )
    macs = probe_cost["macs"] / cnn_cost["macs"]
    calls = probe_cost["operator_calls_per_step"] / cnn_cost["operator_calls_per_step"]
    top = {r.task.title: r.training.operators.iloc[0] for r in (results[i] for i in pair)}
    share = probe_cost["extraction_seconds"] / probe_cost["total_training_seconds"]
    seconds = probe_cost["total_training_seconds"] / cnn_cost["total_training_seconds"]
    speed = cnn_cost["inference_images_per_second"] / probe_cost["inference_images_per_second"]
    lines = [
        f"*{cnn['train_images']:,} training, {cnn['val_images']:,} validation and {total:,} test images; "
        f"seed {cnn['seed']}; {cnn['device']}, {cnn['precision']}; torch {cnn['torch']}, timm {cnn['timm']}.*",
        "",
        "**Convergence.** "
        + " ".join(
            f"{row['model']} comes within a point of its best validation accuracy after {row['epochs_to_converge']} of "
            f"{row['epochs']} epochs, {row['seconds_to_converge']:.0f} s"
            + (
                " (features included)."
                if row["encoder"]
                else " (teacher included)."
                if row["recipe"] == "taught"
                else "."
            )
            for _, row in quality.iterrows()
        ),
        "",
        "**Generalisation.** With augmentation off, "
        + "; ".join(
            f"{row['model']}: {row['train_accuracy']:.1%} on train, {row['val_accuracy']:.1%} on val, "
            f"{row['test_accuracy']:.1%} on test, a gap of {row['generalisation_gap'] * 100:.1f} points"
            for _, row in quality.iterrows()
        )
        + ".",
        "",
        f"**Performance.** {cnn['model']}: {_with_interval(cnn)}; {probe['model']}: {_with_interval(probe)}. {verdict} "
        f"(on the same {total:,} images, {only_probe} are right only with the probe and {only_cnn} only with the CNN; "
        f"exact McNemar test, {'p < 0.001' if p < 0.001 else f'p = {p:.3f}'}).",
        "",
        f"**Bottlenecks.** A prediction costs the probe {macs:,.0f} times the CNN's multiply-adds "
        f"({probe_cost['macs'] / 1e6:,.1f} M against {cnn_cost['macs'] / 1e6:,.1f} M), though a training step makes "
        f"only {calls:.1f} times as many operator calls: calls are counted, not weighed. Most of the traced time goes "
        "to "
        + " and ".join(f"`{row['operator']}` ({row['share']:.0%}; {title})" for title, row in top.items())
        + f". Of the probe's {probe_cost['total_training_seconds']:.0f} s, {share:.0%} are feature extraction.",
        "",
        f"**Conclusion.** {verdict}. The probe trains {_times(seconds)} the CNN and predicts "
        f"{_slower(speed)} ({probe_cost['inference_images_per_second']:,.0f} against "
        f"{cnn_cost['inference_images_per_second']:,.0f} images/s). "
        + _advice(significant, gap)
        + _dilemma(quality, cnn),
    ]
    return "\n".join(lines) + "\n"


def _spent(row: pd.Series) -> str:
    return "feature extraction" if row["encoder"] else "teacher" if row["recipe"] == "taught" else ""


def _dilemma(quality: pd.DataFrame, cnn: pd.Series) -> str:
    """What the CNN taught by the probe has to say to the choice between the two."""
    taught = quality[quality["recipe"] == "taught"]
    if taught.empty:
        return ""
    gain = (taught.iloc[0]["test_accuracy"] - cnn["test_accuracy"]) * 100
    said = f"{abs(gain):.1f} points {'better' if gain > 0 else 'worse'} than"
    return (
        f" Between the two stands the CNN that the probe has taught: {_with_interval(taught.iloc[0])}, {said} the CNN "
        "without a teacher, at the same price per prediction."
    )


def write_flips(results: list[Result], test: Split) -> pd.DataFrame:
    """Write flip_averaging.csv: what a CNN gains by averaging over an image and its mirror image. Never a headline."""
    rows = []
    for result in (r for r in results if r.task.kind == "cnn"):
        both = evaluate_both_ways(result.training, test)
        for passes, evaluation in ((1, result.test), (2, both)):
            quality = metrics.summary(evaluation.labels.numpy(), evaluation.probabilities.numpy())
            rows.append({"model": result.task.title, "passes_per_image": passes} | quality)
    table = pd.DataFrame(rows)
    write_csv(results[0].task.setup.config.results_path / "flip_averaging.csv", table)
    return table


def _with_interval(row: pd.Series) -> str:
    interval = f"95 % interval {row['test_accuracy_low']:.1%} to {row['test_accuracy_high']:.1%}"
    return f"{row['test_accuracy']:.1%} ({interval}), macro F1 {row['test_macro_f1']:.3f}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times as long as" if ratio >= 1 else f"{1 / ratio:.1f} times less long than"


def _slower(ratio: float) -> str:
    return f"{ratio:,.0f} times slower" if ratio >= 1 else f"{1 / ratio:,.1f} times faster"


def _advice(significant: bool, gap: float) -> str:
    if not significant:
        return "As long as no difference can be shown, take the cheaper one: the CNN."
    if gap < 0:
        return "On this data the CNN is the better one: take it."
    return (
        "Where accuracy counts and a prediction may cost that much, take the probe; where predictions must be cheap "
        "or the device small, take the CNN."
    )
