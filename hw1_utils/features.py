"""Encoder outputs, computed once and cached on disk under a key that names all they depend on."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from .data import Split
from .device import halving, now
from .errors import Hw1Error
from .io.arrays import Room, empty_array
from .io.backup import Backup
from .io.files import damaged, load_tensors, save_tensors
from .models import FrozenEncoder

TIMED = 256  # images, where none was timed on this machine
CHUNK = 4096  # images per cache file: what an interruption can cost; rows of features taken in at a time


@dataclass(frozen=True)
class Features:
    """Features of one split and what they cost when they were computed."""

    values: Tensor  # float32 N×D: on the device or, where they are streamed, mapped from a file
    seconds: float  # of encoder work on this machine, also when this time they came from disk
    from_cache: int = 0  # how many of the N rows came from disk
    timed: int = 0  # how many were timed here; from these the seconds of others, computed elsewhere, are reckoned
    streamed: bool = False
    part: Tensor | None = None  # int64 M, on the CPU: the rows that are meant; None: all

    def __len__(self) -> int:
        return len(self.values if self.part is None else self.part)

    def __getitem__(self, rows: slice) -> Tensor:
        """Some of the features, where they lie."""
        return self.values[rows if self.part is None else self.part[rows].to(self.values.device)]


def extract(
    encoder: FrozenEncoder,
    images: Tensor | Split,
    batch_size: int,
    cache: Path,
    *,
    room: Room | None = None,
    backup: Backup | None = None,
    machine: str = "",
    timed: bool = True,
    name: str = "images",
    say: Callable[[str], None] = print,
) -> Features:
    """Run uint8 N×3×S×S images through the encoder, or read what an earlier run left in the folder `cache`.

    The features go where the encoder is; those that find no room there stay in a file, to be streamed.

    Each chunk is cached under a hash of the encoder's key and the chunk's own pixels: features of other
    images, weights, preprocessing or number format can never be mistaken for these. An interrupted extraction
    continues with the first chunk that is missing; a GPU that runs out of memory gets smaller batches.

    A chunk keeps the seconds it took and on which `machine`. Those of another one (from a backup, say, or with other
    threads) are no cost of this one: where the seconds are wanted (`timed`), up to TIMED images are timed again.

    Raises:
        Hw1Error: the GPU's memory does not hold a single image's pass, or the features are not finite numbers.
    """
    backup = backup or Backup(None)
    features, resident = empty_array((len(images), encoder.columns), room or Room(), cache)
    seconds, here, from_cache, started = 0.0, 0, 0, time.perf_counter()
    for start in range(0, len(images), CHUNK):
        end = min(start + CHUNK, len(images))
        pixels = hashlib.sha256()
        for piece in _pieces(images, start, end, batch_size):
            pixels.update(piece.cpu().contiguous().numpy())
        shape = (end - start, *piece.shape[1:])
        key = hashlib.sha256(f"{encoder.key()} {shape} {pixels.hexdigest()}".encode()).hexdigest()[:24]
        path = cache / f"features-{key}.safetensors"
        cached = _load(path)
        if cached is None and backup.restore(path, f"features/{path.name}"):
            cached = _load(path)
        if cached:
            values, cost = cached[0]["features"], float(cached[1]["seconds"])
            from_cache += end - start
        else:
            begin = now(encoder.device)
            values, batch_size = _encode(encoder, images, start, end, batch_size, say)
            check_finite(values, encoder)
            cost = now(encoder.device) - begin
            if save_tensors(path, {"features": values}, seconds=str(cost), machine=machine):
                backup.keep(path, f"features/{path.name}")
        features[start:end] = values
        if not cached or cached[1].get("machine") == machine:
            seconds, here = seconds + cost, here + end - start
        left = (time.perf_counter() - started) / end * (len(images) - end)
        rate = f"{(end - start) / cost:,.0f} images/s" if not cached else "from cache"
        say(f"  features of {name}: {end:,} of {len(images):,} ({rate}, {left:.0f} s left)")
    if not here and timed:
        here = min(TIMED, len(images))
        _encode(encoder, images, 0, min(batch_size, here), batch_size, say)  # the first pass takes longer
        begin = now(encoder.device)
        _encode(encoder, images, 0, here, batch_size, say)
        seconds = now(encoder.device) - begin
        say(f"  computed on another machine or with other threads: {here} images are timed anew")
    seconds *= len(images) / max(here, 1)
    return Features(features.to(encoder.device) if resident else features, seconds, from_cache, here, not resident)


def standardization(features: Tensor | Features) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each column of float32 N×D features, each float32 (D,) on the CPU.

    By scikit-learn's StandardScaler, which takes them in in parts: they may be larger than memory.

    No column's deviation is less than the median one: a channel that is nearly silent on few training images would
    else multiply its weight by a huge number wherever it speaks. (benchmarks/README.md has what other bounds give.)
    """
    scaler = StandardScaler()
    for start in range(0, len(features), CHUNK):
        scaler.partial_fit(features[start : start + CHUNK].cpu().numpy())
    deviation = np.sqrt(scaler.var_)
    least = np.median(deviation[deviation > 0]) if deviation.any() else 1.0
    return torch.from_numpy(scaler.mean_).float(), torch.from_numpy(np.maximum(deviation, least)).float()


def check_finite(values: Tensor, encoder: FrozenEncoder) -> None:
    """Say it where features, N×D, are not finite numbers: in training they would pass for a learning rate too high.

    Raises:
        Hw1Error: with the number format that overflows, or the weights, to change.
    """
    if torch.isfinite(values).all():
        return
    what = f"{encoder.label} gives features that are not finite numbers"
    if encoder.dtype == torch.float16:
        raise Hw1Error(f"{what}: its activations are too large for fp16, so set precision='fp32' (or 'bf16').")
    raise Hw1Error(
        f"{what}, in {str(encoder.dtype).removeprefix('torch.')}: its weights ({encoder.source}) are broken."
    )


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """The chunk that was cached there; None if it is missing or, said aloud, cannot be used."""
    cached = load_tensors(path)
    return cached if cached is None or torch.isfinite(cached[0]["features"]).all() else damaged(path)


def _pieces(images: Tensor | Split, start: int, end: int, size: int) -> Iterator[Tensor]:
    """Some images at a time: of a part of a split, each piece is a copy."""
    return (images[at : min(at + size, end)] for at in range(start, end, size))


def _encode(
    encoder: FrozenEncoder, images: Tensor | Split, start: int, end: int, batch_size: int, say: Callable[[str], None]
) -> tuple[Tensor, int]:
    """(features of these images, on the CPU, the batch size that the device's memory allowed)."""

    def encode(size: int) -> Tensor:
        parts = [encoder(piece.to(encoder.device)) for piece in _pieces(images, start, end, size)]
        return torch.cat(parts).cpu()

    try:
        fits, values = halving(encode, batch_size)
    except torch.OutOfMemoryError as error:
        raise Hw1Error(
            f"The GPU's memory is too small for {encoder.name}: close what else uses it, or take a smaller encoder or "
            "device='cpu'."
        ) from error
    if fits < batch_size:
        say(f"  the GPU's memory is full: {fits} images at a time from here on")
    return values, fits
