"""From files to batches on the device: what the models see. Knows no particular dataset.

Pixels and features are `Rows` (io/arrays.py): a tensor of N rows that lies on the device or, where that has no room for
it, in a file, from which batches are read ahead. Who takes rows or batches of them need not know which.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from . import metrics
from .config import Config
from .context import Context
from .errors import Hw1Error, some
from .io.arrays import Room, Rows
from .io.files import sha256_tensors, write_csv
from .io.folders import Part
from .io.images import Levels
from .io.pixels import load_levels, load_pixels
from .io.ranks import ALONE, Ranks
from .io.splits import stratified_subset

STATISTICS_CHUNK = 4096  # images counted at a time
EVAL_BATCH = 512  # rows per evaluation pass; averages do not depend on it
EVAL_PIXELS = 2**22  # of all images of a pass: the CNN's first layer makes 32 floats of each


@dataclass(frozen=True)
class Split:
    """One part of the data."""

    name: str  # train, val or test
    images: Rows  # uint8 N×3×S×S
    labels: Tensor  # int64 N, on the device
    paths: list[str]  # N, relative to the data folder
    classes: list[str]  # K names; a label is an index into it
    levels: Levels = field(default_factory=dict)  # black and white of grey images of more than 8 bits
    groups: Tensor | None = None  # int64 N, on the CPU: numbers of what belongs together, the same in all splits
    whole_sha256: str = ""  # of the larger split, where this is a part of one

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of pixels and labels."""
        if self.whole_sha256:
            rows = sha256_tensors({"part": self.images.index})
            return hashlib.sha256(f"{self.whole_sha256} {rows}".encode()).hexdigest()
        return sha256_tensors({"images": self.images.values, "labels": self.labels})

    @property
    def side(self) -> int:
        """S, of the images in pixels."""
        return self.images.shape[-1]

    def counts(self) -> dict[str, int]:
        """Images of each class."""
        return dict(zip(self.classes, torch.bincount(self.labels, minlength=len(self.classes)).tolist(), strict=True))

    def take(self, rows: Tensor | slice) -> Tensor:
        """Some of the images, on the device."""
        return self.images[rows].to(self.labels.device)

    def subset(self, rows: Tensor) -> "Split":
        """These rows, int64 M of 0..N-1. Their pixels are not copied."""
        return replace(
            self,
            images=self.images.subset(rows),
            labels=self.labels[rows.to(self.labels.device)],
            paths=[self.paths[i] for i in rows.tolist()],
            groups=None if self.groups is None else self.groups[rows.cpu()],
            whole_sha256=self.whole_sha256 or self.sha256,
        )

    def to(self, device: torch.device, room: Room) -> "Split":
        """The split on the device; images that find no room there stay where they are and are streamed."""
        return replace(self, images=self.images.to(device, room), labels=self.labels.to(device))


@dataclass(frozen=True)
class Data:
    """What the models see."""

    context: Context
    train: Split  # on the device
    val: Split
    mean: Tensor  # float32 (3,), of the training images' pixels in 0..1
    std: Tensor
    test: Part | None = None  # its files; nothing of them is here before `experiment.load_test`
    test_counts: dict[str, int] = field(default_factory=dict)  # test images of each class
    largest_side: int = 0  # in pixels, of the image files, of which some are looked at

    @property
    def classes(self) -> list[str]:
        return self.train.classes

    @property
    def leading(self) -> str:
        """The measure that comes first: see `metrics.leading`."""
        return metrics.leading(self.train.counts().values())

    def subset(self, count: int, seed: int) -> "Data":
        """With `count` of the training images: see `stratified_subset`. Mean and std stay those of all of them."""
        return replace(self, train=self.train.subset(self.rows(count, seed)))

    def rows(self, count: int, seed: int) -> Tensor:
        """Which of the training images those are, int64."""
        return torch.from_numpy(stratified_subset(self.train.labels.cpu().numpy(), count, seed))


