"""What is written when a run is over, from trainings made up so that every number is known."""

import json
import re
import socket
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgba
from PIL import Image

from hw1_utils import metrics
from hw1_utils.config import ROOT
from hw1_utils.data import Split
from hw1_utils.device import Precision, environment
from hw1_utils.experiment import Result
from hw1_utils.io.arrays import Rows
from hw1_utils.measure.costs import Costs
from hw1_utils.report import figures, tables
from hw1_utils.report.conclusion import conclusion
from hw1_utils.report.words import literal, sentence
from hw1_utils.training import Predictions

CLASSES = ["cat", "dog", "owl"]
SHA = "0123456789abcdef" * 4
CNN = {"recipe": "tuned", "encoder": "", "weights": "from scratch", "weights_sha256": ""}
PROBE = {"recipe": "cls, AdamW", "encoder": "test_vit", "weights": "random weights", "weights_sha256": SHA}
COSTS = {"extraction_seconds": 9.0, "total_training_seconds": 15.0, "inference_images_per_second": 50.0}
SECONDS = ("extraction_seconds", "total_training_seconds")
ONE_COST = {"parameters": 10, "macs": 1e6, "macs_thop": 1e6, "operator_calls_per_step": 100.0}


def predictions(right):
    """`right`: bool N. A wrong prediction is the class after the true one."""
    labels = torch.arange(len(right)) % 3
    predicted = torch.where(torch.tensor(right), labels, (labels + 1) % 3)
    probabilities = torch.full((len(right), 3), 0.1).scatter(1, predicted[:, None], 0.8)
    return Predictions(0.5, float(np.mean(right)), probabilities, labels)


def make_result(config, name, title, details, right, counts=(9, 9, 9), rank=0, **costs):
    """A Result, and what `tables.compare` wants beside it: the run's Costs."""
    train = SimpleNamespace(counts=lambda: dict(zip(CLASSES, counts, strict=True)))
    context = SimpleNamespace(
        config=config,
        precision=Precision("fp32"),
        environment=environment(torch.device("cpu"), Precision("fp32")),
    )
    run = SimpleNamespace(
        name=name,
        title=title,
        details=details,
        data=SimpleNamespace(train=train, classes=CLASSES, leading=metrics.leading(counts)),
        context=context,
        results=config.results_path / name,
        features=SimpleNamespace(encoder=SimpleNamespace(rank=rank)) if details["encoder"] else None,
        seed=0,
    )
    columns = {"train_loss": [2.0, 1.0], "train_accuracy": [0.4, 0.6], "val_loss": [1.5, 1.2], "lr": [0.1, 0.0]}
    history = pd.DataFrame({"epoch": [1, 2], "val_accuracy": [0.5, 0.7], **columns, "seconds": 3.0})
    history["elapsed_seconds"] = [3.0, 6.0]
    trained = SimpleNamespace(
        run=run,
        history=history,
        val_score=0.5,
        train=predictions([True] * 9 + [False]),
        val=predictions([True, False]),
        seconds={name: costs.pop(name) for name in SECONDS if name in costs} | {"teacher_seconds": 0.0},
    )
    operators = pd.DataFrame({"operator": ["aten::mm", "aten::add"], "calls": 1, "self_ms": 1.0, "share": [0.75, 0.25]})
    return Result(trained, predictions(right)), Costs(ONE_COST | costs, operators)


def make_pair(config, cnn_right, probe_right, **options):
    cnn_costs = {"extraction_seconds": 0.0, "total_training_seconds": 6.0, "inference_images_per_second": 5000.0}
    probe_costs = {"extraction_seconds": 9.0, "total_training_seconds": 15.0, "inference_images_per_second": 50.0}
    cnn = make_result(config, "cnn", "CNN, tuned recipe", CNN, cnn_right, **options, **cnn_costs)
    title = "probe, class token (test_vit)"
    probe_costs |= {"macs": 120e6}
    return [cnn, make_result(config, "vit", title, PROBE, probe_right, **options, **probe_costs)]


def right(total, start, stop):
    return [start <= i < stop for i in range(total)]


CASES = {
    # CNN right, probe right, what must be said, what must not
    "probe better": (right(200, 0, 120), right(200, 0, 180), "may take that long, take the probe", "within the noise"),
    "cnn better": (
        right(200, 0, 180),
        right(200, 0, 170),
        "the CNN is the better one, and not",
        "within the noise",
    ),
    "within noise": (right(200, 0, 180), right(200, 5, 182), "the one that predicts faster: the CNN", "is better than"),
    "equal": (right(200, 0, 180), right(200, 0, 180), "the one that predicts faster: the CNN", "is better than"),
}


def told(results, counts=(9, 9, 9)):
    table = tables.compare(*zip(*results, strict=True))
    return conclusion(table, tables.outcomes([one for one, _ in results]), dict(zip(CLASSES, counts, strict=True)))


