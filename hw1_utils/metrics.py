"""Numbers from predictions: NumPy arrays in, plain numbers and tables out. Knows no torch model."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
)

RESAMPLES = 2000  # of every bootstrap
BINS = 15  # of confidence, as in Guo et al. 2017
IMBALANCED = 1.5  # times as many images in the largest class as in the smallest


def leading(counts: Iterable[int]) -> str:
    """The measure that comes first, from the training images of each class: accuracy or balanced_accuracy.

    Where some classes are rare, a classifier that never names them can have a high accuracy.
    """
    counts = list(counts)
    return "balanced_accuracy" if max(counts) > IMBALANCED * min(counts) else "accuracy"


def score(labels: np.ndarray, predictions: np.ndarray, measure: str) -> float:
    """The leading measure alone: `measure` as from `leading`."""
    return float(
        {"accuracy": accuracy_score, "balanced_accuracy": balanced_accuracy_score}[measure](labels, predictions)
    )


def summary(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Quality of a classifier over all samples.

    Args:
        labels: int N, in 0..K-1.
        probabilities: float N×K; rows sum to 1 but for rounding.

    Returns:
        accuracy with its 95 % Wilson interval (accuracy_low, accuracy_high), balanced_accuracy (the mean of the
        classes' own accuracies) and macro_f1 (every class counts the same; one that is never predicted has precision
        0) with their 95 % bootstrap intervals, macro_precision, macro_recall, loss (mean negative log-likelihood),
        calibration_error (see there).
    """
    classes = range(probabilities.shape[1])
    predictions = probabilities.argmax(1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predictions, labels=classes, average="macro", zero_division=0
    )
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(1, keepdims=True)
    low, high = wilson(int((predictions == labels).sum()), len(labels))
    balanced, (f1_low, f1_high) = bootstrap_macro(confusion(labels, predictions, len(classes)))
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": float(balanced_accuracy_score(labels, predictions)),
        "balanced_accuracy_low": balanced[0],
        "balanced_accuracy_high": balanced[1],
        "macro_precision": float(precision),
        "macro_recall": float(recall),
        "macro_f1": float(f1),
        "macro_f1_low": f1_low,
        "macro_f1_high": f1_high,
        "loss": float(log_loss(labels, exact, labels=list(classes))),
        "calibration_error": calibration_error(reliability(labels, probabilities)),
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


def bootstrap_macro(matrix: np.ndarray, seed: int = 0) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % percentile bootstrap intervals of balanced accuracy and macro F1, from a confusion matrix K×K.

    Drawing N predictions with replacement is drawing the matrix's cells from a multinomial distribution
    (Efron and Tibshirani 1993): no prediction has to be touched.
    """
    rng, classes, total = np.random.default_rng(seed), len(matrix), matrix.sum()
    true, predicted = np.nonzero(matrix)
    hit = true == predicted
    scores = []
    for draw in rng.multinomial(total, matrix[true, predicted] / total, RESAMPLES):
        support, guesses = (np.bincount(which, draw, classes) for which in (true, predicted))
        hits = np.bincount(true[hit], draw[hit], classes)
        # Of a small class there may be nothing in a draw: it says nothing about it then.
        seen, named = support > 0, support + guesses > 0
        recall, f1 = hits[seen] / support[seen], 2 * hits[named] / (support + guesses)[named]
        scores.append((recall.mean(), f1.mean()))
    lows, highs = np.quantile(scores, [0.025, 0.975], axis=0)
    return tuple((float(low), float(high)) for low, high in zip(lows, highs, strict=True))


def paired_difference(
    correct_a: np.ndarray, correct_b: np.ndarray, labels: np.ndarray | None = None, seed: int = 0
) -> tuple[float, float, float]:
    """Accuracy of b minus accuracy of a on the same samples, with its 95 % percentile bootstrap interval.

    Samples are drawn in pairs; only how many of each class each got right alone matters, so those counts are drawn.

    Args:
        correct_a, correct_b: bool N, whether each got the sample right.
        labels: int N; given, the accuracies are balanced ones: means over the classes (of a draw: those it holds).

    Returns:
        difference, low, high.
    """
    classes = np.zeros(len(correct_a), int) if labels is None else np.unique(labels, return_inverse=True)[1]
    outcome = np.where(correct_a == correct_b, 2, np.where(correct_b, 0, 1))  # only b right, only a right, neither
    counts = np.bincount(classes * 3 + outcome, minlength=3 * (classes.max() + 1))

    def difference(drawn: np.ndarray) -> float:
        each = drawn.reshape(-1, 3)
        each = each[each.sum(1) > 0]
        return float(((each[:, 0] - each[:, 1]) / each.sum(1)).mean())

    draws = np.random.default_rng(seed).multinomial(len(outcome), counts / len(outcome), RESAMPLES)
    low, high = np.quantile([difference(drawn) for drawn in draws], [0.025, 0.975])
    return difference(counts), float(low), float(high)


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Confidence against accuracy: one row for each of 15 equal bins of confidence that holds any sample.

    Confidence is the probability of the predicted class. Columns: confidence and accuracy (means over the bin's
    samples), count.
    """
    confidence = probabilities.max(1)
    table = pd.DataFrame({"confidence": confidence, "accuracy": probabilities.argmax(1) == labels})
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    grouped = table.astype(float).groupby(bins)
    return grouped.mean().assign(count=grouped.size()).reset_index(drop=True)


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error (Guo et al. 2017): |confidence - accuracy| averaged over the samples of all bins."""
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return float(np.average(gaps, weights=table["count"]))


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The T for which softmax(logits / T) has the smallest negative log-likelihood (Guo et al. 2017).

    Fitted on validation data. Works on probabilities: their logarithms are logits but for a constant.
    """
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = with_temperature(probabilities, float(np.exp(log_temperature)))
        return -float(np.log(np.maximum(scaled[rows, labels], 1e-30)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x))


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


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> tuple[int, int, float]:
    """Exact McNemar test of two classifiers on the same samples (McNemar 1947, binomial form).

    Args:
        correct_a, correct_b: bool N, whether each got the sample right.

    Returns:
        Samples only a got right, samples only b got right, two-sided p-value of "equally good".
    """
    only_a = int((correct_a & ~correct_b).sum())
    only_b = int((correct_b & ~correct_a).sum())
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return only_a, only_b, float(p)


def converged_at(val_accuracy: list[float], within: float = 0.01) -> int:
    """First epoch (from 1) whose validation accuracy is within `within` of the best one of the run."""
    threshold = max(val_accuracy) - within
    return next(i for i, value in enumerate(val_accuracy, start=1) if value >= threshold)
