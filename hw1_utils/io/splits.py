"""Which of a folder's files are trained on, validated and tested on: stratified by class and seeded."""

import numpy as np
from sklearn.model_selection import train_test_split

from ..errors import Hw1Error
from .folders import Folder, Part, singles


def choose(
    folder: Folder, shown: str, seed: int, *, train_size: int | None, val_size: int | None, test_size: int | None
) -> dict[str, Part]:
    """Which files are train, val and test, as many as asked for (None: all), before one of them is opened.

    Val comes out of the folder's own validation part or else out of train.

    Args:
        shown: how the folder is called in sentences.

    Raises:
        Hw1Error: too few images for the split, or fewer asked for than there are classes.
    """
    parts = folder.parts
    test = _some(parts["test"], "test_size", test_size, seed)
    part = parts["train"]
    labels = np.array(part.labels)
    if "val" in parts:
        train = _some(part, "train_size", train_size, seed)
        val = parts["val"]
        rows = stratified_subset(np.array(val.labels), val_size or len(val), seed)
        return {"train": train, "val": val.take(rows), "test": test}
    tenth = max(len(part.classes), round(0.1 * len(labels)))
    val_size = val_size or tenth
    train_size = train_size or len(labels) - val_size
    if train_size + val_size > len(labels):  # a profile's sizes are meant for larger folders
        print(f"{shown} has {len(labels):,} images to train on: all are used, a tenth to validate.")
        train_size, val_size = len(labels) - tenth, tenth
    try:
        rows = train_test_split(
            np.arange(len(labels)),
            train_size=train_size,
            test_size=val_size,
            stratify=labels,
            random_state=seed,
        )
    except ValueError as error:
        raise Hw1Error(
            f"{len(labels)} images in {len(part.classes)} classes cannot be split into {train_size} for training and "
            f"{val_size} for validation{singles(labels, part.classes) or f' ({error})'}: add images or lower "
            "train_size and val_size."
        ) from error
    train, val = (part.take(np.sort(chosen)) for chosen in _with_every_class(labels, *rows))
    return {"train": train, "val": val, "test": test}


def _some(part: Part, name: str, count: int | None, seed: int) -> Part:
    """As many of the part's files as the setting `name` asks for."""
    count = count or len(part)
    if count < len(part.classes):
        raise Hw1Error(
            f"{name} {count} is less than one image for each of {len(part.classes)} classes: raise it, or take None."
        )
    return part.take(stratified_subset(np.array(part.labels), count, seed))


def stratified_subset(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows of a seeded part, in order; all if there are no more than `count`. Stratified as far as that is possible.

    Every class has one row at least, where `count` allows it.
    """
    rows = np.arange(len(labels))
    if count >= len(labels):
        return rows
    images = np.bincount(labels)
    images = images[images > 0]
    fits = images.min() >= 2 and len(images) <= min(count, len(labels) - count)
    chosen, _ = train_test_split(rows, train_size=count, stratify=labels if fits else None, random_state=seed)
    return np.sort(_with_every_class(labels, chosen, chosen[:0])[0])


def _with_every_class(labels: np.ndarray, rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rounding has left a class out of `rows`, it changes places with the largest class, also in `others`."""
    rows, others = rows.copy(), others.copy()
    for label in np.setdiff1d(labels, labels[rows])[: len(rows)]:
        wanted = np.flatnonzero(labels == label)[0]
        counts = np.bincount(labels[rows])
        if counts.max() == 1:
            break  # fewer rows than classes
        place = np.flatnonzero(labels[rows] == counts.argmax())[0]
        others[others == wanted], rows[place] = rows[place], wanted
    return rows, others
