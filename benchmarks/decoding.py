"""`python -m benchmarks.decoding`: photographs to small squares, decoded whole and by the JPEG decoder's draft."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from hw1_utils.config import make_config
from hw1_utils.context import Context
from hw1_utils.data import Data
from hw1_utils.device import Precision, environment
from hw1_utils.io import images

from .common import rate, ratio, show, side_by_side

SIZE, COPIES, ROUNDS = (4000, 3000), 4, 5  # 12 million pixels, as telephones take them
SIDES = (32, 64, 224)
WHOLE = 10**6  # times the side that is wanted: no draft is that large


def photographs(folder: Path) -> list[str]:
    """JPEG files of `SIZE`: a real photograph enlarged, with a sensor's noise."""
    small = Image.fromarray(load_sample_image("china.jpg"))
    pixels = np.asarray(small.resize(SIZE, Image.Resampling.BICUBIC)).astype(np.float32)
    pixels += np.random.default_rng(0).normal(0, 6, (*SIZE[::-1], 1))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "0.jpg", quality=90)
    for i in range(1, COPIES):
        (folder / f"{i}.jpg").write_bytes((folder / "0.jpg").read_bytes())
    return sorted(map(str, folder.iterdir()))


def whole(read: Callable[[], object]) -> object:
    """What `read` gives where no draft is used."""
    with mock.patch.object(images, "DRAFT", WHOLE):
        return read()


def speed(paths: list[str], data: Data) -> None:
    """The same files to each side, whole and by draft, and to two sides as a run wants them."""
    rows = []
    for side in SIDES:
        read = partial(images.decode, paths, side)
        seconds = side_by_side({"whole": partial(whole, read), "draft": read}, data.context.device, ROUNDS)
        difference = (read()[0].float() - whole(read)[0].float()).abs().mean()
        counts = [rate(len(paths), seconds[name]) for name in ("whole", "draft")]
        rows.append([side, *counts, f"{ratio(seconds['whole'], seconds['draft']):.1f}×", f"{difference:.2f}"])
    megapixels = SIZE[0] * SIZE[1] / 1e6
    columns = ["Side, pixels", "Whole, images/s: median (range)", "Draft, images/s", "Ratio", "Mean difference, of 255"]
    show(f"JPEG of {megapixels:.1f} million pixels, {len(paths)} files, {ROUNDS} rounds in turn", columns, rows, data)
    small, large = (partial(images.decode, paths, side) for side in (SIDES[0], SIDES[-1]))
    seconds = side_by_side({"both": lambda: (small(), large()), "large": large}, data.context.device, ROUNDS)
    both = f"{SIDES[0]} and {SIDES[-1]}, one after the other"
    rows = [[both, rate(len(paths), seconds["both"]), f"{ratio(seconds['both'], seconds['large']):.2f}"]]
    rows.append([f"{SIDES[-1]} alone", rate(len(paths), seconds["large"]), "1"])
    show("Two sides of the same files", ["Sides", "Images/s: median (range)", "Time"], rows, data)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        cpu, fp32 = torch.device("cpu"), Precision("fp32")
        here = Context(make_config("smoke"), cpu, fp32, environment(cpu, fp32))
        speed(photographs(Path(folder)), SimpleNamespace(context=here))
