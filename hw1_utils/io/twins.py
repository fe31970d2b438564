"""Copies among images: equal pixels, and pictures that show the same but for shift, crop, turn, mirror, light and blur.

All of it works on arrays. Vectors of any kind (an encoder's features, thumbnails) propose pairs, all pairs being looked
at in blocks, and only a comparison of pixels confirms them. Time grows with the square of the images, memory with
their number: 4 KB each for pictures and thumbnails, up to as much again on the way.
"""

import hashlib
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from .progress import Progress

FINDER = 1  # one more whenever `twin_clusters` finds others: kept ones are not used again then
SIDE = 32  # pixels of the pictures that are compared
WINDOW = 0.75  # of a side: the middle of one picture that is looked for in the other, so shifts of an eighth are found
BLOCK = 4096  # rows that are compared with as many others at a time
PIXELS = 2**22  # of images that are read at a time: as floats, 50 MB
EACH = 6  # proposed partners an image by each kind of vector, on average
MOST = 32  # at most, among the images behind it: of very many that are alike not every pair is proposed
ALIKE = 1e-3  # cosine: of many vectors none less alike are proposed; flat pictures have 0 with all others
SAMPLE = 256  # images that show how alike vectors must be for `EACH`
AT_ONCE = 2048  # pairs whose pixels are compared at a time
FLAT = 0.5  # levels of 255: where the deviation of a picture's detail is less there is nothing to compare
COARSE = 0.6  # correlation of detail in grey, at half the side, below which nothing more is tried
NEAR = 0.78  # correlation of detail from which on two pictures are near copies; where all pictures are much alike, it
UNUSUAL = 0.45  # may be as far from 1 as this times the square of what is usual: see `_near`
USUAL, OF_THEM = 200, 4  # pictures by which that is found, and the partners of each that are tried
SCALES, TURNS = (1.0, 0.87, 1.15), (0.0, -7.0, 7.0)  # degrees: what a copy is enlarged and turned by, about


def digests(images: Tensor) -> list[str]:
    """Of each of N uint8 images: equal where all pixels are."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images.numpy()]


def exact_clusters(images: Tensor) -> np.ndarray:
    """Which of N uint8 images are equal, int64 N: the same number."""
    blocks = pieces(torch.arange(len(images)), images.shape[-1])
    return equal(images[rows] for rows in blocks)


def equal(blocks: Iterable[Tensor]) -> np.ndarray:
    """Which of N uint8 images, that come in blocks, are equal, int64 N: the same number."""
    found = [np.array(digests(images), dtype="S32") for images in blocks]
    return np.unique(np.concatenate([np.empty(0, "S32"), *found]), return_inverse=True)[1].astype(np.int64)


def twin_clusters(images: Tensor) -> np.ndarray:
    """Which images are copies of each other, exact or near, by pixels alone: int64 N, the same number for copies.

    To be kept on one side of a split. Copies of copies are in one cluster.

    Args:
        images: uint8 N×3×S×S.
    """
    side, groups = images.shape[-1], exact_clusters(images)
    first = torch.from_numpy(np.sort(np.unique(groups, return_index=True)[1]))
    small = pictures(images.__getitem__, first, side)
    pairs, _ = confirm(small, by_thumbnails(small))
    return clusters(groups, first[pairs].numpy())


def clusters(groups: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Connected components, int64 N, of groups (int64 N, the same number for what belongs together) and pairs, P×2."""
    a, b = groups[pairs].T
    count = int(groups.max(initial=-1)) + 1
    return connected_components(coo_matrix((np.ones(len(a)), (a, b)), shape=(count, count)), directed=False)[1].astype(
        np.int64
    )[groups]


