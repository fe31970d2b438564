"""What a model costs: the trace of its first steps, parameters, multiply-adds, speed and memory."""

import copy
import statistics
from dataclasses import replace

import torch
from torch import Tensor

from ..config import Config
from ..data import Split
from ..device import choose_precision, find_device, halving, keep_freed_memory
from ..preparation import Setup
from ..probes import ProbeTask
from ..tasks import CNNTask, Task
from ..training import first_steps, fit
from . import profiling


def trace_training(task: Task) -> profiling.Trace:
    """Profile the first steps of training, images in, on a copy of the model."""
    steps = task.setup.config.profile_steps
    model = copy.deepcopy(task.full_model)
    recipe = task.recipe(model)

    def run(profiler: torch.profiler.profile) -> None:
        first = first_steps(task.image_batches, profiling.WARMUP + steps)
        fit(model, lambda _: first, epochs=1, precision=task.setup.precision, profiler=profiler, **recipe)

    return profiling.record_trace(run, task.runs / "profiler", task.setup.device, steps)


def measure_costs(task: Task) -> dict:
    """Parameters, multiply-adds, speed and memory of `full_model`, images in, measured without a profiler."""
    setup, config = task.setup, task.setup.config
    model = copy.deepcopy(task.full_model).eval()

    train = task.seen(setup.train)

    def seconds_for(count: int) -> float:
        images = train.take(slice(count))

        def infer() -> Tensor:
            with torch.inference_mode(), setup.precision.autocast(setup.device):
                return model(task.look(images))

        return profiling.time_per_call(infer, setup.device)

    parameters, trained = profiling.count_parameters(task.full_model)
    arithmetic = task.arithmetic(train.take(slice(1)))
    step_seconds = _step_seconds(task)
    batch_size = min(task.batch_size, len(setup.train))
    inference_batch, batch_seconds = halving(seconds_for, min(config.extract_batch_size, len(setup.train)))
    small = replace(config, image_size=task.image_size)
    peak, before = profiling.peak_memory_mb(
        train_a_little,
        (small, task.kind, task.variant, task.details["encoder"], batch_size, len(setup.classes)),
        setup.device,
    )
    return {
        "parameters": parameters,
        "trainable_parameters": trained,
        "macs": profiling.count_macs(*arithmetic),
        "macs_thop": profiling.count_macs_thop(*arithmetic),
        "batch_size": batch_size,
        "step_ms": step_seconds * 1e3,
        "step_images_per_second": batch_size / step_seconds,
        "inference_batch_size": inference_batch,
        "inference_images_per_second": inference_batch / batch_seconds,
        "latency_ms": seconds_for(1) * 1e3,
        "peak_memory_mb": peak,
        "memory_before_mb": before,
    }


def _step_seconds(task: Task, steps: int = 4, rounds: int = 4) -> float:
    """Median seconds of one training step, images in, after a warm-up round. Trains a copy."""
    model = copy.deepcopy(task.full_model)
    history = fit(
        model,
        lambda _: first_steps(task.image_batches, steps),
        epochs=rounds,
        precision=task.setup.precision,
        **task.recipe(model),
    )
    return statistics.median(row["seconds"] / steps for row in history[1:])


def train_a_little(config: Config, kind: str, variant: str, encoder: str, batch_size: int, count: int) -> None:
    """Three training steps on random images of `count` classes: the work whose memory is measured."""
    keep_freed_memory()
    device = find_device(config.device)
    images = torch.randint(0, 256, (batch_size, 3, config.image_size, config.image_size), dtype=torch.uint8)
    classes = [str(i) for i in range(count)]
    split = Split("train", images, torch.arange(batch_size) % count, [], classes).to(device)
    if kind == "probe":
        config = replace(config, encoder=encoder, weights="random")
    precision = choose_precision(config.precision, device)
    setup = Setup(config, device, precision, split, split, torch.full((3,), 0.5), torch.full((3,), 0.25), {})
    task = CNNTask(setup, variant) if kind == "cnn" else ProbeTask(setup, variant)
    batches_of = task.image_batches
    fit(
        task.full_model,
        lambda _: first_steps(batches_of, 3),
        epochs=1,
        precision=precision,
        **task.recipe(task.full_model),
    )
