"""The conclusion in words, written from the tables of the run and nothing else, so that it cannot contradict them.

Names that come from outside pass through `words.literal`. Of two models one is called better where the 95 % interval
of their paired difference leaves out zero (`metrics.paired_difference`); no other test has a say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .. import metrics
from ..io.files import atomic
from .findings import Finding, after_the_verdict, before_the_verdict, write_findings
from .words import faster, in_points, literal, number, points, sentence, times

UNTAUGHT = ("tuned", "short")  # recipes of a CNN, to that of which with its epochs the next adds a teacher
DISTILLED = ("distilled", "taught")  # the latter in older results
FEW_GROUPS = 10
CHEAPER = {"inference_images_per_second": "predicts", "total_training_seconds": "trains"}  # the first that differs


def write(
    folder: Path,
    comparison: str,
    curve: pd.DataFrame | None = None,
    seeds: pd.DataFrame | None = None,
    corrections: str = "",
    findings: Sequence[Finding] = (),
) -> str:
    """Write conclusion.md: findings, comparison, what the studies say, errata, as far as they are there. The text.

    And findings.csv, so that the page, too, has what could turn the verdict in front of it.
    """
    text = before_the_verdict(findings) + comparison + after_the_verdict(findings)
    if curve is not None:
        pays = f"({_measure(curve)} on validation) {how_many_images(curve)}"
        text += f"\n**How many images before your own CNN pays?** {pays}\n"
    if seeds is not None:
        text += f"\n**Other seeds.** ({_measure(seeds)} on test) {seeds_in_words(seeds)}\n"
    text += f"\n## Errata of the assignment\n\n{corrections}" if corrections else ""
    write_findings(folder, findings)
    with atomic(folder / "conclusion.md") as partial:
        partial.write_text(text, encoding="utf-8")
    return text


def conclusion(table: pd.DataFrame, right: pd.DataFrame, counts: Mapping[str, int]) -> str:
    """The assignment's discussion as Markdown: convergence, generalisation, performance, bottlenecks, conclusion.

    Compares the first CNN (the headline) with the plain probe, of several encoders the best on validation. On balanced
    data by accuracy, else by balanced accuracy (see `metrics.leading`).

    Args:
        table: one row a model, as from `tables.compare`.
        right: one row a test image, as from `tables.outcomes`: `label` (int), under each model's `name` whether it got
            the image right and, where images belong together, `group` (int), by which intervals then go.
        counts: training images of each class.
    """
    table = table.fillna({"encoder": ""})  # empty cells, where it was read from the file
    plain = table[table["recipe"].str.startswith("cls")]
    probe = plain.loc[plain["val_score"].idxmax()]
    cnn = table[table["encoder"] == ""].iloc[0]
    verdict = _compare(cnn, probe, right)
    alone = [(right[a["name"]] & ~right[b["name"]]).sum() for a, b in ((probe, cnn), (cnn, probe))]
    parts = [
        f"*{cnn['train_images']:,} training, {cnn['val_images']:,} validation and {cnn['test_images']:,} test images; "
        f"seed {cnn['seed']}; {literal(cnn['device'])}, {cnn['precision']}; torch {cnn['torch']}, timm {cnn['timm']}; "
        f"encoder {literal(probe['encoder'])} ({probe['weights_sha256'][:12]}).*"
    ]
    if cnn["leading"] != "accuracy":
        few, many = (choose(counts, key=counts.__getitem__) for choose in (min, max))
        parts.append(
            f"The classes have between {counts[few]:,} ({literal(few)}) and {counts[many]:,} ({literal(many)}) "
            "training images, so balanced accuracy, the mean of the classes' own accuracies, comes first."
        )
    if "test_groups" in table:
        parts.append(_groups(cnn))
    if len(plain) > 1:
        best = literal(probe["encoder"])
        parts.append(f"Of {len(plain)} encoders, {best} is compared with the CNN: the best on validation.")
    parts += [
        f"**Convergence.** {_convergence(cnn)} {_convergence(probe)}",
        f"**Generalisation.** Accuracy with augmentation off: {_generalisation(cnn)}; {_generalisation(probe)}."
        + _harder_test([cnn, probe]),
        f"**Performance.** {sentence(_with_interval(cnn))}; {_with_interval(probe)}. {verdict}: of the same "
        f"{cnn['test_images']:,} images, the probe alone gets {alone[0]:,} right, the CNN alone {alone[1]:,}.",
        f"**Bottlenecks.** {_bottlenecks(cnn, probe)}",
        f"**Conclusion.** {verdict}. {_price(cnn, probe)} {_advice(verdict, table, right)}"
        + _dilemma(table, cnn, right),
    ]
    return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class Verdict:
    """Two models on the same test images, the better one first. As text: a sentence without its full stop."""

    better: pd.Series  # rows of the table of qualities
    other: pd.Series
    difference: float  # better minus other, of the leading measure
    low: float  # its 95 % interval
    high: float

    @property
    def certain(self) -> bool:
        return metrics.beyond_doubt(self.low, self.high) > 0

    def __str__(self) -> str:
        difference, low, high = in_points(self.difference, self.low, self.high)
        interval = f"(95 % interval {low} to {high})"
        of = "" if self.better["leading"] == "accuracy" else f" of {_said(self.better['leading'])}"
        better, other = (literal(row["model"]) for row in (self.better, self.other))
        if self.certain:
            return f"**{sentence(better)}** is better than {other} by {difference} points{of} {interval}"
        if self.difference == 0:
            return f"{sentence(better)} and {other} are level, with a difference of {difference} points{of} {interval}"
        ahead = f"{better} being ahead of {other}"
        return f"The difference of {difference} points{of} {interval}, {ahead}, is within the noise"


def _compare(first: pd.Series, second: pd.Series, right: pd.DataFrame) -> Verdict:
    labels = right["label"].to_numpy() if first["leading"] == "balanced_accuracy" else None
    flags = [right[row["name"]].to_numpy() for row in (first, second)]
    groups = right["group"].to_numpy() if "group" in right else None
    gap, low, high = metrics.paired_difference(*flags, labels, groups)
    gap = gap if abs(gap) > 1e-9 else 0.0  # means over classes are equal but for rounding
    return Verdict(second, first, gap, low, high) if gap >= 0 else Verdict(first, second, -gap, -high, -low)


def _groups(row: pd.Series) -> str:
    """What the test images' groups mean for the intervals, and whether they were known before."""
    groups, images, known = (int(row[f"test_{what}"]) for what in ("groups", "images", "images_of_known_groups"))
    text = "The test images are all of one group" if groups == 1 else f"The test images are of {groups:,} groups"
    text += (
        ": intervals go by groups, whose images may be alike, and not by images."
        if groups < images
        else ", one each: intervals go by images."
    )
    if groups < FEW_GROUPS:
        text += " So few groups say little about new ones, and the intervals are wide for that."
    if known:
        share = "All of them" if known == images else f"{known:,} of them"
        text += (
            f" **{share} {'is' if known == 1 else 'are'} of a group that was trained or validated on as well: of new "
            "groups the models may get fewer right.**"
        )
    return text


