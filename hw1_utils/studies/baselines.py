"""Would something have done that trains nothing? The largest class, and the nearest neighbours."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .. import metrics
from ..data import Data, Samples, Split
from ..experiment import Result, Run, as_they_are
from ..io.files import write_csv
from ..measure import profiling
from ..report import figures
from .common import compared, fair_part, interval_columns
from .neighbours import Neighbours, pixels

COUNTS = (1, 5, 10, 20, 50, 100, 200)  # neighbours to choose from on validation; DINO's evaluation tries 10 to 200
MOST = 50_000  # training images to be compared with; of more, a stratified part


@dataclass(frozen=True)
class Baseline:
    """A model that had no training loop, judged."""

    columns: dict  # of its row: model, name, encoder, neighbours, train_images, and what it costs
    val: np.ndarray  # guesses, int64 N
    test: np.ndarray


def baselines(results: list[Result], test: Split) -> pd.DataFrame:
    """Judge on test what no training loop has made, each a row with the comparison's columns. Writes baselines.csv/png.

    The largest class of the training images; the nearest of these on pixels (at most 32×32) and on the features that
    each plain probe's encoder gives, by cosine, with a weighted vote (see `Neighbours`) of as many as were best on
    validation. Nothing is chosen on test. Up to MOST training images are compared with, so that time and memory do not
    grow with further ones: CIFAR-10 takes 75 s of one core.

    Returns:
        One row per baseline: model, name, encoder, neighbours, leading; on test accuracy, balanced_accuracy and
        macro_f1 with their intervals, val_accuracy, val_score; train_images and test_images; macs (multiply-adds an
        image), total_training_seconds (of computing features), inference_images_per_second; and, in compared_with, the
        better on test of headline CNN and plain probe: difference of the leading measure, this row's minus that
        model's, with its 95 % interval (see `metrics.paired_difference`).
    """
    data = results[0].run.data
    pair = [result for result in compared(results) if result]
    better = max(pair or results, key=lambda result: result.quality[data.leading])
    fair_part(data.train, MOST, data.context.config.seed, "Neighbours are looked for among")
    found = [_largest_class(data, test), _on_pixels(data, test)]
    found += [_on_features(result.run, test) for result in results if result.run.variant == "cls"]
    table = pd.DataFrame([_row(one, data, test, better) for one in found])
    table["neighbours"] = table["neighbours"].astype("Int64")
    folder = data.context.config.results_path
    write_csv(folder / "baselines.csv", table)
    trained = [
        {"model": result.run.title, "name": result.run.name, "leading": data.leading}
        | {f"test_{measure}": value for measure, value in result.quality.items()}
        for result in results
    ]
    figures.save(figures.baselines(table, pd.DataFrame(trained)), folder / "baselines.png")
    return table


def _row(one: Baseline, data: Data, test: Split, better: Result) -> dict:
    labels, balanced = test.labels.cpu().numpy(), data.leading == "balanced_accuracy"
    right = one.test == labels
    difference = metrics.paired_difference(better.correct, right, labels if balanced else None, better.groups)
    quality = metrics.quality(labels, one.test, len(data.classes), better.groups)
    validated = data.val.labels.cpu().numpy()
    return {
        **{name: one.columns[name] for name in ("model", "name", "encoder", "neighbours")},
        "leading": data.leading,
        **{f"test_{name}": value for name, value in quality.items()},
        "val_accuracy": float((one.val == validated).mean()),
        "val_score": metrics.score(validated, one.val, data.leading),
        "train_images": one.columns["train_images"],
        "test_images": len(test),
        **{name: one.columns[name] for name in ("macs", "total_training_seconds", "inference_images_per_second")},
        "compared_with": better.run.title,
        **interval_columns("difference", difference),
    }


def _largest_class(data: Data, test: Split) -> Baseline:
    most = int(torch.bincount(data.train.labels, minlength=len(data.classes)).argmax())  # of equal ones the first
    columns = {"model": "largest class", "name": "largest_class", "encoder": "", "neighbours": None}
    columns |= {"train_images": len(data.train), "macs": 0, "total_training_seconds": 0.0}
    val, on_test = (np.full(len(split), most) for split in (data.val, test))
    return Baseline(columns | {"inference_images_per_second": math.nan}, val, on_test)


def _on_pixels(data: Data, test: Split) -> Baseline:
    data = _part(data)
    train, val, on_test = (Samples(split.images, split.labels, pixels(data)) for split in (data.train, data.val, test))
    columns = {"model": "nearest neighbours on pixels", "name": "neighbours_pixels", "encoder": ""}
    return _nearest(data, train, val, on_test, columns | {"macs": 0, "total_training_seconds": 0.0}, data.train)


def _on_features(run: Run, test: Split) -> Baseline:
    """By the features that `run`, a plain probe, was trained on: as they are, not standardised, as DINO takes them."""
    features, encoder = run.features, run.features.encoder
    if len(features.train) > MOST:
        features = features.subset(MOST, run.context.config.seed)
    arithmetic = run.from_pixels.arithmetic(run.from_pixels.samples.inputs[:1].to(run.context.device))
    head = run.model.weight.numel()
    columns = {
        "model": f"nearest neighbours on features ({encoder.title})",
        "name": f"neighbours_{encoder.folder}",
        "encoder": encoder.name,
        "macs": profiling.count_macs(*arithmetic) - head,
        "total_training_seconds": run.features.train.seconds,
    }
    wide = run.model.in_features
    rows = [features.train.rows.columns(wide), run.val.inputs, run.samples(test).inputs]
    labels = [features.data.train.labels, run.data.val.labels, test.labels]
    samples = [Samples(*both, as_they_are) for both in zip(rows, labels, strict=True)]
    return _nearest(run.data, *samples, columns, features.train_images, lambda x: encoder(x)[:, :wide])


def _nearest(
    data: Data,
    train: Samples,
    val: Samples,
    test: Samples,
    columns: dict,
    images: Split,
    encode: Callable[[Tensor], Tensor] = lambda images: images,
) -> Baseline:
    """`images`: as the model gets them when it is used; `encode` makes what `train.transform` takes of them."""
    context = data.context
    references = Neighbours(train, len(data.classes), context)
    counts = sorted({min(count, len(train)) for count in COUNTS})
    guesses = _guesses(references, val, counts)
    scores = [metrics.score(data.val.labels.cpu().numpy(), each, data.leading) for each in guesses]
    best = int(np.argmax(scores))  # of equally good ones the fewest
    some = images.take(slice(min(context.extract_batch_size, len(images))))

    def predict() -> Tensor:
        with torch.inference_mode():
            return references.guesses(references.unit(encode(some)), counts[best : best + 1])

    columns = columns | {
        "neighbours": counts[best],
        "train_images": len(train),
        "macs": columns["macs"] + math.prod(references.rows.shape),
        "inference_images_per_second": len(some) / profiling.time_per_call(predict, context.device),
    }
    (on_test,) = _guesses(references, test, counts[best : best + 1])
    return Baseline(columns, guesses[best], on_test)


def _guesses(references: Neighbours, samples: Samples, counts: list[int]) -> np.ndarray:
    """int64 len(counts)×N."""
    batches = (torch.nn.functional.normalize(batch) for batch, _ in samples.in_order())
    return torch.cat([references.guesses(batch, counts) for batch in batches], 1).cpu().numpy()


def _part(data: Data) -> Data:
    return data.subset(MOST, data.context.config.seed) if len(data.train) > MOST else data
