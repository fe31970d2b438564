"""Which labels contradict their images? Arrays in, arrays out.

Confident learning: Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels",
Journal of Artificial Intelligence Research 70 (their library is cleanlab).
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import beta
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ..features import CHUNK
from ..io.arrays import Rows
from ..io.progress import Progress
from ..io.splits import stratified_subset

STRENGTH = 0.1  # C of LogisticRegression, the inverse of the penalty: from 0.001 to 1 it makes hardly a difference
LEVELS = np.linspace(0.1, 0.9, 9)  # shares of wrong labels that a threshold catches: see `upper_limit`


def out_of_fold(
    inputs: Sequence[Rows],
    labels: np.ndarray,
    fold: np.ndarray,
    *,
    most: int,
    seed: int = 0,
    balanced: bool = False,
    into: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """What a logistic regression that has learnt from the other folds says about each row.

    Args:
        inputs: float32 features of one or more parts, N rows in all; what is judged is read CHUNK rows at a time.
        labels: int64 N, in 0..K-1.
        fold: int64 N, from 0.
        most: rows that a head learns from; where there are more, a stratified part of them.
        balanced: rare classes count as much as frequent ones.
        into: float32 N×K, for the probabilities: mapped from a file, where memory has no room for them.

    Returns:
        probabilities: float32 N×K; 0 for classes of which the other folds have no row.
        judged: bool N: whether they have rows of its own class.
    """
    probabilities = np.empty((len(labels), labels.max() + 1), np.float32) if into is None else into
    probabilities[:] = 0
    judged = np.zeros(len(labels), bool)
    count = fold.max() + 1
    with Progress("label errors", count, "folds") as progress:
        for number in range(count):
            own, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
            others = others[stratified_subset(labels[others], most, seed)]
            head = _head(len(np.unique(labels[others])), balanced).fit(_gathered(inputs, others), labels[others])
            for start in range(0, len(own), CHUNK):
                rows = own[start : start + CHUNK]
                probabilities[np.ix_(rows, head.classes_)] = head.predict_proba(_gathered(inputs, rows))
            judged[own] = np.isin(labels[own], head.classes_)
            progress.update(number + 1)
    return probabilities, judged


def _head(classes: int, balanced: bool) -> Pipeline | DummyClassifier:
    if classes == 1:  # there is no other, or all of its images are in the fold to be judged
        return DummyClassifier()
    weights = "balanced" if balanced else None
    return make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=500, class_weight=weights))


def _gathered(inputs: Sequence[Rows], rows: np.ndarray) -> np.ndarray:
    """These rows, int64 in ascending order, of all parts one after the other."""
    sizes = [len(part) for part in inputs]
    ends = np.cumsum(sizes)
    pieces = np.split(rows, np.searchsorted(rows, ends[:-1]))
    taken = [
        part[torch.from_numpy(piece - start)].cpu()
        for part, piece, start in zip(inputs, pieces, ends - sizes, strict=True)
    ]
    return torch.cat(taken).numpy()


def contradicted(probabilities: np.ndarray, labels: np.ndarray, judged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels off the diagonal of the confident joint.

    A class's threshold is the mean probability that its own images get for it. An image counts for the most probable
    of the classes whose threshold it reaches; its label is suspected where that is another class.

    Args:
        probabilities: float N×K, of heads that have not seen the image; looked at CHUNK rows at a time.
        labels: int64 N, as given.
        judged: bool N; the other rows neither set a threshold nor are they suspected.

    Returns:
        suggested: int64 N, the class that an image counts for; without meaning where its label is not suspected.
        suspected: bool N.
    """
    own, classes = probabilities[np.arange(len(labels)), labels], probabilities.shape[1]
    images = np.bincount(labels[judged], minlength=classes)
    total = np.bincount(labels[judged], own[judged], minlength=classes)
    thresholds = np.where(images > 0, total / np.maximum(images, 1), np.inf)
    suggested, suspected = np.zeros(len(labels), np.int64), judged.copy()
    for start in range(0, len(labels), CHUNK):
        some = slice(start, start + CHUNK)
        reached = np.where(probabilities[some] >= thresholds, probabilities[some], -1)
        suggested[some] = reached.argmax(1)
        suspected[some] &= (reached.max(1) >= 0) & (suggested[some] != labels[some])
    return suggested, suspected


def margins(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How much more probable a label is than the class that the image looks most like otherwise, float N in -1..1."""
    own, other = own_and_other(probabilities, labels)
    return own - other


def own_and_other(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probability of the label's class, and that of the most probable other one (0 where there is none), float N.

    Of probabilities N×K, which may be larger than memory.
    """
    other = np.empty(len(labels), probabilities.dtype)
    for start in range(0, len(labels), CHUNK):
        some = probabilities[start : start + CHUNK].copy()
        some[np.arange(len(some)), labels[start : start + CHUNK]] = 0
        other[start : start + CHUNK] = some.max(1)
    return probabilities[np.arange(len(labels)), labels], other


def upper_limit(own: np.ndarray, other: np.ndarray) -> float:
    """The largest share of these labels that can be wrong (95 %), if all images are as likely to be mislabelled.

    A wrong label is no more probable than the likeliest of the classes that the image does not show. If a share w of
    all labels is wrong, and a share F of such classes has a probability of at most t, then at least w·F of all labels
    have one: w is at most their share divided by F, whatever t is. Taken is the smallest of nine such limits, each an
    exact binomial one (Clopper and Pearson 1934) at a level at which all hold together (Bonferroni). It is 1 where
    nothing is known. Hard images may be mislabelled beyond that: on them a wrong label looks as a right one does. Which
    is why there is no limit from below, either.

    Args:
        own, other: float N, of heads that have not seen the image: see `own_and_other`.
    """
    if not other.any():  # there is no image, or no other class
        return 1.0
    own, wrong = np.sort(own), np.sort(other)
    thresholds = np.quantile(wrong, LEVELS)
    below, caught = (np.searchsorted(values, thresholds, side="right") for values in (own, wrong))
    above = len(own) - below
    limits = np.where(above > 0, beta.ppf(1 - 0.05 / len(LEVELS), below + 1, np.maximum(above, 1)), 1)
    return float(min(1, (limits * len(wrong) / caught).min()))
