"""The mistakes and the map of the features in a sentence or two, from their tables."""

import pandas as pd

from .words import literal, sentence

SURE = 0.9  # probability of what was said


def mistakes_in_words(table: pd.DataFrame, models: pd.DataFrame) -> str:
    """How many images each model gets wrong, how many of them while it is sure, and how many all get wrong alike.

    Args:
        table: as from `studies.mistakes`.
        models: model, name and test_images of the same models; those without mistakes are not in `table`.
    """
    parts = []
    for model in models.itertuples():
        own = table[table["name"] == model.name]
        title, images = literal(model.model), f"{model.test_images:,} test images"
        sure = _count((own["probability"] >= SURE).sum())
        wrong = f"wrong on {len(own):,} of {images}, on {sure} of them with a probability of {SURE:.0%} or more"
        parts.append(f"{title} is {wrong if len(own) else f'right on all {images}'}")
    text = sentence("; ".join(parts)) + "."
    if len(models) > 1:
        together = table.groupby("path")["name"].nunique() == len(models)
        alike = table.loc[table["same_answer"].astype(bool), "path"].nunique()
        text += f" Images that {'both' if len(models) == 2 else 'all'} get wrong: {together.sum():,}"
        first = ", where to look first for wrong labels" if alike else ""
        text += f"; with the same answer: {alike:,}{first}." if together.any() else "."
    return text


def map_in_words(table: pd.DataFrame) -> str:
    """Whether images lie among their own kind, and the probe's mistakes among what they were taken for.

    `table` as from `studies.feature_map`.
    """
    if table["nearest"].isna().all():
        return f"The features of the {len(table):,} test images on the map are all equal: nothing can be told by them."
    near, wrong = table["nearest"] == table["true"], table["predicted"] != table["true"]
    text = (
        f"Of {len(table):,} test images on the map, {_count(near.sum())} ({near.mean():.1%}) have another one of their "
        "own class nearest to them, by the features' principal components."
    )
    if not wrong.any():
        return f"{text} The probe gets none of them wrong."
    said = (table["nearest"] == table["predicted"]) & wrong
    return (
        f"{text} The probe gets {wrong.sum():,} of them wrong: the nearest is of the class that it said for "
        f"{_count(said.sum())}, of the true class for {_count((near & wrong).sum())}."
    )


def _count(images: int) -> str:
    return f"{images:,}" if images else "none"
