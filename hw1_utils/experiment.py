"""The story in code: load the data, train a CNN, probe a ViT, evaluate both once.

data = load(make_config())
runs = [cnn(data), *(probe(extract(encoder, data)) for encoder in load_encoders(data.context))]
trained = [train(run) for run in runs]
test = load_test(data)
results = [evaluate_on_test(one, test) for one in trained]
"""

import copy
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import metrics
from .augment import Augmentation
from .config import Config
from .context import Context, start
from .data import Data, Samples, Split, decode, grey_levels, pixel_statistics
from .device import Precision
from .errors import Hw1Error
from .features import CHUNK, Features, extract_split, standardization
from .io import cifar10
from .io.archives import unpack
from .io.arrays import Room, Rows, check_disk, empty_array
from .io.checkpoint import Checkpoint
from .io.files import full_paths, read_checked, sha256_tensors, write_csv
from .io.folders import Folder, Part, read_folder
from .io.images import Sizes, measure_sizes
from .io.progress import Progress, history_table
from .io.ranks import ALONE, Ranks
from .io.sides import twins_on_one_side
from .io.splits import choose, put_aside
from .io.table import read_table
from .io.toy import make_toy_folder
from .io.tracking import Tracker, clear_emptied
from .io.weights import check_names
from .models import (
    CNN,
    WHITENED_PIXELS,
    AfterPreprocessing,
    FrozenEncoder,
    Probe,
    blank_probe,
    folded,
    sketch_encoders,
    whiten,
)
from .optim import RECIPES, Optimization, Recipe, make_optimization
from .training import Predictions, evaluate, fit, judged

# ---- the data


def load(config: Config, ranks: Ranks = ALONE) -> Data:
    """Make sure the data is there, choose device and precision, and load what is trained and validated on.

    What can be known in seconds comes first: the folder and what is taken of it, encoders and their weights, places
    to write to, room on the disk. Test images are decoded, so that a damaged one is found now and not after an hour of
    training, and put aside.

    Args:
        ranks: the processes that do this together, under torchrun.

    Raises:
        Hw1Error: the data cannot be had or is not usable, weights cannot be had or do not fit, a place cannot be
            written, or another process is at work in `config.output_dir`.
    """
    check_names(config.encoders)
    context = start(config, ranks)
    with ranks.first_alone():
        folder, chosen, encoders = _find(config)
    sizes = measure_sizes(full_paths(config.data_path, chosen["train"].paths))
    if sizes:  # else no file can be read, which is said with their names when they are decoded
        _check_disk(context, chosen, encoders, sizes)
    folder, chosen = twins_on_one_side(
        config.data_path, folder, chosen, config.image_size, config.seed, config.cache_path, ranks
    )
    levels = grey_levels(config, folder.parts["train"])
    unreadable = config.results_path / "unreadable.csv"
    train, val, test = decode(config, chosen, levels, unreadable=unreadable, ranks=ranks).values()
    train, val = (split.to(context.device, context.room) for split in (train, val))
    mean, std = pixel_statistics(train.images.values)
    if config.is_cifar10:
        cifar10.check_statistics(mean.tolist(), std.tolist(), list(train.counts().values()))
    data = Data(context, train, val, mean, std, chosen["test"], test.counts(), max(sizes.largest))
    _describe(data, test, sizes, parts_made=not folder.has_test)
    return data


def load_test(data: Data) -> Split:
    """The test images: to be read when all models that are compared are trained, and not before.

    Raises:
        Hw1Error: images that could be read before and cannot be now.
    """
    context = data.context
    test = decode(context.config, {"test": data.test}, data.train.levels, ranks=context.ranks)["test"]
    return test.to(context.device, context.room)


