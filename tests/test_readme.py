"""The READMEs' figures are those of the committed CSVs."""

import shutil

import pandas as pd
import pytest

from hw1_utils import readme
from hw1_utils.config import ROOT
from hw1_utils.files import Hw1Error

FILES = ("README.md", "README.ru.md", "results/model_metrics_comparison.csv", "results/model_profile_comparison.csv")


@pytest.fixture
def copy(tmp_path):
    (tmp_path / "results").mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("name", ["README.md", "README.ru.md"])
def test_committed_tables_are_up_to_date(copy, name):
    readme.update(copy)
    written, committed = (place.joinpath(name).read_text(encoding="utf-8") for place in (copy, ROOT))
    assert written == committed, f"{name} differs from results/: run python -m hw1_utils readme"


def test_a_changed_csv_changes_the_table(copy):
    path = copy / FILES[2]
    quality = pd.read_csv(path)
    quality.loc[0, "test_accuracy"] = 0.1234
    quality.to_csv(path, index=False)
    readme.update(copy)
    assert "12.34%" in (copy / "README.md").read_text(encoding="utf-8")


def test_lost_markers_are_named(copy):
    (copy / "README.md").write_text("no table here")
    with pytest.raises(Hw1Error, match=r"README\.md has lost its lines"):
        readme.update(copy)


def test_committed_run_names_its_encoder_everywhere():
    for name in ("metrics", "profile"):
        last = pd.read_csv(ROOT / "results" / f"model_{name}_comparison.csv").iloc[-1]
        assert last["encoder"] in last["model"] and last["weights_sha256"][:12] in last["model"]
        assert last["profile"] == "full"
