"""What trains nothing, held against scikit-learn and on the toy folder; its sentences held against any table."""

import dataclasses
import io
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import load_toy, make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import NearestNeighbors

from hw1_utils import metrics
from hw1_utils.data import Samples
from hw1_utils.experiment import as_they_are, evaluate_on_test, load_test, train
from hw1_utils.io.arrays import Room, Rows
from hw1_utils.report import figures
from hw1_utils.report.third_answers import MARGIN, baselines_in_words, would_do
from hw1_utils.studies import baselines as study
from hw1_utils.studies import neighbours
from hw1_utils.studies.baselines import baselines
from hw1_utils.studies.neighbours import TEMPERATURE, Neighbours, pixels

pytestmark = pytest.mark.usefixtures("one_thread", "quick_costs")


# ---- the nearest


@pytest.mark.parametrize("streamed", [False, True])
def test_the_nearest_are_those_of_scikit_learn_and_vote_as_dinos(tmp_path, monkeypatch, streamed):
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    rng = torch.Generator().manual_seed(0)
    rows, labels = torch.randn(50, 6, generator=rng), torch.randint(0, 3, (50,), generator=rng)
    config = SimpleNamespace(cache_path=tmp_path)
    context = SimpleNamespace(room=Room(0 if streamed else 10_000), config=config)
    references = Neighbours(Samples(Rows(rows), labels, as_they_are), 3, context)
    assert references.rows.streamed == streamed
    queries = references.unit(torch.randn(20, 6, generator=rng))
    cosines, found = references.nearest(queries, 5)
    distances, expected = NearestNeighbors(n_neighbors=5, metric="cosine").fit(rows.numpy()).kneighbors(queries.numpy())
    assert np.array_equal(found.numpy(), expected)
    np.testing.assert_allclose(cosines.numpy(), 1 - distances, atol=1e-5)
    votes = np.zeros((20, 3))
    for query, at in np.ndindex(20, 5):
        votes[query, labels[expected[query, at]]] += np.exp(-distances[query, at] / TEMPERATURE)
    guesses = references.guesses(queries, [1, 5])
    assert guesses[0].tolist() == labels[expected[:, 0]].tolist()
    assert guesses[1].tolist() == votes.argmax(1).tolist()
    assert references.guesses(queries, [50]).shape == (1, 20)


@pytest.mark.parametrize(("side", "columns"), [(8, 192), (32, 3072), (100, 3072)])
def test_large_images_are_compared_at_32_pixels(side, columns):
    data = SimpleNamespace(mean=torch.zeros(3), std=torch.ones(3), context=SimpleNamespace(device=torch.device("cpu")))
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    made = pixels(data)(images)
    assert made.shape == (2, columns) and made.min() >= 0 and made.max() <= 1
    torch.testing.assert_close(made.view(2, 3, -1).mean(2), images.float().mean((2, 3)) / 255, rtol=0, atol=0.01)


# ---- the study


@pytest.fixture(scope="module")
def results(tmp_path_factory, one_thread):
    data = load_toy(tmp_path_factory.mktemp("baselines"))
    trained = [train(make_run(data, name)) for name in ("cnn", "vit")]
    return [evaluate_on_test(one, load_test(data)) for one in trained]


@pytest.fixture(scope="module")
def test(results):
    return load_test(results[0].run.data)


def test_each_baseline_is_a_row_with_quality_and_cost(results, test):
    table = baselines(results, test).set_index("name")
    run, encoder = results[1].run, results[1].run.features.encoder
    assert table.index.tolist() == ["largest_class", "neighbours_pixels", f"neighbours_{encoder.folder}"]
    assert table["test_accuracy"].iloc[0] == pytest.approx(1 / 3) and pd.isna(table["neighbours"].iloc[0])
    assert table.loc["neighbours_pixels", "test_accuracy"] > 0.9  # the class is a colour
    assert table.loc["neighbours_pixels", "macs"] == 108 * 3072
    of_features = table.loc[f"neighbours_{encoder.folder}"]
    whole = run.from_pixels.arithmetic(run.from_pixels.samples.inputs[:1])
    assert (
        of_features["macs"]
        == 108 * encoder.head_columns + study.profiling.count_macs(*whole) - run.model.weight.numel()
    )
    assert of_features["total_training_seconds"] == run.features.train.seconds
    assert set(table["neighbours"].dropna()) <= {1, 5, 10, 20, 50, 100, 108}
    better = max(results, key=lambda result: result.test.accuracy)
    assert set(table["compared_with"]) == {better.run.title}
    for name, row in table.iterrows():
        assert row["test_accuracy_low"] <= row["test_accuracy"] <= row["test_accuracy_high"], name
        assert row["difference"] == pytest.approx(row["test_accuracy"] - better.test.accuracy)
    folder = run.context.config.results_path
    written = pd.read_csv(folder / "baselines.csv", dtype={"neighbours": "Int64"}).fillna({"encoder": ""})
    pd.testing.assert_frame_equal(written, table.reset_index()[list(written)], rtol=1e-4, check_dtype=False)
    with Image.open(folder / "baselines.png") as picture:
        assert picture.format == "PNG"


