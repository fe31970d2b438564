"""Known answers for suspected labels: some are swapped, and it is counted how many of them are found.

python -m benchmarks.label_errors data/cifar10 my_digits my_fashion

On the images for training and validation: CIFAR-10's 50,000, and up to IMAGES of each other folder, such as
docs/example_folders.py builds. 1, 3 and 10 % of the labels are swapped, for classes at random, or each for the class
that the heads confuse with its own most often ("similar"). What was wrong before counts as right here.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from hw1_utils.config import make_config
from hw1_utils.data import Data
from hw1_utils.experiment import load
from hw1_utils.features import extract
from hw1_utils.io.arrays import Rows
from hw1_utils.io.splits import folds
from hw1_utils.models import load_encoders
from hw1_utils.studies.confident_learning import contradicted, margins, out_of_fold, own_and_other, upper_limit
from hw1_utils.studies.label_errors import FOLDS

from .common import show

IMAGES = 2000  # of a folder
SHARES = (0.01, 0.03, 0.1)
COLUMNS = ["Swapped", "Suspected", "Precision", "Recall", "Average precision", "Suggested is right", "At most wrong"]


def features(data: Data) -> tuple[list[Rows], np.ndarray]:
    """What the first encoder makes of the images for training and validation, as a probe sees it, and their labels."""
    made = extract(load_encoders(data.context)[0], data)
    columns = made.encoder.head_columns
    labels = torch.cat([data.train.labels, data.val.labels]).cpu().numpy()
    return [part.rows.columns(columns) for part in (made.train, made.val)], labels


def swap(labels: np.ndarray, share: float, similar: np.ndarray | None, seed: int = 1) -> np.ndarray:
    """The labels, of which a share is swapped: class k for similar[k], or for another one at random."""
    rng, classes = np.random.default_rng(seed), labels.max() + 1
    rows = rng.choice(len(labels), round(share * len(labels)), replace=False)
    wrong = labels.copy()
    at_random = (labels[rows] + rng.integers(1, classes, len(rows))) % classes
    wrong[rows] = at_random if similar is None else similar[labels[rows]]
    return wrong


def found(inputs: list[Rows], given: np.ndarray, right: np.ndarray) -> list[str]:
    """A row of the table, without its first column."""
    probabilities, judged = out_of_fold(inputs, given, folds(given, None, FOLDS, 0), most=50_000)
    suggested, suspected = contradicted(probabilities, given, judged)
    wrong = given != right
    row = [f"{suspected.mean():.1%}"]
    if wrong.any():
        hits = suspected & wrong
        row += [f"{hits.sum() / max(1, suspected.sum()):.0%}", f"{hits.sum() / wrong.sum():.0%}"]
        row += [
            f"{average_precision_score(wrong, -margins(probabilities, given)):.2f}",
            f"{(suggested == right)[hits].mean():.0%}",
        ]
    else:
        row += ["", "", "", ""]
    return [*row, f"{upper_limit(*own_and_other(probabilities, given)):.1%}"]


def table(data: Data, title: str) -> None:
    """All ways of swapping, and none."""
    inputs, labels = features(data)
    began = time.perf_counter()
    probabilities, _ = out_of_fold(inputs, labels, folds(labels, None, FOLDS, 0), most=50_000)
    seconds, guesses = time.perf_counter() - began, probabilities.argmax(1)
    confused = np.zeros((len(data.classes),) * 2, int)
    np.add.at(confused, (labels, guesses), 1)
    np.fill_diagonal(confused, -1)
    rows = [["none", *found(inputs, labels, labels)]]
    for kind, similar in (("at random", None), ("similar", confused.argmax(1))):
        rows += [[f"{share:.0%}, {kind}", *found(inputs, swap(labels, share, similar), labels)] for share in SHARES]
    accuracy = (guesses == labels).mean()
    show(
        f"{title}: {len(labels):,} images, heads right about {accuracy:.1%}, {seconds:.0f} s for {FOLDS} of them",
        COLUMNS,
        rows,
        data,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        for folder in options.folders:
            here = {"data_dir": folder, "output_dir": f"{home}/{Path(folder).name}"}
            config = make_config("full", **here)
            if not config.is_cifar10:
                config = make_config("full", train_size=IMAGES * 9 // 10, val_size=IMAGES // 10, **here)
            table(load(config), config.data_path.name)


if __name__ == "__main__":
    main()
