"""Calibration and differences of two models whose every prediction is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_report import CASES, CLASSES, make_pair

from hw1_utils import metrics
from hw1_utils.data import Split
from hw1_utils.studies import evidence


@pytest.fixture
def pair(make_smoke_config):
    return make_pair(make_smoke_config(), *CASES["within noise"][:2])  # 200 images; right: 0..179 and 5..181


@pytest.fixture
def test_split(pair):
    labels = pair[0].test.labels
    images = torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8)
    return Split("test", images, labels, [str(i) for i in range(len(labels))], CLASSES)


def test_calibration_is_fitted_on_val_and_reported_on_test(pair):
    table = evidence.write_calibration(pair)
    for result, row in zip(pair, table.to_dict("records"), strict=True):
        val = result.training.evaluations["val"]
        assert row["temperature"] == metrics.fit_temperature(val.labels.numpy(), val.probabilities.numpy())
        accuracy = result.correct.mean()
        assert row["calibration_error"] == pytest.approx(abs(accuracy - 0.8), abs=1e-6)  # always 80 % sure
        expected = -(accuracy * np.log(0.8) + (1 - accuracy) * np.log(0.1))
        assert row["test_loss"] == pytest.approx(expected, rel=1e-5)
    folder = pair[0].task.setup.config.results_path
    written = pd.read_csv(folder / "calibration.csv")
    assert written["model"].tolist() == [result.task.title for result in pair]
    with Image.open(folder / "calibration.png") as picture:
        assert picture.format == "PNG"


def test_a_temperature_that_val_does_not_tell_is_not_applied(pair, monkeypatch):
    first = pair[0].training.evaluations["val"]
    first.probabilities.fill_(0.1).scatter_(1, first.labels[:, None], 0.8)  # no error
    legends = []
    monkeypatch.setattr(evidence.figures, "save", lambda figure, path: legends.extend(figure.axes))
    table = evidence.write_calibration(pair)
    assert table["identifiable"].tolist() == [False, True] and table["name"].tolist() == ["cnn", "vit"]
    assert table.iloc[0][["temperature", "test_loss_rescaled", "calibration_error_rescaled"]].isna().all()
    assert table["test_loss"].notna().all() and table.iloc[1].notna().all()
    assert [axis.get_legend().get_title().get_text() for axis in legends[:2]] == ["temperature not identifiable", ""]
    assert [len(axis.get_lines()) for axis in legends[:2]] == [2, 3]


def test_shares_of_who_is_right(pair, test_split):
    shares = evidence.write_differences(*pair, test_split).shares
    assert shares["both right"] == 175 / 200 and shares["both wrong"] == 18 / 200
    assert (shares["only the first"], shares["only the second"]) == (5 / 200, 2 / 200)
    assert shares.sum() == pytest.approx(1)


def test_classes_stand_side_by_side(pair, test_split):
    differences = evidence.write_differences(*pair, test_split)
    for result in pair:
        own = differences.classes[result.task.title]
        pd.testing.assert_frame_equal(own, result.per_class().drop(columns="support"))
    flat = pd.read_csv(pair[0].task.setup.config.results_path / "differences.csv")
    assert flat["class"].tolist() == CLASSES
    assert f"f1 ({pair[1].task.title})" in flat.columns


def test_confused_pairs_name_the_model(pair, test_split):
    confused = evidence.write_differences(*pair, test_split).confused
    for result in pair:
        own = confused[confused["model"] == result.task.title]
        assert own["images"].sum() == (~result.correct).sum()


def test_the_gallery_shows_both_kinds_with_both_guesses(pair, test_split, monkeypatch):
    seen = {}
    draw = evidence.figures.image_grid
    monkeypatch.setattr(
        evidence.figures,
        "image_grid",
        lambda images, captions, *args, **kwargs: (
            seen.update(captions=captions) or draw(images, captions, *args, **kwargs)
        ),
    )
    assert evidence.write_differences(*pair, test_split).gallery.is_file()
    assert len(seen["captions"]) == 5 + 2
    for caption in seen["captions"][:5]:  # only the first is right
        true, first, second = caption.split("\n")
        assert first == f"1: {true} 0.80" and second.split()[1] != true and second.endswith("0.80")


def test_two_models_that_agree_leave_a_gallery_without_images(make_smoke_config, test_split):
    pair = make_pair(make_smoke_config(), *CASES["equal"][:2])
    differences = evidence.write_differences(*pair, test_split)
    assert differences.shares[["only the first", "only the second"]].tolist() == [0, 0]
    assert differences.gallery.is_file()
