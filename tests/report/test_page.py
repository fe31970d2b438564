"""The HTML report: all of a run in one file, the answer first, nothing fetched, nothing taken for markup."""

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from hw1_utils.config import ROOT
from hw1_utils.errors import Hw1Error
from hw1_utils.report.conclusion import write
from hw1_utils.report.findings import Finding
from hw1_utils.report.html import _text, write_page
from hw1_utils.report.words import literal

QUALITY, COSTS = (f"model_{what}_comparison.csv" for what in ("metrics", "profile"))
ODD = ["<script>alert(1)</script>", "$5 & co", "NA", "007"]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The committed results, to be changed."""
    return Path(
        shutil.copytree(ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns("predictions.csv"))
    )


def page(results: Path) -> BeautifulSoup:
    """The report of `results`, read again."""
    target = results.parent / "out" / "report.html"
    assert write_page(results, target) == target
    without_pictures = re.sub(r"(?<=;base64,)[^\"]+", "", target.read_text(encoding="utf-8"))  # faster to read
    return BeautifulSoup(without_pictures, "html.parser")


ENCODER = "linear probe on deit_tiny_patch16_224 [50130a98d970]"
OLDER = {  # what runs call their models -> what older ones called them: folder and title
    "cnn_distilled": ("cnn_taught", "CNN, taught recipe"),
    "vit": ("vit", ENCODER),
    "vit_blocks": ("vit_layers", f"{ENCODER}, all pooled layers"),
}


def renamed(results: Path) -> Path:
    """The same results, with the folders and titles of older runs."""
    titles = pd.read_csv(results / QUALITY).set_index("name")["model"]
    for new, (name, title) in OLDER.items():
        (results / new).rename(results / name)
        for path in results.glob("*.csv"):
            table = pd.read_csv(path).replace({"model": {titles[new]: title}, "name": {new: name}})
            heads = {head: head.replace(f"({titles[new]})", f"({title})") for head in table}  # of differences.csv
            table.rename(columns=heads).to_csv(path, index=False)
    return results


def change(path: Path, **columns: object) -> None:
    """Rewrite a CSV with these columns set."""
    pd.read_csv(path).assign(**columns).to_csv(path, index=False)


def test_it_is_one_file_that_fetches_nothing(results):
    soup = page(results)
    assert soup.find_all(["link", "script", "iframe", "object", "embed", "base", "form"]) == []
    assert all(image["src"].startswith("data:image/png;base64,") for image in soup.find_all("img"))
    assert {tag["href"][0] for tag in soup.find_all(href=True)} == {"#"}
    assert [word for word in ("url(", "@import", "http") if word in soup.style.text] == []
    assert (results.parent / "out" / "report.html").stat().st_size < 2e6


def test_every_picture_of_the_run_is_there_and_described(results):
    images = page(results).find_all("img")
    assert len(images) == len(list(results.rglob("*.png")))
    assert len({image["alt"] for image in images}) == len(images) and min(len(i["alt"]) for i in images) > 20


def test_every_rows_figures_stand_in_the_answer(results):
    table = page(results).select_one("header table.answer")
    rows = pd.read_csv(results / QUALITY).merge(pd.read_csv(results / COSTS), on="model")
    for (_, row), shown in zip(rows.iterrows(), table.select("tbody tr"), strict=True):
        text = " ".join(shown.get_text(" ").split())
        assert row["model"] in shown.th.get_text()
        assert f"{row['test_accuracy']:.2%}" in text and f"{row['test_accuracy_high']:.2%}" in text
        assert f"{row['test_macro_f1']:.4f}" in text and f"{row['test_macro_f1_low']:.4f}" in text
        assert f"{row['trainable_parameters']:,} of {row['parameters']:,}" in text
        assert f"{row['macs'] / 1e6:,.1f} M" in text and f"{row['total_training_seconds']:,.0f} s" in text
        assert f"{row['inference_images_per_second']:,.0f} images/s" in text
        assert len(shown.select("td[data-label]")) == len(table.select("thead th")) - 1


@pytest.mark.parametrize("older", [False, True])
def test_each_model_has_its_colour_and_each_encoder_is_named_once_below_the_answer(results, older):
    soup = page(renamed(results) if older else results)
    shades = [dot["style"] for dot in soup.select("table.answer .dot")]
    assert len(set(shades)) == len(shades) == 6 and len(soup.find_all("img")) == len(list(results.rglob("*.png")))
    notes = [" ".join(note.get_text().split()) for note in soup.select("header p.note")]
    (told,) = [note for note in notes if note.startswith("Encoder of ")]
    titles = pd.read_csv(results / QUALITY)["model"].tolist()[4:]
    weights = "timm's deit_tiny_patch16_224, file deit_tiny_patch16_224.safetensors, SHA-256 50130a98d970…"
    assert told == f"Encoder of {titles[0]} and of {titles[1]}: {weights}"
    heads = [head.get_text() for head in soup.select("#differences table thead th")]
    assert titles[0] in heads and (titles[0] == ENCODER) == older


def test_the_headline_says_which_by_how_much_and_at_what_cost(results):
    accuracy = np.array([0.877, 0.852, 0.707, 0.877, 0.902, 0.921])
    quality = {"test_accuracy": accuracy, "test_accuracy_low": accuracy - 0.006, "test_accuracy_high": accuracy + 0.006}
    change(results / QUALITY, **quality)
    speeds = {"inference_images_per_second": [13_167.0] * 4 + [84.0, 79.0]}
    change(results / COSTS, **speeds, total_training_seconds=[933.0] * 4 + [605.0] * 2)
    soup = page(results)
    lead, price = (soup.select_one(f"header p.{name}").get_text() for name in ("lead", "price"))
    assert "Probe, class token (DeiT-Tiny) is 2.5 points ahead: 90.2% accuracy against 87.7%" in lead
    assert "1,253 million multiply-adds an image, 121 times the other's 10" in price
    assert "605\u00a0s of training, 65% of the other's 933" in price and "84 images a second against 13,167" in price
    assert "Highest of all below, with 92.1%" in price and "overlap" not in price


def test_overlapping_intervals_and_a_tie_are_said(results):
    change(results / QUALITY, test_accuracy_low=0.5, test_accuracy_high=0.99)
    assert "intervals overlap" in page(results).select_one("header p.price").get_text()
    change(results / QUALITY, test_accuracy=0.8)
    soup = page(results)
    assert "are level: 80.0% and 80.0% accuracy" in soup.select_one("header p.lead").get_text()
    assert "Highest of all" not in soup.select_one("header p.price").get_text()


def test_the_answer_comes_first_and_the_contents_lead_everywhere(results):
    soup = page(results)
    assert [part["id"] for part in soup.find_all(["header", "section"])] == [
        *("answer", "conclusion", "models", "differences", "mistakes", "copies", "calibration"),
        *("studies", "milestones", "costs", "made"),
    ]
    ids = [tag["id"] for tag in soup.find_all(id=True)]
    assert len(ids) == len(set(ids)) and {tag["href"][1:] for tag in soup.find_all(href=True)} <= set(ids)
    levels = [int(tag.name[1]) for tag in soup.find_all(["h1", "h2", "h3", "h4", "h5", "h6"])]
    assert levels.count(1) == 1 and all(below - above <= 1 for above, below in pairwise(levels))
    assert soup.html["lang"] == "en" and "cifar10" in soup.title.text
    assert "Errata of the assignment" in soup.select_one("#conclusion h3").text


def test_odd_class_names_are_words(results):
    for path in results.rglob("per_class.csv"):
        pd.read_csv(path).head(len(ODD)).assign(**{"class": ODD}).to_csv(path, index=False)
    pairs = {"true": ODD, "predicted": ODD[::-1]}
    pd.read_csv(results / "confused_pairs.csv").head(len(ODD)).assign(**pairs).to_csv(
        results / "confused_pairs.csv", index=False
    )
    soup = page(results)
    assert soup.find_all("script") == []
    assert [span.text for span in soup.select(".classes span")] == ODD
    assert [head.text for head in soup.select_one("#models details").select("tbody th")] == ODD
    assert f"{ODD[0]} → {ODD[-1]}" in soup.select_one("#differences").get_text()


def test_studies_of_an_earlier_run_in_the_same_folder_are_not_this_runs(results):
    settings = json.loads((results / "config.json").read_text())
    for made, shown in (("all", {"penalty", "seeds"}), ("seeds, flips", {"seeds"}), ("none", set())):
        (results / "config.json").write_text(json.dumps(settings | {"studies": made}))
        text = page(results).get_text()
        heads = {"penalty": "Which penalty does the probe want?", "seeds": "Other seeds"}
        assert {name for name, head in heads.items() if head in text.replace("Other seeds.", "")} == shown
        assert ("Most confused" in text) == (made == "all")


def test_what_is_missing_is_left_out(results):
    for path in [path for path in results.iterdir() if path.name not in (QUALITY, COSTS)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    soup = page(results)
    assert soup.find_all(["img", "figure", "h3"]) == [] and len(soup.select("table.answer tbody tr")) == 6
    assert [part["id"] for part in soup.find_all("section")] == ["costs", "made"]
    assert [link["href"] for link in soup.select("nav a")] == ["#answer", "#costs", "#made"]


def test_without_comparisons_there_is_nothing_to_report(tmp_path):
    with pytest.raises(Hw1Error, match=f"There are no results in {tmp_path}: run `make run` first"):
        write_page(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (QUALITY, None, "is missing"),
        (COSTS, None, "is missing"),
        (QUALITY, b"", "is damaged (No columns to parse from file)"),
        ("seeds.csv", b"model\nx,1\ny,1,2", "is damaged (Error tokenizing data."),
        ("config.json", b"{", "is damaged (Expecting property name"),
        ("environment.json", b"", "is damaged (Expecting value"),
        ("conclusion.md", b"\xff\xfe", "is damaged ('utf-8' codec"),
        ("samples.png", b"", "is damaged (unpack requires"),
    ],
)
def test_a_missing_comparison_and_a_damaged_file_are_named(results, name, content, reason):
    (results / name).unlink() if content is None else (results / name).write_bytes(content)
    with pytest.raises(Hw1Error) as caught:
        write_page(results, results / "report.html")
    assert str(caught.value).startswith(f"{results / name} {reason}")
    assert str(caught.value).endswith(
        ": the run that wrote it writes it anew when it is started again; what is finished is not repeated."
    )


def look(results, **wrong):
    """What the studies `mistakes` and `feature_map` leave; `wrong`: how many mistakes, by the model's folder."""
    rows = [
        {"name": name, "path": f"test/{i}.png", "true": "NA", "predicted": ODD[0], "probability": 0.955 - i / 100}
        for name, count in wrong.items()
        for i in range(count)
    ]
    columns = ["name", "path", "true", "predicted", "probability", "p_true", "same_answer"]
    pd.DataFrame(rows, columns=columns).assign(p_true=0.01, same_answer=False).to_csv(
        results / "mistakes.csv", index=False
    )
    seen = {"path": list("abc"), "true": ["NA", "NA", "007"], "predicted": "NA", "nearest": "NA", "x": 0.0, "y": 1.0}
    pd.DataFrame(seen).to_csv(results / "feature_map.csv", index=False)
    for name in ("mistakes", "confused_cells", "feature_map"):
        shutil.copy(results / "penalty.png", results / f"{name}.png")


