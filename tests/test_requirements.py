"""The version files agree with one another."""

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from hw1_utils.config import ROOT


def read(name):
    """name -> Requirement, of a requirements or constraints file."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return {one.name: one for one in map(Requirement, (line for line in lines if line and not line.startswith("-")))}


REQUIRED, DEVELOPMENT = read("requirements.txt"), read("requirements-dev.txt")
PINNED = {name: read(f"constraints{name}.txt") for name in ("", "-colab")}


def version(pin):
    (one,) = pin.specifier
    assert one.operator == "==", pin
    return one.version


@pytest.mark.parametrize("name", PINNED)
def test_what_is_pinned_is_allowed(name):
    for package, pin in PINNED[name].items():
        for required in (REQUIRED, DEVELOPMENT):
            if package in required:
                assert required[package].specifier.contains(version(pin)), f"{pin}, but {required[package]}"


def test_no_lower_bound_is_below_what_is_tested():
    for package, required in REQUIRED.items():
        lowest = next(one.version for one in required.specifier if one.operator == ">=")
        if package not in ("setuptools", "thop"):  # an old one will do; Colab has none
            tested = Version(version(PINNED["-colab"][package])).release
            assert tested[: len(Version(lowest).release)] == Version(lowest).release, package


@pytest.mark.parametrize("name", PINNED)
def test_no_tensorboard_meets_a_setuptools_that_it_cannot_start_with(name):
    tensorboard, setuptools = (Version(version(PINNED[name][package])) for package in ("tensorboard", "setuptools"))
    assert tensorboard >= Version("2.21") or setuptools < Version("82")
    assert not REQUIRED["setuptools"].specifier.contains("82.0")
    assert REQUIRED["tensorboard"].specifier.contains("2.20.0")  # Colab's
