"""Intervals where samples come in groups: against the formulas written out, known cases, and simulation."""

import numpy as np
import pytest
from scipy.stats import t

from benchmarks.groups import coverage
from hw1_utils import metrics
from hw1_utils.clusters import CAUTION, reach


def written_out(values, classes, groups):
    """The same as N×N matrices: Bell and McCaffrey (2002) for the means of the classes, by ordinary least squares."""
    design = (classes[:, None] == np.unique(classes)).astype(float)
    inverse = np.linalg.inv(design.T @ design)
    hat = design @ inverse @ design.T
    residuals = (np.eye(len(values)) - hat) @ values
    contrast = np.full(design.shape[1], 1 / design.shape[1])
    rows = []
    for group in np.unique(groups):
        inside = groups == group
        eigen, vectors = np.linalg.eigh(np.eye(inside.sum()) - hat[np.ix_(inside, inside)])
        root = vectors @ np.diag(np.where(eigen > 1e-9, np.maximum(eigen, 1e-9) ** -0.5, 0)) @ vectors.T
        rows.append(contrast @ inverse @ design[inside].T @ root @ (np.eye(len(values)) - hat)[inside])
    weights = (design @ inverse @ contrast)[:, None]
    images = design.sum(0)[design.argmax(1)]
    clustered = ((np.array(rows) @ values) ** 2).sum()
    independent = ((weights[:, 0] * residuals) ** 2 * images / (images - 1)).sum()
    same = groups[:, None] == groups
    most = (weights.T @ same @ weights).item() / (weights**2).sum()
    belief = CAUTION * (weights**2).mean()
    effect = max(1, (clustered + belief * most) / (independent + belief))
    form = np.array(rows) @ np.array(rows).T
    return t.ppf(0.975, np.trace(form) ** 2 / (form**2).sum()) * effect**0.5


@pytest.mark.parametrize("of_one_class", [True, False])
def test_it_is_cr2_with_bell_and_mccaffreys_degrees_of_freedom(of_one_class):
    rng = np.random.default_rng(0)
    for _ in range(5):
        groups = rng.choice(12, 80, p=rng.dirichlet(np.ones(12)))
        classes = groups % 3 if of_one_class else rng.integers(0, 3, 80)
        values = (rng.random(80) < rng.random(12)[groups]).astype(float)
        assert reach(values, classes * 7, groups - 5) == pytest.approx(written_out(values, classes, groups), rel=1e-6)


def test_groups_of_one_sample_each_change_next_to_nothing():
    right = np.arange(300) % 10 < 8
    assert reach(right, np.zeros(300, int), np.arange(300)) == pytest.approx(t.ppf(0.975, 299))
    labels = np.arange(300) % 3
    predictions = np.where(right, labels, (labels + 1) % 3)
    for measure in ("accuracy", "balanced_accuracy"):
        alone = metrics.with_interval(labels, predictions, measure)
        assert metrics.with_interval(labels, predictions, measure, np.arange(300)) == pytest.approx(alone, abs=1e-3)
    probabilities = np.eye(3)[predictions]
    alone, grouped = metrics.summary(labels, probabilities), metrics.summary(labels, probabilities, np.arange(300))
    assert grouped == pytest.approx(alone, abs=1e-3)


def test_groups_all_right_or_all_wrong_count_as_one_sample_each():
    right, labels = np.arange(40) % 5 > 0, np.zeros(40, int)
    few = metrics.with_interval(labels, (~right).astype(int), "accuracy")
    many = metrics.with_interval(
        labels.repeat(10), (~right).repeat(10).astype(int), "accuracy", np.arange(40).repeat(10)
    )
    assert many[0] == few[0] == 0.8 and many[1:] == pytest.approx(few[1:], abs=0.02)


def test_no_error_in_few_groups_is_no_certainty():
    labels, groups = np.arange(200) % 2, np.repeat(np.arange(5), 40)
    for measure in ("accuracy", "balanced_accuracy"):
        value, low, high = metrics.with_interval(labels, labels, measure, groups)
        assert value == high == 1 and 0.2 < low < 0.6
    same = np.ones(200, bool)
    difference, low, high = metrics.paired_difference(same, same, labels, groups)
    assert difference == 0 and low < -0.3 and high > 0.3


@pytest.mark.parametrize("classes", [np.zeros(6, int), np.array([0, 0, 0, 1, 1, 1]), np.arange(6)])
@pytest.mark.parametrize("groups", [np.zeros(6, int), np.array([0, 0, 0, 1, 1, 1]), np.arange(6)])
def test_however_few_the_groups_it_is_a_number(classes, groups):
    """One group; each class of one group; one sample a class."""
    for values in (np.zeros(6), np.ones(6), np.array([1, 0, 1, 0, 1, 1.0])):
        assert metrics.Z <= reach(values, classes, groups) < 100


def test_intervals_by_groups_hold_the_truth_where_those_by_images_do_not():
    """60 repeats of each: three standard errors of the simulation are 8.5 points."""
    for groups, alike in ((5, 0.6), (20, 0.6)):
        for name, (by_groups, by_images, *_) in coverage(60, groups, 0.8, alike, of_one_class=False).items():
            assert by_groups >= 0.86, (groups, name)
            assert by_images < 0.93 and by_images < by_groups, (groups, name)
