"""The conclusion's sentences, held against the tables that they were written from, however odd these are."""

import re

import mistune
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st

from hw1_utils import metrics
from hw1_utils.report.conclusion import conclusion, errata, how_many_images, seeds_in_words, write
from hw1_utils.report.words import literal, number, points

NUMBER = r"([\d,]+(?:\.\d+)?(?:e-\d+)?)"


# ---- tables


def row(name, recipe, encoder="", epochs=80, **measured):
    model = f"probe, class token ({encoder})" if encoder else f"CNN, {recipe} recipe"
    fixed = {"epochs_to_converge": 1, "seconds_to_converge": 3.0, "val_accuracy": 0.7, "train_accuracy": 0.9}
    fixed |= {"val_score": 0.7, "generalisation_gap": 0.1, "train_images": 4500, "val_images": 500, "seed": 0}
    fixed |= {"device": "CPU", "precision": "fp32", "torch": "2", "timm": "1", "weights_sha256": "ab12" * 16}
    return {"model": model, "name": name, "recipe": recipe, "encoder": encoder, "epochs": epochs} | fixed | measured


def cost(quality, **measured):
    fixed = {"macs": 1e7, "operator_calls_per_step": 1000.0, "extraction_seconds": 0.0, "total_training_seconds": 100.0}
    fixed |= {"inference_images_per_second": 1000.0, "top_operator": "aten::mm", "top_operator_share": 0.45}
    return {key: quality[key] for key in ("model", "name", "encoder")} | fixed | measured


def tables(labels, models, costs=None, leading="accuracy"):
    """`models`: (row, bool N) each. The table of models and the outcomes that `conclusion` is given."""
    qualities, right = [], {"label": labels}
    for shown, correct in models:
        predictions = np.where(correct, labels, (labels + 1) % (labels.max() + 1))
        quality = {"test_macro_f1": 0.5, "test_macro_f1_low": 0.4, "test_macro_f1_high": 0.6}
        quality["test_accuracy"] = correct.mean()
        ends = metrics.wilson(int(correct.sum()), len(correct))
        quality |= dict(zip(("test_accuracy_low", "test_accuracy_high"), ends, strict=True))
        values = metrics.with_interval(labels, predictions, leading)
        quality |= dict(zip((f"test_{leading}{end}" for end in ("", "_low", "_high")), values, strict=True))
        qualities.append(shown | quality | {"leading": leading, "test_images": len(labels)})
        right[shown["name"]] = correct
    prices = [cost(shown, **(costs or {}).get(shown["name"], {})) for shown, _ in models]
    return pd.DataFrame(qualities).merge(pd.DataFrame(prices)), pd.DataFrame(right)


def said(cnn_right, probe_right, costs=None, labels=None, leading="accuracy", more=(), cnn=None):
    """The conclusion on two models of 100 to a few hundred images."""
    labels = np.arange(len(cnn_right)) % 10 if labels is None else labels
    models = [(cnn or row("cnn", "tuned"), cnn_right), (row("vit", "cls, AdamW", "test_vit"), probe_right), *more]
    counts = {f"class {i}": int(count) for i, count in enumerate(np.bincount(labels))}
    return conclusion(*tables(labels, models, costs, leading), counts)


def first(count, of=200):
    return np.arange(of) < count


# ---- each of these was printed once


def test_five_to_none_is_one_verdict():
    """The bootstrap said "0.5 to 5.0", the exact test of the same sentence "within the noise"."""
    text = said(first(150), first(155))
    assert text.count("is better than CNN, tuned recipe by 2.5 points (95 % interval 0.2 to 5.8)") == 2
    assert "noise" not in text and "McNemar" not in text and "p =" not in text


def test_a_verdict_on_balanced_accuracy_speaks_of_nothing_else():
    labels = np.repeat([0, 1], [180, 20])
    text = said(labels == 0, first(110), labels=labels, leading="balanced_accuracy")
    assert "points of balanced accuracy" in text and "Where accuracy counts" not in text