@pytest.mark.parametrize("case", CASES)
def test_the_conclusion_says_what_the_numbers_say(make_smoke_config, case):
    cnn_right, probe_right, said, unsaid = CASES[case]
    results = make_pair(make_smoke_config(), cnn_right, probe_right)
    text = told(results)
    assert said in text and unsaid not in text and "guessing" not in text
    points = f"{abs(sum(probe_right) - sum(cnn_right)) / 2:.1f} points (95 % interval "  # of 200 images
    better, other = [literal(r.run.title) for r, _ in (results if sum(cnn_right) > sum(probe_right) else results[::-1])]
    if unsaid == "within the noise":
        assert f"**{sentence(better)}** is better than {other} by {points}" in text
    elif case == "equal":
        assert f"{sentence(better)} and {other} are level, with a difference of {points}" in text
    else:
        assert f"The difference of {points}" in text and f"{better} being ahead of {other}, is within the noise" in text


def test_the_numbers_in_the_conclusion_are_those_of_the_tables(make_smoke_config):
    results = make_pair(make_smoke_config(), *CASES["probe better"][:2])
    text = told(results)
    folder = results[0][0].run.context.config.results_path
    for row in pd.read_csv(folder / "model_metrics_comparison.csv").to_dict("records"):
        interval = f"{row['test_accuracy_low']:.1%} to {row['test_accuracy_high']:.1%}"
        assert f"{literal(row['model'])}: accuracy {row['test_accuracy']:.1%} (95 % interval {interval})" in text
        assert f"{row['train_accuracy']:.1%} on train, {row['val_accuracy']:.1%} on val" in text
        assert row["generalisation_gap"] == pytest.approx(row["train_accuracy"] - row["test_accuracy"])
    assert "of the same 200 images, the probe alone gets 60 right, the CNN alone 0" in text
    assert "takes the probe 120.0 M multiply-adds, 120 times the CNN's 1.0 M" in text
    assert "number 100, about the CNN's 100" in text and "`aten::mm` (75%; CNN, tuned recipe)" in text
    assert "Feature extraction takes 60% of the probe's 15 s" in text
    assert "Training takes the probe 15 s, 2.5 times the CNN's 6.0 s" in text
    assert "predicts 100 times slower than the CNN (50 against 5,000 images/s)" in text
    assert "after 2 of 2 epochs, 6.0 s." in text and "after 2 of 2 epochs, 15 s (feature" in text
    assert not re.search(r"\bnan\b|\binf\b", text)


def test_where_classes_are_rare_balanced_accuracy_leads(make_smoke_config):
    # Labels run 0, 1, 2, 0, …: the CNN misses every third class altogether, the probe a few of each.
    cnn_right, probe_right = [i % 3 != 2 for i in range(300)], [i % 100 >= 30 for i in range(300)]
    results = make_pair(make_smoke_config(), cnn_right, probe_right, counts=(100, 60, 10))
    text = told(results, counts=(100, 60, 10))
    quality = tables.compare(*zip(*results, strict=True))
    assert quality["leading"].tolist() == ["balanced_accuracy"] * 2
    assert "between 10 (owl) and 100 (cat) training images, so balanced accuracy" in text
    row = quality.iloc[0]
    assert f"{row['test_balanced_accuracy']:.1%} (95 % interval" in text and "points of balanced accuracy (95" in text
    panel = figures.quality_and_cost(quality).axes[0]
    assert panel.get_xlabel().startswith("balanced accuracy on test")


def test_of_several_encoders_the_best_on_validation_is_compared(make_smoke_config):
    config = make_smoke_config()
    cnn, probe = make_pair(config, *CASES["probe better"][:2])
    title = "probe, class token (other)"
    other = make_result(config, "other", title, PROBE | {"encoder": "other"}, right(200, 0, 150), rank=1, **COSTS)
    other[0].trained.val_score = 0.6
    results = [cnn, probe, other]
    text = told(results)
    assert "Of 2 encoders, other is compared with the CNN: the best on validation." in text
    assert f"**{sentence(literal(title))}** is better than CNN, tuned recipe by 15.0 points" in text
    assert "test_vit" not in text


def test_write_model_writes_predictions_that_agree_with_the_model(make_smoke_config):
    (result, _), _ = make_pair(make_smoke_config(), *CASES["cnn better"][:2])
    labels = result.test.labels
    paths = [f"test/{CLASSES[label]}/{i:05d}.png" for i, label in enumerate(labels.tolist())]
    tables.write_model(result, Split("test", Rows(torch.empty(0)), labels, paths, CLASSES))
    table = pd.read_csv(result.run.results / "predictions.csv")
    probabilities = ["p_cat", "p_dog", "p_owl"]
    assert table.columns.tolist() == ["path", "label", "prediction", *probabilities]
    assert table["path"].tolist() == paths
    assert [path.split("/")[1] for path in table["path"]] == table["label"].tolist()
    assert table[probabilities].sum(axis=1).to_numpy() == pytest.approx(1.0, abs=3e-4)
    assert table[probabilities].idxmax(axis=1).str[2:].tolist() == table["prediction"].tolist()
    assert (table["label"] == table["prediction"]).mean() == result.correct.mean() == 0.9
    assert pd.read_csv(result.run.results / "per_class.csv")["support"].sum() == 200
    assert pd.read_csv(result.run.results / "history.csv")["epoch"].tolist() == [1, 2]


