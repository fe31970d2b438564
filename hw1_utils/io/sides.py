"""Copies of an image stay on one side of the splits that are made here; a user's own parts are never touched."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import Hw1Error
from .folders import Folder, Part
from .pixels import load_levels, load_twins
from .ranks import ALONE, Ranks
from .splits import part_whole, say_groups

LARGE = 0.2  # of all images: so many copies of copies are not kept together, nor is more than half of a class
FEW = 5  # images that in a small folder are more than that and do no harm


def twins_on_one_side(
    root: Path,
    folder: Folder,
    chosen: dict[str, Part],
    side: int,
    seed: int,
    cache: Path,
    ranks: Ranks = ALONE,
) -> tuple[Folder, dict[str, Part]]:
    """(the folder, which files are train, val and test), with no copy of an image on another side of a split.

    Copies, exact and near, are found by the pixels of the files of the parts that were made: of train and val, and of
    test, if that was put aside. Where none is on another side than its copies, all stays as it is. Else the same files
    are split again; that is said, and also where copies are too many for it.

    Args:
        root: the data folder.
        folder: as it is read or, where it has no test, as `put_aside` returns it.
        chosen: as from `choose`.
        side: of the images that the models see, in pixels.
        cache: the folder in which pixels and copies are kept: see `load_twins`.
        ranks: the processes that decode together, all of which call this.
    """
    if "val" in folder.parts:
        return folder, chosen
    made = ["train", "val"] + ["test"] * (not folder.has_test)
    files = [chosen[name] for name in made]
    levels = load_levels(root, folder.parts["train"].paths, cache)
    exact, near = load_twins(root, [part.paths for part in files], side, levels, cache, ranks)
    labels = np.concatenate([part.labels for part in files])
    of = np.repeat(np.arange(len(files)), [len(part) for part in files])
    twins = _kept_together(exact, near, labels)
    if _on_several(twins, of).any():
        with suppress(Hw1Error):  # no split keeps all of them together
            folder, chosen = _split_again(folder, chosen, _on_one_pile(files, twins), seed)
            copies = int((np.bincount(twins)[twins] > 1).sum())
            print(f"  {copies:,} images have copies, exact or near; each stays on the side of its copies")
    paths = [path for part in files for path in part.paths]
    side_of = {path: number for number, name in enumerate(made) for path in chosen[name].paths}
    parted = np.flatnonzero(_on_several(near, np.array([side_of[path] for path in paths])))
    if len(parted):
        why = "too many are copies of copies to be kept together: if they are a series, say with groups what belongs so"
        if (np.bincount(exact)[exact[parted]] > 1).all():
            why = "too many are the very same picture to be kept together: keep one file of each"
        if files[0].groups is not None:
            why = "groups and copies tie too many images together"
        named = f"{len(parted):,} images, {paths[parted[0]]} for one,"
        print(f"  {named} have copies on another side of the split, as {why}")
    return folder, chosen


def _kept_together(exact: np.ndarray, near: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int64 N, the same number for what no split is to part: near copies or, of a large cluster, its exact ones."""
    count = len(labels)
    together = np.arange(count)
    for number, clusters in enumerate((exact, near), 1):
        together = np.where(_is_large(clusters, labels), together, number * count + clusters)
    return np.unique(together, return_inverse=True)[1]


def _is_large(clusters: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool N: whose cluster holds a large part of the images, or several of a class and more than half of it."""
    large = np.bincount(clusters) > max(FEW, LARGE * len(labels))
    cluster, label, count = _pairs(clusters, labels)
    large[cluster[(count > 1) & (count > np.bincount(labels)[label] / 2)]] = True
    return large[clusters] & (np.bincount(clusters)[clusters] > 1)


def _on_several(clusters: np.ndarray, side: np.ndarray) -> np.ndarray:
    """bool N: whose cluster is on several sides."""
    return (np.bincount(_pairs(clusters, side)[0]) > 1)[clusters]


def _pairs(clusters: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of two columns of numbers from 0, int64 N, the pairs that occur: cluster, other, how often."""
    width = int(other.max(initial=0)) + 1
    pairs, count = np.unique(clusters * width + other, return_counts=True)
    return *np.divmod(pairs, width), count


def _on_one_pile(files: list[Part], twins: np.ndarray) -> Part:
    """The files of several parts as one, in the order of their paths."""
    lists = {"paths": [], "labels": [], "groups": []}
    for name, of_all in lists.items():
        for part in files:
            of_all += getattr(part, name) or []
    groups = lists.pop("groups") or None
    whole = replace(files[0], **lists, groups=groups, twins=twins.tolist())
    return whole.take(sorted(range(len(whole)), key=whole.paths.__getitem__))


def _split_again(folder: Folder, chosen: dict[str, Part], whole: Part, seed: int) -> tuple[Folder, dict[str, Part]]:
    """Into parts of the same sizes, as far as twins and groups allow it."""
    train, test = whole, chosen["test"]
    if not folder.has_test:
        train, test = part_whole(train, len(test), "", seed, every="the test")
        folder = replace(folder, parts={"train": train, "test": test})
    train, val = part_whole(train, len(chosen["val"]), "", seed)
    return folder, say_groups({"train": train, "val": val, "test": test})
