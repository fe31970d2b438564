"""Numbers from predictions: NumPy arrays in, plain numbers and tables out. Knows no torch model."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, norm
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from .clusters import reach

Z = float(norm.ppf(0.975))  # standard errors to either side of a 95 % interval
BORROWED = 4  # images' worth of the other classes' outcomes that a class's own are smoothed with
HIT_OR_MISS = np.array([1.0, 0.0])  # scores of a class's two outcomes, for balanced accuracy
FURTHEST = 4.0  # from 0, of a temperature's logarithm
BINS = 15  # of confidence, as in Guo et al. 2017
BLOCK = 2**22  # probabilities that are looked at in float64 at a time
IMBALANCED = 1.5  # times as many images in the largest class as in the smallest


def leading(counts: Iterable[int]) -> str:
    """The measure that comes first, from the training images of each class: accuracy or balanced_accuracy.

    Where some classes are rare, a classifier that never names them can have a high accuracy.
    """
    counts = list(counts)
    return "balanced_accuracy" if max(counts) > IMBALANCED * min(counts) else "accuracy"


def score(labels: np.ndarray, predictions: np.ndarray, measure: str) -> float:
    """The leading measure alone: `measure` as from `leading`."""
    return with_interval(labels, predictions, measure)[0]


def with_interval(
    labels: np.ndarray, predictions: np.ndarray, measure: str, groups: np.ndarray | None = None
) -> tuple[float, float, float]:
    """`measure`, as from `leading`, and its 95 % interval: value, low, high.

    Where the samples belong to `groups`, numbers N, the interval goes by these: see `clusters.reach`.
    """
    right = labels == predictions
    if measure == "accuracy" and groups is None:
        return float(right.mean()), *wilson(int(right.sum()), len(right))
    classes = labels if measure == "balanced_accuracy" else np.zeros(len(labels), int)
    cells = np.stack([np.bincount(classes, which) for which in (right, ~right)], axis=1)
    errors = Z if groups is None else reach(right, classes, groups)
    return tuple(float(bound) for bound in mean_interval(cells, HIT_OR_MISS, errors))


def summary(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray | None = None) -> dict[str, float]:
    """Quality of a classifier over all samples.

    Args:
        labels: int N, in 0..K-1.
        probabilities: float N×K; rows sum to 1 but for rounding.
        groups: int N, which samples belong together; given, all intervals go by groups: see `clusters.reach`.

    Returns:
        See `quality`; and loss (mean negative log-likelihood), calibration_error (see there).
    """
    own = probabilities[np.arange(len(labels)), labels] / probabilities.sum(1, dtype=np.float64)
    return quality(labels, probabilities.argmax(1), probabilities.shape[1], groups) | {
        "loss": -float(np.log(np.maximum(own, np.finfo(own.dtype).eps)).mean()),
        "calibration_error": calibration_error(reliability(labels, probabilities)),
    }


def quality(labels: np.ndarray, predictions: np.ndarray, count: int, groups: np.ndarray | None = None) -> dict:
    """What predictions alone tell of a classifier, int N of `count` classes; other arguments as of `summary`.

    Returns:
        accuracy with its 95 % Wilson interval (accuracy_low, accuracy_high), balanced_accuracy (the mean of the
        classes' own accuracies) and macro_f1 (every class counts the same; one that is never predicted has precision
        0) with their 95 % score intervals (see `mean_interval`), macro_precision, macro_recall.
    """
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predictions, labels=range(count), average="macro", zero_division=0
    )
    matrix = confusion(labels, predictions, count)
    errors = Z if groups is None else reach(f1_gains(matrix, labels, predictions), labels, groups)
    f1_low, f1_high = macro_f1_interval(matrix, errors)
    measured = {name: with_interval(labels, predictions, name, groups) for name in ("accuracy", "balanced_accuracy")}
    return {
        **{
            f"{measure}{end}": value
            for measure, values in measured.items()
            for end, value in zip(("", "_low", "_high"), values, strict=True)
        },
        "macro_precision": float(precision),
        "macro_recall": float(recall),
        "macro_f1": float(f1),
        "macro_f1_low": float(f1_low),
        "macro_f1_high": float(f1_high),
    }


def per_class(labels: np.ndarray, predictions: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Precision, recall, F1 and number of test images (support) of each class, one row a class."""
    values = precision_recall_fscore_support(labels, predictions, labels=range(len(classes)), zero_division=0)
    return pd.DataFrame(dict(zip(("precision", "recall", "f1", "support"), values, strict=True)), index=classes)


