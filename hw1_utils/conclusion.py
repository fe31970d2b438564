"""The conclusion in words, written from the numbers of the run, so that it can never contradict the tables."""

from pathlib import Path

import pandas as pd

from . import metrics
from .files import atomic
from .judging import Result


def write(folder: Path, comparison: str, curve: pd.DataFrame, seeds: pd.DataFrame, corrections: str) -> str:
    """Write conclusion.md: the comparison, what the studies say, the errata if there are any. Returns the text."""
    text = (
        f"{comparison}\n**How many images before your own CNN pays?** (validation) {how_many_images(curve)}\n\n"
        f"**Other seeds.** (test accuracy) {seeds_in_words(seeds)}\n"
    )
    text += f"\n## Errata of the assignment\n\n{corrections}" if corrections else ""
    with atomic(folder / "conclusion.md") as partial:
        partial.write_text(text, encoding="utf-8")
    return text


def conclusion(results: list[Result], quality: pd.DataFrame, costs: pd.DataFrame) -> str:
    """The assignment's discussion as Markdown: convergence, generalisation, performance, bottlenecks, conclusion.

    Compares the first CNN (the headline) with the plain probe, of several encoders the best on validation. On balanced
    data by accuracy, else by balanced accuracy (see `metrics.leading`).
    """
    plain = [i for i, result in enumerate(results) if result.task.variant == "cls"]
    best = max(plain, key=lambda i: quality["val_score"][i])
    pair = [next(i for i, result in enumerate(results) if result.task.kind == "cnn"), best]
    cnn, probe = (quality.iloc[i] for i in pair)
    cnn_cost, probe_cost = (costs.iloc[i] for i in pair)
    correct = [results[i].correct for i in pair]
    only_cnn, only_probe, p = metrics.mcnemar(*correct)
    balanced = cnn["leading"] == "balanced_accuracy"
    gap, low, high = metrics.paired_difference(*correct, results[0].test.labels.numpy() if balanced else None)
    total = int(cnn["test_images"])
    significant = low > 0 or high < 0 if balanced else p < 0.05
    better, other = (probe, cnn) if gap >= 0 else (cnn, probe)
    low, high = (low, high) if gap >= 0 else (-high, -low)  # of the better one minus the other
    interval = f"(95 % interval {low * 100:.1f} to {high * 100:.1f})"
    points = f"{abs(gap) * 100:.1f} points{' of balanced accuracy' if balanced else ''} {interval}"
    verdict = (
        f"**{better['model']}** is better than {other['model']} by {points}"
        if significant
        else f"The difference of {points} between the two models is within the noise"
    )
    macs = probe_cost["macs"] / cnn_cost["macs"]
    calls = probe_cost["operator_calls_per_step"] / cnn_cost["operator_calls_per_step"]
    top = {r.task.title: r.training.operators.iloc[0] for r in (results[i] for i in pair)}
    share = probe_cost["extraction_seconds"] / probe_cost["total_training_seconds"]
    seconds = probe_cost["total_training_seconds"] / cnn_cost["total_training_seconds"]
    speed = cnn_cost["inference_images_per_second"] / probe_cost["inference_images_per_second"]
    lines = [
        f"*{cnn['train_images']:,} training, {cnn['val_images']:,} validation and {total:,} test images; "
        f"seed {cnn['seed']}; {cnn['device']}, {cnn['precision']}; torch {cnn['torch']}, timm {cnn['timm']}.*",
        *(["", _imbalance(results[0])] if balanced else []),
        *(["", f"Of {len(plain)} encoders, {probe['encoder']} is the best on validation."] if plain[1:] else []),
        "",
        "**Convergence.** " + " ".join(_convergence(row) for row in (cnn, probe)),
        "",
        "**Generalisation.** With augmentation off, " + "; ".join(_generalisation(row) for row in (cnn, probe)) + ".",
        "",
        f"**Performance.** {cnn['model']}: {_with_interval(cnn)}; {probe['model']}: {_with_interval(probe)}. {verdict} "
        f"(on the same {total:,} images, {only_probe} are right only with the probe and {only_cnn} only with the CNN; "
        f"exact McNemar test, {'p < 0.001' if p < 0.001 else f'p = {p:.3f}'}).",
        "",
        f"**Bottlenecks.** A prediction costs the probe {macs:,.0f} times the CNN's multiply-adds "
        f"({probe_cost['macs'] / 1e6:,.1f} M against {cnn_cost['macs'] / 1e6:,.1f} M), though a training step makes "
        f"only {calls:.1f} times as many operator calls: calls are counted, not weighed. Most of the traced time goes "
        "to "
        + " and ".join(f"`{row['operator']}` ({row['share']:.0%}; {title})" for title, row in top.items())
        + f". Of the probe's {probe_cost['total_training_seconds']:.0f} s, {share:.0%} are feature extraction.",
        "",
        f"**Conclusion.** {verdict}. The probe trains {_times(seconds)} the CNN and predicts "
        f"{_slower(speed)} ({probe_cost['inference_images_per_second']:,.0f} against "
        f"{cnn_cost['inference_images_per_second']:,.0f} images/s). "
        + _advice(significant, gap)
        + _dilemma(quality, cnn),
    ]
    return "\n".join(lines) + "\n"


def _imbalance(result: Result) -> str:
    counts = result.task.setup.train.counts()
    few, many = (choose(counts, key=counts.__getitem__) for choose in (min, max))
    return (
        f"The classes have between {counts[few]:,} ({few}) and {counts[many]:,} ({many}) training images, so balanced "
        "accuracy, the mean of the classes' own accuracies, comes first."
    )