@dataclass(frozen=True)
class Samples:
    """Inputs and targets that a model is trained or judged on, cut into batches on the device."""

    inputs: Rows  # N×… images or features
    targets: Tensor  # int64 N, or float32 N×K, on the device
    transform: Callable[[Tensor, torch.Generator | None], Tensor]  # of a batch; random only where a generator is given
    seed: int = 0  # of order and augmentation

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int, epoch: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Each row exactly once, the last batch perhaps smaller; in an epoch of training shuffled and augmented.

        Every epoch's order and augmentation are seeded by its own number: an interrupted run continues with what it
        would have drawn.
        """
        device = self.targets.device
        if epoch is None:
            order, generator = torch.arange(len(self)), None
        else:
            order = torch.randperm(len(self), generator=_generator(self.seed, epoch, "order"))
            generator = _generator(self.seed, epoch, "augmentation", device)
        chunks = self.inputs.chunks(order, size, device)
        for chunk, index in zip(chunks, order.to(device).split(size), strict=True):
            yield self.transform(chunk, generator), self.targets[index]

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows for an evaluation pass, in their order, without augmentation."""
        pixels = self.inputs.shape[-1] ** 2 if len(self.inputs.shape) == 4 else 1
        return self.batches(max(1, min(EVAL_BATCH, EVAL_PIXELS // pixels)))


def _generator(seed: int, epoch: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """For one purpose in one epoch."""
    digest = hashlib.sha256(f"{seed} {epoch} {stream}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:6], "big"))


# ---- which files, which pixels


def decode(
    config: Config,
    chosen: dict[str, Part],
    levels: Levels,
    *,
    unreadable: Path | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, Split]:
    """The files of each part as a Split, on the CPU. Those of all parts that cannot be read are named at once.

    Args:
        unreadable: the table that lists those files, all of them; none is left where all can be read.
        ranks: the processes that decode together, all of which call this.

    Raises:
        Hw1Error: unreadable images.
    """
    read = {
        name: load_pixels(config.data_path, part.paths, config.image_size, levels, config.cache_path, ranks)
        for name, part in chosen.items()
    }
    bad = [(chosen[name].paths[row], why) for name, (_, failures) in read.items() for row, why in failures.items()]
    if unreadable and bad:
        write_csv(unreadable, pd.DataFrame(bad, columns=["path", "why"]))
    elif unreadable:
        unreadable.unlink(missing_ok=True)
    named = some([f"{path} ({why})" for path, why in bad])
    whole = "the whole list: results/unreadable.csv"
    if bad and not config.skip_unreadable:
        raise Hw1Error(
            f"{len(bad)} files cannot be read as images: {named}: remove or replace them, or set skip_unreadable=True "
            f"({whole})."
        )
    if bad:
        print(f"Left out, as they cannot be read as images: {len(bad)} files: {named}; {whole}")
    return {name: _split(name, chosen[name], images, failures, levels) for name, (images, failures) in read.items()}


def _split(name: str, part: Part, images: Tensor, failures: dict[int, str], levels: Levels) -> Split:
    """The files that could be read as a Split."""
    good = part.take(row for row in range(len(part)) if row not in failures)
    if lost := {part.classes[label] for label in set(part.labels) - set(good.labels)}:
        raise Hw1Error(f"No readable image is left in {name} for {some(sorted(lost))}: add some.")
    labels = torch.tensor(good.labels, dtype=torch.int64)
    groups = None if good.groups is None else torch.tensor(good.groups, dtype=torch.int64)
    return Split(name, Rows(images), labels, good.paths, part.classes, levels, groups)


def grey_levels(config: Config, train: Part) -> Levels:
    """Black and white of grey images of more than 8 bits, the same for all parts, going by those to train on."""
    levels = load_levels(config.data_path, train.paths, config.cache_path)
    if levels:
        ranges = ", ".join(f"{black:,.6g} is black and {white:,.6g} white" for black, white in levels.values())
        print(f"  in grey images of more than 8 bits {ranges}, going by images to train on")
    return levels


def at_side(split: Split, side: int, context: Context) -> Split:
    """The same images, decoded from their files to a larger side, for a model that takes larger ones.

    Not in one go with the smaller ones: a JPEG's pixels depend a little on the side it is decoded for, and what the
    CNN sees must not depend on which encoders it is compared with.
    """
    if split.side >= side:
        return split
    key = ("images", split.sha256, side)
    if key not in context.computed:
        config = context.config
        size = len(split) * 3 * side**2 / 1e6
        print(
            f"  {len(split):,} {split.name} images at {side}×{side} pixels: {size:,.0f} MB in {config.cache_path.name}"
        )
        images, failures = load_pixels(
            config.data_path, split.paths, side, split.levels, config.cache_path, context.ranks
        )
        if failures:
            raise Hw1Error(f"{split.paths[min(failures)]} could be read before and cannot be now: run again.")
        larger = replace(split, images=Rows(images), whole_sha256="")
        context.computed[key] = larger.to(context.device, context.room)
    return context.computed[key]


def pixel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Per-channel mean and standard deviation over all pixels, in 0..1, each float32 (3,).

    Computed exactly from the 256-bin histogram of each channel, so no float copy of the images is made.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.zeros(3, 256, dtype=torch.int64)
    for part in images.split(STATISTICS_CHUNK):
        for count, channel in zip(counts, part.cpu().unbind(1), strict=True):
            count += torch.bincount(channel.flatten(), minlength=256)
    weights = counts / counts.sum(1, keepdim=True, dtype=torch.float64)
    means = (weights * levels).sum(1)
    stds = (weights * (levels - means[:, None]) ** 2).sum(1).sqrt().clamp(min=1 / 255)  # a channel may be constant
    return means.float(), stds.float()
