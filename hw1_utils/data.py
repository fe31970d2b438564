"""ImageFolder to uint8 tensors, stratified splits, batches on the device. Knows no particular dataset."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision.datasets import ImageFolder

from .config import Config
from .files import Hw1Error, file_version, load_tensors, partial_beside, save_tensors
from .folders import scan, some
from .images import decode


@dataclass(frozen=True)
class Split:
    """One part of the data, in memory."""

    name: str  # train, val or test
    images: Tensor  # uint8 N×3×S×S
    labels: Tensor  # int64 N
    paths: list[str]  # N, relative to the data folder
    classes: list[str]  # K names; a label is an index into it

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self) -> dict[str, int]:
        """Images of each class."""
        return dict(zip(self.classes, torch.bincount(self.labels, minlength=len(self.classes)).tolist(), strict=True))

    def to(self, device: torch.device) -> "Split":
        return Split(self.name, self.images.to(device), self.labels.to(device), self.paths, self.classes)


def load_train_val(config: Config) -> tuple[Split, Split]:
    """Read `train/` and split it, stratified by class and seeded with `config.seed`, into train and val.

    Raises:
        Hw1Error: no usable ImageFolder, unreadable images, or too few images for the split.
    """
    folder = scan(config, "train")
    labels = np.array(folder.targets)
    tenth = max(len(folder.classes), round(0.1 * len(labels)))
    val_size = config.val_size or tenth
    train_size = config.train_size or len(labels) - val_size
    if train_size + val_size > len(labels):  # a profile's sizes are meant for larger folders
        print(f"{config.data_path.name} has {len(labels):,} images to train on: all are used, a tenth to validate.")
        train_size, val_size = len(labels) - tenth, tenth
    try:
        train, val = train_test_split(
            np.arange(len(labels)),
            train_size=train_size,
            test_size=val_size,
            stratify=labels,
            random_state=config.seed,
        )
    except ValueError as error:
        raise Hw1Error(
            f"{len(labels)} images in {len(folder.classes)} classes cannot be split into {train_size} for training "
            f"and {val_size} for validation ({error}): add images or lower train_size and val_size."
        ) from error
    return _decode(config, "train", folder, np.sort(train)), _decode(config, "val", folder, np.sort(val))


def load_test(config: Config) -> Split:
    """Read `test/` (a stratified, seeded part of it if `config.test_size` is smaller). For the final evaluation.

    Raises:
        Hw1Error: as for `load_train_val`.
    """
    folder = scan(config, "test")
    index = np.arange(len(folder))
    if config.test_size and config.test_size < len(folder):
        try:
            index, _ = train_test_split(
                index, train_size=config.test_size, stratify=folder.targets, random_state=config.seed
            )
        except ValueError as error:
            raise Hw1Error(
                f"{config.test_size} of {len(folder)} test images in {len(folder.classes)} classes cannot be chosen "
                f"({error}): choose another test_size, or None for all of them."
            ) from error
    return _decode(config, "test", folder, np.sort(index))


def pixel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Per-channel mean and standard deviation over all pixels, in 0..1, each float32 (3,).

    Computed exactly from the 256-bin histogram of each channel, so no float copy of the images is made.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in images.unbind(1):
        weights = torch.bincount(channel.flatten().cpu(), minlength=256).double()
        weights /= weights.sum()
        mean = (weights * levels).sum()
        means.append(mean)
        stds.append((weights * (levels - mean) ** 2).sum().sqrt().clamp(min=1 / 255))  # a channel may be constant
    return torch.stack(means).float(), torch.stack(stds).float()


def batches(
    inputs: Tensor,
    labels: Tensor,
    batch_size: int,
    *,
    transform: Callable[[Tensor], Tensor] | None = None,
    shuffle_seed: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut device-resident tensors into batches, the last one perhaps smaller, each row exactly once.

    Args:
        inputs: N×... images or features.
        labels: int64 N, on the same device.
        transform: applied to each batch of inputs.
        shuffle_seed: seeds the order; None keeps the order of the rows.
    """
    if shuffle_seed is None:
        order = torch.arange(len(labels))
    else:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(shuffle_seed))
    for index in order.to(labels.device).split(batch_size):
        chunk = inputs[index]
        yield (transform(chunk) if transform else chunk), labels[index]


def epoch_seed(seed: int, epoch: int, stream: str) -> int:
    """A seed for one purpose in one epoch: an interrupted run continues with what it would have drawn."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch} {stream}".encode()).digest()[:6], "big")


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


def _decode(config: Config, name: str, folder: ImageFolder, index: np.ndarray) -> Split:
    """Decode the chosen files once; later runs read the cached tensor if files, sizes and times are the same."""
    files = [folder.samples[i] for i in index]
    relative = [Path(path).relative_to(config.data_path).as_posix() for path, _ in files]
    listing = [
        f"{config.image_size}",
        *(f"{file} {file_version(path)}" for file, (path, _) in zip(relative, files, strict=True)),
    ]
    key = hashlib.sha256("\n".join(listing).encode()).hexdigest()[:16]
    cache = config.cache_path / f"images-{key}.safetensors"
    cached = load_tensors(cache)
    good = range(len(files))
    if cached:
        images = cached[0]["images"]
    else:
        images, failures = decode([path for path, _ in files], config.image_size)
        if failures:  # not cached: the next run is to name them again
            named = some([f"{relative[i]} ({why})" for i, why in failures.items()])
            if not config.skip_unreadable:
                raise Hw1Error(
                    f"{len(failures)} files cannot be read as images: {named}: remove or replace them, or set "
                    "skip_unreadable=True."
                )
            print(f"Left out, as they cannot be read as images: {len(failures)} files: {named}")
            good = [i for i in good if i not in failures]
            lost = {folder.classes[label] for _, label in files} - {folder.classes[files[i][1]] for i in good}
            if lost:
                raise Hw1Error(f"No readable image is left in {name} for {some(sorted(lost))}: add some.")
            images = images[good]
        else:
            save_tensors(cache, {"images": images})
    labels = torch.tensor([files[i][1] for i in good], dtype=torch.int64)
    return Split(name, images, labels, [relative[i] for i in good], folder.classes)