def _find(config: Config) -> tuple[Folder, dict[str, Part], list[FrozenEncoder]]:
    """The folder, which files are train, val and test, sketches of the encoders: what may have to be fetched."""
    if config.is_toy and not config.data_path.exists():
        make_toy_folder(config.data_path)
    if not config.is_cifar10:  # else it may still have to be downloaded, and weights are checked before that
        folder, chosen = _read(config)
    encoders = sketch_encoders(config)
    if config.is_cifar10:
        cifar10.ensure_cifar10(config.data_path)
        folder, chosen = _read(config)
    return folder, chosen, encoders


def _read(config: Config) -> tuple[Folder, dict[str, Part]]:
    if config.is_archive:
        unpack(config.data_source, config.cache_path)
    read = partial(read_table, config.data_source) if config.is_table else partial(read_folder, config.data_path)
    folder = read(config.data_dir, config.groups)
    if not folder.has_test:
        folder = put_aside(folder, config.data_dir, config.seed)
    sizes = {"train_size": config.train_size, "val_size": config.val_size, "test_size": config.test_size}
    return folder, choose(folder, config.data_source.name, config.seed, **sizes)


def _check_disk(context: Context, chosen: dict[str, Part], encoders: list[FrozenEncoder], sizes: Sizes) -> None:
    """Compare what will be cached, decoded images and features, with the free disk, before anything is decoded."""
    config = context.config
    images = sum(map(len, chosen.values()))
    wanted = {encoder.side_for(config.image_size, max(sizes.largest)) for encoder in encoders}
    features = sum(images * encoder.columns * 4 for encoder in encoders)
    needed = sum(images * 3 * side**2 for side in {config.image_size, *wanted}) + features
    streamed = max(0, needed - context.room.left)
    # Streamed features lie there in the chunks that are kept, and once more as an array of each process.
    arrays = context.ranks.count * min(streamed, features)
    check_disk(config.cache_path, needed + arrays, streamed, required=context.ranks.ahead)


def _describe(data: Data, test: Split, sizes: Sizes, *, parts_made: bool) -> None:
    """Say what is trained on, and by what; of parts that were made here, write down which they are."""
    context, train, val = data.context, data.train, data.val
    config, machine = context.config, context.environment
    if parts_made:  # others may want the same ones
        made = [pd.DataFrame({"path": split.paths, "part": split.name}) for split in (train, val, test)]
        write_csv(config.results_path / "split.csv", pd.concat(made))
    if not config.is_cifar10:
        print(sizes.describe(config.image_size))
    if data.leading == "balanced_accuracy":
        counts = train.counts().values()
        few, many = min(counts), max(counts)
        hint = "" if config.class_weights else "; with class_weights=True rare classes count as much in the loss"
        print(f"{few:,} to {many:,} training images a class: balanced accuracy and macro F1 come first{hint}")
    print(
        f"profile {config.profile}: {len(train):,} train, {len(val):,} val, "
        f"{len(test):,} test images in {len(train.classes)} classes\n"
        f"device {machine['device']} ({machine['torch_threads']} threads), precision {context.precision.name}"
    )


# ---- a run


@dataclass(frozen=True)
class FromPixels:
    """A run's model with all that comes before it, images in: for measuring and for use. The loop needs none of it."""

    model: nn.Module  # of images to logits, in its initial state: a CNN itself, an encoder with its head
    samples: Samples  # to train it on
    batch_size: int  # of a step of training it
    arithmetic: Callable[[Tensor], tuple[nn.Module, Tensor]]  # an image -> all its multiply-adds: module and input
    assemble: Callable[[nn.Module], nn.Module]  # a trained `Run.model` -> what takes images as `model` does
    blank: Callable[[], nn.Module]  # makes another `model`, with any weights, in another process too


