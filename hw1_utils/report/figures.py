"""The pictures: tables and arrays in, a figure out. Colours are Okabe and Ito's, safe for the colour-blind."""

import io
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator
from PIL import Image
from torch import Tensor

from ..io.files import atomic
from .words import number

# A model keeps its colour in every figure. A CNN is called "cnn" or "cnn_<recipe>"; whatever is not a CNN is a probe.
MODEL_COLOURS = {"cnn": "#0072B2", "cnn_assignment": "#56B4E9", "cnn_short": "#000000", "cnn_distilled": "#009E73"}
MODEL_COLOURS["cnn_taught"] = MODEL_COLOURS["cnn_distilled"]  # its name in older results
OTHER_CNN = "#7F7F7F"  # of a recipe that has no colour here
# Of the first encoder's two probes, the second's, and so on: on the class token, on several blocks.
PROBE_COLOURS = [("#D55E00", "#E69F00"), ("#882255", "#CC79A7"), ("#332288", "#88CCEE"), ("#666633", "#BBBB66")]
OPERATOR_COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442"]
ON_BLOCKS = re.compile("_(blocks|layers)$")  # ends the folder of such a probe; `layers` in older results
MOST_INCHES = 20.0  # of a side of a confusion matrix
FEWEST = 20  # images at the beginning of a curve of accuracy against coverage


# ---- colours, titles, files


def colour(name: str, rank: int = 0) -> str:
    """Colour of the model with this folder name; `rank`: of its encoder among the run's."""
    if _is_cnn(name):
        return MODEL_COLOURS.get(name, OTHER_CNN)
    return PROBE_COLOURS[rank % len(PROBE_COLOURS)][ON_BLOCKS.search(name) is not None]


def colours(names: Sequence[str]) -> list[str]:
    """Colours of all models of a run, from their folder names in the order of its tables."""
    encoders = [ON_BLOCKS.sub("", name) for name in names]
    ranks = {encoder: rank for rank, encoder in enumerate(dict.fromkeys(e for e in encoders if not _is_cnn(e)))}
    return [colour(name, ranks.get(encoder, 0)) for name, encoder in zip(names, encoders, strict=True)]


def _is_cnn(name: str) -> bool:
    return name == "cnn" or name.startswith("cnn_")


def wrapped(title: str) -> str:
    """A model's title in lines that leave room for the figure, of which only a very long word is broken in itself."""
    breakable = re.sub(r"(\S{24,36}_)(?=\S{6})", r"\1 ", title)
    return "\n".join(textwrap.wrap(breakable, 40, break_long_words=False, break_on_hyphens=False))


def class_labels(names: Sequence[str], most: int = 24) -> list[str]:
    """Class names as matplotlib should draw them: not as formulas ("$5 or $10"), on one line, shortened."""
    return [shortened(name, most).replace("$", r"\$") for name in names]


def shortened(name: str, most: int) -> str:
    """A name on one line; a long one keeps both ends, by which it differs from others."""
    name, front = " ".join(name.split()), most // 3
    return name if len(name) <= most else f"{name[:front]}…{name[front + 1 - most :]}"


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG atomically, with a palette of 256 colours: a third of the size, and no difference to be seen."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100, bbox_inches="tight")
    # The median cut keeps the shades of photographs, maximum coverage the colours of thin lines, which the other mixes.
    shaded = any(axis.images for axis in figure.axes)
    method = Image.Quantize.MEDIANCUT if shaded else Image.Quantize.MAXCOVERAGE
    with atomic(path) as partial:
        picture = Image.open(drawn).convert("RGB").quantize(256, method, dither=Image.Dither.NONE)
        picture.save(partial, optimize=True)
    return path


