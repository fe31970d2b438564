"""Decoded images, and which are copies, kept beside the data folder under a key that names all they depend on."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import Hw1Error
from . import twins
from .arrays import Room, cached_array, empty_array, load_array
from .files import file_version, full_paths, read_checked, write_checked
from .images import READING, Levels, decode, measure_levels
from .ranks import ALONE, Ranks
from .together import close_gaps, decode_together

LEVELS_FROM = 200  # images, about
LONG = 10_000  # images among which copies are looked for, from which on it is said beforehand: half a minute for 50,000
MOST = 200_000  # among more only exact copies are looked for: near ones take a time that grows with the square
IN_MEMORY = 2**28  # bytes of pictures that are compared; more are in a file without a name


def load_levels(root: Path, paths: list[str], cache: Path) -> Levels:
    """Black and white of grey images of more than 8 bits, going by some of these files: see `measure_levels`.

    Args:
        root: the data folder.
        paths: N, relative to it: images to train on, as all parts are to be read alike.
        cache: the folder in which the answer is kept.
    """
    files = full_paths(root, paths[:: max(1, len(paths) // LEVELS_FROM)])
    kept = cache / f"levels-{_key([str(READING), *map(file_version, files)])}.safetensors"
    if known := read_checked(kept):
        return {mode: tuple(pair) for mode, pair in known[1]["levels"].items()}
    levels = measure_levels(files)
    if levels:
        with suppress(Hw1Error):  # a disk that takes no file is told of when the images are cached
            write_checked(kept, notes={"levels": levels})
    return levels


def load_pixels(
    root: Path, paths: list[str], side: int, levels: Levels, cache: Path, ranks: Ranks = ALONE
) -> tuple[Tensor, dict[int, str]]:
    """Decode image files, or map what an earlier run left in the folder `cache`.

    They are decoded once: the cached array is used if files, sizes and times of change are the same, and if what could
    not be read still cannot.

    Args:
        root: the data folder.
        paths: N, relative to it.
        levels: as from `load_levels`.
        ranks: the processes that decode together, all of which call this.

    Returns:
        images: uint8 M×3×side×side, of the files that can be read, in their order.
        failures: row in `paths` -> why, for the others.
    """
    files = full_paths(root, paths)
    kept = _pixels_path(root, paths, side, levels, cache)
    if ranks.ahead:
        decode_together(files, side, levels, kept, ranks)
    if cached := load_array(kept):
        images, notes = cached
        failures = {int(row): why for row, why in notes["unreadable"].items()}
        still = len(decode([files[row] for row in failures], side, levels=levels)[1]) if failures else 0
        if still == len(failures):
            return images[: len(files) - len(failures)], failures
    with cached_array(kept, (len(files), 3, side, side)) as (images, notes):
        _, failures = decode(files, side, images, levels=levels)
        close_gaps(images, failures)
        notes["unreadable"] = {str(row): why for row, why in failures.items()}
    return images[: len(files) - len(failures)], failures


def _pixels_path(root: Path, paths: list[str], side: int, levels: Levels, cache: Path) -> Path:
    return cache / f"images-{_key([f'{side} {READING} {sorted(levels.items())}', *_versions(root, paths)])}.npy"


def load_twins(
    root: Path, parts: list[list[str]], side: int, levels: Levels, cache: Path, ranks: Ranks = ALONE
) -> tuple[np.ndarray, np.ndarray]:
    """Which files are copies of each other, exact ones and near ones as well: see `twins.twin_clusters`.

    They are decoded to 32 pixels a side for it, once. A file that cannot be read has no copies.

    Args:
        parts: lists of paths, relative to the data folder.
        side: that the models see; if it is 32 the arrays of `load_pixels` do, so that nothing is decoded twice.
        levels: as from `load_levels`.
        cache: the folder in which the answer is kept; it does not depend on how the files are dealt to the parts.
        ranks: the processes that decode together, all of which call this; the first compares.

    Returns:
        exact, near: int64 N each, of all files, part after part; the same number for copies.
    """
    paths = [path for part in parts for path in part]
    order = sorted(range(len(paths)), key=paths.__getitem__)
    place = np.argsort(order)  # of each file in the pile, which is sorted
    paths = [paths[i] for i in order]
    found_by = f"{twins.FINDER} {READING} {sorted(levels.items())}"
    kept = cache / f"twins-{_key([found_by, *_versions(root, paths)])}.safetensors"
    find = partial(_find_twins, root, parts, paths, place, side, levels, kept)
    known = read_checked(kept)
    if not ranks.first_says(known is not None):  # it may have been written since: the first one's look counts for all
        piles = parts if side == twins.SIDE else [paths]
        for some in piles if ranks.count > 1 else []:
            load_pixels(root, some, twins.SIDE, levels, cache, ranks)
        with ranks.first_alone():
            known = read_checked(kept) or find()
        if ranks.is_first and side != twins.SIDE:  # nothing else wants them
            for suffix in (".npy", ".json"):
                _pixels_path(root, piles[0], twins.SIDE, levels, cache).with_suffix(suffix).unlink(missing_ok=True)
    return tuple((known or find())[0][name].numpy()[place] for name in ("exact", "near"))


def _find_twins(
    root: Path, parts: list[list[str]], paths: list[str], place: np.ndarray, side: int, levels: Levels, kept: Path
) -> tuple[dict[str, Tensor], dict]:
    """What `kept` is to hold: `exact` and `near` of `paths`, which are in order; `place`: each one's row."""
    if len(paths) >= LONG:
        what = "exact copies" if len(paths) > MOST else "copies"
        why = f"; not for near ones, as these are over {MOST:,}" if len(paths) > MOST else ""
        print(f"Looking for {what} among {len(paths):,} images, which are to stay on one side of the split{why}")
    pile, _ = empty_array((len(paths), 3, twins.SIDE, twins.SIDE), Room(IN_MEMORY), kept.parent, torch.uint8)
    # Where they are not the models' own, several processes may have decoded them.
    if side == twins.SIDE or _pixels_path(root, paths, twins.SIDE, levels, kept.parent).exists():
        parts, rows = (parts, place) if side == twins.SIDE else ([paths], np.arange(len(paths)))
        unreadable = []
        for part in parts:
            images, failures = load_pixels(root, part, twins.SIDE, levels, kept.parent)
            pile[torch.from_numpy(np.delete(rows[: len(part)], list(failures)))] = images
            unreadable += rows[list(failures)].tolist()
            rows = rows[len(part) :]
    else:
        _, failures = decode(full_paths(root, paths), twins.SIDE, pile, levels=levels)
        unreadable = list(failures)
    exact = twins.exact_clusters(pile)
    near = exact.copy() if len(paths) > MOST else twins.twin_clusters(pile)
    for numbers in (exact, near):
        numbers[unreadable] = numbers.max(initial=-1) + 1 + np.arange(len(unreadable))
    found = {"exact": torch.from_numpy(exact), "near": torch.from_numpy(near)}
    with suppress(Hw1Error):  # see `load_levels`
        write_checked(kept, found)
    return found, {}


def _versions(root: Path, paths: list[str]) -> Iterator[str]:
    """Each file's path, size and time of change."""
    return (f"{path} {file_version(file)}" for path, file in zip(paths, full_paths(root, paths), strict=True))


def _key(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
