"""TensorBoard logs, read back with TensorBoard's own reader and served by a real server."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from hw1_utils.tracking import Tracker

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


def log(logs, epochs, start, shift=0.0):
    tracker = Tracker(logs)
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
    tracker = Tracker(logs)
    tracker.log_frozen(network())
    tracker.log_frozen(network())  # run again after an interruption
    log(logs, [1], start=1)
    events = read(logs / "train")
    assert [event.step for event in events.Histograms("frozen/0.weight")] == [0]
    assert points(logs / "train", "loss") == [(1, 2.0)]


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
    assert [list((logs / part).iterdir()) for part in ("train", "val")] == [[], []]


def test_no_host_name_in_file_names_or_bytes(logs, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "name-of-this-host")  # what SummaryWriter would put in
    log(logs, [1, 2], start=1)
    Tracker(logs).log_frozen(network())
    files = [file for file in logs.parent.rglob("*") if file.is_file()]
    assert len(files) == 5
    for file in files:
        assert "name-of-this-host" not in file.name
        assert b"name-of-this-host" not in file.read_bytes()


def test_a_tensorboard_server_shows_both_runs(logs):
    log(logs, [1, 2], start=1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs.parent.parent)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--load_fast=false"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
    tags, deadline = {}, time.monotonic() + 60
    try:
        while len(tags) < 2 and time.monotonic() < deadline and server.poll() is None:
            try:
                with opener.open(f"http://127.0.0.1:{port}/data/plugin/scalars/tags", timeout=5) as answer:
                    tags = json.load(answer)
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.2)
    finally:
        server.terminate()
        said = server.communicate(timeout=20)[1]
    assert {run: sorted(found) for run, found in tags.items()} == {
        "cnn/logs/train": TAGS,
        "cnn/logs/val": ["accuracy", "loss"],
    }, said
