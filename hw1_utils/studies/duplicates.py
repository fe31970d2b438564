"""Which images are there more than once, in which parts and under which labels, and does the comparison hang on it?"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from ..data import Data, Split, decode
from ..errors import Hw1Error
from ..experiment import Result
from ..features import Features, extract_split, standardization
from ..io import pixels, twins
from ..io.arrays import Rows, empty_array
from ..io.files import full_paths, write_csv
from ..io.images import decode as decode_files
from ..io.splits import stratified_subset
from ..report import figures
from .common import compared, difference_on, evenly, interval_columns, score_on

CONFIRM_SIDE = 256  # pixels: files that look equal at `image_size` are decoded once more, to this side
AT_ONCE = 64  # of them in memory
HUBS = 8  # members of a group of equal pictures that the others are listed with: of large groups not every pair is
SHOWN = 24  # pairs in the gallery
COLUMNS = ["path_a", "part_a", "label_a", "path_b", "part_b", "label_b", "likeness", "kind", "same_label", "cluster"]


@dataclass(frozen=True)
class Duplicates:
    """Copies among all images of a run, and what its models reach without them."""

    pairs: pd.DataFrame  # duplicates.csv
    without: pd.DataFrame  # without_twins.csv
    images: dict[str, int]  # of each part
    gallery: Path


@dataclass(frozen=True)
class _Pile:
    """The images of all parts on one pile, rows counted through: train, val, test."""

    splits: tuple[Split, ...]

    def __len__(self) -> int:
        return sum(map(len, self.splits))

    def pixels(self, rows: Tensor) -> Tensor:
        """uint8 M×3×S×S, on the CPU."""
        return _gather([split.images for split in self.splits], rows)

    def paths(self) -> list[str]:
        return [path for split in self.splits for path in split.paths]

    def about(self) -> pd.DataFrame:
        """path, part and label of each image and, where images belong together, its group."""
        return pd.concat(
            pd.DataFrame(
                {
                    "path": split.paths,
                    "part": split.name,
                    "label": np.array(split.classes, dtype=object)[split.labels.cpu().numpy()],
                }
                | ({} if split.groups is None else {"group": split.groups.numpy()})
            )
            for split in self.splits
        ).reset_index(drop=True)


def duplicates(results: list[Result], test: Split) -> Duplicates:
    """Find copies among train, val and test, exact and near, and judge the models without test images that have any.

    Near copies (shifted, cropped or turned a little, mirrored, recompressed, blurred, resized, in another light) are
    proposed by the first encoder's features and by thumbnails, and confirmed by a comparison of pixels: see `io.twins`.
    A run of CNNs alone goes by thumbnails alone. Called after the test: no label, file or model changes by it.
    Writes duplicates.csv, duplicates.png and without_twins.csv.

    Exact copies are looked for among all images, block by block; near ones, of which all pairs are looked at, among up
    to 200,000 (`pixels.MOST`): of more, that is a seeded part with its share of train, val and test.

    `likeness` is 1 for exact copies, else the correlation of the aligned pictures. Of more than 8 equal pictures not
    every pair is listed, but each with the first of every part and label. `cluster` is the same number for copies of
    copies, as the frames of a film may be: counted from 0, in the order of the table. Where the images come in groups,
    `same_group` says whether both are of one.
    """
    run = results[0].run
    data, folder = run.data, run.context.config.results_path
    pile = _Pile((data.train, data.val, test))
    features = next((result.run.features for result in results if result.run.features), None)
    pairs, among = _found(pile, data, features)
    without = without_twins(results, test, pairs).assign(near_copies_among=among)
    write_csv(folder / "duplicates.csv", pairs)
    write_csv(folder / "without_twins.csv", without)
    gallery = figures.save(_gallery(pile, pairs, among), folder / "duplicates.png")
    return Duplicates(pairs, without, {split.name: len(split) for split in pile.splits}, gallery)


def find_pairs(data: Data, test: Split, features: Features | None) -> pd.DataFrame:
    """The table of `duplicates` alone; without features thumbnails alone propose near copies."""
    return _found(_Pile((data.train, data.val, test)), data, features)[0]


def _found(pile: _Pile, data: Data, features: Features | None) -> tuple[pd.DataFrame, int]:
    """(the table, among how many images near copies were looked for)."""
    groups = _exact(pile, data)
    rows = _compared(pile, groups, data.context.config.seed)
    count = len(pile) if len(rows) == groups.max() + 1 else len(rows)
    return _listed(pile, groups, *_near(pile, rows, data, features)), count


def exact_copies(data: Data) -> pd.DataFrame:
    """Files whose decoded pixels are equal, within and across train, val and test; before anything is trained.

    Test images are decoded when the data are loaded, so that a damaged one is found in time. Here their pixels are
    compared with those of other files; no model sees them, and nothing is chosen by what is found.

    Equal means: at `Config.image_size`, and once more at 256 pixels (or at `image_size`, if that is larger), to which
    the files are decoded again: two nearly blank pages may well be equal at 32 pixels and differ. What differs only in
    finer detail than that counts as a copy.

    Returns:
        A row a pair, as in duplicates.csv.

    Raises:
        Hw1Error: an image that could be read before cannot be now.
    """
    test = decode(data.context.config, {"test": data.test}, data.train.levels)["test"]
    pile = _Pile((data.train, data.val, test))
    return _listed(pile, _exact(pile, data), torch.empty(0, 2, dtype=torch.int64), torch.empty(0))


def _exact(pile: _Pile, data: Data) -> np.ndarray:
    """Which images are exact copies of each other, int64 N: the same number. A run looks for them once."""
    context = data.context
    key = ("exact copies", *(split.sha256 for split in pile.splits))
    if key not in context.computed:
        blocks = twins.pieces(torch.arange(len(pile)), context.config.image_size)
        groups = twins.equal(pile.pixels(rows) for rows in blocks)
        in_doubt = np.flatnonzero(np.bincount(groups)[groups] > 1)
        groups[in_doubt] = len(pile) + twins.equal(_again(pile, in_doubt, data))
        context.computed[key] = np.unique(groups, return_inverse=True)[1]
    return context.computed[key]


def _again(pile: _Pile, rows: np.ndarray, data: Data) -> Iterator[Tensor]:
    """These images, int64 M, decoded once more and larger, AT_ONCE at a time."""
    config, paths = data.context.config, pile.paths()
    side = max(CONFIRM_SIDE, config.image_size)
    for start in range(0, len(rows), AT_ONCE):
        files = full_paths(config.data_path, [paths[row] for row in rows[start : start + AT_ONCE]])
        images, failures = decode_files(files, side, levels=data.train.levels, say=lambda line: None)
        if failures:
            raise Hw1Error(f"{files[min(failures)]} could be read before and cannot be now: run again.")
        yield images


def _compared(pile: _Pile, groups: np.ndarray, seed: int) -> Tensor:
    """Rows among which near copies are looked for, int64 in order: one of each group of equal images, or a part."""
    rows = np.sort(np.unique(groups, return_index=True)[1])
    if len(rows) <= pixels.MOST:
        return torch.from_numpy(rows)
    sizes = [len(split) for split in pile.splits]
    part = rows[stratified_subset(np.repeat(np.arange(len(sizes)), sizes)[rows], pixels.MOST, seed)]
    print(
        f"Near copies are looked for among {len(part):,} of {len(pile):,} images, a part (seed {seed}) with its share "
        "of train, val and test; exact ones among all"
    )
    return torch.from_numpy(part)


def _near(pile: _Pile, rows: Tensor, data: Data, features: Features | None) -> tuple[Tensor, Tensor]:
    """Pairs of these rows that are near copies, int64 P×2, and how alike they are, float32 P."""
    shape, room = (len(rows), 3, twins.SIDE, twins.SIDE), data.context.room.for_a_while()
    pictures, _ = empty_array(shape, room, data.context.config.cache_path, torch.uint8)
    twins.pictures(pile.pixels, rows, pile.splits[0].side, pictures)
    proposed = [twins.by_thumbnails(pictures)]
    if features:
        test = extract_split(features.encoder, pile.splits[-1], features.data).rows
        columns = features.encoder.head_columns  # of the class token
        sources = [part.columns(columns) for part in (features.train.rows, features.val.rows, test)]
        mean, deviation = standardization(sources[0])

        def take(part: slice) -> Tensor:
            values = (_gather(sources, rows[part]) - mean) / deviation
            return F.normalize(values.to(pile.splits[0].labels.device))

        proposed.append(twins.propose(len(rows), take))
    pairs, likeness = twins.confirm(pictures, torch.cat(proposed))
    return rows[pairs], likeness


def _gather(sources: list[Rows], rows: Tensor) -> Tensor:
    """These rows, int64 in order, of arrays that follow each other, on the CPU."""
    found, start = [], 0
    for source in sources:
        inside = rows[(rows >= start) & (rows < start + len(source))] - start
        found.append(source[inside].cpu())
        start += len(source)
    return torch.cat(found)


def _listed(pile: _Pile, groups: np.ndarray, near: Tensor, likeness: Tensor) -> pd.DataFrame:
    """The table: train beside test first, then other pairs across parts; exact ones before near ones."""
    about = pile.about()
    several = np.flatnonzero(np.bincount(groups)[groups] > 1)
    members = {int(group): rows.to_numpy() for group, rows in pd.Series(several).groupby(groups[several])}
    hubs = {group: _hubs(rows, about) for group, rows in members.items()}
    found = {pair: 1.0 for group, rows in members.items() for pair in _product(rows, hubs[group])}
    exact = set(found)
    for pair, value in zip(near.tolist(), likeness.tolist(), strict=True):
        (all_a, few_a), (all_b, few_b) = ((members.get(groups[i], [i]), hubs.get(groups[i], [i])) for i in pair)
        found |= dict.fromkeys(_product(all_a, few_b) | _product(few_a, all_b), value)
    order = np.array(list(found), dtype=np.int64).reshape(-1, 2)
    sides = [about.iloc[order[:, i]].reset_index(drop=True).add_suffix(f"_{side}") for i, side in enumerate("ab")]
    table = pd.concat(sides, axis=1).assign(
        likeness=list(found.values()), kind=["exact" if pair in exact else "near" for pair in found]
    )
    table["same_label"] = table["label_a"] == table["label_b"]
    table["cluster"] = twins.clusters(groups, near.numpy())[order[:, 0]]
    columns = list(COLUMNS)
    if "group" in about:
        table["same_group"] = table["group_a"] == table["group_b"]
        columns.append("same_group")
    inside, leak = table["part_a"] == table["part_b"], (table["part_a"] == "train") & (table["part_b"] == "test")
    a, b = order.T
    table = table.iloc[np.lexsort((b, a, -table["likeness"], table["kind"] == "near", inside, ~leak))]
    return table[columns].assign(cluster=pd.factorize(table["cluster"])[0]).reset_index(drop=True)


def _hubs(rows: np.ndarray, about: pd.DataFrame) -> np.ndarray:
    """Of a group those that stand for it: all of a small one, of a large one the first of each part and label."""
    if len(rows) <= HUBS:
        return rows
    return about.iloc[rows].drop_duplicates(["part", "label"]).index.to_numpy()[: 2 * HUBS]


def _product(first: Sequence[int], second: Sequence[int]) -> set[tuple[int, int]]:
    return {(min(a, b), max(a, b)) for a in map(int, first) for b in map(int, second) if a != b}


def without_twins(results: list[Result], test: Split, pairs: pd.DataFrame) -> pd.DataFrame:
    """The models on all test images, and on those that have no copy in train.

    Args:
        pairs: as in duplicates.csv.

    Returns:
        A row a model: model, name, leading, and the leading measure with its 95 % interval on all test images (images,
        score, score_low, score_high) and without twins (the same with `_without`); where both a CNN and a probe are
        among the models a last row, named `difference`, with the best plain probe (on validation) minus the first CNN
        on the same images. Empty cells where every test image has a twin. In the file near_copies_among is beside
        them: how many images near copies were looked for among.
    """
    leaks = (pairs["part_a"] == "train") & (pairs["part_b"] == "test")
    alone = ~np.isin(test.paths, list(set(pairs.loc[leaks, "path_b"])))

    def row(title: str, name: str, score: Callable[[np.ndarray], tuple[float, float, float]]) -> dict:
        cells = {"model": title, "name": name, "leading": results[0].run.data.leading}
        for suffix, rows in (("", np.ones_like(alone)), ("_without", alone)):
            values = score(rows) if rows.any() else (np.nan,) * 3
            cells |= {f"images{suffix}": int(rows.sum()), **interval_columns(f"score{suffix}", values)}
        return cells

    table = [row(result.run.title, result.run.name, partial(score_on, result)) for result in results]
    cnn, probe = compared(results)
    if cnn and probe:
        title = f"{probe.run.title} minus {cnn.run.title}"
        table.append(row(title, "difference", partial(difference_on, cnn, probe)))
    return pd.DataFrame(table)


def _gallery(pile: _Pile, pairs: pd.DataFrame, among: int) -> Figure:
    """Pairs across parts first, evenly over all degrees of likeness: the least alike are where an error would be."""
    once = pairs.drop_duplicates("path_b")  # else a picture with many copies takes all places
    across = (once["part_a"] != once["part_b"]).to_numpy()
    chosen: list[int] = []
    for rows in (np.flatnonzero(across), np.flatnonzero(~across)):
        chosen += evenly(rows, SHOWN - len(chosen)).tolist()
    shown = once.iloc[chosen]
    where = {path: row for row, path in enumerate(pile.paths())}
    sides = [[where[path] for path in shown[f"path_{side}"]] for side in "ab"]
    images = [torch.cat([pile.pixels(torch.tensor([row])) for row in rows]) if rows else None for rows in sides]
    captions = [
        f"{row.label_a}\n{row.label_b}\n{row.part_a}, {row.part_b}: "
        + ("exact" if row.kind == "exact" else f"{row.likeness:.2f}")
        for row in shown.itertuples()
    ]
    title = f"{len(shown)} of {len(pairs):,} pairs of copies, across parts first" if len(pairs) else "No copies"
    if among < len(pile):
        title += f"; near ones among {among:,} of {len(pile):,} images"
    return figures.pair_grid(*images, captions, title)