def test_a_look_at_the_mistakes_in_words_pictures_and_a_table(results):
    look(results, cnn=20, vit=3)
    section = page(results).select_one("#mistakes")
    text = " ".join(section.get_text().split())
    assert "CNN, tuned recipe is wrong on 20 of 10,000 test images, on 6 of them with a probability of 90%" in text
    assert "Images that both get wrong: 3; with the same answer: 0." in text and len(section.find_all("img")) == 3
    assert "Of 3 test images on the map, 2 (66.7%)" in text and "gets 1 of them wrong: the nearest is of" in text
    cells = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in section.select("tbody tr")]
    assert len(cells) == 12 and cells[0] == ["test/0.png", "NA", ODD[0], "0.955", "cnn"]


def test_where_nothing_is_wrong_that_is_said_and_studies_that_were_not_asked_are_left_out(results):
    look(results)
    section = page(results).select_one("#mistakes")
    assert "CNN, tuned recipe is right on all 10,000 test images" in section.get_text() and not section.find("table")
    settings = json.loads((results / "config.json").read_text())
    (results / "config.json").write_text(json.dumps(settings | {"studies": "feature_map"}))
    section = page(results).select_one("#mistakes")
    assert "right on all" not in section.get_text() and len(section.find_all("img")) == 1


def test_what_could_turn_the_verdict_stands_before_it(results):
    findings = [Finding("Labels: **1%**.", False), Finding(f"Without twins {literal(ODD[0])} **leads**.", True)]
    write(results, (results / "conclusion.md").read_text(), findings=findings)
    soup = page(results)
    box = soup.select_one("header .turning")
    assert [line.get_text() for line in box.find_all("p")][1:] == [f"Without twins {ODD[0]} leads."]
    assert (
        box.find_next("p", class_="lead") is not None and soup.select_one("p.lead").find_next(class_="turning") is None
    )
    told = soup.select_one("#conclusion").get_text()
    places = [told.index(words) for words in ("Without twins", "Convergence.", "Labels: 1%.")]
    assert places == sorted(places)
    write(results, "compared\n", findings=findings[:1])
    assert page(results).select_one(".turning") is None


