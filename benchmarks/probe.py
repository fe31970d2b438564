"""`python -m benchmarks.probe`: extraction against the bare encoder, number formats, and the literal pipeline."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from hw1_utils.features import extract
from hw1_utils.models import load_encoder
from hw1_utils.probes import ProbeTask
from hw1_utils.studies.studies import some_of, train_only

from . import literal
from .common import load, own_process, rate, ratio, show, side_by_side

IMAGES, FORMAT_IMAGES, LITERAL_IMAGES, LITERAL_EPOCHS = 512, 5000, 256, 30


def extraction(setup) -> None:
    """Raw uint8 images to cached features, against the encoder alone on inputs that are ready."""
    images, size = setup.train.images[:IMAGES], setup.config.extract_batch_size
    fast = load_encoder(setup.config, setup.device, setup.precision.dtype)
    plain = load_encoder(setup.config, setup.device, torch.float32)
    ready = {encoder.dtype: encoder.preprocess(images) for encoder in (fast, plain)}

    def bare(encoder) -> None:
        with torch.inference_mode():
            for x in ready[encoder.dtype].split(size):
                encoder.backbone(x)

    def package() -> None:
        with tempfile.TemporaryDirectory() as folder:
            extract(fast, images, size, Path(folder), say=lambda line: None)

    work = {"bare": lambda: bare(fast), "fp32": lambda: bare(plain), "package": package}
    seconds = side_by_side(work, setup.device, rounds=3)
    rows = [
        [f"bare encoder, {setup.precision.name}", rate(IMAGES, seconds["bare"]), ""],
        ["bare encoder, fp32", rate(IMAGES, seconds["fp32"]), ""],
        ["`extract`: resize, normalise, encode, pool, hash, cache", rate(IMAGES, seconds["package"]), ""],
        ["`extract` over bare encoder", "", f"{ratio(seconds['bare'], seconds['package']):.2f}"],
        ["`extract` over bare encoder in fp32", "", f"{ratio(seconds['fp32'], seconds['package']):.2f}"],
    ]
    title = f"Feature extraction, {IMAGES} images in batches of {size}, 3 rounds in turn, {fast.label}"
    show(title, ["What", "Images/s: median (range)", "Ratio"], rows, setup)


def formats(setup) -> None:
    """The same heads on features of both number formats: 5,000 training images, all validation images."""
    part, val = setup.train.part_of(some_of(setup.train, FORMAT_IMAGES, seed=0)), setup.val
    rows = []
    for pooling in ("cls", "layers"):
        accuracies = {}
        for dtype in (torch.float32, setup.precision.dtype):
            encoder = load_encoder(setup.config, setup.device, dtype)
            task = ProbeTask(replace(setup, train=part), pooling, encoder)
            accuracies[dtype] = train_only(task)[0].accuracy
        single, fast = accuracies.values()
        rows.append([pooling, f"{single:.2%}", f"{fast:.2%}", f"{(fast - single) * 100:+.2f}"])
    title = f"Number format: accuracy on {len(val):,} validation images, heads trained on {FORMAT_IMAGES:,} images"
    show(title, ["Pooling", "fp32", setup.precision.name, "Difference, points"], rows, setup)


def whole(setup) -> None:
    """Images to validation figure: features once and epochs on them, against the encoder inside the loop."""
    train, val = (split.part_of(some_of(split, LITERAL_IMAGES, seed=0)) for split in (setup.train, setup.val))
    with tempfile.TemporaryDirectory() as cache:
        config = replace(setup.config, data_dir=f"{cache}/none", probe_epochs=LITERAL_EPOCHS)  # features are not cached
        task = ProbeTask(replace(setup, config=config, train=train, val=val))
        started = time.perf_counter()
        train_only(task)
        ours = time.perf_counter() - started
    plain = load_encoder(setup.config, setup.device, torch.float32)
    model = nn.Sequential(plain.backbone, nn.Linear(plain.features, len(setup.classes)).to(setup.device))
    transform = literal.eval_transform(plain.mean.tolist(), plain.std.tolist(), plain.input_size[0])
    folder = setup.config.data_path / "train"
    loaders = [
        literal.loader(folder, transform, task.batch_size, names=split.paths, shuffle=split is train)
        for split in (train, val)
    ]
    with own_process(literal.Experiment, model, *loaders, setup.device) as call:
        theirs = 0.0
        for epoch in range(1, LITERAL_EPOCHS + 1):
            theirs += call("epoch")
            print(f"  literal epoch {epoch}: {theirs:.0f} s", flush=True)
        started = time.perf_counter()
        call("accuracy")
        theirs += time.perf_counter() - started
    rows = [
        ["package: features, epochs, figure", f"{ours:.1f}", ""],
        ["literal pipeline", f"{theirs:.1f}", ""],
        ["literal over package", "", f"{theirs / ours:.1f}×"],
    ]
    title = f"The whole probe: {len(train)} training and {len(val)} validation images, {LITERAL_EPOCHS} epochs each"
    show(title, ["What", "Seconds", "Ratio"], rows, setup)


if __name__ == "__main__":
    loaded = load()
    extraction(loaded)
    whole(loaded)
    formats(loaded)
