"""What `studies.label_errors` has found, in words: as much as its tables say, and no more."""

import pandas as pd

from .. import metrics
from .findings import Finding
from .words import in_points, literal, number

MANY = 5  # images of a class, of which so many may be taken for another by chance


def finding(shares: pd.DataFrame, without: pd.DataFrame) -> Finding:
    """What `studies.label_errors` has found, for the front of the conclusion."""
    return Finding(f"{suspects_in_words(shares)} {without_in_words(without)}", turns(without))


def suspects_in_words(shares: pd.DataFrame) -> str:
    """How many labels are suspected, and what that says about how many are wrong.

    `shares` as from `studies.label_errors`.
    """
    parts = shares.set_index("part")
    whole = parts.loc["all"]
    judged, suspects = int(whole["judged"]), int(whole["suspects"])
    if judged == 0:
        return "No label could be judged: no class has images in two folds."
    of = f"{judged:,} labels" if judged > 1 else "the only label"
    heads = "Heads on the probe's features that had not seen the image"
    if suspects:
        each = ", ".join(f"{name} {_percent(row['suspect_share'])}" for name, row in parts.drop("all").iterrows())
        text = (
            f"{heads} contradict {suspects:,} of {of} ({_percent(whole['suspect_share'])}: {each}). That is a list to "
            "look through and no count of errors: by the labels given the heads are right about "
            f"{whole['accuracy']:.1%} of the images, and a mistake of theirs looks the same."
        )
        text += "".join(_swapped(row, name) for name, row in parts.drop("all").iterrows())
    else:
        text = f"{heads} contradict none of {of}."
    text += f" {_limit(whole)}"
    if left := int(whole["images"]) - judged:
        text += f" {left:,} more could not be judged: all images of the class are in one fold."
    return text


def _swapped(row: pd.Series, part: str) -> str:
    """Where most images of a class are taken for one other: a folder of another name, perhaps."""
    taken, count = int(row["taken"]), int(row["of_given"])
    if taken < MANY or 2 * taken <= count:
        return ""
    names = [literal(str(row[name])) for name in ("given", "suggested")]
    return (
        f" **Of the {count:,} images labelled {names[0]} in {part} they take {taken:,} for {names[1]}: see whether the "
        "whole class is mislabelled there, or the two cannot be told apart.**"
    )


def _limit(whole: pd.Series) -> str:
    """The largest share of wrong labels, and what it takes for granted."""
    share = _percent(whole["share_limit"])
    if share == "100%":
        return "What share of all labels is wrong they cannot tell."
    return (
        f"If all images are as likely to be mislabelled, at most {share} of all labels are wrong (95 % limit); hard "
        "ones may be mislabelled more often."
    )


def _percent(share: float) -> str:
    """With two digits at least that say something."""
    return f"{number(100 * share)}%"


def without_in_words(without: pd.DataFrame) -> str:
    """What becomes of the comparison when suspected test labels are left out.

    `without` as from `studies.label_errors`.
    """
    rows = without.set_index("left_out")
    whole = rows.loc["nothing"]
    if "probe" not in rows.index:
        return "No test label is left out: that takes suspected ones, mistakes of the CNN, and images left over."
    count = int(whole["test_images"] - rows.loc["probe", "test_images"])
    labels = f"{count:,} test labels" if count > 1 else "test label"
    lists = {
        "probe": f"the {labels} that the probe contradicts most, in its favour",
        "cnn": f"{'as many' if count > 1 else 'the one'} that the CNN contradicts most, in its favour",
        "both": "both, in favour of neither",
    }
    others = [f"without {said}, {_gap(rows.loc[name])}" for name, said in lists.items()]
    return f"On all test images {_gap(whole)}; {'; '.join(others)}. {_verdict(rows)}"


def turns(without: pd.DataFrame) -> bool:
    """Whether suspected labels could turn the verdict: a better model would not be shown to be better without them.

    Where no model is shown to be better on all images, what favours one of the two does not count, what favours
    neither does.
    """
    verdicts = {row["left_out"]: _better(row) for _, row in without.iterrows()}
    told = verdicts.pop("nothing")
    if told == "neither":
        return verdicts.get("both", told) != told
    return any(verdict != told for verdict in verdicts.values())


def _verdict(rows: pd.DataFrame) -> str:
    told = {name: _better(row) for name, row in rows.iterrows()}
    if len(set(told.values())) == 1:
        return "The verdict is the same each time."
    if turns(rows.reset_index()):
        return "The verdict hangs on these labels: look at them first."
    return "What favours one model makes a difference here, what favours neither does not."


def _better(row: pd.Series) -> str:
    """Which of the two is better beyond doubt: probe, cnn or neither."""
    better = metrics.beyond_doubt(row["score_difference_low"], row["score_difference_high"])
    return {1: "probe", -1: "cnn", 0: "neither"}[better]


def _gap(row: pd.Series) -> str:
    """the probe is 1.9 points ahead (95 % interval 1.2 to 2.6)"""
    gap, low, high = (row[f"score_difference{end}"] for end in ("", "_low", "_high"))
    model = "probe" if gap > 0 else "CNN"
    values = in_points(gap, low, high) if gap > 0 else in_points(-gap, -high, -low)
    of = "" if row["leading"] == "accuracy" else f" of {row['leading'].replace('_', ' ')}"
    ahead = f"the {model} is {values[0]} points{of} ahead" if abs(gap) > 1e-9 else "the two are level"
    return f"{ahead} (95 % interval {values[1]} to {values[2]})"