def test_an_empty_table_is_left_out(results):
    pd.read_csv(results / "confused_pairs.csv").head(0).to_csv(results / "confused_pairs.csv", index=False)
    assert "Most confused" not in page(results).select_one("#differences").get_text()


def test_balanced_accuracy_leads_where_the_run_says_so(results):
    values = {"test_balanced_accuracy": 0.6, "test_balanced_accuracy_low": 0.512, "test_balanced_accuracy_high": 0.689}
    values["test_balanced_accuracy"] = [0.6, 0.5, 0.4, 0.55, 0.523, 0.61]
    change(results / QUALITY, leading="balanced_accuracy", **values)
    soup = page(results)
    assert "CNN, tuned recipe is 7.7 points ahead: 60.0% balanced accuracy" in soup.select_one("p.lead").get_text()
    first = soup.select_one("table.answer td")
    assert (
        first["data-label"] == "Balanced accuracy on test" and "60.00%" in first.text and "51.20 – 68.90%" in first.text
    )
    assert "0.83% of the other's 1,253;" in " ".join(soup.select_one("p.price").get_text().split()).replace(
        ", and", ";"
    )


def test_many_encoders_of_which_two_took_the_same_seconds_and_a_folder_of_an_earlier_run(results):
    shutil.copytree(results / "vit", results / "earlier")
    for table in (QUALITY, COSTS):
        rows = pd.read_csv(results / table)
        for number in range(8):
            title, name = f"linear probe on encoder_{number}.in1k [{number:012}]", f"encoder_{number}.in1k"
            rows.loc[len(rows)] = rows.iloc[4].to_dict() | {"model": title, "name": name}
        rows.to_csv(results / table, index=False)
    for number in range(8):
        shutil.copytree(results / "vit", results / f"encoder_{number}.in1k")
    soup = page(results)
    heads = [head.get_text().lower() for head in soup.select("#models h3")]
    assert heads == pd.read_csv(results / QUALITY)["model"].str.lower().tolist()
    assert len(soup.select("#models details")) == len(soup.select("table.answer tbody tr")) == 14