def confusion(labels: np.ndarray, predictions: np.ndarray, count: int) -> np.ndarray:
    """int K×K: row = true class, column = predicted class."""
    return confusion_matrix(labels, predictions, labels=range(count))


def wilson(correct: int, total: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion (scipy's `binomtest`)."""
    interval = binomtest(correct, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(
    cells: np.ndarray, scores: np.ndarray, errors: float | np.ndarray = Z
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean over classes of their own mean scores, with its 95 % score interval.

    The number of images of each class is taken as given (stratified sampling). As Wilson's interval, it holds the
    values that the data do not refute at 5 %, with the standard error that each value itself would imply: neither a
    class of two images nor one without errors counts as certain. For one class and hits and misses it is Wilson's,
    for paired outcomes Tango's (1998), whose limit is zero where McNemar's test is at 5 %.

    Args:
        cells: int …×K×M, images of each class by outcome; classes without images do not count.
        scores: float M, of the outcomes.
        errors: standard errors of independent images to either side, one or of shape …; where images come in groups
            those of `clusters.reach`.

    Returns:
        estimate, low, high, each float64 of shape …
    """
    images = cells.sum(-1)
    weights = (images > 0) / (images > 0).sum(-1, keepdims=True)
    images = np.maximum(images, 1)
    counts = _smoothed(cells)

    def at(multiplier: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shares = _restricted(counts, scores, multiplier)
        means = shares @ scores
        variances = np.maximum(shares @ scores**2 - means**2, 0) / images
        return (weights * means).sum(-1), np.sqrt((weights**2 * variances).sum(-1))

    estimate = (weights * (cells @ scores) / images).sum(-1)
    return estimate, *_not_refuted(at, estimate, images.mean(-1), errors)


def macro_f1_interval(matrix: np.ndarray, errors: float | np.ndarray = Z) -> tuple[np.ndarray, np.ndarray]:
    """95 % score interval of macro F1, from confusion matrices int …×K×K: see `mean_interval`, also for `errors`.

    The hypotheses are those of balanced accuracy; what a class's misses are taken for is as observed, smoothed by one
    miss of the others'. The standard error of F1 is that of its linear approximation (delta method).
    """
    images, hits = matrix.sum(-1), np.diagonal(matrix, axis1=-2, axis2=-1)
    counts = _smoothed(np.stack([hits, images - hits], axis=-1))
    elsewhere = 1 - np.eye(matrix.shape[-1])
    misses = matrix * elsewhere
    usual = (misses.sum(-2, keepdims=True) + 0.5) * elsewhere
    taken = misses + usual / np.maximum(usual.sum(-1, keepdims=True), 0.5)  # of a single class nothing is missed
    taken = taken / np.maximum(taken.sum(-1, keepdims=True), 0.5)

    def at(multiplier: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hit, miss = np.moveaxis(_restricted(counts, HIT_OR_MISS, multiplier), -1, 0)
        guesses = images * hit + ((images * miss)[..., None, :] @ taken)[..., 0, :]
        named = np.maximum(images + guesses, 1e-9)
        f1 = 2 * images * hit / named
        cost = f1 / named  # to a class, of an image that is taken for it
        gain = 2 / named - cost
        lost, squares = np.moveaxis(taken @ np.stack([cost, cost**2], axis=-1), -1, 0)
        variances = images * (hit * gain**2 + miss * squares - (hit * gain - miss * lost) ** 2)
        return f1.mean(-1), np.sqrt(np.maximum(variances, 0).sum(-1)) / f1.shape[-1]

    estimate = (2 * hits / np.maximum(images + matrix.sum(-2), 1)).mean(-1)
    return _not_refuted(at, estimate, images.mean(-1), errors)


def f1_gains(matrix: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """float64 N: what macro F1 gains by each sample, to first order, so that it is the mean over classes of their
    means but for a constant (the linear approximation of `macro_f1_interval`).
    """
    images = matrix.sum(-1)
    named = np.maximum(images + matrix.sum(-2), 1)
    cost = 2 * np.diagonal(matrix) / named**2  # to a class, of a sample that is taken for it
    gains = np.where(labels == predictions, 2 / named[labels], 0) - cost[predictions]
    return gains * images[labels] * (images > 0).mean()


def _smoothed(cells: np.ndarray) -> np.ndarray:
    """Counts …×K×M, all above zero: with half an image of each outcome over all (Jeffreys), and each class with
    `BORROWED` images of all classes' average outcome: of two images of its own nothing can be said about its spread.
    """
    images = cells.sum(-1, keepdims=True)
    average = (cells / np.maximum(images, 1)).mean(-2, keepdims=True) * images.sum(-2, keepdims=True) + 0.5
    return cells + 0.5 / cells.shape[-2] + BORROWED * average / average.sum(-1, keepdims=True)


def _restricted(counts: np.ndarray, scores: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """Each class's most likely shares of the outcomes, …×K×M, where the mean score is held below (or above) its own.

    They are counts / (μ + multiplier · scores), `multiplier` being Lagrange's, of shape …, and μ what makes a class's
    shares add up to 1: found by Newton's method on 1 / sum, which is concave, from below.
    """
    rise = multiplier[..., None, None] * scores
    rise = rise - rise.min(-1, keepdims=True)
    lowest = np.where(rise == 0, counts, 0).sum(-1, keepdims=True)
    for _ in range(8):
        shares = counts / (lowest + rise)
        total = shares.sum(-1, keepdims=True)
        lowest = lowest + (total - 1) * total / (shares / (lowest + rise)).sum(-1, keepdims=True)
    shares = counts / (lowest + rise)
    return shares / shares.sum(-1, keepdims=True)


def _not_refuted(
    at: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    estimate: np.ndarray,
    scale: np.ndarray,
    errors: float | np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest value at most so many of its own standard errors from the estimate, by bisection.

    `at` gives value and standard error for a multiplier (see `_restricted`) between -∞ and ∞, of the order of `scale`.
    """
    limits = []
    for side in (1, -1):
        near, far = np.full(np.shape(estimate), -1.0), np.full(np.shape(estimate), 1.0)
        for _ in range(32):
            middle = (near + far) / 2
            value, error = at(side * scale * middle / (1 - np.abs(middle)))
            kept = side * (estimate - value) <= errors * error
            near, far = np.where(kept, middle, near), np.where(kept, far, middle)
        limits.append(value)
    return np.minimum(limits[0], estimate), np.maximum(limits[1], estimate)


def paired_difference(
    correct_a: np.ndarray, correct_b: np.ndarray, labels: np.ndarray | None = None, groups: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Accuracy of b minus accuracy of a on the same samples, with its 95 % score interval (see `mean_interval`).

    Only how many of each class each got right alone matters. One is better where the interval leaves out zero: for
    plain accuracy McNemar's test with half a pair of either kind added, which keeps its errors below 5 %.

    Args:
        correct_a, correct_b: bool N, whether each got the sample right.
        labels: int N; given, the accuracies are balanced ones: means over the classes that occur.
        groups: int N, which samples belong together; given, the interval goes by groups: see `clusters.reach`.

    Returns:
        difference, low, high.
    """
    classes = np.zeros(len(correct_a), int) if labels is None else labels
    outcomes = (correct_b & ~correct_a, correct_a & ~correct_b, correct_a == correct_b)
    cells = np.stack([np.bincount(classes, outcome) for outcome in outcomes], axis=1)
    errors = Z if groups is None else reach(correct_b.astype(float) - correct_a, classes, groups)
    return tuple(float(bound) for bound in mean_interval(cells, np.array([1.0, -1.0, 0.0]), errors))


def beyond_doubt(low: float, high: float) -> int:
    """What a 95 % interval of a difference shows: 1, it is above zero; -1, below; 0, neither."""
    return int(low > 0) - int(high < 0)


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Confidence against accuracy: one row for each of 15 equal bins of confidence that holds any sample.

    Confidence is the probability of the predicted class. Columns: confidence and accuracy (means over the bin's
    samples), count.
    """
    return reliability_of(probabilities.max(1), probabilities.argmax(1) == labels)


def reliability_of(confidence: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """The table of `reliability` from the confidences, float N, and whether the predictions were right, bool N."""
    table = pd.DataFrame({"confidence": confidence, "accuracy": right})
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    grouped = table.astype(float).groupby(bins)
    return grouped.mean().assign(count=grouped.size()).reset_index(drop=True)


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error (Guo et al. 2017): |confidence - accuracy| averaged over the samples of all bins."""
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return float(np.average(gaps, weights=table["count"]))


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    """The T for which softmax(logits / T) has the smallest negative log-likelihood (Guo et al. 2017).

    Fitted on validation data. Works on probabilities: their logarithms are logits but for a constant.

    Returns:
        None where these samples do not tell it: without any error the best T is 0, and where the loss has its minimum
        at the end of the range that is searched, or none at all, it says nothing about other samples.
    """
    if (probabilities.argmax(1) == labels).all():
        return None

    def loss(log_temperature: float) -> float:
        own, _ = scaled(labels, probabilities, float(np.exp(log_temperature)))
        return -float(np.log(np.maximum(own, 1e-30)).mean())

    best = minimize_scalar(loss, bounds=(-FURTHEST, FURTHEST), method="bounded")
    at_bound = abs(best.x) > FURTHEST - 0.1
    return None if at_bound or loss(-FURTHEST) - best.fun < 1e-6 else float(np.exp(best.x))


def scaled(labels: np.ndarray, probabilities: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """What `with_temperature` makes of the label's probability and of the largest, float64 N each, block by block."""
    own, largest = np.empty((2, len(labels)))
    step = max(1, BLOCK // probabilities.shape[1])
    for start in range(0, len(labels), step):
        some = slice(start, start + step)
        values = with_temperature(probabilities[some], temperature)
        own[some], largest[some] = values[np.arange(len(values)), labels[some]], values.max(1)
    return own, largest


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(log(probabilities) / temperature), float64 N×K."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-30)) / temperature
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def confused_pairs(matrix: np.ndarray, classes: list[str], top: int = 10) -> pd.DataFrame:
    """The largest cells off the diagonal: true class, predicted class, images, share of the true class."""
    off = matrix - np.diag(matrix.diagonal())
    order = np.argsort(off, axis=None, kind="stable")[::-1][:top]
    rows, columns = np.unravel_index(order, off.shape)
    table = pd.DataFrame(
        {
            "true": [classes[i] for i in rows],
            "predicted": [classes[i] for i in columns],
            "images": off[rows, columns],
            "share": off[rows, columns] / np.maximum(matrix.sum(1)[rows], 1),
        }
    )
    return table[table["images"] > 0]


def converged_at(val_accuracy: list[float], within: float = 0.01) -> int:
    """First epoch (from 1) whose validation accuracy is within `within` of the best one of the run."""
    threshold = max(val_accuracy) - within
    return next(i for i, value in enumerate(val_accuracy, start=1) if value >= threshold)
