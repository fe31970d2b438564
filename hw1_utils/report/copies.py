"""What copies among the images mean for the comparison, in words: from the tables of `studies.duplicates` alone."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from .. import metrics
from .findings import Finding
from .words import literal, points


def finding(pairs: pd.DataFrame, images: Mapping[str, int], without: pd.DataFrame) -> Finding:
    """What `studies.duplicates` has found, for the front of the conclusion; arguments as of `copies_in_words`.

    It turns where the verdict does, and where no test image is left to tell.
    """
    nothing_left = bool(without["images_without"].eq(0).any())
    return Finding(copies_in_words(pairs, images, without), nothing_left or verdict_turns(without))


def copies_in_words(pairs: pd.DataFrame, images: Mapping[str, int], without: pd.DataFrame | None = None) -> str:
    """How many images have copies, how many test images have one in training, and what that does to the comparison.

    Args:
        pairs: as in duplicates.csv.
        images: of each part: train, val, test.
        without: as in without_twins.csv, once there are results.
    """
    total = sum(images.values())
    part = ""
    if without is not None and len(without) and (among := int(without["near_copies_among"].iloc[0])) < total:
        part = f" Near copies were looked for among {among:,} of {total:,} images: there may be more of them."
    if pairs.empty:
        return f"Among {total:,} images no copies were found.{part}"
    with_copy = {kind: _paths(pairs[pairs["kind"] == kind]) for kind in ("exact", "near")}
    counted = [f"{len(paths):,} {_have(paths)} {_a(kind)} copy" for kind, paths in with_copy.items() if paths]
    text = f"Of {total:,} images {' and '.join(counted)} among the others.{part}"
    unlike = pairs[~pairs["same_label"].astype(bool)]
    if len(unlike):
        lie = "lies" if len(unlike) == 1 else "lie"
        labels = f"{len(unlike):,} of {len(pairs):,} listed pairs {lie}" if len(pairs) > 1 else "The pair lies"
        text += f" {labels} under different labels: look at these first."
    text += _series(pairs)
    tested, leaks = images["test"], pairs[_leaks(pairs)]
    twins = leaks["path_b"].nunique()
    if not twins:
        return f"{text} No test image has one in training."
    text += f" **{twins:,} of {tested:,} test images ({points(twins / tested)} %) {_have(twins)} a copy in training**"
    exact = leaks[leaks["kind"] == "exact"]["path_b"].nunique()
    text += f", {exact:,} of them an exact one" if 0 < exact < twins else ", near ones only" if not exact else ""
    other = leaks[~leaks["same_label"].astype(bool)]["path_b"].nunique()
    text += f", {other:,} under another label." if other else "."
    if (leaks["kind"] == "near").any():
        text += " Near is what has the same outlines, and things of one shape may have those: see duplicates.png."
    return text if without is None or without.empty else f"{text} {_on_the_rest(without)}"


def verdict_turns(without: pd.DataFrame) -> bool:
    """Whether the probe or the CNN is better, or neither is, otherwise without twins than on all test images.

    `without` as in without_twins.csv; False where it has no difference, or no image is left.
    """
    difference = without[without["name"] == "difference"]
    if difference.empty or difference["score_without"].isna().any():
        return False
    row = difference.iloc[0]
    return _verdict(row, "") != _verdict(row, "_without")


def _series(pairs: pd.DataFrame) -> str:
    """A sentence where near copies of three images or more lie in several parts: they may be a series.

    Where groups are known they are not asked for once more: a cluster is of several groups, or the given parts cut one.
    """
    near = pairs[pairs["kind"] == "near"]
    several = [
        cluster
        for _, cluster in near.groupby("cluster")
        if len(_paths(cluster)) >= 3 and (cluster["part_a"] != cluster["part_b"]).any()
    ]
    if "same_group" not in pairs:
        advice = (
            "if these are frames of one film, pictures of one patient or one picture altered, say with `groups` what "
            "belongs together"
        )
        return _clusters(len(several), "", "`cluster`", advice)
    mixed = sum(not cluster["same_group"].astype(bool).all() for cluster in several)
    advice = "if one is a series, its images belong in one group"
    return _clusters(mixed, ", of several groups", "`cluster` and `same_group`", advice) + _clusters(
        len(several) - mixed,
        ", each within one group",
        "`cluster`",
        "the parts that were given cut groups, and in a folder without parts none is cut",
    )


def _clusters(count: int, which: str, columns: str, advice: str) -> str:
    if count == 0:
        return ""
    clusters, lie = (f"{count:,} clusters", "lie") if count > 1 else ("A cluster", "lies")
    which = which if count > 1 else which.replace("each ", "")
    return (
        f" {clusters} of three or more near copies {lie} in several parts{which} ({columns} in duplicates.csv): "
        f"{advice}."
    )


def _on_the_rest(without: pd.DataFrame) -> str:
    left, differences = int(without["images_without"].iloc[0]), without[without["name"] == "difference"]
    if left == 0:
        return "Every test image has one: how good the models are on images that they have not seen cannot be said."
    models = without[without["name"] != "difference"]
    shares = [
        f"{literal(row['model'])} {row['score_without']:.1%} (all: {row['score']:.1%})" for _, row in models.iterrows()
    ]
    measure = without["leading"].iloc[0].replace("_", " ")
    text = f"On the {left:,} others ({measure}): {'; '.join(shares)}."
    if differences.empty:
        return text
    row = differences.iloc[0]
    said = [
        f"{_difference(row[f'score{end}'])} points "
        f"({_difference(row[f'score{end}_low'])} to {_difference(row[f'score{end}_high'])})"
        for end in ("_without", "")
    ]
    turns = "**the verdict turns**" if verdict_turns(without) else "the verdict stands"
    return f"{text} The probe minus the CNN is {said[0]} there, {said[1]} on all: {turns}."


def _difference(share: float) -> str:
    """Of two shares, in points with its sign; what is zero but for rounding has none."""
    share = round(share, 9)
    return f"{'+' if share > 0 else ''}{points(share + 0.0, 2)}"


def _verdict(row: pd.Series, suffix: str) -> int:
    """1: the probe is better, -1: the CNN is, 0: neither is shown to be."""
    return metrics.beyond_doubt(row[f"score{suffix}_low"], row[f"score{suffix}_high"])


def _leaks(pairs: pd.DataFrame) -> pd.Series:
    return (pairs["part_a"] == "train") & (pairs["part_b"] == "test")


def _paths(pairs: pd.DataFrame) -> set[str]:
    return set(np.concatenate([pairs["path_a"], pairs["path_b"]])) if len(pairs) else set()


def _have(what: set | int) -> str:
    count = what if isinstance(what, int) else len(what)
    return "has" if count == 1 else "have"


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "exact" else f"a {kind}"