def test_a_model_that_was_trained_again_while_its_costs_stayed_keeps_its_pictures(results):
    change(results / "cnn" / "history.csv", elapsed_seconds=12345.0)
    assert len(page(results).find_all("img")) == len(list(results.rglob("*.png")))


@pytest.mark.parametrize("name", [QUALITY, COSTS])
def test_tables_of_an_older_version_are_refused_in_one_sentence(results, name):
    pd.read_csv(results / name).drop(columns="name").to_csv(results / name, index=False)
    with pytest.raises(Hw1Error, match="an older version's, without a column `name`: the run that wrote it"):
        write_page(results, results / "report.html")


def test_every_table_that_names_a_model_names_its_folder(results):
    for path in set(results.glob("*.csv")) - {results / "baselines.csv"}:  # what trains nothing has no folder
        table = pd.read_csv(path)
        names = set(table["name"]) - {"difference"} if "model" in table else set()
        assert {results / name for name in names} <= set(results.iterdir()), path.name


def test_a_price_of_nothing_is_no_ratio(results):
    change(results / COSTS, macs=[0] * 4 + [1e9] * 2, total_training_seconds=5.0)
    price = " ".join(page(results).select_one("p.price").get_text().split())
    assert "1,000 million multiply-adds an image, against the other's 0" in price
    assert "5.0 s of training, about the other's 5.0;" in price


