"""`python -m benchmarks.foreign`: are pictures of a foreign kind refused by a model of CIFAR-10?

Two scores of how familiar an image is: the largest probability (Hendrycks and Gimpel 2017), of CNN and probe, and the
cosine to the k-th nearest training image on the encoder's features (Sun et al. 2022: deep nearest neighbours; on
features of length 1 the distance says the same). Familiar are the validation images; the test images are not needed.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits, load_sample_images
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from hw1_utils.data import Data, Samples
from hw1_utils.experiment import Trained, as_they_are, cnn, probe, train
from hw1_utils.features import Features, extract
from hw1_utils.models import load_encoders
from hw1_utils.studies.neighbours import Neighbours

from .common import load, show

COUNT = 300  # pictures of each kind
KEPT = {None: 50, 5000: 10, 1000: 5}  # training images to compare with, None: all, and which nearest one counts


def digits(side: int, rng: np.random.Generator) -> list[Image.Image]:
    """scikit-learn's handwritten digits, 8×8, enlarged."""
    images = load_digits().images[rng.permutation(1797)[:COUNT]]
    return [Image.fromarray((image * 15.9).astype(np.uint8)).resize((side, side)) for image in images]


def letters(side: int, rng: np.random.Generator) -> list[Image.Image]:
    """One printed letter each, in two colours."""
    made = []
    for letter in rng.choice(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), COUNT):
        paper, ink = (tuple(colour) for colour in rng.integers(0, 256, (2, 3)).tolist())
        image = Image.new("RGB", (side, side), paper)
        font = ImageFont.load_default(side * 0.8)
        ImageDraw.Draw(image).text((side / 2, side / 2), letter, fill=ink, font=font, anchor="mm")
        made.append(image)
    return made


def tiles(side: int, rng: np.random.Generator) -> list[Image.Image]:
    """Cut out of scikit-learn's two photographs, a temple and a flower, at twice the side."""
    made = []
    for photograph in load_sample_images().images:
        for _ in range(COUNT // 2):
            top, left = (int(rng.integers(0, length - 2 * side)) for length in photograph.shape[:2])
            tile = photograph[top : top + 2 * side, left : left + 2 * side]
            made.append(Image.fromarray(tile).resize((side, side), Image.Resampling.BOX))
    return made


def noise(side: int, rng: np.random.Generator) -> list[Image.Image]:
    """Every pixel by itself."""
    return [Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(COUNT)]


def flat(side: int, rng: np.random.Generator) -> list[Image.Image]:
    """One colour each."""
    return [Image.new("RGB", (side, side), tuple(colour)) for colour in rng.integers(0, 256, (COUNT, 3)).tolist()]


KINDS: tuple[Callable, ...] = (digits, letters, tiles, noise, flat)


def foreign(side: int) -> dict[str, Tensor]:
    """Kind -> pictures, uint8 N×3×S×S."""
    rng = np.random.default_rng(0)
    kinds = {kind.__name__: kind(side, rng) for kind in KINDS}
    arrays = {name: np.stack([np.asarray(image.convert("RGB")) for image in images]) for name, images in kinds.items()}
    return {name: torch.from_numpy(array).permute(0, 3, 1, 2).contiguous() for name, array in arrays.items()}


@torch.inference_mode()
def scores(data: Data, features: Features, trained: list[Trained]) -> dict[str, dict[str, np.ndarray]]:
    """Score -> kind of picture, `val` among them -> how familiar each is."""
    encoder, size = features.encoder, data.context.extract_batch_size
    kinds, wide = foreign(data.train.side), trained[-1].run.model.in_features
    rows = {name: torch.cat([encoder(part)[:, :wide] for part in images.split(size)]) for name, images in kinds.items()}
    inputs = {"cnn": kinds, "probe": rows}
    found = {}
    for one in trained:
        run = one.run
        said = {
            name: torch.cat([one.model(run.val.transform(part, None)).softmax(1) for part in x.split(size)])
            .max(1)
            .values
            for name, x in inputs[run.kind].items()
        }
        found[f"largest probability, {run.title}"] = {"val": one.val.probabilities.max(1).values} | said
    for kept, k in KEPT.items():
        part = features.subset(min(kept, len(features.train)), seed=0) if kept else features
        near = Neighbours(
            Samples(part.train.rows.columns(wide), part.data.train.labels, as_they_are), len(data.classes), data.context
        )
        k = min(k, len(part.train))
        every = {"val": features.val.rows.columns(wide)[:]} | rows
        name = f"{k}th nearest of {len(part.train):,} training images"
        found[name] = {
            kind: torch.cat([near.nearest(near.unit(x), k)[0][:, -1] for x in values.split(512)])
            for kind, values in every.items()
        }
    return {score: {kind: values.cpu().numpy() for kind, values in of.items()} for score, of in found.items()}


def refused(familiar: np.ndarray, strange: np.ndarray) -> tuple[float, float]:
    """(AUROC; the share of the strange that passes where 95 % of the familiar do)."""
    labels, values = np.repeat([1, 0], [len(familiar), len(strange)]), np.concatenate([familiar, strange])
    passes, detected, _ = roc_curve(labels, values)
    return float(roc_auc_score(labels, values)), float(passes[np.searchsorted(detected, 0.95)])


def table(data: Data, features: Features, trained: list[Trained]) -> None:
    """Print how well each score tells each kind from the validation images."""
    lines = []
    for score, of in scores(data, features, trained).items():
        cells = [refused(of["val"], values) for kind, values in of.items() if kind != "val"]
        lines.append([score, *(f"{auroc:.3f} / {passed:.0%}" for auroc, passed in cells)])
    show(
        "AUROC / foreign pictures that pass where 95 % of the validation images do", ["Score", *foreign(8)], lines, data
    )


if __name__ == "__main__":
    full = load()
    extracted = extract(load_encoders(full.context)[0], full)
    table(full, extracted, [train(run) for run in (cnn(full), probe(extracted))])
