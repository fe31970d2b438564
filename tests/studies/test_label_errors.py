"""Suspected labels: those that were swapped are found, clean ones are left alone, and the comparison stays fair."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from hw1_utils import metrics
from hw1_utils.data import Split
from hw1_utils.experiment import Result
from hw1_utils.io.arrays import Room, Rows
from hw1_utils.io.splits import folds
from hw1_utils.report import figures
from hw1_utils.studies import confident_learning
from hw1_utils.studies.confident_learning import contradicted, margins, out_of_fold, own_and_other, upper_limit
from hw1_utils.studies.label_errors import _shown, label_errors, without_suspects
from hw1_utils.training import Predictions

pytestmark = pytest.mark.usefixtures("one_thread")


def clouds(counts, apart=8.0, seed=0):
    """Features float32 N×6 around one centre a class, and labels: class k has counts[k] rows."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = np.eye(6)[: len(counts)] * apart
    return (centres[labels] + rng.normal(size=(len(labels), 6))).astype(np.float32), labels


def swap(labels, rows):
    """The labels, of which these rows have the next class's."""
    wrong = labels.copy()
    wrong[rows] = (wrong[rows] + 1) % (labels.max() + 1)
    return wrong


def judge(features, labels, count=5, most=10**6):
    inputs = [Rows(torch.from_numpy(features))]
    return out_of_fold(inputs, labels, folds(labels, None, count, 0), most=most)


# ---- which labels


@pytest.mark.parametrize("counts", [(60, 60), (60, 60, 60), (150, 40, 12)])
def test_swapped_labels_are_the_most_suspicious_and_no_others_are_suspected(counts):
    features, right = clouds(counts)
    rows = np.arange(3, len(right), 29)
    labels = swap(right, rows)
    probabilities, judged = judge(features, labels)
    suggested, suspected = contradicted(probabilities, labels, judged)
    found = np.flatnonzero(suspected)
    assert judged.all() and set(found) <= set(rows) and len(found) > len(rows) / 2
    assert (suggested[found] == right[found]).all()
    assert set(np.argsort(margins(probabilities, labels))[: len(rows)]) == set(rows)


@pytest.mark.parametrize("counts", [(60, 60), (60, 60, 60, 60), (100, 5)])
def test_clean_labels_are_left_alone(counts):
    features, labels = clouds(counts)
    assert not contradicted(judge(features, labels)[0], labels, np.full(len(labels), True))[1].any()


def test_every_image_is_judged_by_a_head_that_has_not_seen_it(monkeypatch):
    features, labels = clouds((30, 30))
    features[:, 5] = np.arange(60)  # by which an image is known again
    learnt = []

    class Watched(confident_learning.LogisticRegression):
        def fit(self, x, y):
            learnt.append(set(x[:, 5].astype(int)))
            return super().fit(x, y)

    monkeypatch.setattr(confident_learning, "LogisticRegression", Watched)
    monkeypatch.setattr(confident_learning, "make_pipeline", lambda scaler, head: head)
    fold = folds(labels, None, 5, 0)
    for most, seen in ((100, 48), (20, 20)):
        learnt.clear()
        out_of_fold([Rows(torch.from_numpy(features))], labels, fold, most=most)
        assert [rows & set(np.flatnonzero(fold == k)) for k, rows in enumerate(learnt)] == [set()] * 5
        assert list(map(len, learnt)) == [seen] * 5


def test_a_class_of_one_image_cannot_be_judged():
    features, labels = clouds((40, 40, 1))
    probabilities, judged = judge(features, labels)
    assert np.flatnonzero(~judged).tolist() == [80] and probabilities[80, 2] == 0
    assert not contradicted(probabilities, labels, judged)[1].any()
    features, labels = clouds((4, 1))  # and where a head knows one class alone
    probabilities, judged = judge(features, labels)
    assert judged.tolist() == [True] * 4 + [False] and probabilities[4].tolist() == [1, 0]


def test_features_that_are_streamed_and_in_parts_say_the_same(monkeypatch):
    features, labels = clouds((50, 50, 50))
    labels = swap(labels, np.arange(3, 150, 29))
    whole, _ = judge(features, labels)
    monkeypatch.setattr(confident_learning, "CHUNK", 4)
    rows = Rows(torch.from_numpy(features), streamed=True)
    parts = [rows.subset(torch.arange(70)), rows.subset(torch.arange(70, 71)), rows.subset(torch.arange(71, 150))]
    np.testing.assert_allclose(out_of_fold(parts, labels, folds(labels, None, 5, 0), most=150)[0], whole, atol=1e-6)


