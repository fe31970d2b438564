"""`python -m benchmarks.memory`: memory while the data grows beyond it: decoding, an epoch of the CNN, features, test.

`python -m benchmarks.memory --studies`: the learning curve and the input sizes, on 20,000 photographs of 224×224.

Own memory is what the process alone needs (Linux's RssAnon). Mapped files are the system's cache: given back on demand.
"""

import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from hw1_utils import context, experiment
from hw1_utils.config import ROOT, make_config
from hw1_utils.experiment import cnn, load_test, probe, train
from hw1_utils.features import extract
from hw1_utils.models import load_encoder, load_encoders
from hw1_utils.studies import input_size, learning_curve
from hw1_utils.studies.common import train_only

from .common import load, show

LIMIT_MB = 100  # Config.memory_mb
ENCODER, SIDE = "test_vit", 64  # timm's smallest, on few pixels: it is the amount of data that counts here
INTERVAL_S = 0.02  # between two looks at the memory


def grown(source: Path, target: Path, wanted: int) -> None:
    """`wanted` training images and as many test images as there are, as links to the files in `source`."""
    for part, count in (("train", wanted + 1000), ("test", 10_000)):
        files = sorted((source / part).glob("*/*.png"))
        for i in range(count):
            file = files[i * 7919 % len(files)]  # a prime: the classes come in turn
            (target / part / file.parent.name).mkdir(parents=True, exist_ok=True)
            os.link(file, target / part / file.parent.name / f"{i:06d}.png")


@contextmanager
def watched(peaks: dict[str, float]) -> Iterator[None]:
    """Keep the largest own and mapped memory, in MB, that is seen while the block runs."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(INTERVAL_S):
            status = Path("/proc/self/status").read_text()
            for name in ("RssAnon", "RssFile"):
                now = int(status.split(f"{name}:")[1].split()[0]) * 1024 / 1e6
                peaks[name] = max(peaks.get(name, 0), now)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def work(folder: Path, count: int, memory_mb: int) -> dict[str, float]:
    """Load `count` images, train CNN and probe for an epoch each, judge both: the peaks of memory."""
    peaks: dict[str, float] = {}
    with watched(peaks):
        config = make_config(
            "full",
            data_dir=str(folder / "data"),
            output_dir=str(folder / "out"),
            train_size=count,
            val_size=1000,
            encoder=ENCODER,
            weights="random",
            cnn_epochs=1,
            probe_epochs=1,
            memory_mb=memory_mb,
        )
        data = experiment.load(config)
        test, machine = load_test(data), data.context
        encoder = input_size.at_input_size(load_encoder(config, machine.device, machine.precision.dtype), SIDE)
        train_only(cnn(data), test)
        train_only(probe(extract(encoder, data), "blocks"), test)
    return peaks


def photographs(target: Path, train: int = 20_000, test: int = 500, side: int = 224, classes: int = 10) -> None:
    """JPEG files: a coloured square before a smooth ground, in a place of its own."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for i in range(count):
            folder = target / part / f"class_{i % classes}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.asarray(Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8)).resize((side, side))).copy()
            top, left = rng.integers(0, side // 2, 2)
            pixels[top : top + side // 2, left : left + side // 2] = 25 * (i % classes)
            Image.fromarray(pixels).save(folder / f"{i:06d}.jpg")


def studies_work(folder: Path, memory_mb: int) -> dict[str, float]:
    """Both models, an epoch each, then what the studies add to the peaks of memory."""
    context.keep_freed_memory = lambda: None  # else what earlier work has freed hides what is taken now
    peaks: dict[str, float] = {}
    config = make_config(
        "full",
        data_dir=str(folder / "data"),
        output_dir=str(folder / "out"),
        image_size=64,
        encoder=ENCODER,
        weights="random",
        cnn_epochs=1,
        cnn_batch_size=16,
        probe_epochs=1,
        profile_steps=2,
        study_images=15_000,
        memory_mb=memory_mb,
    )
    data = experiment.load(config)
    (encoder,) = load_encoders(data.context)
    small, blocks = (train(run) for run in (cnn(data), probe(extract(encoder, data), "blocks")))
    learning_curve.PER_CLASS = (1000,)  # one part, of 10,000 images
    before: dict[str, float] = {}
    with watched(before):
        time.sleep(10 * INTERVAL_S)
    with watched(peaks):
        learning_curve.learning_curve(small, [blocks])
        input_size.input_size([blocks])  # on 15,000
    return peaks | {f"{name} before": value for name, value in before.items()}


def main() -> None:
    if "--studies" in sys.argv:
        with tempfile.TemporaryDirectory() as name:
            photographs(Path(name) / "data")
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                print(pool.submit(studies_work, Path(name), LIMIT_MB).result())
        return
    data, rows = load(), []
    for count, memory_mb in ((12_500, LIMIT_MB), (50_000, LIMIT_MB), (50_000, 10**6), (200_000, LIMIT_MB)):
        with tempfile.TemporaryDirectory(dir=ROOT / "data") as name:  # the same disk: files can be linked
            folder = Path(name)
            grown(data.context.config.data_path, folder / "data", count)
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                peaks = pool.submit(work, folder, count, memory_mb).result()
            rows.append([f"{count:,}", f"{memory_mb:,}", f"{peaks['RssAnon']:,.0f}", f"{peaks['RssFile']:,.0f}"])
            print(rows[-1])
    columns = ["Images", "`memory_mb`", "Own memory, peak MB", "Mapped files, peak MB"]
    show("Memory from files to both models' test figures", columns, rows, data)


if __name__ == "__main__":
    main()
