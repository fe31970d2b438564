"""Encoder outputs, computed once and cached on disk under a key that names all they depend on."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from .data import Data, Split, at_side
from .device import PASS, beside_each_other, halving, now
from .errors import Hw1Error
from .io.arrays import Room, Rows, empty_array
from .io.backup import Backup
from .io.chunks import Chunks, Spent
from .io.progress import Progress
from .io.ranks import ALONE, Ranks
from .models import FrozenEncoder

TIMED = 256  # images, where none was timed on this machine
CHUNK = 4096  # images per cache file: what an interruption can cost; rows of features taken in at a time


@dataclass(frozen=True)
class SplitFeatures:
    """Features of one split and what they cost when they were computed."""

    rows: Rows  # float32 N×D
    seconds: float  # of encoder work on this machine, also when this time they came from disk
    from_cache: int = 0  # how many of the N rows came from disk
    timed: int = 0  # how many were timed on this machine; `seconds` goes by these

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Features:
    """What a frozen encoder makes of the images to train and to validate on: what a probe is trained on."""

    encoder: FrozenEncoder
    data: Data
    train: SplitFeatures
    val: SplitFeatures
    train_images: Split  # as large as the encoder gets them

    def subset(self, count: int, seed: int) -> "Features":
        """Those of a part of the training images, the same as `Data.subset` takes: nothing is computed or copied."""
        rows = self.data.rows(count, seed)
        data = replace(self.data, train=self.data.train.subset(rows))
        train = replace(self.train, rows=self.train.rows.subset(rows))
        return replace(self, data=data, train=train, train_images=self.train_images.subset(rows))


def extract(encoder: FrozenEncoder, data: Data) -> Features:
    """Run the images to train and to validate on through the encoder, or read what an earlier run has kept.

    On two cores about 80 images a second (DeiT-Tiny, bf16): ten minutes for 50,000. What is finished stays on disk.

    Raises:
        Hw1Error: see `compute`; the GPU's memory is too small, or a file that could be read before cannot be any more.
    """
    train, val = (extract_split(encoder, split, data) for split in (data.train, data.val))
    return Features(encoder, data, train, val, at_side(data.train, side_for(encoder, data), data.context))


def extract_split(encoder: FrozenEncoder, split: Split, data: Data) -> SplitFeatures:
    """The features of any split of the data's; those that this run has had before are not computed again."""
    context, side = data.context, side_for(encoder, data)
    key = ("features", encoder.key(), split.sha256, side)
    if key not in context.computed:
        try:
            context.computed[key] = compute(
                encoder,
                at_side(split, side, context).images,
                context.extract_batch_size,
                context.config.cache_path,
                room=context.room,
                backup=context.backup,
                machine=context.machine,
                timed=split.name == "train",
                name=split.name,
                ranks=context.ranks,
            )
        except KeyboardInterrupt:
            print("  stopped: run it again, and it continues with what is not finished")
            raise
        except torch.OutOfMemoryError as error:
            raise Hw1Error(
                f"The GPU's memory is too small for images and features of {encoder.title}: lower memory_mb, so that "
                "they are streamed, or take device='cpu'."
            ) from error
    return context.computed[key]


def side_for(encoder: FrozenEncoder, data: Data) -> int:
    """Of the images that the encoder gets."""
    return encoder.side_for(data.context.config.image_size, data.largest_side)


