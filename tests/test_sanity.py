"""The sanity check: what it says of pictures that no model can learn, and of those that this one does not."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hw1_utils import experiment, training
from hw1_utils.experiment import CNNTask, ProbeTask, prepare, sanity_check
from hw1_utils.files import Hw1Error

pytestmark = pytest.mark.usefixtures("one_thread")
MODELS = {"cnn": lambda setup: CNNTask(setup, "tuned"), "probe": ProbeTask}


@pytest.fixture
def folder(toy_folder):
    """30 training images a class: all of those that validation leaves are in the check."""
    for file in toy_folder.glob("train/*/*"):
        if int(file.stem) >= 30:
            file.unlink()
    return toy_folder


def put(folder, pixels, name, where):
    for part in where:
        Image.fromarray(pixels).save(folder / "train" / part / name)


def check(make_smoke_config, model, **options):
    setup = prepare(make_smoke_config(val_size=3, **options))
    return sanity_check(MODELS[model](setup))


@pytest.fixture
def red(folder):
    with Image.open(next(folder.glob("train/colour_0/*"))) as image:
        return np.asarray(image)


@pytest.mark.parametrize("model", MODELS)
def test_one_picture_in_two_classes_is_named_and_the_run_goes_on(make_smoke_config, folder, red, model, capsys):
    put(folder, 255 - red, "both.png", ["colour_0", "colour_1"])
    history = check(make_smoke_config, model)
    said = capsys.readouterr().out
    assert "WARNING: the same picture lies in two classes" in said
    assert "train/colour_0/both.png and train/colour_1/both.png" in said
    assert history[-1]["val_accuracy"] == 1.0  # of all others


def fails_on(monkeypatch, rows_of):
    """The check as if the model could not learn the rows that `rows_of(pictures, labels)` gives."""
    seen, real = [], experiment._twins

    def twins(pictures, labels, *levels):
        seen.append((pictures, labels))
        return real(pictures, labels, *levels)

    def overfit(model, batches, **options):
        history, end = training.overfit_check(model, batches, **options)
        probabilities = end.probabilities.clone()
        for row in rows_of(*seen[-1]):
            probabilities[row] = probabilities[row].roll(1)
        return history, replace(end, probabilities=probabilities)

    monkeypatch.setattr(experiment, "_twins", twins)
    monkeypatch.setattr(experiment, "overfit_check", overfit)


def test_a_picture_that_is_not_learnt_is_named(make_smoke_config, folder, monkeypatch, capsys):
    fails_on(monkeypatch, lambda pictures, labels: [5])
    named = r"gets 1 of these very images wrong: train/(colour_\d)/\d+\.png \(in \1, taken for colour_\d\); .*'warn'"
    with pytest.raises(Hw1Error, match=named):
        check(make_smoke_config, "cnn")
    assert check(make_smoke_config, "cnn", sanity_check="warn", seed=1)
    assert "WARNING: Sanity check: after" in capsys.readouterr().out


def test_near_copies_that_are_not_learnt_are_no_reason_to_stop(make_smoke_config, folder, red, monkeypatch, capsys):
    put(folder, red.clip(0, 253) + 2, "saved_again.png", ["colour_1"])
    find = experiment._twins
    fails_on(monkeypatch, lambda pictures, labels: find(pictures, labels, experiment.NEARLY))
    check(make_smoke_config, "cnn")
    said = capsys.readouterr().out
    assert "gets 2 of these very images wrong" in said and "near copies of them lie in other classes" in said
