"""Which rows a part gets, and that groups stay on one side. Splits of whole folders: test_data.py, test_folders.py."""

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from hw1_utils.errors import Hw1Error
from hw1_utils.io.folders import Folder, Part
from hw1_utils.io.groups import describe_groups, groups_by_pattern, merged
from hw1_utils.io.splits import choose, folds, put_aside, stratified_subset


def test_every_class_has_an_image_however_small_the_part():
    labels = np.repeat(np.arange(6), [1000, 1000, 400, 5, 3, 1])
    for count in (6, 10, 300):
        rows = stratified_subset(labels, count, seed=0)
        assert len(set(rows.tolist())) == count and set(labels[rows]) == set(range(6))
    assert len(stratified_subset(labels, 4, seed=0)) == 4  # fewer than classes
    assert stratified_subset(labels, 10**6, seed=0).tolist() == list(range(len(labels)))
    thousand = np.repeat(np.arange(1000), [3] * 500 + [2] * 500)
    rows = stratified_subset(thousand, 2000, seed=0)
    assert len(rows) == 2000 and set(thousand[rows].tolist()) == set(range(1000))


def test_without_groups_the_split_is_the_one_it_has_always_been():
    """Recorded before there were groups."""
    labels = np.repeat(np.arange(4), [107, 41, 52, 63])
    folder = put_aside(Folder({"train": part(labels)}, has_test=False), "photos", 7)
    rows = []
    for sizes in ((None, None, None), (40, 20, 10)):
        sides = choose(folder, "photos", 7, **dict(zip(SIZES, sizes, strict=True)))
        rows.append([side.paths for side in sides.values()])
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == "13c558d41edad953"


def part(labels, groups=None, twins=None, name="train"):
    classes = [f"class {label}" for label in range(max(labels) + 1)]
    paths = [f"{name}/{classes[label]}/{i}.png" for i, label in enumerate(labels)]
    lists = [None if numbers is None else list(map(int, numbers)) for numbers in (groups, twins)]
    return Part(Path("/nowhere"), paths, list(map(int, labels)), classes, [], *lists)


SIZES = dict.fromkeys(("train_size", "val_size", "test_size"))
PROPERTY = {"max_examples": 25, "deadline": None, "derandomize": True}


@st.composite
def grouped(draw):
    """(labels, groups, twins): any groups, of one class or several, of one image or half of all."""
    count = draw(st.integers(8, 60))
    labels = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    numbers = st.lists(st.integers(0, draw(st.integers(1, 30))), min_size=count, max_size=count)
    groups, twins = (draw(st.one_of(st.none(), numbers)) for _ in range(2))
    return labels, groups if groups or twins else [0] * count, twins


@settings(**PROPERTY)
@given(drawn=grouped(), seed=st.integers(0, 5), sizes=st.tuples(*[st.one_of(st.none(), st.integers(3, 30))] * 3))
def test_no_split_has_a_group_on_two_sides_or_says_why_there_is_none(drawn, seed, sizes):
    labels, groups, twins = drawn
    whole = part(labels, groups, twins)
    together = merged(groups, twins)
    number = dict(zip(whole.paths, together.tolist(), strict=True))
    try:
        folder = put_aside(Folder({"train": whole}, has_test=False), "photos", seed)
        sides = choose(folder, "photos", seed, **dict(zip(SIZES, sizes, strict=True)))
    except Hw1Error as error:
        event("refused")
        assert "\n" not in str(error) and str(error).endswith(".")
        return
    event("split")
    found = {name: {number[path] for path in side.paths} for name, side in sides.items()}
    assert not (found["train"] & found["val"] or found["train"] & found["test"] or found["val"] & found["test"])
    assert all(len(set(side.paths)) == len(side) > 0 for side in sides.values())
    assert set(sides["train"].labels) == set(sides["test"].labels) == set(labels)
    for side in sides.values():  # each row keeps what belongs to it
        rows = [whole.paths.index(path) for path in side.paths]
        assert side.labels == [whole.labels[i] for i in rows]
        assert side.groups == (None if groups is None else [whole.groups[i] for i in rows])