def compute(
    encoder: FrozenEncoder,
    images: Tensor | Rows,
    batch_size: int,
    cache: Path,
    *,
    room: Room | None = None,
    backup: Backup | None = None,
    machine: str = "",
    timed: bool = True,
    name: str = "images",
    ranks: Ranks = ALONE,
    say: Callable[[str], object] = print,
) -> SplitFeatures:
    """Run uint8 N×3×S×S images through the encoder, or read what an earlier run left in the folder `cache`.

    The features go where the encoder is; those that find no room there stay in a file, to be streamed.

    Each chunk is kept under a hash of the encoder's key and the chunk's own pixels: features of other
    images, weights, preprocessing or number format can never be mistaken for these. An interrupted extraction
    continues with the first chunk that is missing; a GPU that runs out of memory gets smaller batches.

    A chunk keeps the seconds it took and on which `machine`. Those of another one (from a backup, say, or with other
    threads) are no cost of this one: where the seconds are wanted (`timed`), up to TIMED images are timed again.

    Several processes (`ranks`), all of which call this, take the chunks in turn; then each reads what all have made.

    Raises:
        Hw1Error: the GPU's memory does not hold a single image's pass, or the features are not finite numbers; of
            work ahead of a run, the disk takes no file.
    """
    chunks, spent = Chunks(cache, backup or Backup(None), required=ranks.ahead), Spent(machine)
    all_rows = [range(start, min(start + CHUNK, len(images))) for start in range(0, len(images), CHUNK)]
    features, resident = empty_array((len(images), encoder.columns), room or Room(), cache)

    def chunk(rows: range) -> tuple[Tensor, float, str | None, bool]:
        """(features, seconds, the machine that took them, whether they lay on disk)."""
        nonlocal batch_size
        key = chunk_key(encoder, images, rows, batch_size)
        if kept := chunks.load(key):
            return *kept, True
        values, seconds, batch_size = _encode(encoder, images, rows, batch_size, progress.say)
        chunks.save(key, values, seconds, machine)
        return values, seconds, machine, False

    with Progress(f"  features of {name}", len(images), "images", say=say) as progress:
        for rows in ranks.share(all_rows) if ranks.count > 1 else ():
            chunk(rows)
            progress.update(rows.stop)
        ranks.barrier()
        for rows in all_rows:
            values, seconds, where, kept = chunk(rows)
            features[rows.start : rows.stop] = values
            spent.add(len(rows), seconds, where, from_cache=kept)
            progress.update(rows.stop, "from cache" if kept else f"{len(rows) / seconds:,.0f} images/s")
        done = "on disk" if ranks.count > 1 else spent.summary(len(images))  # several have computed them
        progress.close(f"  features of {name}: {len(images):,} images, {done}")
    if timed and not spent.timed:
        few = range(min(TIMED, len(images)))
        _encode(encoder, images, few[:batch_size], batch_size, say)  # the first pass takes longer
        spent.add(len(few), _encode(encoder, images, few, batch_size, say)[1], machine)
        say(f"  computed elsewhere, with other threads or processes: {len(few)} images are timed anew")
    rows = Rows(features.to(encoder.device) if resident else features, streamed=not resident)
    return SplitFeatures(rows, spent.seconds_for(len(images)), spent.from_cache, spent.timed)


def chunk_key(encoder: FrozenEncoder, images: Tensor | Rows, rows: range | None = None, size: int = CHUNK) -> str:
    """What the file of a chunk is named after: all that its features depend on, as docs/scale.md tells.

    Args:
        images: uint8 N×3×S×S, as large as the encoder gets them.
        rows: those of the chunk; None: all.
        size: as many are read at a time.
    """
    rows, pixels = range(len(images)) if rows is None else rows, hashlib.sha256()
    for piece in _pieces(images, rows, size):
        pixels.update(piece.cpu().contiguous().numpy())
    shape = (len(rows), *images.shape[1:])
    return hashlib.sha256(f"{encoder.key()} {shape} {pixels.hexdigest()}".encode()).hexdigest()[:24]


def _pieces(images: Tensor | Rows, rows: range, size: int) -> Iterator[Tensor]:
    """These images, `size` at a time: where they are a part of others, each piece is a copy."""
    return (images[at : min(at + size, rows.stop)] for at in rows[::size])


def _encode(
    encoder: FrozenEncoder, images: Tensor | Rows, rows: range, batch_size: int, say: Callable[[str], object]
) -> tuple[Tensor, float, int]:
    """(features of these images, on the CPU; the seconds they took; the batch size that the memory allowed)."""

    def passes(size: int) -> Tensor:
        if encoder.device.type == "cpu":
            return beside_each_other(lambda piece: encoder(images[piece.start : piece.stop]), rows, min(size, PASS))
        return torch.cat([encoder(piece.to(encoder.device)) for piece in _pieces(images, rows, size)]).cpu()

    began = now(encoder.device)
    try:
        fits, values = halving(passes, batch_size)
    except torch.OutOfMemoryError as error:
        raise Hw1Error(
            f"The GPU's memory is too small for {encoder.name}: close what else uses it, or take a smaller encoder or "
            "device='cpu'."
        ) from error
    seconds = now(encoder.device) - began
    check_finite(values, encoder)
    if fits < batch_size:
        say(f"  the GPU's memory is full: {fits} images at a time from here on")
    return values, seconds, fits


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


def standardization(features: Rows | Tensor) -> tuple[Tensor, Tensor]:
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
