"""The notebook from top to bottom in the smoke profile, headless, in a fresh kernel; its outputs are inspected."""

import contextlib
import gzip
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import nbformat
import pandas as pd
import pytest
import torch
from jupyter_client import AsyncKernelManager
from PIL import Image
from tensorboard import manager

from hw1_utils.app import runner as notebook
from hw1_utils.app.runner import LIVE, NOTEBOOK, execute
from hw1_utils.config import ROOT, STUDIES
from hw1_utils.deploy import saved
from hw1_utils.errors import Hw1Error

OUTPUTS = ROOT / "outputs" / "smoke"
MODELS = ("cnn", "cnn_short", "cnn_assignment", "cnn_distilled", "vit", "vit_blocks")


COMMAND = [sys.executable, "-m", "hw1_utils", "run", "--profile", "smoke"]
SHORT = [*COMMAND, "--studies", "none"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("HW1_")}


@pytest.fixture(scope="module")
def interrupted():
    """What is left of a run, nothing of earlier ones before it, when Ctrl-C is pressed in the second epoch."""
    shutil.rmtree(OUTPUTS, ignore_errors=True)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(SHORT, cwd=ROOT, env=ENVIRONMENT, start_new_session=True, **pipes) as process:
        lines = iter(process.stdout.readline, "")
        assert any("2 of 3 epochs" in line for line in lines)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, said = process.communicate()
    return process.returncode, said


