"""ImageFolder to uint8 tensors, stratified splits, batches on the device. Knows no particular dataset."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision.datasets import ImageFolder

from .config import Config
from .files import Hw1Error, load_tensors, save_tensors


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
    folder = _scan(config, "train")
    labels = np.array(folder.targets)
    tenth = max(len(folder.classes), round(0.1 * len(labels)))
    val_size = config.val_size or tenth
    train_size = config.train_size or len(labels) - val_size
    if train_size + val_size > len(labels):  # a profile's sizes are meant for larger folders
        print(f"{config.data_path.name}/train has {len(labels):,} images: all are used, a tenth for validation.")
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
    folder = _scan(config, "test")
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


def check_folder(config: Config) -> dict[str, int]:
    """Look at the folder without opening an image, before any expensive work.

    Returns:
        Number of images in train and test.

    Raises:
        Hw1Error: a part is missing or empty, or the two parts have different classes.
    """
    parts = {part: _scan(config, part) for part in ("train", "test")}
    if parts["train"].classes != parts["test"].classes:
        odd = sorted(set(parts["train"].classes) ^ set(parts["test"].classes))
        raise Hw1Error(f"train/ and test/ must have the same classes; only one of them has: {', '.join(odd)}.")
    if len(parts["train"].classes) < 2:
        raise Hw1Error(f"{config.data_path.name}/train has one class only: a classifier needs at least two.")
    return {part: len(folder) for part, folder in parts.items()}


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
        stds.append((weights * (levels - mean) ** 2).sum().sqrt())
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
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for k in range(classes):
            target = folder / part / f"colour_{k}"
            target.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (size, size, 3))
                top, left = rng.integers(0, size // 2, 2)
                pixels[top : top + size // 2, left : left + size // 2, k % 3] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(target / f"{i:05d}.png")


def _scan(config: Config, part: str) -> ImageFolder:
    root = config.data_path / part
    if not root.is_dir():
        raise Hw1Error(
            f"There is no folder {part}/ in {config.data_dir}: "
            "the data must lie as train/<class>/<image> and test/<class>/<image>."
        )
    try:
        return ImageFolder(str(root))
    except FileNotFoundError as error:
        raise Hw1Error(f"{config.data_dir}/{part} has no class folders with images: {error}") from error


def _read(path: str, size: int) -> np.ndarray | None:
    """One image as uint8 size×size×3; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
            if image.size != (size, size):
                image = image.resize((size, size), Image.Resampling.BICUBIC)
            return np.asarray(image)
    except Exception:  # PIL raises what it likes on damaged files: OSError, SyntaxError, ValueError, TypeError, …
        return None


def _decode(config: Config, name: str, folder: ImageFolder, index: np.ndarray) -> Split:
    """Decode the chosen files once; later runs read the cached tensor if files and sizes are the same."""
    root = config.data_path
    paths = [folder.samples[i][0] for i in index]
    relative = [Path(path).relative_to(root).as_posix() for path in paths]
    labels = torch.tensor([folder.targets[i] for i in index], dtype=torch.int64)
    listing = "\n".join(f"{file} {Path(path).stat().st_size}" for file, path in zip(relative, paths, strict=True))
    key = hashlib.sha256(f"{config.image_size}\n{listing}".encode()).hexdigest()[:16]
    cache = config.cache_path / f"images-{key}.safetensors"
    cached = load_tensors(cache)
    if cached:
        return Split(name, cached[0]["images"], labels, relative, folder.classes)
    images = torch.empty(len(paths), 3, config.image_size, config.image_size, dtype=torch.uint8)
    unreadable = []
    with ThreadPoolExecutor() as pool:  # PIL decodes outside the interpreter lock
        for i, pixels in enumerate(pool.map(partial(_read, size=config.image_size), paths, chunksize=64)):
            if pixels is None:
                unreadable.append(relative[i])
            else:
                images[i] = torch.tensor(pixels).permute(2, 0, 1)
    if unreadable:
        names = ", ".join(unreadable[:5]) + (", …" if len(unreadable) > 5 else "")
        raise Hw1Error(f"{len(unreadable)} files cannot be read as images: {names}: remove or replace them.")
    save_tensors(cache, {"images": images})
    return Split(name, images, labels, relative, folder.classes)
