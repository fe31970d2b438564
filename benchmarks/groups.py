"""How often 95 % intervals hold the truth where test images come in groups: python -m benchmarks.groups [REPEATS]

Simulated: groups of unequal size (log-normal, σ 0.8; 8 images on average), three classes, a classifier whose accuracy
differs from group to group (beta-binomial with a given correlation within groups), and a second one that shares its
luck with the first in half of the groups. A group is of one class, as a patient's pictures are, or of all, as a film's.
"""

import sys

import numpy as np

from hw1_utils import metrics
from hw1_utils.clusters import reach

CLASSES = 3
IMAGES = 8  # of a group, on average
PAIRS = np.array([1.0, -1.0, 0.0])


def drawn(repeats: int, groups: int, accuracy: float, alike: float, of_one_class: bool) -> tuple[np.ndarray, ...]:
    """(labels N, groups N, what the first and the second model say, each repeats×N), all int."""
    rng = np.random.default_rng(groups)
    sizes = rng.lognormal(0, 0.8, groups)
    sizes = np.maximum(np.round(IMAGES * groups * sizes / sizes.sum()), 1).astype(int)
    number = np.repeat(np.arange(groups), sizes)
    labels = (number if of_one_class else np.arange(len(number))) % CLASSES
    odds = 1 / alike - 1 if alike else 1e9
    first, second = rng.beta(accuracy * odds, (1 - accuracy) * odds, (2, repeats, groups))
    second = np.where(rng.random((repeats, groups)) < 0.5, first, second)
    right = rng.random((2, repeats, len(number))) < np.stack([first, second])[..., number]
    said = np.where(right, labels, (labels + rng.integers(1, CLASSES, right.shape)) % CLASSES)
    return labels, number, *said


def counted(classes: np.ndarray, outcomes: np.ndarray, kinds: int) -> np.ndarray:
    """int repeats×K×kinds, of outcomes repeats×N in 0..kinds-1."""
    own = np.eye(kinds, dtype=int)[outcomes]
    return np.stack([own[:, classes == label].sum(1) for label in range(classes.max() + 1)], axis=1)


def coverage(repeats: int, groups: int, accuracy: float, alike: float, of_one_class: bool) -> dict[str, tuple]:
    """By measure: the shares of intervals that hold the truth by groups and by images, their mean widths."""
    labels, number, first, second = drawn(repeats, groups, accuracy, alike, of_one_class)
    right, other = first == labels, second == labels
    matrices = counted(labels, first, CLASSES)
    chances = np.where(np.eye(CLASSES) == 1, accuracy, (1 - accuracy) / (CLASSES - 1))
    expected = chances * np.bincount(labels)[:, None]
    f1 = (2 * np.diagonal(expected) / (expected.sum(0) + expected.sum(1))).mean()
    one = np.zeros_like(labels)
    gains = [metrics.f1_gains(matrix, labels, said) for matrix, said in zip(matrices, first, strict=True)]
    paired = np.where(other & ~right, 0, np.where(right & ~other, 1, 2))

    def mean(classes: np.ndarray, outcomes: np.ndarray, scores: np.ndarray):
        cells = counted(classes, outcomes, len(scores))
        return lambda errors: metrics.mean_interval(cells, scores, errors)[1:], scores[outcomes], classes

    measures = {
        "accuracy": (accuracy, *mean(one, 1 - right, metrics.HIT_OR_MISS)),
        "balanced accuracy": (accuracy, *mean(labels, 1 - right, metrics.HIT_OR_MISS)),
        "macro F1": (f1, lambda errors: metrics.macro_f1_interval(matrices, errors), gains, labels),
        "difference": (0, *mean(one, paired, PAIRS)),
        "balanced difference": (0, *mean(labels, paired, PAIRS)),
    }
    shares = {}
    for name, (truth, interval, values, classes) in measures.items():
        by_groups = interval(np.array([reach(value, classes, number) for value in values]))
        both = [by_groups, interval(metrics.Z)]
        held = [((low <= truth + 1e-9) & (truth <= high + 1e-9)).mean() for low, high in both]
        shares[name] = *held, *((high - low).mean() for low, high in both)
    return shares


def main(repeats: int = 500) -> None:
    names = ("accuracy", "balanced accuracy", "macro F1", "difference", "balanced difference")
    print(f"| Groups | Each of | Accuracy | Correlation | {' | '.join(names)} | Width of accuracy's, points |")
    print("|" + "---|" * (len(names) + 5))
    for groups in (5, 10, 20, 50):
        for of_one_class in (True, False):
            for accuracy in (0.7, 0.95):
                for alike in (0.0, 0.2, 0.6):
                    got = coverage(repeats, groups, accuracy, alike, of_one_class)
                    cells = [f"{100 * got[name][0]:.0f} ({100 * got[name][1]:.0f})" for name in names]
                    cells.append(f"{100 * got['accuracy'][2]:.0f} ({100 * got['accuracy'][3]:.0f})")
                    head = f"| {groups} | {'one class' if of_one_class else 'all'} | {accuracy} | {alike} | "
                    print(head + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
