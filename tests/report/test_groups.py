"""What is said where test images come in groups."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from test_conclusion import first, row, tables

from hw1_utils import metrics
from hw1_utils.report import tables as report
from hw1_utils.report.conclusion import conclusion


def said(groups, known=0, cnn=150, probe=155):
    labels = np.arange(200) % 10
    models = [(row("cnn", "tuned"), first(cnn)), (row("vit", "cls, AdamW", "test_vit"), first(probe))]
    table, right = tables(labels, models)
    table = table.assign(test_groups=len(set(groups)), test_images_of_known_groups=known)
    right.insert(1, "group", groups)
    return conclusion(table, right, {f"class {k}": 20 for k in range(10)}), right


def test_a_verdict_goes_by_groups():
    """Five images more of 200 are beyond doubt where each is by itself; all five of one group they are not."""
    text, right = said(np.arange(200) // 5)
    assert "The test images are of 40 groups: intervals go by groups, whose images may be alike, and not by" in text
    gap, low, high = metrics.paired_difference(right["cnn"], right["vit"], groups=right["group"])
    assert low < 0 < gap < high and f"(95 % interval {100 * low:.1f} to {100 * high:.1f})" in text
    assert text.count("within the noise") == 2 and "well" not in text and "So few" not in text
    text, _ = said(np.arange(200))
    assert "of 200 groups, one each: intervals go by images." in text and "is better than CNN, tuned recipe" in text


@pytest.mark.parametrize(
    ("groups", "known", "expected"),
    [
        (np.arange(200) // 100, 0, ["are of 2 groups: intervals", "So few groups say little about new ones"]),
        (np.zeros(200, int), 200, ["are all of one group: intervals", "**All of them are of a group that was"]),
        (
            np.arange(200) // 4,
            1,
            ["of 50 groups", "**1 of them is of a group that was trained or validated on as well"],
        ),
        (np.arange(200) // 4, 40, ["**40 of them are of a group that was"]),
    ],
)
def test_few_groups_and_known_ones_are_said(groups, known, expected):
    text, _ = said(groups, known)
    assert all(words in text for words in expected), text
    assert ("as well" in text) == (known > 0)


def test_the_tables_hold_groups_only_where_there_are_some():
    def result(groups):
        train, val = (SimpleNamespace(groups=torch.tensor(numbers)) for numbers in ([1, 2, 2], [3, 3]))
        run = SimpleNamespace(name="cnn", data=SimpleNamespace(train=train, val=val))
        test = SimpleNamespace(labels=torch.tensor([0, 1, 1, 0]))
        return SimpleNamespace(run=run, test=test, correct=np.array([True, False, True, True]), groups=groups)

    assert report.groups_columns(result(None)) == {} and list(report.outcomes([result(None)])) == ["label", "cnn"]
    grouped = result(np.array([7, 2, 2, 9]))
    assert report.groups_columns(grouped) == {"test_groups": 3, "test_images_of_known_groups": 2}
    expected = {"label": [0, 1, 1, 0], "group": [7, 2, 2, 9], "cnn": [True, False, True, True]}
    pd.testing.assert_frame_equal(report.outcomes([grouped]), pd.DataFrame(expected))
