"""Numbers from predictions: NumPy arrays in, plain numbers and tables out. Knows no torch model."""

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support


def summary(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Quality of a classifier over all samples.

    Args:
        labels: int N, in 0..K-1.
        probabilities: float N×K; rows sum to 1 but for rounding.

    Returns:
        accuracy with its 95 % Wilson interval (accuracy_low, accuracy_high), macro_precision, macro_recall,
        macro_f1 (every class counts the same; a class that is never predicted has precision 0), loss (mean
        negative log-likelihood).
    """
    classes = range(probabilities.shape[1])
    predictions = probabilities.argmax(1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predictions, labels=classes, average="macro", zero_division=0
    )
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(1, keepdims=True)
    low, high = wilson(int((predictions == labels).sum()), len(labels))
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_precision": float(precision),
        "macro_recall": float(recall),
        "macro_f1": float(f1),
        "loss": float(log_loss(labels, exact, labels=list(classes))),
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
