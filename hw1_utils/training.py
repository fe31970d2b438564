"""The one train loop and the evaluation pass. They know no model, no dataset and no settings."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .device import Precision, now
from .errors import Hw1Error
from .io.checkpoint import Checkpoint
from .io.progress import Progress
from .io.tracking import Tracker
from .optim import Optimization

Batches = Iterable[tuple[Tensor, Tensor]]  # (inputs, targets), on the device; targets: int64 B, or probabilities B×K


@dataclass(frozen=True)
class Predictions:
    """What a model says about every sample of a split, in the split's order."""

    loss: float  # mean cross-entropy over samples, no label smoothing
    accuracy: float
    probabilities: Tensor  # float32 N×K, on the CPU, in memory or mapped from a file
    labels: Tensor  # int64 N, on the CPU

    @property
    def guesses(self) -> np.ndarray:
        """The most probable class of each sample, int64 N."""
        return self.probabilities.argmax(1).numpy()


@torch.inference_mode()
def evaluate(model: nn.Module, batches: Batches, precision: Precision, into: Tensor | None = None) -> Predictions:
    """Run the model in eval mode over all batches. Averages are over samples, whatever the batch sizes.

    `into`, float32 N×K, takes the probabilities batch by batch: it may be mapped from a file.
    """
    was_training = model.training
    model.eval()
    all_probabilities, all_labels = [], []
    loss = correct = count = 0
    for inputs, labels in batches:
        with precision.autocast(labels.device):
            logits = model(inputs)
        logits = logits.float()
        # Sums and probabilities stay on the device: reading them here would make the CPU wait for a GPU.
        loss += F.cross_entropy(logits, labels, reduction="sum").double()
        correct += (logits.argmax(1) == labels).sum()
        if into is None:
            all_probabilities.append(logits.softmax(1))
        else:
            into[count : count + len(labels)] = logits.softmax(1)
        all_labels.append(labels)
        count += len(labels)
    model.train(was_training)
    return Predictions(
        loss=loss.item() / count,
        accuracy=correct.item() / count,
        probabilities=(torch.cat(all_probabilities) if into is None else into).cpu(),
        labels=torch.cat(all_labels).cpu(),
    )