def _panels(width: float, height: float, rows: int = 1, columns: int = 1, **shared: bool) -> tuple[Figure, np.ndarray]:
    """A figure of so many inches, and its axes in one row; nothing in it overlaps."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    for axis in axes:
        axis.grid(alpha=0.25)
    return figure, axes


def _legend(figure: Figure, axis: Axes, where: str, columns: int = 1) -> None:
    """The legend of `axis` outside of all axes, which leave it the room that it needs, however long the titles are."""
    handles = axis.get_legend_handles_labels()
    figure.legend(*handles, loc=f"outside {where} center", ncols=columns, frameon=False, fontsize=9)


def side_by_side(pictures: Sequence[Path]) -> bytes:
    """A PNG of pictures that are files already, beside each other."""
    images = [Image.open(path).convert("RGB") for path in pictures]
    canvas = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white")
    left = 0
    for image in images:
        canvas.paste(image, (left, 0))
        left += image.width
    drawn = io.BytesIO()
    canvas.quantize(256, dither=Image.Dither.NONE).save(drawn, "png", optimize=True)
    return drawn.getvalue()


# ---- images, and one model


def image_grid(images: Tensor, captions: list[str], title: str, columns: int = 10, caption_lines: int = 1) -> Figure:
    """uint8 N×3×S×S with a caption above each."""
    rows = max(1, -(-len(images) // columns))
    figure, axes = _panels(columns * 1.1, rows * (1.15 + 0.15 * caption_lines) + 0.4, rows, columns)
    for axis in axes:
        axis.axis("off")
    for axis, image, caption in zip(axes, images.cpu(), captions, strict=False):
        axis.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        axis.set_title("\n".join(class_labels(caption.split("\n"))), fontsize=7, pad=2)
    figure.suptitle(title, fontsize=11)
    return figure


def pair_grid(first: Tensor | None, second: Tensor | None, captions: list[str], title: str, columns: int = 6) -> Figure:
    """Pairs of pictures, uint8 N×3×S×S each (None: there are none), side by side with a caption of three lines."""
    rows = max(1, -(-len(captions) // columns))
    figure, axes = _panels(columns * 1.9, rows * 1.5 + 0.4, rows, columns)
    for axis in axes:
        axis.axis("off")
    if captions:
        gap = first.new_full((len(first), 3, first.shape[-1], max(1, first.shape[-1] // 16)), 255)
        for axis, pair, caption in zip(axes, torch.cat([first, gap, second], 3), captions, strict=False):
            axis.imshow(pair.permute(1, 2, 0).numpy(), interpolation="nearest")
            axis.set_title("\n".join(class_labels(caption.split("\n"))), fontsize=7, pad=2)
    figure.suptitle(title, fontsize=11)
    return figure


def training_curves(history: pd.DataFrame, title: str, shade: str) -> Figure:
    """Loss and accuracy against epochs: training dashed, validation solid; and the learning rate."""
    figure, axes = _panels(13, 3.6, columns=3)
    for axis, value in zip(axes, ("loss", "accuracy"), strict=False):
        axis.plot(history["epoch"], history[f"train_{value}"], "--", color=shade, label="train (running)")
        axis.plot(history["epoch"], history[f"val_{value}"], "-", color=shade, label="val")
        axis.set_ylabel(value)
        axis.legend(frameon=False)
    axes[2].plot(history["epoch"], history["lr"], color="0.3")
    axes[2].set_ylabel("learning rate at the end of the epoch")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title)
    return figure


def confusion(matrix: np.ndarray, classes: list[str], title: str, *, normalised: bool) -> Figure:
    """Confusion matrix, int K×K; normalised: each row divided by its number of images."""
    values = matrix / np.maximum(matrix.sum(1, keepdims=True), 1) if normalised else matrix
    side = min(max(4.5, 0.62 * len(classes)), MOST_INCHES)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.subplots()
    picture = axis.imshow(values, cmap="Blues", vmin=0, vmax=1 if normalised else None)
    ticks, labels = range(len(classes)), class_labels(classes)
    size = min(10.0, 0.8 * 72 * side / len(classes))  # points, of which an inch has 72
    if size >= 2:  # else nobody could read them: many classes are in confused_pairs.csv
        turned = {"rotation": 45, "ha": "right"} if size > 5 else {"rotation": 90, "ha": "center"}
        axis.set_xticks(ticks, labels, fontsize=size, **turned)
        axis.set_yticks(ticks, labels, fontsize=size)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    if len(classes) <= 25:
        for (row, column), value in np.ndenumerate(values):
            shade = "white" if value > values.max() / 2 else "black"
            text = f"{value:.2f}" if normalised else str(value)
            axis.text(column, row, text, ha="center", va="center", fontsize=8, color=shade)
    figure.colorbar(picture, fraction=0.046, label="share of the true class" if normalised else "images")
    axis.set_title(title, fontsize=10)
    return figure


# ---- all models of a run


def convergence(histories: dict[str, pd.DataFrame], names: list[str], before: list[float]) -> Figure:
    """Validation accuracy of all models against epochs and against seconds.

    Args:
        histories: title -> history.
        names: folder names, in the same order, for the colours.
        before: seconds spent before the first epoch (feature extraction, a teacher), in the same order.
    """
    figure, (epochs, seconds) = _panels(12, 4.6, columns=2, sharey=True)
    for (title, history), shade, spent in zip(histories.items(), colours(names), before, strict=True):
        epochs.plot(history["epoch"], history["val_accuracy"], color=shade, label=title)
        seconds.plot(spent + history["elapsed_seconds"], history["val_accuracy"], color=shade, marker=".")
    epochs.set_xlabel("epoch")
    epochs.set_ylabel("validation accuracy")
    seconds.set_xlabel("seconds of training, feature extraction and teacher included (log scale)")
    seconds.set_xscale("log")
    seconds.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    seconds.xaxis.set_major_formatter("{x:,g}")
    seconds.xaxis.set_minor_formatter(NullFormatter())
    _legend(figure, epochs, "lower", columns=3)
    return figure


def quality_and_cost(table: pd.DataFrame) -> Figure:
    """The leading measure on test with its 95 % interval, and three costs on log scales, one row a model.

    Points, not bars: a bar's length means nothing on an axis without a zero. `table` as from
    `tables.compare`.
    """
    figure, axes = _panels(14, 0.65 * len(table) + 1.6, columns=4, sharey=True)
    leading = table["leading"][0]
    columns = {
        f"{leading.replace('_', ' ')} on test\n(95 % interval)": (table[f"test_{leading}"], "{:.1%}"),
        "multiply-adds per image,\nmillions": (table["macs"] / 1e6, "{:,.1f}"),
        "inference,\nimages/s": (table["inference_images_per_second"], "{:,.0f}"),
        "seconds to train, features\nand teacher included": (table["total_training_seconds"], "{:,.0f}"),
    }
    for axis, (label, (values, text)) in zip(axes, columns.items(), strict=True):
        spread = _interval(table, f"test_{leading}") if axis is axes[0] else None
        for row, shade in enumerate(colours(table["name"].tolist())):
            bar = None if spread is None else spread[:, [row]]
            axis.errorbar(values[row], row, xerr=bar, fmt="o", color=shade, capsize=3)
            above = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center", "fontsize": 9}
            axis.annotate(text.format(values[row]), (values[row], row), **above)
        if spread is None:
            axis.set_xscale("log")
            axis.set_xlim(values.min() / 5, values.max() * 5)
            axis.xaxis.set_minor_formatter(NullFormatter())
        else:
            axis.margins(x=0.2)  # not from 0 on: the intervals are to be seen
        axis.set_xlabel(label)
    axes[0].set_yticks(range(len(table)), table["model"].map(wrapped))
    axes[0].set_ylim(len(table) - 0.4, -0.7)
    return figure


def operator_shares(tables: dict[str, pd.DataFrame]) -> Figure:
    """One stacked bar per model, title -> operators: which of them the traced steps spend their own time in."""
    totals = pd.concat(tables.values()).groupby("operator")["share"].sum()
    shown = totals.nlargest(len(OPERATOR_COLOURS)).index
    figure = Figure(figsize=(11, 0.8 * len(tables) + 2.2), layout="constrained")
    axis = figure.subplots()
    for row, table in enumerate(tables.values()):
        shares = table.groupby("operator")["share"].sum().reindex(shown, fill_value=0.0)
        shares["all others"] = 1 - shares.sum()
        starts = shares.cumsum() - shares
        for operator, shade in zip(shares.index, [*OPERATOR_COLOURS[: len(shown)], "0.85"], strict=True):
            label = operator if row == 0 else None
            axis.barh(row, shares[operator], left=starts[operator], color=shade, label=label)
    axis.set_yticks(range(len(tables)), map(wrapped, tables))
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel("share of self time over the traced steps")
    _legend(figure, axis, "lower", columns=3)
    return figure


def calibration(curves: dict[str, tuple[pd.DataFrame, ...]], names: list[str]) -> Figure:
    """Accuracy against confidence of each model (its `reliability` tables): as it is dashed, rescaled solid.

    A model of which validation does not tell the temperature has one table, and its legend says so.
    """
    columns = 3
    rows = -(-len(curves) // columns)
    figure, axes = _panels(4 * columns, 3.7 * rows, rows, columns, sharex=True, sharey=True)
    for axis in axes[len(curves) :]:
        axis.axis("off")
    for axis, (title, tables), shade in zip(axes, curves.items(), colours(names), strict=False):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for table, style, label in zip(tables, ("--o", "-o"), ("as it is", "rescaled"), strict=False):
            axis.plot(table["confidence"], table["accuracy"], style, color=shade, markersize=3, label=label)
        axis.set_title(wrapped(title), fontsize=9)
        axis.legend(frameon=False, loc="upper left", title=None if len(tables) > 1 else "temperature not identifiable")
        axis.tick_params(labelbottom=True)
        axis.set_xlabel("confidence")
        axis.set_ylabel("accuracy")
    return figure


def coverage(curves: dict[str, tuple[np.ndarray, np.ndarray]], table: pd.DataFrame) -> Figure:
    """Accuracy on test of the surest images against their share; dots: the thresholds chosen on validation.

    Args:
        curves: title -> images answered and right ones, from the surest on: see `selective.curve`.
        table: the same models, in the same order, as from `studies.coverage`.
    """
    figure, (axis,) = _panels(8, 4 + 0.25 * len(table))
    target, lowest = table["target_accuracy"].iloc[0], 1.0
    axis.axhline(target, color="0.5", linestyle="--", linewidth=1, label="asked for")
    shades = colours(table["name"].tolist())
    for (title, (answered, right)), shade, (_, row) in zip(curves.items(), shades, table.iterrows(), strict=True):
        shown = answered >= min(FEWEST, answered[-1])  # of fewer images one more or less is a jump
        share, accuracy = answered[shown] / answered[-1], right[shown] / answered[shown]
        style = "-" if len(share) > 1 else "s"
        axis.plot(share, accuracy, style, color=shade, label=title)
        axis.plot(row["test_coverage"], row["test_answered_accuracy"], "o", color=shade, markeredgecolor="black")
        lowest = min(lowest, accuracy.min())
    axis.set_xlim(0, 1.01)
    axis.set_ylim(min(lowest, target) - 0.02, 1.01)
    axis.set_xlabel("share of the test images that is answered, the surest first\ndots: as validation chose")
    axis.set_ylabel("accuracy of the answers")
    _legend(figure, axis, "upper")
    return figure


def baselines(table: pd.DataFrame, trained: pd.DataFrame) -> Figure:
    """The leading measure on test with its 95 % interval: what was trained, and below it, in grey, what was not.

    Args:
        table: as from `studies.baselines`.
        trained: model, name, leading and the same columns of quality, one row a model.
    """
    rows = pd.concat([trained, table], ignore_index=True)
    leading = rows["leading"].iloc[0]
    figure, (axis,) = _panels(9, 0.5 * len(rows) + 1.4)
    spread = _interval(rows, f"test_{leading}")
    shades = [*colours(trained["name"].tolist()), *["0.35"] * len(table)]
    for at, (value, shade) in enumerate(zip(rows[f"test_{leading}"], shades, strict=True)):
        axis.errorbar(value, at, xerr=spread[:, [at]], fmt="o" if at < len(trained) else "s", color=shade, capsize=3)
        above = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center", "fontsize": 9}
        axis.annotate(f"{value:.1%}", (value, at), **above)
    axis.axhline(len(trained) - 0.5, color="0.7", linewidth=1)
    axis.set_yticks(range(len(rows)), rows["model"].map(wrapped))
    axis.set_ylim(len(rows) - 0.4, -0.8)
    axis.margins(x=0.08)
    axis.set_xlabel(f"{leading.replace('_', ' ')} on test (95 % interval)")
    return figure


# ---- studies: a score against what was varied


def learning_curve(table: pd.DataFrame) -> Figure:
    """The leading measure on validation against the number of training images, one line a model.

    `table` as `studies.learning_curve` returns it.
    """
    figure, (axis,) = _panels(8, 4 + 0.25 * table["model"].nunique())
    _lines(axis, table, "train_images", "val_score")
    axis.set_xlabel("training images (log scale)")
    axis.set_ylabel(_score_label(table))
    _legend(figure, axis, "upper")
    return figure


def input_sizes(table: pd.DataFrame) -> Figure:
    """The leading measure on validation against multiply-adds and against speed, one point an input size.

    `table` as `studies.input_size` returns it.
    """
    figure, axes = _panels(10, 3.8 + 0.25 * table["model"].nunique(), columns=2, sharey=True)
    table = table.assign(millions=table["macs"] / 1e6)
    costs = {"millions": "multiply-adds per image, millions", "extraction_images_per_second": "extraction, images/s"}
    for axis, (column, label) in zip(axes, costs.items(), strict=True):
        _lines(axis, table, column, "val_score")
        for i, (_, rows, shade) in enumerate(_models(table)):
            above = i % 2 == 0
            free = "right" if above == (axis is axes[0]) else "left"  # of the line, which rises there and falls here
            beside = {"xytext": (0, 12 if above else -20), "textcoords": "offset points", "ha": free, "fontsize": 9}
            for x, y, side in zip(rows[column], rows["val_score"], rows["input_size"], strict=True):
                axis.annotate(f"{side} px", (x, y), color=shade, **beside)
        axis.margins(y=0.18)
        axis.set_xlabel(label)
    axes[0].set_ylabel(_score_label(table))
    _legend(figure, axes[0], "upper")
    return figure


def penalty(table: pd.DataFrame, own: pd.DataFrame) -> Figure:
    """The sweep over the penalty's strength, the chosen one ringed; the loop's own heads as dotted lines.

    Args:
        table: model, name, strength, val_accuracy, val_loss, and chosen (bool); see `studies.logreg`.
        own: index model; accuracy and loss on validation of the head that the loop has trained.
    """
    figure, axes = _panels(10, 3.8 + 0.25 * len(own), columns=2)
    for axis, value in zip(axes, ("accuracy", "loss"), strict=True):
        _lines(axis, table, "strength", f"val_{value}")
        for title, rows, shade in _models(table):
            best = rows[rows["chosen"]]
            axis.plot(best["strength"], best[f"val_{value}"], "o", color="none", mec="0.3", ms=13)
            axis.axhline(own.loc[title, value], color=shade, linestyle=":")
        axis.set_xlabel("C, the inverse of the penalty (log scale)\nringed: chosen; dotted: trained by the loop")
        axis.set_ylabel(f"validation {value}")
    _legend(figure, axes[0], "upper")
    return figure


def _models(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame, str]]:
    """Title, rows and colour of each model of a table with columns model and name."""
    groups = list(table.groupby("model", sort=False))
    shades = colours([rows["name"].iloc[0] for _, rows in groups])
    return [(title, rows, shade) for (title, rows), shade in zip(groups, shades, strict=True)]


def _lines(axis: Axes, table: pd.DataFrame, x: str, y: str) -> None:
    """One line a model, with its interval where the table has one, on a logarithmic x axis in plain numbers."""
    for title, rows, shade in _models(table):
        spread = _interval(rows, y) if f"{y}_low" in table else None
        axis.errorbar(rows[x], rows[y], spread, fmt="-o", color=shade, capsize=3, label=title)
    axis.set_xscale("log")
    axis.margins(x=0.12)
    values = np.unique(table[x])
    steps = np.diff(np.log(values))
    apart = steps.min(initial=np.inf) > steps.sum() / 12  # then the values themselves are the ticks
    axis.xaxis.set_major_locator(FixedLocator(values) if apart else LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(lambda value, _: number(value))
    axis.xaxis.set_minor_locator(NullLocator())


def _interval(rows: pd.DataFrame, column: str) -> np.ndarray:
    """How far the interval of a column reaches below and above it, float 2×N, as `errorbar` wants it."""
    return np.stack([rows[column] - rows[f"{column}_low"], rows[f"{column}_high"] - rows[column]])


def _score_label(table: pd.DataFrame) -> str:
    return f"validation {table['leading'].iloc[0].replace('_', ' ')} (95 % interval)"