@pytest.mark.parametrize(
    ("probe_cost", "expected"),
    [
        ({"macs": 1e4}, "takes the probe 0.01 M multiply-adds, 0.1% of the CNN's 10.0 M"),
        ({"macs": 0.0}, "takes the probe 0 M multiply-adds, against the CNN's 10.0 M"),
        ({"macs": 8.3e6}, "8.3 M multiply-adds, 83% of the CNN's 10.0 M"),
        ({"macs": 1.02e7}, "10.2 M multiply-adds, about the CNN's 10.0 M"),
        ({"inference_images_per_second": 980.0}, "predicts about as fast as the CNN (980 against 1,000 images/s)"),
        ({"inference_images_per_second": 3000.0}, "predicts 3.0 times faster than the CNN"),
        ({"total_training_seconds": 0.0}, "Training takes the probe 0 s, against the CNN's 100 s"),
        ({"total_training_seconds": 101.0}, "Training takes the probe 101 s, about the CNN's 100 s"),
    ],
)
def test_ratios_of_nothing_and_of_the_same(probe_cost, expected):
    text = said(first(150), first(180), {"vit": probe_cost})
    assert expected in text
    assert not re.search(r"(?<![\d.,])[01](?:\.0)? times", text) and "Feature extraction" not in text


@pytest.mark.parametrize(
    ("cnn_right", "probe_right", "rate", "advice"),
    [
        (150, 180, 10.0, "Where accuracy counts and a prediction may take that long, take the probe; where predict"),
        (150, 180, 5000.0, "On this data the probe is the better one, and not noticeably slower: take it."),
        (180, 150, 10.0, "On this data the CNN is the better one, and not noticeably slower: take it."),
        (180, 150, 5000.0, "Where accuracy counts and a prediction may take that long, take the CNN; where predict"),
        (150, 150, 5000.0, "As long as no difference can be shown, take the one that predicts faster: the probe."),
        (150, 152, 10.0, "As long as no difference can be shown, take the one that predicts faster: the CNN."),
    ],
)
def test_advice_follows_quality_and_the_price_of_a_prediction(cnn_right, probe_right, rate, advice):
    assert advice in said(first(cnn_right), first(probe_right), {"vit": {"inference_images_per_second": rate}})


def test_where_quality_and_speed_are_the_same_the_time_to_train_decides_or_nothing():
    same, slow = {"inference_images_per_second": 1010.0}, {"total_training_seconds": 900.0}
    assert "take the one that trains faster: the CNN" in said(first(150), first(150), {"vit": same | slow})
    assert "No difference can be shown, in quality or in price: take either." in said(first(150), first(150))


@pytest.mark.parametrize("leading", ["accuracy", "balanced_accuracy"])
def test_models_that_guess_are_said_to(leading):
    text = said(first(101) ^ True, first(99), labels=np.arange(200) % 2, leading=leading)
    assert "Neither is shown to be better than guessing, which gives 50.0%" in text and "take the" not in text
    text = said(first(99), first(180), labels=np.arange(200) % 2, leading=leading)
    assert "CNN, tuned recipe is not shown to be better than guessing" in text and "The probe is: take it." in text
    for counts, better in (((99, 116), "The probe"), ((116, 99), "The CNN")):  # within the noise, and the CNN is faster
        text = said(*map(first, counts), labels=np.arange(200) % 2, leading=leading)
        assert f"{better} is: take it." in text and "faster:" not in text
    assert "guessing" not in said(first(150), first(180), labels=np.arange(200) % 2, leading=leading)


def test_tables_that_were_read_from_their_files_say_the_same(tmp_path):
    models = [(row("cnn", "tuned"), first(150)), (row("vit", "cls, AdamW", "test_vit"), first(180))]
    written, right = tables(np.arange(200) % 10, models)
    written.to_csv(tmp_path / "table.csv", index=False)
    read = pd.read_csv(tmp_path / "table.csv", dtype={"torch": str, "timm": str})
    assert conclusion(read, right, {}) == conclusion(written, right, {})


@pytest.mark.parametrize("recipe", ["distilled", "taught"])  # the latter in older results
def test_the_teacher_is_compared_with_the_same_training_or_not_credited(recipe):
    taught = (row(f"cnn_{recipe}", recipe), first(187))
    short, tuned = (row("cnn_short", "short", epochs=12), first(170)), row("cnn", "tuned")
    text = said(first(185), first(150), cnn=tuned, more=[short, taught])
    assert "(95 % interval" in text.split("has taught")[1] and "being ahead of CNN, tuned recipe" in text
    assert "cannot be told apart here" not in text
    text = said(first(170), first(150), cnn=row("cnn", "short", epochs=12), more=[taught])
    assert "of the tuned recipe the taught CNN had 80 epochs, of the short one the other 12." in text


