"""`python -m benchmarks.scaling`: how time and memory grow with the number of images and the input size."""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hw1_utils.data import Data
from hw1_utils.device import now, peak_rss_mb
from hw1_utils.experiment import cnn
from hw1_utils.features import compute
from hw1_utils.measure.profiling import time_per_call
from hw1_utils.models import load_encoder
from hw1_utils.training import fit

from .common import load, load_apart, show

TRAIN_SIZES, EXTRACT_SIZES, INPUT_SIZES = (5000, 10000, 20000, 40000), (128, 256, 512, 1024), (96, 112, 160, 224)


def line(counts: tuple[int, ...], seconds: list[float]) -> str:
    """Least-squares line through the points, and how far the worst point lies from it."""
    slope, intercept = np.polyfit(counts, seconds, 1)
    worst = max(abs(s - (intercept + slope * n)) / s for n, s in zip(counts, seconds, strict=True))
    return f"{intercept:.2f} s + {slope * 1e3:.3f} ms per image; off by {worst:.1%} at most"


def training_time(data: Data) -> None:
    """One epoch of the CNN on growing parts of the training images."""
    seconds = []
    for count in (TRAIN_SIZES[0], *TRAIN_SIZES):  # the first is a warm-up
        run = cnn(replace(data, train=data.train.subset(torch.arange(count))), "short")
        epoch = run.train.batches(run.batch_size, epoch=1)
        optimization = run.optimization(run.model)
        history = fit(run.model, lambda _, epoch=epoch: epoch, optimization, epochs=1, precision=run.precision)
        seconds.append(history[0]["seconds"])
    rows = [[f"{n:,}", f"{s:.2f}"] for n, s in zip(TRAIN_SIZES, seconds[1:], strict=True)]
    show("CNN, one epoch", ["Images", "Seconds"], [*rows, ["line", line(TRAIN_SIZES, seconds[1:])]], data)


def extraction_time(data: Data) -> None:
    """Extraction of growing numbers of images, and at smaller inputs."""
    context, images = data.context, data.train.images
    encoder = load_encoder(context.config, context.device, context.precision.dtype)
    size, seconds = context.extract_batch_size, []
    for count in (EXTRACT_SIZES[0], *EXTRACT_SIZES):
        with tempfile.TemporaryDirectory() as folder:
            started = now(context.device)
            compute(encoder, images[:count], size, Path(folder), say=lambda text: None)
            seconds.append(now(context.device) - started)
    rows = [[f"{n:,}", f"{s:.2f}"] for n, s in zip(EXTRACT_SIZES, seconds[1:], strict=True)]
    show("Feature extraction", ["Images", "Seconds"], [*rows, ["line", line(EXTRACT_SIZES, seconds[1:])]], data)
    rows = []
    for side in INPUT_SIZES:
        encoder.backbone.set_input_size(img_size=(side, side))
        encoder.input_size = (side, side)
        per_batch = time_per_call(lambda: encoder(images[:size]), context.device)
        rows.append([side, f"{size / per_batch:,.0f}"])
    show("Input size", ["Side, pixels", "Images/s"], rows, data)


def memory_of(count: int) -> float | None:
    """Peak resident memory, in MB, of a process that loads `count` training images and takes a few steps."""
    run = cnn(load_apart(train_size=count, val_size=1000), "short")
    few = [batch for batch, _ in zip(run.train.batches(run.batch_size, 1), range(4), strict=False)]
    fit(run.model, lambda _: few, run.optimization(run.model), epochs=1, precision=run.precision)
    return peak_rss_mb()


def memory(data: Data) -> None:
    rows = []
    for count in TRAIN_SIZES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(memory_of, count).result()  # decodes and caches: the second look is what a run sees
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            rows.append([f"{count:,}", f"{pool.submit(memory_of, count).result():,.0f}"])
    show("Memory of a process that trains the CNN", ["Images", "Peak resident, MB"], rows, data)


if __name__ == "__main__":
    torch.manual_seed(0)
    loaded = load()
    training_time(loaded)
    extraction_time(loaded)
    memory(loaded)
