"""The repository's address in notebook and READMEs, stamped on copies."""

import shutil
import subprocess

import nbformat
import pytest

from hw1_utils.app.runner import NOTEBOOK
from hw1_utils.errors import Hw1Error
from tools.stamp import origin, stamp

URL = "https://github.com/someone/some-repo"
BADGE = "https://colab.research.google.com/github/someone/some-repo/blob/main/hw1.ipynb"
README = """# A title

[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)

A [link](https://colab.research.google.com/) that is not the badge.
"""


@pytest.fixture
def copies(tmp_path):
    """Copies of the notebook and a README."""
    book, readme = tmp_path / "hw1.ipynb", tmp_path / "README.md"
    shutil.copy(NOTEBOOK, book)
    readme.write_text(README, encoding="utf-8")
    return book, readme


def lines_of(book):
    document = nbformat.read(book, as_version=4)
    nbformat.validate(document)
    return [line for cell in document.cells for line in cell.source.split("\n")]


def test_stamp_writes_the_badges_and_nothing_else(copies):
    book, readme = copies
    before = lines_of(book)
    stamp(URL, copies)
    ((old, new),) = [(old, new) for old, new in zip(before, lines_of(book), strict=True) if old != new]
    assert old.startswith("[![Open in Colab]") and new == f"{old[: old.rindex('(')]}({BADGE})"
    colab = "https://colab.research.google.com/"
    assert readme.read_text() == README.replace(f"svg)]({colab})", f"svg)]({BADGE})")


def test_stamping_twice_is_stamping_once(copies):
    stamp(URL, copies)
    once = [file.read_bytes() for file in copies]
    stamp(URL, copies)
    assert [file.read_bytes() for file in copies] == once


def test_a_second_address_replaces_the_first(copies):
    stamp("https://github.com/first/one", copies)
    stamp(URL, copies)
    text = "\n".join([*lines_of(copies[0]), copies[1].read_text()])
    assert "first/one" not in text and text.count(BADGE) == 2


@pytest.mark.parametrize(
    "spelling",
    [
        *(f"{URL}/", f"{URL}.git", f"{URL}.git/", URL.replace("://", "://user:token@")),
        *("git@github.com:someone/some-repo.git", "ssh://git@github.com/someone/some-repo"),
    ],
)
def test_the_badge_address_does_not_depend_on_spelling(copies, spelling):
    stamp(spelling, copies)
    assert f"({BADGE})" in copies[1].read_text()


@pytest.mark.parametrize(
    "url",
    ["", "someone/some-repo", "https://gitlab.com/a/b", "https://github.com/a", f"{URL}/tree/main", "http://x/y/z"],
)
def test_a_bad_address_is_one_sentence_and_changes_nothing(copies, url):
    before = [file.read_bytes() for file in copies]
    with pytest.raises(Hw1Error, match="https://github.com/OWNER/NAME"):
        stamp(url, copies)
    assert [file.read_bytes() for file in copies] == before


def test_the_address_is_the_git_remote_where_none_is_given(tmp_path):
    for words in (["init", "-q"], ["remote", "add", "origin", "git@github.com:someone/some-repo.git"]):
        assert origin(tmp_path) == ""
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert origin(tmp_path) == "git@github.com:someone/some-repo.git"
