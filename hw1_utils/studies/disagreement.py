"""Where do two models differ?"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from .. import metrics
from ..data import Split
from ..experiment import Result
from ..io.files import write_csv
from ..report import figures
from .common import spread

SHOWN = 10  # images of each kind in the gallery


@dataclass(frozen=True)
class Differences:
    """Where two models differ on the same test images."""

    shares: pd.Series  # both right, only the first, only the second, both wrong
    classes: pd.DataFrame  # per class: precision, recall and F1 of both, side by side
    confused: pd.DataFrame  # the most confused pairs of both
    gallery: Path


def disagreement(first: Result, second: Result, test: Split) -> Differences:
    """Compare two models image by image. Writes differences.csv, confused_pairs.csv and disagreements.png."""
    folder = first.run.context.config.results_path
    a, b = first.correct, second.correct
    masks = {"both right": a & b, "only the first": a & ~b, "only the second": b & ~a, "both wrong": ~a & ~b}
    shares = pd.Series({name: float(mask.mean()) for name, mask in masks.items()}, name="share of test images")
    both = {result.run.title: result for result in (first, second)}
    tables = {title: result.per_class() for title, result in both.items()}
    classes = pd.concat({title: table.drop(columns="support") for title, table in tables.items()}, axis=1)
    pairs = [
        metrics.confused_pairs(result.confusion(), test.classes).assign(model=title, name=result.run.name)
        for title, result in both.items()
    ]
    confused = pd.concat(pairs, ignore_index=True)
    flat = classes.set_axis([f"{measure} ({title})" for title, measure in classes.columns], axis=1)
    write_csv(folder / "differences.csv", flat.rename_axis("class").reset_index())
    write_csv(folder / "confused_pairs.csv", confused)
    gallery = folder / "disagreements.png"
    chosen = [i for name in ("only the first", "only the second") for i in spread(masks[name], SHOWN)]
    captions = [_caption(i, first, second, test.classes) for i in chosen]
    title = f"Right only with the first (then: only with the second). 1: {first.run.title}; 2: {second.run.title}"
    images = test.take(torch.tensor(chosen, dtype=torch.int64))
    figures.save(figures.image_grid(images, captions, title, columns=SHOWN, caption_lines=3), gallery)
    return Differences(shares, classes, confused, gallery)


def _caption(i: int, first: Result, second: Result, classes: list[str]) -> str:
    lines = [classes[first.test.labels[i]]]
    for number, result in enumerate((first, second), start=1):
        guess = int(result.test.guesses[i])
        lines.append(f"{number}: {classes[guess]} {result.test.probabilities[i, guess]:.2f}")
    return "\n".join(lines)
