"""`python -m benchmarks.studies [NAME ...]`: memory and time of each study as the images grow beyond memory.

--images 50000 200000   to train on; a tenth as many to validate on and to test on
--classes 10

Made-up images of 32×32 pixels and features with 192 columns lie in files, and each study has a
process of its own, of one thread. Own memory is what the process alone needs (Linux's RssAnon), here above what it had
when the study began; mapped files are the system's cache. Without names: all but `duplicates`, which looks at all pairs
and takes its time.
"""

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import hw1_utils as hw1
from hw1_utils import context
from hw1_utils.config import make_config
from hw1_utils.context import start
from hw1_utils.data import Data, Split
from hw1_utils.experiment import Result, Run, Trained, cnn, probe
from hw1_utils.features import Features, SplitFeatures
from hw1_utils.io.arrays import Rows
from hw1_utils.models import load_encoder
from hw1_utils.questions import STUDIES
from hw1_utils.studies import learning_curve
from hw1_utils.training import Predictions

from .common import table
from .memory import INTERVAL_S, watched

ENCODER, SIDE = "vit_tiny_patch16_224", 32
COLUMNS = 192  # of its class token
RIGHT = 0.8  # of what the made-up models say
MEMORY_MB = 300  # for scikit-learn, whose fits it bounds; images and features are in files all the same
WRITTEN = 4096  # rows at a time
SLOW = ("blocks", "recipes", "duplicates")  # without the last, the first two are trainings
SETTINGS = {"encoder": ENCODER, "weights": "random", "device": "cpu", "cnn_epochs": 1, "probe_epochs": 1, "seeds": 2}


def made(path: Path, labels: np.ndarray, shape: tuple[int, ...], dtype: type, noise: float = 2) -> Rows:
    """Noise around a centre of each class, N×shape, in a file; one that is there is used."""
    if path.exists():
        return Rows(torch.from_numpy(np.load(path, mmap_mode="c")), streamed=True)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((labels.max() + 1, *shape), dtype=np.float32)
    rng = np.random.default_rng(len(labels))
    values = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(len(labels), *shape))
    for at in range(0, len(labels), WRITTEN):
        some = labels[at : at + WRITTEN]
        noisy = centres[some] + noise * rng.standard_normal((len(some), *shape), dtype=np.float32)
        values[at : at + WRITTEN] = noisy if dtype == np.float32 else (128 + 30 * noisy).clip(0, 255)
    del values  # all of it is in the file then
    return made(path, labels, shape, dtype)


def splits(folder: Path, count: int, classes: int) -> tuple[list[Split], list[SplitFeatures]]:
    """Train, val and test, and their features."""
    parts, features = [], []
    for name, size in (("train", count), ("val", count // 10), ("test", count // 10)):
        labels = np.arange(size) % classes
        images = made(folder / f"{name}.npy", labels, (3, SIDE, SIDE), np.uint8)
        paths = [f"{name}/class_{label:04d}/{row:07d}.png" for row, label in enumerate(labels)]
        names = [f"class_{label:04d}" for label in range(classes)]
        parts.append(Split(name, images, torch.from_numpy(labels), paths, names))
        rows = made(folder / f"{name}-features.npy", labels, (COLUMNS,), np.float32, noise=8)  # a head errs on some
        features.append(SplitFeatures(rows, size / 80))
    return parts, features


def said(split: Split, seed: int) -> Predictions:
    """What a model that is right on `RIGHT` of the images might say."""
    rng, labels = np.random.default_rng(seed), split.labels.numpy()
    guesses = np.where(rng.random(len(labels)) < RIGHT, labels, rng.integers(0, len(split.classes), len(labels)))
    logits = rng.standard_normal((len(labels), len(split.classes)), dtype=np.float32)
    logits[np.arange(len(labels)), guesses] += 5
    return Predictions(1.0, float((guesses == labels).mean()), torch.from_numpy(logits).softmax(1), split.labels)


def judged(run: Run, test: Split, seed: int) -> Result:
    history = pd.DataFrame([{"epoch": 1, "val_accuracy": RIGHT, "elapsed_seconds": 1.0}])
    seconds = {"training_seconds": 1.0, "loop_images_per_second": 1000.0}
    val = said(run.data.val, seed)
    return Result(Trained(run, run.model, history, val, val, seconds), said(test, seed))


def studies(first: Result, second: Result, test: Split) -> dict:
    """What each study is called with."""
    both, one, other = [first, second], first.trained, second.trained
    return {
        "duplicates": partial(hw1.duplicates, both, test),
        "label_errors": partial(hw1.label_errors, first, second, test),
        "baselines": partial(hw1.baselines, both, test),
        "coverage": partial(hw1.coverage, both),
        "mistakes": partial(hw1.mistakes, both, test),
        "feature_map": partial(hw1.feature_map, second, test),
        "input_size": partial(hw1.input_size, [other]),
        "learning_curve": partial(hw1.learning_curve, one, [other]),
        "logreg": partial(hw1.logreg, [other], test),
        "calibration": partial(hw1.calibration, both),
        "disagreement": partial(hw1.disagreement, first, second, test),
        "seeds": partial(hw1.seeds, [second], test),
        "flips": partial(hw1.flips, both, test),
    }


def measured(folder: Path, count: int, classes: int, name: str) -> list[str]:
    """A row of the table, without its first columns."""
    context.keep_freed_memory = lambda: None  # else what earlier work has freed hides what is taken now
    torch.set_num_threads(1)
    learning_curve.PER_CLASS = (max(1, 20_000 // classes),)  # one part: more of them take longer, and no more memory
    places = {"data_dir": str(folder / "data"), "output_dir": str(folder / name)}
    config = make_config("full", **SETTINGS, **places, study_images=100, memory_mb=MEMORY_MB)
    (train, val, test), (*features, tested) = splits(folder, count, classes)
    where = start(config)
    encoder = load_encoder(config, where.device, where.precision.dtype)
    mean = torch.full((3,), 0.5)
    data = Data(where, train, val, mean, mean / 2, test_counts=test.counts(), largest_side=SIDE)
    where.computed["features", encoder.key(), test.sha256, SIDE] = tested
    runs = cnn(data), probe(Features(encoder, data, *features, train))
    study = studies(*(judged(run, test, seed) for seed, run in enumerate(runs)), test)[name]
    before: dict[str, float] = {}
    during: dict[str, float] = {}
    with watched(before):
        time.sleep(10 * INTERVAL_S)
    began = time.process_time()
    with watched(during):
        study()
    return [f"{during['RssAnon'] - before['RssAnon']:,.0f}", f"{time.process_time() - began:,.0f}"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*(STUDIES.keys() - {*SLOW[:2]}), []])
    parser.add_argument("--images", nargs="+", type=int, default=[50_000, 200_000])
    parser.add_argument("--classes", type=int, default=10)
    given = parser.parse_args(arguments)
    rows = {f"`{name}`": [] for name in given.names or [name for name in STUDIES if name not in SLOW]}
    for count in given.images:
        with tempfile.TemporaryDirectory() as folder:
            for name, row in rows.items():
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                    row += pool.submit(measured, Path(folder), count, given.classes, name.strip("`")).result()
                print(f"{count:,} images, {name}: {row[-2]} MB, {row[-1]} s", flush=True)
    columns = [f"{what}, {count:,} images" for count in given.images for what in ("own memory, MB", "CPU seconds")]
    lines = [[name, *row] for name, row in rows.items()]
    print(f"\n**Studies, {given.classes:,} classes**\n\n{table(['Study', *columns], lines)}")


if __name__ == "__main__":
    main()
