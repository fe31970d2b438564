"""What ends a run early loses nothing: Ctrl-C, full disks, killed processes, lost runtimes, a second run."""

import os
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from conftest import SMALL, PowerCut, cut, numbers, refuse, same, start, watched, weights

from hw1_utils import experiment, features
from hw1_utils.config import ROOT
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import load, train
from hw1_utils.io import arrays, backup, cifar10
from hw1_utils.io import weights as weights_module
from hw1_utils.io.files import free_bytes, write_csv
from hw1_utils.measure.costs import measure_costs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def new_cnn(make_smoke_config):
    """`new_cnn(field=value, …)`: a CNN to train on the toy folder."""
    return lambda **overrides: start(make_smoke_config(**SMALL, **overrides))


# ---- stopped


@pytest.mark.parametrize("fresh", [False, True])
def test_ctrl_c_says_how_to_go_on(new_cnn, capsys, fresh):
    with pytest.raises(KeyboardInterrupt):
        train(watched(new_cnn(fresh=fresh), cut(2, KeyboardInterrupt)))
    then = "starts over, as fresh=True asks" if fresh else "continues after the last finished epoch"
    assert capsys.readouterr().out.endswith(f"\n  stopped: run it again, and it {then}\n")
    train(new_cnn(fresh=fresh))
    assert ("continuing after epoch 1, saved on disk" in capsys.readouterr().out) != fresh


def test_too_little_gpu_memory_is_one_sentence(new_cnn):
    with pytest.raises(
        Hw1Error, match=r"^The GPU's memory is too small for CNN, tuned recipe: lower cnn_batch_size \(now 8\)"
    ):
        train(watched(new_cnn(), cut(1, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"))))


def test_what_killed_writers_left_is_cleared_away(make_smoke_config):
    config = make_smoke_config(**SMALL)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = [folder / "x" / f".{dead.pid}.partial.png" for folder in (config.runs_path, config.results_path)]
    left.append(config.cache_path / f".{dead.pid}.partial.safetensors")
    alive = config.cache_path / f".{os.getppid()}.partial.safetensors"
    for path in (*left, alive):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    load(config)
    assert not any(path.exists() for path in left) and alive.exists()


# ---- what can be known in seconds comes before what takes minutes


@pytest.fixture
def nothing_slow(monkeypatch):
    """Decoding an image, or fetching the data, fails the test."""
    for module, name in ((experiment, "decode"), (cifar10, "ensure_cifar10")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(weights_module, "_cached", lambda cfg: None)
    monkeypatch.setattr(weights_module, "reachable", lambda url: False)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"weights": "{here}/typo.pth"}, "^HW1_WEIGHTS names a file that does not exist: .*/typo.pth"),
        (
            {"weights": "{here}/mine.pth"},
            "^The weights file mine.pth does not fit the encoder test_vit: it lacks 77 of",
        ),
        ({"weights": "{here}/toy"}, "^HW1_WEIGHTS names .*/toy, which has no weights for test_vit "),
        ({"encoder": "test_vit,test_wit"}, "^timm has no model 'test_wit': did you mean test_vit"),
        (
            {"encoder": "test_vit,resnet18", "weights": "none"},
            "^No weights for test_vit: the model hub cannot be reached",
        ),
        ({"device": "cuda"}, "^device='cuda' cannot be used here "),
        (
            {"backup_dir": "{here}/not/mounted"},
            r"^backup_dir .*/not/mounted cannot be made \(No such file or directory\)",
        ),
        ({"backup_dir": "{here}/mine.pth"}, r"^backup_dir .*/mine.pth cannot be made \(File exists\)"),
        ({"output_dir": "{here}/mine.pth"}, r"^.*/mine.pth cannot be written \(File exists\)"),
    ],
)
@pytest.mark.parametrize("own", [True, False], ids=["own images", "CIFAR-10"])
def test_what_is_wrong_is_said_at_once(make_smoke_config, nothing_slow, tmp_path, settings, sentence, own):
    if settings.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    torch.save({"cls_token": torch.zeros(1, 1, 64)}, tmp_path / "mine.pth")
    here = {name: value.format(here=tmp_path) for name, value in settings.items()}
    with pytest.raises(Hw1Error, match=sentence):
        load(make_smoke_config(**(SMALL | ({} if own else {"data_dir": "data/cifar10/"}) | here)))


def test_a_disk_too_small_for_the_caches_is_said_before_they_are_made(make_smoke_config, monkeypatch, capsys):
    """150 images of 32×32 pixels take 0.46 MB, their 640 features each 0.38 MB."""
    config = make_smoke_config(**SMALL)
    monkeypatch.setattr(arrays, "free_bytes", lambda path: 800_000)
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "decode", refuse)
        with pytest.raises(
            Hw1Error, match=r"^\S+/toy.cache needs 1 MB for .*, which memory does not hold either, and has "
        ):
            load(make_smoke_config(**SMALL, memory_mb=0))
    load(config)  # memory holds them
    assert "needs 1 MB for decoded images and features and has 1 MB free: what does not fit" in capsys.readouterr().out
    load(config)  # the images are there by now
    monkeypatch.setattr(arrays, "free_bytes", lambda path: 900_000)
    shutil.rmtree(config.cache_path)
    load(config)
    assert "WARNING" not in capsys.readouterr().out


