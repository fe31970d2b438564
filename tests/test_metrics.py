"""Metrics against numbers worked out by hand, published values, and simulation."""

import math
import time

import numpy as np
import pytest
from scipy.stats import binom, multinomial
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


@pytest.mark.parametrize(
    ("accuracies", "epoch"),
    [([0.5], 1), ([0.1, 0.5, 0.9], 3), ([0.1, 0.895, 0.9, 0.89], 2), ([0.9, 0.8, 0.7], 1), ([0.1, 0.88, 0.9], 3)],
)
def test_converged_at_the_first_epoch_within_a_point_of_the_best(accuracies, epoch):
    assert metrics.converged_at(accuracies) == epoch


# ---- score intervals: rare classes, no errors, pairs

PAIRS = np.array([1.0, -1.0, 0.0])  # only b right, only a right, both or neither


def covered(truth, low, high):
    return ((low <= truth) & (truth <= high)).mean()


@pytest.mark.parametrize(
    "images",
    [[2] * 10, [4] * 10, [5] * 10, [10] * 5, [20] * 5, [50] * 5, [200, 200, 2], [2, 2, 2, 50, 50, 50]],
    ids=str,
)
def test_intervals_cover_the_truth_about_95_times_in_100_however_rare_the_classes(images):
    """600 classifiers of their own, recalls from 0.5 to 0.99: two standard errors of the simulation are 1.8 points.

    The numbers of images of each class are given. Few images have few possible results, so that an interval cannot be
    right exactly 95 times in 100: there it may be right more often.
    """
    rng, images, count = np.random.default_rng(0), np.array(images), 600
    recall, own = rng.uniform(0.5, 0.99, (count, len(images))), np.eye(len(images))
    taken = rng.dirichlet(np.ones(len(images)), (count, len(images))) * (1 - own)
    truth = recall[..., None] * own + (1 - recall)[..., None] * taken / taken.sum(-1, keepdims=True)
    matrices = rng.multinomial(images, truth)
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    most = 0.98 if images.min() > 2 else 0.99
    _, low, high = metrics.mean_interval(np.stack([hits, images - hits], -1), metrics.HIT_OR_MISS)
    assert 0.92 < covered(recall.mean(-1), low, high) < most
    expected = truth * images[:, None]
    f1 = (2 * np.diagonal(expected, axis1=1, axis2=2) / (images + expected.sum(1))).mean(-1)
    assert 0.91 < covered(f1, *metrics.macro_f1_interval(matrices)) < most
    shares = rng.dirichlet([1, 1, 4], (count, len(images)))
    _, low, high = metrics.mean_interval(rng.multinomial(images, shares), PAIRS)
    assert 0.92 < covered((shares @ PAIRS).mean(-1), low, high) <= (1 if images.min() == 2 else 0.985)
    only = rng.uniform(0.02, 0.3, (count, len(images)))  # two models that are equally good in every class
    _, low, high = metrics.mean_interval(rng.multinomial(images, np.stack([only, only, 1 - 2 * only], -1)), PAIRS)
    assert ((low > 0) | (high < 0)).mean() <= 0.05 + 0.015


@pytest.mark.parametrize("images", [20, 100, 500])
@pytest.mark.parametrize("differ", [0.05, 0.1, 0.2, 0.5])
def test_of_two_equal_models_one_is_called_better_at_most_5_times_in_100(images, differ):
    """Exactly, without simulation: over all tables of `images`, weighted by their probability."""
    only_a, only_b = np.divmod(np.arange((images + 1) ** 2), images + 1)
    only_a, only_b = (only[only_a + only_b <= images] for only in (only_a, only_b))
    chance = multinomial.pmf(
        np.stack([only_b, only_a, images - only_a - only_b], -1), images, [differ / 2] * 2 + [1 - differ]
    )
    likely = chance > 1e-7
    cells = np.stack([only_b, only_a, images - only_a - only_b], -1)[likely]
    _, low, high = metrics.mean_interval(cells[:, None], PAIRS)
    assert chance[likely][(low > 0) | (high < 0)].sum() < 0.05


def test_for_one_class_it_is_wilsons_interval():
    for correct, total in ((20, 20), (0, 3), (81, 263), (1, 29)):
        _, low, high = metrics.mean_interval(np.array([[correct, total - correct]]), metrics.HIT_OR_MISS)
        assert (low, high) == pytest.approx(metrics.wilson(correct, total), abs=1e-6)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 5), (1, 9), (3, 6), (10, 23), (40, 60), (8, 8)])
def test_the_verdict_on_plain_accuracy_is_mcnemars(only_a, only_b):
    """Its mid-p form (Fagerland et al. 2013), of which these tables lie on both sides of 5 %."""
    _, low, high = metrics.paired_difference(*flags(150, only_a, only_b, 30))
    tail = binom(only_a + only_b, 0.5)
    mid_p = 2 * tail.cdf(min(only_a, only_b)) - tail.pmf(min(only_a, only_b))
    assert (low > 0 or high < 0) == (mid_p < 0.05)


