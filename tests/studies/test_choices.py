"""The notebook's cells, run in this process for every value of every choice that a setting offers."""

import json
from dataclasses import fields

import nbformat
import pandas as pd
import pytest
from conftest import called_steps
from PIL import Image

from hw1_utils import config
from hw1_utils.app.runner import LIVE, NOTEBOOK
from hw1_utils.measure import costs
from hw1_utils.report import figures

pytestmark = pytest.mark.usefixtures("one_thread", "quick_costs")
RUNS = [
    {"cnn_recipe": "assignment", "precision": "fp16", "device": "auto", "sanity_check": "warn"},
    {"cnn_recipe": "short", "precision": "bf16", "device": "cpu"},
    {"cnn_recipe": "tuned", "precision": "fp32", "device": "cpu"},
    {
        "cnn_recipe": "tuned",
        "precision": "auto",
        "device": "cpu",
        "sanity_check": "stop",
    },  # but for the device what test_notebook.py executes
]
ELSEWHERE = {"profile": config.PROFILES, "device": ["cuda"]}  # test_config.py and test_notebook.py; a GPU


def test_every_value_of_every_choice_is_run():
    for setting in fields(config.Config):
        name, values = setting.name, () if setting.metadata["path"] else setting.metadata["choices"]
        assert {run[name] for run in RUNS if name in run} | set(ELSEWHERE.get(name, ())) == set(values)


@pytest.mark.parametrize("choices", RUNS[:-1], ids=lambda choices: "-".join(choices.values()))
def test_the_notebook_runs_to_its_end(choices, make_smoke_config, monkeypatch, capsys):
    def save(_, path):  # drawing takes half the time and is looked at elsewhere
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1, 1)).save(path)
        return path

    called = called_steps(monkeypatch)
    monkeypatch.setattr(figures, "save", save)
    monkeypatch.setattr(costs, "_step_seconds", lambda run: 0.001)  # in fp16 a fifth of the time on a CPU
    few = {"train_size": 30, "val_size": 9, "test_size": 15}
    settings = make_smoke_config(cnn_epochs=1, short_epochs=1, probe_epochs=1, **few, **choices)
    monkeypatch.setenv("HW1_PROFILE", "smoke")
    overrides = {name: value for name, value in settings.as_dict().items() if name != "profile"}
    monkeypatch.setenv("HW1_OVERRIDES", json.dumps(overrides))
    names: dict = {}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code" and LIVE not in cell.metadata.get("tags", []):
            exec(cell.source, names)
    # The test set is opened once, when all models that are compared are trained.
    rows = pd.read_csv(settings.results_path / "model_metrics_comparison.csv")
    assert called == ["train"] * len(rows) + ["load_test"] + ["evaluate_on_test"] * len(rows)
    assert rows["recipe"][0] == choices["cnn_recipe"] and rows["model"].is_unique
    assert (settings.results_path / "conclusion.md").exists()
    assert {file.stem for file in settings.models_path.iterdir()} >= {"cnn", "cnn_distilled", "vit", "vit_blocks"}
