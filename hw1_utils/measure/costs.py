"""What a run costs: the trace of its first steps, parameters, multiply-adds, speed and memory."""

import copy
import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor, nn

from ..device import Precision, halving, keep_freed_memory
from ..io.files import read_checked, write_checked, write_csv
from ..training import Batches, Optimization, fit
from . import profiling

if TYPE_CHECKING:  # a run is handed in
    from ..experiment import Run


@dataclass(frozen=True)
class Costs:
    """What was measured of a run."""

    columns: dict  # of model_profile_comparison.csv
    operators: pd.DataFrame  # of the trace: operator, calls, self_ms, share


def measure_costs(run: "Run") -> Costs:
    """Trace the first steps of training and measure speed and memory, images in; seconds on a GPU, a minute on a CPU.

    All on copies of the model, after or before its training. What was measured under the same settings is read from
    disk, unless `Config.fresh` is set. Writes operators.csv.

    Raises:
        Hw1Error: the GPU's memory is too small, or a disk is full.
    """
    place = run.folder / "state" / "costs.safetensors"
    steps = {"profile_steps": run.context.config.profile_steps, "images a step": run.from_pixels.batch_size}
    settings = run.depends_on() | steps
    if not (place.parent.exists() or run.context.config.fresh):
        run.bring_back()
    _, kept = read_checked(place) or ({}, {})
    if run.context.config.fresh or kept.get("settings") != settings:
        place.unlink(missing_ok=True)  # it speaks of the trace that is replaced now
        print(f"{run.title}: trace, speed and memory")
        try:
            trace, columns = trace_training(run), speed_and_memory(run)
        except torch.OutOfMemoryError as error:
            raise run.too_large() from error
        calls = {
            "trace_steps": trace.steps,
            "operator_calls": trace.operator_calls,
            "operator_calls_per_step": trace.operator_calls / trace.steps,
        }
        kept = {"settings": settings, "costs": columns | calls}
        kept["operators"] = trace.operators.to_dict("list")
        write_checked(place, notes=kept)
        run.context.backup.keep(run.folder, f"runs/{run.name}")
    costs = Costs(kept["costs"], pd.DataFrame(kept["operators"]))
    write_csv(run.results / "operators.csv", costs.operators)
    return costs


def trace_training(run: "Run") -> profiling.Trace:
    """Profile the first steps of training, images in, with the loop itself, on a copy of the model."""
    context, model = run.context, copy.deepcopy(run.from_pixels.model)
    steps = context.config.profile_steps

    def work(profiler: torch.profiler.profile) -> None:
        first = first_steps(_batches(run), profiling.WARMUP + steps)
        fit(model, lambda _: first, run.optimization(model), epochs=1, precision=context.precision, profiler=profiler)

    return profiling.record_trace(work, run.folder / "profiler", context.device, steps)


def speed_and_memory(run: "Run") -> dict:
    """Parameters, multiply-adds, speed and memory of a run's model, images in, measured without a profiler."""
    context, whole, images = run.context, run.from_pixels, run.from_pixels.samples
    model = copy.deepcopy(whole.model).eval()

    def seconds_for(count: int) -> float:
        pixels = images.inputs[:count].to(context.device)

        def infer() -> Tensor:
            with torch.inference_mode(), context.precision.autocast(context.device):
                return model(images.transform(pixels, None))

        return profiling.time_per_call(infer, context.device)

    parameters, trained = profiling.count_parameters(whole.model)
    arithmetic = whole.arithmetic(images.inputs[:1].to(context.device))
    step_seconds = _step_seconds(run)
    batch_size = min(whole.batch_size, len(images))
    inference_batch, batch_seconds = halving(seconds_for, min(context.extract_batch_size, len(images)))
    shape = (batch_size, *images.inputs.shape[1:])
    job = (
        whole.blank,
        run.optimization,
        images.transform,
        context.device,
        context.precision,
        shape,
        len(run.data.classes),
    )
    peak, before = profiling.peak_memory_mb(train_a_little, job, context.device)
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


def _step_seconds(run: "Run", steps: int = 4, rounds: int = 4) -> float:
    """Median seconds of one training step, images in, after a warm-up round. Trains a copy."""
    model = copy.deepcopy(run.from_pixels.model)
    history = fit(
        model,
        lambda _: first_steps(_batches(run), steps),
        run.optimization(model),
        epochs=rounds,
        precision=run.context.precision,
    )
    return statistics.median(row["seconds"] / steps for row in history[1:])


def train_a_little(
    blank: Callable[[], nn.Module],
    optimization: Callable[[nn.Module], Optimization],
    transform: Callable,
    device: torch.device,
    precision: Precision,
    shape: tuple[int, ...],
    classes: int,
) -> None:
    """Three training steps on random images, uint8 of this shape: the work whose memory is measured.

    `blank` makes the model here and now: a model that was handed in would be in use before the work begins.
    """
    keep_freed_memory()
    model = blank().to(device, memory_format=torch.channels_last)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    labels = torch.arange(len(images), device=device) % classes
    generator = torch.Generator(device).manual_seed(0)
    batches = ((transform(images, generator), labels) for _ in range(3))
    fit(model, lambda _: batches, optimization(model), epochs=1, precision=precision)


def _batches(run: "Run") -> Callable:
    """Epoch -> training batches of images."""
    return lambda epoch: run.from_pixels.samples.batches(run.from_pixels.batch_size, epoch)


def first_steps(train_batches: Callable[[int], Batches], steps: int) -> Batches:
    """The first `steps` batches of training, running on into later epochs if one is shorter."""
    epochs = map(train_batches, itertools.count(1))
    return itertools.islice(itertools.chain.from_iterable(epochs), steps)
