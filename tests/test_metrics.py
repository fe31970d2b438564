"""Metrics against numbers worked out by hand, published values, and simulation."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk

from hw1_utils import metrics

# True class in rows, predicted in columns:
#       a  b  c
#   a [ 3  1  0 ]   precision  a 3/5  b 2/4  c 1/1
#   b [ 1  2  0 ]   recall     a 3/4  b 2/3  c 1/3
#   c [ 1  1  1 ]   F1 = 2TP / (row sum + column sum):  a 6/9  b 4/7  c 2/4
MATRIX = np.array([[3, 1, 0], [1, 2, 0], [1, 1, 1]])
LABELS = np.repeat(np.arange(3), MATRIX.sum(1))
PREDICTIONS = np.concatenate([np.repeat(np.arange(3), row) for row in MATRIX])
PROBABILITIES = np.where(np.eye(3)[PREDICTIONS] == 1, 0.8, 0.1)  # 0.8 for the predicted class


def test_summary_of_the_hand_example():
    result = metrics.summary(LABELS, PROBABILITIES)
    assert result["accuracy"] == pytest.approx(6 / 10)
    assert result["macro_precision"] == pytest.approx((3 / 5 + 2 / 4 + 1) / 3)
    assert result["macro_recall"] == pytest.approx((3 / 4 + 2 / 3 + 1 / 3) / 3)
    assert result["macro_f1"] == pytest.approx((6 / 9 + 4 / 7 + 2 / 4) / 3)
    assert result["loss"] == pytest.approx(-(6 * math.log(0.8) + 4 * math.log(0.1)) / 10)
    assert (result["accuracy_low"], result["accuracy_high"]) == metrics.wilson(6, 10)


def test_per_class_and_confusion_of_the_hand_example():
    table = metrics.per_class(LABELS, PREDICTIONS, ["a", "b", "c"])
    assert table.index.tolist() == ["a", "b", "c"]
    assert table["precision"].tolist() == pytest.approx([3 / 5, 2 / 4, 1])
    assert table["recall"].tolist() == pytest.approx([3 / 4, 2 / 3, 1 / 3])
    assert table["f1"].tolist() == pytest.approx([6 / 9, 4 / 7, 2 / 4])
    assert table["support"].tolist() == [4, 3, 3]
    assert metrics.confusion(LABELS, PREDICTIONS, 3).tolist() == MATRIX.tolist()


def test_summary_agrees_with_scikit_learn_on_random_predictions():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 7, 500), rng.dirichlet(np.ones(7), 500).astype(np.float32)
    predictions, result = probabilities.argmax(1), metrics.summary(labels, probabilities)
    assert result["accuracy"] == pytest.approx(sk.accuracy_score(labels, predictions))
    assert result["macro_precision"] == pytest.approx(sk.precision_score(labels, predictions, average="macro"))
    assert result["macro_recall"] == pytest.approx(sk.balanced_accuracy_score(labels, predictions))
    assert result["macro_f1"] == pytest.approx(sk.f1_score(labels, predictions, average="macro"))
    likelihood = probabilities[np.arange(500), labels].astype(np.float64)
    assert result["loss"] == pytest.approx(-np.log(likelihood).mean(), rel=1e-5)


def test_a_class_that_is_never_predicted_counts_as_zero():
    labels, predictions = np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1])
    table = metrics.per_class(labels, predictions, ["a", "b", "c"])
    assert table.loc["c", ["precision", "recall", "f1"]].tolist() == [0, 0, 0]
    result = metrics.summary(labels, np.where(np.eye(3)[predictions] == 1, 0.8, 0.1))
    assert result["macro_precision"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert result["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_a_class_without_samples_keeps_its_row():
    labels, predictions = np.array([0, 0, 1]), np.array([0, 1, 1])
    assert metrics.per_class(labels, predictions, ["a", "b", "c"])["support"].tolist() == [2, 1, 0]
    assert metrics.confusion(labels, predictions, 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert math.isfinite(metrics.summary(labels, np.full((3, 3), 1 / 3))["loss"])


def test_a_probability_of_zero_keeps_the_loss_finite():
    assert math.isfinite(metrics.summary(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]))["loss"])


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_as_published(correct, total, low, high):
    """Newcombe (1998), Statistics in Medicine 17, table I, method 3."""
    assert metrics.wilson(correct, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("p", [0.67, 0.9])
def test_wilson_intervals_cover_the_truth_about_95_times_in_100(p):
    counts, times = np.unique(np.random.default_rng(0).binomial(500, p, 4000), return_counts=True)
    covered = [low <= p <= high for low, high in (metrics.wilson(int(count), 500) for count in counts)]
    assert 0.935 < np.average(covered, weights=times) < 0.965


def flags(both, only_a, only_b, neither):
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return np.array(a), np.array(b)


def test_mcnemar_of_a_hand_table():
    # 1 + 9 of 10 discordant pairs: 2 * (C(10,0) + C(10,1)) / 2^10 = 22 / 1024
    only_a, only_b, p = metrics.mcnemar(*flags(both=50, only_a=1, only_b=9, neither=5))
    assert (only_a, only_b) == (1, 9)
    assert p == pytest.approx(22 / 1024)
    assert p == pytest.approx(binomtest(1, 10).pvalue)


def test_mcnemar_is_symmetric_and_blind_to_agreement():
    a, b = flags(both=7, only_a=12, only_b=4, neither=3)
    ours, swapped = metrics.mcnemar(a, b), metrics.mcnemar(b, a)
    assert swapped == (ours[1], ours[0], pytest.approx(ours[2]))
    assert metrics.mcnemar(*flags(both=1000, only_a=12, only_b=4, neither=0))[2] == pytest.approx(ours[2])


def test_mcnemar_without_a_difference():
    assert metrics.mcnemar(*flags(both=5, only_a=0, only_b=0, neither=2)) == (0, 0, 1.0)
    assert metrics.mcnemar(*flags(both=5, only_a=3, only_b=3, neither=2))[2] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("accuracies", "epoch"),
    [([0.5], 1), ([0.1, 0.5, 0.9], 3), ([0.1, 0.895, 0.9, 0.89], 2), ([0.9, 0.8, 0.7], 1), ([0.1, 0.88, 0.9], 3)],
)
def test_converged_at_the_first_epoch_within_a_point_of_the_best(accuracies, epoch):
    assert metrics.converged_at(accuracies) == epoch


# ---- bootstrap


def test_the_f1_interval_holds_the_f1_and_shrinks_with_the_sample():
    small, large = (metrics.bootstrap_macro(MATRIX * times)[1] for times in (10, 1000))
    f1 = (6 / 9 + 4 / 7 + 2 / 4) / 3
    assert small[0] < large[0] < f1 < large[1] < small[1]
    assert (small[1] - small[0]) / (large[1] - large[0]) == pytest.approx(10, rel=0.1)  # 1 / sqrt(n)
    assert metrics.bootstrap_macro(MATRIX * 10)[1] == small  # seeded


def test_the_f1_bootstrap_is_that_of_resampled_predictions():
    labels, predictions = np.tile(LABELS, 20), np.tile(PREDICTIONS, 20)
    rng, scores = np.random.default_rng(1), []
    for _ in range(1000):
        index = rng.integers(0, len(labels), len(labels))
        scores.append(sk.f1_score(labels[index], predictions[index], average="macro"))
    assert metrics.bootstrap_macro(MATRIX * 20)[1] == pytest.approx(
        tuple(np.quantile(scores, [0.025, 0.975])), abs=0.01
    )


def test_f1_intervals_cover_the_truth_about_95_times_in_100(monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 300)
    cells = np.array([[0.25, 0.05, 0.03], [0.04, 0.26, 0.03], [0.06, 0.02, 0.26]])
    truth = np.mean(2 * cells.diagonal() / (cells.sum(0) + cells.sum(1)))
    draws = np.random.default_rng(0).multinomial(400, cells.ravel(), 400).reshape(-1, 3, 3)
    intervals = [metrics.bootstrap_macro(matrix)[1] for matrix in draws]
    assert 0.91 < np.mean([low <= truth <= high for low, high in intervals]) < 0.98


def test_balanced_accuracy_is_the_mean_of_the_classes_own():
    labels = np.array([0] * 90 + [1] * 10)
    probabilities = np.tile([0.9, 0.1], (100, 1))  # never the rare class
    quality = metrics.summary(labels, probabilities)
    assert (quality["accuracy"], quality["balanced_accuracy"]) == (0.9, 0.5)
    assert quality["balanced_accuracy_low"] == quality["balanced_accuracy_high"] == 0.5  # whatever is drawn
    low, high = metrics.bootstrap_macro(MATRIX * 20)[0]
    assert low < np.mean(MATRIX.diagonal() / MATRIX.sum(1)) < high


def test_balanced_accuracy_leads_where_classes_are_rare():
    assert metrics.leading([100, 90, 100]) == "accuracy" and metrics.leading([10, 30, 30]) == "balanced_accuracy"


def test_a_paired_difference_of_balanced_accuracies_counts_classes_the_same():
    labels = np.array([0] * 90 + [1] * 10)
    a, b = labels == 0, labels == 1  # each right on one class only
    assert metrics.paired_difference(a, b)[0] == pytest.approx(-0.8)
    difference, low, high = metrics.paired_difference(a, b, labels)
    assert difference == low == high == 0


def test_classes_of_one_image_are_no_certainty():
    rng, wrong = np.random.default_rng(0), 0
    labels = np.arange(50)  # one test image each
    for _ in range(40):
        a, b = rng.random((2, 50)) < 0.7  # equally good
        _, low, high = metrics.paired_difference(a, b, labels)
        wrong += low > 0 or high < 0
    assert wrong <= 6  # 5 % of 40 are 2


def test_intervals_hold_their_own_estimate_however_small_the_classes():
    (low, high), (f1_low, f1_high) = metrics.bootstrap_macro(np.eye(100, dtype=int) * 2)  # all right
    assert low == high == f1_low == f1_high == 1


def test_paired_difference_of_a_hand_table():
    a, b = flags(both=800, only_a=20, only_b=80, neither=100)
    difference, low, high = metrics.paired_difference(a, b)
    assert difference == pytest.approx(0.06)
    # Wald: d ± 1.96 sqrt((n10 + n01 - (n01 - n10)²/n) / n²)
    half = 1.96 * math.sqrt((100 - 60**2 / 1000) / 1000**2)
    assert (low, high) == pytest.approx((0.06 - half, 0.06 + half), abs=2e-3)
    assert metrics.paired_difference(b, a)[0] == pytest.approx(-0.06)
    assert metrics.paired_difference(a, a) == (0, 0, 0)


def test_paired_intervals_cover_the_truth_about_95_times_in_100():
    rng, covered = np.random.default_rng(0), []
    for both, only_a, only_b, neither in rng.multinomial(500, [0.7, 0.05, 0.1, 0.15], 500):
        _, low, high = metrics.paired_difference(*flags(both, only_a, only_b, neither))
        covered.append(low <= 0.05 <= high)
    assert 0.92 < np.mean(covered) < 0.98


# ---- calibration


def test_reliability_and_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.60, 0.60])
    probabilities = np.stack([confidence, 1 - confidence], 1)
    labels = np.array([0, 0, 0, 1, 0, 1])  # 3 of 4 right at 0.95, 1 of 2 at 0.60
    table = metrics.reliability(labels, probabilities)
    assert table.values.tolist() == [pytest.approx([0.60, 0.50, 2]), pytest.approx([0.95, 0.75, 4])]
    assert metrics.calibration_error(table) == pytest.approx((2 * 0.10 + 4 * 0.20) / 6)


def test_probability_one_belongs_to_the_last_bin():
    table = metrics.reliability(np.array([0, 0]), np.array([[1.0, 0.0], [0.99, 0.01]]))
    assert table["count"].tolist() == [2] and table["accuracy"].tolist() == [1]


def overconfident(count=4000, factor=2.0):
    """Labels drawn from softmax(z), predictions softmax(factor * z)."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(count, 4)) * 2
    honest = metrics.with_temperature(np.exp(logits), 1.0)
    labels = (honest.cumsum(1) > rng.random((count, 1))).argmax(1)
    return labels, metrics.with_temperature(honest, 1 / factor)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_temperature_undoes_over_and_underconfidence(factor):
    labels, probabilities = overconfident(factor=factor)
    temperature = metrics.fit_temperature(labels, probabilities)
    assert temperature == pytest.approx(factor, rel=0.1)
    scaled = metrics.with_temperature(probabilities, temperature)
    assert sk.log_loss(labels, scaled) <= sk.log_loss(labels, probabilities)
    assert (scaled.argmax(1) == probabilities.argmax(1)).all()  # accuracy does not change
    assert metrics.calibration_error(metrics.reliability(labels, scaled)) < 0.03


def test_temperature_one_changes_nothing():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(5), 50)
    np.testing.assert_allclose(metrics.with_temperature(probabilities, 1.0), probabilities)


# ---- what is confused with what


def test_confused_pairs_of_the_hand_example():
    table = metrics.confused_pairs(MATRIX, ["a", "b", "c"], top=4)
    assert set(zip(table["true"], table["predicted"], strict=True)) == {("a", "b"), ("b", "a"), ("c", "a"), ("c", "b")}
    assert table["images"].tolist() == [1, 1, 1, 1]
    assert table.set_index(["true", "predicted"]).loc[("c", "b"), "share"] == pytest.approx(1 / 3)
    assert metrics.confused_pairs(np.eye(3, dtype=int), ["a", "b", "c"]).empty
