"""Thresholds of confidence: what they answer, and that they keep their promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from hw1_utils.selective import RISK, Confidences, confidences, curve, least_images, threshold_for

LEVELS = {"many": np.linspace(0.5, 1, 20_001), "few": np.linspace(0.5, 1, 41)}  # of confidence, all as frequent


def right_with(confidence):
    """The probability that a model is right which is this sure."""
    return 1 - 2 * (1 - confidence) ** 2


def draw(count, levels, rng):
    confidence = rng.choice(LEVELS[levels], count)
    return Confidences(confidence, rng.uniform(size=count) < right_with(confidence))


def truth(threshold, levels):
    """(coverage, accuracy of the answers) over all images that there could be."""
    answered = LEVELS[levels] >= threshold
    return answered.mean(), right_with(LEVELS[levels][answered]).mean()


def test_confidence_is_the_probability_of_the_prediction():
    found = confidences(np.array([0, 1, 1]), np.array([[0.7, 0.3], [0.6, 0.4], [0.1, 0.9]]))
    assert found.confidence.tolist() == [0.7, 0.6, 0.9] and found.right.tolist() == [True, False, True]
    assert [found.answered(threshold) for threshold in (0.0, 0.7, 0.95)] == [(3, 2), (2, 2), (0, 0)]


def test_images_of_one_confidence_go_together():
    thresholds, answered, right = curve(
        Confidences(np.array([0.9, 0.5, 0.9, 0.6]), np.array([True, True, False, True]))
    )
    assert thresholds.tolist() == [0.9, 0.6, 0.5] and answered.tolist() == [2, 3, 4] and right.tolist() == [1, 2, 3]
    assert [len(part) for part in curve(Confidences(np.zeros(0), np.zeros(0, bool)))] == [0, 0, 0]


@pytest.mark.parametrize("target", [0.5, 0.9, 0.95, 0.99])
def test_no_fewer_images_can_prove_it(target):
    least = least_images(target)
    for count, enough in ((least - 1, False), (least, True)):
        flawless = Confidences(np.linspace(0.6, 1, count), np.ones(count, bool))
        assert (threshold_for(flawless, target) is not None) == enough
        assert (binomtest(count, count, target, alternative="greater").pvalue <= RISK) == enough


def test_where_everything_can_be_answered_the_threshold_is_zero():
    assert threshold_for(Confidences(np.full(500, 0.4), np.ones(500, bool)), 0.95) == 0.0


@pytest.mark.parametrize(("count", "target", "least"), [(150, 0.9, 0.4), (1000, 0.9, 0.8), (1000, 0.95, 0.7)])
@pytest.mark.parametrize("levels", LEVELS)
def test_the_promise_is_kept_as_often_as_it_says(count, target, least, levels):
    """`least`: of what perfect knowledge would answer, on average: silence keeps every promise."""
    rng = np.random.default_rng(0)
    thresholds = [threshold_for(draw(count, levels, rng), target) for _ in range(300)]
    found = [truth(threshold, levels) for threshold in thresholds if threshold is not None]
    broken = sum(accuracy < target for _, accuracy in found)
    assert broken <= 300 * RISK
    perfect = max(truth(level, levels)[0] for level in LEVELS["few"] if truth(level, levels)[1] >= target)
    assert sum(covered for covered, _ in found) / 300 > least * perfect


def test_a_mistake_among_the_surest_images_does_not_end_it():
    right = np.ones(2000, bool)
    right[:2] = False
    assert threshold_for(Confidences(np.linspace(1, 0.5, 2000), right), 0.95) == 0.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=300), st.sampled_from([0.3, 0.6, 0.95]))
def test_what_is_answered_is_shown_to_reach_the_target(images, target):
    confidence, right = (np.array(column) for column in zip(*images, strict=True)) if images else (np.zeros(0),) * 2
    val = Confidences(confidence / 5, right.astype(bool))
    threshold = threshold_for(val, target)
    if threshold is not None:
        answered, correct = val.answered(threshold)
        assert answered >= least_images(target)
        assert binomtest(correct, answered, target, alternative="greater").pvalue <= RISK
