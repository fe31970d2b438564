"""Arrays in files, memory-mapped: they may be larger than memory, which holds only what is being read."""

import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..errors import Hw1Error
from .files import atomic, damaged, partial_beside, write_json


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
            _take_room(file, array.offset + array.nbytes)
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


def empty_array(shape: tuple[int, ...], room: Room, folder: Path) -> tuple[Tensor, bool]:
    """(a float32 array to be filled, whether it is in memory: else it is mapped from a file without a name).

    Such a file is gone with its tensor, or with the process, however that ends.

    Raises:
        Hw1Error: the disk has no room for it.
    """
    size = 4 * math.prod(shape)
    if room.take(size):
        return torch.empty(shape), True
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            _take_room(file, size)
            return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="r+", shape=shape)), False
    except OSError as error:
        raise Hw1Error(
            f"{folder} has no room for {size / 1e9:.1f} GB that memory does not hold either "
            f"({error.strerror or error}): free some, or take fewer images."
        ) from error


def _take_room(file: BinaryIO, size: int) -> None:
    """Claim the disk's blocks now: a mapped file that finds the disk full later kills the process."""
    file.truncate(size)
    if hasattr(os, "posix_fallocate"):  # macOS and Windows lack it
        os.posix_fallocate(file.fileno(), 0, size)