def test_a_temperature_that_was_not_told_leaves_its_cells_empty(results):
    table = pd.read_csv(results / "calibration.csv")
    empty = ["temperature", "test_loss_rescaled", "calibration_error_rescaled"]
    table.loc[0, "identifiable"], table.loc[0, empty] = False, np.nan
    table.to_csv(results / "calibration.csv", index=False)
    cells = [cell.text for cell in page(results).select_one("#calibration tbody tr").select("td")]
    assert cells.count("–") == 1 + len(empty)


def test_two_hundred_classes_are_folded_up(results):
    for path in (*results.rglob("per_class.csv"), results / "differences.csv"):
        table = pd.concat([pd.read_csv(path)] * 20, ignore_index=True)
        table.assign(**{"class": [f"class_{i}" for i in range(200)]}).to_csv(path, index=False)
    soup = page(results)
    long = [table for table in soup.find_all("table", class_="dataframe") if len(table.select("tbody tr")) > 12]
    folds = [table.find_parent("details") for table in long]
    assert len(long) == 6 + 1 + 2 + 1 and all(  # of models, their differences, costs, suspected labels
        fold is not None and not fold.has_attr("open") for fold in folds
    )
    assert soup.find("summary", string="200 classes").parent.has_attr("open") is False
    assert (results.parent / "out" / "report.html").stat().st_size < 2e6


def test_a_study_of_several_encoders_names_them(results):
    one = pd.read_csv(results / "penalty.csv")
    heads = {title: f"#studies table:-soup-contains('{title}')" for title in ("probe A", "probe B")}
    tables = [one.assign(model=title, name="folder_of_it", chosen=one["strength"] == 1) for title in heads]
    pd.concat(tables).to_csv(results / "penalty.csv", index=False)
    soup = page(results)
    assert all(len(soup.select(head)) == 1 for head in heads.values())
    assert "folder_of_it" not in soup.get_text() and "yes" in soup.select_one(heads["probe B"]).get_text()


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("val_accuracy", [0.5, 1], ["50.00%", "100.00%"]),
        ("macs", [1234567, None], ["1,234,567", "–"]),
        ("step_ms", [0.5, 1234.5], ["0.5", "1,234.5"]),
        ("recall", [0.0, 0.87], ["0.000", "0.870"]),
        ("strength", [0.0001, 10], ["0.0001", "10"]),
        ("encoder", ["deit", None], ["deit", "–"]),
        ("chosen", [True, False], ["yes", "–"]),
    ],
)
def test_numbers_of_a_column_have_one_precision(name, values, words):
    assert _text(pd.Series(values, name=name)).tolist() == words


def test_what_trains_nothing_and_what_is_left_unanswered_have_their_places(results):
    row = {"model": "nearest neighbours on pixels", "name": "neighbours_pixels", "neighbours": 10, "difference": -0.5}
    row |= {"difference_low": -0.52, "difference_high": -0.48, "macs": 138240000, "encoder": ""}
    pd.DataFrame([{"model": "largest class", "name": "largest_class"}, row]).to_csv(
        results / "baselines.csv", index=False
    )
    row = {"model": "CNN, tuned recipe", "name": "cnn", "target_accuracy": 0.95, "reached": True, "test_coverage": 0.8}
    row |= {"test_coverage_low": 0.79, "test_coverage_high": 0.81}
    pd.DataFrame([row]).to_csv(results / "coverage.csv", index=False)
    steps = [{"model": "CNN, tuned recipe", "name": "cnn", "coverage": c, "test_accuracy": 0.9} for c in (0.1, 0.2)]
    pd.DataFrame(steps).to_csv(results / "accuracy_by_coverage.csv", index=False)
    soup = page(results)
    studies, trust = (
        " ".join(soup.select_one(f"#{name}").get_text(" ").split()) for name in ("studies", "calibration")
    )
    assert "Would something untrained have done?" in studies and "-50.00% (-52.00% to -48.00%)" in studies
    assert "predict --target-accuracy" in trust and "80.00% (79.00% to 81.00%)" in trust and "10% 20%" in trust
