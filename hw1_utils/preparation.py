"""Before any model: the data is there and readable, device and number format are chosen, the output folder is ours."""

from contextlib import suppress
from dataclasses import dataclass, field

import pandas as pd
import torch
from filelock import FileLock
from torch import Tensor

from . import metrics
from .config import Config
from .data import Split, choose, load, make_toy_folder, pixel_statistics
from .device import Precision, choose_precision, find_device, keep_freed_memory, make_deterministic, room_for_arrays
from .errors import Hw1Error
from .features import Features
from .io import cifar10
from .io.arrays import Room
from .io.backup import Backup, make_place
from .io.files import clear_partials, free_bytes, lock, write_csv
from .io.folders import Part, check_folder
from .io.images import measure_sizes
from .io.tracking import clear_emptied
from .io.weights import check_names
from .measure.environment import environment
from .models import FrozenEncoder, sketch_encoders


@dataclass(frozen=True)
class Setup:
    """Everything the tasks share."""

    config: Config
    device: torch.device
    precision: Precision
    train: Split  # on the device
    val: Split
    mean: Tensor  # float32 (3,), of the training images' pixels in 0..1
    std: Tensor
    environment: dict
    backup: Backup = field(default_factory=lambda: Backup(None))
    room: Room = field(default_factory=Room)  # for all arrays together; what finds none stays on disk
    largest_side: int = 0  # of the image files, in pixels
    test_counts: dict[str, int] = field(default_factory=dict)  # test images of each class
    larger: dict[tuple[str, int], Split] = field(default_factory=dict)  # splits at another side: see `ProbeTask.seen`
    features: dict[tuple[str, str, int], Features] = field(default_factory=dict)  # see `ProbeTask.features`
    lock: FileLock | None = None  # held for as long as this object lives: no other run writes to the same folder

    @property
    def classes(self) -> list[str]:
        return self.train.classes


def prepare(config: Config) -> Setup:
    """Make sure the data is there, load train and val, and choose device and precision.

    What can be known in seconds comes first: the folder and what is taken of it, encoders and their weights, places
    to write to, room on the disk. Test images are decoded, so that a damaged one is found now and not after an hour of
    training, and put aside.

    Raises:
        Hw1Error: the data cannot be had or is not usable, weights cannot be had or do not fit, a place cannot be
            written, or another process is at work in `config.output_dir`.
    """
    check_names(config.encoders)
    _keep_apart(config)
    device = find_device(config.device)
    precision = choose_precision(config.precision, device)
    taken = lock(config.output_path)
    for folder in (config.runs_path, config.results_path, config.models_path, config.cache_path):
        clear_partials(folder.rglob(".*.partial*"))
    clear_emptied(config.runs_path)
    if config.backup_path:
        make_place(config.backup_path.parent)
    make_deterministic()
    keep_freed_memory()
    room = Room(room_for_arrays(device, config.memory_mb))
    if config.is_toy and not config.data_path.exists():
        make_toy_folder(config.data_path)
    if not config.is_cifar10:
        parts = check_folder(config)
        chosen = choose(config, parts)
    encoders = sketch_encoders(config)
    if config.is_cifar10:
        cifar10.ensure_cifar10(config.data_path)
        parts = check_folder(config)
        chosen = choose(config, parts)
    check_room(config, chosen, encoders, room)
    train, val, test = load(config, chosen).values()
    if "test" not in parts.folders:  # they were made here, and others may want the same ones
        made = [pd.DataFrame({"path": split.paths, "part": split.name}) for split in (train, val, test)]
        write_csv(config.results_path / "split.csv", pd.concat(made))
    train, val = train.to(device, room), val.to(device, room)
    sizes = measure_sizes([str(config.data_path / path) for path in train.paths])
    mean, std = pixel_statistics(train.images)
    if config.is_cifar10:
        cifar10.check_statistics(mean.tolist(), std.tolist(), list(train.counts().values()))
    else:
        print(sizes.describe(config.image_size))
    if metrics.leading(train.counts().values()) == "balanced_accuracy":
        few, many = min(train.counts().values()), max(train.counts().values())
        hint = "" if config.class_weights else "; with class_weights=True rare classes count as much in the loss"
        print(f"{few:,} to {many:,} training images a class: balanced accuracy and macro F1 come first{hint}")
    stamp = environment(device, precision)
    print(
        f"profile {config.profile}: {len(train):,} train, {len(val):,} val, "
        f"{len(test):,} test images in {len(train.classes)} classes\n"
        f"device {stamp['device']} ({stamp['torch_threads']} threads), precision {precision.name}"
    )
    return Setup(
        config,
        device,
        precision,
        train,
        val,
        mean,
        std,
        stamp,
        Backup(config.backup_path),
        room=room,
        largest_side=max(sizes.largest),
        test_counts=test.counts(),
        lock=taken,
    )


def _keep_apart(config: Config) -> None:
    """Raise Hw1Error if what is written would lie among the data: it would be read as a class or a part of it."""
    data = config.data_path.resolve()
    for name, place in (("output_dir", config.output_path), ("backup_dir", config.backup_path)):
        if place and place.resolve().is_relative_to(data):
            raise Hw1Error(f"{name} {place} lies in the data folder {config.data_dir}: choose one outside of it.")


def check_room(config: Config, chosen: dict[str, Part], encoders: list[FrozenEncoder], room: Room) -> None:
    """Compare what will be cached, decoded images and features, with the free disk, before anything is decoded.

    A cache only saves the next run its work, so a disk that is too small costs a warning. It ends the run where the
    arrays do not fit into memory either: those that find no `room` live on the disk.

    Raises:
        Hw1Error: with what is needed and what is free.
    """
    images = sum(map(len, chosen.values()))
    try:
        largest = max(measure_sizes([str(config.data_path / path) for path in chosen["train"].paths]).largest)
    except ValueError:  # nothing can be read: that will be said, with the files' names
        return
    wanted = {max(config.image_size, min(max(encoder.input_size), largest)) for encoder in encoders}
    pixels = [images * 3 * side**2 for side in {config.image_size, *wanted}]
    features = [images * encoder.columns * 4 for encoder in encoders]
    needed = sum(pixels) + sum(features)
    streamed = max(0, needed - room.left)
    needed += min(streamed, sum(features))  # those lie there twice, in the chunks that are kept and as this run's array
    kept = 0
    with suppress(OSError):  # such a folder cannot even be named: that will be said when it is to be made
        kept = sum(file.stat().st_size for file in config.cache_path.glob("*") if file.is_file())
    free = free_bytes(config.cache_path)
    if needed - kept <= free:
        return
    what = f"{config.cache_path} needs {(needed - kept) / 1e6:,.0f} MB for decoded images and features"
    if streamed - kept > free:
        raise Hw1Error(
            f"{what}, which memory does not hold either, and has {free / 1e6:,.0f} MB free: make room there, or take "
            "fewer images (train_size, val_size, test_size)."
        )
    print(f"WARNING: {what} and has {free / 1e6:,.0f} MB free: what does not fit is made again by each run")
