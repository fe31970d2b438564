"""The sanity check: what it says of pictures that no model can learn, and of those that this one does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hw1_utils import experiment, training
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import CNNTask, ProbeTask, prepare, sanity_check

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
def test_one_picture_in_several_classes_is_named_and_the_run_goes_on(make_smoke_config, folder, red, model, capsys):
    put(folder, 255 - red, "all.png", ["colour_0", "colour_1", "colour_2"])
    put(folder, 250 - red // 2, "both.png", ["colour_0", "colour_1"])
    history = check(make_smoke_config, model)
    said = capsys.readouterr().out
    assert "WARNING: the same picture lies in several classes" in said
    for name, parts in (("all.png", (0, 1, 2)), ("both.png", (0, 1))):
        assert all(f"train/colour_{part}/{name}" in said for part in parts)
    assert history[-1]["val_accuracy"] == 1.0  # of all others


@pytest.mark.parametrize("model", MODELS)
def test_pictures_that_are_all_alike_are_no_matter_of_labels(make_smoke_config, folder, model, capsys):
    for file in folder.glob("train/*/*"):
        Image.new("RGB", (32, 32)).save(file)
    with pytest.raises(Hw1Error, match="Sanity check: 87 of 87 pictures are alike"):
        check(make_smoke_config, model)
    assert check(make_smoke_config, model, sanity_check="warn") == []
    assert "WARNING: Sanity check: 87 of 87" in capsys.readouterr().out


def fails_on(monkeypatch, rows_of):
    """The check as if the model could not learn the rows that `rows_of(inputs, labels)` gives."""

    def overfit(model, batches, **options):
        history, end = training.overfit_check(model, batches, **options)
        probabilities = end.probabilities.clone()
        for row in rows_of(torch.cat([inputs for inputs, _ in batches]), end.labels):
            probabilities[row] = probabilities[row].roll(1)
        return history, replace(end, probabilities=probabilities)

    monkeypatch.setattr(experiment, "overfit_check", overfit)


def test_a_picture_that_is_not_learnt_is_named(make_smoke_config, folder, monkeypatch, capsys):
    fails_on(monkeypatch, lambda inputs, labels: [5])
    named = r"gets 1 of these very images wrong: train/(colour_\d)/\d+\.png \(in \1, taken for colour_\d\); .*'warn'"
    with pytest.raises(Hw1Error, match=named):
        check(make_smoke_config, "cnn")
    assert check(make_smoke_config, "cnn", sanity_check="warn", seed=1)
    assert "WARNING: Sanity check: after" in capsys.readouterr().out


def near_copies(inputs, labels):
    apart = torch.cdist(inputs.flatten(1), inputs.flatten(1), p=1)
    apart[labels[:, None] == labels] = torch.inf
    return divmod(int(apart.argmin()), len(labels))


def test_near_copies_that_are_not_learnt_are_no_reason_to_stop(make_smoke_config, folder, red, monkeypatch, capsys):
    put(folder, red.clip(0, 253) + 2, "saved_again.png", ["colour_1"])
    fails_on(monkeypatch, near_copies)
    check(make_smoke_config, "cnn")
    said = capsys.readouterr().out
    assert "gets 2 of these very images wrong" in said and "near copies of them lie in other classes" in said


def test_many_near_copies_are_no_excuse_for_a_model_that_is_blind(make_smoke_config, folder, monkeypatch):
    """Pictures that differ in a detail only, as those of a production line do."""
    for i, file in enumerate(folder.glob("train/*/*")):
        pixels = np.full((32, 32, 3), 100, np.uint8)
        pixels[i % 30, (i // 30) * 10] = 255
        Image.fromarray(pixels).save(file)
    fails_on(monkeypatch, lambda inputs, labels: range(40))
    with pytest.raises(Hw1Error, match="of these very images wrong"):
        check(make_smoke_config, "cnn")


def test_a_check_that_diverges_is_a_check_that_failed(make_smoke_config, monkeypatch, folder, capsys):
    def diverge(*args, **options):
        raise Hw1Error("The loss is nan at step 1 of epoch 1: training diverged.")

    monkeypatch.setattr(experiment, "overfit_check", diverge)
    with pytest.raises(Hw1Error, match=r"^Sanity check: The loss is nan"):
        check(make_smoke_config, "cnn")
    assert check(make_smoke_config, "cnn", sanity_check="warn") == []
