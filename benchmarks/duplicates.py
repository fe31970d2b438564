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
from hw1_utils.features import extract, extract_split
from hw1_utils.io import twins
from hw1_utils.models import load_encoders
from hw1_utils.studies.duplicates import find_pairs

from .common import load, machine, table
from .copies import KINDS
from .memory import INTERVAL_S, watched

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
        small = twins.pictures(torch.cat([images, copies]).__getitem__, torch.arange(2 * count), data.train.side)
        rows.append([name, f"{len(twins.confirm(small, pairs)[0]) / count:.1%}"])
    print(table([f"Copies of {count} images", "Confirmed"], rows))


def digits() -> None:
    """scikit-learn's 1,797 digits, of which no two are one: pairs that are taken for copies."""
    images = torch.from_numpy(load_digits().images * 15).byte()[:, None].expand(-1, 3, -1, -1)
    small = twins.pictures(images.__getitem__, torch.arange(len(images)), images.shape[-1])
    proposed = twins.by_thumbnails(small)
    pairs, _ = twins.confirm(small, proposed)
    print(
        f"digits: {len(pairs)} of {len(proposed):,} proposed pairs, in {len(pairs.unique())} of {len(small):,} images"
    )


def listed(folder: Path) -> pd.DataFrame:
    """The published pairs: part (of the first), first (a number), second (of a test image), kind."""
    found = []
    for name, part in (("duplicates_cifar10.csv", "train"), ("duplicates_cifar10_test.csv", "test")):
        pairs = pd.read_csv(folder / name)
        first, second = pairs["TrainID"].to_numpy(), pairs["TestID"].to_numpy()
        if part == "test":
            first, second = np.minimum(first, second), np.maximum(first, second)
        kinds = pairs["Judgment"].map({1: "near", 2: "very similar"})
        found.append(pd.DataFrame({"part": part, "first": first, "second": second, "kind": kinds}))
    return pd.concat(found, ignore_index=True)


def with_a_test_image(pairs: pd.DataFrame) -> set[tuple[str, int, int]]:
    """Of the table of `find_pairs`, those with a test image, as in `listed`: part, first, second."""
    found = pairs[pairs["part_b"] == "test"]
    numbers = [found[f"path_{side}"].map(lambda path: int(Path(path).stem)) for side in "ab"]
    parts = found["part_a"].replace("val", "train")
    return {(part, *(sorted((a, b)) if part == "test" else (a, b))) for part, a, b in zip(parts, *numbers, strict=True)}


def against_the_list(found: dict[str, pd.DataFrame], folder: Path) -> None:
    """Recall of the published pairs by each way of looking, and how many test images it has beyond them."""
    known = listed(folder)
    keys = list(known[["part", "first", "second"]].itertuples(index=False, name=None))
    said = {way: with_a_test_image(pairs) for way, pairs in found.items()}
    hits = known.assign(**{way: [key in pairs for key in keys] for way, pairs in said.items()})
    groups = hits.groupby(["part", "kind"], sort=False)
    rows = [
        [f"{part} and test, {kind}", len(some), *(f"{some[way].mean():.1%}" for way in found)]
        for (part, kind), some in sorted(groups, key=lambda group: group[0][0] == "test")
    ]
    print(table(["Listed pairs", "Number", *found], rows))
    leaked = set(known.loc[known["part"] == "train", "second"])
    for way, pairs in said.items():
        twins_of = {second for part, _, second in pairs if part == "train"}
        unlike = (~found[way].loc[found[way]["part_b"] == "test", "same_label"]).sum()
        print(
            f"{way}: {len(pairs):,} pairs with a test image, {unlike} of them under two labels; {len(twins_of)} test "
            f"images with a partner in train or val, {len(twins_of & leaked)} of the {len(leaked)} listed among them"
        )


def search(data: Data, test: Split) -> dict[str, pd.DataFrame]:
    """The copies among all images, in one piece, by thumbnails alone and with features; what that costs is printed."""
    features = extract(load_encoders(data.context)[0], data)
    extract_split(features.encoder, test, data)
    found = {}
    for way, known in (("by thumbnails alone", None), ("with features", features)):
        peaks: dict[str, float] = {}
        with watched(peaks):
            time.sleep(5 * INTERVAL_S)
            before, began = peaks["RssAnon"], time.process_time()
            found[way] = find_pairs(data, test, known)
            seconds = time.process_time() - began
        print(
            f"{way}: {len(found[way]):,} pairs among all images, {seconds:.0f} s of processor time, own memory "
            f"{before:,.0f} MB before and {peaks['RssAnon']:,.0f} MB at most"
        )
    return found


if __name__ == "__main__":
    full = load()
    kinds(full)
    digits()
    if len(sys.argv) > 1:
        against_the_list(search(full, load_test(full)), Path(sys.argv[1]))
    print(machine(full))