# ---- how many of them


@pytest.mark.parametrize("share", [0, 0.02, 0.1])
@pytest.mark.parametrize("apart", [2.0, 8.0])
def test_the_limit_holds_the_share_of_labels_that_were_swapped(share, apart):
    features, right = clouds((200, 200, 200), apart)
    rng = np.random.default_rng(3)
    rows = rng.choice(600, round(share * 600), replace=False)
    labels = right.copy()
    labels[rows] = (labels[rows] + rng.integers(1, 3, len(rows))) % 3
    probabilities, _ = judge(features, labels)
    limit = upper_limit(*own_and_other(probabilities, labels))
    assert share < limit < share + (0.1 if apart == 8 else 0.3)


def test_a_label_is_compared_with_the_likeliest_other_class():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.5, 0.4, 0.1]])
    np.testing.assert_allclose(margins(probabilities, np.array([0, 2, 1])), [0.3, 0.4, -0.1])
    assert margins(np.ones((2, 1)), np.array([0, 0])).tolist() == [1, 1]


def test_where_nothing_is_known_the_limit_is_one():
    nothing = own_and_other(np.empty((0, 3)), np.empty(0, int)), own_and_other(np.ones((9, 1)), np.zeros(9, int))
    assert [upper_limit(*each) for each in nothing] == [1, 1]
    guessing = np.full((100, 4), 0.25)
    assert upper_limit(*own_and_other(guessing, np.arange(100) % 4)) == 1  # every label looks as a wrong one does


# ---- the study


def result(config, name, features, splits, right):
    """A model whose predictions on test are known: bool N, whether each is right; features as `label_errors` wants."""
    train, val, test = splits
    labels = test.labels
    guesses = torch.where(torch.from_numpy(right), labels, (labels + 1) % 3)
    probabilities = torch.full((len(labels), 3), 0.1).scatter(1, guesses[:, None], 0.8)
    context = SimpleNamespace(config=config, room=Room(), computed={})
    data = SimpleNamespace(classes=test.classes, train=train, val=val, leading="accuracy", context=context)
    samples = {split.name: SimpleNamespace(inputs=rows) for split, rows in zip(splits, features, strict=True)}
    run = SimpleNamespace(
        name=name,
        title=name,
        context=context,
        data=data,
        image_size=8,
        train=samples["train"],
        val=samples["val"],
        samples=lambda split: samples[split.name],
    )
    return Result(SimpleNamespace(run=run), Predictions(0.0, 0.0, probabilities, labels))


