"""ImageFolder to uint8 tensors, stratified splits. Knows no particular dataset."""

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.model_selection import train_test_split
from torch import Tensor

from .config import Config
from .errors import Hw1Error, some
from .io.arrays import Room, cached_array, load_array
from .io.files import file_version, partial_beside, read_sealed, sha256_tensors, write_csv, write_sealed
from .io.folders import Part, Parts, find_parts, scan, singles
from .io.images import READING, Levels, decode, measure_levels

STATISTICS_CHUNK = 4096  # images counted at a time
LEVELS_FROM = 200  # training images, about


@dataclass(frozen=True)
class Split:
    """One part of the data."""

    name: str  # train, val or test
    images: Tensor  # uint8 N×3×S×S: on the device or, where they are streamed, mapped from their file
    labels: Tensor  # int64 N, on the device
    paths: list[str]  # N, relative to the data folder
    classes: list[str]  # K names; a label is an index into it
    streamed: bool = False
    levels: Levels = field(default_factory=dict)  # black and white of grey images of more than 8 bits
    part: Tensor | None = None  # int64 N, on the CPU: rows of `images`, where those are a larger split's
    whole_sha256: str = ""  # of that split

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def sha256(self) -> str:
        """Of pixels and labels."""
        if self.part is not None:
            return hashlib.sha256(f"{self.whole_sha256} {sha256_tensors({'part': self.part})}".encode()).hexdigest()
        return sha256_tensors({"images": self.images, "labels": self.labels})

    def counts(self) -> dict[str, int]:
        """Images of each class."""
        return dict(zip(self.classes, torch.bincount(self.labels, minlength=len(self.classes)).tolist(), strict=True))

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Some of the images, where they lie."""
        rows = rows if self.part is None else self.part[rows.cpu() if isinstance(rows, Tensor) else rows]
        return self.images[rows.to(self.images.device) if isinstance(rows, Tensor) else rows]

    def take(self, rows: Tensor | slice) -> Tensor:
        """Some of the images, on the device."""
        return self[rows].to(self.labels.device)

    def part_of(self, rows: Tensor) -> "Split":
        """These rows, int64 M of 0..N-1. Their pixels are not copied."""
        rows = rows.cpu()
        part = rows if self.part is None else self.part[rows]
        paths = [self.paths[i] for i in rows.tolist()]
        labels = self.labels[rows.to(self.labels.device)]
        return replace(self, labels=labels, paths=paths, part=part, whole_sha256=self.whole_sha256 or self.sha256)

    def to(self, device: torch.device, room: Room | None = None) -> "Split":
        """The split on the device; images that find no room there stay where they are and are streamed."""
        streamed = room is not None and not room.take(self.images.nbytes)
        images = self.images if streamed else self.images.to(device)
        return replace(self, images=images, labels=self.labels.to(device), streamed=streamed)


def choose(config: Config, parts: Parts) -> dict[str, Part]:
    """Which files are train, val and test, as many as asked for, before one is opened: stratified by class and seeded.

    Val comes out of the folder's own validation part or else out of train.

    Raises:
        Hw1Error: no usable folder, too few images for the split, or fewer asked for than there are classes.
    """
    test, part = _choose_test(config, parts), scan(config, parts, "train")
    labels = np.array(part.labels)
    if "val" in parts.folders:
        own, count = scan(config, parts, "val"), config.train_size or len(part)
        _refuse_too_few("train_size", count, part)
        val = own.take(pick(np.array(own.labels), config.val_size or len(own), config.seed))
        return {"train": part.take(pick(labels, count, config.seed)), "val": val, "test": test}
    tenth = max(len(part.classes), round(0.1 * len(labels)))
    val_size = config.val_size or tenth
    train_size = config.train_size or len(labels) - val_size
    if train_size + val_size > len(labels):  # a profile's sizes are meant for larger folders
        print(f"{config.data_path.name} has {len(labels):,} images to train on: all are used, a tenth to validate.")
        train_size, val_size = len(labels) - tenth, tenth
    try:
        rows = train_test_split(
            np.arange(len(labels)),
            train_size=train_size,
            test_size=val_size,
            stratify=labels,
            random_state=config.seed,
        )
    except ValueError as error:
        raise Hw1Error(
            f"{len(labels)} images in {len(part.classes)} classes cannot be split into {train_size} for training and "
            f"{val_size} for validation{singles(labels, part.classes) or f' ({error})'}: add images or lower "
            "train_size and val_size."
        ) from error
    train, val = (part.take(np.sort(chosen)) for chosen in _with_every_class(labels, *rows))
    return {"train": train, "val": val, "test": test}


def _choose_test(config: Config, parts: Parts) -> Part:
    part = scan(config, parts, "test")
    count = config.test_size or len(part)
    _refuse_too_few("test_size", count, part)
    return part.take(pick(np.array(part.labels), count, config.seed))


def load(config: Config, chosen: dict[str, Part]) -> dict[str, Split]:
    """Decode the files that `choose` chose. Those of all parts that cannot be read are in results/unreadable.csv.

    Raises:
        Hw1Error: unreadable images.
    """
    levels = _levels(config, scan(config, find_parts(config), "train"))
    read = {name: _pixels(config, part.paths, config.image_size, levels) for name, part in chosen.items()}
    bad = [(chosen[name].paths[row], why) for name, (_, failures) in read.items() for row, why in failures.items()]
    if "train" in chosen:  # a run's beginning; at its end the test alone is read again
        if levels:
            ranges = ", ".join(f"{black:,.6g} is black and {white:,.6g} white" for black, white in levels.values())
            print(f"  in grey images of more than 8 bits {ranges}, going by images to train on")
        table = config.results_path / "unreadable.csv"
        write_csv(table, pd.DataFrame(bad, columns=["path", "why"])) if bad else table.unlink(missing_ok=True)
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


def load_test(config: Config) -> Split:
    """Read test (a stratified, seeded part of it if `config.test_size` is smaller). For the final evaluation.

    Raises:
        Hw1Error: no usable folder, unreadable images, or fewer images asked for than there are classes.
    """
    return load(config, {"test": _choose_test(config, find_parts(config))})["test"]


def _refuse_too_few(name: str, count: int, part: Part) -> None:
    if count < len(part.classes):
        raise Hw1Error(
            f"{name} {count} is less than one image for each of {len(part.classes)} classes: raise it, or take None."
        )


def pick(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows of a seeded part, in order; all if there are no more than `count`. Stratified as far as that is possible.

    Every class has one row at least, where `count` allows it.
    """
    rows = np.arange(len(labels))
    if count >= len(labels):
        return rows
    images = np.bincount(labels)
    images = images[images > 0]
    fits = images.min() >= 2 and len(images) <= min(count, len(labels) - count)
    chosen, _ = train_test_split(rows, train_size=count, stratify=labels if fits else None, random_state=seed)
    return np.sort(_with_every_class(labels, chosen, chosen[:0])[0])


