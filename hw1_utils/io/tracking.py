"""TensorBoard logs: scalars and histograms of each epoch."""

import os
import time
from contextlib import suppress
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import nn
from torch.utils.tensorboard.summary import histogram, scalar

from .files import atomic

JOINED = ".joined.hw1"  # sorts behind the .hw1 of the last epoch that is in it
BINS = 32  # per histogram: a few hundred bytes each
READER_S = 60  # within which an open TensorBoard has looked into a folder again: it does so every 5 s


def clear_emptied(runs: Path, patience_s: float = READER_S) -> None:
    """Remove the files in `runs/<name>/logs` that trainings have emptied: see `Tracker`.

    Each one only when a newer one with something in it has been there for `patience_s`, as a TensorBoard may wait at
    it until then. 0: nobody reads.
    """
    for folder in runs.glob("*/logs/*"):
        _clear(folder, patience_s)


def _clear(folder: Path, patience_s: float) -> None:
    passed = False  # whether a reader has had time to pass on to a newer file
    with suppress(OSError):  # tidying is no reason to stop
        for file in sorted(folder.glob("events.out.tfevents.*"), reverse=True):
            status = file.stat()
            old = time.time() - status.st_mtime >= patience_s
            if status.st_size:
                passed |= old
            elif passed and old:
                file.unlink()


class Tracker:
    """Writes `logs/train` and `logs/val`; the same tag in both overlays the two curves.

    Each epoch is one event file of its own, moved into place when it is complete. So an epoch that is run
    again after an interruption replaces its points instead of doubling them, a reader never sees half a
    record, and file names carry no host name. (SummaryWriter would append to one file, from a thread of its own.)
    In the end `finish` joins a part's files into one, which is complete or absent, too: a kill between its steps leaves
    points that are there twice on disk, once for every reader, and the next `finish` goes on from there.

    A TensorBoard that is open meanwhile reads a folder's files in the order of their names and none of them twice.
    So a fresh training's names come behind all that were here before, also those that are gone: they begin with the
    time. And every file begins with a session's start at its own step: what TensorBoard had read from there on is
    forgotten; of a joined file that is all. Files that are replaced, by a new training's or by a joined one, are
    emptied at once, but only go when TensorBoard has passed them to a newer one: its Python loader waits for ever at
    one that has vanished.
    """

    def __init__(self, logs: Path, frozen: nn.Module | None = None) -> None:
        """`frozen`: a model that training never changes; histograms of its weights are written once, as epoch 0."""
        self.logs, self.frozen = logs, frozen
        self.training = 0  # when it began, in milliseconds since 1970

    def start_at(self, epoch: int) -> None:
        """Keep what earlier epochs of this training wrote, and nothing else. `fit` calls it before its first epoch."""
        files = list(self.logs.glob("*/events.out.tfevents.*"))
        numbers = [int(file.name.split(".")[3]) for file in files if file.name.split(".")[3].isdigit()]
        self.training = max(numbers, default=0)
        if epoch == 1:
            self.training = max(self.training + 1, int(1000 * time.time()))
        for file in files:
            if file.name < self._name(0):
                _empty(file)
            elif file.name >= self._name(epoch) and file.name.endswith(JOINED):
                self._keep_before(epoch, file)
                _empty(file)
            elif file.name >= self._name(epoch):
                file.unlink()
        if self.frozen and epoch == 1:
            parameters = self.frozen.named_parameters()
            self._write("train", 0, {}, {f"frozen/{name}": parameter for name, parameter in parameters})

    def _keep_before(self, epoch: int, joined: Path) -> None:
        """Write the points of earlier epochs to a joined file of their own: it sorts before those that follow now."""
        records = list(RawEventFileLoader(str(joined)).Load())
        events = map(Event.FromString, records)  # an epoch's: the format's version, its start, its points
        for i, event in enumerate(events):
            if event.HasField("session_log") and event.step >= epoch:
                _write_records(joined.with_name(self._name(epoch - 1, JOINED)), records[: i - 1])
                break

    def _name(self, epoch: int, suffix: str = ".hw1") -> str:
        return f"events.out.tfevents.{self.training:013d}.{epoch:05d}{suffix}"

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
        for part in ("train", "val"):
            _clear(self.logs / part, READER_S)

    def finish(self) -> None:
        """Join the epochs' files of each part into one, when the training has ended. It may be called again.

        Raises:
            Hw1Error: the disk refuses; the epochs' files stay.
        """
        for part in ("train", "val"):
            files = sorted((self.logs / part).glob(f"events.out.tfevents.{self.training:013d}.*"))
            files = [file for file in files if file.stat().st_size]
            joined = [i for i, file in enumerate(files) if file.name.endswith(JOINED)]
            pieces = files[joined[-1] if joined else 0 :]  # what stands before a joined file is in it
            if len(pieces) > 1:
                last = int(pieces[-1].name.split(".")[4])
                with atomic(self.logs / part / self._name(last, JOINED)) as partial, open(partial, "wb") as file:
                    file.writelines(piece.read_bytes() for piece in pieces)  # a record knows nothing of its file
                pieces = []
            for file in files:
                if file not in pieces:
                    _empty(file)

    def _write(self, part: str, epoch: int, scalars: dict, histograms: dict) -> None:
        summaries: list[Summary] = [scalar(tag, value) for tag, value in scalars.items()]
        for tag, values in histograms.items():
            summaries.append(histogram(tag, values.detach().float().cpu().numpy(), bins=BINS))
        started = SessionLog(status=SessionLog.START)
        events = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        events += [Event(wall_time=time.time(), step=epoch, session_log=started)]
        events += [Event(wall_time=time.time(), step=epoch, summary=summary) for summary in summaries]
        _write_records(self.logs / part / self._name(epoch), [event.SerializeToString() for event in events])


def _write_records(path: Path, records: list[bytes]) -> None:
    with atomic(path) as partial, open(partial, "wb") as file:
        writer = RecordWriter(file)
        for record in records:
            writer.write(record)


def _empty(file: Path) -> None:
    if file.stat().st_size:  # else it keeps its time of change, which says since when
        os.truncate(file, 0)