def fit(
    model: nn.Module,
    train_batches: Callable[[int], Batches],
    optimization: Optimization,
    *,
    epochs: int,
    precision: Precision,
    validate: Callable[[nn.Module], Predictions] | None = None,
    tracker: Tracker | None = None,
    profiler: torch.profiler.profile | None = None,
    checkpoint: Checkpoint | None = None,
    stop: Callable[[dict], bool] = lambda row: False,
    progress: Progress | None = None,
) -> list[dict]:
    """Train `model` in place.

    Args:
        train_batches: epoch number (from 1) -> the batches of that epoch.
        optimization: of the model's parameters: see `optim.make_optimization`.
        validate: called with the model to judge after each epoch.
        tracker: TensorBoard logs of each epoch.
        profiler: told of every step.
        checkpoint: saved after each epoch; an interrupted run of the same config continues exactly.
        stop: end after an epoch whose row it accepts.
        progress: of the epochs; told of each.

    Returns:
        One row per epoch: epoch, train_loss and train_accuracy (running, on augmented data; where targets are
        probabilities, the most probable class counts as the right one), val_loss, val_accuracy, lr (at its end),
        seconds (of training alone), elapsed_seconds (their sum so far).

    Raises:
        Hw1Error: the loss is no longer a finite number; the checkpoint of the last good epoch stays.
    """
    device = next(model.parameters()).device
    look_after = steps_between_looks(device)
    optimizer, scheduler, ema = optimization.optimizer, optimization.scheduler, optimization.ema
    scaler = precision.scaler(device)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler, "ema": ema}
    history = checkpoint.restore(parts) if checkpoint else []
    if progress:
        progress.begin(len(history))
        if history:
            progress.say(f"  continuing after epoch {len(history)}, saved on disk")
    if tracker:
        tracker.start_at(len(history) + 1)
    for epoch in range(len(history) + 1, epochs + 1):
        model.train()
        loss_sum = correct = count = 0
        unchecked: list[Tensor] = []  # losses nobody has looked at
        started = now(device)
        # The notebook shows what stands between the two lines `# ---`, which it finds by their text.
        # --- the loop
        for step, (inputs, targets) in enumerate(train_batches(epoch), start=1):
            with precision.autocast(device):
                logits = model(inputs)
            loss = mean_loss(logits, targets, optimization)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            if scheduler:
                scheduler.step()
            if ema:
                ema.update(model)
            # --- what is written down of it
            # Sums stay on the device: reading them here would make the CPU wait for the GPU in every step.
            labels = targets if targets.ndim == 1 else targets.argmax(1)
            loss_sum += loss.detach() * len(labels)
            correct += (logits.detach().argmax(1) == labels).sum()
            count += len(labels)
            unchecked.append(loss.detach())
            if len(unchecked) == look_after:
                _refuse_divergence(unchecked, step, epoch)
                unchecked = []
            if profiler:
                profiler.step()
        if unchecked:
            _refuse_divergence(unchecked, step, epoch)
        seconds = now(device) - started
        row = {
            "epoch": epoch,
            "train_loss": float(loss_sum) / count,
            "train_accuracy": float(correct) / count,
            "lr": optimizer.param_groups[0]["lr"],
            "seconds": seconds,
            "elapsed_seconds": seconds + (history[-1]["elapsed_seconds"] if history else 0.0),
        }
        if validate:
            val = validate(judged(model, optimization))
            if not math.isfinite(val.loss):
                raise _diverged(f"The validation loss is {val.loss} after epoch {epoch}")
            row |= {"val_loss": val.loss, "val_accuracy": val.accuracy}
        history.append(row)
        if tracker:
            tracker.log_epoch(row, model)
        if checkpoint:
            checkpoint.save(parts, history)
        if progress:
            progress.update(epoch, _note(row, count))
        if stop(row):
            break
    if tracker:
        tracker.finish()
    return history


def mean_loss(logits: Tensor, targets: Tensor, optimization: Optimization) -> Tensor:
    """Cross-entropy of float B×K logits, in float32, averaged over the samples of the batch."""
    # Not reduction="mean": it divides by the batch's weights, so batches would count differently.
    total = F.cross_entropy(
        logits.float(),
        targets,
        optimization.class_weights,
        reduction="sum",
        label_smoothing=optimization.label_smoothing,
    )
    return total / len(targets)


def judged(model: nn.Module, optimization: Optimization) -> nn.Module:
    """What is judged: the moving average of the weights where one is kept, else the model itself."""
    return optimization.ema.module if optimization.ema else model


def _note(row: dict, count: int) -> str:
    """An epoch in a line, of `count` samples."""
    val = f", val loss {row['val_loss']:.3f} acc {row['val_accuracy']:.3f}" if "val_loss" in row else ""
    rate = f"{count / row['seconds']:,.0f} images/s"
    return f"train loss {row['train_loss']:.3f} acc {row['train_accuracy']:.3f}{val}, {rate}"


def steps_between_looks(device: torch.device) -> int:
    """After how many steps the losses are looked at: each look makes the CPU wait for a GPU."""
    return 50 if device.type == "cuda" else 1


def _refuse_divergence(losses: list[Tensor], last_step: int, epoch: int) -> None:
    """Raise Hw1Error if one of the losses, those of the steps up to `last_step`, is not finite. A sync point."""
    values = torch.stack(losses).tolist()
    for step, value in enumerate(values, start=last_step - len(values) + 1):
        if not math.isfinite(value):
            raise _diverged(f"The loss is {value} at step {step} of epoch {epoch}")


def _diverged(what: str) -> Hw1Error:
    return Hw1Error(f"{what}: training diverged and stops here; lower the learning rate.")
