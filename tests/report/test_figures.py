"""The pictures: which colour a model has, and that no title, however long, is cut or lies over something else."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from hw1_utils.optim import RECIPES
from hw1_utils.report import figures

ENCODERS = ["DeiT-Tiny", "swinv2_base_window12to16_192to256.ms_in22k_ft_in1k", "ViT-Small/14 DINOv2"]
NAMES = ["cnn", "cnn_short", *(name for i in range(3) for name in (f"vit{i}", f"vit{i}_blocks"))]
TITLES = ["CNN, tuned recipe", "CNN, short recipe"]
TITLES += [f"probe, {part} ({encoder})" for encoder in ENCODERS for part in ("class token", "4 blocks")]
PICTURES = ("convergence", "quality_and_cost", "operators", "calibration", "learning_curve", "input_size", "penalty")


@pytest.mark.parametrize("blocks", ["blocks", "layers"])
@pytest.mark.parametrize("distilled", ["distilled", "taught"])
def test_each_model_of_a_run_has_its_colour_also_under_its_folders_older_name(blocks, distilled):
    names = ["cnn", "cnn_assignment", "cnn_short", f"cnn_{distilled}"]
    names += ["vit", f"vit_{blocks}", "other", "third", f"third_{blocks}", "fourth"]
    shades = figures.colours(names)
    assert len(set(shades)) == len(names)
    assert shades[4:6] == list(figures.PROBE_COLOURS[0]) and shades[7:9] == list(figures.PROBE_COLOURS[2])
    assert shades[3] == figures.colour("cnn_distilled") and shades[8] == figures.colour("third_blocks", 2)
    assert figures.colour("vit") == figures.colour("tf_efficientnet_lite0")


def test_every_recipe_has_a_colour_and_a_new_one_does_not_pass_for_a_probe():
    names = ["cnn", *(f"cnn_{name}" for name in RECIPES if name != "tuned"), "cnn_new", "vit", "vit_blocks"]
    shades = figures.colours(names)
    assert len(set(shades)) == len(names) and shades[-2:] == list(figures.PROBE_COLOURS[0])
    assert [figures.colour(name) for name in names] == shades


def study(**columns):
    """A study's table of all models: `columns` are lists of equal length, x values and what hangs on them."""
    rows = pd.DataFrame(columns)
    parts = [rows.assign(model=title, name=name) for title, name in zip(TITLES, NAMES, strict=True)]
    table = pd.concat(parts, ignore_index=True).assign(leading="accuracy", val_score=0.8)
    return table.assign(val_score_low=0.75, val_score_high=0.85)


@pytest.fixture(scope="module")
def drawn():
    """Each picture of all models."""
    history = pd.DataFrame({"epoch": [1, 2], "val_accuracy": [0.5, 0.7], "elapsed_seconds": [3.0, 6.0]})
    operators = pd.DataFrame({"operator": [f"aten::operator_{i}" for i in range(9)], "share": 1 / 9})
    quality = pd.DataFrame({"model": TITLES, "name": NAMES, "leading": "accuracy", "test_accuracy": 0.8})
    quality = quality.assign(test_accuracy_low=0.79, test_accuracy_high=0.82)
    costs = pd.DataFrame({"macs": [1e7] * 8, "inference_images_per_second": 50.0, "total_training_seconds": 9.0})
    reliability = pd.DataFrame({"confidence": [0.2, 0.9], "accuracy": [0.3, 0.8]})
    sizes = study(input_size=[96, 224], macs=[1e8, 1e9], extraction_images_per_second=[400.0, 90.0])
    sweep = study(strength=[0.01, 1.0], val_accuracy=[0.7, 0.8], val_loss=[0.9, 0.8], chosen=[False, True])
    own = pd.DataFrame({"accuracy": 0.75, "loss": 0.85}, index=TITLES)
    made = [
        figures.convergence(dict.fromkeys(TITLES, history), NAMES, [0.0] * 8),
        figures.quality_and_cost(quality.join(costs)),
        figures.operator_shares(dict.fromkeys(TITLES, operators)),
        figures.calibration(dict.fromkeys(TITLES, (reliability, reliability)), NAMES),
        figures.learning_curve(study(train_images=[100, 1000])),
        figures.input_sizes(sizes),
        figures.penalty(sweep, own),
    ]
    for figure in made:
        FigureCanvasAgg(figure).draw()
    return dict(zip(PICTURES, made, strict=True))


def inside(box, other):
    """By how many pixels two boxes overlap, in the direction in which they overlap less."""
    return min(min(box.x1, other.x1) - max(box.x0, other.x0), min(box.y1, other.y1) - max(box.y0, other.y0))


@pytest.mark.parametrize("name", PICTURES)
def test_titles_are_whole_and_lie_over_nothing(drawn, name):
    figure = drawn[name]
    axes = [axis for axis in figure.axes if axis.axison]
    frames = [axis.get_window_extent() for axis in axes]
    for legend in figure.legends:
        assert all(inside(legend.get_window_extent(), axis.get_tightbbox()) <= 1 for axis in axes)
    words = [axis.title for axis in axes if axis.title.get_text()]
    words += [label for label in axes[0].get_yticklabels() if label.get_text()]
    boxes = [word.get_window_extent() for word in words]
    assert all(inside(a, b) <= 1 for a, b in combinations(boxes, 2))
    assert all(inside(box, frame) <= 1 for box in boxes for frame in frames)
    shown = " ".join(text.get_text() for legend in figure.legends for text in legend.get_texts())
    shown += " ".join(word.get_text().replace("\n", " ") for word in words)
    missing = [title for title in TITLES if title.replace(" ", "") not in shown.replace(" ", "")]
    assert missing == []


def test_a_long_name_keeps_both_ends_and_is_no_formula():
    assert figures.shortened("a" * 17, 17) == "a" * 17
    assert figures.shortened("a  very long\nname of $5 owls", 12) == "a ve…$5 owls"
    assert figures.class_labels(["$5 or $10"]) == [r"\$5 or \$10"]


def test_close_values_are_no_ticks_that_lie_over_each_other():
    ticks = [
        figures.learning_curve(study(train_images=values)).axes[0].get_xticks().tolist()
        for values in ([100, 1000, 45000], [100, 10000, 12501])
    ]
    assert ticks[0] == [100, 1000, 45000] and 12501 not in ticks[1] and {100, 1000, 10000} <= set(ticks[1])


def test_a_saved_picture_keeps_the_models_colours(drawn, tmp_path):
    """The median cut gave the first probe the colour of the second where there were three encoders."""
    with Image.open(figures.save(drawn["convergence"], tmp_path / "picture.png")) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=int).reshape(-1, 3)
    for shade in figures.colours(NAMES):
        wanted = np.array(to_rgb(shade)) * 255
        assert np.abs(pixels - wanted).max(1).min() <= 8, shade
