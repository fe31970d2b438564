"""TensorBoard logs: scalars and histograms of each epoch."""

import os
import tempfile
from pathlib import Path

from torch import nn
from torch.utils.tensorboard import SummaryWriter

BINS = 32  # per histogram: a few hundred bytes each


class Tracker:
    """Writes `logs/train` and `logs/val`; the same tag in both overlays the two curves.

    Each epoch is one event file of its own, moved into place when it is complete. So an epoch that is run
    again after an interruption replaces its points instead of doubling them, a reader never sees half a
    record, and file names carry no host name.
    """

    def __init__(self, logs: Path) -> None:
        self.logs = logs

    def start_at(self, epoch: int) -> None:
        """Keep what earlier epochs wrote, remove everything from `epoch` on. `fit` calls it before its first epoch."""
        for part in ("train", "val"):
            folder = self.logs / part
            folder.mkdir(parents=True, exist_ok=True)
            for file in folder.iterdir():
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
        (self.logs / part).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.logs.parent, prefix=".epoch-") as scratch:
            with SummaryWriter(scratch) as writer:
                for tag, value in scalars.items():
                    writer.add_scalar(tag, value, epoch)
                for tag, values in histograms.items():
                    writer.add_histogram(tag, values.detach().float().cpu(), epoch, bins=BINS)
            (written,) = Path(scratch).iterdir()
            os.replace(written, self.logs / part / self._name(epoch))