@settings(**PROPERTY)
@given(drawn=grouped(), count=st.integers(2, 6), seed=st.integers(0, 5))
def test_folds_keep_groups_whole_and_hold_every_row_once(drawn, count, seed):
    labels, groups, _ = drawn
    groups = None if groups is None else np.array(groups)
    if groups is not None and len(np.unique(groups)) < count:
        with pytest.raises(Hw1Error, match=f"cannot be dealt into {count} folds"):
            folds(np.array(labels), groups, count, seed)
        return
    fold = folds(np.array(labels), groups, count, seed)
    assert fold.dtype == np.int64 and fold.shape == (len(labels),) and set(fold) <= set(range(count))
    assert (fold == folds(np.array(labels), groups, count, seed)).all()
    if groups is None:
        assert np.ptp(np.bincount(fold, minlength=count)) <= 3  # of each of three classes one
    else:
        assert all(len(set(fold[groups == group])) == 1 for group in groups)


def test_fifty_thousand_rows_of_which_few_belong_together_are_dealt_in_seconds():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 10, 50_000), np.arange(50_000)
    groups[::200] = groups[1::200]
    started = time.process_time()
    fold = folds(labels, groups, 10, 0)
    assert time.process_time() - started < 5  # beside other tests; 1 alone
    assert (fold[::200] == fold[1::200]).all() and np.ptp(np.bincount(fold)) < 300
    assert np.ptp([np.bincount(labels[fold == k]) for k in range(10)], axis=0).max() < 30


def test_folds_are_stratified_and_know_rare_classes():
    labels = np.repeat([0, 1, 2], [100, 50, 2])
    for groups in (None, np.arange(152) // 2):
        fold = folds(labels, groups, 5, 0)
        counts = np.array([np.bincount(labels[fold == k], minlength=3) for k in range(5)])
        assert np.ptp(counts[:, 0]) <= 2 and np.ptp(counts[:, 1]) <= 2
    assert sorted(np.bincount(folds(np.arange(7), None, 3, 0)).tolist()) == [2, 2, 3]  # every class is that rare


@settings(**PROPERTY)
@given(drawn=grouped(), other=st.randoms())
def test_merging_partitions_gives_the_finest_that_cuts_none(drawn, other):
    _, groups, twins = drawn
    both = merged(groups, twins)
    number = list(range(len(both)))  # by hand: rows that share a number take the smaller name until nothing changes
    changed = True
    while changed:
        changed = False
        for partition in filter(None, (groups, twins)):
            for value in set(partition):
                rows = [i for i, one in enumerate(partition) if one == value]
                low = min(number[i] for i in rows)
                changed |= any(number[i] != low for i in rows)
                for i in rows:
                    number[i] = low
    assert [[a == b for b in both] for a in both] == [[a == b for b in number] for a in number]
    assert merged(None, None) is None and both.dtype == np.int64


def test_groups_are_split_about_as_finely_as_asked_for_and_stratified():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 200, 2000)
    labels = rng.integers(0, 4, 200)[groups]
    folder = put_aside(Folder({"train": part(labels, groups)}, has_test=False), "films", 0)
    assert abs(len(folder.parts["test"]) - 400) < 40
    sides = choose(folder, "films", 0, **SIZES)
    assert abs(len(sides["val"]) - 160) < 30 and sum(map(len, sides.values())) == 2000
    whole = np.bincount(labels) / 2000
    for side in sides.values():
        assert np.abs(np.bincount(side.labels) / len(side) - whole).max() < 0.06
    fewer = choose(folder, "films", 0, train_size=300, val_size=60, test_size=100)
    assert {name: len(side) for name, side in fewer.items()} == {"train": 300, "val": 60, "test": 100}
    again = choose(folder, "films", 1, **SIZES)
    assert again["val"].paths != sides["val"].paths and again["test"].paths == sides["test"].paths


def test_where_few_images_have_company_sizes_and_classes_are_exact():
    labels = np.repeat(np.arange(3), [300, 200, 100])
    twins = np.arange(600)
    twins[:40:2] = twins[1:40:2]
    whole = part(labels, twins=twins)
    folder = put_aside(Folder({"train": whole}, has_test=False), "photos", 1)
    sides = choose(folder, "photos", 1, **SIZES)
    counts = {name: np.bincount(side.labels).tolist() for name, side in sides.items()}
    assert counts == {"train": [216, 144, 72], "val": [24, 16, 8], "test": [60, 40, 20]}
    assert not set(sides["train"].twins) & set(sides["val"].twins + sides["test"].twins)


