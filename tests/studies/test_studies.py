"""The studies that train or look again, on the toy folder with timm's 0.3 M-parameter ViT."""

import dataclasses
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

from hw1_utils.config import make_config
from hw1_utils.experiment import cnn, evaluate_on_test, load, load_test, probe, train
from hw1_utils.features import extract
from hw1_utils.io.arrays import Rows
from hw1_utils.io.toy import make_toy_folder
from hw1_utils.models import FrozenEncoder, load_encoders
from hw1_utils.questions import STUDIES
from hw1_utils.report import figures
from hw1_utils.studies import feature_map, input_size, learning_curve, logreg, mistakes
from hw1_utils.studies.flips import flip_tta, flips
from hw1_utils.studies.label_errors import label_errors
from hw1_utils.studies.seeds import seeds

pytestmark = pytest.mark.usefixtures("one_thread")


def all_trained(root, **options):
    """A CNN and both probes."""
    data = load(make_config("smoke", encoder="test_vit", device="cpu", output_dir=str(root), **options))
    features = extract(load_encoders(data.context)[0], data)
    return [train(run) for run in (cnn(data), probe(features), probe(features, "blocks"))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, one_thread):
    root = tmp_path_factory.mktemp("studies")
    make_toy_folder(root / "toy")
    return all_trained(root / "out", data_dir=str(root / "toy"), precision="fp32")


@pytest.fixture(scope="module")
def test(trained):
    return load_test(trained[0].run.data)


@pytest.fixture(scope="module")
def results(trained, test):
    return [evaluate_on_test(one, test) for one in trained]


def is_written(trained, name, table):
    folder = trained.run.context.config.results_path
    pd.testing.assert_frame_equal(pd.read_csv(folder / f"{name}.csv"), table, rtol=1e-4, check_dtype=False)
    with Image.open(folder / f"{name}.png") as picture:
        return picture.format == "PNG"


# ---- input size


def test_another_input_size_is_a_copy(trained):
    encoder, images = trained[1].run.features.encoder, trained[1].run.data.val.images.values
    before, own = encoder(images), encoder.input_size
    same, smaller = (input_size.at_input_size(encoder, side) for side in (own[0], 96))
    torch.testing.assert_close(same(images), before)
    assert smaller.preprocess(images).shape[-2:] == (96, 96) and not torch.allclose(smaller(images), before)
    assert smaller.key() != encoder.key()
    assert encoder.input_size == own and torch.equal(encoder(images), before)


def test_input_sizes_cost_what_their_patches_cost(trained, monkeypatch):
    monkeypatch.setattr(input_size, "INPUT_SHARES", (0.6, 1))
    context = trained[1].run.context
    computed, left = dict(context.computed), context.room.left
    table = input_size.input_size(trained[1:2])
    assert table["input_size"].tolist() == [96, 160] and table["train_images"].tolist() == [30, 30]
    assert table["macs"][1] / table["macs"][0] > (160 / 96) ** 2 * 0.95
    assert (table["val_score_low"] <= table["val_score"]).all()
    assert is_written(trained[1], "input_size", table)
    assert context.computed == computed and context.room.left == left  # no size keeps its features


def test_input_sides_are_whole_patches_or_the_encoders_own_alone(trained, monkeypatch, capsys):
    encoder = trained[1].run.features.encoder
    assert input_size.input_sides(encoder) == [64, 80, 112, 160]
    monkeypatch.setattr(encoder.backbone, "set_input_size", None, raising=False)
    assert input_size.input_sides(encoder) == [160]
    assert "takes no other input than its own 160 pixels" in capsys.readouterr().out


# ---- learning curve