def _with_every_class(labels: np.ndarray, rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rounding has left a class out of `rows`, it changes places with the largest class, also in `others`."""
    rows, others = rows.copy(), others.copy()
    for label in np.setdiff1d(labels, labels[rows])[: len(rows)]:
        wanted = np.flatnonzero(labels == label)[0]
        counts = np.bincount(labels[rows])
        if counts.max() == 1:
            break  # fewer rows than classes
        place = np.flatnonzero(labels[rows] == counts.argmax())[0]
        others[others == wanted], rows[place] = rows[place], wanted
    return rows, others


def pixel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Per-channel mean and standard deviation over all pixels, in 0..1, each float32 (3,).

    Computed exactly from the 256-bin histogram of each channel, so no float copy of the images is made.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.zeros(3, 256, dtype=torch.int64)
    for part in images.split(STATISTICS_CHUNK):
        for count, channel in zip(counts, part.cpu().unbind(1), strict=True):
            count += torch.bincount(channel.flatten(), minlength=256)
    means, stds = [], []
    for weights in counts.double():
        weights /= weights.sum()
        mean = (weights * levels).sum()
        means.append(mean)
        stds.append((weights * (levels - mean) ** 2).sum().sqrt().clamp(min=1 / 255))  # a channel may be constant
    return torch.stack(means).float(), torch.stack(stds).float()


def make_toy_folder(folder: Path, *, classes: int = 3, train: int = 40, test: int = 10, size: int = 32) -> None:
    """Write a small, learnable ImageFolder for the smoke profile: class k is a noisy square of colour k."""
    rng, unfinished = np.random.default_rng(0), partial_beside(folder)
    for part, count in (("train", train), ("test", test)):
        for k in range(classes):
            target = unfinished / part / f"colour_{k}"
            target.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (size, size, 3))
                top, left = rng.integers(0, size // 2, 2)
                pixels[top : top + size // 2, left : left + size // 2, k % 3] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(target / f"{i:05d}.png")
    unfinished.rename(folder)


def with_side(split: Split, config: Config, side: int, room: Room) -> Split:
    """The same images, decoded from their files to another side, for a model that takes larger ones.

    Not in one go with the smaller ones: a JPEG's pixels depend a little on the side it is decoded for, and what the
    CNN sees must not depend on which encoders it is compared with.
    """
    size = len(split) * 3 * side**2 / 1e6
    print(f"  {len(split):,} {split.name} images at {side}×{side} pixels: {size:,.0f} MB in {config.cache_path.name}")
    images, failures = _pixels(config, split.paths, side, split.levels)
    if failures:
        raise Hw1Error(f"{split.paths[min(failures)]} could be read before and cannot be now: run again.")
    return replace(split, images=images, part=None, whole_sha256="").to(split.labels.device, room)


def _split(name: str, part: Part, images: Tensor, failures: dict[int, str], levels: Levels) -> Split:
    """The files that could be read as a Split."""
    good = part.take(row for row in range(len(part)) if row not in failures)
    if lost := {part.classes[label] for label in set(part.labels) - set(good.labels)}:
        raise Hw1Error(f"No readable image is left in {name} for {some(sorted(lost))}: add some.")
    return Split(name, images, torch.tensor(good.labels, dtype=torch.int64), good.paths, part.classes, levels=levels)


def _levels(config: Config, train: Part) -> Levels:
    """Black and white of grey images of more than 8 bits, the same for all parts: see `measure_levels`."""
    files = [str(config.data_path / path) for path in train.paths[:: max(1, len(train) // LEVELS_FROM)]]
    cache = config.cache_path / f"levels-{_key([str(READING), *map(file_version, files)])}.bin"
    if known := read_sealed(cache):
        return {mode: tuple(pair) for mode, pair in json.loads(known).items()}
    levels = measure_levels(files)
    if levels:
        with suppress(Hw1Error):  # a disk that takes no file is told of when the images are cached
            write_sealed(cache, json.dumps(levels).encode())
    return levels


def _key(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _pixels(config: Config, paths: list[str], side: int, levels: Levels) -> tuple[Tensor, dict[int, str]]:
    """(uint8 N×3×side×side of the files that can be read, the others' rows in `paths` and why).

    Decoded once; later runs map the cached array if files, sizes and times of change are the same, and if what could
    not be read still cannot.
    """
    files = [str(config.data_path / path) for path in paths]
    versions = (f"{path} {file_version(file)}" for path, file in zip(paths, files, strict=True))
    cache = config.cache_path / f"images-{_key([f'{side} {READING} {sorted(levels.items())}', *versions])}.npy"
    if cached := load_array(cache):
        images, notes = cached
        failures = {int(row): why for row, why in notes["unreadable"].items()}
        still = len(decode([files[row] for row in failures], side, levels=levels)[1]) if failures else 0
        if still == len(failures):
            return images[: len(files) - len(failures)], failures
    with cached_array(cache, (len(files), 3, side, side)) as (images, notes):
        _, failures = decode(files, side, images, levels=levels)
        for to, row in enumerate(i for i in range(len(files)) if failures and i not in failures):
            images[to] = images[row]  # closes the gaps
        notes["unreadable"] = {str(row): why for row, why in failures.items()}
    return images[: len(files) - len(failures)], failures
