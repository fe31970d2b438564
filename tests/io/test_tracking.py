"""TensorBoard logs, read back with TensorBoard's own reader and served by a real server."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from hw1_utils.errors import Hw1Error
from hw1_utils.io import tracking
from hw1_utils.io.tracking import Tracker

TAGS = ["accuracy", "learning_rate", "loss"]


def row(epoch, shift=0.0):
    values = {"train_loss": 2 / epoch, "train_accuracy": epoch / 10, "lr": 0.1 / epoch}
    return {"epoch": epoch, **values, "val_loss": 3 / epoch + shift, "val_accuracy": epoch / 20}


def network():
    """The first layer is frozen, the second has a gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    model(torch.ones(5, 3)).sum().backward()
    return model


@pytest.fixture
def logs(tmp_path):
    return tmp_path / "runs" / "cnn" / "logs"


def log(logs, epochs, start, shift=0.0, frozen=None):
    tracker = Tracker(logs, frozen)
    tracker.start_at(start)
    for epoch in epochs:
        tracker.log_epoch(row(epoch, shift), network())


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    return events


def points(folder, tag):
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def test_scalars_read_back_are_what_was_logged(logs):
    log(logs, [1, 2, 3], start=1)
    expected = {
        "train": {"loss": "train_loss", "accuracy": "train_accuracy", "learning_rate": "lr"},
        "val": {"loss": "val_loss", "accuracy": "val_accuracy"},
    }
    for part, tags in expected.items():
        assert sorted(read(logs / part).Tags()["scalars"]) == sorted(tags)  # same tags: the curves overlay
        for tag, column in tags.items():
            wanted = [(epoch, pytest.approx(row(epoch)[column], rel=1e-6)) for epoch in (1, 2, 3)]
            assert points(logs / part, tag) == wanted


def test_an_epoch_without_validation_writes_no_val_points(logs):
    tracker = Tracker(logs)
    tracker.start_at(1)
    tracker.log_epoch({k: v for k, v in row(1).items() if not k.startswith("val")}, network())
    assert sorted(read(logs / "train").Tags()["scalars"]) == TAGS
    assert not (logs / "val").exists()


def test_histograms_of_weights_and_of_the_gradients_there_are(logs):
    log(logs, [1, 2], start=1)
    events, model = read(logs / "train"), network()
    weights = {f"weights/{name}" for name, _ in model.named_parameters()}
    assert set(events.Tags()["histograms"]) == weights | {"gradients/1.weight", "gradients/1.bias"}  # not of layer 0
    for tag, values in (("weights/0.weight", model[0].weight), ("gradients/1.weight", model[1].weight.grad)):
        logged = events.Histograms(tag)
        assert [event.step for event in logged] == [1, 2]
        values = values.detach().numpy().astype(np.float64)
        histogram = logged[0].histogram_value
        assert (histogram.num, sum(histogram.bucket)) == (values.size, values.size)
        assert (histogram.min, histogram.max) == pytest.approx((values.min(), values.max()))
        assert histogram.sum == pytest.approx(values.sum())


def test_frozen_weights_are_logged_once_and_survive_a_restart(logs):
    log(logs, [1], start=1, frozen=network())
    log(logs, [2], start=2, frozen=network())
    events = read(logs / "train")
    assert [event.step for event in events.Histograms("frozen/0.weight")] == [0]
    assert points(logs / "train", "loss") == [(1, 2.0), (2, 1.0)]


def test_a_continued_run_replaces_points_instead_of_doubling_them(logs):
    log(logs, [1, 2, 3, 4], start=1)
    log(logs, [3, 4, 5], start=3, shift=10.0)  # epochs 3 and 4 again, with other values
    wanted = [(epoch, pytest.approx(row(epoch, 10.0 * (epoch >= 3))["val_loss"])) for epoch in (1, 2, 3, 4, 5)]
    assert points(logs / "val", "loss") == wanted
    assert [step for step, _ in points(logs / "train", "loss")] == [1, 2, 3, 4, 5]


def test_start_at_forgets_everything_from_there_on(logs):
    log(logs, range(1, 13), start=1)  # two digits: name order must still be epoch order
    Tracker(logs).start_at(10)
    assert [step for step, _ in points(logs / "train", "loss")] == list(range(1, 10))
    Tracker(logs).start_at(1)
    assert [read(logs / part).Tags()["scalars"] for part in ("train", "val")] == [[], []]


