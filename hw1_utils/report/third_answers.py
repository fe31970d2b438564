"""Beside "CNN or probe": would something untrained have done, and how many images can be left to a model? In words.

Written from the tables of `studies.baselines` and `studies.coverage` and nothing else, as Markdown.
"""

import pandas as pd

from .findings import Finding
from .words import literal, number, points, sentence

MARGIN = 0.01  # of the leading measure: what lies no further behind, beyond doubt, does as well
INSTEAD = {
    "largest_class": "no model here is of use: look at the labels, or for more images",
    "neighbours_pixels": "you hardly need a network here",
}
WITH_FEATURES = "you hardly need to train here: the frozen encoder and its features of the training images do it"


def finding(table: pd.DataFrame) -> Finding:
    """What `studies.baselines` has found, for the front of the conclusion: it turns where no network is needed."""
    return Finding(baselines_in_words(table), would_do(table)["name"].isin(INSTEAD).any().item())


def would_do(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the baselines that, beyond doubt, are at most `MARGIN` behind the model they are compared with."""
    return table[table["difference_low"] >= -MARGIN]


def baselines_in_words(table: pd.DataFrame) -> str:
    """What the baselines reach, and whether one would do. `table` as from `studies.baselines`."""
    measure = table["leading"].iloc[0]
    reached = [f"{_called(row)} {_with_interval(row, f'test_{measure}')}" for _, row in table.iterrows()]
    text = f"Without any training ({measure.replace('_', ' ')} on test, 95 % intervals): {'; '.join(reached)}."
    if (part := table["train_images"].min()) < (whole := table["train_images"].max()):  # the largest class knows all
        text += f" The nearest are looked for among {part:,} of {whole:,} training images."
    enough, level = would_do(table), table[table["difference_high"] >= 0]
    if len(enough):
        row = enough.iloc[0]  # the simplest comes first
        instead = INSTEAD.get(row["name"], WITH_FEATURES)
        return f"{text} **{sentence(_called(row))}: {instead}.** {_difference(row)}."
    if len(level):
        row = level.loc[level["difference"].idxmax()]
        return (
            f"{text} {_difference(row)}: as long as no difference can be shown, nothing speaks for training, but with "
            f"{_test_images(row)} it may be as large as {points(-row['difference_low'])} points."
        )
    row = table.loc[table["difference"].idxmax()]
    return f"{text} None of them would do. {_difference(row)}."


def _called(row: pd.Series) -> str:
    """With the number of neighbours."""
    name, many = literal(row["model"]), row["neighbours"]
    if pd.isna(many):
        return name
    return name.replace("nearest neighbours", "nearest neighbour" if many == 1 else f"{many:.0f} nearest neighbours", 1)


def _with_interval(row: pd.Series, column: str) -> str:
    return f"{row[column]:.1%} ({row[f'{column}_low']:.1%} to {row[f'{column}_high']:.1%})"


def _difference(row: pd.Series) -> str:
    """The row against the better of CNN and probe; 0.0 is no difference, whatever its sign."""
    far = points(abs(row["difference"]))
    where = "level with" if far == "0.0" else f"{far} points {'ahead of' if row['difference'] > 0 else 'behind'}"
    low, high = (points(row[f"difference_{end}"]).replace("-0.0", "0.0") for end in ("low", "high"))
    interval = f"(95 % interval of the difference {low} to {high})"
    return f"{sentence(_called(row))}: {where} {literal(row['compared_with'])} {interval}"


def coverage_in_words(table: pd.DataFrame) -> str:
    """How many images each model answers for the accuracy that was asked for. `table` as from `studies.coverage`."""
    target = table["target_accuracy"].iloc[0]
    text = [f"Asked for answers of which {_percent(target)} are right, a model may leave images unanswered."]
    text += [sentence(_covered(row)) for _, row in table.iterrows()]
    if table["reached"].any():
        groups = ""
        if "test_groups" in table:
            groups = (
                f" of {table['test_groups'].iloc[0]:,} groups, by which they go; the choice takes images for "
                "independent, which those of a group may not be"
            )
        text.append(f"(Chosen on validation, seen on {_test_images(table.iloc[0])}; 95 % intervals{groups}.)")
    return " ".join(text)


def _covered(row: pd.Series) -> str:
    model, target = literal(row["model"]), row["target_accuracy"]
    if not row["reached"]:
        if row["val_images"] < row["least_val_images"]:
            return (
                f"{model} cannot promise it: that takes {number(row['least_val_images'])} validation images at least, "
                f"and there are {number(row['val_images'])}."
            )
        return f"{model} cannot promise it: no confidence is high enough, going by validation."
    if pd.isna(row["test_answered_accuracy"]):
        return f"{model} answers none of the test images."
    answers = "all" if row["test_coverage"] == 1 else _with_interval(row, "test_coverage")
    text = f"{model} answers {answers} of the test images, and {_with_interval(row, 'test_answered_accuracy')} of those"
    text += " rightly" if row["test_coverage"] == 1 else f" rightly, against {row['test_accuracy']:.1%} of all"
    if row["test_answered_accuracy_high"] < target:
        text += ", fewer than asked for: the test images are harder than those of validation, or chance played a part"
    return f"{text}."


def _test_images(row: pd.Series) -> str:
    return f"{row['test_images']:,} test image{'' if row['test_images'] == 1 else 's'}"


def _percent(share: float) -> str:
    """A target, with as many digits as it has."""
    return f"{round(share * 100, 9):.6g} %"