@pytest.fixture(scope="module")
def short(interrupted):
    """What the same command again says, which goes to the end, and a copy of what it leaves."""
    done = subprocess.run(SHORT, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    left = {path.relative_to(OUTPUTS).as_posix(): path.read_bytes() for path in OUTPUTS.rglob("*") if path.is_file()}
    return done.stdout, left


@pytest.fixture(scope="module")
def run(short, tmp_path_factory):
    """The run with all its questions, which need what is there already, with a folder of its own for TensorBoard."""
    own = tmp_path_factory.mktemp("servers")
    done = subprocess.run(COMMAND, cwd=ROOT, env=ENVIRONMENT | {"TMPDIR": str(own)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list((own / ".tensorboard-info").glob("*")), "a TensorBoard server was left behind"
    return done


@pytest.fixture(scope="module")
def executed(run):
    return nbformat.read(OUTPUTS / "hw1.ipynb", as_version=4)


def code_cells(document):
    return [cell for cell in document.cells if cell.cell_type == "code"]


def test_ctrl_c_ends_the_run_and_the_same_command_continues_it(interrupted, short):
    code, said = interrupted
    assert code == 130
    assert said.strip() == "hw1: stopped; the same command continues after the last finished epoch."
    assert re.search("  continuing after epoch [23], saved on disk", short[0])  # Ctrl-C may come an epoch late


def test_every_cell_ran_in_order_and_none_shows_an_error_or_a_warning(executed):
    cells = code_cells(executed)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", output
            assert output.get("name") != "stderr", output.text
            text = output.get("text", "") + str(output.get("data", {}).get("text/html", ""))
            assert "Traceback" not in text and "WARNING" not in text and "nan" not in text.lower().split(), text


def test_cells_that_should_show_something_do(executed):
    silent = [c.source for c in code_cells(executed) if not c.outputs and LIVE not in c.metadata.get("tags", [])]
    assert all(source.startswith("PROFILE") for source in silent), silent
    pictures = [o for c in code_cells(executed) for o in c.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 20  # samples, 3 curves, confusion, 3 of comparison and costs, 12 of further questions
    said = {c.id: "".join(o.get("data", {}).get("text/markdown", "") for o in c.outputs) for c in code_cells(executed)}
    assert "**Conclusion.**" in said["conclusion"] and "test_vit" in said["conclusion"]
    assert "**Other seeds.**" in said["rest"] and "## Errata" in said["rest"]
    before, after = (OUTPUTS / "results" / "conclusion.md").read_text().split(said["conclusion"])
    assert said["rest"] == before + after and said["duplicates"] in after and said["label_errors"] in after
    assert "class CNN(nn.Module)" in said["models"] and "def forward" in said["models"]
    assert said["loop"].startswith("```python\nfor step,") and "loss).backward()" in said["loop"]


@pytest.mark.parametrize("which", ["committed", "executed"])
def test_notebook_keeps_its_budget(which, request):
    path = NOTEBOOK if which == "committed" else OUTPUTS / "hw1.ipynb"
    document = nbformat.read(NOTEBOOK, as_version=4) if which == "committed" else request.getfixturevalue(which)
    outputs = [output for cell in code_cells(document) for output in cell.outputs]
    shown = [output.get("data", {}) for output in outputs]
    printed = [output.text for output in outputs if output.output_type == "stream"]
    printed += [data["text/plain"] for data in shown if list(data) == ["text/plain"]]  # progress
    assert len(document.cells) <= 58 and path.stat().st_size <= 1_400_000  # 1,170,000 without the package it carries
    shown_cells = [cell for cell in code_cells(document) if "cellView" not in cell.metadata]
    assert all(len(cell.source.splitlines()) <= 18 for cell in shown_cells)
    assert sum(len(text.splitlines()) for text in printed) <= 100
    assert sum("<table" in data.get("text/html", "") for data in shown) <= 15
    assert sum("image/png" in data for data in shown) <= 20


def test_without_further_questions_the_answer_is_there(short):
    """What matters is which cells have something to say."""
    _, left = short
    document = nbformat.reads(left["hw1.ipynb"].decode(), as_version=4)
    skipped = [cell.id for cell in code_cells(document) if [o.get("text", "")[:7] for o in cell.outputs] == ["skipped"]]
    assert skipped == list(STUDIES)
    conclusion = left["results/conclusion.md"].decode()
    assert "**Conclusion.**" in conclusion and "## Errata" in conclusion and "seeds" not in conclusion
    compared = pd.read_csv(io.BytesIO(left["results/model_metrics_comparison.csv"]))
    assert compared["name"].tolist() == ["cnn", "vit"] and "report.html" in left
    assert len([name for name in left if name.startswith("models/")]) == 2


def test_saved_notebook_tells_nothing_of_the_machine(executed):
    text = (OUTPUTS / "hw1.ipynb").read_text()
    assert str(ROOT) not in text and "widgets" not in executed.metadata
    assert socket.gethostname() not in text.split()
    for cell in code_cells(executed):
        assert LIVE not in cell.metadata.get("tags", []) or not cell.outputs


def test_layout_is_the_assignments(run):
    for model in MODELS:
        for part in ("train", "val"):
            assert len(list((OUTPUTS / "runs" / model / "logs" / part).iterdir())) == 1
        for picture in ("cm.png", "cm_norm.png", "curves.png"):
            with Image.open(OUTPUTS / "results" / model / picture) as image:
                assert min(image.size) > 200
        predictions = pd.read_csv(OUTPUTS / "results" / model / "predictions.csv")
        assert len(predictions) == 30 and predictions["path"].is_unique
    for table in ("metrics", "profile"):
        rows = pd.read_csv(OUTPUTS / "results" / f"model_{table}_comparison.csv")
        assert len(rows) == len(MODELS)
        assert rows["encoder"].iloc[-1] == "test_vit" and len(rows["weights_sha256"].iloc[-1]) == 64


def test_accuracies_agree_with_the_predictions(run):
    rows = pd.read_csv(OUTPUTS / "results" / "model_metrics_comparison.csv")
    for model, accuracy in zip(MODELS, rows["test_accuracy"], strict=True):
        predictions = pd.read_csv(OUTPUTS / "results" / model / "predictions.csv")
        assert (predictions["label"] == predictions["prediction"]).mean() == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_traces_hold_exactly_fifty_steps(run, model):
    (file,) = (OUTPUTS / "runs" / model / "profiler").iterdir()
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    steps = [e for e in events if e.get("name", "").startswith("ProfilerStep#") and e.get("cat") == "user_annotation"]
    assert len(steps) == 50


def test_progress_table_and_places_are_printed(run):
    for text in ("Sanity check", "3 of 3 epochs", "test_accuracy", "report.html", "outputs/smoke/results"):
        assert text in run.stdout


def test_html_report_stands_alone(run):
    page = (OUTPUTS / "report.html").read_text()
    assert page.count("data:image/png;base64") >= 21 and "localhost" not in page


def test_models_are_left_to_predict_with(run):
    assert {path.stem for path in (OUTPUTS / "models").glob("*.safetensors")} == set(MODELS)
    device = torch.device("cpu")
    predictions = pd.read_csv(OUTPUTS / "results/vit/predictions.csv")
    files = [str(OUTPUTS / "toy" / path) for path in predictions["path"]]
    again = saved.predict(saved.load_model(OUTPUTS / "models/vit.safetensors", device), files)
    assert again["prediction"].tolist() == predictions["prediction"].tolist()


# ---- the end of a run, tried with notebooks of one or two cells


SERVERS = '''
import json, os, subprocess, sys
from pathlib import Path
from tensorboard import manager, version

# As TensorBoard does, it takes back its note when it is asked to end.
CODE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (os.remove(sys.argv[1]), sys.exit()))
print("ready", flush=True)
time.sleep(60)
"""

def server(name, **options):
    note = Path(manager._get_info_dir(), f"pid-{name}.info")
    process = subprocess.Popen([sys.executable, "-c", CODE, str(note)], stdout=subprocess.PIPE, **options)
    process.stdout.readline()
    info = manager.TensorBoardInfo(version.VERSION, 0, process.pid, 6006, ".", "", "", "")
    note.write_text(manager._info_to_string(info))
    return process

own, foreign, gone = server("own"), server("foreign", start_new_session=True), server("gone", start_new_session=True)
gone.kill()
gone.wait()
print(foreign.pid)
'''


@pytest.fixture
def run_cells(tmp_path, monkeypatch):
    """`run_cells(source, …)`: execute these cells, with a folder of their own for TensorBoard's notes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def run(*cells):
        document = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nbformat.write(document, tmp_path / "in.ipynb")
        said = []
        try:
            execute(tmp_path / "out.ipynb", notebook=tmp_path / "in.ipynb", echo=said.append)
        finally:
            run.said = said

    return run


@pytest.mark.parametrize(
    ("last_cell", "error"),
    [
        ("1", None),
        ("raise ValueError('the real error')", "the real error"),
        ("os.kill(os.getpid(), 9)", "from outside"),
    ],
)
def test_a_run_ends_its_own_tensorboard_and_no_other(run_cells, tmp_path, last_cell, error):
    """However it ends; of a server that was killed only its note is left, and that is no error."""
    with pytest.raises(Hw1Error, match=error) if error else contextlib.nullcontext():
        run_cells(SERVERS, last_cell)
    os.kill(int(run_cells.said[-1]), signal.SIGKILL)  # the foreign one was still there
    assert {note.name for note in (tmp_path / ".tensorboard-info").iterdir()} == {"pid-foreign.info", "pid-gone.info"}
    assert (tmp_path / "out.ipynb").exists() == (error is None)


def test_lines_are_joined_where_nothing_came_between(run_cells, tmp_path):
    run_cells("import time\nfor i in range(3):\n    print(i, flush=True)\n    time.sleep(0.3)\ndisplay(4)\nprint(5)")
    (cell,) = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert [o.get("text") for o in cell.outputs] == ["0\n1\n2\n", None, "5\n"]


def test_results_are_written_though_the_clean_up_fails(run_cells, tmp_path, monkeypatch):
    def fail(*_):
        raise PermissionError("of another user")

    monkeypatch.setattr(manager, "get_all", fail)
    monkeypatch.setattr(AsyncKernelManager, "cleanup_resources", fail)
    run_cells("print('done')")
    assert run_cells.said == ["done"] and (tmp_path / "out.ipynb").exists()
    with pytest.raises(Hw1Error, match="the real error"):
        run_cells("raise ValueError('the real error')")


def test_a_notebook_that_cannot_be_kept_does_not_hide_the_error_of_its_cell(run_cells, monkeypatch):
    def full(*_):
        raise Hw1Error("No room.")

    monkeypatch.setattr(notebook, "write_notebook", full)
    with pytest.raises(Hw1Error, match="^the real error$"):
        run_cells("raise ValueError('the real error')")


def test_committed_notebook_has_the_colab_metadata():
    document = nbformat.read(NOTEBOOK, as_version=4)
    assert document.metadata["accelerator"] == "GPU" and "widgets" not in document.metadata
    assert "Open in Colab" in document.cells[0].source
    folded = [cell for cell in document.cells if cell.source.startswith("# @title Setup")]
    assert [cell.metadata["cellView"] for cell in folded] == ["form"] * 2
    assert all(cell.metadata["jupyter"]["source_hidden"] for cell in folded)
