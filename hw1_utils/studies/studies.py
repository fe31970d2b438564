"""Questions beside the comparison: other seeds, what input size costs, how many images are needed.

Input size and number of images are answered on validation data; the test set is for the comparison alone.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from ..data import Split, pick
from ..experiment import Training, checkpoint_of
from ..io.files import write_csv
from ..judging import Result
from ..measure import profiling
from ..metrics import leading, score, with_interval
from ..models import FrozenEncoder
from ..preparation import Setup
from ..probes import ProbeTask
from ..report import charts, figures
from ..tasks import CNNTask, Task
from ..training import Evaluation, evaluate, fit, judged

INPUT_SHARES = (3 / 7, 1 / 2, 5 / 7, 1)  # of the encoder's own input: 96, 112, 160 and 224 pixels of 224
PER_CLASS = (10, 30, 100, 300, 1000)  # training images, as far as there are so many
LONGER = 5.0  # on few images the CNN gets up to this many times the epochs


def some_of(split: Split, count: int, seed: int) -> Tensor:
    """Rows of a seeded part of the split, int64, on its device: see `data.pick`."""
    return torch.from_numpy(pick(split.labels.cpu().numpy(), count, seed)).to(split.labels.device)


def train_only(task: Task, *others: Split, **options: object) -> list[Evaluation]:
    """Train without trace and logs; judge on validation and on `others`. `options` go to `fit`."""
    recipe = task.recipe(task.model)
    fit(task.model, task.train_batches, epochs=task.epochs, precision=task.precision, **recipe, **options)
    model = judged(task.model, recipe.get("ema"))
    return [evaluate(model, task.eval_batches(split), task.precision) for split in (task.setup.val, *others)]


def _row(setup: Setup, evaluation: Evaluation) -> dict:
    """Columns of a validation result: accuracy, and the measure that leads in the run, with its interval."""
    measure = leading(setup.train.counts().values())
    labels, predictions = evaluation.labels.numpy(), evaluation.probabilities.argmax(1).numpy()
    scores = dict(zip(("", "_low", "_high"), with_interval(labels, predictions, measure), strict=True))
    columns = {f"val_score{end}": value for end, value in scores.items()}
    return {"leading": measure, "val_accuracy": evaluation.accuracy, **columns}


def input_sides(encoder: FrozenEncoder) -> list[int]:
    """Sides of the input to try, in whole patches; only the encoder's own where it takes no other."""
    own = max(encoder.input_size)
    patch = encoder.backbone.patch_embed.patch_size[0] if encoder.is_vit else 16
    sides = sorted({round(own * share / patch) * patch for share in INPUT_SHARES[:-1]} - {0, own})
    black = torch.zeros(1, 3, own, own, dtype=torch.uint8, device=encoder.device)
    try:
        for side in sides:
            at_input_size(encoder, side)(black)
    except Exception as error:  # each architecture refuses in its own way
        print(f"{encoder.name} takes no other input than its own {own} pixels ({type(error).__name__})")
        sides = []
    return [*sides, own]


def at_input_size(encoder: FrozenEncoder, side: int) -> FrozenEncoder:
    """A copy of the encoder that enlarges images to side×side; a ViT's position embedding is interpolated."""
    other = copy.deepcopy(encoder)
    if other.is_vit:
        other.backbone.set_input_size(img_size=(side, side))
    other.input_size = (side, side)
    return other


def input_sizes(probes: list[Training]) -> pd.DataFrame:
    """Write input_size.csv and .png: what each probe's accuracy, arithmetic and speed owe to the encoder's input.

    The same head on `config.study_images` training images (validation: all), at up to four input sizes.
    """
    setup, rows = probes[0].task.setup, []
    for task in (probe.task for probe in probes):
        whole = task.seen(setup.train)
        train = whole.part_of(some_of(whole, setup.config.study_images, setup.config.seed))
        smaller = replace(setup, train=train, val=task.seen(setup.val))
        for side in input_sides(task.encoder):
            # No longer than its turn lasts does an input size keep its features.
            this = replace(smaller, features={}, room=setup.room.for_a_while())
            other = ProbeTask(this, encoder=at_input_size(task.encoder, side))
            (evaluation,) = train_only(other, checkpoint=checkpoint_of(other, f"input-{side}"))
            rows.append(
                {
                    "model": task.title,
                    "name": task.name,
                    "input_size": side,
                    **_row(setup, evaluation),
                    "macs": profiling.count_macs(*other.arithmetic(train.take(slice(1)))),
                    "extraction_images_per_second": len(train) / other.features(train).seconds,
                    "train_images": len(train),
                    "val_images": len(setup.val),
                }
            )
    table = pd.DataFrame(rows)
    folder = setup.config.results_path
    write_csv(folder / "input_size.csv", table)
    figures.save(charts.input_sizes(table), folder / "input_size.png")
    return table


