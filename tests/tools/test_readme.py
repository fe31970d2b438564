"""The figures in READMEs and docs/ are those of the committed CSVs."""

import os
import shutil

import pandas as pd
import pytest

from hw1_utils.config import ROOT
from hw1_utils.errors import Hw1Error
from tools import readme

TEXTS = ("README.md", "README.ru.md", "docs/your-own-images.md")
FILES = (*TEXTS, *(f"results/{name}" for name in os.listdir(ROOT / "results") if name.endswith((".csv", ".json"))))


@pytest.fixture
def copy(tmp_path):
    for folder in ("results", "docs"):
        (tmp_path / folder).mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("name", TEXTS)
def test_committed_tables_and_figures_are_up_to_date(copy, name):
    readme.update(copy)
    written, committed = (place.joinpath(name).read_text(encoding="utf-8") for place in (copy, ROOT))
    assert written == committed, f"{name} differs from results/: run python -m tools.readme"


def test_a_changed_csv_changes_the_table(copy):
    path = copy / "results/model_metrics_comparison.csv"
    quality = pd.read_csv(path)
    quality.loc[0, "test_accuracy"] = 0.1234
    quality.to_csv(path, index=False)
    readme.update(copy)
    texts = [(copy / name).read_text(encoding="utf-8") for name in TEXTS]
    assert (
        "12.34%" in texts[0]
        and "12.34%" in texts[1]
        and "against <!-- figure: cnn -->12.3<!-- /figure --> %" in texts[0]
    )
    assert "probe, by <!-- figure: gap -->77.8<!-- /figure --> points" in texts[2]


def test_a_quoted_figure_that_there_is_not_is_named(copy):
    (copy / TEXTS[2]).write_text("it is <!-- figure: speed -->9<!-- /figure --> fast")
    with pytest.raises(Hw1Error, match=r"your-own-images.md quotes speed: the figures there are cnn, gap"):
        readme.update(copy)


def test_a_models_name_is_no_markup(copy):
    path = copy / "results/model_metrics_comparison.csv"
    pd.read_csv(path).assign(model="a|b <img src=x>").to_csv(path, index=False)
    readme.update(copy)
    assert "| a\\|b \\<img src=x\\> | " in (copy / "README.md").read_text(encoding="utf-8")


def test_lost_markers_are_named(copy):
    (copy / "README.md").write_text("no table here")
    with pytest.raises(Hw1Error, match=r"README\.md has lost its lines"):
        readme.update(copy)


def test_committed_run_names_its_encoder_everywhere():
    for name in ("metrics", "profile"):
        last = pd.read_csv(ROOT / "results" / f"model_{name}_comparison.csv").iloc[-1]
        assert last["encoder"] in last["model"] and last["weights_sha256"][:12] in last["model"]
        assert last["profile"] == "full"