def test_a_fresh_trainings_files_sort_behind_the_old_ones_and_these_go(logs, monkeypatch):
    (logs / "val").mkdir(parents=True)
    (logs / "val" / "events.out.tfevents.0000000080.hw1").write_bytes(b"of an earlier version")
    for seconds in (60, 0):
        monkeypatch.setattr(tracking, "READER_S", seconds)
        before = {file.name for file in (logs / "val").iterdir()}
        log(logs, [1, 2], start=1, shift=10.0)
        names = {file.name for file in (logs / "val").iterdir() if file.stat().st_size}
        assert len(names) == 2 and min(names) > max(before)
        assert points(logs / "val", "loss") == [(1, 13.0), (2, 11.5)]
    assert {file.name for file in (logs / "val").iterdir()} == names  # nothing else is left


def test_a_training_that_is_stopped_in_its_first_epoch_takes_nothing_away_that_is_read(logs):
    """TensorBoard waits at the file it has read last, until there is a newer one."""
    log(logs, [1], start=1)
    (before,) = (file.name for file in (logs / "val").iterdir())
    for _ in range(2):
        Tracker(logs).start_at(1)
        tracking.clear_emptied(logs.parent.parent, 0)
        assert [(file.name, file.stat().st_size) for file in (logs / "val").iterdir()] == [(before, 0)]
    log(logs, [1], start=1)
    assert max(file.name for file in (logs / "val").iterdir()) > before


def test_a_training_behind_one_of_which_nothing_is_left_has_names_of_its_own(logs):
    """TensorBoard has passed the old names all the same."""
    log(logs, [1], start=1)
    (before,) = (file.name for file in (logs / "val").iterdir())
    shutil.rmtree(logs)
    log(logs, [1], start=1)
    (after,) = (file.name for file in (logs / "val").iterdir())
    assert after > before


def test_what_a_short_training_has_emptied_goes_before_the_next_run(logs):
    for shift in (0.0, 10.0):
        log(logs, [1], start=1, shift=shift)
    tracking.clear_emptied(logs.parent.parent)  # a TensorBoard may not have passed them yet
    assert len(list((logs / "val").iterdir())) == 2
    tracking.clear_emptied(logs.parent.parent, 0)
    assert len(list((logs / "val").iterdir())) == 1 and points(logs / "val", "loss") == [(1, 13.0)]


# ---- what is joined when a training has ended


def finish(logs, epochs):
    """A training of so many epochs, restored if there was one, to its end."""
    tracker = Tracker(logs)
    tracker.start_at(epochs + 1)
    tracker.finish()


def sizes(folder):
    return [file.stat().st_size for file in sorted(folder.iterdir())]


def everything(folder):
    """All that a reader finds, points and histograms, but for the times."""
    events = read(folder)
    found = {tag: points(folder, tag) for tag in events.Tags()["scalars"]}
    for tag in events.Tags()["histograms"]:
        found[tag] = [(event.step, str(event.histogram_value)) for event in events.Histograms(tag)]
    return found


@pytest.fixture
def joined(logs):
    """Three epochs in one file a part; `joined` is what a reader found before."""
    log(logs, [1, 2, 3], start=1, frozen=network())
    before = {part: everything(logs / part) for part in ("train", "val")}
    finish(logs, 3)
    return before


def test_a_finished_training_is_one_file_a_part_with_all_that_was_in_many(logs, joined):
    for part, files in (("train", 4), ("val", 3)):
        assert everything(logs / part) == joined[part]
        assert len(sizes(logs / part)) == files + 1 and sizes(logs / part)[:-1] == [0] * files
    tracking.clear_emptied(logs.parent.parent, 0)
    for part in ("train", "val"):
        assert len(sizes(logs / part)) == 1 and everything(logs / part) == joined[part]
    before = sizes(logs / "train")
    finish(logs, 3)
    assert sizes(logs / "train") == before


class Killed(BaseException):
    """In place of SIGKILL: nothing of the code handles it, and nothing is tidied up that would not be then."""


@pytest.mark.parametrize("step", range(8))
def test_a_kill_between_two_steps_of_joining_leaves_every_point_once(logs, monkeypatch, step):
    """Steps are the two joined files, moved into place, and the emptying of each file that is in them."""
    log(logs, [1, 2, 3], start=1)
    before = {part: everything(logs / part) for part in ("train", "val")}
    real = {name: getattr(os, name) for name in ("replace", "truncate")}
    left = step

    def kill(name):
        def do(*args):
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            real[name](*args)

        return do

    with monkeypatch.context() as patch, pytest.raises(Killed):
        for name in real:
            patch.setattr(os, name, kill(name))
        finish(logs, 3)
    assert {part: everything(logs / part) for part in before} == before
    log(logs, [4], start=4)  # more epochs, before it has been joined
    finish(logs, 4)
    tracking.clear_emptied(logs.parent.parent, 0)
    for part in before:
        assert len(sizes(logs / part)) == 1
        assert [step for step, _ in points(logs / part, "loss")] == [1, 2, 3, 4]