def test_the_learning_curve_ends_with_the_trainings_themselves(trained, monkeypatch, capsys):
    monkeypatch.setattr(learning_curve, "PER_CLASS", (4, 10, 1000))
    monkeypatch.setattr(FrozenEncoder, "forward", lambda *args: pytest.fail("the features are there already"))
    before = [{name: value.clone() for name, value in one.model.state_dict().items()} for one in trained]
    table = learning_curve.learning_curve(trained[0], trained[1:])
    for one in trained:
        own = table[table["model"] == one.run.title]
        assert own["train_images"].tolist() == [12, 30, 108]
        assert own["val_accuracy"].iloc[-1] == one.val.accuracy
    cnn_epochs = table[table["name"] == "cnn"]["epochs"].tolist()
    assert cnn_epochs == [round(3 * 3.0), round(3 * (108 / 30) ** 0.5), 3]  # 3 = sqrt(108 / 12)
    assert f"12 images, {trained[2].run.title}, 3 epochs: val " in capsys.readouterr().out
    assert is_written(trained[0], "learning_curve", table)
    for one, state in zip(trained, before, strict=True):
        assert all(torch.equal(state[name], value) for name, value in one.model.state_dict().items())


def test_on_few_images_the_learning_rate_falls_as_late_as_the_training_ends(trained):
    run = learning_curve.cnn_on(trained[0].run.data.subset(12, 0), trained[0].run)
    (factor,) = run.optimization(run.model).scheduler.lr_lambdas
    steps = 9 * -(-12 // run.batch_size)  # nine epochs
    assert factor(steps - 1) > 0 == factor(steps)


def test_where_classes_are_rare_curve_and_seeds_speak_of_balanced_accuracy(trained, test, monkeypatch):
    monkeypatch.setattr(learning_curve, "PER_CLASS", ())
    monkeypatch.setattr(type(test), "counts", lambda self: {"a": 10, "b": 90, "c": 90})
    labels = []
    monkeypatch.setattr(figures, "save", lambda figure, path: labels.append(figure.axes[0].get_ylabel()))
    curve = learning_curve.learning_curve(trained[0], trained[1:])
    table = seeds([evaluate_on_test(trained[0], test)], test)
    for one, row in zip(trained, curve.to_dict("records"), strict=True):
        recall = balanced_accuracy_score(one.val.labels, one.val.guesses)
        assert (row["leading"], row["val_score"]) == ("balanced_accuracy", pytest.approx(recall))
        assert row["val_score_low"] <= recall <= row["val_score_high"]
    assert table["val_score"][0] == curve["val_score"][0] and table["leading"][0] == "balanced_accuracy"
    assert labels == ["validation balanced accuracy (95 % interval)"]


# ---- logistic regression


def test_the_penalty_is_chosen_on_val_and_test_is_scored_once(trained, test, monkeypatch):
    scored, real = [], logreg.Pipeline.predict_proba
    monkeypatch.setattr(logreg.Pipeline, "predict_proba", lambda self, x: scored.append(len(x)) or real(self, x))
    sweep = logreg.logreg(trained[1:2], test)
    chosen = sweep[sweep["chosen"]]
    assert chosen["strength"].tolist() == [sweep.set_index("strength")["val_loss"].idxmin()]
    assert scored == [12] * len(logreg.STRENGTHS) + [len(test)] and chosen["refitted_test_accuracy"].tolist() > [0.8]
    assert sweep["strength"].tolist() == list(logreg.STRENGTHS) and sweep["refitted_test_accuracy"].count() == 1
    assert is_written(trained[1], "penalty", sweep)


def test_the_penalty_is_blind_to_test_labels(trained, test):
    shuffled = dataclasses.replace(test, labels=test.labels.roll(1))
    one, other = (
        logreg.logreg(trained[1:2], split).drop(columns="refitted_test_accuracy") for split in (test, shuffled)
    )
    pd.testing.assert_frame_equal(one, other)


def test_a_sweep_for_which_memory_is_short_takes_fewer_images(trained, test, monkeypatch):
    fitted = []
    real = logreg.Pipeline.fit
    monkeypatch.setattr(logreg.Pipeline, "fit", lambda self, x, y: fitted.append((len(x), len(y))) or real(self, x, y))
    monkeypatch.setattr(logreg, "LEAST_IMAGES", 30)
    monkeypatch.setattr(trained[1].run.context.room, "left", 0)
    logreg.logreg(trained[1:2], test)
    assert fitted == [(30, 30)] * len(logreg.STRENGTHS) + [(42, 42)]  # in the end with the 12 of validation


# ---- seeds


def test_other_seeds_are_other_trainings_on_the_same_split(trained, results, test, capsys):
    # Unless more are asked for, a CPU trains the CNN once; the probe's features are there.
    assert seeds(results[:2], test)["seed"].tolist() == [0, 0, 1, 2]
    config = trained[0].run.context.config
    object.__setattr__(config, "seeds", 3)
    try:
        table = seeds(results[:2], test)
        capsys.readouterr()
        pd.testing.assert_frame_equal(seeds(results[:2], test), table)  # finished: nothing is trained again
    finally:
        object.__setattr__(config, "seeds", None)
    said = capsys.readouterr().out
    assert said.count(", seed 1: val ") == said.count(", seed 2: val ") == 2 and " of 3 epochs" not in said
    assert table["model"].tolist() == [one.run.title for one in trained[:2] for _ in range(3)]
    assert table["seed"].tolist() == [0, 1, 2] * 2
    for result in results[:2]:
        own = table[table["model"] == result.run.title].iloc[0]
        assert (own["val_accuracy"], own["test_accuracy"]) == (result.trained.val.accuracy, result.test.accuracy)


# ---- flips


def test_flip_averaging_is_the_mean_of_both_views_and_blind_to_the_side(trained, test):
    mirrored = dataclasses.replace(test, images=Rows(test.images.values.flip(3)))
    both = flip_tta(trained[0], test)
    views = [evaluate_on_test(trained[0], split).test.probabilities for split in (test, mirrored)]
    torch.testing.assert_close(both.probabilities, sum(views) / 2)
    torch.testing.assert_close(both.probabilities, flip_tta(trained[0], mirrored).probabilities)
    assert both.accuracy == float((both.guesses == test.labels.numpy()).mean())


def test_flips_are_shown_of_cnns_alone(results, test):
    table = flips(results, test)
    assert table[["name", "passes_per_image"]].to_numpy().tolist() == [["cnn", 1], ["cnn", 2]]
    assert table["accuracy"][0] == results[0].test.accuracy
    written = pd.read_csv(results[0].run.context.config.results_path / "flip_averaging.csv")
    pd.testing.assert_frame_equal(written, table, rtol=1e-4, check_dtype=False)


# ---- label errors


def test_labels_of_all_parts_are_judged_after_the_test(trained, results, test):
    found = label_errors(results[0], results[1], test)
    assert found.shares["images"].tolist() == found.shares["judged"].tolist() == [108, 12, 30, 150]
    own = found.without.set_index("left_out").loc["nothing"]
    assert (own["cnn_score"], own["probe_score"]) == (results[0].test.accuracy, results[1].test.accuracy)
    assert is_written(trained[0], "label_errors", found.suspects)


# ---- arrays larger than memory


def test_studies_of_a_streamed_run_give_the_same_numbers(toy_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(input_size, "INPUT_SHARES", (0.6, 1))
    tables = []
    for memory_mb in (None, 0):
        root = tmp_path / str(memory_mb)
        first, second, _ = all_trained(root, data_dir=str(toy_folder), memory_mb=memory_mb, precision="fp32")
        assert first.run.train.inputs.streamed == second.run.train.inputs.streamed == (memory_mb == 0)
        sizes = input_size.input_size([second]).drop(columns="extraction_images_per_second")
        sweep = logreg.logreg([second], load_test(first.run.data))
        tables.append([learning_curve.learning_curve(first, [second]), sizes, sweep])
    for one, other in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_mistakes_and_the_map_of_models_that_were_trained(results, test):
    found = mistakes.mistakes(results[:2], test)
    assert len(found.table) == sum((~result.correct).sum() for result in results[:2])
    assert set(found.table["path"]) <= set(test.paths) and found.gallery.is_file() and found.cells.is_file()
    for result in results[1:]:
        table = feature_map.feature_map(result, test)
        assert table["path"].tolist() == test.paths and np.isfinite(table[["x", "y"]].to_numpy()).all()
        assert (table["predicted"] == table["true"]).tolist() == result.correct.tolist()


def test_each_study_is_a_public_function_of_its_modules_name():
    for name in (name for name, files in STUDIES.items() if files):
        module = import_module(f"hw1_utils.studies.{name}")
        assert getattr(import_module("hw1_utils"), name) is getattr(module, name)
