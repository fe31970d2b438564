"""Accuracy against coverage of models whose every confidence is known, and the sentence on any table."""

import io
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hw1_utils import metrics
from hw1_utils.experiment import Result
from hw1_utils.report import figures
from hw1_utils.report.third_answers import coverage_in_words
from hw1_utils.selective import Confidences, curve, threshold_for
from hw1_utils.studies.coverage import _row, coverage
from hw1_utils.training import Predictions


def predictions(confidence, right):
    """Of two classes; the true one is the first."""
    confidence, right = torch.as_tensor(confidence).float(), torch.as_tensor(right)
    probabilities = torch.stack([confidence, 1 - confidence], 1)
    probabilities[~right] = probabilities[~right].flip(1)
    return Predictions(0.5, right.double().mean().item(), probabilities, torch.zeros(len(right), dtype=torch.int64))


def make_result(config, name, title, count=400):
    """Right where it is more than 70 % sure; the test images are every other one of validation's."""
    confidence = np.linspace(0.51, 1, count)
    run = SimpleNamespace(name=name, title=title, context=SimpleNamespace(config=config))
    val, test = (predictions(confidence[::step], confidence[::step] > 0.7) for step in (1, 2))
    return Result(SimpleNamespace(run=run, val=val), test)


def test_the_threshold_is_validations_and_what_comes_of_it_the_tests(make_smoke_config):
    config = make_smoke_config()
    results = [make_result(config, "cnn", "CNN, tuned recipe"), make_result(config, "vit", "probe (few)", 80)]
    table = coverage(results, target=0.9)
    first, second = table.to_dict("records")
    val, test = (
        Confidences(of.probabilities.max(1).values.numpy(), of.guesses == 0)
        for of in (results[0].trained.val, results[0].test)
    )
    assert first["threshold"] == threshold_for(val, 0.9) and 0.65 < first["threshold"] < 0.7
    answered, right = test.answered(first["threshold"])
    assert first["test_coverage"] == answered / 200 and first["test_answered_accuracy"] == right / answered
    bounds = metrics.wilson(right, answered)
    assert (first["test_answered_accuracy_low"], first["test_answered_accuracy_high"]) == bounds
    assert first["test_accuracy"] == test.right.mean()
    assert second["reached"] and second["threshold"] > 0.7 and second["least_val_images"] == 29
    folder = config.results_path
    pd.testing.assert_frame_equal(pd.read_csv(folder / "coverage.csv"), table, rtol=1e-4, check_dtype=False)
    by = pd.read_csv(folder / "accuracy_by_coverage.csv")
    assert len(by) == 20 and by["test_accuracy"].iloc[0] == 1 and by["test_accuracy"].is_monotonic_decreasing
    assert by["test_accuracy"].iloc[-2] == pytest.approx(test.right.mean(), abs=1e-5)
    with Image.open(folder / "coverage.png") as picture:
        assert picture.format == "PNG"


def table_of(*rows, target=0.95):
    """`rows`: title and the confidences of validation and of test."""
    models = [{"model": title, "name": f"m{i}"} | _row(val, test, target) for i, (title, val, test) in enumerate(rows)]
    return pd.DataFrame(models)


def known(count, right, low=0.5, high=1.0):
    """The surest `right` of `count` images are right."""
    return Confidences(np.linspace(high, low, count), np.arange(count) < right)


@pytest.mark.parametrize(
    ("val", "test", "said"),
    [
        (known(400, 300), known(200, 150), "A\\_\\*b\\* answers 76.5% (70.2% to 81.8%) of the test images, and 98.0%"),
        (known(400, 300), known(200, 150), " of those rightly, against 75.0% of all."),
        (known(400, 400), known(200, 200), "A\\_\\*b\\* answers all of the test images, and 100.0%"),
        (
            known(40, 40),
            known(200, 150),
            "cannot promise it: that takes 59 validation images at least, and there are 40.",
        ),
        (known(400, 0), known(200, 150), "cannot promise it: no confidence is high enough, going by validation."),
        (known(400, 300), known(20, 10, high=0.6), "A\\_\\*b\\* answers none of the test images."),
        (known(400, 300), known(200, 0), "fewer than asked for: the test images are harder than those of validation,"),
    ],
)
def test_every_outcome_has_its_sentence(val, test, said):
    table = table_of(("a_*b*", val, test))
    text = coverage_in_words(table)
    assert said in text and text.startswith("Asked for answers of which 95 % are right")
    assert not re.search(r"\bnan\b", text)
    assert coverage_in_words(pd.read_csv(io.StringIO(table.to_csv(index=False)))) == text


def test_where_images_come_in_groups_the_intervals_go_by_these():
    val, test = known(400, 300), known(200, 150)
    alone, one_each, ten = (_row(val, test, 0.95, groups) for groups in (None, np.arange(200), np.arange(200) // 20))
    assert "test_groups" not in alone and (one_each["test_groups"], ten["test_groups"]) == (200, 10)
    for what in ("coverage", "answered_accuracy"):
        value, low, high = (f"test_{what}{end}" for end in ("", "_low", "_high"))
        assert alone[value] == one_each[value] == ten[value]
        assert ten[low] < alone[low] and ten[high] > alone[high]
        assert one_each[low] == pytest.approx(alone[low], abs=0.01)
    text = coverage_in_words(pd.DataFrame([{"model": "a", "name": "m"} | ten]))
    assert "seen on 200 test images; 95 % intervals of 10 groups, by which they go" in text


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.integers(0, 400), st.integers(1, 50), st.integers(0, 50)),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([0.5, 0.9, 0.95, 0.999]),
)
def test_the_sentence_says_what_the_table_says(models, target):
    rows = [(f"model {i}", known(a, min(a, b)), known(c, min(c, d))) for i, (a, b, c, d) in enumerate(models)]
    table = table_of(*rows, target=target)
    text = coverage_in_words(table)
    assert not re.search(r"\bnan\b", text) and text.count("cannot promise") == (~table["reached"]).sum()
    assert text.count(" rightly") == table["test_answered_accuracy"].notna().sum()
    assert f"of which {target * 100:.6g} % are right" in text


def test_models_that_are_equally_sure_of_everything_have_a_point_and_those_without_a_threshold_no_dot():
    same = Confidences(np.full(30, 0.5), np.arange(30) < 20)
    table = table_of(("one", same, same), ("other " * 20, known(400, 300), known(200, 150)))
    figure = figures.coverage({"one": curve(same)[1:], "other " * 20: curve(known(200, 150))[1:]}, table)
    lines = figure.axes[0].get_lines()
    assert [line.get_marker() for line in lines[1:]] == ["s", "o", "None", "o"]
    assert np.isnan(lines[2].get_xdata()).all() and lines[4].get_xdata()[0] == table["test_coverage"][1]
