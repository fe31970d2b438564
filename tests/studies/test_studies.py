"""The studies beside the comparison, on the toy folder with timm's 0.3 M-parameter ViT."""

import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

from hw1_utils.config import make_config
from hw1_utils.data import load_test, make_toy_folder
from hw1_utils.experiment import CNNTask, ProbeTask, Training, prepare
from hw1_utils.judging import judge
from hw1_utils.studies import logreg as penalty
from hw1_utils.studies import studies

COSTS = {"extraction_seconds": 0.0, "teacher_seconds": 0.0, "loop_images_per_second": 1000.0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A CNN and both probes, trained without logs and costs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("studies")
    make_toy_folder(root / "toy")
    places = {"data_dir": str(root / "toy"), "output_dir": str(root / "out"), "device": "cpu"}
    setup = prepare(make_config("smoke", encoder="test_vit", precision="fp32", **places))
    cnn, probe = CNNTask(setup, "tuned"), ProbeTask(setup)
    layers = ProbeTask(setup, "layers", probe.encoder)
    trainings = []
    for task in (cnn, probe, layers):
        (val,) = studies.train_only(task)
        trainings.append(Training(task, task.model, pd.DataFrame(), pd.DataFrame(), COSTS, {"val": val}))
    yield trainings
    torch.set_num_threads(threads)


def is_picture(path):
    with Image.open(path) as picture:
        return picture.format == "PNG"


def test_a_part_is_stratified_in_order_and_seeded(trained):
    train = trained[0].task.setup.train
    rows = studies.some_of(train, 30, seed=0)
    part = train.part_of(rows)
    assert rows.tolist() == sorted(set(rows.tolist())) and len(part) == 30
    assert set(part.counts().values()) == {10}
    assert torch.equal(part.take(slice(None)), train.images[rows]) and part.paths == [train.paths[i] for i in rows]
    assert torch.equal(studies.some_of(train, 30, seed=0), rows)
    assert not torch.equal(studies.some_of(train, 30, seed=1), rows)
    assert studies.some_of(train, 10**6, seed=0).tolist() == list(range(len(train)))


def test_another_input_size_is_a_copy(trained):
    task = trained[1].task
    images, encoder = task.setup.val.images, task.encoder
    before, own = encoder(images), encoder.input_size
    same, smaller = (studies.at_input_size(encoder, side) for side in (own[0], 96))
    torch.testing.assert_close(same(images), before)
    assert smaller.preprocess(images).shape[-2:] == (96, 96) and not torch.allclose(smaller(images), before)
    assert smaller.key() != encoder.key()
    assert encoder.input_size == own and torch.equal(encoder(images), before)


def test_input_sizes_cost_what_their_patches_cost(trained, monkeypatch):
    monkeypatch.setattr(studies, "INPUT_SHARES", (0.6, 1))
    table = studies.input_sizes(trained[1:2])
    assert table["input_size"].tolist() == [96, 160] and table["train_images"].tolist() == [30, 30]
    assert table["macs"][1] / table["macs"][0] > (160 / 96) ** 2 * 0.95
    assert (table["val_score_low"] <= table["val_score"]).all()
    folder = trained[1].task.setup.config.results_path
    pd.testing.assert_frame_equal(pd.read_csv(folder / "input_size.csv"), table, rtol=1e-4, check_dtype=False)
    assert is_picture(folder / "input_size.png")


def test_input_sides_are_whole_patches_or_the_encoders_own_alone(trained, monkeypatch, capsys):
    encoder = trained[1].task.encoder
    assert studies.input_sides(encoder) == [64, 80, 112, 160]
    monkeypatch.setattr(encoder.backbone, "set_input_size", None, raising=False)
    assert studies.input_sides(encoder) == [160]
    assert "takes no other input than its own 160 pixels" in capsys.readouterr().out


def test_the_learning_curve_ends_with_the_trainings_themselves(trained, monkeypatch):
    monkeypatch.setattr(studies, "PER_CLASS", (4, 10, 1000))
    cnn, *probes = trained
    monkeypatch.setattr(
        type(probes[0].task.encoder), "forward", lambda *args: pytest.fail("the features are there already")
    )
    table = studies.learning_curve(cnn, probes)
    assert sorted(set(table["train_images"])) == [12, 30, 108]
    for training in trained:
        own = table[table["model"] == training.task.title]
        assert own["train_images"].tolist() == [12, 30, 108]
        assert own["val_accuracy"].iloc[-1] == training.evaluations["val"].accuracy
    cnn_epochs = table[table["name"] == "cnn"]["epochs"].tolist()
    assert cnn_epochs == [round(3 * 3.0), round(3 * (108 / 30) ** 0.5), 3]  # 3 = sqrt(108 / 12)
    assert is_picture(cnn.task.setup.config.results_path / "learning_curve.png")


def test_fewer_images_do_not_touch_the_trained_models(trained, monkeypatch):
    monkeypatch.setattr(studies, "PER_CLASS", (4,))
    before = [{name: value.clone() for name, value in t.model.state_dict().items()} for t in trained]
    studies.learning_curve(trained[0], trained[1:])
    for training, state in zip(trained, before, strict=True):
        assert all(torch.equal(state[name], value) for name, value in training.model.state_dict().items())


def test_where_classes_are_rare_curve_and_seeds_speak_of_balanced_accuracy(trained, monkeypatch):
    monkeypatch.setattr(studies, "PER_CLASS", ())
    monkeypatch.setattr(type(trained[0].task.setup.train), "counts", lambda self: {"a": 10, "b": 90, "c": 90})
    labels = []
    monkeypatch.setattr(studies.figures, "save", lambda figure, path: labels.append(figure.axes[0].get_ylabel()))
    curve = studies.learning_curve(trained[0], trained[1:])
    seeds = studies.seeds([judge(trained[0], load_test(trained[0].task.setup.config))], None)
    for training, row in zip(trained, curve.to_dict("records"), strict=True):
        val = training.evaluations["val"]
        recall = balanced_accuracy_score(val.labels, val.probabilities.argmax(1))
        assert (row["leading"], row["val_score"]) == ("balanced_accuracy", pytest.approx(recall))
        assert row["val_score_low"] <= recall <= row["val_score_high"]
    assert seeds["val_score"][0] == curve["val_score"][0] and seeds["leading"][0] == "balanced_accuracy"
    assert labels == ["validation balanced accuracy (95 % interval)"]


def test_the_penalty_is_chosen_on_val_and_test_is_scored_once(trained, monkeypatch):
    probe = trained[1]
    test = load_test(probe.task.setup.config)
    scored = []
    monkeypatch.setattr(
        penalty.Pipeline, "score", lambda self, x, y: scored.append(len(y)) or float(np.mean(self.predict(x) == y))
    )
    sweep = penalty.sweep_penalty([probe], test)
    chosen = sweep[sweep["chosen"]]
    assert chosen["strength"].tolist() == [sweep.set_index("strength")["val_loss"].idxmin()]
    assert scored == [len(test)] and chosen["refitted_test_accuracy"].tolist() > [0.8]
    folder = probe.task.setup.config.results_path
    written = pd.read_csv(folder / "penalty.csv")
    assert written["strength"].tolist() == list(penalty.STRENGTHS) and written["refitted_test_accuracy"].count() == 1
    assert is_picture(folder / "penalty.png")


def test_the_penalty_is_blind_to_test_labels(trained):
    probe = trained[1]
    test = load_test(probe.task.setup.config)
    shuffled = dataclasses.replace(test, labels=test.labels.roll(1))
    one, other = (
        penalty.sweep_penalty([probe], split).drop(columns="refitted_test_accuracy") for split in (test, shuffled)
    )
    pd.testing.assert_frame_equal(one, other)


def test_other_seeds_are_other_trainings_on_the_same_split(trained, capsys):
    test = load_test(trained[0].task.setup.config)
    results = [judge(training, test) for training in trained[:2]]
    more = [dataclasses.replace(r, training=with_seeds(r.training, 3)) for r in results]
    table = studies.seeds(more, test)
    assert table["model"].tolist() == [r.task.title for r in results for _ in range(3)]
    assert table["seed"].tolist() == [0, 1, 2] * 2
    for result in results:
        own = table[table["model"] == result.task.title].iloc[0]
        assert own["val_accuracy"] == result.training.evaluations["val"].accuracy
        assert own["test_accuracy"] == result.test.accuracy
    capsys.readouterr()
    pd.testing.assert_frame_equal(studies.seeds(more, test), table)  # finished: nothing is trained again
    assert "epoch  1/" not in capsys.readouterr().out
    # Unless more are asked for, a CPU trains the CNN once; the probe's features are there.
    assert studies.seeds(results, test)["seed"].tolist() == [0, 0, 1, 2]


def with_seeds(training, count):
    setup = training.task.setup
    task = copy.copy(training.task)
    task.setup = dataclasses.replace(setup, config=dataclasses.replace(setup.config, seeds=count))
    return dataclasses.replace(training, task=task)
