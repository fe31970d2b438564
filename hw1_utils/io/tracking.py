"""TensorBoard logs: scalars and histograms of each epoch."""

import math
import os
import time
from contextlib import suppress
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import nn
from torch.utils.tensorboard.summary import histogram, scalar

from .files import atomic

BINS = 32  # per histogram: a few hundred bytes each
READER_S = 60  # within which an open TensorBoard has looked into a folder again: it does so every 5 s


def clear_emptied(runs: Path) -> None:
    """Remove the files that trainings have emptied and not yet removed: see `Tracker`. Before a run, not during one."""
    for folder in runs.glob("*/logs/*"):
        files = sorted(folder.glob("events.out.tfevents.*"))
        with suppress(OSError):
            while files and not files[-1].stat().st_size:
                files.pop()  # TensorBoard may wait at one of these: nothing newer is there yet
            for file in files:
                if not file.stat().st_size:
                    file.unlink()


class Tracker:
    """Writes `logs/train` and `logs/val`; the same tag in both overlays the two curves.

    Each epoch is one event file of its own, moved into place when it is complete. So an epoch that is run
    again after an interruption replaces its points instead of doubling them, a reader never sees half a
    record, and file names carry no host name. (SummaryWriter would append to one file, from a thread of its own.)

    A TensorBoard that is open meanwhile reads a folder's files in the order of their names and none of them twice.
    So a fresh training's names come behind all that were here before, also those that are gone: they begin with the
    time. And every file begins with a session's start at its own step: what TensorBoard had read from there on is
    forgotten. The old files are emptied at once, but only go when TensorBoard has passed them to a newer one: its
    Python loader waits for ever at one that has vanished.
    """

    def __init__(self, logs: Path, frozen: nn.Module | None = None) -> None:
        """`frozen`: a model that training never changes; histograms of its weights are written once, as epoch 0."""
        self.logs, self.frozen = logs, frozen
        self.training = 0  # when it began, in milliseconds since 1970
        self._emptied: list[Path] = []
        self._first_written = math.inf

    def start_at(self, epoch: int) -> None:
        """Keep what earlier epochs of this training wrote, and nothing else. `fit` calls it before its first epoch."""
        files = list(self.logs.glob("*/events.out.tfevents.*"))
        numbers = [int(file.name.split(".")[3]) for file in files if file.name.split(".")[3].isdigit()]
        self.training = max(numbers, default=0)
        if epoch == 1:
            self.training = max(self.training + 1, int(1000 * time.time()))
        self._emptied, self._first_written = [], math.inf
        for file in files:
            if file.name >= self._name(epoch):
                file.unlink()
            elif file.name < self._name(0):
                os.truncate(file, 0)
                self._emptied.append(file)
        if self.frozen and epoch == 1:
            parameters = self.frozen.named_parameters()
            self._write("train", 0, {}, {f"frozen/{name}": parameter for name, parameter in parameters})

    def _name(self, epoch: int) -> str:
        return f"events.out.tfevents.{self.training:013d}.{epoch:05d}.hw1"

    def log_epoch(self, row: dict, model: nn.Module) -> None:
        """Loss, accuracy, learning rate, and histograms of weights and of the last step's gradients."""
        epoch = row["epoch"]
        histograms = {}
        for name, parameter in model.named_parameters():
            histograms[f"weights/{name}"] = parameter
            if parameter.grad is not None:  # None for frozen parameters
                histograms[f"gradients/{name}"] = parameter.grad
        train = {"loss": row["train_loss"], "accuracy": row["train_accuracy"], "learning_rate": row["lr"]}
        self._write("train", epoch, train, histograms)
        if "val_loss" in row:
            self._write("val", epoch, {"loss": row["val_loss"], "accuracy": row["val_accuracy"]}, {})
        self._first_written = min(self._first_written, time.monotonic())
        if time.monotonic() - self._first_written > READER_S:
            while self._emptied:
                self._emptied.pop().unlink(missing_ok=True)

    def _write(self, part: str, epoch: int, scalars: dict, histograms: dict) -> None:
        summaries: list[Summary] = [scalar(tag, value) for tag, value in scalars.items()]
        for tag, values in histograms.items():
            summaries.append(histogram(tag, values.detach().float().cpu().numpy(), bins=BINS))
        started = SessionLog(status=SessionLog.START)
        events = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        events += [Event(wall_time=time.time(), step=epoch, session_log=started)]
        events += [Event(wall_time=time.time(), step=epoch, summary=summary) for summary in summaries]
        with atomic(self.logs / part / self._name(epoch)) as partial, open(partial, "wb") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString())
