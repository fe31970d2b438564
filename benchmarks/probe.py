"""`python -m benchmarks.probe`: extraction against the bare encoder, number formats, and the literal pipeline."""

import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from hw1_utils.features import extract
from hw1_utils.models import load_encoder
from hw1_utils.tasks import EVAL_BATCH, ProbeTask
from hw1_utils.training import evaluate, fit

from . import literal
from .common import load, rate, ratio, show, side_by_side

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
    train, val = setup.train, setup.val
    rows = []
    for pooling in ("cls", "layers"):
        accuracies = {}
        for dtype in (torch.float32, setup.precision.dtype):
            encoder = load_encoder(setup.config, setup.device, dtype)
            task = ProbeTask(setup, pooling, encoder)
            x, y = (
                extract(encoder, images, setup.config.extract_batch_size, setup.config.cache_path).values
                for images in (train.images[:FORMAT_IMAGES], val.images)
            )
            x, y = x[:, : task.model.in_features], y[:, : task.model.in_features]
            accuracies[dtype] = head_accuracy(task, x, train.labels[:FORMAT_IMAGES], y, val.labels)
        single, fast = accuracies.values()
        rows.append([pooling, f"{single:.2%}", f"{fast:.2%}", f"{(fast - single) * 100:+.2f}"])
    title = f"Number format: accuracy on {len(val):,} validation images, heads trained on {FORMAT_IMAGES:,} images"
    show(title, ["Pooling", "fp32", setup.precision.name, "Difference, points"], rows, setup)


def head_accuracy(task, x, labels, val_x, val_labels) -> float:
    """Train the task's head on given features with the package's own loop."""
    if task.variant == "layers":
        task.model.measure(x)

    def shuffled(epoch: int) -> list:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch)).to(x.device)
        return [(x[i], labels[i]) for i in order.split(task.batch_size)]

    optimizer = task.recipe(task.model)["optimizer"]
    steps = task.epochs * len(shuffled(1))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    fit(task.model, shuffled, epochs=task.epochs, precision=task.precision, optimizer=optimizer, scheduler=scheduler)
    pairs = zip(val_x.split(EVAL_BATCH), val_labels.split(EVAL_BATCH), strict=True)
    return evaluate(task.model, pairs, task.precision).accuracy


def whole(setup) -> None:
    """Images to validation figure: features once and epochs on them, against the encoder inside the loop."""
    task = ProbeTask(setup)
    train, val, encoder = setup.train, setup.val, task.encoder
    count, size = LITERAL_IMAGES, setup.config.extract_batch_size
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        x, y = (
            extract(encoder, images[:count], size, Path(folder)).values[:, : encoder.features]
            for images in (train.images, val.images)
        )
        head_accuracy(task, x, train.labels[:count], y, val.labels[:count])
    ours = time.perf_counter() - started
    plain = load_encoder(setup.config, setup.device, torch.float32)
    model = nn.Sequential(plain.backbone, nn.Linear(plain.features, len(setup.classes)).to(setup.device))
    transform = literal.eval_transform(plain.mean.tolist(), plain.std.tolist(), plain.input_size[0])
    folder = setup.config.data_path / "train"
    loaders = [
        literal.loader(folder, transform, task.batch_size, names=split.paths[:count], shuffle=split is train)
        for split in (train, val)
    ]
    started = time.perf_counter()
    for epoch in literal.train(model, loaders[0], setup.device, lr=1e-3, epochs=LITERAL_EPOCHS):
        print(f"  literal epoch {epoch}: {time.perf_counter() - started:.0f} s", flush=True)
    literal.accuracy(model, loaders[1], setup.device)
    theirs = time.perf_counter() - started
    rows = [
        ["package: features, epochs, figure", f"{ours:.1f}", ""],
        ["literal pipeline", f"{theirs:.1f}", ""],
        ["literal over package", "", f"{theirs / ours:.1f}×"],
    ]
    title = f"The whole probe: {count} training and {count} validation images, {LITERAL_EPOCHS} epochs each, one run"
    show(title, ["What", "Seconds", "Ratio"], rows, setup)


if __name__ == "__main__":
    loaded = load()
    extraction(loaded)
    whole(loaded)
    formats(loaded)
