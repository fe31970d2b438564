"""`python -m benchmarks.probe`: extraction against the bare encoder, number formats, and the literal pipeline."""

import copy
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from hw1_utils.data import Data, Split
from hw1_utils.experiment import probe
from hw1_utils.features import compute, extract
from hw1_utils.models import load_encoder
from hw1_utils.studies.common import train_only

from . import literal
from .common import load, own_process, rate, ratio, show, side_by_side

IMAGES, FORMAT_IMAGES, HEADS, LITERAL_IMAGES, LITERAL_EPOCHS = 512, 5000, 3, 256, 30


def _literal(data: Data, train: Split, val: Split) -> tuple:
    """The literal probe, its encoder inside the loop, as arguments of `own_process`."""
    config = data.context.config
    plain = load_encoder(config, torch.device("cpu"), torch.float32)  # the other process takes it to the device
    model = nn.Sequential(plain.backbone, nn.Linear(plain.head_columns, len(data.classes)))
    transform = literal.eval_transform(plain.mean.tolist(), plain.std.tolist(), plain.input_size[0])
    folder, size = config.data_path / "train", config.probe_batch_size
    loaders = [
        literal.loader(folder, transform, size, names=split.paths, shuffle=split is train) for split in (train, val)
    ]
    return literal.Experiment, model, *loaders, data.context.device


def extraction(data: Data, count: int = IMAGES) -> dict[str, list[float]]:
    """Raw uint8 images to cached features, against the encoder alone on inputs that are ready, and the literal epoch.

    Returns:
        Seconds of each round: bare, fused, fp32 and package for `count` images, literal for LITERAL_IMAGES.
    """
    context = data.context
    images, size = data.train.images[:count], context.extract_batch_size
    fast, plain = (load_encoder(context.config, context.device, d) for d in (context.precision.dtype, torch.float32))
    ready = {
        encoder.dtype: torch.cat([encoder.preprocess(part) for part in images.split(size)]) for encoder in (fast, plain)
    }
    few = data.subset(LITERAL_IMAGES, seed=0).train
    fused = copy.deepcopy(fast)
    for module in fused.backbone.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = True

    def bare(encoder) -> None:
        with torch.inference_mode():
            for x in ready[encoder.dtype].split(size):
                encoder.backbone(x)

    def package() -> None:
        with tempfile.TemporaryDirectory() as folder:
            compute(fast, images, size, Path(folder), say=lambda line: None)

    work = {"bare": lambda: bare(fast), "fused": lambda: bare(fused), "fp32": lambda: bare(plain), "package": package}
    with own_process(*_literal(data, few, few)) as call:
        seconds = side_by_side(work | {"literal": lambda: call("epoch")}, context.device, rounds=3)
    rows = [
        [f"bare encoder, {context.precision.name}", rate(count, seconds["bare"]), ""],
        ["the same with torch's fused attention", rate(count, seconds["fused"]), ""],
        ["bare encoder, fp32", rate(count, seconds["fp32"]), ""],
        ["`extract`: resize, normalise, encode, pool, hash, cache", rate(count, seconds["package"]), ""],
        ["literal pipeline, of an epoch", rate(len(few), seconds["literal"]), ""],
        ["`extract` over bare encoder", "", f"{ratio(seconds['bare'], seconds['package']):.2f}"],
        ["`extract` over bare encoder in fp32", "", f"{ratio(seconds['fp32'], seconds['package']):.2f}"],
    ]
    title = f"Feature extraction, {count} images in batches of {size}, 3 rounds in turn, {fast.label}"
    show(title, ["What", "Images/s: median (range)", "Ratio"], rows, data)
    return seconds


def formats(data: Data) -> None:
    """The same heads on features of both number formats: 5,000 training images, all validation images, HEADS seeds."""
    context, part = data.context, data.subset(FORMAT_IMAGES, seed=0)
    encoders = [load_encoder(context.config, context.device, d) for d in (torch.float32, context.precision.dtype)]
    both = [extract(encoder, part) for encoder in encoders]
    rows = []
    for pooling in encoders[0].poolings:
        for seed in range(HEADS):
            single, fast = (train_only(probe(features, pooling, seed=seed))[0] for features in both)
            alike = (single.guesses == fast.guesses).mean()
            figures = [f"{one.accuracy:.2%}" for one in (single, fast)]
            rows.append([pooling, seed, *figures, f"{(fast.accuracy - single.accuracy) * 100:+.2f}", f"{alike:.1%}"])
    title = f"Number format: accuracy on {len(data.val):,} validation images, heads trained on {FORMAT_IMAGES:,} images"
    show(title, ["Pooling", "Seed", "fp32", context.precision.name, "Difference, points", "Same answer"], rows, data)


def whole(data: Data) -> None:
    """Images to validation figure: features once and epochs on them, against the encoder inside the loop."""
    train = data.subset(LITERAL_IMAGES, seed=0).train
    val = replace(data, train=data.val).subset(LITERAL_IMAGES, seed=0).train
    context = data.context
    with tempfile.TemporaryDirectory() as cache:
        # Features are not there yet, neither on disk nor in this process.
        config = replace(context.config, data_dir=f"{cache}/none", probe_epochs=LITERAL_EPOCHS)
        few = replace(data, context=replace(context, config=config, computed={}), train=train, val=val)
        encoder = load_encoder(config, context.device, context.precision.dtype)
        started = time.perf_counter()
        run = probe(extract(encoder, few))
        train_only(run)
        ours = time.perf_counter() - started
    with own_process(*_literal(data, train, val)) as call:
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
    show(title, ["What", "Seconds", "Ratio"], rows, data)


if __name__ == "__main__":
    loaded = load()
    extraction(loaded)
    whole(loaded)
    formats(loaded)