def pieces(rows: Tensor, side: int) -> tuple[Tensor, ...]:
    """Rows of images of this side, int64, as many at a time as memory takes."""
    return rows.split(max(1, PIXELS // side**2))


def pictures(take: Callable[[Tensor], Tensor], rows: Tensor, side: int, into: Tensor | None = None) -> Tensor:
    """uint8 M×3×32×32 of M rows, filled into one place piece by piece: of a million twice as much might be too much.

    Args:
        take: rows -> images, uint8 P×3×S×S.
        rows: int64 M.
        side: S.
        into: uint8 M×3×32×32, which is returned; None: a new one.
    """
    if into is None:
        into = torch.empty(len(rows), 3, SIDE, SIDE, dtype=torch.uint8)
    done = 0
    for part in pieces(rows, side):
        into[done : done + len(part)] = _reduced(take(part))
        done += len(part)
    return into


def _reduced(images: Tensor) -> Tensor:
    if images.shape[-1] == SIDE:
        return images
    resized = F.interpolate(images.float(), (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return resized.round().clamp(0, 255).byte()


# ---- proposals


def by_thumbnails(small: Tensor) -> Tensor:
    """Pairs, int64 P×2, of pictures whose thumbnails are alike, one of them mirrored perhaps.

    Args:
        small: uint8 N×3×32×32.
    """

    thumbs = torch.empty(len(small), 3 * 8 * 8)
    for start in range(0, len(small), BLOCK):
        thumbs[start : start + BLOCK] = _thumbnails(small[start : start + BLOCK])
    straight = propose(len(small), thumbs.__getitem__)
    return torch.cat([straight, propose(len(small), thumbs.__getitem__, lambda rows: _mirrored(thumbs[rows]))])


def _thumbnails(small: Tensor) -> Tensor:
    """float32 N×192 of length 1: 8×8 pixels without brightness and contrast."""
    thumbs = F.adaptive_avg_pool2d(small.float(), 8)
    return F.normalize((thumbs - thumbs.mean((2, 3), keepdim=True)).flatten(1), eps=1.0)


def _mirrored(thumbs: Tensor) -> Tensor:
    return thumbs.unflatten(1, (3, 8, 8)).flip(3).flatten(1)


def propose(count: int, take: Callable[[slice], Tensor], other: Callable[[slice], Tensor] | None = None) -> Tensor:
    """The pairs of rows whose vectors have the largest cosines, int64 P×2, the smaller row first.

    Args:
        count: N.
        take: rows -> their vectors, float32 M×D of length 1, on any device.
        other: those of the second of a pair; left out: the same. The cosine of (a, b) must be that of (b, a).
    """
    other = other or take
    least = _least(count, take, other)
    blocks = [slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
    found, total = [torch.empty(0, 2, dtype=torch.int64)], len(blocks) * (len(blocks) + 1) / 2
    progress = Progress("  looking for copies", total, "blocks of pairs")
    for i, rows in enumerate(blocks):
        first, hits = take(rows), []
        for columns in blocks[i:]:
            cosines = first @ other(columns).T
            a, b = (cosines >= least).nonzero(as_tuple=True)
            values = cosines[a, b].cpu()
            a, b = a.cpu() + rows.start, b.cpu() + columns.start
            hits.append((a[a < b], b[a < b], values[a < b]))
        a, b, values = (torch.cat(column) for column in zip(*hits, strict=True))
        order = torch.from_numpy(np.lexsort((-values.numpy(), a.numpy())))
        a, b = a[order], b[order]
        place = torch.arange(len(a)) - torch.searchsorted(a, a)
        found.append(torch.stack([a, b], 1)[place < MOST])
        progress.update(total - (len(blocks) - i - 1) * (len(blocks) - i) / 2)
    progress.close()
    return torch.cat(found)


def _least(count: int, take: Callable[[slice], Tensor], other: Callable[[slice], Tensor]) -> float:
    """The cosine that an image reaches with `EACH` others on average, going by `SAMPLE` of them."""
    rows = torch.arange(0, count, max(1, count // SAMPLE))
    sample = torch.cat([take(slice(row, row + 1)) for row in rows.tolist()])
    wanted, top = EACH * len(rows), torch.empty(0)
    for start in range(0, count, BLOCK):
        columns = torch.arange(start, min(start + BLOCK, count))
        cosines = (sample @ other(slice(start, start + len(columns))).T).cpu()
        top = torch.cat([top, cosines[rows[:, None] != columns]])
        top = top.topk(min(len(top), wanted)).values
    if len(top) < wanted:
        return -2.0  # there are no more pairs than that
    return max(float(top[-1]), ALIKE)


# ---- the comparison of pixels


def confirm(small: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Those of the proposed pairs that are near copies, and their likeness: int64 P×2, float32 P.

    Likeness is the correlation of detail: of the pictures between two degrees of blur, in which neither brightness nor
    contrast nor large areas count, that make any two landscapes look alike. The middle of one, mirrored, enlarged and
    turned as fits best, is held against the part of the other that fits best. Pictures without detail are near copies
    of nothing.

    Args:
        small: uint8 N×3×32×32.
        pairs: int64 P×2; one that comes twice counts once.
    """
    count, near = max(1, len(small)), _near(small)
    codes = torch.unique(pairs[:, 0] * count + pairs[:, 1])  # of pairs it would take twenty times the memory and time
    pairs = torch.stack([codes // count, codes % count], 1)
    kept, found, done = [torch.empty(0, 2, dtype=torch.int64)], [torch.empty(0)], 0
    progress = Progress("  comparing pixels", len(pairs), "pairs")
    for part in pairs.split(AT_ONCE) if len(pairs) else ():
        likeness = _likeness(small[part[:, 0]], small[part[:, 1]])
        kept.append(part[likeness >= near])
        found.append(likeness[likeness >= near])
        progress.update(done := done + len(part))
    progress.close()
    return torch.cat(kept), torch.cat(found)


def _near(small: Tensor) -> float:
    """The likeness from which on pictures of this kind are copies.

    Two photographs are never as alike as two digits of one kind: how alike those usually are that are no copies is seen
    among a tenth of the pictures, at most, of which few can be copies of each other, even where every image has some.
    """
    few = small[torch.linspace(0, len(small) - 1, min(USUAL, len(small) // 10)).long()]
    if len(few) <= OF_THEM:
        return NEAR
    thumbs = _thumbnails(few)
    cosines = torch.maximum(thumbs @ thumbs.T, thumbs @ _mirrored(thumbs).T).fill_diagonal_(-2.0)
    partners = cosines.topk(OF_THEM).indices
    likeness = torch.cat([_likeness(few, few[column], least=-1.0)[:, None] for column in partners.T], 1).amax(1)
    return max(NEAR, 1 - UNUSUAL * (1 - float(likeness.median())) ** 2)


def _likeness(first: Tensor, second: Tensor, least: float = COARSE) -> Tensor:
    """Of pairs of uint8 pictures P×3×32×32, float32 P; 0 where small grey ones are less alike than `least`."""
    half = F.avg_pool2d(torch.eye(SIDE)[None], (2, 1))[0] @ _blur(SIDE, 1.0)
    grey = [_without_areas(half @ images.float().mean(1, keepdim=True) @ half.T) for images in (first, second)]
    ones, windows = torch.ones(len(first)), _windows(grey[1])
    both = [_correlation(grey[0], windows, _warp(ones, 0 * ones, sign * ones)) for sign in (1, -1)]
    best, side = torch.stack(both).max(0)
    rows = (best >= least).nonzero().flatten()
    likeness, sign = torch.zeros(len(first)), 1 - 2 * side[rows]
    if len(rows) == 0:
        return likeness
    tried = torch.tensor([(scale, turn) for scale in SCALES for turn in TURNS], dtype=torch.float32)
    windows = tuple(values[rows] for values in windows)
    fits = [_correlation(grey[0][rows], windows, _warp(*values.expand(len(rows), 2).T, sign)) for values in tried]
    chosen = tried[torch.stack(fits).argmax(0)]
    fine, coarse = _blur(SIDE, 0.7), _blur(SIDE, 2.0)
    colour = [fine @ x @ fine.T - coarse @ x @ coarse.T for x in (first[rows].float(), second[rows].float())]
    windows = _windows(colour[1])
    for scale, turn in ((torch.ones(len(rows)), torch.zeros(len(rows))), chosen.T):
        likeness[rows] = torch.maximum(likeness[rows], _correlation(colour[0], windows, _warp(scale, turn, sign)))
    return likeness


def _without_areas(images: Tensor) -> Tensor:
    blur = _blur(images.shape[-1], 2.0)
    return images - blur @ images @ blur.T


@cache
def _blur(side: int, deviation: float) -> Tensor:
    """S×S: B @ image @ B.T is the image blurred; as products of matrices that takes a tenth of a convolution's time."""
    size = 2 * int(2 * deviation + 0.5) + 1
    return gaussian_blur(torch.eye(side)[None], [1, size], [deviation, deviation])[0]


def _warp(scale: Tensor, turn: Tensor, sign: Tensor) -> Tensor:
    """Maps float32 P×2×3 for `affine_grid`: the middle of a picture, enlarged, turned (degrees), mirrored where -1."""
    turn, share = torch.deg2rad(turn), WINDOW * scale
    across, down = torch.cos(turn) * share, torch.sin(turn) * share
    zero = torch.zeros_like(share)
    return torch.stack([sign * across, -sign * down, zero, down, across, zero], 1).unflatten(1, (2, 3))


def _windows(images: Tensor) -> tuple[Tensor, Tensor]:
    """Of float32 P×C×S×S, what `_correlation` needs: their spectra, and the energy, P×T×T, of each of T×T windows."""
    side = images.shape[-1]
    window = int(WINDOW * side)
    inside = torch.ones(side - window + 1, side).triu().tril(window - 1)  # T×S: which rows a window has
    sums = inside @ images @ inside.T
    energy = (inside @ images.square() @ inside.T - sums.square() / window**2).sum(1)
    return torch.fft.rfft2(images), energy


def _correlation(first: Tensor, windows: tuple[Tensor, Tensor], warp: Tensor) -> Tensor:
    """The largest normalised correlation of the warped middle of `first` with any window of the second, float32 P.

    `first` is float32 P×C×S×S, `windows` what `_windows` makes of the second. The products with all windows come from
    one Fourier transform: no shift goes round.
    """
    (count, channels, side, _), (spectra, energy) = first.shape, windows
    window = int(WINDOW * side)
    grid = F.affine_grid(warp, [count, channels, window, window], align_corners=False)
    middle = F.grid_sample(first, grid, padding_mode="border", align_corners=False)
    middle = middle - middle.mean((2, 3), keepdim=True)
    shape, shifts = (side, side), side - window + 1
    products = (spectra * torch.fft.rfft2(middle, s=shape).conj()).sum(1)
    products = torch.fft.irfft2(products, s=shape)[:, :shifts, :shifts]
    energy = energy, middle.square().sum((1, 2, 3))[:, None, None]
    least = channels * (window * FLAT) ** 2
    textured = (energy[0] >= least) & (energy[1] >= least)
    return torch.where(textured, products / (energy[0] * energy[1]).clamp(min=1e-12).sqrt(), 0.0).amax((1, 2))