def _said(leading: str) -> str:
    return leading.replace("_", " ")


def _measure(table: pd.DataFrame) -> str:
    return _said(table["leading"].iloc[0])


def _convergence(row: pd.Series) -> str:
    epochs, when = row["epochs"], row["epochs_to_converge"]
    after = f"after {when} of {epochs} epochs" if epochs > 1 else "in its only epoch"
    included = " (feature extraction included)" if row["encoder"] else ""
    return (
        f"{sentence(literal(row['model']))} comes within a point of its best validation accuracy {after}, "
        f"{number(row['seconds_to_converge'])} s{included}."
    )


def _generalisation(row: pd.Series) -> str:
    return (
        f"{literal(row['model'])}: {row['train_accuracy']:.1%} on train, {row['val_accuracy']:.1%} on val, "
        f"{row['test_accuracy']:.1%} on test, a gap of {points(row['generalisation_gap'])} points"
    )


def _harder_test(rows: Sequence[pd.Series]) -> str:
    """A sentence where a model is worse on test than on validation beyond chance, the intervals of both lying apart."""
    falls = []
    for row in rows:
        images = int(row["val_images"])
        low, _ = metrics.wilson(round(row["val_accuracy"] * images), images)
        if row["test_accuracy_high"] < low:
            falls.append(literal(row["model"]))
    if not falls:
        return ""
    return (
        f" On test {' and '.join(falls)} {'is' if len(falls) == 1 else 'are'} worse than on validation by more than "
        "chance explains: the test images are harder, of another kind or labelled otherwise, or those of validation "
        "are too like those of training."
    )


def _with_interval(row: pd.Series) -> str:
    value, low, high = (row[f"test_{row['leading']}{end}"] for end in ("", "_low", "_high"))
    f1 = f"{row['test_macro_f1']:.3f} ({row['test_macro_f1_low']:.3f} to {row['test_macro_f1_high']:.3f})"
    plain = f"; accuracy {row['test_accuracy']:.1%}" if row["leading"] != "accuracy" else ""
    return (
        f"{literal(row['model'])}: {_said(row['leading'])} {value:.1%} "
        f"(95 % interval {low:.1%} to {high:.1%}{plain}), macro F1 {f1}"
    )


