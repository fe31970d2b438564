"""Arrays in files, memory-mapped: they may be larger than memory, which holds only what is being read."""

import hashlib
import json
import math
import os
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..errors import Hw1Error
from .files import atomic, damaged, free_bytes, partial_beside, write_json

AHEAD = 2  # batches fetched before they are asked for, where they are streamed


@contextmanager
def cached_array(path: Path, shape: tuple[int, ...]) -> Iterator[tuple[Tensor, dict]]:
    """Yield a uint8 array of zeros and a dict for notes, to be filled by the block: then `load_array` reads them back.

    The array goes to `path` in NumPy's own format, the notes to a JSON file beside it, written last. A block that
    fails leaves neither. A disk without room costs a warning, not the run: the array is then in memory.
    """
    notes: dict = {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.lib.format.open_memmap(partial_beside(path), mode="w+", dtype=np.uint8, shape=shape)
        with open(partial_beside(path), "rb+") as file:
            take_room(file, array.offset + array.nbytes)
    except OSError as error:
        with suppress(OSError):
            partial_beside(path).unlink(missing_ok=True)
        print(f"Not cached, the run goes on. {path} cannot be written ({error.strerror or error}).")
        yield torch.zeros(shape, dtype=torch.uint8), notes
        return
    with atomic(path):
        yield torch.from_numpy(array), notes
    write_json(path.with_suffix(".json"), notes | {"sha256": hashlib.sha256(array).hexdigest()})


def load_array(path: Path) -> tuple[Tensor, dict] | None:
    """What `cached_array` left: (uint8 array, notes), or None if it is missing or, said aloud, damaged.

    All of it is read once, to compare checksums, and none of it is kept: the system's file cache has it.
    """
    if not os.path.exists(path):
        return None
    try:
        notes = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        array = np.load(path, mmap_mode="c")  # "c": torch wants arrays that can be written to; the file stays as it is
        if hashlib.sha256(array).hexdigest() == notes.pop("sha256"):
            return torch.from_numpy(array), notes
    except (OSError, ValueError, KeyError, EOFError):
        pass
    return damaged(path)


class Room:
    """Memory that all resident arrays of a run may take together. What finds none stays in a file and is streamed."""

    def __init__(self, size: int = sys.maxsize) -> None:
        self.left = size  # bytes

    def take(self, size: int) -> bool:
        """Whether `size` bytes more find room; they have it from then on."""
        fits = size <= self.left
        self.left -= size * fits
        return fits

    def for_a_while(self) -> "Room":
        """What is left, for arrays that are gone before others come."""
        return Room(self.left)


def empty_array(
    shape: tuple[int, ...], room: Room, folder: Path, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, bool]:
    """(an array to be filled, whether it is in memory: else it is mapped from a file without a name).

    Such a file is gone with its tensor, or with the process, however that ends.

    Raises:
        Hw1Error: the disk has no room for it.
    """
    size = dtype.itemsize * math.prod(shape)
    if room.take(size):
        return torch.empty(shape, dtype=dtype), True
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            take_room(file, size)
            kind = torch.empty(0, dtype=dtype).numpy().dtype
            return torch.from_numpy(np.memmap(file, dtype=kind, mode="r+", shape=shape)), False
    except OSError as error:
        raise Hw1Error(
            f"{folder} has no room for {size / 1e9:.1f} GB that memory does not hold either "
            f"({error.strerror or error}): free some, or take fewer images."
        ) from error


def check_disk(cache: Path, needed: int, streamed: int, *, required: bool = False) -> None:
    """Compare what will be kept in the folder `cache`, decoded images and features, with the free disk.

    A cache only saves the next run its work, so a disk that is too small costs a warning. It ends the run where the
    arrays do not fit into memory either: those that find no room there live on the disk.

    Args:
        needed: bytes in all, those included that are there already.
        streamed: bytes that memory does not hold.
        required: what is kept is what the work is for.

    Raises:
        Hw1Error: with what is needed and what is free.
    """
    kept = 0
    with suppress(OSError):  # such a folder cannot even be named: that will be said when it is to be made
        kept = sum(file.stat().st_size for file in cache.glob("*") if file.is_file())
    free = free_bytes(cache)
    if needed - kept <= free:
        return
    what = f"{cache} needs {(needed - kept) / 1e6:,.0f} MB for decoded images and features"
    if streamed - kept > free:
        raise Hw1Error(
            f"{what}, which memory does not hold either, and has {free / 1e6:,.0f} MB free: make room there, or take "
            "fewer images (train_size, val_size, test_size)."
        )
    if required:
        raise Hw1Error(f"{what} and has {free / 1e6:,.0f} MB free: make room there.")
    print(f"WARNING: {what} and has {free / 1e6:,.0f} MB free: what does not fit is made again by each run")


def take_room(file: BinaryIO, size: int) -> None:
    """Claim the disk's blocks now: a mapped file that finds the disk full later kills the process."""
    file.truncate(size)
    if hasattr(os, "posix_fallocate"):  # macOS and Windows lack it
        os.posix_fallocate(file.fileno(), 0, size)


@dataclass(frozen=True)
class Rows:
    """N rows of pixels or features: on a device or, where they are streamed, mapped from a file."""

    values: Tensor  # N×…
    streamed: bool = False
    index: Tensor | None = None  # int64 M, on the CPU: the rows that are meant; None: all of them

    def __len__(self) -> int:
        return len(self.values if self.index is None else self.index)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.values.shape[1:])

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Some of them, int64 or a slice, where they lie."""
        if self.index is not None:
            rows = self.index[rows.cpu() if isinstance(rows, Tensor) else rows]
        return self.values[rows.to(self.values.device) if isinstance(rows, Tensor) else rows]

    def subset(self, rows: Tensor) -> "Rows":
        """These of them, int64, without a copy."""
        return replace(self, index=rows.cpu() if self.index is None else self.index[rows.cpu()])

    def columns(self, count: int) -> "Rows":
        """The first columns of each."""
        return replace(self, values=self.values[:, :count])

    def to(self, device: torch.device, room: Room) -> "Rows":
        """On the device; if they find no room there they stay where they are and are streamed."""
        if room.take(self.values.nbytes):
            return replace(self, values=self.values.to(device))
        return replace(self, streamed=True)

    def chunks(self, order: Tensor, size: int, device: torch.device) -> Iterator[Tensor]:
        """All in this order, int64 N on the CPU, `size` at a time; streamed ones are read ahead of their use."""
        rows = order if self.index is None else self.index[order]
        if not self.streamed:
            # All of them go to the device at once: a copy for each batch would make the CPU wait for a GPU each time.
            yield from (self.values[part] for part in rows.to(self.values.device).split(size))
            return

        def fetch(part: Tensor) -> Tensor:
            chunk = self.values[part]
            # From pinned memory a GPU fetches by itself, and nobody waits for it.
            return chunk.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else chunk

        with ThreadPoolExecutor(1) as reader:
            waiting: deque = deque()
            for part in rows.split(size):
                waiting.append(reader.submit(fetch, part))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
