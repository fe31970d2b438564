"""Pictures that compare: models with each other, input sizes, numbers of images. One function each, a figure out."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from .figures import colours, wrapped

PARTS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]


def calibration(curves: dict[str, tuple[pd.DataFrame, ...]], names: list[str]) -> Figure:
    """Accuracy against confidence of each model (its `reliability` tables): as it is dashed, rescaled solid.

    A model of which validation does not tell the temperature has one table, and its legend says so.
    """
    columns = 3
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(4 * columns, 3.7 * rows))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    for axis, (title, tables), shade in zip(axes.flat, curves.items(), colours(names), strict=False):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for table, style, label in zip(tables, ("--o", "-o"), ("as it is", "rescaled"), strict=False):
            axis.plot(table["confidence"], table["accuracy"], style, color=shade, markersize=3, label=label)
        axis.set_title(wrapped([title])[0], fontsize=9)
        axis.legend(frameon=False, loc="upper left", title=None if len(tables) > 1 else "temperature not identifiable")
        axis.grid(alpha=0.25)
        axis.tick_params(labelbottom=True)
        axis.set_xlabel("confidence")
        axis.set_ylabel("accuracy")
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
    for (title, history), shade, spent in zip(histories.items(), colours(names), before, strict=True):
        epochs.plot(history["epoch"], history["val_accuracy"], color=shade, label=title)
        seconds.plot(spent + history["elapsed_seconds"], history["val_accuracy"], color=shade, marker=".")
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
    """The leading measure on test with its 95 % interval, and three costs on log scales, one row a model.

    Points, not bars: a bar's length means nothing on an axis without a zero.
    """
    figure = Figure(figsize=(14, 0.65 * len(names) + 1.6))
    axes = figure.subplots(1, 4, sharey=True)
    leading = metrics["leading"][0]
    accuracy = metrics[f"test_{leading}"]
    errors = [accuracy - metrics[f"test_{leading}_low"], metrics[f"test_{leading}_high"] - accuracy]
    columns = {
        f"{leading.replace('_', ' ')} on test\n(95 % interval)": (accuracy, errors, "{:.1%}"),
        "multiply-adds per image,\nmillions": (costs["macs"] / 1e6, None, "{:,.1f}"),
        "inference,\nimages/s": (costs["inference_images_per_second"], None, "{:,.0f}"),
        "seconds to train, features\nand teacher included": (costs["total_training_seconds"], None, "{:,.0f}"),
    }
    for axis, (label, (values, spread, text)) in zip(axes, columns.items(), strict=True):
        for row, shade in enumerate(colours(names)):
            bars = None if spread is None else [[side[row]] for side in spread]
            axis.errorbar(values[row], row, xerr=bars, fmt="o", color=shade, capsize=3)
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
            axis.margins(x=0.2)  # not from 0 on: the intervals are to be seen
        axis.set_xlabel(label)
        axis.grid(alpha=0.25)
    axes[0].set_yticks(range(len(names)), wrapped(metrics["model"]))
    axes[0].set_ylim(len(names) - 0.4, -0.7)
    figure.tight_layout()
    return figure


def _log_axis(axis: Axes, values: pd.Series) -> None:
    """A logarithmic x axis in plain numbers; its ticks are the values themselves where there are few."""
    axis.set_xscale("log")
    axis.margins(x=0.12)
    if values.nunique() <= 6:
        axis.set_xticks(values.unique())
    else:
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.xaxis.set_minor_locator(NullLocator())


def input_sizes(table: pd.DataFrame) -> Figure:
    """The leading measure on validation against multiply-adds and against speed, one point an input size."""
    figure = Figure(figsize=(10, 3.8 + 0.25 * table["model"].nunique()))
    axes = figure.subplots(1, 2, sharey=True)
    table = table.assign(millions=table["macs"] / 1e6)
    small = {"textcoords": "offset points", "ha": "center", "fontsize": 9}
    costs = {
        "multiply-adds per image, millions": "millions",
        "extraction, images/s": "extraction_images_per_second",
    }
    for axis, (label, column) in zip(axes, costs.items(), strict=True):
        for i, (title, rows) in enumerate(table.groupby("model", sort=False)):
            score, shade = rows["val_score"], _shades(table)[i]
            axis.errorbar(rows[column], score, _errors(rows), fmt="-o", color=shade, capsize=3, label=title)
            for x, y, side in zip(rows[column], score, rows["input_size"], strict=True):
                axis.annotate(f"{side} px", (x, y), (0, -20 if i % 2 else 12), color=shade, **small)
        _log_axis(axis, table[column])
        axis.margins(y=0.18)
        axis.set_xlabel(label)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel(_score_label(table))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="upper center", frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.25 * table["model"].nunique() / figure.get_figheight()))
    return figure


def _shades(table: pd.DataFrame) -> list[str]:
    """Colours of the models of a table with columns model and name."""
    return colours(table.groupby("model", sort=False)["name"].first().tolist())


def _errors(rows: pd.DataFrame) -> list[pd.Series]:
    """What `errorbar` draws of the interval of the leading measure."""
    return [rows["val_score"] - rows["val_score_low"], rows["val_score_high"] - rows["val_score"]]


def _score_label(table: pd.DataFrame) -> str:
    return f"validation {table['leading'].iloc[0].replace('_', ' ')} (95 % interval)"


def learning_curve(table: pd.DataFrame) -> Figure:
    """The leading measure on validation against the number of training images, one line a model."""
    figure = Figure(figsize=(8, 4.4))
    axis = figure.subplots()
    for (title, rows), shade in zip(table.groupby("model", sort=False), _shades(table), strict=True):
        axis.errorbar(
            rows["train_images"], rows["val_score"], _errors(rows), fmt="-o", color=shade, capsize=3, label=title
        )
    _log_axis(axis, table["train_images"])
    axis.set_xlabel("training images (log scale)")
    axis.set_ylabel(_score_label(table))
    axis.legend(frameon=False, fontsize=8)
    axis.grid(alpha=0.25)
    figure.tight_layout()
    return figure


def penalty(table: pd.DataFrame, own: pd.DataFrame) -> Figure:
    """The sweep over the penalty's strength, the chosen one ringed; the loop's own heads as dotted lines.

    Args:
        table: model, name, strength, val_accuracy, val_loss, and chosen (bool); see `penalty.sweep_penalty`.
        own: index model; accuracy and loss on validation of the head that the loop has trained.
    """
    figure = Figure(figsize=(10, 3.6 + 0.25 * len(own)))
    axes = figure.subplots(1, 2)
    for axis, value in zip(axes, ("accuracy", "loss"), strict=True):
        for (title, rows), shade in zip(table.groupby("model", sort=False), _shades(table), strict=True):
            axis.plot(rows["strength"], rows[f"val_{value}"], "-o", color=shade, label=f"{title}, logistic regression")
            best = rows[rows["chosen"]]
            axis.plot(best["strength"], best[f"val_{value}"], "o", color="none", mec="0.3", ms=13)
            axis.axhline(own.loc[title, value], color=shade, linestyle=":", label=f"{title}, trained by the loop")
        axis.set_xscale("log")
        axis.set_xlabel("C, the inverse of the penalty (log scale); ringed: chosen")
        axis.set_ylabel(f"validation {value}")
        axis.grid(alpha=0.25)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="upper center", frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.36 * len(own) / figure.get_figheight()))
    return figure
