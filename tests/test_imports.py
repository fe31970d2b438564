"""The package's shape: imports point downwards only, and nothing names a package registry's host."""

import ast
import subprocess
import sys

import pytest

from hw1_utils.config import ROOT

PACKAGE = ROOT / "hw1_utils"
# From the bottom up; a module imports from lower lines only.
LAYERS = [
    {"__init__"},
    {"files", "words"},
    {"runtime", "weight_files"},
    {"config", "arrays", "batching"},
    {"cifar10", "folders", "images", "augment", "metrics", "backup"},
    {"data", "recipes"},
    {"weights"},
    {"models"},
    {"features"},
    {"checkpoint", "tracking", "profiling"},
    {"training"},
    {"preparation"},
    {"tasks"},
    {"probes"},
    {"costs"},
    {"experiment"},
    {"judging"},
    {"saved"},
    {"export"},
    {"figures"},
    {"charts"},
    {"conclusion", "evidence", "studies"},
    {"penalty"},
    {"report"},
    {"notebook", "page", "readme"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports_of(name: str) -> set[str]:
    """Modules of the package that one of them imports, anywhere in its code."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:  # from .files import x, from . import files
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "hw1_utils":
            found |= {*node.module.split(".")[1:2]} or {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {part for a in node.names if a.name.startswith("hw1_utils") for part in a.name.split(".")[1:2]}
    return {module for module in found if (PACKAGE / f"{module}.py").exists()}


def test_every_module_has_its_place():
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(LEVEL)


def test_the_imports_are_found_at_all():
    assert imports_of("models") == {"augment", "config", "weights"}
    assert {"costs", "preparation", "tasks"} <= imports_of("experiment")


@pytest.mark.parametrize("name", sorted(LEVEL))
def test_imports_point_downwards_only(name):
    upwards = {module for module in imports_of(name) if LEVEL[module] >= LEVEL[name]}
    assert upwards == set()


def reachable(name: str) -> set[str]:
    direct = imports_of(name)
    return direct.union(*(reachable(module) for module in direct))


@pytest.mark.parametrize("name", ["augment", "data", "metrics", "models"])
def test_the_lower_modules_know_nothing_of_training(name):
    assert reachable(name) <= {
        "arrays",
        "augment",
        "config",
        "files",
        "folders",
        "images",
        "runtime",
        "weight_files",
        "weights",
    }


def test_the_loop_knows_no_model_and_no_dataset():
    assert not reachable("training") & {"models", "features", "data", "cifar10", "augment", "config"}


def test_importing_the_package_does_nothing():
    code = "import sys, hw1_utils; print(*[m for m in ('torch', 'timm', 'hw1_utils.config') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


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
