"""Before any model: the data is there and readable, device and number format are chosen, the output folder is ours."""

import sys
from dataclasses import dataclass, field

import pandas as pd
import torch
from filelock import FileLock
from torch import Tensor

from . import cifar10, metrics
from .backup import Backup
from .config import PROFILES, Config
from .data import Split, load_test, load_train_val, make_toy_folder, pixel_statistics
from .features import Features
from .files import clear_partials, lock, write_csv
from .folders import check_folder
from .images import measure_sizes
from .runtime import (
    Precision,
    choose_precision,
    environment,
    find_device,
    keep_freed_memory,
    make_deterministic,
    room_for_arrays,
)
from .weights import check_names


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
    room: int = sys.maxsize  # bytes; larger arrays stay on disk
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

    Test images are decoded, so that a damaged one is found now and not after an hour of training, and put aside.

    Raises:
        Hw1Error: the data cannot be had or is not usable, or another process is at work in `config.output_dir`.
    """
    check_names(config.encoders)
    taken = lock(config.output_path)
    for folder in (config.runs_path, config.results_path, config.models_path, config.cache_path):
        clear_partials(folder.rglob(".*.partial*"))
    make_deterministic()
    keep_freed_memory()
    device = find_device(config.device)
    precision = choose_precision(config.precision, device)
    if config.data_dir == Config.data_dir:
        cifar10.ensure_cifar10(config.data_path)
    elif config.data_dir == PROFILES["smoke"]["data_dir"] and not config.data_path.exists():
        make_toy_folder(config.data_path)
    parts = check_folder(config)
    test, (train, val) = load_test(config), load_train_val(config)
    if "test" not in parts.folders:  # they were made here, and others may want the same ones
        made = [pd.DataFrame({"path": split.paths, "part": split.name}) for split in (train, val, test)]
        write_csv(config.results_path / "split.csv", pd.concat(made))
    room = room_for_arrays(device, config.memory_mb)
    train, val = train.to(device, room), val.to(device, room)
    sizes = measure_sizes([str(config.data_path / path) for path in train.paths])
    mean, std = pixel_statistics(train.images)
    if config.data_dir == Config.data_dir:
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
