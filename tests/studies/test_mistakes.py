"""The mistakes of models whose every prediction is known, and a map of features that are known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from hw1_utils.data import Samples, Split
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import Result
from hw1_utils.io.arrays import Rows
from hw1_utils.report import galleries
from hw1_utils.report.mistakes import map_in_words, mistakes_in_words
from hw1_utils.studies import feature_map as maps
from hw1_utils.studies.feature_map import feature_map, in_two_dimensions
from hw1_utils.studies.mistakes import mistakes
from hw1_utils.training import Predictions

CLASSES = ["cat", "$5 or $10", "a very long name of a class of owls"]


def make_split(labels, classes=CLASSES):
    shades = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
    paths = [f"test/{classes[label]}/{i}.png" for i, label in enumerate(labels)]
    return Split("test", Rows(shades), torch.tensor(labels), paths, classes)


def make_result(config, test, guesses, sure, name="cnn", features=None, **run):
    """`sure`: the probability of each guess; what is left is shared by the other classes."""
    count, guesses, sure = len(test.classes), torch.tensor(guesses), torch.tensor(sure, dtype=torch.float32)
    probabilities = ((1 - sure) / (count - 1))[:, None].repeat(1, count).scatter(1, guesses[:, None], sure[:, None])
    made = {"name": name, "title": f"model {name}", "context": SimpleNamespace(config=config), "features": features}
    made["data"] = SimpleNamespace(classes=test.classes)
    return Result(
        SimpleNamespace(run=SimpleNamespace(**(made | run))), Predictions(0.5, 0.5, probabilities, test.labels)
    )


@pytest.fixture
def drawn(monkeypatch):
    """The sections of each gallery that is drawn."""
    seen, draw = [], galleries.gallery

    def watch(title, sections, **options):
        seen.append(sections)
        return draw(title, sections, **options)

    monkeypatch.setattr(galleries, "gallery", watch)
    return seen


@pytest.fixture
def six(make_smoke_config):
    """Six images; the first model is wrong on 0, 2 and 5, the second on 2 and 3; on 2 they agree."""
    test, config = make_split([0, 0, 1, 1, 2, 2]), make_smoke_config()
    first = make_result(config, test, [1, 0, 2, 1, 2, 0], [0.6, 0.9, 0.95, 0.9, 0.9, 0.7])
    return [first, make_result(config, test, [0, 0, 2, 2, 2, 2], [0.9, 0.9, 0.8, 0.99, 0.9, 0.9], "vit")], test


def test_all_mistakes_of_all_models_are_listed_the_most_confident_first(six):
    found = mistakes(*six)
    table = found.table
    assert [
        (row.name, row.path.split("/")[-1])
        for row in table.drop(columns="name").assign(name=table["name"]).itertuples(index=False)
    ] == [*(("vit", "3.png"), ("cnn", "2.png"), ("vit", "2.png"), ("cnn", "5.png"), ("cnn", "0.png"))]
    assert table["probability"].tolist() == pytest.approx([0.99, 0.95, 0.8, 0.7, 0.6])
    assert table["p_true"].tolist() == pytest.approx([0.005, 0.025, 0.1, 0.15, 0.2])
    assert table["same_answer"].tolist() == [False, True, True, False, False]
    assert table.loc[3, ["true", "predicted"]].tolist() == [CLASSES[2], CLASSES[0]]
    written = pd.read_csv(six[0][0].run.context.config.results_path / "mistakes.csv")
    pd.testing.assert_frame_equal(written, table, check_dtype=False, rtol=1e-5)


def test_the_galleries_show_each_models_images_with_what_was_said(six, drawn):
    found = mistakes(*six)
    confident, cells = drawn
    assert [section.heading for section in confident] == [
        *("model cnn: 3 of 6 test images are wrong", "", "model vit: 2 of 6 test images are wrong", "")
    ]
    assert confident[1].images[:, 0, 0, 0].tolist() == [2, 5, 0] and confident[3].images[:, 0, 0, 0].tolist() == [3, 2]
    assert confident[1].captions[1].startswith("a very l…a class of owls\n→ cat 70.0%\ntest/a v…")
    of_vit = cells[[section.heading for section in cells].index("model vit") + 1]
    assert of_vit.heading == r"\$5 or \$10 → a very long name of a class of owls: 2 images, 100.0% of the class"
    assert of_vit.images[:, 0, 0, 0].tolist() == [2, 3] and of_vit.captions == ["80.0%", "99.0%"]
    for path in (found.gallery, found.cells):
        with Image.open(path) as picture:
            assert picture.format == "PNG" and picture.mode == "P"


def test_models_without_mistakes_leave_a_heading_and_an_empty_table(make_smoke_config, drawn):
    test = make_split([0, 1, 2])
    perfect = make_result(make_smoke_config(), test, [0, 1, 2], [0.9, 0.9, 0.9])
    found = mistakes([perfect], test)
    assert found.table.empty and found.gallery.is_file() and found.cells.is_file()
    assert [[section.heading for section in sections] for sections in drawn] == [
        ["model cnn: all 3 test images are right"],
        ["model cnn: no class is taken for another one"],
    ]
    assert len(pd.read_csv(perfect.run.context.config.results_path / "mistakes.csv")) == 0


def test_of_a_large_cell_the_images_are_spread_evenly(make_smoke_config, drawn):
    test = make_split([0] * 101, ["a", "b"])
    mistakes([make_result(make_smoke_config(), test, [1] * 101, [0.8] * 101)], test)
    (_, cell) = drawn[1]
    assert cell.images[:, 0, 0, 0].tolist() == [0, 20, 40, 60, 80, 100]


def test_images_are_shown_as_large_as_the_encoder_has_seen_them(six, drawn, make_smoke_config):
    (first, second), test = six
    larger = replace(test, images=Rows(test.images.values.repeat(1, 1, 4, 4)), whole_sha256="")
    context = SimpleNamespace(config=make_smoke_config(), computed={("images", test.sha256, 32): larger})
    encoder = SimpleNamespace(side_for=lambda image_size, largest: 32)
    probed = vars(second.run) | {"features": SimpleNamespace(encoder=encoder), "context": context}
    probed["data"] = SimpleNamespace(classes=CLASSES, context=context, largest_side=32)
    mistakes([first, Result(SimpleNamespace(run=SimpleNamespace(**probed)), second.test)], test)
    assert {section.images.shape[-1] for sections in drawn for section in sections if len(section.images)} == {32}


# ---- in words

MODELS = pd.DataFrame({"model": ["CNN, tuned recipe", "probe (<b>)"], "name": ["cnn", "vit"], "test_images": 1000})


def mistaken(*rows):
    return pd.DataFrame(rows, columns=["name", "path", "probability", "same_answer"])


def test_mistakes_in_words():
    rows = [("cnn", "a", 0.95, True), ("vit", "a", 0.9, True), ("vit", "b", 0.5, False), ("cnn", "b", 0.4, False)]
    text = mistakes_in_words(mistaken(*rows, ("cnn", "c", 0.3, False)), MODELS)
    assert text == (
        "CNN, tuned recipe is wrong on 3 of 1,000 test images, on 1 of them with a probability of 90% or more; "
        r"probe (\<b\>) is wrong on 2 of 1,000 test images, on 1 of them with a probability of 90% or more. "
        "Images that both get wrong: 2; with the same answer: 1, where to look first for wrong labels."
    )


@pytest.mark.parametrize(
    ("rows", "models", "end"),
    [
        ([], 2, "right on all 1,000 test images. Images that both get wrong: 0."),
        ([], 1, "CNN, tuned recipe is right on all 1,000 test images."),
        ([("cnn", "a", 0.3, True)], 1, "on none of them with a probability of 90% or more."),
        ([("cnn", "a", 0.3, False), ("vit", "b", 0.3, False)], 2, " Images that both get wrong: 0."),
        ([("cnn", "a", 0.3, False), ("vit", "a", 0.3, False)], 2, " both get wrong: 1; with the same answer: 0."),
    ],
)
def test_few_mistakes_in_words(rows, models, end):
    assert mistakes_in_words(mistaken(*rows), MODELS.head(models)).endswith(end)


def test_the_map_in_words():
    table = pd.DataFrame({"true": list("aabb"), "predicted": list("abba"), "nearest": list("abbb")})
    assert map_in_words(table) == (
        "Of 4 test images on the map, 3 (75.0%) have another one of their own class nearest to them, by the features' "
        "principal components. The probe gets 2 of them wrong: the nearest is of the class that it said for 1, of the "
        "true class for 1."
    )
    assert map_in_words(table.assign(predicted=table["true"])).endswith("The probe gets none of them wrong.")
    assert "are all equal: nothing can be told" in map_in_words(table.assign(nearest=None))


# ---- the map


def make_probe(config, values, labels, classes, guesses=None):
    """A probe's result, and its test images: the features are `values`, doubled on their way to the head."""
    test = make_split(labels, classes)
    inputs = Rows(torch.from_numpy(values))

    def samples(split):
        return Samples(inputs, split.labels, lambda batch, generator: 2 * batch)

    guesses = labels if guesses is None else guesses
    return make_result(config, test, guesses, [0.9] * len(labels), "vit", features=object(), samples=samples), test


