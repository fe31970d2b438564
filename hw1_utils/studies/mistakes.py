"""Which images do the models get wrong, and how sure are they of it?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .. import metrics
from ..data import Split, at_side
from ..experiment import Result
from ..features import side_for
from ..io.files import write_csv
from ..report import figures, galleries
from ..report.galleries import Section, short
from .common import spread

SHOWN = 10  # most confident mistakes of each model
CELLS, OF_EACH = 5, 6  # largest cells of each model's confusion matrix, and images of each


@dataclass(frozen=True)
class Mistakes:
    """What the models get wrong on test."""

    table: pd.DataFrame  # all mistakes, the most confident first: see `mistakes`
    gallery: Path  # the most confident of each model
    cells: Path  # the pictures behind the largest cells of each model's confusion matrix


def mistakes(results: Sequence[Result], test: Split) -> Mistakes:
    """Rank and show the mistakes of models on test. Writes mistakes.csv, mistakes.png and confused_cells.png.

    The table has one row a model and image that it gets wrong: name (the model's folder), path, true, predicted,
    probability (of what was said), p_true (of the true class), same_answer (whether all of the models say this).
    Of a cell of the confusion matrix the images shown are evenly spread over all of them, in the order of test.
    """
    guesses = np.stack([result.test.guesses for result in results])
    same = (guesses == guesses[0]).all(0)
    table = pd.concat([_of(result, test).assign(same_answer=same[~result.correct]) for result in results])
    table = table.sort_values("probability", ascending=False, kind="stable", ignore_index=True)
    seen = _as_seen(results, test)
    confident = [section for result in results for section in _most_confident(result, seen)]
    behind = [section for result in results for section in _behind_cells(result, seen)]
    folder = results[0].run.context.config.results_path
    gallery, cells = folder / "mistakes.png", folder / "confused_cells.png"
    write_csv(folder / "mistakes.csv", table)
    title = "Of these mistakes the models are most sure: true class, → what was said, with its probability; file"
    figures.save(galleries.gallery(title, confident, columns=5, side=128, cell=160, lines=3), gallery)
    title = "The pictures behind the largest cells of the confusion matrices, with the probability of what was said"
    figures.save(galleries.gallery(title, behind, columns=OF_EACH, side=96, cell=108, lines=1), cells)
    return Mistakes(table, gallery, cells)


def _of(result: Result, test: Split) -> pd.DataFrame:
    """The mistakes of one model, in the order of test."""
    rows = np.flatnonzero(~result.correct)
    labels, guesses = result.test.labels.numpy()[rows], result.test.guesses[rows]
    probabilities = result.test.probabilities.numpy()
    return pd.DataFrame(
        {
            "name": result.run.name,
            "path": [test.paths[row] for row in rows],
            "true": [test.classes[label] for label in labels],
            "predicted": [test.classes[guess] for guess in guesses],
            "probability": probabilities[rows, guesses],
            "p_true": probabilities[rows, labels],
        }
    )


def _as_seen(results: Sequence[Result], test: Split) -> Split:
    """The test images as large as any of the models has seen them: they were decoded when it was judged."""
    probed = [result.run for result in results if result.run.features]
    larger = [at_side(test, side_for(run.features.encoder, run.data), run.context) for run in probed]
    return max([test, *larger], key=lambda split: split.side)


def _most_confident(result: Result, test: Split) -> list[Section]:
    """A model's heading, and the images that it gets wrong with the largest probabilities."""
    table, rows = _of(result, test), np.flatnonzero(~result.correct)
    total = f"{len(test):,} test images"
    if table.empty:
        return [Section(f"{result.run.title}: all {total} are right")]
    order = table["probability"].sort_values(ascending=False, kind="stable").index[:SHOWN]
    captions = [
        f"{short(row.true, 24)}\n→ {short(row.predicted, 17)} {row.probability:.1%}\n{short(row.path, 26)}"
        for row in table.loc[order].itertuples()
    ]
    heading = f"{result.run.title}: {len(table):,} of {total} are wrong"
    return [Section(heading), Section("", test.take(torch.from_numpy(rows[order])), captions)]


def _behind_cells(result: Result, test: Split) -> list[Section]:
    """A model's heading, and images of each of the largest cells off the diagonal."""
    labels, guesses = result.test.labels.numpy(), result.test.guesses
    pairs = metrics.confused_pairs(result.confusion(), test.classes, CELLS)
    if pairs.empty:
        return [Section(f"{result.run.title}: no class is taken for another one")]
    sections = [Section(result.run.title)]
    for cell in pairs.itertuples():
        true, predicted = test.classes.index(cell.true), test.classes.index(cell.predicted)
        rows = spread((labels == true) & (guesses == predicted), OF_EACH)
        captions = [f"{result.test.probabilities[row, predicted]:.1%}" for row in rows]
        names = " → ".join(short(name, 36) for name in (cell.true, cell.predicted))
        heading = f"{names}: {cell.images:,} image{'' if cell.images == 1 else 's'}, {cell.share:.1%} of the class"
        sections.append(Section(heading, test.take(torch.from_numpy(rows)), captions))
    return sections
