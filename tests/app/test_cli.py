"""The command line: exit codes, one sentence for an error, JSON for programs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hw1_utils import context, experiment
from hw1_utils.app import cli
from hw1_utils.app import runner as notebook
from hw1_utils.app.cli import main, parse
from hw1_utils.config import ROOT, Config, make_config
from hw1_utils.deploy.saved import save_model
from hw1_utils.errors import Hw1Error


def one_sentence(capsys):
    """What was said on stderr: one line, no traceback."""
    said = capsys.readouterr().err
    assert said.startswith("hw1: ") and said.count("\n") == 1 and "Traceback" not in said
    return said


@pytest.mark.parametrize("command", ["run", "data"])
def test_an_unknown_profile_is_one_sentence(monkeypatch, capsys, command):
    monkeypatch.setenv("HW1_PROFILE", "qiuck")
    assert main([command]) == 1
    said = one_sentence(capsys)
    assert "'qiuck'" in said and "quick" in said


def test_the_profile_option_wins_over_the_environment(monkeypatch):
    seen = []
    monkeypatch.setenv("HW1_PROFILE", "qiuck")
    monkeypatch.setattr(experiment, "load", lambda config: seen.append(config.profile))
    assert main(["data", "--profile", "smoke"]) == 0
    assert seen == ["smoke"]


def test_unusable_data_is_one_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HW1_DATA", str(tmp_path))
    assert main(["data", "--profile", "quick"]) == 1
    assert "train/<class>/<image>" in one_sentence(capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "hw1: stopped; the same command continues after the last finished epoch.\n"),
        (["run", "--fresh"], "hw1: stopped; the same command starts over, as fresh asks.\n"),
        (["data"], "hw1: stopped.\n"),
    ],
)
def test_ctrl_c_is_130_and_says_what_the_same_command_does(monkeypatch, capsys, words, said):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    for name in ("HW1_PROFILE", "HW1_OVERRIDES"):
        monkeypatch.setenv(name, "")  # put back afterwards
    monkeypatch.setattr(experiment, "load", interrupted)
    monkeypatch.setattr(notebook, "execute", interrupted)
    assert main([*words, "--profile", "smoke"]) == 130
    assert capsys.readouterr().err.lstrip("\n") == said  # a line feed after the terminal's ^C


@pytest.fixture
def own_cell(monkeypatch, tmp_path):
    """`own_cell(before, after)`: a copy of the notebook, its cell of settings changed, is what `run` executes.

    In its list `executed`: profile and HW1_OVERRIDES in the kernel, and the folder of which the report is made.
    """
    executed = []

    def change(before, after):
        document = json.loads(notebook.NOTEBOOK.read_text(encoding="utf-8"))
        (cell,) = (cell for cell in document["cells"] if "parameters" in cell["metadata"].get("tags", []))
        cell["source"] = "".join(cell["source"]).replace(before, after, 1)
        assert after in cell["source"]
        (tmp_path / "hw1.ipynb").write_text(json.dumps(document), encoding="utf-8")
        monkeypatch.setattr(notebook, "NOTEBOOK", tmp_path / "hw1.ipynb")

    def execute(*args, **options):
        executed.append((os.environ["HW1_PROFILE"], json.loads(os.environ["HW1_OVERRIDES"])))

    def report(args):
        executed[-1] += (make_config(args.profile, **args.settings).output_dir,)

    for name in ("HW1_PROFILE", "HW1_OVERRIDES"):
        monkeypatch.setenv(name, "")  # put back afterwards
    monkeypatch.setattr(notebook, "execute", execute)
    monkeypatch.setattr(cli, "report", report)
    change.executed = executed
    return change


@pytest.mark.parametrize(
    ("before", "after", "words", "expected"),
    [
        ("{}", "{  }  # none", "--profile smoke", ("smoke", {}, "outputs/smoke")),
        ("{}", '{"seed": 1}', "--profile smoke", ("smoke", {"seed": 1}, "outputs/smoke")),
        ("{}", '{"seed": 1}', "--profile smoke --seed 1", ("smoke", {"seed": 1}, "outputs/smoke")),
        ("{}", '{"output_dir": "x"}', "--profile smoke", ("smoke", {"output_dir": "x"}, "x")),
        ('STUDIES = "auto"', "STUDIES = 'none'", "--profile smoke", ("smoke", {"studies": "none"}, "outputs/smoke")),
        ('PROFILE = "auto"', 'PROFILE = "smoke"', "--seeds 3", ("smoke", {"seeds": 3}, "outputs/smoke")),
    ],
)
def test_what_the_notebooks_own_cell_says_counts_for_kernel_and_report(own_cell, before, after, words, expected):
    own_cell(before, after)
    assert main(["run", *words.split()]) == 0
    assert own_cell.executed == [expected]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("{}", '{"seed": 1}', "hw1.ipynb itself sets seed to 1, the command line to 2: take one of the two away"),
        ('PROFILE = "auto"', 'PROFILE = "quick"', "itself sets profile to 'quick', the command line to 'smoke'"),
        ("{}", "dict(seed=2)", "hw1.ipynb's cell of settings cannot be read from outside ("),
        ("{}", "{", "hw1.ipynb's cell of settings cannot be read from outside ("),
    ],
)
def test_a_notebook_whose_own_cell_contradicts_the_command_line_is_refused(own_cell, capsys, before, after, said):
    own_cell(before, after)
    assert main(["run", "--profile", "smoke", "--seed", "2"]) == 1
    assert said in one_sentence(capsys) and not own_cell.executed


def test_every_field_of_config_is_an_option(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(experiment, "load", seen.append)
    monkeypatch.chdir(tmp_path)
    words = "--cnn-epochs 5 --probe_lr 1e-2 --fresh --skip-unreadable FALSE --train-size None --encoder 7 --data photos"
    words += " --backup-dir none --weights random --encoder= --output-dir ~/out"
    assert main(["data", "--profile", "quick", *words.split()]) == 0
    (config,) = seen
    assert (config.cnn_epochs, config.probe_lr, config.fresh, config.skip_unreadable) == (5, 0.01, True, False)
    assert (config.train_size, config.encoder, config.backup_dir, config.weights) == (None, "7", None, "random")
    assert config.data_path == tmp_path / "photos"  # from where the command was given
    assert config.output_path == Path.home() / "out"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--cnn-epoch 5", "Config has no field 'cnn_epoch': did you mean 'cnn_epochs'?"),
        ("--prof smoke", "Config has no field 'prof': did you mean 'profile'?"),  # no abbreviations
        ("--cnn-epochs five", "Config.cnn_epochs must be int, not 'five' (str)."),
        ("--cnn-epochs", "Config.cnn_epochs must be int, not True (bool)."),
        ("--seed -1", "Config.seed must be at least 0, not -1."),
        ("--probe_lr -1e-9", "Config.probe_lr must be at least 0.0, not -1e-09."),
        ("--encoder test_vit --encoder", "Config.encoder must be str, not True (bool)."),
        ("--data ~nosuchuser/x", "Config.data_dir must be the path of a file or folder, not '~nosuchuser/x'."),
    ],
)
def test_a_wrong_setting_is_one_sentence_before_anything_runs(monkeypatch, capsys, words, sentence):
    monkeypatch.setattr(notebook, "execute", lambda *args, **kwargs: pytest.fail("the notebook was started"))
    assert main(["run", "--profile", "quick", *words.split()]) == 1
    assert one_sentence(capsys) == f"hw1: {sentence}\n"


def test_the_notebook_gets_the_settings_of_the_command_line(monkeypatch, tmp_path):
    def execute(*args, **kwargs):
        seen.append(make_config("smoke"))  # as the notebook's cell does, in a process with this environment
        raise Hw1Error("That will do.")

    seen = []
    monkeypatch.setenv("HW1_OVERRIDES", " ")
    monkeypatch.setenv("HW1_PROFILE", "")
    monkeypatch.setattr(notebook, "execute", execute)
    assert main(["run", "--profile", "smoke", "--seed", "3", "--output-dir", str(tmp_path)]) == 1
    assert (seen[0].seed, seen[0].output_path) == (3, tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["predict"],
        ["run", "stray"],
        ["run", "--seed", "1", "2"],
        ["run", "-x"],
        ["export", "model", "--seed", "1"],
        ["data", "--data", "a", "--data-dir", "b"],
        ["report", "--profile", "quick", "--profile", "full"],
    ],
)
def test_a_wrong_command_line_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_help_tells_the_story_in_ten_lines(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    said = capsys.readouterr().out
    assert stopped.value.code == 0 and len(cli.__doc__.strip().splitlines()) <= 10
    for command in ("run", "data", "predict", "export", "report"):
        assert f"\n    {command} " in said


def test_the_help_of_a_command_lists_every_setting(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    said = " ".join(" ".join(lines).split())
    assert all(f" --{name.replace('_', '-')} " in said.replace(",", "") for name in Config().as_dict())
    for fact in (
        "--data PATH folder of train/<class>/*, test/<class>/*, a zip or tar of one, or a CSV of paths and labels "
        "(HW1_DATA; default data/cifar10, ",
        "--image-size N side of the square images kept in memory and seen by the CNN (8 to 1024; default 32)",
        "--cnn-batch-size N images a step (at least 1; default 256, quick 64, smoke 8)",
        "--device NAME what computes (auto, cpu, cuda; default auto)",
        "(full, quick, smoke; default HW1_PROFILE or auto)",
    ):
        assert fact in said


def test_a_path_may_begin_with_a_dash(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert parse(["run", "--data", "-my_photos", "--output_dir=--there"]).settings == {
        "data_dir": f"{tmp_path}/-my_photos",
        "output_dir": f"{tmp_path}/--there",
    }
    assert parse(["predict", "--", "my_model", "-a", "--b_c"]).images == ["-a", "--b_c"]


def test_an_encoder_may_be_named_several_times(monkeypatch):
    seen = []
    monkeypatch.setattr(experiment, "load", seen.append)
    assert (
        main(["data", "--profile", "quick", "--encoder", "resnet18", "--encoder", "test_vit", "--encoder", "resnet18"])
        == 0
    )
    assert seen[0].encoders == ["resnet18", "test_vit"]


def test_an_unknown_encoder_is_one_sentence_before_any_work(monkeypatch, capsys):
    monkeypatch.setattr(context, "lock", lambda folder: pytest.fail("work was begun"))
    assert main(["data", "--profile", "quick", "--encoder", "resnet18", "--encoder", "vit_tinny_patch16_224"]) == 1
    said = one_sentence(capsys)
    assert "timm has no model 'vit_tinny_patch16_224': did you mean vit_tiny_patch16_224" in said


@pytest.fixture
def cnn_file(make_smoke_config):
    run = experiment.cnn(experiment.load(make_smoke_config()))
    return str(save_model(SimpleNamespace(run=run, model=run.model), {}))


def test_predictions_are_a_table_or_json(cnn_file, toy_folder, capsys):
    pictures = str(toy_folder / "test")
    assert main(["predict", cnn_file, pictures]) == 0
    rows = capsys.readouterr().out.splitlines()[-30:]
    assert all(row.split()[0].endswith(".png") and row.split()[1].startswith("colour_") for row in rows)
    assert main(["predict", "--json", cnn_file, f"{pictures}/colour_1/00003.png"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["images"]
    assert row["path"].endswith("00003.png") and "error" not in row
    assert sum(value for key, value in row.items() if key.startswith("p_")) == pytest.approx(1)
    assert row["probability"] == row[f"p_{row['prediction']}"]


def test_a_target_accuracy_marks_what_is_unsure_and_says_what_came_of_it(toy_folder, make_smoke_config, capsys):
    run, count = experiment.cnn(experiment.load(make_smoke_config())), 100
    sure = torch.linspace(0.4, 1, count)
    probabilities = torch.stack([sure, (1 - sure) / 2, (1 - sure) / 2], 1)
    known = SimpleNamespace(labels=(sure < 0.5).long(), probabilities=probabilities)
    path = str(save_model(SimpleNamespace(run=run, model=run.model), {}, {"val": known, "test": known}))
    pictures = str(toy_folder / "test/colour_0")
    capsys.readouterr()
    assert main(["predict", path, pictures, "--target-accuracy", "0.9"]) == 0  # untrained, and sure of nothing
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split() == ["path", "prediction", "probability", "unsure"]
    assert sum(line.endswith(" unsure") for line in said.out.splitlines()[1:]) == 10
    assert said.err.startswith("Answers that are to be right 0.9 of the time: unsure below a probability of 0.")
    assert said.err.endswith("Here: 10 of 10 unsure.\n") and "of 100 test images, " in said.err
    assert main(["predict", path, pictures, "--target-accuracy=0.9", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["promise"]["target"] == 0.9 and found["promise"]["known"]["val"]["images"] == count
    assert [row["unsure"] for row in found["images"]] == [True] * 10
    assert main(["predict", path, pictures, "--target-accuracy", "0.999"]) == 1
    assert one_sentence(capsys).startswith(f"hw1: {run.title} cannot promise that 0.999 of its answers are right: ")
    with pytest.raises(SystemExit):
        main(["predict", path, pictures, "--target-accuracy", "high"])


def test_what_cannot_be_read_is_named_and_the_rest_is_predicted(cnn_file, toy_folder, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"?")
    assert main(["predict", cnn_file, str(toy_folder / "test/colour_0"), str(tmp_path / "bad.png")]) == 1
    said = capsys.readouterr()
    assert said.out.count(".png") == 10
    assert said.err == f"hw1: 1 of 11 files cannot be read as images: {tmp_path}/bad.png (not an image).\n"
    (tmp_path / "empty").mkdir()
    long = "x" * 300
    arguments = [str(toy_folder / "test/colour_0/00000.png"), str(tmp_path / "empty"), "missing.png", long]
    assert main(["predict", cnn_file, *arguments]) == 1
    said = capsys.readouterr()
    assert said.out.count(".png") == 1
    assert said.err == (
        "hw1: 2 of 3 files cannot be read as images: missing.png (No such file or directory), "
        f"{long} (File name too long); no image in {tmp_path}/empty.\n"
    )
    assert main(["predict", "--json", cnn_file, str(tmp_path / "bad.png")]) == 1
    (row,) = json.loads(capsys.readouterr().out)["images"]
    assert row == {"path": f"{tmp_path}/bad.png", "error": "not an image"}


def test_one_rule_for_what_is_an_image_and_the_exit_code_tells_of_what_was_left_out(
    cnn_file, toy_folder, tmp_path, capsys
):
    folder, picture = tmp_path / "folder", (toy_folder / "test/colour_0/00000.png").read_bytes()
    folder.mkdir()
    for name in ("IMG_0001", "picture.png.1", "notes.jpeg.bak", "b.heic"):
        (folder / name).write_bytes(picture)
    assert main(["predict", cnn_file, str(folder)]) == 0  # whatever they are called
    assert capsys.readouterr().out.count("colour_") == 4
    (folder / "notes.txt").write_bytes(picture)
    assert main(["predict", cnn_file, str(folder)]) == 1
    said = capsys.readouterr()
    assert said.out.count("colour_") == 4
    assert said.err == f"hw1: left out, by name no image: {folder}/notes.txt.\n"
    assert main(["predict", cnn_file, str(folder / "notes.txt")]) == 0  # which was asked for


def test_where_nothing_can_be_read_there_is_the_sentence_alone(cnn_file, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"?")
    assert main(["predict", cnn_file, str(tmp_path / "a.png")]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("hw1: 1 of 1 files cannot be read as images: ")


def test_a_missing_model_is_one_sentence(tmp_path, capsys):
    for command in (["predict", str(tmp_path / "x.safetensors"), "x.png"], ["export", str(tmp_path / "x.safetensors")]):
        assert main(command) == 1
        assert one_sentence(capsys) == f"hw1: There is no model file {tmp_path}/x.safetensors.\n"


@pytest.mark.parametrize("output", ["model.safetensors", "other.safetensors", "folder", "folder.onnx"])
def test_an_export_overwrites_no_model_and_no_folder(tmp_path, capsys, output):
    for folder in ("folder", "folder.onnx"):
        (tmp_path / folder).mkdir()
    model = tmp_path / "model.safetensors"
    assert main(["export", str(model), "--output", str(tmp_path / output)]) == 1
    assert one_sentence(capsys).startswith(f"hw1: The ONNX file cannot be {tmp_path / output}: name a file, ")


@pytest.mark.parametrize("option", ["--data", "--weights", "--output-dir"])
def test_a_name_that_is_too_long_is_one_sentence(tmp_path, capsys, option):
    words = ["--encoder", "test_vit", "--output-dir", str(tmp_path)] if option != "--output-dir" else []
    assert main(["data", "--profile", "quick", *words, option, f"/tmp/{'x' * 300}"]) == 1
    assert "x" * 300 in one_sentence(capsys)


def test_an_error_of_the_system_is_one_sentence(monkeypatch, capsys):
    def fail(config):
        os.stat("/nowhere/x")

    monkeypatch.setattr(experiment, "load", fail)
    assert main(["data", "--profile", "smoke"]) == 1
    assert one_sentence(capsys) == "hw1: /nowhere/x: No such file or directory.\n"


def test_names_that_the_terminal_lacks_are_escaped(cnn_file, toy_folder, tmp_path):
    name = os.fsencode(tmp_path) + "/図".encode() + b"\xe9.png"
    shutil.copy(toy_folder / "test/colour_0/00000.png", name)
    command = [sys.executable, "-m", "hw1_utils", "predict", cnn_file, name, b"/no\xe9.png"]
    done = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "cp1252"}, cwd=ROOT, capture_output=True)
    assert done.returncode == 1 and rb"/\u56f3\udce9.png   colour_" in done.stdout
    assert done.stderr.startswith(rb"hw1: 1 of 2 files cannot be read as images: /no\udce9.png (No such file")


def test_an_export_says_how_far_it_agrees(cnn_file, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert main(["export", cnn_file, "--output", str(tmp_path / "cnn.onnx")]) == 0
    assert "agree on 16 of 16 test pictures" in capsys.readouterr().out and (tmp_path / "cnn.onnx").is_file()


def test_a_report_can_be_written_again_and_read_by_a_program(tmp_path, capsys):
    shutil.copytree(ROOT / "results", tmp_path / "results")
    assert main(["report", "--profile", "full", "--output-dir", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["leading"] == "accuracy" and said["models"][0]["model"] == "CNN, tuned recipe"
    assert (tmp_path / "report.html").stat().st_size > 500_000 and said["places"]["HTML report"].endswith("report.html")
    assert main(["report", "--profile", "full", "--output-dir", str(tmp_path)]) == 0
    assert "report.html" in capsys.readouterr().out


def test_a_report_without_results_is_one_sentence(tmp_path, capsys):
    assert main(["report", "--profile", "quick", "--output-dir", str(tmp_path)]) == 1
    assert "There are no results in" in one_sentence(capsys)