def test_of_very_many_classes_predictions_have_the_two_that_count(make_smoke_config, monkeypatch):
    (result, _), _ = make_pair(make_smoke_config(), *CASES["cnn better"][:2])
    monkeypatch.setattr(tables, "WIDE", 2)
    labels = result.test.labels
    tables.write_model(result, Split("test", Rows(torch.empty(0)), labels, ["x.png"] * len(labels), CLASSES))
    table = pd.read_csv(result.run.results / "predictions.csv")
    assert table.columns.tolist() == ["path", "label", "prediction", "p_label", "p_prediction"]
    assert ((table["p_label"] == table["p_prediction"]) == result.correct).all()
    for name in ("cm.png", "cm_norm.png"):
        with Image.open(result.run.results / name) as picture:
            assert picture.format == "PNG" and min(picture.size) > 200


def test_comparison_tables_have_a_row_per_model_that_names_its_encoder(make_smoke_config):
    config = make_smoke_config()
    results = make_pair(config, *CASES["cnn better"][:2])
    tables.compare(*zip(*results, strict=True))
    for name in ("model_metrics_comparison.csv", "model_profile_comparison.csv"):
        table = pd.read_csv(config.results_path / name, keep_default_na=False)
        assert table["model"].tolist() == [result.run.title for result, _ in results]
        assert table["name"].tolist() == ["cnn", "vit"]
        assert table["encoder"].tolist() == ["", "test_vit"]
        assert table["weights_sha256"].tolist() == ["", SHA]
        assert {"profile", "seed", "device", "precision", "torch", "timm"} <= set(table)
    quality = pd.read_csv(config.results_path / "model_metrics_comparison.csv")
    assert quality["test_accuracy"].tolist() == [0.9, 0.85]
    assert quality["test_accuracy_low"][0] == pytest.approx(metrics.wilson(180, 200)[0], rel=1e-5)
    for name in ("convergence.png", "operators.png", "quality_and_cost.png"):
        with Image.open(config.results_path / name) as picture:
            assert picture.format == "PNG"


def test_the_stamps_hold_no_path_and_no_host_name(make_smoke_config, tmp_path):
    weights = tmp_path / "encoder.safetensors"
    config = make_smoke_config(weights=str(weights))
    tables.compare(*zip(*make_pair(config, *CASES["cnn better"][:2]), strict=True))
    for name in ("config.json", "environment.json"):
        text = (config.results_path / name).read_text()
        assert str(tmp_path) not in text and str(ROOT) not in text and f'"{socket.gethostname()}"' not in text
        values = json.loads(text).values()
        assert not [value for value in values if isinstance(value, str) and value.startswith(("/", "~"))]
    settings = json.loads((config.results_path / "config.json").read_text())
    assert (settings["data_dir"], settings["weights"]) == ("toy", "encoder.safetensors")
    assert settings["seed"] == 0


def test_a_model_has_one_colour_in_every_figure(make_smoke_config):
    names = ["cnn", "cnn_assignment", "tf_efficientnet_lite0"]
    results = make_pair(make_smoke_config(), *CASES["cnn better"][:2])
    results.insert(1, results[0])
    colours = [to_rgba(figures.colour(name)) for name in names]
    assert len(set(colours)) == 3 and figures.colour("vit") == figures.colour("tf_efficientnet_lite0")
    histories = {title: result.trained.history for title, (result, _) in zip(names, results, strict=True)}
    curves = figures.convergence(histories, names, [0.0, 0.0, 9.0])
    for axis in curves.axes:
        assert [to_rgba(line.get_color()) for line in axis.get_lines()] == colours
    table = pd.DataFrame([tables.record(*pair) for pair in results])
    for axis in figures.quality_and_cost(table.assign(name=names)).axes:
        points = [line for line in axis.get_lines() if line.get_marker() == "o"]
        assert [(line.get_ydata()[0], to_rgba(line.get_color())) for line in points] == list(enumerate(colours))
    for name, shade in zip(names, colours, strict=True):
        loss = figures.training_curves(results[0][0].trained.history, "title", figures.colour(name)).axes[0]
        assert {to_rgba(line.get_color()) for line in loss.get_lines()} == {shade}


def test_milestones_name_the_first_epoch_at_each_accuracy(make_smoke_config):
    _, (probe, _) = make_pair(
        make_smoke_config(), *CASES["cnn better"][:2]
    )  # val accuracy 0.5, then 0.7; 9 s of features
    table = tables.time_to_accuracy(probe.trained).set_index("val_accuracy")
    assert table["epochs"].tolist()[:3] == [1, 2, 2] and table["epochs"][3:].isna().all()
    assert table["seconds"].tolist()[:3] == [12.0, 15.0, 15.0] and table["seconds"][3:].isna().all()