def test_a_class_of_two_groups_has_one_on_either_side():
    labels = np.repeat(np.arange(10), 20)
    folder = put_aside(Folder({"train": part(labels, np.arange(200) // 10)}, has_test=False), "birds", 0)
    assert set(folder.parts["test"].labels) == set(folder.parts["train"].labels) == set(range(10))


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ([0] * 12, "photos has 1 group, and no group may be cut: a split needs two at least; add images of other"),
        ([0] * 6 + [1] * 6, "each class is of one group alone, so that no split can show whether a model knows the"),
        ([0] * 3 + [1] * 3 + [2] * 6, "the test and training cannot both have every class (class 1 in 1); add"),
    ],
)
def test_groups_that_allow_no_split_are_refused(groups, said):
    with pytest.raises(Hw1Error) as caught:
        put_aside(Folder({"train": part([0] * 6 + [1] * 6, groups)}, has_test=False), "photos", 0)
    assert said in str(caught.value)


def test_what_a_pattern_finds_is_the_group():
    paths = ["train/cat/anna_1.jpg", "train/dog/anna_2.jpg", "test/cat/bob-3.jpg"]
    assert groups_by_pattern(paths, r"/([a-z]+)[_-]\d") == ["anna", "anna", "bob"]
    assert groups_by_pattern(paths, r"/(cat|dog)/(?P<group>[a-z]+)") == ["anna", "anna", "bob"]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("anna", "must say in one pair of parentheses"),
        ("(a)(b)", "must say in one pair of parentheses"),
        ("(anna", "is no regular expression (missing ), unterminated subpattern"),
        (
            "/(anna)",
            "it fits train/cat/anna_1.jpg → anna, train/dog/anna_2.jpg → anna, but not test/cat/bob-3.jpg (1 of",
        ),
        ("/(eve)", "it does not fit train/cat/anna_1.jpg, train/dog/anna_2.jpg, test/cat/bob-3.jpg (3 of 3 paths)"),
        ("/(eve)?", "it does not fit train/cat/anna_1.jpg"),
    ],
)
def test_a_pattern_that_does_not_fit_every_path_is_refused(pattern, said):
    paths = ["train/cat/anna_1.jpg", "train/dog/anna_2.jpg", "test/cat/bob-3.jpg"]
    with pytest.raises(Hw1Error) as caught:
        groups_by_pattern(paths, pattern)
    assert said in str(caught.value)


def test_groups_that_lie_in_several_parts_are_called_a_leak():
    names = ["anna", "bob", "eve"]
    said = describe_groups(names, {"train": [0, 0, 1], "val": [2], "test": [1, 1, 2, 0]})
    assert said[0] == "3 groups of 2 to 3 images, which no split that is made here parts: anna, bob, eve"
    assert said[1] == (
        "WARNING, a leak: 2 groups are in both train and test (anna, bob), with 3 of 4 test images; nothing is moved"
    )
    assert said[2].startswith("WARNING, a leak: 1 group is in both val and test (eve), with 1 of 4 test images")
    (alone,) = describe_groups(names, {"train": [0, 1], "test": [2]})
    assert alone == "3 groups of one image each: groups make no difference (anna, bob, eve)"
    with pytest.raises(Hw1Error, match="All images are of one group"):
        describe_groups(["anna"], {"train": [0, 0]})


def test_tens_of_thousands_of_small_groups_are_dealt_whole_and_class_by_class():
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(0, 300, 60_000))
    groups = np.arange(60_000) // 3
    images = replace(part(labels), groups=groups.tolist())
    began = time.process_time()
    folder = put_aside(Folder({"train": images}, has_test=False), "films", 0)
    sides = choose(folder, "films", 0, train_size=None, val_size=None, test_size=None)
    assert time.process_time() - began < 20  # one at a time they take minutes
    assert [len(side) for side in sides.values()] == pytest.approx([43_200, 4800, 12_000], rel=0.02)
    belong = [set(side.groups) for side in sides.values()]
    assert sum(map(len, belong)) == len(set().union(*belong)) == 20_000
    for side in (sides["train"], sides["test"]):
        share = np.bincount(side.labels, minlength=300) / np.bincount(labels)
        assert share.std() < 0.05 and share.min() > 0.5 * share.mean()
