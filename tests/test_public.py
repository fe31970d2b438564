"""The package as others use it: `import hw1_utils as hw1`, and the script that the README shows."""

import json
import os
import re
import subprocess
import sys

import hw1_utils as hw1
from hw1_utils.config import ROOT
from hw1_utils.questions import STUDIES


def test_importing_the_package_does_nothing():
    code = "import sys, hw1_utils; print(*[m for m in ('torch', 'timm', 'hw1_utils.config') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_public_name_is_there_and_means_a_thing_of_its_own():
    things = {name: getattr(hw1, name) for name in hw1.__all__}
    assert len({id(thing) for thing in things.values()}) == len(things) <= 25 + len(STUDIES)
    assert not [name for name, thing in things.items() if not (callable(thing) or name == "RECIPES")]


def test_a_public_name_is_not_hidden_by_a_module_of_its_name():
    assert not {path.stem for path in (ROOT / "hw1_utils").iterdir()} & set(hw1.__all__)


# Which steps a script calls, in what order.
WATCHED = """
import runpy

from hw1_utils import experiment

called = []


def watch(name, step):
    def watched(*args, **options):
        called.append(name)
        return step(*args, **options)

    setattr(experiment, name, watched)


if __name__ == "__main__":
    for name in ("train", "load_test", "evaluate_on_test"):
        watch(name, getattr(experiment, name))
    runpy.run_path("compare.py")
    print(*called)
"""


def test_the_script_in_the_readme_runs_as_it_stands(tmp_path, toy_folder):
    (script,) = re.findall(r"```python\n(import hw1_utils as hw1\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in script.splitlines() if line.strip()]) <= 15
    (tmp_path / "compare.py").write_text(script)
    (tmp_path / "watched.py").write_text(WATCHED)
    settings = {"data_dir": str(toy_folder), "output_dir": str(tmp_path / "out"), "device": "cpu", "profile_steps": 2}
    environment = {"HW1_PROFILE": "smoke", "HW1_OVERRIDES": json.dumps(settings), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "watched.py"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "probe, class token (test_vit)" in done.stdout and "CNN, tuned recipe" in done.stdout
    # The test set is opened when both models are trained. (The notebook: tests/studies/test_choices.py.)
    assert done.stdout.splitlines()[-1] == "train train load_test evaluate_on_test evaluate_on_test"
    assert {path.name for path in (tmp_path / "out/models").iterdir()} == {"cnn.safetensors", "vit.safetensors"}
