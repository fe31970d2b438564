"""The one train loop, the evaluation pass and the overfit sanity check. Knows no model and no dataset."""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .device import Precision, now
from .errors import Hw1Error
from .io.checkpoint import Checkpoint
from .io.tracking import Tracker
from .optim import MovingAverage

Batches = Iterable[tuple[Tensor, Tensor]]  # (inputs, targets), on the device; targets: int64 B, or probabilities B×K


@dataclass(frozen=True)
class Evaluation:
    """What a model says about every sample of a split, in the split's order."""

    loss: float  # mean cross-entropy over samples, no label smoothing
    accuracy: float
    probabilities: Tensor  # float32 N×K, on the CPU
    labels: Tensor  # int64 N, on the CPU


@torch.inference_mode()
def evaluate(model: nn.Module, batches: Batches, precision: Precision) -> Evaluation:
    """Run the model in eval mode over all batches. Averages are over samples, whatever the batch sizes."""
    was_training = model.training
    model.eval()
    all_logits, all_labels = [], []
    for inputs, labels in batches:
        with precision.autocast(labels.device):
            logits = model(inputs)
        all_logits.append(logits.float())
        all_labels.append(labels)
    model.train(was_training)
    logits, labels = torch.cat(all_logits), torch.cat(all_labels)
    return Evaluation(
        loss=F.cross_entropy(logits, labels).item(),
        accuracy=(logits.argmax(1) == labels).double().mean().item(),
        probabilities=logits.softmax(1).cpu(),
        labels=labels.cpu(),
    )


def fit(
    model: nn.Module,
    train_batches: Callable[[int], Batches],
    *,
    epochs: int,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    ema: MovingAverage | None = None,
    validate: Callable[[nn.Module], Evaluation] | None = None,
    tracker: Tracker | None = None,
    profiler: torch.profiler.profile | None = None,
    checkpoint: Checkpoint | None = None,
    stop: Callable[[dict], bool] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """Train `model` in place.

    Args:
        train_batches: epoch number (from 1) -> the batches of that epoch.
        scheduler: stepped after every optimiser step.
        class_weights: float32 K, what an image of each class counts in the loss.
        ema: moving average of the weights; where given, it is what is validated.
        validate: called with the model to judge after each epoch.
        tracker: TensorBoard logs of each epoch.
        profiler: told of every step.
        checkpoint: saved after each epoch; an interrupted run of the same config continues exactly.
        stop: end after an epoch whose row it accepts.
        say: gets a line per epoch.

    Returns:
        One row per epoch: epoch, train_loss and train_accuracy (running, on augmented data; where targets are
        probabilities, the most probable class counts as the right one), val_loss, val_accuracy, lr (at its end),
        seconds (of training alone), elapsed_seconds (their sum so far).

    Raises:
        Hw1Error: the loss is no longer a finite number; the checkpoint of the last good epoch stays.
    """
    device = next(model.parameters()).device
    look_every = looks_every(device)
    scaler = precision.scaler(device)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler, "ema": ema}
    history = checkpoint.restore(parts) if checkpoint else []
    if history:
        say(f"  continuing after epoch {len(history)}, saved on disk")
    if tracker:
        tracker.start_at(len(history) + 1)
    for epoch in range(len(history) + 1, epochs + 1):
        model.train()
        loss_sum = correct = seen = 0
        unseen: list[Tensor] = []  # losses nobody has looked at
        started = now(device)
        for step, (inputs, targets) in enumerate(train_batches(epoch), start=1):
            with precision.autocast(device):
                logits = model(inputs)
            # Not reduction="mean": it divides by the batch's weights, so batches would count differently.
            loss = F.cross_entropy(
                logits.float(), targets, class_weights, reduction="sum", label_smoothing=label_smoothing
            ) / len(targets)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            if scheduler:
                scheduler.step()
            if ema:
                ema.update(model)
            # Sums stay on the device: reading them here would make the CPU wait for the GPU in every step.
            labels = targets if targets.ndim == 1 else targets.argmax(1)
            loss_sum += loss.detach() * len(labels)
            correct += (logits.detach().argmax(1) == labels).sum()
            seen += len(labels)
            unseen.append(loss.detach())
            if len(unseen) == look_every:
                _refuse_divergence(unseen, step, epoch)
                unseen = []
            if profiler:
                profiler.step()
        if unseen:
            _refuse_divergence(unseen, step, epoch)
        seconds = now(device) - started
        row = {
            "epoch": epoch,
            "train_loss": float(loss_sum) / seen,
            "train_accuracy": float(correct) / seen,
            "lr": optimizer.param_groups[0]["lr"],
            "seconds": seconds,
            "elapsed_seconds": seconds + (history[-1]["elapsed_seconds"] if history else 0.0),
        }
        if validate:
            evaluation = validate(judged(model, ema))
            if not math.isfinite(evaluation.loss):
                raise _diverged(f"The validation loss is {evaluation.loss} after epoch {epoch}")
            row |= {"val_loss": evaluation.loss, "val_accuracy": evaluation.accuracy}
        history.append(row)
        if tracker:
            tracker.log_epoch(row, model)
        if checkpoint:
            checkpoint.save(parts, history)
        say(_line(row, epochs, seen))
        if stop and stop(row):
            break
    return history