def _convergence(row: pd.Series) -> str:
    included = " (feature extraction included)" if row["encoder"] else ""
    return (
        f"{row['model']} comes within a point of its best validation accuracy after {row['epochs_to_converge']} of "
        f"{row['epochs']} epochs, {row['seconds_to_converge']:.0f} s{included}."
    )


def _generalisation(row: pd.Series) -> str:
    return (
        f"{row['model']}: {row['train_accuracy']:.1%} on train, {row['val_accuracy']:.1%} on val, "
        f"{row['test_accuracy']:.1%} on test, a gap of {row['generalisation_gap'] * 100:.1f} points"
    )


def _dilemma(quality: pd.DataFrame, cnn: pd.Series) -> str:
    """What the CNN taught by the probe has to say to the choice between the two."""
    taught = quality[quality["recipe"] == "taught"]
    if taught.empty:
        return ""
    measure = f"test_{cnn['leading']}"
    gain = (taught.iloc[0][measure] - cnn[measure]) * 100
    said = f"{abs(gain):.1f} points {'above' if gain >= 0 else 'below'}"
    return (
        f" The CNN that the probe has taught, at the same price per prediction as any CNN here: "
        f"{_with_interval(taught.iloc[0])}, {said} {cnn['model']}."
    )


def _with_interval(row: pd.Series) -> str:
    value, low, high = (row[f"test_{row['leading']}{end}"] for end in ("", "_low", "_high"))
    f1 = f"{row['test_macro_f1']:.3f} ({row['test_macro_f1_low']:.3f} to {row['test_macro_f1_high']:.3f})"
    plain = f" (accuracy {row['test_accuracy']:.1%})" if row["leading"] != "accuracy" else ""
    return f"{value:.1%} (95 % interval {low:.1%} to {high:.1%}){plain}, macro F1 {f1}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times as long as" if ratio >= 1 else f"{1 / ratio:.1f} times faster than"


def _slower(ratio: float) -> str:
    return f"{ratio:,.0f} times slower" if ratio >= 1 else f"{1 / ratio:,.1f} times faster"


def _advice(significant: bool, gap: float) -> str:
    if not significant:
        return "As long as no difference can be shown, take the cheaper one: the CNN."
    if gap < 0:
        return "On this data the CNN is the better one: take it."
    return (
        "Where accuracy counts and a prediction may cost that much, take the probe; where predictions must be cheap "
        "or the device small, take the CNN."
    )


def how_many_images(curve: pd.DataFrame) -> str:
    """The learning curve in a sentence per probe: from how many training images on is the CNN the better one?

    `curve` as from `studies.learning_curve`. Better means: its interval lies above the probe's.
    """
    cnn = curve[curve["name"].str.startswith("cnn")].set_index("train_images")
    few, most = cnn.index.min(), cnn.index.max()
    sentences = []
    for title, rows in curve[~curve["name"].str.startswith("cnn")].groupby("model", sort=False):
        probe = rows.set_index("train_images")
        ahead = cnn.index[cnn["val_accuracy_low"] > probe["val_accuracy_high"].reindex(cnn.index)]
        gaps = (probe["val_accuracy"] - cnn["val_accuracy"]) * 100
        first, last = (f"{abs(gaps[n]):.1f} points {'ahead' if gaps[n] >= 0 else 'behind'}" for n in (few, most))
        never = f"does not beat it beyond doubt with up to {most:,}"
        answer = f"beats it from {min(ahead):,} on" if len(ahead) else never
        sentences.append(
            f"{title} is {first} with {few:,} training images and {last} with {most:,}; your own CNN {answer}."
        )
    return " ".join(sentences)


def seeds_in_words(table: pd.DataFrame) -> str:
    """Mean and standard deviation over seeds of each model's test accuracy, where there is more than one seed.

    `table` as from `studies.seeds`.
    """
    sentences = []
    for title, rows in table.groupby("model", sort=False):
        accuracy, count = rows["test_accuracy"], len(rows)
        spread = f", standard deviation {accuracy.std() * 100:.2f} points" if count > 1 else ""
        seeds = f"{count} seeds" if count > 1 else "one seed"
        sentences.append(f"{title}: {accuracy.mean():.2%} over {seeds}{spread}.")
    return " ".join(sentences)


def errata(quality: pd.DataFrame, costs: pd.DataFrame, sizes: pd.DataFrame) -> str:
    """What the assignment got wrong, in this run's numbers, as Markdown.

    `quality` and `costs` as from `report.write_comparison`, `sizes` as from `studies.input_sizes`.
    """
    cnn, probe = (costs[costs["encoder"].eq("") == scratch].iloc[0] for scratch in (True, False))
    calls = probe["operator_calls_per_step"] / cnn["operator_calls_per_step"]
    total = int(quality["test_images"].iloc[0])
    low, high = metrics.wilson(round(0.68 * total), total)
    sizes = sizes[sizes["model"] == sizes["model"].iloc[0]]  # of the first encoder
    small, large = sizes.iloc[0], sizes.iloc[-1]
    lines = [
        f'1. "71,956 operations against 32,402, 2.2 times as many" counts calls of operators, not work. Here a '
        f"training step of the probe makes {calls:.1f} times the CNN's calls, but a prediction takes "
        f"{probe['macs'] / cnn['macs']:,.0f} times its multiply-adds.",
        f'2. "68 % is better than 67 %": with {total:,} test images the 95 % interval around 68 % runs from '
        f"{low:.1%} to {high:.1%}. A point between two models means nothing without a test on the same images.",
        f'3. "A ViT probe reaches 68 %" is a statement about its input. On {int(large["train_images"]):,} training '
        f"images the same encoder gives {small['val_accuracy']:.1%} at {int(small['input_size'])} pixels and "
        f"{large['val_accuracy']:.1%} at {int(large['input_size'])} (validation).",
    ]
    return "\n".join(lines) + "\n"
