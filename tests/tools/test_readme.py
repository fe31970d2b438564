"""The figures in READMEs, docs/ and notebook are those of the committed CSVs."""

import os
import re
import shutil

import nbformat
import pandas as pd
import pytest

from hw1_utils.config import ROOT
from hw1_utils.errors import Hw1Error
from hw1_utils.optim import RECIPES
from tools import readme

TEXTS = ("README.md", "README.ru.md", "docs/your-own-images.md", "hw1.ipynb")
RESULTS = [name for name in os.listdir(ROOT / "results") if name.endswith((".csv", ".json", ".md"))]
FILES = (*TEXTS, *(f"results/{name}" for name in RESULTS))


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
    gap = (quality.set_index("name").loc["vit", "test_accuracy"] - 0.1234) * 100
    assert f"probe, by <!-- figure: gap -->{gap:.1f}<!-- /figure --> points" in texts[2]
    assert "**CNN, tuned recipe** | 12.3% (" in nbformat.reads(texts[3], as_version=4).cells[0].source


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


def test_the_notebook_begins_with_the_answer(copy):
    """The two that are compared, then the best other CNN and the best other probe on validation."""
    path = copy / "results/model_metrics_comparison.csv"
    quality = pd.read_csv(path).assign(model=[f"model {i}" for i in range(6)], test_accuracy=0.5)
    quality.assign(val_score=[0.8, 0.7, 0.9, 0.6, 0.8, 0.7]).to_csv(path, index=False)
    answer = readme.answer(copy / "results")
    rows = [line.split(" | ")[0].strip("|* ") for line in answer.splitlines() if line.startswith("| ")]
    assert rows == ["Model", "model 0", "model 4", "model 2", "model 5"]
    assert answer.splitlines()[-1].startswith("**Conclusion.**")


def test_a_notebook_without_its_place_for_the_answer_is_named(copy):
    text = (copy / "hw1.ipynb").read_text(encoding="utf-8")
    (copy / "hw1.ipynb").write_text(text.replace(readme.END, ""), encoding="utf-8")
    with pytest.raises(Hw1Error, match=r"hw1\.ipynb has lost its lines"):
        readme.update(copy)


def test_committed_run_names_its_encoder_everywhere():
    for name in ("metrics", "profile"):
        last = pd.read_csv(ROOT / "results" / f"model_{name}_comparison.csv").iloc[-1]
        assert last["profile"] == "full" and len(last["weights_sha256"]) == 64
        for text in TEXTS[:2]:
            said = f"`{last['encoder']}`: SHA256 of the weights {last['weights_sha256'][:12]}."
            assert said in (ROOT / text).read_text(encoding="utf-8")


def test_what_stands_above_the_recipes_is_up_to_date(copy):
    path = "hw1_utils/optim.py"
    committed = (ROOT / path).read_text(encoding="utf-8")
    assert {claim[2] for claim in readme.CLAIM.finditer(committed)} == {*RECIPES, "cls", "blocks"}
    (copy / "hw1_utils").mkdir()
    shutil.copy(ROOT / path, copy / path)
    readme.update_recipes(copy)
    assert (copy / path).read_text(encoding="utf-8") == committed, "run python -m tools.readme"
    quality = pd.read_csv(ROOT / "results/model_metrics_comparison.csv")
    quality.assign(test_accuracy=0.1234).to_csv(copy / "results/model_metrics_comparison.csv", index=False)
    readme.update_recipes(copy)
    changed = (copy / path).read_text(encoding="utf-8")
    assert re.search(r"    # result of tuned: 80 epochs, 12\.3 % \(.*\n    \"tuned\": _TUNED,\n", changed)


@pytest.mark.parametrize("name", TEXTS[:2])
def test_the_layout_in_the_readme_is_the_repositorys(name):
    (tree,) = re.findall(r"```\n(hw1\.ipynb .*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    shown, above = [], [""]  # the folder that lines of each depth lie in
    for indent, name in re.findall(r"^( *)([\w.-]+/?)", tree, re.MULTILINE):
        depth = len(indent) // 2
        shown.append(above[depth] + name)
        above[depth + 1 :] = [shown[-1]]
    assert not [path for path in shown if not (ROOT / path).exists()]
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hw1_utils").rglob("*.*") if path.is_file()}
    package = {path for path in package if not re.search("__pycache__|/.*/__init__.py", path)}
    assert sorted(path for path in shown if re.match(r"hw1_utils/.*\w$", path)) == sorted(package)


@pytest.mark.parametrize("name", (*TEXTS[:3], "docs/how-it-works.md", "docs/cuda.md", "benchmarks/README.md"))
def test_links_lead_to_files_and_to_what_they_name(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for shown, target in re.findall(r"\[([^\]]*)\]\((?!https?:|#)([^)#]*)", text):
        place = (ROOT / name).parent / target
        assert place.exists(), f"{name} links to {target}"
        if thing := re.fullmatch(r"`(?:\w+\.)*(\w+)`", shown.replace(".py`", "`")):
            assert place.stem == thing[1] or re.search(rf"\b{thing[1]}\b", place.read_text(encoding="utf-8")), shown