@dataclass(frozen=True)
class Run:
    """One training, ready to start: all that `train` and `measure_costs` need to know. `cnn` and `probe` make one."""

    name: str  # its folder in runs/ and results/
    title: str  # in tables and figures
    variant: str  # recipe of a CNN, pooling of a probe
    details: dict[str, str]  # columns that say exactly which model this is
    data: Data
    # What the loop is about: a CNN and images, or a head and features.
    model: nn.Module  # in its initial state; a copy of it is trained
    precision: Precision
    recipe: Recipe
    epochs: int
    batch_size: int
    seed: int
    train: Samples
    val: Samples
    samples: Callable[[Split], Samples]  # of any other split; a probe's images go through the encoder for it
    from_pixels: FromPixels
    features: Features | None = None  # of a probe
    teacher_seconds: float = 0.0  # spent on training another model first, to learn from it

    @property
    def context(self) -> Context:
        return self.data.context

    @property
    def kind(self) -> str:
        """cnn or probe"""
        return "probe" if self.features else "cnn"

    @property
    def rank(self) -> int:
        """Of a probe's encoder among the run's, counted from 0."""
        return self.features.encoder.rank if self.features else 0

    @property
    def folder(self) -> Path:
        """Of logs, trace and checkpoint."""
        return self.context.config.runs_path / self.name

    @property
    def results(self) -> Path:
        return self.context.config.results_path / self.name

    @property
    def image_size(self) -> int:
        """Side of the images that `from_pixels.model` takes."""
        return self.from_pixels.samples.inputs.shape[-1]

    @property
    def optimization(self) -> Callable[[nn.Module], Optimization]:
        """The recipe over the whole training, for `model`, `from_pixels.model` or a copy of them."""
        return partial(  # no closure: it is pickled for the process whose memory is measured
            make_optimization,
            recipe=self.recipe,
            steps=self.epochs * -(-len(self.train) // self.batch_size),
            class_weights=class_weights(self.data.train) if self.context.config.class_weights else None,
            muon_dtype=torch.bfloat16 if self.precision.name == "bf16" else torch.float32,
        )

    def depends_on(self) -> dict:
        """All that weights and logs depend on, in plain values: settings, pixels and labels, the machine."""
        context, machine = self.context, self.context.environment
        # A GPU's training hardly knows how many threads feed it, and may go on beside other ones.
        threads = {"threads": machine["torch_threads"]} if context.device.type == "cpu" else {}
        return {
            "seed": self.seed,
            "image_size": self.image_size,
            "class_weights": context.config.class_weights,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            **self.details,
            **asdict(self.recipe),
            **({"features": self.features.encoder.key()} if self.features else {}),
            "device": machine["device"],
            **threads,
            "precision": context.precision.name,
            **{package: machine["packages"][package] for package in ("torch", "torchvision", "timm")},
            **{f"{split.name} data": split.sha256[:16] for split in (self.data.train, self.data.val)},
            "targets": sha256_tensors({"targets": self.train.targets})[:16],
        }

    def too_large(self) -> Hw1Error:
        """What there is to say where the GPU's memory does not hold a batch."""
        return Hw1Error(
            f"The GPU's memory is too small for {self.title}: lower {self.kind}_batch_size (now {self.batch_size}) and "
            "extract_batch_size, or take device='cpu'."
        )

    def bring_back(self) -> None:
        """Put what a lost runtime had of this run, as far as there is a copy, in the place of what is here."""
        if self.context.backup.restore(self.folder, f"runs/{self.name}"):
            print("  brought back from its copy in backup_dir")

    def checkpoint(self, name: str) -> Checkpoint:
        """Where a training is kept after each epoch: an interrupted one continues, a finished one is used."""

        def keep() -> None:
            self.context.backup.keep(self.folder, f"runs/{self.name}")

        return Checkpoint(self.folder / "state" / f"{name}.safetensors", self.depends_on(), keep)


def cnn(data: Data, name: str = "", *, teacher: "Trained | None" = None, seed: int | None = None) -> Run:
    """The assignment's CNN from scratch.

    Args:
        name: of a recipe, one of `optim.RECIPES`; if left out, the headline's, `Config.cnn_recipe`.
        teacher: a trained probe, for the recipe `distilled`: the CNN learns from its probabilities as well as from the
            labels (knowledge distillation).
        seed: of initial weights, order and augmentation; None: `Config.seed`.

    Raises:
        Hw1Error: no such recipe, or one that takes a teacher without one, or the other way round.
    """
    context, config = data.context, data.context.config
    seed = config.seed if seed is None else seed
    name = name or config.cnn_recipe
    if name not in RECIPES:
        raise Hw1Error(f"There is no recipe {name!r}: choose {', '.join(RECIPES)}.")
    recipe, targets = RECIPES[name], data.train.labels
    if (teacher is not None) != (recipe.teacher_weight > 0):
        raise Hw1Error(f"Recipe {name!r} takes {'a' if recipe.teacher_weight else 'no'} teacher.")
    if teacher:
        # With the headline's epochs and the start that goes with them: else they might be what makes the difference.
        alike = RECIPES["tuned" if RECIPES[config.cnn_recipe].length == "cnn_epochs" else "short"]
        recipe = replace(recipe, length=alike.length, whitened=alike.whitened)
        targets = _taught(data, teacher, recipe.teacher_weight)
    # On the device from the beginning: copied there for each batch they would make the CPU wait for a GPU.
    transform = Augmentation(recipe.augmentation, data.mean.to(context.device), data.std.to(context.device))
    torch.manual_seed(seed)
    model = CNN(len(data.classes), config.image_size).to(context.device, memory_format=torch.channels_last)
    if recipe.whitened:
        count = max(1, WHITENED_PIXELS // config.image_size**2)  # spread over all: files are sorted by class
        whiten(model.conv1, transform(data.train.take(slice(None, None, -(-len(data.train) // count)))))

    def samples(split: Split) -> Samples:
        return Samples(split.images, split.labels, transform, seed)

    train_samples = replace(samples(data.train), targets=targets)
    return Run(
        name="cnn" if name == config.cnn_recipe else f"cnn_{name}",
        title=f"CNN, {name} recipe",
        variant=name,
        details={"recipe": name, "encoder": "", "weights": "from scratch", "weights_sha256": ""},
        data=data,
        model=model,
        precision=context.precision,
        recipe=recipe,
        epochs=getattr(config, recipe.length),
        batch_size=config.cnn_batch_size,
        seed=seed,
        train=train_samples,
        val=samples(data.val),
        samples=samples,
        from_pixels=FromPixels(
            model=model,
            samples=train_samples,
            batch_size=config.cnn_batch_size,
            arithmetic=lambda image: (model, transform(image)),
            assemble=lambda model: model,
            blank=partial(CNN, len(data.classes), config.image_size),
        ),
        teacher_seconds=teacher.seconds["total_training_seconds"] if teacher else 0.0,
    )


def _taught(data: Data, teacher: "Trained", weight: float) -> Tensor:
    """float32 N×K, on the device: the labels and, with this weight, the teacher's probabilities for them."""
    labels, said = data.train.labels.cpu(), teacher.train.probabilities
    mixed, _ = empty_array(tuple(said.shape), data.context.room, data.context.config.cache_path)
    for rows in torch.arange(len(labels)).split(CHUNK):
        mixed[rows] = nn.functional.one_hot(labels[rows], len(data.classes)).float().lerp(said[rows], weight)
    return mixed.to(data.context.device)


def probe(features: Features, pooling: str = "cls", *, seed: int | None = None) -> Run:
    """A linear head on a frozen encoder's features.

    The head is trained on standardised features, so its learning rate fits any encoder: features that are ten times as
    large train as these do. What comes out is a plain linear layer all the same, with mean and deviation folded in.

    Args:
        pooling: cls or blocks, see `models.Probe`.
        seed: of initial weights and order; None: `Config.seed`.
    """
    data, encoder = features.data, features.encoder
    context, config = data.context, data.context.config
    seed = config.seed if seed is None else seed
    torch.manual_seed(seed)
    whole = Probe(encoder, len(data.classes), pooling).to(context.device)
    columns = whole.head.in_features
    mean, deviation = (x.to(context.device) for x in standardization(features.train.rows.columns(columns)))

    def standardize(values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return (values - mean) / deviation

    def on(rows: Rows, split: Split) -> Samples:
        return Samples(rows.columns(columns), split.labels, standardize, seed)

    def assemble(head: nn.Linear) -> Probe:
        trained = Probe(encoder, len(data.classes), pooling)
        trained.head = folded(head, mean, deviation)
        return trained

    return Run(
        name=encoder.folder if pooling == "cls" else f"{encoder.folder}_{pooling}",
        title=encoder.probe_title(pooling),
        variant=pooling,
        details={
            "recipe": f"{pooling}, AdamW, CosineAnnealingLR",
            "encoder": encoder.name,
            "weights": encoder.source,
            "weights_sha256": encoder.weights_sha256,
        },
        data=data,
        model=whole.head,
        precision=Precision("fp32"),  # see `Probe.forward`
        recipe=Recipe(
            optimizer="adamw",
            lr=config.probe_lr * encoder.head_columns / columns,  # `blocks` has ten times the inputs
            weight_decay=config.probe_weight_decay,
            length="probe_epochs",
            schedule="cosine",
        ),
        epochs=config.probe_epochs,
        batch_size=config.probe_batch_size,
        seed=seed,
        train=on(features.train.rows, data.train),
        val=on(features.val.rows, data.val),
        samples=lambda split: on(extract_split(encoder, split, data).rows, split),
        from_pixels=FromPixels(
            model=whole,
            samples=Samples(features.train_images.images, data.train.labels, as_they_are, seed),
            batch_size=config.profile_batch_size or config.probe_batch_size,
            arithmetic=lambda image: (AfterPreprocessing(whole), encoder.preprocess(image)),
            assemble=assemble,
            blank=partial(blank_probe, encoder.name, encoder.dtype, len(data.classes), pooling),
        ),
        features=features,
    )


def as_they_are(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The encoder resizes and normalises by itself. (No lambda: it is pickled, like `Run.optimization`.)"""
    return images


def class_weights(train: Split) -> Tensor:
    """float32 K for the loss, N / (classes · images of the class), as scikit-learn's "balanced".

    A class without images, as a part of the training images may have one, gets 0.
    """
    counts = torch.tensor(list(train.counts().values()), device=train.labels.device)
    share = (counts > 0).sum() * counts / counts.sum()
    return torch.where(counts > 0, 1 / share, 0.0)


# ---- training


@dataclass(frozen=True)
class Trained:
    """A trained model and what its training looked like."""

    run: Run
    model: nn.Module  # the one to judge: the moving average where the recipe keeps one
    history: pd.DataFrame
    train: Predictions  # without augmentation
    val: Predictions
    seconds: dict[str, float]  # columns of the table of costs: what the clock of this very training says

    @property
    def val_score(self) -> float:
        """The leading measure on validation: what encoders are chosen by. See `metrics.leading`."""
        return metrics.score(self.val.labels.numpy(), self.val.guesses, self.run.data.leading)


def train(run: Run) -> Trained:
    """Train a model, or go on where an earlier process has stopped. What is finished on disk is used, not repeated.

    Raises:
        Hw1Error: training diverged, the GPU's memory is too small, or a disk is full; what was finished stays.
    """
    try:
        _prepare(run)
        with Progress(run.title, run.epochs, "epochs", every=True) as progress:
            model, history = fit_run(
                run,
                validate=lambda model: judge(run, model, run.val, run.context.room.for_a_while()),
                tracker=Tracker(run.folder / "logs", frozen=run.features.encoder if run.features else None),
                checkpoint=run.checkpoint("checkpoint"),
                progress=progress,
            )
            progress.close(f"{run.title}: {history_table(history)}")
        as_labelled = replace(run.train, targets=run.data.train.labels)  # with a teacher it had others
        on_train, on_val = (judge(run, model, part, run.context.room) for part in (as_labelled, run.val))
    except KeyboardInterrupt:
        fresh = run.context.config.fresh
        then = "starts over, as fresh=True asks" if fresh else "continues after the last finished epoch"
        print(f"  stopped: run it again, and it {then}")
        raise
    except torch.OutOfMemoryError as error:
        raise run.too_large() from error
    seconds = history[-1]["elapsed_seconds"]
    extraction = run.features.train.seconds if run.features else 0.0
    return Trained(
        run=run,
        model=model,
        history=pd.DataFrame(history),
        train=on_train,
        val=on_val,
        seconds={
            "training_seconds": seconds,
            "extraction_seconds": extraction,
            # Fewer than there are, where others were computed on another machine or with other threads.
            "extraction_timed_images": run.features.train.timed if run.features else 0,
            "teacher_seconds": run.teacher_seconds,
            "total_training_seconds": seconds + extraction + run.teacher_seconds,
            "loop_images_per_second": len(run.train) * len(history) / seconds,
        },
    )


def _prepare(run: Run) -> None:
    """Leave, of what earlier processes did of this training, what this one is to go on with."""
    config, backup, state = run.context.config, run.context.backup, run.folder / "state"
    clear_emptied(config.runs_path)
    if config.fresh:
        shutil.rmtree(state, ignore_errors=True)
    elif backup.folder and read_checked(state / "checkpoint.safetensors") is None:
        run.bring_back()


def fit_run(run: Run, **options: object) -> tuple[nn.Module, list[dict]]:
    """The loop itself, on a copy of the run's model: (the model to judge, the history). `options` go to `fit`."""
    model = copy.deepcopy(run.model)
    optimization = run.optimization(model)
    history = fit(
        model,
        lambda epoch: run.train.batches(run.batch_size, epoch),
        optimization,
        epochs=run.epochs,
        precision=run.precision,
        **options,
    )
    return judged(model, optimization), history


def judge(run: Run, model: nn.Module, samples: Samples, room: Room) -> Predictions:
    """What a run's trained model says. Probabilities that find no room, of many images and classes, stay in a file.

    They have one place: many small ones between batches that come and go would break up the memory.
    """
    shape = (len(samples), len(run.data.classes))
    place, resident = empty_array(shape, room, run.context.config.cache_path)
    if resident:
        place = place.to(run.context.device)
    return evaluate(model, samples.in_order(), run.precision, place)


# ---- the test


@dataclass(frozen=True)
class Result:
    """A trained model, judged on test."""

    trained: Trained
    test: Predictions
    groups: np.ndarray | None = None  # int64 N, numbers of what belongs together among the test images

    @property
    def run(self) -> Run:
        return self.trained.run

    @property
    def correct(self) -> np.ndarray:
        return self.test.guesses == self.test.labels.numpy()

    @cached_property
    def quality(self) -> dict[str, float]:
        """See `metrics.summary`."""
        return metrics.summary(self.test.labels.numpy(), self.test.probabilities.numpy(), self.groups)

    def per_class(self) -> pd.DataFrame:
        return metrics.per_class(self.test.labels.numpy(), self.test.guesses, self.run.data.classes)

    def confusion(self) -> np.ndarray:
        return metrics.confusion(self.test.labels.numpy(), self.test.guesses, len(self.run.data.classes))


def evaluate_on_test(trained: Trained, test: Split) -> Result:
    """Judge a trained model on the test images. A probe's encoder sees them now.

    Called when all models that are compared are trained (a test holds notebook and script to that), and nothing is
    chosen by what comes out. The studies `seeds`, `logreg` and `flips` look at test again, to report alone.
    """
    run = trained.run
    predictions = judge(run, trained.model, run.samples(test), run.context.room)
    if len(predictions.labels) != len(test):
        raise Hw1Error(f"{len(predictions.labels)} of {len(test)} test images were evaluated: this is a bug.")
    return Result(trained, predictions, None if test.groups is None else test.groups.numpy())
