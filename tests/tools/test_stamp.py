"""The repository's address in notebook and READMEs, stamped on copies."""

import shutil

import nbformat
import pytest

from hw1_utils.app.runner import NOTEBOOK
from hw1_utils.errors import Hw1Error
from tools.stamp import stamp

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


def test_stamp_writes_badge_and_repo_url_and_nothing_else(copies):
    book, readme = copies
    before = lines_of(book)
    stamp(URL, copies)
    after = lines_of(book)
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    badges = [new for _, new in changed if new.startswith("[![Open in Colab]")]
    urls = [(old, new) for old, new in changed if new.startswith("REPO_URL")]
    assert len(badges) == len(urls) == 1 and len(changed) == 2
    assert badges[0].endswith(f"({BADGE})")
    (old, new), comment = urls[0], urls[0][0].partition("  #")[2]
    assert new == f'REPO_URL = "{URL}"  #{comment}' and comment in old  # the comment stays
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


@pytest.mark.parametrize("spelling", [f"{URL}/", f"{URL}.git", f"{URL}.git/"])
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
