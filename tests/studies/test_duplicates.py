"""Copies of known kinds are found, distinct images are not taken for copies, and what is said follows the tables."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from benchmarks.copies import KINDS
from hw1_utils.config import make_config
from hw1_utils.experiment import Result, load, load_test
from hw1_utils.features import extract
from hw1_utils.io import twins
from hw1_utils.io.toy import make_toy_folder
from hw1_utils.models import load_encoders
from hw1_utils.report.copies import copies_in_words, finding, verdict_turns
from hw1_utils.studies import duplicates as study
from hw1_utils.studies.duplicates import COLUMNS, duplicates, exact_copies, find_pairs, without_twins
from hw1_utils.training import Predictions

pytestmark = pytest.mark.usefixtures("one_thread")


def tiles(side=80):
    """Distinct pictures: pieces of scikit-learn's two photographs, with nothing in common."""
    for photo in load_sample_images().images:
        for top in range(0, photo.shape[0] - side, side):
            for left in range(0, photo.shape[1] - side, side):
                yield Image.fromarray(photo[top : top + side, left : left + side])


def stacked(pictures, side=32):
    arrays = [np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC)) for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(scope="module")
def textured():
    """Those with something in them to compare, not of sky alone."""
    return [tile for tile in tiles() if np.asarray(tile.convert("L").resize((32, 32))).std() > 25]


@pytest.fixture(scope="module")
def distinct(textured):
    return stacked(textured)


def paired(first, second):
    count = len(first)
    pairs = torch.stack([torch.arange(count), torch.arange(count, 2 * count)], 1)
    return twins.confirm(torch.cat([first, second]), pairs)[0][:, 0].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_constructed_copy_is_confirmed(kind, textured, distinct):
    copies = stacked(KINDS[kind](picture) for picture in textured)
    found = paired(distinct, copies)
    assert len(found) >= (0.8 if kind == "cropped to 85 %" else 0.9) * len(distinct)


def test_copies_are_proposed_and_clustered_by_pixels_alone(textured, distinct):
    kinds = ["darker, less contrast", "JPEG, quality 30", "mirrored", "blurred"]
    copies = [stacked(KINDS[kind](picture) for picture in textured) for kind in kinds]
    clusters = twins.twin_clusters(torch.cat([distinct, *copies]))
    assert clusters.dtype.kind == "i" and len(clusters) == 5 * len(distinct)
    together = clusters.reshape(5, -1)
    assert (together == together[0]).mean() > 0.95
    assert len(set(clusters)) >= len(distinct) - 1  # and no two distinct ones with each other


def test_distinct_photographs_are_no_copies(distinct):
    assert len(set(twins.twin_clusters(distinct))) == len(distinct)


def test_digits_of_one_kind_are_no_copies():
    digits = torch.from_numpy(load_digits().images[:300] * 15).byte()[:, None].expand(-1, 3, -1, -1).contiguous()
    assert len(set(twins.twin_clusters(digits))) >= 0.99 * len(digits)


def test_many_flat_images_are_no_near_copies_and_cost_no_square():
    generator = torch.Generator().manual_seed(0)
    flat = torch.randint(100, 103, (5000, 1, 1, 1), generator=generator).expand(-1, 3, 32, 32).byte().contiguous()
    clusters = twins.twin_clusters(flat)
    assert len(set(clusters)) == len(set(zip(clusters, flat[:, 0, 0, 0].tolist(), strict=True))) == 3


def test_of_many_flat_images_that_differ_no_pair_is_proposed():
    """All their cosines are 0, the least that is asked for among them: the square of all pairs would be."""
    flat = torch.arange(9000).add(1000)[:, None].bitwise_right_shift(torch.tensor([0, 4, 8])).remainder(256).byte()
    assert len(twins.by_thumbnails(flat[:, :, None, None].expand(-1, -1, 32, 32).contiguous())) == 0


def test_a_pair_that_is_proposed_twice_is_confirmed_once(distinct):
    pairs = torch.tensor([[0, len(distinct)], [1, len(distinct)], [0, len(distinct)]])
    kept, likeness = twins.confirm(torch.cat([distinct, distinct[:1]]), pairs)
    assert kept.tolist() == [[0, len(distinct)]] and likeness.item() == pytest.approx(1, abs=1e-5)
    assert len(twins.confirm(distinct, pairs[:0])[0]) == len(twins.confirm(distinct[:0], pairs[:0])[0]) == 0


