"""The copy of the package that the notebook carries."""

import shutil

import nbformat
import pytest

from hw1_utils.app.runner import NOTEBOOK
from hw1_utils.config import ROOT
from tools.carry import carried, carry, wanted


def test_the_notebook_carries_this_very_package():
    same = carried() == wanted()
    assert same, "hw1_utils/ or requirements.txt has changed: `make notebook` puts it into hw1.ipynb"
    assert {"hw1_utils/__init__.py", "hw1_utils/report/page.html.j2", "requirements.txt"} <= set(carried())


@pytest.fixture
def copy(tmp_path):
    """A notebook and a package of one file, which the notebook does not carry yet."""
    (tmp_path / "hw1_utils").mkdir()
    (tmp_path / "hw1_utils" / "__init__.py").write_text("ANSWER = 42\n")
    (tmp_path / "requirements.txt").write_text("torch\n")
    return shutil.copy(NOTEBOOK, tmp_path / "hw1.ipynb")


def test_a_change_is_carried_and_nothing_else_in_the_notebook_changes(copy):
    carry(copy, copy.parent)
    assert carried(copy) == {"hw1_utils/__init__.py": b"ANSWER = 42\n", "requirements.txt": b"torch\n"}
    before, after = (nbformat.read(path, as_version=4) for path in (NOTEBOOK, copy))
    changed = [(old, new) for old, new in zip(before.cells, after.cells, strict=True) if old != new]
    assert [old.id for old, _ in changed] == ["setup"]
    lines = [zip(old.source.splitlines(), new.source.splitlines(), strict=True) for old, new in changed]
    assert sum(old != new for pairs in lines for old, new in pairs) == 1


def test_carrying_twice_is_carrying_once(copy):
    carry(copy, copy.parent)
    once = copy.read_bytes()
    carry(copy, copy.parent)
    assert copy.read_bytes() == once


def test_caches_of_python_are_not_carried():
    assert not [name for name in wanted(ROOT) if "__pycache__" in name]
