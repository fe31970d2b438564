"""`python -m benchmarks.scaling`: how time and memory grow with the number of images and the input size."""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from hw1_utils.batching import batches
from hw1_utils.config import make_config
from hw1_utils.device import now
from hw1_utils.experiment import prepare
from hw1_utils.features import extract
from hw1_utils.measure.environment import peak_rss_mb
from hw1_utils.measure.profiling import time_per_call
from hw1_utils.models import load_encoder
from hw1_utils.tasks import CNNTask
from hw1_utils.training import fit

from .common import load, show

TRAIN_SIZES, EXTRACT_SIZES, INPUT_SIZES = (5000, 10000, 20000, 40000), (128, 256, 512, 1024), (96, 112, 160, 224)


def line(counts: tuple[int, ...], seconds: list[float]) -> str:
    """Least-squares line through the points, and how far the worst point lies from it."""
    slope, intercept = np.polyfit(counts, seconds, 1)
    worst = max(abs(s - (intercept + slope * n)) / s for n, s in zip(counts, seconds, strict=True))
    return f"{intercept:.2f} s + {slope * 1e3:.3f} ms per image; off by {worst:.1%} at most"


def training_time(setup) -> None:
    """One epoch of the CNN on growing parts of the training images."""
    seconds = []
    for count in (TRAIN_SIZES[0], *TRAIN_SIZES):  # the first is a warm-up
        task = CNNTask(setup, "short")
        part = batches(setup.train.images[:count], setup.train.labels[:count], task.batch_size, shuffle_seed=0)
        cut = ((task.look(images), labels) for images, labels in part)
        history = fit(
            task.model, lambda _, cut=cut: cut, epochs=1, precision=setup.precision, **task.recipe(task.model)
        )
        seconds.append(history[0]["seconds"])
    rows = [[f"{n:,}", f"{s:.2f}"] for n, s in zip(TRAIN_SIZES, seconds[1:], strict=True)]
    show("CNN, one epoch", ["Images", "Seconds"], [*rows, ["line", line(TRAIN_SIZES, seconds[1:])]], setup)


def extraction_time(setup) -> None:
    """Extraction of growing numbers of images, and at smaller inputs."""
    encoder = load_encoder(setup.config, setup.device, setup.precision.dtype)
    size, seconds = setup.config.extract_batch_size, []
    for count in (EXTRACT_SIZES[0], *EXTRACT_SIZES):
        with tempfile.TemporaryDirectory() as folder:
            started = now(setup.device)
            extract(encoder, setup.train.images[:count], size, Path(folder), say=lambda text: None)
            seconds.append(now(setup.device) - started)
    rows = [[f"{n:,}", f"{s:.2f}"] for n, s in zip(EXTRACT_SIZES, seconds[1:], strict=True)]
    show("Feature extraction", ["Images", "Seconds"], [*rows, ["line", line(EXTRACT_SIZES, seconds[1:])]], setup)
    rows = []
    for side in INPUT_SIZES:
        encoder.backbone.set_input_size(img_size=(side, side))
        encoder.input_size = (side, side)
        per_batch = time_per_call(lambda: encoder(setup.train.images[:size]), setup.device)
        rows.append([side, f"{size / per_batch:,.0f}"])
    show("Input size", ["Side, pixels", "Images/s"], rows, setup)


def memory_of(count: int) -> float | None:
    """Peak resident memory, in MB, of a process that loads `count` training images and takes a few steps."""
    setup = prepare(make_config("full", train_size=count, val_size=1000))
    task = CNNTask(setup, "short")
    few = [batch for batch, _ in zip(task.image_batches(1), range(4), strict=False)]
    fit(task.model, lambda _: few, epochs=1, precision=setup.precision, **task.recipe(task.model))
    return peak_rss_mb()


def memory(setup) -> None:
    rows = []
    for count in TRAIN_SIZES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(memory_of, count).result()  # decodes and caches: the second look is what a run sees
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            rows.append([f"{count:,}", f"{pool.submit(memory_of, count).result():,.0f}"])
    show("Memory of a process that trains the CNN", ["Images", "Peak resident, MB"], rows, setup)


if __name__ == "__main__":
    torch.manual_seed(0)
    loaded = load()
    training_time(loaded)
    extraction_time(loaded)
    memory(loaded)