def clusters(count, each, columns=20, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), each)
    values = 5 * rng.standard_normal((count, columns))[labels] + rng.standard_normal((len(labels), columns))
    return values.astype(np.float32), labels.tolist()


def test_clusters_stay_together_on_the_map_and_twice_the_same(make_smoke_config):
    values, labels = clusters(4, 15)
    guesses = [1, *labels[1:]]
    result, test = make_probe(make_smoke_config(), values, labels, ["NA", "007", "$x$", "d"], guesses)
    table = feature_map(result, test)
    assert list(table) == ["path", "true", "predicted", "nearest", "x", "y"]
    assert table["path"].tolist() == test.paths and table["predicted"].tolist()[:2] == ["007", "NA"]
    assert (table["nearest"] == table["true"]).all()
    centres = table.groupby("true")[["x", "y"]].mean()
    apart = np.linalg.norm(table[["x", "y"]].to_numpy()[:, None] - centres.to_numpy(), axis=2)
    assert (centres.index[apart.argmin(1)] == table["true"]).all()
    pd.testing.assert_frame_equal(feature_map(result, test), table, check_exact=True)
    folder = result.run.context.config.results_path
    read = pd.read_csv(folder / "feature_map.csv", keep_default_na=False, dtype={"true": str})
    assert read["true"].tolist() == table["true"].tolist() and (folder / "feature_map.png").is_file()