def curve(cnn, probe, sizes=(100, 1000, 10000), leading="accuracy"):
    """Each value with an interval of ± 2 points."""
    rows = [
        {"model": model, "name": name, "train_images": size, "leading": leading, "val_score": value}
        for model, name, values in (("CNN", "cnn", cnn), ("probe", "vit", probe))
        for size, value in zip(sizes, values, strict=True)
    ]
    table = pd.DataFrame(rows)
    return table.assign(val_score_low=table["val_score"] - 0.02, val_score_high=table["val_score"] + 0.02)


@pytest.mark.parametrize(
    ("cnn", "probe", "expected"),
    [
        (
            [0.3, 0.7, 0.95],
            [0.6, 0.69, 0.9],
            "30.0 points ahead with 100 training images and 5.0 points behind with 10,000",
        ),
        ([0.3, 0.7, 0.95], [0.6, 0.69, 0.9], "is ahead beyond doubt with 10,000."),  # at 1,000 intervals overlap
        ([0.3, 0.8, 0.95], [0.6, 0.7, 0.9], "is ahead beyond doubt from 1,000 on."),
        ([0.7, 0.8, 0.95], [0.6, 0.7, 0.9], "is ahead beyond doubt from 100 on."),
        ([0.7, 0.8, 0.75], [0.6, 0.7, 0.9], "is not ahead beyond doubt with 10,000, only with fewer."),
        ([0.7, 0.6, 0.95], [0.6, 0.7, 0.9], "is ahead beyond doubt with 10,000."),
        ([0.3, 0.6, 0.8], [0.6, 0.8, 0.9], "is not ahead beyond doubt with 10,000 or fewer."),
        ([0.3, 0.6, 0.9], [0.6, 0.8, 0.9], "and level with 10,000;"),
    ],
)
def test_the_number_of_images_from_which_the_cnn_stays_ahead(cnn, probe, expected):
    assert expected in how_many_images(curve(cnn, probe))


def test_one_size_is_said_once():
    text = how_many_images(curve([0.3], [0.6], sizes=[100]))
    assert text == "Probe: 30.0 points ahead with 100 training images; your own CNN is not ahead beyond doubt with 100."


def test_seeds_are_summed_up_as_mean_and_standard_deviation():
    table = pd.DataFrame({"model": ["CNN", "probe", "probe"], "test_score": [0.8, 0.89, 0.91]})
    text = seeds_in_words(table)
    assert "CNN: 80.00% over one seed." in text
    assert "Probe: 90.00% over 2 seeds, standard deviation 1.41 points." in text  # 2 / sqrt(2)


def test_the_written_conclusion_holds_every_part_and_says_the_measure(tmp_path):
    seeds = pd.DataFrame({"model": ["CNN"], "test_score": [0.8], "leading": "balanced_accuracy"})
    images = curve([0.3, 0.6, 0.8], [0.6, 0.8, 0.9], leading="balanced_accuracy")
    text = write(tmp_path, "compared\n", images, seeds, "corrected\n")
    assert (tmp_path / "conclusion.md").read_text() == text
    positions = [text.index(part) for part in ("compared", "not ahead", "80.00%", "## Errata", "corrected")]
    assert positions == sorted(positions)
    assert "(balanced accuracy on validation)" in text and "(balanced accuracy on test)" in text


def test_errata_say_the_runs_own_numbers():
    labels = np.arange(200) % 10
    models = [(row("cnn", "tuned"), first(150)), (row("vit", "cls, AdamW", "test_vit"), first(180))]
    table, _ = tables(labels, models, {"vit": {"macs": 1.2e9, "operator_calls_per_step": 1900.0}})
    sizes = pd.DataFrame({"input_size": [96, 224], "val_score": [0.58, 0.884], "train_images": 5000})
    other = pd.DataFrame([{"model": "other", "input_size": 518, "val_score": 0.1, "train_images": 5000}])
    sizes = pd.concat([sizes.assign(model="first"), other]).assign(leading="accuracy")  # another encoder's own story
    text = errata(table, sizes)
    assert "1.9 times the CNN's 1,000" in text and "120 times the CNN's 10.0 M" in text
    assert "with 200 test images" in text and f"{metrics.wilson(136, 200)[0]:.1%}" in text
    assert "58.0% at 96 pixels and 88.4% at 224 pixels (accuracy on validation)" in text
    assert "3." not in errata(table, sizes[sizes["input_size"] == 224])


