"""The package as others use it: `import hw1_utils as hw1`, and the script that the README shows."""

import json
import re
import runpy
import subprocess
import sys

from conftest import called_steps

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


def test_the_script_in_the_readme_runs_as_it_stands(tmp_path, toy_folder, monkeypatch, capsys, one_thread, quick_costs):
    """In a process of its own a script measures memory, too: tests/measure/test_profiling.py."""
    (script,) = re.findall(r"```python\n(import hw1_utils as hw1\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in script.splitlines() if line.strip()]) <= 15
    (tmp_path / "compare.py").write_text(script)
    settings = {"data_dir": str(toy_folder), "output_dir": str(tmp_path / "out"), "device": "cpu", "profile_steps": 2}
    monkeypatch.setenv("HW1_PROFILE", "smoke")
    monkeypatch.setenv("HW1_OVERRIDES", json.dumps(settings))
    monkeypatch.chdir(tmp_path)
    called = called_steps(monkeypatch)
    runpy.run_path("compare.py")
    said = capsys.readouterr().out
    assert "probe, class token (test_vit)" in said and "CNN, tuned recipe" in said
    # The test set is opened when both models are trained. (The notebook: tests/studies/test_choices.py.)
    assert called == ["train", "train", "load_test", "evaluate_on_test", "evaluate_on_test"]
    assert {path.name for path in (tmp_path / "out/models").iterdir()} == {"cnn.safetensors", "vit.safetensors"}