def _bottlenecks(cnn: pd.Series, probe: pd.Series) -> str:
    """What a prediction and a training step take; `cnn` and `probe` are rows of the table."""
    macs, calls = ([row[column] for row in (probe, cnn)] for column in ("macs", "operator_calls_per_step"))
    millions = [number(value / 1e6) if value < 1e6 else f"{value / 1e6:,.1f}" for value in macs]
    top = [f"`{x['top_operator']}` ({x['top_operator_share']:.0%}; {literal(x['model'])})" for x in (cnn, probe)]
    text = (
        f"A prediction takes the probe {millions[0]} M multiply-adds, {times(*macs)} the CNN's {millions[1]} M; the "
        f"operator calls of a training step number {calls[0]:,.0f}, {times(*calls)} the CNN's {calls[1]:,.0f}, but "
        f"calls are counted, not weighed. The largest share of the traced time goes to {' and '.join(top)}."
    )
    total, extraction = probe["total_training_seconds"], probe["extraction_seconds"]
    if extraction > 0:
        share = f"{extraction / total:.0%}" if extraction > total / 200 else "less than 1%"
        text += f" Feature extraction takes {share} of the probe's {number(total)} s."
    return text


def _price(cnn: pd.Series, probe: pd.Series) -> str:
    seconds = [row["total_training_seconds"] for row in (probe, cnn)]
    rates = [row["inference_images_per_second"] for row in (probe, cnn)]
    return (
        f"Training takes the probe {number(seconds[0])} s, {times(*seconds)} the CNN's {number(seconds[1])} s; it "
        f"predicts {faster(*rates)} the CNN ({number(rates[0])} against {number(rates[1])} images/s)."
    )


def _advice(verdict: Verdict, table: pd.DataFrame, right: pd.DataFrame) -> str:
    """Which of the two to take: the better one, the cheaper one, or each where it belongs."""
    chance = _chance(verdict.better["leading"], right["label"])
    guessing = [row for row in (verdict.better, verdict.other) if row[f"test_{row['leading']}_low"] <= chance]
    said = f"than guessing, which gives {chance:.1%}"
    if len(guessing) == 2:
        return f"Neither is shown to be better {said}: look at the labels, or for more images, before you take one."
    text = f"{sentence(literal(guessing[0]['model']))} is not shown to be better {said}. " if guessing else ""
    names = {row["name"]: "the probe" if row["encoder"] else "the CNN" for row in (verdict.better, verdict.other)}
    better, other = names.values()
    if guessing and not (verdict.certain and guessing[0] is verdict.better):  # nor is a guesser taken for its speed
        return f"{text}{sentence(other if guessing[0] is verdict.better else better)} is: take it."
    pair = table.set_index("name").loc[list(names)]
    cheaper = next((by for by in CHEAPER if not _close(*pair[by])), None)
    if not verdict.certain:
        if cheaper is None:
            return f"{text}No difference can be shown, in quality or in price: take either."
        cheap = names[pair[cheaper].idxmax() if cheaper.endswith("per_second") else pair[cheaper].idxmin()]
        return f"{text}As long as no difference can be shown, take the one that {CHEAPER[cheaper]} faster: {cheap}."
    rates = pair["inference_images_per_second"]
    if _close(*rates) or rates.iloc[0] > rates.iloc[1]:
        return f"{text}On this data {better} is the better one, and not noticeably slower: take it."
    return (
        f"{text}Where {_said(verdict.better['leading'])} counts and a prediction may take that long, take {better}; "
        f"where predictions must be fast, take {other}."
    )


def _close(a: float, b: float) -> bool:
    """Whether two prices are the same but for what a clock's error may be."""
    return max(a, b) <= 1.05 * min(a, b)


def _chance(leading: str, labels: pd.Series) -> float:
    """What one reaches without looking at the images: by always naming the most frequent class."""
    shares = labels.value_counts(normalize=True)
    return float(shares.max()) if leading == "accuracy" else 1 / len(shares)


def _dilemma(quality: pd.DataFrame, cnn: pd.Series, right: pd.DataFrame) -> str:
    """What the CNN taught by a probe has to say to the choice between the two."""
    taught = quality[quality["recipe"].isin(DISTILLED)]
    if taught.empty:
        return ""
    taught = taught.iloc[0]
    alike = quality[quality["recipe"].isin(UNTAUGHT) & (quality["epochs"] == taught["epochs"])]
    untaught = cnn if alike.empty else alike.iloc[0]
    text = (
        " A CNN that a probe has taught, at the same price per prediction as any CNN here, is "
        f"{_with_interval(taught)}. {_compare(untaught, taught, right)}."
    )
    if alike.empty:
        text += (
            " What the teacher did and what the training cannot be told apart here: of the tuned recipe the taught CNN "
            f"had {taught['epochs']} epochs, of the {untaught['recipe']} one the other {untaught['epochs']}."
        )
    return text