def test_of_very_many_alike_not_every_pair_is_proposed():
    vectors = torch.nn.functional.normalize(torch.ones(6000, 4) + 1e-3 * torch.rand(6000, 4))
    pairs = twins.propose(len(vectors), lambda rows: vectors[rows])
    assert pairs[:, 0].bincount().max() <= twins.MOST and (pairs[:, 0] < pairs[:, 1]).all()


def test_proposals_are_those_of_the_whole_matrix(monkeypatch):
    monkeypatch.setattr(twins, "BLOCK", 7)
    monkeypatch.setattr(twins, "EACH", 3)
    vectors = torch.nn.functional.normalize(torch.randn(40, 5, generator=torch.Generator().manual_seed(0)))
    pairs = {tuple(pair) for pair in twins.propose(40, lambda rows: vectors[rows]).tolist()}
    cosines = (vectors @ vectors.T).fill_diagonal_(-2)
    least = cosines.flatten().topk(3 * 40).values[-1]
    assert pairs == {(a, b) for a, b in (cosines >= least - 1e-6).nonzero().tolist() if a < b}


@pytest.mark.parametrize("count", [1, 2])
def test_few_images(count):
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8)
    assert len(set(twins.twin_clusters(images))) == count


# ---- the study


@pytest.fixture(scope="module")
def data(tmp_path_factory, one_thread):
    """The toy folder with a leak of each kind, and a file that lies twice in train."""
    root = tmp_path_factory.mktemp("duplicates")
    make_toy_folder(root / "toy")

    def copy(source, target, change=lambda picture: picture):
        with Image.open(root / "toy" / source) as picture:
            change(picture).save(root / "toy" / target)

    copy("test/colour_0/00000.png", "train/colour_1/exact.png")
    copy("test/colour_2/00003.png", "train/colour_2/near.png", KINDS["darker, less contrast"])
    copy("train/colour_0/00000.png", "train/colour_0/again.png")
    settings = {"encoder": "test_vit", "device": "cpu", "precision": "fp32", "val_size": 12}
    return load(make_config("smoke", **settings, data_dir=str(root / "toy"), output_dir=str(root / "out")))


@pytest.fixture(scope="module")
def test(data):
    return load_test(data)


def make_result(data, test, name, right, features=None):
    """A model whose outcome on each test image is known."""
    labels = test.labels.cpu()
    guesses = torch.where(torch.as_tensor(right), labels, (labels + 1) % 3)
    probabilities = torch.full((len(labels), 3), 0.1).scatter(1, guesses[:, None], 0.8)
    kind, variant = ("cnn", "tuned") if name == "cnn" else ("probe", "cls")
    run = SimpleNamespace(name=name, title=name.upper(), kind=kind, variant=variant, data=data, context=data.context)
    run.features = features
    return Result(SimpleNamespace(run=run, val_score=0.5), Predictions(0.5, 0.5, probabilities, labels))


def pairs_of(table):
    return {(a, b): kind for a, b, kind in table[["path_a", "path_b", "kind"]].itertuples(index=False)}


LEAKS = {
    ("train/colour_1/exact.png", "test/colour_0/00000.png"): "exact",
    ("train/colour_2/near.png", "test/colour_2/00003.png"): "near",
}


def test_what_was_found_before_training_is_not_looked_for_again(data, test, monkeypatch):
    copies = exact_copies(data)
    monkeypatch.setattr(study, "decode_files", lambda *args, **options: pytest.fail("these were compared before"))
    found = find_pairs(data, test, None)
    assert pairs_of(copies) == pairs_of(found[found["kind"] == "exact"])


def test_exact_copies_are_found_before_anything_is_trained(data):
    found = pairs_of(exact_copies(data))
    assert found.pop(("train/colour_1/exact.png", "test/colour_0/00000.png")) == "exact"
    assert [set(pair) for pair in found] == [{"train/colour_0/again.png", "train/colour_0/00000.png"}]