@pytest.mark.parametrize("tidied", [True, False])
def test_a_joined_training_goes_on_with_more_epochs_and_is_joined_again(logs, joined, tidied):
    if tidied:
        tracking.clear_emptied(logs.parent.parent, 0)
    log(logs, [4, 5], start=4)
    assert points(logs / "val", "loss") == [(epoch, pytest.approx(3 / epoch)) for epoch in range(1, 6)]
    finish(logs, 5)
    tracking.clear_emptied(logs.parent.parent, 0)
    assert len(sizes(logs / "val")) == 1
    assert points(logs / "val", "loss") == [(epoch, pytest.approx(3 / epoch)) for epoch in range(1, 6)]
    assert [event.step for event in read(logs / "train").Histograms("frozen/0.weight")] == [0]


@pytest.mark.parametrize("killed", [False, True])
def test_start_at_forgets_what_is_in_a_joined_file_from_there_on(logs, joined, monkeypatch, killed):
    if killed:  # between the part that is kept and the whole that goes
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(tracking, "_empty", lambda file: (_ for _ in ()).throw(Killed))
            Tracker(logs).start_at(2)
    Tracker(logs).start_at(2)
    assert [step for step, _ in points(logs / "train", "loss")] == [1]
    assert [event.step for event in read(logs / "train").Histograms("frozen/0.weight")] == [0]
    log(logs, [2, 3, 4], start=2, shift=10.0)
    finish(logs, 4)
    tracking.clear_emptied(logs.parent.parent, 0)
    assert len(sizes(logs / "val")) == 1
    wanted = [(epoch, pytest.approx(row(epoch, 10.0 * (epoch >= 2))["val_loss"])) for epoch in (1, 2, 3, 4)]
    assert points(logs / "val", "loss") == wanted


def test_a_fresh_training_behind_a_joined_one_is_alone(logs, joined):
    log(logs, [1], start=1, shift=10.0)
    assert points(logs / "val", "loss") == [(1, 13.0)]


def test_a_disk_that_is_full_when_files_are_joined_leaves_them(logs, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    log(logs, [1, 2], start=1)
    before = everything(logs / "train")
    with monkeypatch.context() as patch, pytest.raises(Hw1Error, match="No space left on device"):
        patch.setattr("hw1_utils.io.files.os.fsync", full)
        finish(logs, 2)
    assert everything(logs / "train") == before and len(sizes(logs / "train")) == 2


# ---- readers


def test_no_host_name_in_file_names_or_bytes(logs, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "name-of-this-host")  # what SummaryWriter would put in
    log(logs, [1, 2], start=1, frozen=network())
    files = [file for file in logs.parent.rglob("*") if file.is_file()]
    assert len(files) == 5
    for file in files:
        assert "name-of-this-host" not in file.name
        assert b"name-of-this-host" not in file.read_bytes()


@pytest.fixture
def server(request, logs):
    """`curve(run, tag)` of a running TensorBoard: [(step, value), …] as it shows them."""
    logs.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs.parent.parent), f"--port={port}"]
    command += ["--host=127.0.0.1", "--reload_interval=1", f"--load_fast={request.param}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy

    def curve(run, tag):
        try:
            with opener.open(
                f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?run={run}&tag={tag}", timeout=5
            ) as r:
                return [(step, pytest.approx(value, rel=1e-6)) for _, step, value in json.load(r)]
        except OSError:
            return None  # not yet up, or it has not read that far

    yield curve
    process.terminate()
    process.wait(20)


@pytest.mark.parametrize("server", ["true", "false"], indirect=True, ids=["its fast loader", "its Python loader"])
def test_a_running_tensorboard_shows_the_last_training_alone(server, logs, monkeypatch):
    """An interrupted and continued one as one curve, joined or not; a second one without what the first left behind."""

    def shows(expected):
        deadline = time.monotonic() + 60
        while (found := server("cnn/logs/val", "loss")) != expected and time.monotonic() < deadline:
            time.sleep(0.1)
        return found == expected or found

    curve = [(epoch, 3 / epoch) for epoch in range(1, 13)]
    log(logs, range(1, 11), start=1)
    log(logs, range(9, 13), start=9)
    assert shows(curve) is True
    monkeypatch.setattr(tracking, "READER_S", 2)
    finish(logs, 12)
    time.sleep(2.5)
    log(logs, [13], start=13)
    assert len(list((logs / "val").iterdir())) == 2 and shows([*curve, (13, 3 / 13)]) is True
    finish(logs, 13)
    tracker = Tracker(logs)
    tracker.start_at(1)
    time.sleep(2.5)  # an epoch that takes longer than TensorBoard stays away
    for epoch in (1, 2):
        tracker.log_epoch(row(epoch, 10.0), network())
    assert shows([(1, 13.0), (2, 11.5)]) is True
    log(logs, [3], start=3, shift=10.0)
    assert shows([(1, 13.0), (2, 11.5), (3, 11.0)]) is True
