"""Which labels look wrong, and does the comparison hang on them?"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..data import Split, at_side
from ..experiment import Result
from ..io.arrays import empty_array
from ..io.files import write_csv
from ..io.splits import folds
from ..report import figures
from ..report.figures import shortened
from .common import difference_on, evenly, interval_columns, score_on
from .confident_learning import contradicted, margins, out_of_fold, own_and_other, upper_limit
from .logreg import SECONDS, most_images

FOLDS = 5
NAME = 17  # characters above a picture of the gallery
FIRST, SPREAD = 10, 20  # suspects in the gallery: the most suspicious, and others spread evenly over all


@dataclass(frozen=True)
class LabelErrors:
    """Suspected labels, of which none is changed."""

    suspects: pd.DataFrame  # the most suspicious first
    shares: pd.DataFrame  # of each part, and of all of them
    without: pd.DataFrame  # the comparison once more, without suspects
    gallery: Path


def label_errors(cnn: Result, probe: Result, test: Split) -> LabelErrors:
    """Rank the labels of train, val and test that the probe's features contradict, by confident learning.

    Each image is judged by one of FOLDS logistic regressions on the probe's features, which has learnt from the other
    folds of all parts together. These heads are for nothing else, and nothing is chosen by what they say about test:
    it takes results, of models that are trained and evaluated. Images whose class the other folds lack cannot be
    judged. Which of the suspected labels are wrong only a look can tell: a head that is right about nine images of ten
    contradicts many right labels, too. A head learns from as many images as `logreg.most_images` allows, a stratified
    part of the others; all are judged, CHUNK rows at a time.

    Writes label_errors.csv, label_error_shares.csv, without_suspects.csv and label_errors.png. On two cores less than
    a minute for 60,000 images with 192 features.

    Returns:
        suspects: rank (by p_given minus the largest of the other probabilities, the smallest first), path, part, given,
            suggested, p_given, p_suggested.
        shares: a row each for train, val, test and all: part, images, judged, suspects, suspect_share (of those
            judged), accuracy (of the heads, by the labels given), share_limit (of wrong labels: see
            `confident_learning.upper_limit`), learnt_from (images, by a head, at most) and, of the class and what
            it is taken for that make up the largest share of a class: given, suggested, of_given (images of the class
            that are judged), taken (how many of these; 0 and no names where nothing is suspected).
        without: see `without_suspects`.
    """
    run = probe.run
    context, classes, seed = run.context, run.data.classes, run.context.config.seed
    splits = {split.name: split for split in (run.data.train, run.data.val, test)}
    table = pd.concat([_images(split) for split in splits.values()], ignore_index=True)
    inputs = [run.train.inputs, run.val.inputs, run.samples(test).inputs]
    labels, rows = table["given"].to_numpy(), np.arange(len(table))
    most, fold = most_images(context, inputs[0].shape[1], len(classes)), folds(labels, _groups(splits), FOLDS, seed)
    others = len(labels) - int(np.bincount(fold, minlength=FOLDS).min())
    if (learnt_from := min(most, others)) < others:
        print(f"Labels: each head learns from {most:,} of {others:,} images, drawn class by class (seed {seed})")
    work = FOLDS * learnt_from * inputs[0].shape[1] * len(classes)
    print(f"Labels: about {work * SECONDS:,.0f} s for {FOLDS} heads")
    shape, room = (len(labels), int(labels.max()) + 1), context.room.for_a_while()
    probabilities, table["judged"] = out_of_fold(
        inputs,
        labels,
        fold,
        most=most,
        seed=seed,
        balanced=context.config.class_weights,
        into=empty_array(shape, room, context.config.cache_path)[0].numpy(),
    )
    table["suggested"], table["suspected"] = contradicted(probabilities, labels, table["judged"].to_numpy())
    table["p_given"], table["p_other"] = own_and_other(probabilities, labels)
    table["p_suggested"] = probabilities[rows, table["suggested"]]
    table["margin"] = table["p_given"] - table["p_other"]
    table["right"] = table["p_given"] > table["p_other"]
    parts = {name: table[table["part"] == name] for name in splits} | {"all": table}
    shares = pd.DataFrame(
        [{"part": name} | _shares(part, classes) | {"learnt_from": learnt_from} for name, part in parts.items()]
    )
    ranked = table[table["suspected"]].sort_values("margin", kind="stable", ignore_index=True)
    of_test = ranked.loc[ranked["part"] == test.name, "row"].to_numpy()
    most = math.ceil(shares.set_index("part").loc[test.name, "share_limit"] * len(test))
    without = without_suspects(cnn, probe, of_test, most)
    suspects = pd.DataFrame(
        {
            "rank": ranked.index + 1,
            **{name: ranked[name] for name in ("path", "part")},
            **{name: [classes[i] for i in ranked[name]] for name in ("given", "suggested")},
            **{name: ranked[name] for name in ("p_given", "p_suggested")},
        }
    )
    folder = context.config.results_path
    for name, written in {"label_errors": suspects, "label_error_shares": shares, "without_suspects": without}.items():
        write_csv(folder / f"{name}.csv", written)
    shown = _shown(len(ranked))
    pictures = [
        at_side(splits[part], run.image_size, context).take(slice(row, row + 1))
        for part, row in ranked.loc[shown, ["part", "row"]].itertuples(index=False)
    ]
    return LabelErrors(suspects, shares, without, _gallery(pictures, suspects, shown, folder / "label_errors.png"))


def _images(split: Split) -> pd.DataFrame:
    """part, row (within it), path and given (int), one row an image."""
    columns = {"row": range(len(split)), "path": split.paths, "given": split.labels.cpu().numpy()}
    return pd.DataFrame({"part": split.name} | columns)


def _groups(splits: dict[str, Split]) -> np.ndarray | None:
    """Of the images of all parts, one part after the other."""
    groups = [split.groups for split in splits.values() if split.groups is not None]
    return torch.cat(groups).numpy() if groups else None


def _shares(part: pd.DataFrame, classes: list[str]) -> dict[str, float | str]:
    """Of some of the images."""
    judged = part[part["judged"]]
    of_given = judged["given"].value_counts()
    taken = judged[judged["suspected"]].groupby(["given", "suggested"]).size()
    given, suggested = taken.div(of_given, level="given").idxmax() if len(taken) else (None, None)
    count, suspects = max(1, len(judged)), int(judged["suspected"].sum())
    return {
        "images": len(part),
        "judged": len(judged),
        "suspects": suspects,
        "suspect_share": suspects / count,
        "accuracy": judged["right"].sum() / count,
        "share_limit": upper_limit(judged["p_given"].to_numpy(), judged["p_other"].to_numpy()),
        "given": classes[given] if len(taken) else "",
        "suggested": classes[suggested] if len(taken) else "",
        "of_given": int(of_given[given]) if len(taken) else 0,
        "taken": int(taken[given, suggested]) if len(taken) else 0,
    }


def _shown(count: int) -> list[int]:
    """Which of so many ranked suspects are in the gallery."""
    return [*range(min(FIRST, count)), *evenly(np.arange(count)[FIRST:], SPREAD).tolist()]


def _gallery(pictures: list[torch.Tensor], suspects: pd.DataFrame, shown: list[int], path: Path) -> Path:
    """Above each picture its label, the class suggested, and the part it is in, with the probability of the second."""
    captions = [
        f"{shortened(row.given, NAME)}\n{shortened(row.suggested, NAME)}?\n{row.part}, {row.p_suggested:.2f}"
        for row in suspects.iloc[shown].itertuples(index=False)
    ]
    labels = "label" if len(suspects) == 1 else "labels"
    title = f"{len(suspects):,} suspected {labels} (given, then suggested and how probable)"
    if len(suspects) > len(shown):
        title += f": the {FIRST} most suspicious, then {SPREAD} spread evenly over the others"
    images = torch.cat([picture.cpu() for picture in pictures]) if pictures else torch.empty(0)
    return figures.save(figures.image_grid(images, captions, title, columns=FIRST, caption_lines=3), path)


def without_suspects(cnn: Result, probe: Result, suspects: np.ndarray, most: int) -> pd.DataFrame:
    """The paired comparison without suspected test labels: how much hangs on them, never the comparison itself.

    Leaving out what a model contradicts favours that model, whether the labels are wrong or not. So equally many are
    left out of the probe's suspects, which is the best that can be said for the probe, of the CNN's (its mistakes, by
    the same margin), the best for the CNN, and of both, which treats them alike.

    Args:
        suspects: int64, test images whose labels the probe's features contradict, the most suspicious first.
        most: how many are left out of either's. Beyond the number of labels that can be wrong, what a model
            contradicts are its own mistakes.

    Returns:
        A row each for left_out nothing, probe, cnn and both, or the first alone where there is nothing to leave out or
        nothing would be left: test_images (left), leading, cnn_score and probe_score with their 95 % intervals, and
        score_difference (probe minus CNN, paired) with its.
    """
    labels = cnn.test.labels.numpy()
    most_mistaken = np.argsort(margins(cnn.test.probabilities.numpy(), labels), kind="stable")
    of_cnn = most_mistaken[~cnn.correct[most_mistaken]]
    count = min(most, len(suspects), len(of_cnn))
    lists = {"probe": suspects[:count], "cnn": of_cnn[:count], "both": np.union1d(suspects[:count], of_cnn[:count])}
    if not 0 < len(lists["both"]) < len(labels):
        lists = {}
    rows = []
    for name, left_out in {"nothing": suspects[:0], **lists}.items():
        kept = np.setdiff1d(np.arange(len(labels)), left_out)
        rows.append(
            {
                "left_out": name,
                "test_images": len(kept),
                "leading": probe.run.data.leading,
                **interval_columns("cnn_score", score_on(cnn, kept)),
                **interval_columns("probe_score", score_on(probe, kept)),
                **interval_columns("score_difference", difference_on(cnn, probe, kept)),
            }
        )
    return pd.DataFrame(rows)
