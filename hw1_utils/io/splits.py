"""Which of a folder's files are trained on, validated and tested on: stratified by class and seeded, groups whole."""

import warnings
from dataclasses import replace

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

from ..errors import Hw1Error, some
from .folders import Folder, Part, images_for_test, singles
from .groups import merged

BUNDLES = 200  # into which rows without company are put, where there are more: the search takes a while for each group
MANY = 2000  # groups from which on all but the `BUNDLES` largest are put into bundles, too,
FOR_EACH = 4  # for each fold: so few that a class's groups come to all of them


def put_aside(folder: Folder, shown: str, seed: int) -> Folder:
    """The folder with a test part: a share of its images (see `images_for_test`), stratified, groups and twins whole.

    Raises:
        Hw1Error: there are too few images, or groups.
    """
    part = folder.parts["train"]
    count = images_for_test(part)
    if part.groups is not None or part.twins is not None:
        train, test = part_whole(part, count, shown, seed, every="the test")
        return replace(folder, parts={"train": train, "test": test})
    try:
        train, test = train_test_split(range(len(part)), test_size=count, stratify=part.labels, random_state=seed)
    except ValueError as error:
        raise Hw1Error(
            f"{shown} has {len(part)} images in {len(part.classes)} classes: too few to put a fifth of each aside "
            f"for the test{singles(part.labels, part.classes)}; add images, or a test/ of your own."
        ) from error
    return replace(folder, parts={"train": part.take(sorted(train)), "test": part.take(sorted(test))})


def choose(
    folder: Folder, shown: str, seed: int, *, train_size: int | None, val_size: int | None, test_size: int | None
) -> dict[str, Part]:
    """Which files are train, val and test, as many as asked for (None: all), before one of them is opened.

    Val comes out of the folder's own validation part or else out of train; then groups and twins stay on one side, and
    what is asked for is had as far as they allow it. Images that a size leaves out are in no part, so that a group may
    be there with some of its images only.

    Args:
        shown: how the folder is called in sentences.

    Raises:
        Hw1Error: too few images or groups for the split, or fewer asked for than there are classes.
    """
    parts = folder.parts
    test = _some(parts["test"], "test_size", test_size, seed)
    part = parts["train"]
    labels = np.array(part.labels)
    if "val" in parts:
        train = _some(part, "train_size", train_size, seed)
        val = parts["val"]
        rows = stratified_subset(np.array(val.labels), val_size or len(val), seed)
        return say_groups({"train": train, "val": val.take(rows), "test": test})
    tenth = max(len(part.classes), round(0.1 * len(labels)))
    wanted = {"train": train_size, "val": val_size}
    val_size = val_size or tenth
    train_size = train_size or len(labels) - val_size
    if train_size + val_size > len(labels):  # a profile's sizes are meant for larger folders
        share = f"{tenth:,} of them, as many as there are classes," if tenth == len(part.classes) else "a tenth"
        print(f"{shown} has {len(labels):,} images to train on: all are used, {share} to validate.")
        train_size, val_size = len(labels) - tenth, tenth
        wanted = dict.fromkeys(wanted)
    if part.groups is not None or part.twins is not None:
        train, val = part_whole(part, round(len(labels) * val_size / (train_size + val_size)), shown, seed)
        train = _some(train, "train_size", wanted["train"], seed)
        val = val.take(stratified_subset(np.array(val.labels), wanted["val"] or len(val), seed))
        return say_groups({"train": train, "val": val, "test": test})
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


