"""The pictures: one function each, a matplotlib figure out. Colours are Okabe and Ito's, safe for the colour-blind."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor

from .files import atomic

# A model keeps its colour in every figure; whatever is not a CNN is a probe.
MODEL_COLOURS = {"cnn": "#0072B2", "cnn_assignment": "#56B4E9", "cnn_short": "#000000", "cnn_taught": "#009E73"}
PROBE_COLOUR, LAYERS_COLOUR = "#D55E00", "#E69F00"
PARTS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]


def colour(name: str) -> str:
    """Colour of the experiment with this folder name."""
    return MODEL_COLOURS.get(name, LAYERS_COLOUR if name.endswith("_layers") else PROBE_COLOUR)


def wrapped(titles: list[str]) -> list[str]:
    """Titles of models in two or three lines, so that they leave room for the figure."""
    return ["\n".join(textwrap.wrap(title, 30)) for title in titles]


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG atomically."""
    with atomic(path) as partial:
        figure.savefig(partial, dpi=100, bbox_inches="tight", metadata={"Software": None})
    return path


def image_grid(images: Tensor, captions: list[str], title: str, columns: int = 10) -> Figure:
    """uint8 N×3×S×S with a caption under each."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(columns * 1.1, rows * 1.3 + 0.4))
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images.cpu(), captions, strict=False):
        axis.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        axis.set_title(caption, fontsize=7, pad=2)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    return figure


def learning_curves(history: pd.DataFrame, title: str, name: str) -> Figure:
    """Loss and accuracy against epochs: training dashed, validation solid; and the learning rate."""
    figure = Figure(figsize=(13, 3.6))
    axes = figure.subplots(1, 3)
    for axis, value in zip(axes, ("loss", "accuracy"), strict=False):
        axis.plot(history["epoch"], history[f"train_{value}"], "--", color=colour(name), label="train (running)")
        axis.plot(history["epoch"], history[f"val_{value}"], "-", color=colour(name), label="val")
        axis.set_ylabel(value)
        axis.legend(frameon=False)
    axes[2].plot(history["epoch"], history["lr"], color="0.3")
    axes[2].set_ylabel("learning rate at the end of the epoch")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.25)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title)
    figure.tight_layout()
    return figure


def confusion_figure(matrix: np.ndarray, classes: list[str], title: str, *, normalised: bool) -> Figure:
    """Confusion matrix; normalised: each row divided by its number of images."""
    values = matrix / np.maximum(matrix.sum(1, keepdims=True), 1) if normalised else matrix
    side = max(4.5, 0.62 * len(classes))
    figure = Figure(figsize=(side + 1, side))
    axis = figure.subplots()
    picture = axis.imshow(values, cmap="Blues", vmin=0, vmax=1 if normalised else None)
    ticks = range(len(classes))
    axis.set_xticks(ticks, classes, rotation=45, ha="right")
    axis.set_yticks(ticks, classes)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    if len(classes) <= 25:
        for row in ticks:
            for column in ticks:
                text = f"{values[row, column]:.2f}" if normalised else str(values[row, column])
                dark = values[row, column] > values.max() / 2
                axis.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    figure.colorbar(picture, fraction=0.046, label="share of the true class" if normalised else "images")
    axis.set_title(title, fontsize=10)
    figure.tight_layout()
    return figure


def operator_shares(tables: dict[str, pd.DataFrame], top: int = 7) -> Figure:
    """One stacked bar per model: which operators the traced steps spend their own time in."""
    totals = pd.concat(tables.values()).groupby("operator")["share"].sum()
    shown = totals.nlargest(top).index.tolist()
    figure = Figure(figsize=(11, 0.8 * len(tables) + 2.2))
    axis = figure.subplots()
    for row, table in enumerate(tables.values()):
        shares = table.groupby("operator")["share"].sum().reindex(shown).fillna(0)
        left = 0.0
        for operator, shade in zip(shown, PARTS, strict=False):
            axis.barh(row, shares[operator], left=left, color=shade, label=operator if row == 0 else None)
            left += shares[operator]
        axis.barh(row, 1 - left, left=left, color="0.85", label="all others" if row == 0 else None)
    axis.set_yticks(range(len(tables)), wrapped(list(tables)))
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel("share of self time over the traced steps")
    figure.legend(ncols=3, fontsize=8, frameon=False, loc="lower center")
    figure.tight_layout(rect=(0, 0.7 / figure.get_figheight(), 1, 1))
    return figure


def comparison(histories: dict[str, pd.DataFrame], names: list[str], before: list[float]) -> Figure:
    """Validation accuracy of all models against epochs and against seconds.

    Args:
        histories: title -> history.
        names: folder names, in the same order, for the colours.
        before: seconds spent before the first epoch (feature extraction, a teacher), in the same order.
    """
    figure = Figure(figsize=(12, 4.6))
    (epochs, seconds) = figure.subplots(1, 2, sharey=True)
    for (title, history), name, spent in zip(histories.items(), names, before, strict=True):
        epochs.plot(history["epoch"], history["val_accuracy"], color=colour(name), label=title)
        seconds.plot(spent + history["elapsed_seconds"], history["val_accuracy"], color=colour(name), marker=".")
    epochs.set_xlabel("epoch")
    epochs.set_ylabel("validation accuracy")
    seconds.set_xlabel("seconds of training, feature extraction and teacher included (log scale)")
    seconds.set_xscale("log")
    for axis in (epochs, seconds):
        axis.grid(alpha=0.25)
    figure.legend(*epochs.get_legend_handles_labels(), loc="lower center", ncols=3, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.04 + 0.045 * -(-len(names) // 3), 1, 1))
    return figure


def quality_and_cost(metrics: pd.DataFrame, costs: pd.DataFrame, names: list[str]) -> Figure:
    """Test accuracy with its 95 % interval, and three costs on log scales, one row a model.

    Points, not bars: a bar's length means nothing on an axis without a zero.
    """
    figure = Figure(figsize=(14, 0.65 * len(names) + 1.6))
    axes = figure.subplots(1, 4, sharey=True)
    accuracy = metrics["test_accuracy"]
    errors = [accuracy - metrics["test_accuracy_low"], metrics["test_accuracy_high"] - accuracy]
    columns = {
        "test accuracy\n(95 % interval)": (accuracy, errors, "{:.1%}"),
        "multiply-adds per image,\nmillions": (costs["macs"] / 1e6, None, "{:,.1f}"),
        "inference,\nimages/s": (costs["inference_images_per_second"], None, "{:,.0f}"),
        "seconds to train, features\nand teacher included": (costs["total_training_seconds"], None, "{:,.0f}"),
    }
    for axis, (label, (values, spread, text)) in zip(axes, columns.items(), strict=True):
        for row, name in enumerate(names):
            bars = None if spread is None else [[side[row]] for side in spread]
            axis.errorbar(values[row], row, xerr=bars, fmt="o", color=colour(name), capsize=3)
            axis.annotate(
                text.format(values[row]),
                (values[row], row),
                (0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        if spread is None:
            axis.set_xscale("log")
            axis.set_xlim(values.min() / 5, values.max() * 5)
            axis.xaxis.set_minor_formatter(NullFormatter())
        else:
            axis.set_xlim(0, 1.05)
        axis.set_xlabel(label)
        axis.grid(alpha=0.25)
    axes[0].set_yticks(range(len(names)), wrapped(metrics["model"]))
    axes[0].set_ylim(len(names) - 0.4, -0.7)
    figure.tight_layout()
    return figure
