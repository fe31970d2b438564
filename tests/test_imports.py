"""The package's shape: imports point downwards only, and nothing names a package registry's host."""

import ast
import subprocess

import pytest

from hw1_utils.config import ROOT

PACKAGE = ROOT / "hw1_utils"
BESIDE = {"errors", "config", "device", "metrics", "selective", "context", "questions"}
LESSON = {"data", "augment", "models", "optim", "training", "features", "experiment"}
MAY_IMPORT = {  # folders and modules of the top level; what each may import beside itself
    "__init__": {"questions"},
    "questions": set(),
    "errors": set(),
    "clusters": set(),
    "metrics": {"clusters"},
    "selective": set(),
    "augment": set(),
    "optim": set(),
    "device": {"errors"},
    "io": {"errors"},
    "config": {"errors", "device", "io", "questions"},
    "context": {"config", "device", "io"},
    "training": {"errors", "device", "io", "optim"},
    "data": {"errors", "config", "context", "metrics", "io"},
    "models": {"augment", "config", "io"},
    "features": {"errors", "device", "io", "data", "models"},
    "experiment": {*BESIDE, *LESSON, "io"},
    "measure": {"errors", "io", "device", "training"},
    "report": {"errors", "io", "device", "metrics", "questions"},
    "studies": {*BESIDE, *LESSON, "io", "measure", "report"},
    "deploy": {"errors", "io", "models", "augment", "device", "selective"},
    "app": {*BESIDE, *LESSON, "io", "measure", "report", "studies", "deploy"},
    "__main__": {"app"},
}


def imports(file):
    """What a file imports from the package when it runs, as paths; not what it takes for type hints alone."""
    place, tree = file.relative_to(PACKAGE).parent.parts, ast.parse(file.read_text(encoding="utf-8"))
    for_hints = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    hints = {id(n) for block in for_hints for n in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in hints and (node.level or "hw1_utils" in node.module):
            above = place[: len(place) + 1 - node.level] if node.level else ()
            path = (*above, *(node.module or "").removeprefix("hw1_utils").strip(".").split("."))
            yield from {tuple(filter(None, (*path, alias.name))) for alias in node.names}
        elif isinstance(node, ast.Import):
            yield from {tuple(a.name.split(".")[1:]) for a in node.names if a.name.startswith("hw1_utils.")}


def test_who_may_import_whom():
    wrong, seen = [], 0
    for file in PACKAGE.rglob("*.py"):
        here = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for found in imports(file):
            seen += 1
            if found[0] != here and found[0] not in MAY_IMPORT.get(here, set()):
                wrong.append(f"{file.relative_to(PACKAGE)} imports {'.'.join(found)}")
    assert wrong == [] and seen > 300


def test_the_loop_knows_no_model_and_no_dataset():
    found = {path[1] for path in imports(PACKAGE / "training.py") if path[0] == "io"}
    assert found == {"checkpoint", "progress", "tracking"}


def test_no_file_names_a_package_registrys_host():
    try:
        command = ["git", "ls-files", "-z"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("the list of tracked files needs git and a checkout")
    words = [".".join(parts) for parts in (("pypi", "org"), ("registry", "npmjs"), ("deb", "debian"))]
    words.append("python" + "hosted")  # in pieces: this file is searched too
    found, searched = [], 0
    for name in filter(None, listed.split("\0")):
        try:
            text = (ROOT / name).read_text(encoding="utf-8").lower()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue  # a picture; deleted but not yet committed; a submodule
        searched += 1
        found += [f"{name}: {word}" for word in words if word in text]
    assert found == [] and searched > 20