def folds(labels: np.ndarray, groups: np.ndarray | None, count: int, seed: int) -> np.ndarray:
    """Which of `count` folds each row is in: seeded, stratified by class as far as possible, groups whole.

    By scikit-learn's StratifiedKFold and StratifiedGroupKFold; a class with fewer rows than folds is in some of them.

    Args:
        labels: int N.
        groups: int N, numbers of what belongs together; None: each row by itself.

    Returns:
        int64 N, in 0..count-1; with few or large groups a fold may be empty.

    Raises:
        Hw1Error: there are fewer rows, or groups, than folds.
    """
    rows, what = (len(labels), "images") if groups is None else (len(np.unique(groups)), "groups")
    if rows < count:
        raise Hw1Error(f"{rows:,} {what} cannot be dealt into {count} folds: add some, or take fewer folds.")
    if groups is not None:
        groups = _bundled(labels, groups, count, seed)
    if np.unique(labels, return_counts=True)[1].max() < count:
        labels = np.zeros(len(labels), int)  # scikit-learn refuses where every class is that rare
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    fold = np.empty(len(labels), np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for number, (_, inside) in enumerate(
            kind(count, shuffle=True, random_state=seed).split(labels, labels, groups)
        ):
            fold[inside] = number
    return fold


def _bundled(labels: np.ndarray, groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The groups, int64 N, in which many rows that are alone become `BUNDLES` groups, stratified.

    So do, of `MANY` groups that are left, all but the largest, by the class that most of their rows have.
    """
    groups, size = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    alone = np.flatnonzero(size[groups] == 1)
    if len(alone) > BUNDLES:
        groups[alone] = len(size) + folds(labels[alone], None, BUNDLES, seed)
        groups, size = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    if len(size) > MANY:
        pairs, rows = np.unique(groups * (labels.max() + 1) + labels, return_counts=True)
        of, label = np.divmod(pairs, labels.max() + 1)
        main = np.empty(len(size), labels.dtype)
        order = np.argsort(rows, kind="stable")
        main[of[order]] = label[order]  # of a group's entries the last, the largest, stays
        small = np.argsort(size, kind="stable")[: len(size) - BUNDLES]
        bundle = np.arange(len(size))
        bundle[small] = len(size) + folds(main[small], None, FOR_EACH * count, seed)
        groups = bundle[groups]
    return groups


def part_whole(part: Part, count: int, shown: str, seed: int, every: str | None = None) -> tuple[Part, Part]:
    """(the others, about `count` images of the part): groups and twins whole, with as much of each class as they allow.

    It is the one of `folds` that comes nearest. Images without company then change sides until every class has its
    share, and groups until every class is left on the other side and, as far as that is possible, is on this one.

    Args:
        every: what the images are for, if every class must be among them; None: validation, which may lack some.

    Raises:
        Hw1Error: with what the groups do not allow.
    """
    labels, groups = np.array(part.labels), merged(part.groups, part.twins)
    size = np.bincount(groups)
    left = "" if every else " to train and to validate on"
    needed = f"{shown} has {len(size)} group{'s' if len(size) > 1 else ''}{left}, and no group may be cut: "
    if len(size) < 2:
        raise Hw1Error(f"{needed}a split needs two at least; add images of other groups, or parts of your own.")
    count_of = len(part.classes)
    of, label = np.divmod(np.unique(groups * count_of + labels), count_of)  # which group has which class, pair by pair
    if (np.bincount(label) <= 1).all():
        raise Hw1Error(
            f"{needed}each class is of one group alone, so that no split can show whether a model knows the class or "
            "the group; add images of other groups, or leave groups out and take the result for these groups only."
        )
    fold = folds(labels, groups, min(len(size), max(2, round(len(labels) / count))), seed)
    of_group = np.empty(len(size), np.int64)
    of_group[groups] = fold

    def has(side: np.ndarray) -> np.ndarray:
        """int64 K: how many of these groups, bool G, have each class."""
        return np.bincount(label[side[of]], minlength=count_of)

    every_group = has(np.ones(len(size), bool))

    def lacking(aside: np.ndarray) -> tuple[int, int, int]:
        sides = [int(((has(side) == 0) & (every_group > 0)).sum()) for side in (~aside, aside)]
        return *sides, abs(int(size[aside].sum()) - count)

    aside = min((of_group == number for number in np.unique(fold)), key=lacking).copy()
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=count_of))[:-1])
    for rows, share in zip(by_class, _shares(labels, count, count_of), strict=True):
        more = share - int(aside[groups[rows]].sum())
        movable = rows[(size[groups[rows]] == 1) & (aside[groups[rows]] == (more < 0))]
        aside[groups[np.random.default_rng(seed).permutation(movable)[: abs(more)]]] = more > 0
    for missing in np.flatnonzero((has(~aside) == 0) & (every_group > 0)):  # it must be trained on
        back = of[(label == missing) & aside[of]]
        aside[back[size[back].argmin()]] = False
    for missing in np.flatnonzero((has(aside) == 0) & (every_group > 0)):
        rare = (
            np.bincount(of, has(~aside)[label] <= 1, minlength=len(size)) > 0
        )  # groups that training cannot do without
        spare = of[(label == missing) & ~(aside | rare)[of]]
        if spare.size:
            aside[spare[size[spare].argmin()]] = True
    lacks = np.flatnonzero((has(aside) == 0) & (every_group > 0))
    lost = [f"{part.classes[k]} in {every_group[k]}" for k in lacks]
    if (every and lost) or not aside.any():
        named = f" ({some(lost)})" if lost else ""
        raise Hw1Error(
            f"{needed}{every or 'validation'} and training cannot both have every class{named}; add images of other "
            "groups, or parts of your own."
        )
    if not every and lost:
        print(f"  no images to validate on: {some([part.classes[k] for k in lacks])}")
    return part.take(np.flatnonzero(~aside[groups])), part.take(np.flatnonzero(aside[groups]))


def _shares(labels: np.ndarray, count: int, classes: int) -> np.ndarray:
    """How many of `count` rows are of each of `classes`, int64 K, as nearly as whole numbers allow."""
    exact = np.bincount(labels, minlength=classes) * count / len(labels)
    shares = np.floor(exact).astype(np.int64)
    shares[np.argsort(shares - exact, kind="stable")[: count - shares.sum()]] += 1
    return shares


def say_groups(parts: dict[str, Part]) -> dict[str, Part]:
    """The same parts; where there are groups, what was got of them is said."""
    if parts["train"].groups is not None:
        got = [f"{len(part):,} {name} images of {len(set(part.groups)):,}" for name, part in parts.items()]
        print(f"  groups: {', '.join(got)}")
    return parts


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