def learning_curve(cnn: Training, probes: list[Training]) -> pd.DataFrame:
    """Write learning_curve.csv and .png: validation accuracy against the number of training images.

    Each size is a stratified part of the training images. The last size is all of them: the trainings themselves.
    """
    setup = cnn.task.setup
    total, rows = len(setup.train), []
    counts = [n * len(setup.classes) for n in PER_CLASS if n * len(setup.classes) < 0.8 * total]
    work = sum(n * cnn.task.epochs * _longer(n, total) for n in counts)
    print(f"Up to {work / cnn.costs['loop_images_per_second']:.0f} s for {len(counts)} further trainings of the CNN")
    for count in counts:
        index = some_of(setup.train, count, setup.config.seed)
        smaller = replace(setup, train=setup.train.part_of(index))
        tasks: list[Task] = [_cnn_on(smaller, total, cnn.task)]
        for probe in probes:
            task = ProbeTask(smaller, probe.task.variant, probe.task.encoder)
            whole = probe.task.features(setup.train)
            task.use_features(smaller.train, replace(whole, part=index.cpu()))
            task.use_features(setup.val, probe.task.features(setup.val))
            tasks.append(task)
        for task in tasks:
            (evaluation,) = train_only(task, checkpoint=checkpoint_of(task, f"images-{count}"))
            rows.append(_size_row(setup, task, evaluation))
            print(f"  {count:,} images, {task.title}, {task.epochs} epochs: val {evaluation.accuracy:.1%}")
    rows += [_size_row(setup, training.task, training.evaluations["val"]) for training in (cnn, *probes)]
    table = pd.DataFrame(rows)
    folder = setup.config.results_path
    write_csv(folder / "learning_curve.csv", table)
    figures.save(charts.learning_curve(table), folder / "learning_curve.png")
    return table


def _size_row(setup: Setup, task: Task, evaluation: Evaluation) -> dict:
    """`setup`: the whole run's, which says what leads; the task's own may be on a part of the images."""
    model = {"model": task.title, "name": task.name, "train_images": len(task.setup.train)}
    return model | _row(setup, evaluation) | {"epochs": task.epochs}


def _longer(count: int, total: int) -> float:
    """Times as many epochs on `count` of `total` images: their epoch has fewer steps."""
    return min(LONGER, (total / count) ** 0.5)


def _cnn_on(smaller: Setup, total: int, task: CNNTask) -> CNNTask:
    """The same recipe on fewer images, for more epochs."""
    longer = _longer(len(smaller.train), total)
    names = ("cnn_epochs", "short_epochs")
    config = replace(smaller.config, **{name: round(getattr(smaller.config, name) * longer) for name in names})
    return CNNTask(replace(smaller, config=config), task.variant)


def seeds(results: list[Result], test: Split) -> pd.DataFrame:
    """Write seeds.csv: the same trainings with further seeds, on the same split, and how far they spread.

    A seed decides initial weights, order and augmentation. `config.seeds` says how many; None: see `_count`.

    Returns:
        One row per model and seed: model, name, seed, leading, and accuracy and the leading measure on val and test.
    """
    setup = results[0].task.setup
    config, rows = setup.config, []
    for result in results:
        own = (result.training.evaluations["val"], result.test)
        rows.append(_seed_row(result.task, config.seed, own))
        for seed in range(config.seed + 1, config.seed + _count(result.task)):
            other = replace(setup, config=replace(config, seed=seed))
            if result.task.kind == "cnn":
                task: Task = CNNTask(other, result.task.variant)
            else:
                task = ProbeTask(other, result.task.variant, result.task.encoder)
                for split in (setup.train, setup.val, test):
                    task.use_features(split, result.task.features(split))
            print(f"{task.title}, seed {seed}")
            evaluations = train_only(task, test, checkpoint=checkpoint_of(task, f"seed-{seed}"), say=print)
            rows.append(_seed_row(task, seed, evaluations))
    table = pd.DataFrame(rows)
    write_csv(setup.config.results_path / "seeds.csv", table)
    return table


def _count(task: Task) -> int:
    """Seeds of a model. A probe's cost nothing once the features are there; on a CPU the CNN's are asked for."""
    cheap = task.kind == "probe" or task.setup.device.type == "cuda"
    return task.setup.config.seeds or (3 if cheap else 1)


def _seed_row(task: Task, seed: int, evaluations: Sequence[Evaluation]) -> dict:
    measure = leading(task.setup.train.counts().values())
    row = {"model": task.title, "name": task.name, "seed": seed, "leading": measure}
    for part, evaluation in zip(("val", "test"), evaluations, strict=True):
        predictions = evaluation.probabilities.argmax(1).numpy()
        row[f"{part}_accuracy"] = evaluation.accuracy
        row[f"{part}_score"] = score(evaluation.labels.numpy(), predictions, measure)
    return row
