"""Images decoded by several processes into one array, part by part: what a kill interrupts goes on from there."""

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from ..errors import Hw1Error
from .arrays import load_array, take_room
from .files import atomic, write_json
from .images import Levels, decode
from .progress import Progress
from .ranks import Ranks

PART = 512  # images: what an interruption can cost each process


def decode_together(files: list[str], side: int, levels: Levels, path: Path, ranks: Ranks) -> None:
    """Leave at `path` what `arrays.cached_array` would, unless it is there: uint8 N×3×side×side, failures in its notes.

    The array grows in a folder beside `path`. Whoever is free decodes the next part into it and writes down its
    checksum; the first process compares all of them and moves the array to its place. All processes call this.

    Raises:
        Hw1Error: the disk refuses, here or where another process is.
    """
    folder = path.with_suffix(".parts")
    growing = folder / "images.npy"
    if ranks.first_says(load_array(path) is not None):
        return
    taken = FileLock(path.with_name(".decoding.lock"), poll_interval=1)  # another run may want the same images
    try:
        if ranks.is_first:
            _acquire(taken)
        if ranks.first_says(load_array(path) is not None):  # that other run has decoded them
            return
        if ranks.is_first and not growing.exists():
            with atomic(growing) as partial:
                array = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(files), 3, side, side))
                with open(partial, "rb+") as file:
                    take_room(file, array.offset + array.nbytes)
        ranks.barrier()
        array = np.load(growing, mmap_mode="r+")
        parts = [range(at, min(at + PART, len(files))) for at in range(0, len(files), PART)]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        with Progress("  decoding", len(files), "images") as progress:
            for rows in ranks.share(parts):
                if _failures(array, rows, folder) is None:
                    part = array[rows.start : rows.stop]
                    part[:] = 0  # what was torn by a kill
                    images = torch.from_numpy(part)
                    workers = max(1, cores // ranks.beside)
                    names = files[rows.start : rows.stop]
                    _, failures = decode(names, side, images, levels=levels, say=progress.say, workers=workers)
                    unreadable = {str(rows.start + row): why for row, why in failures.items()}
                    write_json(_note(rows, folder), {"sha256": _sha256(part), "unreadable": unreadable})
                progress.update(rows.stop)
        array.flush()  # to where other machines see it
        ranks.barrier()
        if ranks.is_first:
            found = [_failures(array, rows, folder) for rows in parts]
            if None in found:
                raise Hw1Error(f"What was decoded into {folder} is not what lies there: run again, it is made anew.")
            unreadable = {row: why for part in found for row, why in part.items()}
            close_gaps(torch.from_numpy(array), unreadable)
            array.flush()
            write_json(path.with_suffix(".json"), {"unreadable": unreadable, "sha256": _sha256(array)})
            os.replace(growing, path)
            shutil.rmtree(folder, ignore_errors=True)
        ranks.barrier()
    finally:
        taken.release()


def _acquire(lock: FileLock) -> None:
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise Hw1Error(
            f"{lock.lock_file} cannot be written ({error.strerror or error}): choose another folder."
        ) from error


def close_gaps(images: Tensor, failures: dict) -> None:
    """Move what could be read together, in place: rows of `failures`, by their number or its text, are left out."""
    if failures:
        left_out = set(map(int, failures))
        for to, row in enumerate(row for row in range(len(images)) if row not in left_out):
            images[to] = images[row]


def _note(rows: range, folder: Path) -> Path:
    return folder / f"{rows.start}.json"


def _failures(array: np.ndarray, rows: range, folder: Path) -> dict[str, str] | None:
    """Row, as text, -> why it cannot be read; None: the part is not finished."""
    with suppress(OSError, ValueError, KeyError):
        note = json.loads(_note(rows, folder).read_text(encoding="utf-8"))
        if note["sha256"] == _sha256(array[rows.start : rows.stop]):
            return note["unreadable"]
    return None


def _sha256(values: np.ndarray) -> str:
    return hashlib.sha256(values).hexdigest()