def test_a_perfect_score_on_few_images_is_no_certainty():
    few, rare = metrics.macro_f1_interval(np.diag([10, 10])), metrics.macro_f1_interval(np.diag([200, 2]))
    assert few == pytest.approx(metrics.wilson(20, 20), abs=1e-6) and rare[0] < 0.7
    labels = np.array([0] * 200 + [1] * 2)
    value, low, high = metrics.with_interval(labels, labels, "balanced_accuracy")
    assert (value, high) == (1, 1) and low == pytest.approx((1 + metrics.wilson(2, 2)[0]) / 2, abs=0.01)
    difference, low, high = metrics.paired_difference(labels == 0, labels == 0, labels)
    assert difference == 0 and low < -0.2 and high > 0.2


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_intervals_hold_their_estimates_and_say_nothing_of_classes_without_images(classes):
    rng = np.random.default_rng(0)
    matrices = rng.multinomial(rng.integers(0, 5, (200, classes)), rng.dirichlet(np.ones(classes), (200, classes)))
    matrices = matrices[matrices.sum((1, 2)) > 0]
    images, hits = matrices.sum(-1), np.diagonal(matrices, axis1=1, axis2=2)
    value, low, high = metrics.mean_interval(np.stack([hits, images - hits], -1), metrics.HIT_OR_MISS)
    assert (low >= 0).all() and (low <= value).all() and (value <= high).all() and (high <= 1 + 1e-12).all()
    assert value == pytest.approx([np.mean((h / np.maximum(n, 1))[n > 0]) for h, n in zip(hits, images, strict=True)])
    low, high = metrics.macro_f1_interval(matrices)
    f1 = (2 * hits / np.maximum(images + matrices.sum(1), 1)).mean(-1)
    assert (low >= 0).all() and (low <= f1).all() and (f1 <= high).all() and (high - low > 0.01).all()
    labels, predictions = (np.repeat(which.ravel(), matrices[0].ravel()) for which in np.indices(matrices[0].shape))
    quality = metrics.summary(labels, np.eye(classes)[predictions])
    assert quality["macro_f1"] == pytest.approx(f1[0]) and quality["macro_f1_low"] == pytest.approx(low[0])
    assert quality["balanced_accuracy"] == pytest.approx(value[0])


def test_large_tests_get_the_intervals_of_the_bootstrap():
    labels, predictions = np.tile(LABELS, 200), np.tile(PREDICTIONS, 200)
    rng, scores = np.random.default_rng(1), []
    for _ in range(300):  # of resampled predictions
        index = rng.integers(0, len(labels), len(labels))
        precise = sk.f1_score(labels[index], predictions[index], average="macro")
        scores.append((sk.balanced_accuracy_score(labels[index], predictions[index]), precise))
    lows, highs = np.quantile(scores, [0.025, 0.975], axis=0)
    assert metrics.with_interval(labels, predictions, "balanced_accuracy")[1:] == pytest.approx(
        (lows[0], highs[0]), abs=5e-3
    )
    assert metrics.macro_f1_interval(MATRIX * 200) == pytest.approx((lows[1], highs[1]), abs=5e-3)


def test_a_thousand_classes_take_less_than_a_second_where_nothing_else_runs():
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(1000), 10)
    predictions = np.where(rng.random(10_000) < 0.7, labels, rng.integers(0, 1000, 10_000))
    matrix = metrics.confusion(labels, predictions, 1000)
    started = time.process_time()
    metrics.macro_f1_interval(matrix)
    metrics.paired_difference(labels == predictions, labels == 0, labels)
    assert time.process_time() - started < 4  # beside other tests; 0.3 alone


def test_balanced_accuracy_leads_where_classes_are_rare():
    assert metrics.leading([100, 90, 100]) == "accuracy" and metrics.leading([10, 30, 30]) == "balanced_accuracy"


def test_a_paired_difference_of_balanced_accuracies_counts_classes_the_same():
    labels = np.array([0] * 90 + [1] * 10)
    a, b = labels == 0, labels == 1  # each right on one class only
    assert metrics.paired_difference(a, b)[0] == pytest.approx(-0.8)
    difference, low, high = metrics.paired_difference(a, b, labels)
    assert difference == 0 and low < 0 < high


def test_paired_difference_of_a_hand_table():
    a, b = flags(both=800, only_a=20, only_b=80, neither=100)
    difference, low, high = metrics.paired_difference(a, b)
    assert difference == pytest.approx(0.06)
    # Wald: d ± 1.96 sqrt((n10 + n01 - (n01 - n10)²/n) / n²)
    half = 1.96 * math.sqrt((100 - 60**2 / 1000) / 1000**2)
    assert (low, high) == pytest.approx((0.06 - half, 0.06 + half), abs=2e-3)
    assert metrics.paired_difference(b, a) == pytest.approx((-difference, -high, -low))


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


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [
        ([0, 1, 0], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]),  # no error: the colder the better
        ([1, 0, 1, 0], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.6, 0.4]]),  # worse than guessing: the hotter
        ([0, 1, 1], [[0.5, 0.5]] * 3),  # nothing to rescale
        ([0, 0, 1], [[1.0, 0.0], [1.0, 0.0], [1e-9, 1.0]]),
    ],
)
def test_a_temperature_that_the_samples_do_not_tell_is_none(labels, probabilities):
    assert metrics.fit_temperature(np.array(labels), np.array(probabilities)) is None


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
