"""The sentences about suspected labels, held against the tables that they are written from."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st

from hw1_utils import metrics
from hw1_utils.config import ROOT
from hw1_utils.report.html import write_page
from hw1_utils.report.suspects import suspects_in_words, turns, without_in_words
from hw1_utils.report.words import number

SHARE = st.floats(0, 1)


def shares(images, judged, suspects, limit=0.01, accuracy=0.9):
    """A table of four parts with these numbers of all."""
    row = {"images": images, "judged": judged, "suspects": suspects, "suspect_share": suspects / max(judged, 1)}
    row |= {"accuracy": accuracy, "share_limit": limit, "given": "", "suggested": "", "of_given": 0, "taken": 0}
    return pd.DataFrame([{"part": name} | row for name in ("train", "val", "test", "all")])


def without(cnn, probe, lists, measure="accuracy", labels=None):
    """As from the study: `cnn` and `probe` bool N; `lists` of rows by what is left out."""
    rows = []
    for name, left_out in {"nothing": [], **lists}.items():
        kept = ~np.isin(np.arange(len(cnn)), left_out)
        balance = None if labels is None else labels[kept]
        gap = metrics.paired_difference(cnn[kept], probe[kept], balance)
        ends = zip(("", "_low", "_high"), gap, strict=True)
        row = {"left_out": name, "test_images": kept.sum(), "leading": measure}
        rows.append(row | {f"score_difference{end}": value for end, value in ends})
    return pd.DataFrame(rows)


def pair(only_probe, only_cnn, of=1000):
    """CNN and probe, right on all but these images: first those of the probe alone, then those of the CNN alone."""
    rows = np.arange(of)
    return rows >= only_probe, (rows < only_probe) | (rows >= only_probe + only_cnn)


def test_suspects_are_counted_and_not_called_errors():
    text = suspects_in_words(shares(60_000, 60_000, 3456, 0.0213, 0.9021))
    assert "contradict 3,456 of 60,000 labels (5.8%: train 5.8%, val 5.8%, test 5.8%)" in text
    assert "no count of errors" in text and "right about 90.2% of the images" in text
    assert "as likely to be mislabelled, at most 2.1% of all labels are wrong (95 % limit)" in text


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (shares(100, 100, 0), "contradict none of 100 labels. If all images"),
        (shares(100, 0, 0, 1), "No label could be judged"),
        (shares(101, 100, 1), " 1 more could not be judged: all images of the class are in one fold."),
        (shares(100, 100, 40, 1.0), "What share of all labels is wrong they cannot tell."),
        (shares(100, 100, 100, 0.99996), "cannot tell"),
        (shares(1, 1, 0, 1), "contradict none of the only label"),
    ],
)
def test_odd_tables(table, expected):
    assert expected in suspects_in_words(table)


@pytest.mark.parametrize(("count", "taken", "said"), [(15, 13, True), (15, 7, False), (4, 4, False)])
def test_a_class_that_is_mostly_taken_for_another_is_named(count, taken, said):
    """As where the folders of two classes were swapped in one part."""
    table = shares(100, 100, 20)
    table.loc[table["part"] == "test", ["given", "suggested", "of_given", "taken"]] = ["a*", "b", count, taken]
    assert (
        f"Of the {count} images labelled a\\* in test they take {taken} for b: see" in suspects_in_words(table)
    ) == said


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), SHARE, SHARE, SHARE, SHARE)
def test_every_figure_stands_in_the_table(images, judged, suspects, limit, accuracy):
    judged = round(images * judged)
    table = shares(images, judged, round(judged * suspects), limit, accuracy)
    text, row = suspects_in_words(table), table.iloc[-1]
    known = {f"{row['accuracy']:.1%}", *(f"{number(100 * row[name])}%" for name in ("suspect_share", "share_limit"))}
    assert set(re.findall(r"[\d.e-]+%", text)) <= known
    counts = {f"{row['suspects']:,}", f"{row['judged']:,}", f"{row['images'] - row['judged']:,}"}
    assert set(re.findall(r"(?<![\d.,])\d[\d,]*(?![\d.,]*\s?%)(?=\s)", text)) <= counts
    assert "nan" not in text and "  " not in text


def test_the_comparison_is_told_with_whom_each_list_favours():
    cnn, probe = pair(120, 60)
    table = without(cnn, probe, {"probe": range(120, 130), "cnn": range(10), "both": [*range(10), *range(120, 130)]})
    text = without_in_words(table)
    assert text.startswith("On all test images the probe is 6.0 points ahead (95 % interval ")
    assert "without the 10 test labels that the probe contradicts most, in its favour, the probe is 7.1 points" in text
    assert text.endswith("The verdict is the same each time.") and not turns(table)


def test_a_verdict_that_hangs_on_them_is_said():
    cnn, probe = pair(40, 20)
    table = without(cnn, probe, {"probe": range(40, 50), "cnn": range(10), "both": [*range(10), *range(40, 50)]})
    assert turns(table) and without_in_words(table).endswith("look at them first.")


def test_within_the_noise_what_favours_one_model_turns_nothing():
    cnn, probe = pair(30, 25)
    lists = {"probe": range(30, 45), "cnn": range(15), "both": [*range(15), *range(30, 45)]}
    table = without(cnn, probe, lists)
    assert not turns(table) and "What favours one model makes a difference here" in without_in_words(table)
    assert turns(without(cnn, probe, lists | {"both": range(30, 45)}))


def test_one_label_none_and_a_tie():
    cnn, probe = pair(5, 5)
    text = without_in_words(without(cnn, probe, {"probe": [7], "cnn": [0], "both": [0, 7]}))
    assert (
        "the two are level (95 % interval -" in text
        and "without the test label that the probe contradicts most, in its favour, the probe" in text
    )
    assert without_in_words(without(cnn, probe, {})).startswith("No test label is left out")


def test_balanced_accuracy_is_named():
    cnn, probe = pair(120, 60)
    labels = (np.arange(1000) % 10 == 0).astype(int)
    lists = {"probe": [125], "cnn": [0], "both": [0, 125]}
    assert "points of balanced accuracy ahead" in without_in_words(
        without(cnn, probe, lists, "balanced_accuracy", labels)
    )


# ---- the page


def test_the_page_says_it_and_shows_the_first_suspects_letter_by_letter(tmp_path):
    results = Path(shutil.copytree(ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns("*.png")))
    table, labels = shares(100, 100, 60), {"rank": range(1, 61), "path": "train/007/1.png", "part": "train"}
    labels |= {"given": "007", "suggested": "<b>NA</b>", "p_given": 0.001, "p_suggested": 0.9}
    cnn, probe = pair(120, 60)
    compared = without(cnn, probe, {"probe": [125], "cnn": [0], "both": [0, 125]})
    written = {"label_errors": pd.DataFrame(labels), "label_error_shares": table, "without_suspects": compared}
    for name, one in written.items():
        one.to_csv(results / f"{name}.csv", index=False)

    def page(studies):
        config = json.loads((results / "config.json").read_text())
        (results / "config.json").write_text(json.dumps(config | {"studies": studies}))
        return BeautifulSoup(write_page(results, tmp_path / "report.html").read_text(encoding="utf-8"), "html.parser")

    soup = page("label_errors, seeds")
    text = " ".join(soup.select_one("#studies").get_text().split())
    assert suspects_in_words(table) in text and without_in_words(compared) in text
    listed = soup.select("#studies details")[-1]
    assert len(listed.select("tbody tr")) == 50 and {"007", "<b>NA</b>"} < {cell.text for cell in listed.select("td")}
    assert "Which labels look wrong" not in page("seeds").text  # then an earlier run's files lie there
