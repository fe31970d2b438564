"""The assignment's pipeline to the letter: ImageFolder, PIL transforms, a DataLoader with 2 workers, fp32.

The encoder sits inside the loop. This is the reference the package is measured against, written the way the
course's text describes it; nothing here is used by the package. Benchmarks run it in a process of its own
(`common.own_process`): what the package sets in its process, above all glibc's memory, must not speed it up.
"""

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder


def cnn(classes: int) -> nn.Sequential:
    """The network as the text draws it, layer after layer, for images of 32×32 pixels."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.LeakyReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, classes))


def cnn_transform(mean: list[float], std: list[float]) -> transforms.Compose:
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(32),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )


def eval_transform(mean: list[float], std: list[float], size: int) -> transforms.Compose:
    resize = [transforms.Resize((size, size), transforms.InterpolationMode.BICUBIC)] if size != 32 else []
    return transforms.Compose([*resize, transforms.ToTensor(), transforms.Normalize(mean, std)])


def loader(
    folder: Path, transform: transforms.Compose, batch_size: int, *, names: list[str], shuffle: bool
) -> DataLoader:
    """Batches of the images with these paths (relative to the folder's parent) under `folder`."""
    data = ImageFolder(str(folder), transform)
    index = {Path(path).relative_to(folder.parent).as_posix(): i for i, (path, _) in enumerate(data.samples)}
    part = Subset(data, [index[name] for name in names])
    return DataLoader(part, batch_size=batch_size, shuffle=shuffle, num_workers=2)


class Experiment:
    """A model, trained with plain fp32 AdamW and judged, with a clock beside it."""

    def __init__(self, model: nn.Module, train: DataLoader, val: DataLoader, device: torch.device) -> None:
        self.model, self.train, self.val, self.device = model.to(device), train, val, device
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def epoch(self) -> float:
        """Seconds of one epoch of training."""
        started = time.perf_counter()
        self.model.train()
        for images, labels in self.train:
            images, labels = images.to(self.device), labels.to(self.device)
            loss = F.cross_entropy(self.model(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return time.perf_counter() - started

    @torch.no_grad()
    def accuracy(self) -> float:
        self.model.eval()
        correct = total = 0
        for images, labels in self.val:
            correct += (self.model(images.to(self.device)).argmax(1).cpu() == labels).sum().item()
            total += len(labels)
        return correct / total