def looks_every(device: torch.device) -> int:
    """Steps between two looks at the loss: each look makes the CPU wait for a GPU."""
    return 50 if device.type == "cuda" else 1


def _refuse_divergence(losses: list[Tensor], last_step: int, epoch: int) -> None:
    """Raise Hw1Error if one of the losses, those of the steps up to `last_step`, is not finite. A sync point."""
    values = torch.stack(losses).tolist()
    for step, value in enumerate(values, start=last_step - len(values) + 1):
        if not math.isfinite(value):
            raise _diverged(f"The loss is {value} at step {step} of epoch {epoch}")


def _diverged(what: str) -> Hw1Error:
    return Hw1Error(f"{what}: training diverged and stops here; lower the learning rate.")


def judged(model: nn.Module, ema: MovingAverage | None) -> nn.Module:
    """What is judged: the moving average of the weights where one is kept, else the model itself."""
    return ema.module if ema else model


def _line(row: dict, epochs: int, seen: int) -> str:
    left = row["elapsed_seconds"] / row["epoch"] * (epochs - row["epoch"])
    val = f"  val loss {row['val_loss']:.3f} acc {row['val_accuracy']:.3f}" if "val_loss" in row else ""
    return (
        f"  epoch {row['epoch']:>2}/{epochs}  train loss {row['train_loss']:.3f} acc {row['train_accuracy']:.3f}{val}"
        f"  {seen / row['seconds']:,.0f} images/s, {left:.0f} s left"
    )


def overfit_check(
    model: nn.Module, batches: list[tuple[Tensor, Tensor]], *, lr: float, precision: Precision, max_epochs: int = 300
) -> tuple[list[dict], Evaluation]:
    """Train on a few fixed batches until all of them are classified correctly, or `max_epochs` times.

    A network, loss and optimiser that are wired up correctly can learn three batches by heart.

    Args:
        model: trained in place: pass a copy.
        batches: about three, without augmentation.

    Returns:
        The history as from `fit`, and what the model says about the batches' samples in the end.
    """
    history = fit(
        model,
        lambda epoch: batches,
        epochs=max_epochs,
        optimizer=torch.optim.AdamW(trainable(model), lr=lr, weight_decay=0.0),
        precision=precision,
        validate=lambda trained: evaluate(trained, batches, precision),
        stop=lambda row: row["val_accuracy"] == 1.0,
    )
    return history, evaluate(model, batches, precision)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def first_steps(train_batches: Callable[[int], Batches], steps: int) -> Batches:
    """The first `steps` batches of training, running on into later epochs if one is shorter."""
    epochs = map(train_batches, itertools.count(1))
    return itertools.islice(itertools.chain.from_iterable(epochs), steps)