# ---- names are no markup

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "*a*",
    "a|b",
    "`c`",
    "[x](javascript:alert(1))",
    "_u_",
    "a\nb\n# c",
    "$5 & $6",
]
HOSTILE += ["&lt;", "\\", "\\(x\\)", "~~no~~", "![i](x)", "https://e.org", "www.e.org", "a@e.org", "deit_tiny.fb_in1k"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_letter_by_letter(name):
    plugins = ["strikethrough", "table", "url"]
    for place in ("{}", "**{}**", "between ({}) and", "{}(x)", "{}: x", "| a |\n|---|\n| {} |"):
        page = BeautifulSoup(mistune.html(place.format("@@")), "html.parser")
        expected = " ".join(page.get_text().replace("@@", " ".join(name.split())).split())
        html = mistune.create_markdown(escape=False, plugins=plugins)(place.format(literal(name)))
        soup = BeautifulSoup(html, "html.parser")
        assert soup.find_all(["img", "a", "em", "code", "del", "script", "h1"]) == []
        if "|" not in place:
            assert " ".join(soup.get_text().split()) == expected
    assert literal("vit_tiny_patch16_224.augreg_in21k") == "vit_tiny_patch16_224.augreg_in21k"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text("*_`<>[]()|~$@:/\\&#!-=.wW \n1aé", min_size=1).filter(str.strip))
def test_whatever_a_name_is_made_of_it_is_shown_letter_by_letter(name):
    html = mistune.create_markdown(escape=False, plugins=["strikethrough", "url"])(f"between ({literal(name)}) and")
    soup = BeautifulSoup(html, "html.parser")
    assert len(soup.find_all()) == 1 and soup.p.get_text() == f"between ({' '.join(name.split())}) and"


def test_hostile_class_and_encoder_names_reach_the_conclusion_as_words():
    labels = np.repeat([0, 1], [180, 20])
    models = [(row("cnn", "tuned"), labels == 0), (row("vit", "cls, AdamW", "<b>*e*</b>"), first(110))]
    text = conclusion(
        *tables(labels, models, leading="balanced_accuracy"), dict(zip(HOSTILE[:2], (180, 20), strict=True))
    )
    soup = BeautifulSoup(mistune.html(text), "html.parser")
    assert soup.find_all(["img", "b"]) == [] and "<b>*e*</b>" in soup.get_text() and HOSTILE[0] in soup.get_text()


# ---- whatever the tables


