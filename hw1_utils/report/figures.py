"""The pictures: one function each, a matplotlib figure out. Colours are Okabe and Ito's, safe for the colour-blind."""

import io
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ..io.files import atomic

# A model keeps its colour in every figure; whatever is not a CNN is a probe.
MODEL_COLOURS = {"cnn": "#0072B2", "cnn_assignment": "#56B4E9", "cnn_short": "#000000", "cnn_taught": "#009E73"}
# Of the first encoder's two probes, the second's, and so on: cls, layers.
PROBE_COLOURS = [("#D55E00", "#E69F00"), ("#882255", "#CC79A7"), ("#332288", "#88CCEE"), ("#666633", "#BBBB66")]
MOST_INCHES = 20.0  # of a side of a confusion matrix


def colour(name: str, rank: int = 0) -> str:
    """Colour of the experiment with this folder name; `rank`: of its encoder among the run's."""
    pair = PROBE_COLOURS[rank % len(PROBE_COLOURS)]
    return MODEL_COLOURS.get(name, pair[name.endswith("_layers")])


def colours(names: list[str]) -> list[str]:
    """Colours of all experiments of a run, from their folder names in the order of its tables."""
    encoders = list(dict.fromkeys(name.removesuffix("_layers") for name in names if name not in MODEL_COLOURS))
    ranks = {name: encoders.index(name.removesuffix("_layers")) for name in names if name not in MODEL_COLOURS}
    return [colour(name, ranks.get(name, 0)) for name in names]


def wrapped(titles: list[str]) -> list[str]:
    """Titles of models in two or three lines, so that they leave room for the figure."""
    return ["\n".join(textwrap.wrap(title, 30)) for title in titles]


def class_labels(names: list[str]) -> list[str]:
    """Class names as matplotlib should draw them: not as formulas ("$5 or $10"), on one line, shortened."""
    on_one_line = (" ".join(name.split()).replace("$", r"\$") for name in names)
    return [name if len(name) <= 24 else f"{name[:23]}…" for name in on_one_line]


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG atomically, with a palette of 256 colours: a third of the size, and no difference to be seen."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100, bbox_inches="tight")
    with atomic(path) as partial:
        Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(partial, optimize=True)
    return path


def image_grid(images: Tensor, captions: list[str], title: str, columns: int = 10, caption_lines: int = 1) -> Figure:
    """uint8 N×3×S×S with a caption above each."""
    rows = max(1, -(-len(images) // columns))
    figure = Figure(figsize=(columns * 1.1, rows * (1.15 + 0.15 * caption_lines) + 0.4))
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images.cpu(), captions, strict=False):
        axis.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        axis.set_title("\n".join(class_labels(caption.split("\n"))), fontsize=7, pad=2)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    return figure


def learning_curves(history: pd.DataFrame, title: str, shade: str) -> Figure:
    """Loss and accuracy against epochs: training dashed, validation solid; and the learning rate."""
    figure = Figure(figsize=(13, 3.6))
    axes = figure.subplots(1, 3)
    for axis, value in zip(axes, ("loss", "accuracy"), strict=False):
        axis.plot(history["epoch"], history[f"train_{value}"], "--", color=shade, label="train (running)")
        axis.plot(history["epoch"], history[f"val_{value}"], "-", color=shade, label="val")
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
    side = min(max(4.5, 0.62 * len(classes)), MOST_INCHES)
    figure = Figure(figsize=(side + 1, side))
    axis = figure.subplots()
    picture = axis.imshow(values, cmap="Blues", vmin=0, vmax=1 if normalised else None)
    ticks, labels = range(len(classes)), class_labels(classes)
    size = min(10.0, 0.8 * 72 * side / len(classes))  # points, of which an inch has 72
    if size >= 2:  # else nobody could read them: many classes are in confused_pairs.csv
        axis.set_xticks(
            ticks, labels, rotation=45 if size > 5 else 90, ha="right" if size > 5 else "center", fontsize=size
        )
        axis.set_yticks(ticks, labels, fontsize=size)
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
