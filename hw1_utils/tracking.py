"""TensorBoard logs: scalars and histograms of each epoch."""

import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import nn
from torch.utils.tensorboard.summary import histogram, scalar

from .files import atomic

BINS = 32  # per histogram: a few hundred bytes each


class Tracker:
    """Writes `logs/train` and `logs/val`; the same tag in both overlays the two curves.

    Each epoch is one event file of its own, moved into place when it is complete. So an epoch that is run
    again after an interruption replaces its points instead of doubling them, a reader never sees half a
    record, and file names carry no host name. (SummaryWriter would append to one file, from a thread of its own.)
    """

    def __init__(self, logs: Path) -> None:
        self.logs = logs

    def start_at(self, epoch: int) -> None:
        """Keep what earlier epochs wrote, remove everything from `epoch` on. `fit` calls it before its first epoch."""
        for part in ("train", "val"):
            for file in (self.logs / part).glob("*"):
                if file.name >= self._name(epoch):
                    file.unlink()

    @staticmethod
    def _name(epoch: int) -> str:
        return f"events.out.tfevents.{epoch:010d}.hw1"  # TensorBoard reads a folder's files in name order

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

    def log_frozen(self, model: nn.Module) -> None:
        """Histograms of weights that training never changes: once, as epoch 0."""
        self._write("train", 0, {}, {f"frozen/{name}": parameter for name, parameter in model.named_parameters()})

    def _write(self, part: str, epoch: int, scalars: dict, histograms: dict) -> None:
        summaries: list[Summary] = [scalar(tag, value) for tag, value in scalars.items()]
        for tag, values in histograms.items():
            summaries.append(histogram(tag, values.detach().float().cpu().numpy(), bins=BINS))
        events = [Event(wall_time=time.time(), step=epoch, summary=summary) for summary in summaries]
        with atomic(self.logs / part / self._name(epoch)) as partial, open(partial, "wb") as file:
            writer = RecordWriter(file)
            for event in [Event(wall_time=time.time(), file_version="brain.Event:2"), *events]:
                writer.write(event.SerializeToString())