@st.composite
def runs(draw):
    """Arguments of `conclusion`: 2 to 1,000 classes, ties, free costs, several encoders, with and without a teacher."""
    classes, images = draw(st.sampled_from([2, 3, 10, 100, 1000])), draw(st.sampled_from([2, 5, 20, 200, 2000]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    labels = rng.permutation(np.concatenate([np.arange(classes), rng.integers(0, classes, images)]))
    leading = draw(st.sampled_from(["accuracy", "balanced_accuracy"]))
    headline = draw(st.sampled_from(["tuned", "short", "assignment"]))
    shown = [row("cnn", headline, epochs=draw(st.sampled_from([1, 12])) if headline != "tuned" else 80)]
    if headline == "tuned" and draw(st.booleans()):
        shown.append(row("cnn_short", "short", epochs=12))
    if draw(st.booleans()):
        shown.append(row("cnn_distilled", "distilled"))
    scores = draw(st.lists(st.sampled_from([0.5, 0.7]), min_size=1, max_size=3))
    shown += [row(f"vit{i}", "cls, AdamW", f"encoder_{i}", 30, val_score=score) for i, score in enumerate(scores)]
    rate = st.sampled_from([0.0, 0.01, 1 / classes, 0.5, 0.51, 0.9, 0.999, 1.0])
    common = rng.random(len(labels))  # what is hard for one is hard for the others
    models = [
        (model, common < draw(rate) if draw(st.booleans()) else rng.random(len(labels)) < draw(rate)) for model in shown
    ]
    prices = {
        model["name"]: {
            "macs": draw(st.sampled_from([0.0, 300.0, 1e7, 1.04e7, 1.25e9])),
            "operator_calls_per_step": draw(st.sampled_from([1.0, 500.0, 1014.0, 20000.0])),
            "extraction_seconds": draw(st.sampled_from([0.0, 0.004, 50.0])),
            "total_training_seconds": draw(st.sampled_from([50.0, 52.0, 100.0, 1e5])),
            "inference_images_per_second": draw(st.sampled_from([0.2, 76.0, 78.0, 14129.0])),
        }
        for model in shown
    }
    counts = dict(zip((f"class {i}" for i in range(classes)), np.bincount(labels).tolist(), strict=True))
    return *tables(labels, models, prices, leading), counts


def value(text):
    return float(text.replace(",", ""))


def check_ratio(words, a, b):
    """`words` as from `words.times`: is it true of a and b?"""
    if words == "against":
        assert a == 0 or b == 0
    elif words == "about":
        assert max(a, b) / min(a, b) < 1.05 + 1e-9
    elif match := re.fullmatch(f"{NUMBER} times", words):
        assert value(match[1]) > 1.04 and a / b == pytest.approx(value(match[1]), rel=0.06)
    else:
        share = value(re.fullmatch(f"{NUMBER}% of", words)[1])
        assert 0 < share < 100 and 100 * a / b == pytest.approx(share, rel=0.06)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(runs())
def test_every_sentence_is_true_of_its_table(run):
    quality, right, _ = run
    text = conclusion(*run)
    assert not re.search(
        r"\bnan\b|\binf\b|None|-0\.0+\b|  |\.\.|\b1 (?:are|epochs)\b|, ,|(?<![\d.,])(?:0|1|1\.0) times", text
    )
    assert all(line == "" or line[0] in "*OT" for line in text.splitlines())
    cnn = quality.iloc[0]
    probe = quality[quality["encoder"] != ""].sort_values("val_score", ascending=False, kind="stable").iloc[0]
    price = quality.set_index("name")
    mine, other = price.loc[probe["name"]], price.loc[cnn["name"]]

    # Performance: numbers, verdict, and the verdict once more in the conclusion.
    leading = cnn["leading"]
    for model in (cnn, probe):
        shown = re.search(
            re.escape(literal(model["model"])) + r": (\w+ ?\w*) ([\d.]+)% \(95 % interval ([\d.]+)% to", text
        )
        assert shown[1] == leading.replace("_", " ")
        assert float(shown[2]) == pytest.approx(100 * model[f"test_{leading}"], abs=0.051)
    labels = right["label"].to_numpy() if leading == "balanced_accuracy" else None
    gap, low, high = metrics.paired_difference(right[cnn["name"]], right[probe["name"]], labels)
    verdict = re.search(r"\*\*Conclusion\.\*\* (.*?\)(?:, .*? being ahead of .*?, is within the noise)?)\. ", text)[1]
    assert text.count(verdict) == 2
    points, shown_low, shown_high = map(
        value, re.search(f"{NUMBER} points.*?interval (-?[\\d.]+) to (-?[\\d.]+)\\)", verdict).groups()
    )
    assert points == pytest.approx(abs(gap) * 100, abs=0.051)
    assert (
        (shown_low > 0)
        == (low > 0 or high < 0)
        == ("is better than" in verdict)
        == ("noise" not in verdict and "level" not in verdict)
    )
    assert shown_low <= points <= shown_high and (points == 0) == (gap == 0)
    better = probe if gap > 0 else cnn
    if gap != 0:
        assert verdict.index(literal(better["model"])[1:]) < verdict.index(
            literal((cnn if gap > 0 else probe)["model"])[1:]
        )
    alone = re.search(
        r"of the same ([\d,]+) images, the probe alone gets ([\d,]+) right, the CNN alone ([\d,]+)\.", text
    )
    counted = (
        len(right),
        (right[probe["name"]] & ~right[cnn["name"]]).sum(),
        (right[cnn["name"]] & ~right[probe["name"]]).sum(),
    )
    assert tuple(map(value, alone.groups())) == counted

    # Bottlenecks and price.
    shown = re.search(
        rf"takes the probe {NUMBER} M multiply-adds, (.*?) the CNN's {NUMBER} M; "
        rf"the operator calls of a training step number {NUMBER}, (.*?) the CNN's {NUMBER}, but",
        text,
    )
    check_ratio(shown[2], mine["macs"], other["macs"])
    check_ratio(shown[5], mine["operator_calls_per_step"], other["operator_calls_per_step"])
    assert value(shown[1]) == pytest.approx(mine["macs"] / 1e6, rel=0.06)
    shown = re.search(
        rf"Training takes the probe {NUMBER} s, (.*?) the CNN's {NUMBER} s; "
        rf"it predicts (.*?) the CNN \({NUMBER} against {NUMBER}",
        text,
    )
    check_ratio(shown[2], mine["total_training_seconds"], other["total_training_seconds"])
    speed = mine["inference_images_per_second"] / other["inference_images_per_second"]
    word = re.fullmatch(rf"{NUMBER} times (faster|slower) than|about as fast as", shown[4])
    assert (word[2] is None) == (max(speed, 1 / speed) < 1.05)
    assert word[2] is None or (speed > 1) == (word[2] == "faster")
    assert ("Feature extraction takes" in text) == (mine["extraction_seconds"] > 0)

    # Advice.
    chance = (
        right["label"].value_counts(normalize=True).max() if leading == "accuracy" else 1 / right["label"].nunique()
    )
    guess = [model[f"test_{leading}_low"] <= chance for model in (cnn, probe)]
    assert ("Neither is shown" in text) == all(guess) and ("is not shown to be better than" in text) == (
        sum(guess) == 1
    )
    names = {"the CNN": other, "the probe": mine}
    if advice := re.search(r"the one that predicts faster: (the \w+)\.", text):
        cheap = names.pop(advice[1])["inference_images_per_second"]
        assert "is better than" not in verdict and cheap > names.popitem()[1]["inference_images_per_second"]
    if advice := re.search(r"the one that trains faster: (the \w+)\.", text):
        cheap = names.pop(advice[1])["total_training_seconds"]
        assert "is better than" not in verdict and cheap < names.popitem()[1]["total_training_seconds"]
    if advice := re.search(r"this data (the \w+) is the better one, and not noticeably slower", text):
        rate = names.pop(advice[1])["inference_images_per_second"]
        assert (
            advice[1].endswith("CNN") == (gap < 0) and rate * 1.05 >= names.popitem()[1]["inference_images_per_second"]
        )
    if advice := re.search(
        r"may take that long, take (the \w+); where predictions must be fast, take (the \w+)\.", text
    ):
        assert advice[1].endswith("CNN") == (gap < 0) and advice[1] != advice[2]
        assert names[advice[1]]["inference_images_per_second"] < names[advice[2]]["inference_images_per_second"]

    # The teacher.
    taught = quality[quality["recipe"] == "distilled"]
    assert ("has taught" in text) == bool(len(taught))
    if len(taught):
        alike = cnn["recipe"] in ("tuned", "short") and cnn["epochs"] == taught["epochs"].iloc[0]
        assert ("cannot be told apart here" in text) == (not alike)
    assert ("encoders, " in text) == (quality["encoder"].ne("").sum() > 1)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.3, 0.32, 0.34, 0.35, 0.9])] * 2), min_size=1, max_size=6))