def test_of_many_images_a_stratified_part_is_shown_and_said(make_smoke_config, monkeypatch):
    monkeypatch.setattr(maps, "MOST", 40)
    titles, draw = [], galleries.feature_map
    monkeypatch.setattr(galleries, "feature_map", lambda *args: titles.append(args[2]) or draw(*args))
    values, labels = clusters(4, 30)
    table = feature_map(*make_probe(make_smoke_config(), values, labels, list("abcd")))
    assert len(table) == 40 and table["true"].value_counts().tolist() == [10] * 4
    assert titles[0].startswith("40 of 120 test images (stratified, seed 0) as the encoder sees them: PCA to 20 compo")


@pytest.mark.parametrize("count", [2, 5, 12])
def test_few_images_and_equal_features_are_shown_as_they_are(make_smoke_config, count):
    labels = [i % 2 for i in range(count)]
    values = np.random.default_rng(0).standard_normal((count, 6)).astype(np.float32)
    table = feature_map(*make_probe(make_smoke_config(), values, labels, ["a", "b"]))
    assert np.isfinite(table[["x", "y"]].to_numpy()).all() and table["nearest"].notna().all()
    table = feature_map(*make_probe(make_smoke_config(), np.ones_like(values), labels, ["a", "b"]))
    assert (table[["x", "y"]] == 0).all(axis=None) and table["nearest"].isna().all()


def test_features_that_differ_in_one_column_alone_are_a_line(make_smoke_config):
    values = np.zeros((30, 1), np.float32)
    values[:, 0] = np.arange(30)
    reduced, flat, how = in_two_dimensions(values, 0)
    assert reduced.shape == (30, 1) and how == "PCA" and (flat[:, 1] == 0).all() and len(set(flat[:, 0])) == 30
    wide = np.pad(values, ((0, 0), (0, 5)))
    assert np.isfinite(in_two_dimensions(wide, 0)[1]).all()


def test_a_cnn_has_no_features_to_map(six):
    results, test = six
    with pytest.raises(Hw1Error, match="model cnn has no features of an encoder to map: give the result of a probe"):
        feature_map(results[0], test)
