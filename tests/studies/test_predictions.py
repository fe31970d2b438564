"""Calibration and disagreement of two models whose every prediction is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from hw1_utils import metrics
from hw1_utils.data import Split
from hw1_utils.experiment import Result
from hw1_utils.io.arrays import Rows
from hw1_utils.report import figures
from hw1_utils.studies.calibration import calibration
from hw1_utils.studies.disagreement import disagreement
from hw1_utils.training import Predictions

CLASSES = ["cat", "dog", "owl"]
ROWS = torch.arange(200)


def predictions(right):
    """`right`: bool N. A wrong prediction is the class after the true one; the model is always 80 % sure."""
    labels = torch.arange(len(right)) % 3
    guesses = torch.where(right, labels, (labels + 1) % 3)
    probabilities = torch.full((len(right), 3), 0.1).scatter(1, guesses[:, None], 0.8)
    return Predictions(0.5, right.double().mean().item(), probabilities, labels)


def make_result(config, name, title, right):
    context, data = SimpleNamespace(config=config), SimpleNamespace(classes=CLASSES)
    run = SimpleNamespace(name=name, title=title, context=context, data=data)
    val = predictions(torch.tensor([True, False]))
    return Result(SimpleNamespace(run=run, val=val), predictions(right))


@pytest.fixture
def pair(make_smoke_config):
    config = make_smoke_config()
    first = make_result(config, "cnn", "CNN, tuned recipe", ROWS < 180)
    return first, make_result(config, "vit", "probe, class token (test_vit)", (ROWS >= 5) & (ROWS < 182))


@pytest.fixture
def test_split(pair):
    labels = pair[0].test.labels
    images = torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8)
    return Split("test", Rows(images), labels, [str(i) for i in range(len(labels))], CLASSES)


def folder(pair):
    return pair[0].run.context.config.results_path


# ---- calibration


def test_calibration_is_fitted_on_val_and_reported_on_test(pair):
    table = calibration(pair)
    for result, row in zip(pair, table.to_dict("records"), strict=True):
        val = result.trained.val
        assert row["temperature"] == metrics.fit_temperature(val.labels.numpy(), val.probabilities.numpy())
        accuracy = result.correct.mean()
        assert row["calibration_error"] == pytest.approx(abs(accuracy - 0.8), abs=1e-6)  # always 80 % sure
        expected = -(accuracy * np.log(0.8) + (1 - accuracy) * np.log(0.1))
        assert row["test_loss"] == pytest.approx(expected, rel=1e-5)
    written = pd.read_csv(folder(pair) / "calibration.csv")
    assert written["model"].tolist() == [result.run.title for result in pair]
    with Image.open(folder(pair) / "calibration.png") as picture:
        assert picture.format == "PNG"


def test_a_temperature_that_val_does_not_tell_is_not_applied(pair, monkeypatch):
    first = pair[0].trained.val
    first.probabilities.fill_(0.1).scatter_(1, first.labels[:, None], 0.8)  # no error
    legends = []
    monkeypatch.setattr(figures, "save", lambda figure, path: legends.extend(figure.axes))
    table = calibration(pair)
    assert table["identifiable"].tolist() == [False, True] and table["name"].tolist() == ["cnn", "vit"]
    assert table.iloc[0][["temperature", "test_loss_rescaled", "calibration_error_rescaled"]].isna().all()
    assert table["test_loss"].notna().all() and table.iloc[1].notna().all()
    assert [axis.get_legend().get_title().get_text() for axis in legends[:2]] == ["temperature not identifiable", ""]
    assert [len(axis.get_lines()) for axis in legends[:2]] == [2, 3]


# ---- disagreement


def test_shares_of_who_is_right(pair, test_split):
    shares = disagreement(*pair, test_split).shares
    assert shares["both right"] == 175 / 200 and shares["both wrong"] == 18 / 200
    assert (shares["only the first"], shares["only the second"]) == (5 / 200, 2 / 200)
    assert shares.sum() == pytest.approx(1)


def test_classes_stand_side_by_side_and_confused_pairs_name_the_model(pair, test_split):
    differences = disagreement(*pair, test_split)
    for result in pair:
        own = differences.classes[result.run.title]
        pd.testing.assert_frame_equal(own, result.per_class().drop(columns="support"))
        confused = differences.confused[differences.confused["model"] == result.run.title]
        assert confused["images"].sum() == (~result.correct).sum()
    flat = pd.read_csv(folder(pair) / "differences.csv")
    assert flat["class"].tolist() == CLASSES and f"f1 ({pair[1].run.title})" in flat.columns


def test_the_gallery_shows_both_kinds_with_both_guesses(pair, test_split, monkeypatch):
    seen = []
    draw = figures.image_grid

    def watch(images, captions, *args, **options):
        seen.extend(captions)
        return draw(images, captions, *args, **options)

    monkeypatch.setattr(figures, "image_grid", watch)
    assert disagreement(*pair, test_split).gallery.is_file()
    assert len(seen) == 5 + 2
    for caption in seen[:5]:  # only the first is right
        true, first, second = caption.split("\n")
        assert first == f"1: {true} 0.80" and second.split()[1] != true and second.endswith("0.80")


def test_two_models_that_agree_leave_a_gallery_without_images(pair, test_split):
    differences = disagreement(pair[0], pair[0], test_split)
    assert differences.shares[["only the first", "only the second"]].tolist() == [0, 0]
    assert differences.gallery.is_file()