def test_every_learning_curve_is_told_as_it_is(values):
    sizes = [10 ** (i + 1) for i in range(len(values))]
    table = curve(*zip(*values, strict=True), sizes=sizes)
    text = how_many_images(table)
    ahead = [cnn - 0.02 > probe + 0.02 for cnn, probe in values]
    said = re.search(
        r"your own CNN is (not )?ahead beyond doubt (with|from) ([\d,]+)(?: on|, only with fewer| or fewer)?\.", text
    )
    since = sizes.index(value(said[3]))
    if said[1]:
        assert not ahead[-1] and since == len(sizes) - 1 and ("only with fewer" in text) == any(ahead)
    else:
        assert all(ahead[since:]) and (since == 0 or not ahead[since - 1])
        assert (said[2] == "with") == (since == len(sizes) - 1)
    assert text.count(f"{sizes[0]:,} training images") == 1 and len(re.findall(" with | from ", text)) == 2 + (
        len(sizes) > 1
    ) + text.count("only with")


@pytest.mark.parametrize(("x", "text"), [(0, "0"), (0.0004, "0.0004"), (0.99, "1.0"), (9.96, "10"), (1234.5, "1,234")])
def test_numbers_as_one_says_them(x, text):
    assert number(x) == text


def test_a_difference_that_lies_halfway_is_rounded_alike_however_it_was_computed():
    """727 and 542 of 10,000 images: as the mean of flags, 0.9029 - 0.8844, or a shade below it."""
    ways = (np.r_[np.ones(727), -np.ones(542), np.zeros(8731)].mean(), 0.9029 - 0.8844, 0.018499999999999996)
    assert {points(way) for way in ways} == {"1.9"}


@pytest.mark.parametrize(("val_accuracy", "said"), [(0.95, True), (0.8, False), (0.5, False)])
def test_a_test_that_is_worse_than_validation_beyond_chance_is_said(val_accuracy, said):
    """As with swapped class folders in the test, or another camera's pictures."""
    labels = np.arange(200) % 10
    models = [
        (row("cnn", "tuned", val_accuracy=val_accuracy), first(150)),
        (row("vit", "cls, AdamW", "test_vit"), first(150)),
    ]
    text = conclusion(*tables(labels, models), dict.fromkeys("ab", 20))
    assert ("On test CNN, tuned recipe is worse than on validation by more than chance explains" in text) == said