def test_of_many_training_images_a_part_is_compared_with(results, test, monkeypatch):
    monkeypatch.setattr(study, "MOST", 30)
    table = baselines(results[:2], test)
    assert table["train_images"].tolist() == [108, 30, 30] and table["macs"][1] == 30 * 3072


def test_without_a_probe_there_is_the_cnn_to_compare_with(results, test):
    table = baselines(results[:1], test)
    assert table["name"].tolist() == ["largest_class", "neighbours_pixels"]
    assert set(table["compared_with"]) == {results[0].run.title} and baselines_in_words(table).endswith(".")


def test_rare_classes_count_where_balanced_accuracy_leads(results, test):
    data = results[0].run.data
    labels = data.train.labels
    few = torch.cat([(labels == 0).nonzero()[:3, 0], (labels != 0).nonzero()[:, 0]])
    train = data.train.subset(few)
    one = study._on_pixels(dataclasses.replace(data, train=train), test)
    other = dataclasses.replace(data, train=train)
    assert other.leading == "balanced_accuracy"
    row = study._row(one, other, test, results[0])
    assert row["leading"] == "balanced_accuracy"
    assert row["test_balanced_accuracy"] == pytest.approx(balanced_accuracy_score(test.labels, one.test))
    expected = metrics.paired_difference(results[0].correct, one.test == test.labels.numpy(), test.labels.numpy())
    assert row["difference_low"] == pytest.approx(expected[1])


# ---- in words


NAMES = ["largest_class", "neighbours_pixels", "neighbours_vit"]
MODELS = ["largest class", "nearest neighbours on pixels", "nearest neighbours on features (a_*b*)"]


def rows(right, total, better, leading="accuracy"):
    """`right`: of each baseline, out of `total`; those of `better` are the first ones."""
    flags = [np.arange(total) < count for count in (*right, better)]
    made = []
    for name, model, flag in zip(NAMES, MODELS, flags, strict=False):
        low, high = metrics.wilson(int(flag.sum()), total)
        row = {"model": model, "name": name, "leading": leading, "test_images": total, "compared_with": "CNN_*x*"}
        row |= {
            f"test_{leading}{end}": v for end, v in zip(("", "_low", "_high"), (flag.mean(), low, high), strict=True)
        }
        ends = zip(("", "_low", "_high"), metrics.paired_difference(flags[-1], flag), strict=True)
        made.append(row | {f"difference{end}": value for end, value in ends})
    table = pd.DataFrame(made)
    table["neighbours"] = pd.array([None, 1, 20], dtype="Int64")
    return table.assign(train_images=[100, 100, 100])


ON_FEATURES = "20 nearest neighbours on features (a\\_\\*b\\*)"


@pytest.mark.parametrize(
    ("right", "better", "expected"),
    [
        ((1000, 3000, 8000), 9000, f"None of them would do. {ON_FEATURES}: 10.0 points be"),
        ((1000, 3000, 9010), 9000, f"**{ON_FEATURES}: you hardly need to train here: the"),
        (
            (1000, 8990, 9010),
            9000,
            "**Nearest neighbour on pixels: you hardly need a network here.** Nearest neighbour on",
        ),
        (
            (9000, 8990, 9010),
            9000,
            "**Largest class: no model here is of use: look at the labels, or for more images.**",
        ),
    ],
)
def test_the_simplest_that_would_do_is_named(right, better, expected):
    text = baselines_in_words(rows(right, 10_000, better))
    assert expected in text and "CNN\\_\\*x\\*" in text


def test_a_part_of_the_training_images_is_called_one():
    table = rows((1000, 3000, 8000), 10_000, 9000)
    assert "looked for among" not in baselines_in_words(table)
    table["train_images"] = [1_000_000, 50_000, 50_000]
    assert "among 50,000 of 1,000,000 training images." in baselines_in_words(table)


def test_few_test_images_are_no_proof():
    text = baselines_in_words(rows((2, 9, 15), 18, 16))
    assert "**" not in text and "with 18 test images it may be as large as" in text and "hardly" not in text


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.integers(0, 60), min_size=4, max_size=4),
    st.integers(1, 60),
    st.sampled_from(["accuracy", "balanced_accuracy"]),
)
def test_the_sentence_says_what_the_table_says(right, total, leading):
    table = rows([min(count, total) for count in right[:3]], total, min(right[3], total), leading)
    text = baselines_in_words(table)
    assert ("hardly need" in text or "of use" in text) == bool(len(would_do(table)))
    assert ("None of them would do" in text) == bool((table["difference_high"] < 0).all())
    assert (table.loc[would_do(table).index, "difference_low"] >= -MARGIN).all()
    assert not re.search(r"\bnan\b|-0\.0\b|(?<![\d.])0\.0 points|\b1 test images", text) and text.endswith(".")
    read = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert baselines_in_words(read) == text  # from the file it is the same


def test_the_picture_has_every_model_of_the_table(results):
    trained = rows((5, 6, 7), 18, 16).drop(columns="neighbours").assign(model="x" * 80, name="cnn")
    drawn = figures.baselines(rows((2, 9, 15), 18, 16), trained)
    assert len(drawn.axes[0].get_yticklabels()) == 6
