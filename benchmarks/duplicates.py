"""`python -m benchmarks.duplicates [folder]`: known kinds of copies, digits, and CIFAR-10 against the list of its own.

The folder is `meta` of github.com/cvjena/cifair, with duplicates_cifar10.csv and duplicates_cifar10_test.csv (Barz and
Denzler 2020). Their numbers count the images of the official batches, as the names of this project's files do.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.datasets import load_digits

from hw1_utils.data import Data, Split
from hw1_utils.experiment import load_test
from hw1_utils.features import extract
from hw1_utils.io import twins
from hw1_utils.models import load_encoders
from hw1_utils.studies.duplicates import find_pairs

from .common import load, machine, table
from .copies import KINDS

IMAGES = 500  # of which copies are made


def kinds(data: Data, count: int = IMAGES) -> None:
    """Copies of each kind of training images, made at their own size: how many are confirmed, and of as many pairs of
    different images how many are taken for copies.
    """
    images = data.train.images[torch.linspace(0, len(data.train) - 1, count).long()].cpu()
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    rows = []
    pairs = torch.stack([torch.arange(count), torch.arange(count, 2 * count)], 1)
    others = {name: [make(picture) for picture in pictures] for name, make in KINDS.items()}
    for name, made in {**others, "(another image)": pictures[1:] + pictures[:1]}.items():
        copies = torch.from_numpy(np.stack([np.asarray(picture) for picture in made])).permute(0, 3, 1, 2)
        small = twins.pictures(torch.cat([images, copies]))
        rows.append([name, f"{len(twins.confirm(small, pairs)[0]) / count:.1%}"])
    print(table([f"Copies of {count} images", "Confirmed"], rows))


def digits() -> None:
    """scikit-learn's 1,797 digits, of which no two are one: pairs that are taken for copies."""
    images = torch.from_numpy(load_digits().images * 15).byte()[:, None].expand(-1, 3, -1, -1)
    small = twins.pictures(images.contiguous())
    proposed = twins.by_thumbnails(small)
    pairs, _ = twins.confirm(small, proposed)
    print(
        f"digits: {len(pairs)} of {len(proposed):,} proposed pairs, in {len(pairs.unique())} of {len(small):,} images"
    )


def listed(folder: Path) -> pd.DataFrame:
    """The published pairs: path_a (the one in train, or the smaller number), path_b, judgment (1 near, 2 similar)."""
    found = []
    for name, part in (("duplicates_cifar10.csv", "train"), ("duplicates_cifar10_test.csv", "test")):
        pairs = pd.read_csv(folder / name)
        found.append(pairs.assign(part_a=part))
    return pd.concat(found, ignore_index=True)


def against_the_list(data: Data, test: Split, pairs: pd.DataFrame, folder: Path) -> None:
    """Recall of the published pairs, and how many pairs with a test image are found beyond them."""
    found = set()
    for row in pairs[pairs["part_b"] == "test"].itertuples():
        part = "test" if row.part_a == "test" else "train"
        numbers = [int(Path(path).stem) for path in (row.path_a, row.path_b)]
        found.add((part, *(sorted(numbers) if part == "test" else numbers)))
    known = listed(folder)
    keys = [
        (row.part_a, *(sorted((row.TestID, row.TrainID)) if row.part_a == "test" else (row.TrainID, row.TestID)))
        for row in known.itertuples()
    ]
    hit = known.assign(found=[key in found for key in keys])
    print(hit.groupby(["part_a", "Judgment"])["found"].agg(["size", "sum", "mean"]).to_string())
    print(f"found beyond the list: {len(found - set(keys))} of {len(found)} pairs")


if __name__ == "__main__":
    full = load()
    kinds(full)
    digits()
    if len(sys.argv) > 1:
        tested = load_test(full)
        features = extract(load_encoders(full.context)[0], full)
        started = time.perf_counter()
        everything = find_pairs(full, tested, features)
        print(f"{time.perf_counter() - started:.0f} s for {len(full.train) + len(full.val) + len(tested):,} images")
        against_the_list(full, tested, everything, Path(sys.argv[1]))
    print(machine(full))
