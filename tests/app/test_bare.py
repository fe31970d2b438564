"""The notebook alone in a folder: what its setup cell finds, attached or carried, and makes of it."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

from hw1_utils.app.runner import NOTEBOOK
from hw1_utils.config import ROOT
from tools.carry import wanted

WHERE = """
import hw1_utils
print(os.path.realpath(hw1_utils.__file__), os.environ.get("HW1_OUTPUT"))
"""


@pytest.fixture
def set_up(tmp_path):
    """`set_up(folder)`: (file of the package, HW1_OUTPUT) after the cell was run there; Kaggle is tmp_path/kaggle."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    source = next(cell.source for cell in cells if cell.id == "setup").replace("/kaggle", f"{tmp_path}/kaggle")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HW1_", "PYTHONPATH"))}

    def run(folder):
        folder.mkdir(exist_ok=True, parents=True)
        given = {"input": source + WHERE, "cwd": folder, "env": environment}
        return subprocess.run([sys.executable, "-"], **given, capture_output=True, text=True, check=True).stdout.split()

    return run


def package(place, line="MINE = True\n"):
    """A package in `place`: this one, with another line."""
    shutil.copytree(ROOT / "hw1_utils", place / "hw1_utils", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.txt", place)
    with open(place / "hw1_utils" / "__init__.py", "a", encoding="utf-8") as file:
        file.write(line)
    return place


def text_of(file):
    with open(file, encoding="utf-8") as opened:
        return opened.read()


def test_alone_the_notebook_unpacks_what_it_carries_into_a_folder_of_its_own(set_up, tmp_path):
    here = tmp_path / "content"
    file, output = set_up(here)
    assert file == f"{here}/hw1/hw1_utils/__init__.py" and output == "None"
    found = {name: (here / "hw1" / name).read_bytes() for name in wanted()}
    assert found == wanted() and [path.name for path in here.iterdir()] == ["hw1"]


def test_what_was_unpacked_stays_as_it_is_until_the_notebook_carries_something_else(set_up, tmp_path):
    file, _ = set_up(tmp_path / "content")
    with open(file, "a", encoding="utf-8") as opened:
        opened.write("# edited\n")
    set_up(tmp_path / "content")
    assert text_of(file).endswith("# edited\n")
    mark = tmp_path / "content/hw1/hw1_utils/.copy"
    mark.write_text("of an older notebook")
    (tmp_path / "content/hw1/hw1_utils/gone.py").touch()
    set_up(tmp_path / "content")
    assert "# edited" not in text_of(file) and not (tmp_path / "content/hw1/hw1_utils/gone.py").exists()


def test_a_package_of_ones_own_is_never_replaced(set_up, tmp_path):
    package(tmp_path / "content" / "hw1")
    file, _ = set_up(tmp_path / "content")
    assert file.startswith(f"{tmp_path}/content/hw1") and "MINE" in text_of(file)


@pytest.mark.parametrize("below", ["", "notebooks/mine"])
def test_a_package_beside_the_notebook_or_above_it_comes_first(set_up, tmp_path, below):
    package(tmp_path / "repository")
    (tmp_path / "kaggle/input").mkdir(parents=True)
    file, output = set_up(tmp_path / "repository" / below)
    assert file == f"{tmp_path}/repository/hw1_utils/__init__.py"
    assert output == "None" and not (tmp_path / "kaggle/temp").exists()


def test_an_older_package_above_it_is_passed_by(set_up, tmp_path):
    older = package(tmp_path / "repository")
    shutil.rmtree(older / "hw1_utils/app")
    file, _ = set_up(older / "notebooks")
    assert file == f"{older}/notebooks/hw1/hw1_utils/__init__.py"


@pytest.mark.skipif(sys.platform != "linux", reason="a folder in which nobody may write, root included")
def test_a_folder_that_cannot_be_written_is_one_sentence(set_up):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        set_up(Path("/proc"))
    assert "/proc/hw1 cannot be written (" in failed.value.stderr.splitlines()[-1]


@pytest.mark.parametrize("place", ["helpers", "datasets/owner/helpers", "datasets/owner/helpers/hw1-main", None])
def test_on_kaggle_what_is_attached_comes_before_the_copy_and_results_are_kept(set_up, tmp_path, place):
    (tmp_path / "kaggle/input/flowers").mkdir(parents=True)
    if place:
        package(tmp_path / "kaggle/input" / place)
    file, output = set_up(tmp_path / "kaggle/working")
    assert file == f"{tmp_path}/kaggle/temp/hw1/hw1_utils/__init__.py" and ("MINE" in text_of(file)) == bool(place)
    assert output == f"{tmp_path}/kaggle/working/hw1"
    assert list((tmp_path / "kaggle/working").iterdir()) == []  # sixty thousand pictures would be no result


def test_an_unpacking_that_was_interrupted_is_done_again(set_up, tmp_path):
    half = tmp_path / "content/hw1/.fresh-abc/hw1_utils"
    half.mkdir(parents=True)
    (half / "half.py").touch()
    file, _ = set_up(tmp_path / "content")
    assert file == f"{tmp_path}/content/hw1/hw1_utils/__init__.py" and wanted() == {
        name: (tmp_path / "content/hw1" / name).read_bytes() for name in wanted()
    }


@pytest.mark.parametrize("what", ["a project", "a file"])
def test_a_hw1_that_is_something_else_is_left_alone(set_up, tmp_path, what):
    other = tmp_path / "content/hw1"
    other.parent.mkdir()
    if what == "a file":
        other.write_text("mine")
    else:
        (other / "hw1_utils").mkdir(parents=True)
        (other / "requirements.txt").write_text("mine")
    file, _ = set_up(tmp_path / "content")
    assert file == f"{tmp_path}/content/hw1_unpacked/hw1_utils/__init__.py"
    assert (other if what == "a file" else other / "requirements.txt").read_text() == "mine"


def test_notebooks_that_start_together_do_not_disturb_one_another(set_up, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        files = {file for file, _ in pool.map(set_up, [tmp_path / "content"] * 4)}
    found = {name: (tmp_path / "content/hw1" / name).read_bytes() for name in wanted()}
    assert files == {f"{tmp_path}/content/hw1/hw1_utils/__init__.py"} and found == wanted()
    assert not list((tmp_path / "content/hw1").glob(".fresh-*"))