def how_many_images(curve: pd.DataFrame) -> str:
    """The learning curve in a sentence per probe: from how many training images on does the CNN stay the better one?

    `curve` as from `studies.learning_curve`. Better means: its interval lies above the probe's.
    """
    of_cnn = curve["name"].str.startswith("cnn")
    cnn = curve[of_cnn].set_index("train_images").sort_index()
    few, most = cnn.index.min(), cnn.index.max()
    sentences = []
    for title, rows in curve[~of_cnn].groupby("model", sort=False):
        probe = rows.set_index("train_images").reindex(cnn.index)
        ahead = cnn["val_score_low"] > probe["val_score_high"]
        gaps = probe["val_score"] - cnn["val_score"]
        first, last = (f"{_ahead(gaps[n])} with {n:,}" for n in (few, most))
        where = f"{first} training images" + (f" and {last}" if most > few else "")
        behind = ahead.index[~ahead]
        since = ahead.index[ahead.index > behind.max()].min() if len(behind) else few
        if not ahead[most]:
            fewer = ", only with fewer" if ahead.any() else " or fewer" if most > few else ""
            answer = f"is not ahead beyond doubt with {most:,}{fewer}"
        elif since == most:
            answer = f"is ahead beyond doubt with {most:,}"
        else:
            answer = f"is ahead beyond doubt from {since:,} on"
        sentences.append(f"{sentence(literal(title))}: {where}; your own CNN {answer}.")
    return " ".join(sentences)


def _ahead(gap: float) -> str:
    """A difference, probe minus CNN, of the leading measure."""
    difference = points(abs(gap))
    return "level" if difference == "0.0" else f"{difference} points {'ahead' if gap > 0 else 'behind'}"


def seeds_in_words(table: pd.DataFrame) -> str:
    """Mean and standard deviation over seeds of each model on test, where there is more than one seed.

    `table` as from `studies.seeds`.
    """
    sentences = []
    for title, rows in table.groupby("model", sort=False):
        score, count = rows["test_score"], len(rows)
        spread = f", standard deviation {score.std() * 100:.2f} points" if count > 1 else ""
        seeds = f"{count} seeds" if count > 1 else "one seed"
        sentences.append(f"{sentence(literal(title))}: {score.mean():.2%} over {seeds}{spread}.")
    return " ".join(sentences)


def errata(table: pd.DataFrame, sizes: pd.DataFrame | None = None) -> str:
    """What the assignment got wrong, in this run's numbers, as Markdown.

    `table` as from `tables.compare`, `sizes` as from `studies.input_size`.
    """
    on_encoder = table["encoder"].fillna("") != ""
    cnn, probe = (table[of].iloc[0] for of in (~on_encoder, on_encoder))
    calls, macs = ([row[column] for row in (probe, cnn)] for column in ("operator_calls_per_step", "macs"))
    total = int(table["test_images"].iloc[0])
    low, high = metrics.wilson(round(0.68 * total), total)
    lines = [
        f'1. "71,956 operations against 32,402, 2.2 times as many" counts calls of operators, not work. Here a '
        f"training step of the probe makes {calls[0]:,.0f} calls, {times(*calls)} the CNN's {calls[1]:,.0f}, and a "
        f"prediction takes {macs[0] / 1e6:,.1f} M multiply-adds, {times(*macs)} the CNN's {macs[1] / 1e6:,.1f} M.",
        f'2. "68 % is better than 67 %": with {total:,} test images the 95 % interval around 68 % runs from '
        f"{low:.1%} to {high:.1%}. A point between two models means nothing without a test on the same images.",
    ]
    if sizes is not None:  # of the first encoder
        sizes = sizes[sizes["model"] == sizes["model"].iloc[0]].sort_values("input_size")
    if sizes is not None and len(sizes) > 1:
        ends = sizes.iloc[[0, -1]].iterrows()
        at = [f"{row['val_score']:.1%} at {int(row['input_size'])} pixels" for _, row in ends]
        lines.append(
            f'3. "A ViT probe reaches 68 %" is a statement about its input. On '
            f"{int(sizes['train_images'].iloc[0]):,} training images the encoder of this run gives {' and '.join(at)} "
            f"({_measure(sizes)} on validation)."
        )
    return "\n".join(lines) + "\n"
