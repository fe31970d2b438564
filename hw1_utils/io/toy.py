"""Pictures for a run of seconds."""

from pathlib import Path

import numpy as np
from PIL import Image

from .files import partial_beside


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
