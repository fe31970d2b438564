"""What is installed, and what is said where it cannot be."""

import subprocess
from importlib import metadata

import pytest

from hw1_utils.app import packages
from hw1_utils.config import ROOT
from hw1_utils.errors import Hw1Error


@pytest.fixture
def pip(monkeypatch):
    """No pip: `pip.asked` is what it would have been asked for, `pip.gives` what is there afterwards."""
    there = {"torch": "2.11.0", "numpy": "2.1"}

    class Pip:
        asked, gives = [], {}

    def version(name):
        if name in there:
            return there[name]
        raise metadata.PackageNotFoundError(name)

    def run(command, **_):
        Pip.asked += [word for word in command[4:] if not word.startswith("-")]
        there.update(Pip.gives)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: waiting\nERROR: no matching distribution\n")

    monkeypatch.setattr(packages.metadata, "version", version)
    monkeypatch.setattr(packages.subprocess, "run", run)
    return Pip


@pytest.fixture
def requirements(tmp_path):
    def write(*lines):
        (tmp_path / "requirements.txt").write_text("\n".join(lines), encoding="utf-8")
        return tmp_path / "requirements.txt"

    return write


def test_pip_is_asked_for_what_is_missing_or_too_old_alone(pip, requirements):
    pip.gives = {"thop": "0.1.1.post2209072238", "numpy": "2.4"}
    packages.install(requirements("# bounds", "torch>=2.6", "", "numpy>=2.2  # a reason", "thop>=0.1.1"))
    assert pip.asked == ["numpy>=2.2", "thop>=0.1.1"]


def test_pip_is_not_started_where_nothing_is_missing(pip, requirements):
    packages.install(requirements("torch>=2.6"))
    assert pip.asked == []


def test_without_thop_a_column_stays_empty_and_the_run_goes_on(pip, requirements, capsys):
    packages.install(requirements("torch>=2.6", "thop>=0.1.1"))
    said = "thop>=0.1.1 cannot be installed (ERROR: no matching distribution): the column macs_thop stays empty.\n"
    assert capsys.readouterr().out == said


def test_what_the_run_needs_and_cannot_have_is_said_in_one_sentence(pip, requirements):
    with pytest.raises(Hw1Error) as caught:
        packages.install(requirements("torch>=2.12", "thop>=0.1.1"))
    assert str(caught.value).startswith(
        "This Python lacks torch>=2.12, thop>=0.1.1, and pip cannot install it (ERROR: no"
    )


def test_here_everything_that_is_required_is_installed(monkeypatch):
    monkeypatch.setattr(packages.subprocess, "run", lambda *args, **kwargs: pytest.fail("pip was started"))
    packages.install(ROOT / "requirements.txt")
