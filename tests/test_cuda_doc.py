"""docs/cuda.md lists every place that CUDA alone runs, by names that there are."""

import ast
import re

import pytest

from benchmarks.gpu import CHECKS
from hw1_utils.config import ROOT

PACKAGE = ROOT / "hw1_utils"
ROW = re.compile(r"^\| \[`(\w+)\.(\w+)`\]\(\.\./hw1_utils/([\w/]+\.py)\) \| .+ \| ([\w, ]+) \| ([\w, ]*) ?\|$")
TELLS = {"cuda", "OutOfMemoryError", "pin_memory"}  # words of code that only a GPU runs


def rows():
    text = (ROOT / "docs/cuda.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| [")]
    return [found.groups() for line in lines if (found := ROW.match(line)) or pytest.fail(line)]


def top_level(file):
    tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def names_cuda(node):
    words = {getattr(part, "attr", None) or getattr(part, "value", None) for part in ast.walk(node)}
    return bool(TELLS & {word for word in words if isinstance(word, str)})


def test_the_places_and_the_checks_are_there():
    for module, name, file, how, checks in rows():
        assert file.rpartition("/")[2] == f"{module}.py" and name in top_level(file), f"{file} has no {name}"
        assert set(how.split(", ")) <= {"H200", "fake", "CPU", "read"}, how
        assert "H200" not in how or checks.strip(), f"{name}: by which check?"
        names = set(filter(None, re.split(", ?", checks.strip())))
        assert names <= {*CHECKS, "full", "the line below the table"}, names


def test_every_place_that_names_cuda_has_its_row():
    listed = {(file, name) for _, name, file, *_ in rows()}
    found = {
        (file.relative_to(PACKAGE).as_posix(), name)
        for file in PACKAGE.rglob("*.py")
        for name, node in top_level(file.relative_to(PACKAGE)).items()
        if names_cuda(node)
    }
    assert len(found) > 10 and found <= listed, found - listed