def test_equal_when_small_is_not_equal(tmp_path, make_smoke_config, toy_folder):
    """Two files that differ in detail alone, which 32 pixels do not show."""
    for part, value in (("train", 0), ("test", 255)):
        page = np.full((640, 640, 3), 128, np.uint8)
        page[::20, ::20] = value
        page[1::20, 1::20] = 255 - value
        Image.fromarray(page).save(toy_folder / part / "colour_0" / "page.png")
    data = load(make_smoke_config(image_size=8))
    splits = (data.train, data.val, load_test(data))
    images = {path: split.images[i : i + 1] for split in splits for i, path in enumerate(split.paths)}
    assert (images["train/colour_0/page.png"] == images["test/colour_0/page.png"]).all()
    assert exact_copies(data).empty


@pytest.mark.parametrize("with_features", [False, True])
def test_copies_are_listed_drawn_and_told(data, test, with_features):
    features = extract(load_encoders(data.context)[0], data) if with_features else None
    right = np.ones(len(test), bool)
    results = [make_result(data, test, name, right, features) for name in ("cnn", "vit")]
    found = duplicates(results, test)
    listed = pairs_of(found.pairs)
    assert len(listed) == 3 and listed.items() >= LEAKS.items()
    assert list(found.pairs.columns) == COLUMNS and set(pairs_of(found.pairs.head(2))) == set(LEAKS)
    assert found.pairs["same_label"].tolist() == [False, True, True]
    assert found.pairs["cluster"].tolist() == [0, 1, 2]
    folder = data.context.config.results_path
    pd.testing.assert_frame_equal(pd.read_csv(folder / "duplicates.csv"), found.pairs, rtol=1e-4)
    with Image.open(found.gallery) as picture:
        assert picture.format == "PNG"
    said = copies_in_words(found.pairs, found.images, found.without)
    assert "**2 of 30 test images (6.7 %) have a copy in training**" in said and ", 1 under another label." in said
    assert "On the 28 others (accuracy)" in said and "the verdict stands" in said


def test_the_models_are_judged_without_twins(data, test):
    twins_at = [test.paths.index(path) for _, path in LEAKS]
    right = np.arange(len(test)) % 2 == 0
    leaky = right.copy()
    leaky[twins_at], right[twins_at] = True, False
    results = [make_result(data, test, "cnn", right), make_result(data, test, "vit", leaky)]
    pairs = pd.DataFrame([(a, "train", b, "test") for a, b in LEAKS], columns=["path_a", "part_a", "path_b", "part_b"])
    table = without_twins(results, test, pairs).set_index("name")
    assert table["images"].tolist() == [30] * 3 and table["images_without"].tolist() == [28] * 3
    assert table.loc["difference", "score"] == pytest.approx(2 / 30)
    assert table.loc["difference", "score_without"] == pytest.approx(0)
    assert table.loc["cnn", "score_without"] == table.loc["vit", "score_without"]
    assert (table["score_without_low"] <= table["score_without"]).all()


def test_one_kind_of_model_has_no_difference_and_no_image_may_be_left(data, test):
    everything = pd.DataFrame({"path_a": "x", "part_a": "train", "path_b": test.paths, "part_b": "test"})
    table = without_twins([make_result(data, test, "cnn", np.ones(len(test), bool))], test, everything)
    assert table["name"].tolist() == ["cnn"] and table["images_without"].tolist() == [0]
    assert table["score_without"].isna().all() and not verdict_turns(table)


# ---- in words

IMAGES = {"train": 80, "val": 10, "test": 10}


def row(a="train", b="test", kind="exact", same=True, number=0, cluster=0):
    return [f"{a}/{number}", a, "cat", f"{b}/x{number}", b, "cat" if same else "dog", 1.0, kind, same, cluster]


def table_of(*rows):
    return pd.DataFrame(list(rows), columns=COLUMNS)


def judged(low, low_without, left=8, value=0.9, among=100):
    """CNN, probe and their difference; its interval begins at `low`."""
    names = ["model", "name", "leading", "images", "score", "score_low", "score_high"]
    names += ["images_without", "score_without", "score_without_low", "score_without_high"]
    rows = [[name, name, "accuracy", 10, value, 0.8, 1.0, left, value, 0.8, 1.0] for name in ("cnn", "vit")]
    ends = [low + 0.1, low, low + 0.2], [low_without + 0.1, low_without, low_without + 0.2]
    rows.append(["vit minus cnn", "difference", "accuracy", 10, *ends[0], left, *ends[1]])
    return pd.DataFrame(rows, columns=names).assign(near_copies_among=among)