def study(config, classes=("cat", "dog", "owl"), wrong=5):
    """(CNN, probe, test, the paths of swapped labels) of 360 images; the probe contradicts what is swapped in test."""
    features, right = clouds((120, 120, 120))
    order = np.random.default_rng(0).permutation(360)
    features, labels = features[order], right[order].copy()
    rows = np.arange(7, 360, 360 // wrong)[:wrong] if wrong else np.empty(0, int)
    labels = swap(labels, rows)
    bounds = {"train": slice(0, 200), "val": slice(200, 240), "test": slice(240, 360)}
    splits, inputs = [], []
    for name, part in bounds.items():
        chosen = labels[part]
        images = Rows(torch.zeros(len(chosen), 3, 8, 8, dtype=torch.uint8))
        paths = [f"{name}/{i}.png" for i in range(len(chosen))]
        splits.append(Split(name, images, torch.from_numpy(chosen), paths, list(classes)))
        inputs.append(Rows(torch.from_numpy(features[part])))
    paths = [path for split in splits for path in split.paths]
    clean = ~np.isin(np.arange(240, 360), rows)
    probe = result(config, "vit", inputs, splits, clean)
    cnn = result(config, "cnn", inputs, splits, np.arange(120) % 10 > 0)
    return cnn, probe, splits[-1], [paths[row] for row in rows]


def test_suspects_are_ranked_and_written_and_nothing_is_changed(make_smoke_config):
    config = make_smoke_config()
    cnn, probe, test, swapped_paths = study(config)
    before = test.labels.clone()
    found = label_errors(cnn, probe, test)
    count = len(found.suspects)
    assert set(found.suspects["path"]) <= set(swapped_paths) and count >= 4 and torch.equal(test.labels, before)
    assert found.suspects["rank"].tolist() == list(range(1, count + 1)) and (found.suspects["p_given"] < 0.2).all()
    assert (found.suspects["given"] != found.suspects["suggested"]).all()
    shares = found.shares.set_index("part")
    assert shares.index.tolist() == ["train", "val", "test", "all"]
    assert shares["images"].tolist() == shares["judged"].tolist() == [200, 40, 120, 360]
    assert shares["suspects"].iloc[:3].sum() == shares.loc["all", "suspects"] == count
    assert (shares["suspect_share"] <= shares["share_limit"]).all()
    given, suggested, of_given, taken = shares.loc["test", ["given", "suggested", "of_given", "taken"]]
    tested = found.suspects[found.suspects["part"] == "test"]
    assert ((tested["given"] == given) & (tested["suggested"] == suggested)).sum() == taken > 0
    assert of_given == (test.labels == ["cat", "dog", "owl"].index(given)).sum()
    for name, table in zip(
        ("label_errors", "label_error_shares", "without_suspects"),
        (found.suspects, found.shares, found.without),
        strict=True,
    ):
        pd.testing.assert_frame_equal(
            pd.read_csv(config.results_path / f"{name}.csv"), table, check_dtype=False, rtol=1e-4
        )
    with Image.open(found.gallery) as picture:
        assert picture.format == "PNG"


def test_clean_labels_leave_an_empty_list_and_the_comparison_as_it_is(make_smoke_config):
    cnn, probe, test, _ = study(make_smoke_config(), wrong=0)
    found = label_errors(cnn, probe, test)
    assert len(found.suspects) == 0 and found.gallery.is_file()
    assert found.without["left_out"].tolist() == ["nothing"]


def test_the_gallery_shows_first_suspects_and_others_from_all(make_smoke_config, monkeypatch):
    assert _shown(0) == [] and _shown(3) == [0, 1, 2] and _shown(12) == list(range(12))
    assert _shown(1000)[:10] == list(range(10)) and _shown(1000)[10:12] == [10, 62] and _shown(1000)[-1] == 999
    seen = []
    monkeypatch.setattr(figures, "image_grid", lambda images, captions, title, **_: seen.append((captions, title)))
    monkeypatch.setattr(figures, "save", lambda figure, path: path)
    count = len(label_errors(*study(make_smoke_config())[:3]).suspects)
    (captions, title) = seen[0]
    assert title == f"{count} suspected labels (given, then suggested and how probable)" and len(captions) == count
    given, suggested, part = captions[0].split("\n")
    assert {given, suggested.removesuffix("?")} < {"cat", "dog", "owl"}
    assert part.split(", ")[0] in ("train", "val", "test")


# ---- the comparison without them


def test_as_many_are_left_out_of_either_models_suspects(make_smoke_config):
    cnn, probe, *_ = study(make_smoke_config())
    suspects = np.flatnonzero(~probe.correct)
    table = without_suspects(cnn, probe, suspects, most=1).set_index("left_out")
    assert table.index.tolist() == ["nothing", "probe", "cnn", "both"]
    assert table["test_images"].tolist() == [120, 119, 119, 118]
    # What a model gets wrong and is left out favours it; treated alike, both gain.
    gaps = table["score_difference"]
    assert gaps["probe"] > gaps["nothing"] > gaps["cnn"]
    assert table.loc["both", "cnn_score"] > table.loc["nothing", "cnn_score"]
    whole = metrics.paired_difference(cnn.correct, probe.correct)
    assert tuple(table.loc["nothing", ["score_difference", "score_difference_low", "score_difference_high"]]) == whole


def test_what_both_contradict_is_left_out_once_and_nothing_where_there_are_no_images_left(make_smoke_config):
    cnn, _, *_ = study(make_smoke_config())
    mistakes = np.flatnonzero(~cnn.correct)
    table = without_suspects(cnn, cnn, mistakes, most=100).set_index("left_out")
    assert table["test_images"].tolist() == [120, 108, 108, 108] and set(table["score_difference"]) == {0}
    cnn.test.labels[:] = (cnn.test.labels + 1) % 3
    cnn.test.labels[:] = torch.where(torch.from_numpy(cnn.correct), (cnn.test.labels + 1) % 3, cnn.test.labels)
    assert not cnn.correct.any()
    table = without_suspects(cnn, cnn, np.arange(120), most=120)
    assert table["left_out"].tolist() == ["nothing"]
