"""The evidence behind the comparison: how far probabilities can be believed, and where two models differ."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from .. import metrics
from ..data import Split
from ..io.files import write_csv
from ..judging import Result
from ..report import charts, figures

SHOWN = 10  # images of each kind in the gallery


def write_calibration(results: list[Result]) -> pd.DataFrame:
    """Write calibration.csv and calibration.png: log-loss and calibration error on test, as they are and rescaled.

    Rescaled: with the temperature fitted on validation (Guo et al. 2017). Accuracy does not change by it. Where
    validation does not tell it (see `metrics.fit_temperature`), `identifiable` is False and those cells are empty.
    """
    rows, curves = [], {}
    for result in results:
        val = result.training.evaluations["val"]
        temperature = metrics.fit_temperature(val.labels.numpy(), val.probabilities.numpy())
        labels, probabilities = result.test.labels.numpy(), result.test.probabilities.numpy()
        row = {
            "model": result.task.title,
            "name": result.task.name,
            "identifiable": temperature is not None,
            "temperature": math.nan if temperature is None else temperature,
        }
        tables = []
        for suffix, scale in (("", 1.0), ("_rescaled", temperature)):
            if scale is None:
                row |= {f"test_loss{suffix}": math.nan, f"calibration_error{suffix}": math.nan}
                continue
            scaled = metrics.with_temperature(probabilities, scale)
            tables.append(metrics.reliability(labels, scaled))
            row[f"test_loss{suffix}"] = -float(np.log(scaled[np.arange(len(labels)), labels]).mean())
            row[f"calibration_error{suffix}"] = metrics.calibration_error(tables[-1])
        rows.append(row)
        curves[result.task.title] = tuple(tables)
    table = pd.DataFrame(rows)
    folder = results[0].task.setup.config.results_path
    write_csv(folder / "calibration.csv", table)
    figures.save(charts.calibration(curves, [r.task.name for r in results]), folder / "calibration.png")
    return table


@dataclass(frozen=True)
class Differences:
    """Where two models differ on the same test images."""

    shares: pd.Series  # both right, only the first, only the second, both wrong
    classes: pd.DataFrame  # per class: precision, recall and F1 of both, side by side
    confused: pd.DataFrame  # the most confused pairs of both
    gallery: Path


def write_differences(first: Result, second: Result, test: Split) -> Differences:
    """Write differences.csv, confused_pairs.csv and disagreements.png for two models on the same test images."""
    folder = first.task.setup.config.results_path
    a, b = first.correct, second.correct
    masks = {"both right": a & b, "only the first": a & ~b, "only the second": b & ~a, "both wrong": ~a & ~b}
    shares = pd.Series({name: float(mask.mean()) for name, mask in masks.items()}, name="share of test images")
    both = {result.task.title: result for result in (first, second)}
    tables = {title: result.per_class() for title, result in both.items()}
    classes = pd.concat({title: table.drop(columns="support") for title, table in tables.items()}, axis=1)
    pairs = [
        metrics.confused_pairs(result.confusion(), result.classes).assign(model=title, name=result.task.name)
        for title, result in both.items()
    ]
    confused = pd.concat(pairs, ignore_index=True)
    flat = classes.set_axis([f"{measure} ({title})" for title, measure in classes.columns], axis=1)
    write_csv(folder / "differences.csv", flat.rename_axis("class").reset_index())
    write_csv(folder / "confused_pairs.csv", confused)
    gallery = folder / "disagreements.png"
    chosen = [i for name in ("only the first", "only the second") for i in _spread(masks[name])]
    captions = [_caption(i, first, second) for i in chosen]
    title = f"Right only with the first (then: only with the second). 1: {first.task.title}; 2: {second.task.title}"
    figures.save(figures.image_grid(test.images[chosen], captions, title, columns=SHOWN, caption_lines=3), gallery)
    return Differences(shares, classes, confused, gallery)


def _spread(mask: np.ndarray) -> np.ndarray:
    """Up to ten indices, evenly spread over all where the mask holds: not picked by hand, not the first class only."""
    where = np.flatnonzero(mask)
    return where[np.linspace(0, len(where) - 1, min(SHOWN, len(where))).astype(int)] if len(where) else where


def _caption(i: int, first: Result, second: Result) -> str:
    lines = [first.classes[first.test.labels[i]]]
    for number, result in enumerate((first, second), start=1):
        guess = int(result.predictions[i])
        lines.append(f"{number}: {result.classes[guess]} {result.test.probabilities[i, guess]:.2f}")
    return "\n".join(lines)
