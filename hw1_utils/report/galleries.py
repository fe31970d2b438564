"""Pictures of many images: galleries in sections, and the map of their features."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from torch import Tensor

from .figures import class_labels

PIXELS = 100  # an inch, as `figures.save` writes them
LINE, HEADING = 13, 18  # pixels of a line of a caption and of a heading
# For classes of the map: seven shades that the colour-blind tell apart on white, and nine markers; in step, they make
# 63 pairs, and neighbours differ in both.
SHADES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7F7F7F")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">")
IN_LEGEND = 20  # classes; of more the names on the map have to do
MAP_INCHES = 7.2  # side of the map
FEW = 10  # points that a name must not cover


@dataclass(frozen=True)
class Section:
    """Images of a gallery that belong together. Without images it is a heading, in bold, of those that follow."""

    heading: str
    images: Tensor = field(default_factory=lambda: torch.zeros(0, 3, 1, 1, dtype=torch.uint8))  # uint8 N×3×S×S
    captions: Sequence[str] = ()  # N


def gallery(title: str, sections: Sequence[Section], *, columns: int, side: int, cell: int, lines: int) -> Figure:
    """Images in sections, each with its caption below. Small images are enlarged pixel by pixel.

    Args:
        side: of an image, in pixels; best a multiple of the images' own.
        cell: width of an image and its caption, in pixels.
        lines: of a caption.
    """
    width, row = columns * cell, side + LINE * lines + 12
    words, pictures, top = [], [], 0

    def write(text: str, **style: object) -> int:
        """Note a text at the left, wrapped to the width; its height."""
        wrapped = textwrap.wrap(text, width // 8)
        words.append((0, top, "\n".join(wrapped), style))
        return HEADING * len(wrapped)

    top += write(title, fontsize=9, color="0.3") + 6
    for section in sections:
        if section.heading:
            top += write(section.heading, fontsize=9, weight="normal" if len(section.images) else "bold") + 2
        for i, (image, caption) in enumerate(zip(section.images.cpu(), section.captions, strict=True)):
            left, above = i % columns * cell, top + i // columns * row
            pictures.append((left, above, image))
            words.append((left, above + side + 3, caption, {"fontsize": 7}))
        top += -(-len(section.images) // columns) * row + 4
    figure = Figure(figsize=(width / PIXELS, top / PIXELS))
    for left, above, image in pictures:
        axis = figure.add_axes((left / width, 1 - (above + side) / top, side / width, side / top))
        # Whole pixels enlarged; larger images smoothed, not thinned out.
        smooth = "nearest" if image.shape[-1] <= side else "hanning"
        axis.imshow(image.permute(1, 2, 0).numpy(), interpolation=smooth)
        axis.axis("off")
    for left, above, text, style in words:
        figure.text(left / width, 1 - above / top, text, va="top", ha="left", linespacing=1.25, **style)
    return figure


def short(text: str, most: int) -> str:
    """A name or a path as matplotlib should draw it."""
    return class_labels([text], most)[0]


def feature_map(table: pd.DataFrame, classes: Sequence[str], title: str) -> Figure:
    """Points in two dimensions, by true class in colour and marker, with its name where it lies; mistakes edged black.

    Args:
        table: true, predicted (names), x, y.
    """
    title = "\n".join(part for line in title.split("\n") for part in textwrap.wrap(line, 112))
    present = [(i, name) for i, name in enumerate(classes) if (table["true"] == name).any()]
    listed = present if len(present) <= IN_LEGEND else []
    above, below = 0.17 * (title.count("\n") + 1) + 0.08, 0.19 * -(-len(listed) // 3) + 0.2
    height = MAP_INCHES + above + below
    figure = Figure(figsize=(MAP_INCHES, height))
    axis = figure.add_axes((0, below / height, 1, MAP_INCHES / height))
    right, size = table["true"] == table["predicted"], float(np.clip(6000 / len(table), 14, 60))
    for i, name in present:
        own, style = table["true"] == name, _style(i)
        axis.scatter(*_xy(table[own & right]), s=size, alpha=0.7, linewidths=0, **style)
        axis.scatter(*_xy(table[own & ~right]), s=size + 20, edgecolors="black", linewidths=0.9, zorder=3, **style)
    axis.set_xticks([])
    axis.set_yticks([])
    missing = _name_classes(axis, table, [name for _, name in present])
    if missing:
        axis.set_xlabel(f"{missing} of {len(present)} names found no place here: feature_map.csv has them", fontsize=8)
    figure.text(0, 1, title, va="top", ha="left", fontsize=8.5, linespacing=1.3)
    marks = [Line2D([], [], linestyle="", label=short(name, 26), markersize=6, **_style(i)) for i, name in listed]
    if marks:
        figure.legend(handles=marks, loc="lower left", bbox_to_anchor=(0, 0), ncols=3, frameon=False, fontsize=8)
    return figure


def _xy(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    return table["x"], table["y"]


def _style(i: int) -> dict:
    return {"color": SHADES[i % len(SHADES)], "marker": MARKERS[i % len(MARKERS)]}


def _name_classes(axis: Axes, table: pd.DataFrame, names: Sequence[str]) -> int:
    """Write each class's name at the point of its own that is nearest to its median, or a little above or below.

    The largest classes come first. Returns how many names found no place.
    """
    size = 10.0 if len(names) <= IN_LEGEND else 7.0  # points, of which an inch has 72
    points = table[["x", "y"]].to_numpy(float)
    low, high = points.min(0), points.max(0)
    middle, reach = (low + high) / 2, np.maximum(high - low, 1e-9) / 2 / 0.92  # with a margin
    axis.set_xlim(middle[0] - reach[0], middle[0] + reach[0])
    axis.set_ylim(middle[1] - reach[1], middle[1] + reach[1])
    inches = MAP_INCHES * (0.5 + (points - middle) / reach / 2)
    places, halves = np.empty((0, 2)), np.empty((0, 2))  # of the names that are written, and half their sizes
    for name in sorted(names, key=table["true"].value_counts().__getitem__, reverse=True):
        own = inches[table["true"] == name]
        centre = own[np.linalg.norm(own - np.median(own, axis=0), axis=1).argmin()]
        text = short(name, 24 if size > 7 else 12)
        half = np.array([0.32 * len(text), 0.65]) * size / 72
        centre[0] = np.clip(centre[0], half[0], MAP_INCHES - half[0])
        for step in (0, 1, -1, 2, -2, 3, -3) if len(own) > FEW else (1, -1, 2, -2, 3, -3):
            place = centre + np.array([0, 2 * step * half[1]])
            if (abs(places - place) > halves + half).any(1).all():
                break
        else:
            continue
        places, halves = np.vstack([places, place]), np.vstack([halves, half])
        around = [withStroke(linewidth=3, foreground="white")]
        axis.annotate(
            text,
            place / MAP_INCHES,
            xycoords="axes fraction",
            ha="center",
            va="center",
            fontsize=size,
            weight="bold",
            path_effects=around,
            zorder=4,
        )
    return len(names) - len(places)