def test_a_disk_too_small_to_build_cifar10_is_said_before_it_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "free_bytes", lambda path: 600_000_000)
    monkeypatch.setattr(cifar10, "_build", lambda *args: pytest.fail("it was fetched"))
    with pytest.raises(Hw1Error, match="^Building CIFAR-10 takes 610 MB for a while, and .* has 600 MB free"):
        cifar10.ensure_cifar10(tmp_path / "cifar10")


def test_free_space_is_that_of_a_folder_that_is_still_to_be_made(tiny_disk):
    assert 0 < free_bytes(tiny_disk(500) / "a" / "b") <= 512_000


# ---- a second run


HOLD = """
import sys
from pathlib import Path
from hw1_utils.io.files import lock
held = lock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_has_ended(make_smoke_config, tmp_path):
    config = make_smoke_config(**SMALL)
    command = [sys.executable, "-c", HOLD, str(config.output_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(Hw1Error, match="^Another run is at work in .*/out: wait for its end"):
            load(config)
        load(make_smoke_config(**SMALL, output_dir=str(tmp_path / "another")))
        other.kill()
    first = load(config)
    again = load(config)  # one process may come back to its own folder
    assert first.context.lock is again.context.lock and again.context.lock.is_locked


# ---- disks


@pytest.fixture
def tiny_disk(tmp_path):
    """`tiny_disk(kilobytes)`: a folder on a file system of that size."""
    folder = tmp_path / "tiny"
    folder.mkdir()

    def mount(kilobytes):
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a tiny file system can be mounted by root only, on Linux")
        return folder

    yield mount
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kilobytes", [8, 500, 2000])
def test_a_full_disk_is_one_sentence_and_the_run_continues_where_there_is_room(new_cnn, tiny_disk, tmp_path, kilobytes):
    whole = train(new_cnn(output_dir=str(tmp_path / "whole")))
    disk = tiny_disk(kilobytes)
    with pytest.raises(Hw1Error, match=r"^\S+ cannot be written \(No space left on device\): make room there"):
        train(new_cnn(output_dir=str(disk)))
    assert not [path for path in contents(disk) if "partial" in path.name]
    subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
    continued = train(new_cnn(output_dir=str(disk)))
    pd.testing.assert_frame_equal(numbers(continued.history), numbers(whole.history), check_exact=True)
    assert same(weights(continued), weights(whole))


@pytest.mark.parametrize("kilobytes", [8, 48])  # no room for the trace; for what is kept beside it
def test_costs_on_a_full_disk_are_measured_once_there_is_room(new_cnn, tiny_disk, quick_costs, kilobytes):
    disk = tiny_disk(kilobytes)
    run = new_cnn(output_dir=str(disk))
    with pytest.raises(Hw1Error, match=r"No space left on device|The trace was not written completely"):
        measure_costs(run)
    assert not [path for path in contents(disk) if "partial" in path.name]
    subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
    assert measure_costs(run).columns["trace_steps"] == 2


def test_a_read_only_output_folder_is_found_before_any_work(new_cnn, tiny_disk, monkeypatch):
    disk = tiny_disk(5000)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    monkeypatch.setattr(experiment, "decode", refuse)
    with pytest.raises(
        Hw1Error, match=r"/tiny cannot be written \(Read-only file system\): choose another output_dir\.$"
    ):
        new_cnn(output_dir=str(disk))


def test_a_full_disk_leaves_the_old_table_in_place(tiny_disk):
    disk = tiny_disk(64)
    write_csv(disk / "table.csv", pd.DataFrame({"x": range(10)}))
    before = contents(disk)
    with pytest.raises(Hw1Error, match="No space left on device"):
        write_csv(disk / "table.csv", pd.DataFrame({"x": range(100_000)}))
    assert contents(disk) == before


# ---- the copy in backup_dir


def test_a_fresh_runtime_continues_from_the_copy(make_smoke_config, tmp_path, monkeypatch, capsys):
    whole = train(start(make_smoke_config(**SMALL), "vit"))
    lost, fresh = (
        make_smoke_config(**SMALL, output_dir=str(tmp_path / name), backup_dir=str(tmp_path / "drive"))
        for name in ("lost", "fresh")
    )
    shutil.rmtree(lost.cache_path)
    with pytest.raises(PowerCut):
        train(watched(start(lost, "vit"), cut(3)))
    shutil.rmtree(lost.output_path)
    shutil.rmtree(lost.cache_path)
    logs = fresh.runs_path / "vit" / "logs" / "train"
    logs.mkdir(parents=True)  # of another run, as in a clone of the repository
    (logs / "events.out.tfevents.0000000007.hw1").touch()
    monkeypatch.setattr(features, "_encode", refuse)  # the features come from the copy, too
    capsys.readouterr()
    continued = train(start(fresh, "vit"))
    said = capsys.readouterr().out
    assert "brought back from its copy in backup_dir" in said and "continuing after epoch 2" in said
    pd.testing.assert_frame_equal(numbers(continued.history), numbers(whole.history), check_exact=True)
    assert same(weights(continued), weights(whole))
    assert not (logs / "events.out.tfevents.0000000007.hw1").exists()
    assert [file.name.split(".", 4)[4] for file in logs.iterdir() if file.stat().st_size] == ["00003.joined.hw1"]


@pytest.mark.parametrize("first", [train, measure_costs])
def test_neither_training_nor_measuring_loses_what_the_copy_has_of_the_other(
    new_cnn, tmp_path, quick_costs, monkeypatch, first
):
    copies = {"backup_dir": str(tmp_path / "drive")}
    run = new_cnn(**copies)
    history, costs = train(run).history, measure_costs(run)
    shutil.rmtree(tmp_path / "out")
    run = new_cnn(**copies)
    monkeypatch.setattr("hw1_utils.measure.costs.trace_training", refuse)
    first(run)  # either brings all of the copy back
    assert train(watched(run, refuse)).history.equals(history)
    assert measure_costs(run).columns["operator_calls"] == costs.columns["operator_calls"]


def test_what_is_here_is_not_replaced_by_the_copy(new_cnn, tmp_path, capsys):
    copies = {"backup_dir": str(tmp_path / "drive")}
    train(new_cnn(**copies))
    capsys.readouterr()
    train(new_cnn(**copies))
    assert "brought back" not in capsys.readouterr().out
    train(new_cnn(**copies, fresh=True))
    said = capsys.readouterr().out
    assert "brought back" not in said and "continuing" not in said


def test_only_what_is_new_is_copied(new_cnn, tmp_path, quick_costs):
    run = new_cnn(backup_dir=str(tmp_path / "drive"))
    train(run)
    measure_costs(run)
    copy = tmp_path / "drive" / "smoke" / "runs" / "cnn"
    assert contents(copy) == contents(run.folder)
    first = next(copy.rglob("*.00001.hw1"))
    first.unlink()
    run.context.backup.keep(run.folder, "runs/cnn")
    assert not first.exists()


def test_a_copy_never_promises_epochs_whose_logs_it_lacks(new_cnn, tmp_path, monkeypatch):
    copied = []

    def note_and_copy(source, target):
        copied.append(source)
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(backup.shutil, "copyfile", note_and_copy)
    run = new_cnn(backup_dir=str(tmp_path / "drive"))
    (run.folder / "logs").mkdir(parents=True)
    (run.folder / "logs" / f".{os.getpid()}.partial.hw1").touch()  # being written
    train(run)
    order = [re.sub(r"tfevents\.\d+", "tfevents", file.name) for file in copied]
    for epoch in (1, 2, 3):
        assert order.index(f"events.out.tfevents.{epoch:05d}.hw1") < nth(order, "checkpoint.safetensors", epoch)
    assert not [name for name in order if "partial" in name]


def nth(names, name, n):
    return [i for i, other in enumerate(names) if other == name][n - 1]


def test_a_copy_that_cannot_be_read_leaves_what_is_here_and_the_run_goes_on(new_cnn, tmp_path, monkeypatch, capsys):
    drive = tmp_path / "drive" / "smoke" / "runs" / "cnn"
    drive.mkdir(parents=True)
    run = new_cnn(backup_dir=str(tmp_path / "drive"))
    run.folder.mkdir(parents=True)
    (run.folder / "notes.txt").write_text("mine")

    def unplugged(*args, **kwargs):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(backup.shutil, "copytree", unplugged)
        assert run.context.backup.restore(run.folder, "runs/cnn") is False
    assert (run.folder / "notes.txt").read_text() == "mine"
    assert "WARNING: the copy of runs/cnn in backup_dir cannot be used" in capsys.readouterr().out
    run.context.backup.keep(run.folder, "runs/cnn")
    assert (drive / "notes.txt").read_text() == "mine"


def test_a_damaged_state_is_taken_from_the_copy(new_cnn, tmp_path, capsys):
    first = train(new_cnn(backup_dir=str(tmp_path / "drive")))
    (first.run.folder / "state" / "checkpoint.safetensors").write_bytes(b"?")
    again = train(new_cnn(backup_dir=str(tmp_path / "drive")))
    assert "continuing after epoch 3" in capsys.readouterr().out
    pd.testing.assert_frame_equal(again.history, first.history)


def test_a_copy_that_cannot_be_made_costs_one_warning(new_cnn, tmp_path, capsys):
    run = new_cnn(backup_dir=str(tmp_path / "drive"))
    (tmp_path / "drive").rmdir()
    (tmp_path / "drive").write_text("a file where the folder was")
    training = train(run)
    said = capsys.readouterr().out
    assert len(training.history) == 3 and said.count("WARNING: no copies are kept in ") == 1