def test_no_copies_in_words():
    assert copies_in_words(table_of(), IMAGES) == "Among 100 images no copies were found."


@pytest.mark.parametrize("rows", [[], [row(kind="near")]])
def test_near_copies_among_a_part_are_not_taken_for_all(rows):
    said = copies_in_words(table_of(*rows), IMAGES, judged(0.1, 0.1, among=40))
    assert "Near copies were looked for among 40 of 100 images: there may be more of them." in said
    assert "looked for" not in copies_in_words(table_of(*rows), IMAGES, judged(0.1, 0.1))


@pytest.mark.parametrize(
    "rows, expected",
    [
        ([row("train", "train")], ["2 have an exact copy among", "No test image has one in training."]),
        (
            [row(kind="near")],
            ["2 have a near copy", "**1 of 10 test images (10.0 %) has a copy in training**, near ones only. Near is"],
        ),
        ([row(same=False)], ["The pair lies under different labels", "in training**, 1 under another label."]),
        (
            [row(number=1), row("val", "test", "near", False, 2)],
            ["2 have an exact copy and 2 have a near copy", "1 of 2"],
        ),
        ([row(), row(kind="near", number=1)], ["in training**, 1 of them an exact one. Near is"]),
    ],
)
def test_copies_in_words(rows, expected):
    said = copies_in_words(table_of(*rows), IMAGES)
    assert all(words in said for words in expected), said


@pytest.mark.parametrize(
    "rows, said",
    [
        (
            [row(kind="near"), row("train", "val", "near", number=0)],
            "A cluster of three or more near copies lies in several parts",
        ),
        (
            [row(kind="near", number=i, cluster=i // 2) for i in range(4)],
            "2 clusters of three or more near copies lie in several parts",
        ),
        ([row(kind="near", number=i, cluster=i) for i in range(4)], ""),  # pairs
        ([row("train", "train", "near", number=i) for i in range(4)], ""),
        ([row(number=i) for i in range(4)], ""),  # equal files are no series
    ],
)
def test_series_are_suggested_where_near_copies_form_clusters_across_parts(rows, said):
    text = copies_in_words(table_of(*rows), IMAGES)
    assert said in text and ("say with `groups` what belongs together" in text) == bool(said)


@pytest.mark.parametrize(
    "same, expected",
    [
        (
            [True] * 4,
            [
                "2 clusters of three or more near copies lie in several parts, each within one group",
                "given cut groups, and",
            ],
        ),
        (
            [False, True, True, True],
            [
                "A cluster of three or more near copies lies in several parts, of several groups",
                "belong in one group. A cluster of three or more near copies lies in several parts, within one group (",
            ],
        ),
    ],
)
def test_groups_that_were_given_are_not_asked_for(same, expected):
    rows = [row(kind="near", number=i, cluster=i // 2) for i in range(4)]
    text = copies_in_words(table_of(*rows).assign(same_group=same), IMAGES)
    assert all(words in text for words in expected) and "`groups`" not in text, text


@pytest.mark.parametrize(
    "low, low_without, turns", [(0.1, 0.2, False), (0.1, -0.1, True), (-0.1, -0.15, False), (-0.3, 0.1, True)]
)
def test_whether_the_verdict_turns(low, low_without, turns):
    without = judged(low, low_without)
    said = copies_in_words(table_of(row()), IMAGES, without)
    assert verdict_turns(without) == turns
    assert ("**the verdict turns**" in said) == turns and ("the verdict stands" in said) != turns


def test_where_no_image_is_left_nothing_is_claimed():
    without = judged(0.1, np.nan, left=0, value=np.nan)
    assert not verdict_turns(without)
    told = finding(table_of(row()), IMAGES, without)
    assert "cannot be said" in told.text and told.turns  # in front: nothing is known then


def test_names_are_no_markup():
    without = judged(0.1, 0.1).replace({"model": {"cnn": "a*b*"}})
    assert "a\\*b\\*" in copies_in_words(table_of(row()), IMAGES, without)
