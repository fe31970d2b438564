"""Augmentation, resizing and normalisation of whole batches on the device, random per image.

torchvision's v2 transforms draw one decision per call: on a batch, every image would get the same crop.
Here each image gets its own, and the batch stays one tensor that never leaves the device.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

SCALE = (0.08, 1.0)  # RandomResizedCrop's defaults in torchvision: share of the area,
RATIO = (3 / 4, 4 / 3)  # and width over height, drawn log-uniformly
ATTEMPTS = 10  # boxes drawn per image before the central crop is taken
JITTER = 0.15  # of brightness and contrast


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (or float in 0..255) B×3×H×W to float32 (x/255 - mean) / std; mean and std of shape (3,)."""
    mean, std = (values.to(images.device, torch.float32).view(3, 1, 1) * 255 for values in (mean, std))
    return (images.float() - mean) / std


def resize(images: Tensor, size: tuple[int, int], interpolation: str = "bicubic") -> Tensor:
    """Resize uint8 B×3×H×W to uint8 B×3×size with antialiasing, as PIL does.

    Rows first, then columns, to whole levels in between. torchvision does so on a CPU anyway; a GPU it would give both
    at once in floating point, and bicubic overshoots are then cut off once: up to 13 levels elsewhere at hard edges.
    """
    mode = InterpolationMode(interpolation)
    images = TF.resize(images, [images.shape[-2], size[1]], mode, antialias=True)
    return TF.resize(images, list(size), mode, antialias=True)


def sample_boxes(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw crop boxes with the distribution of `torchvision.transforms.RandomResizedCrop.get_params`.

    Args:
        count: boxes to draw.
        size: side of the square images, in pixels.
        generator: its device is the device of the boxes.

    Returns:
        int64 count×4: top, left, height, width. The first of ten drawn shapes that fits is taken; an image
        with none gets the central crop, which for a square image is all of it.
    """
    shape, device = (count, ATTEMPTS), generator.device
    area = size**2 * torch.empty(shape, device=device).uniform_(*SCALE, generator=generator)
    log_ratio = torch.empty(shape, device=device).uniform_(*map(math.log, RATIO), generator=generator)
    width = (area * log_ratio.exp()).sqrt().round()
    height = (area / log_ratio.exp()).sqrt().round()
    fits = (width > 0) & (width <= size) & (height > 0) & (height <= size)
    first = fits.int().argmax(1, keepdim=True)  # 0 where none fits; corrected below
    height, width = (drawn.gather(1, first).squeeze(1) for drawn in (height, width))
    height, width = (torch.where(fits.any(1), length, size) for length in (height, width))
    top, left = (
        (torch.rand(count, device=device, generator=generator) * (size - length + 1)).floor()
        for length in (height, width)
    )
    return torch.stack([top, left, height, width], dim=1).long()


def resized_crop(images: Tensor, boxes: Tensor, flips: Tensor) -> Tensor:
    """Cut a box of its own from each image, resize it to the image's size, and flip it where asked.

    Args:
        images: float32 B×3×S×S.
        boxes: int64 B×4 as from `sample_boxes`. A box is never larger than the output, so this always
            enlarges, where torchvision's bilinear `resized_crop` does no antialiasing either.
        flips: bool B.

    Returns:
        float32 B×3×S×S.
    """
    size = images.shape[-1]
    top, left, height, width = boxes.to(torch.float32).unbind(1)  # each (B,)
    centre = torch.arange(size, device=images.device) + 0.5  # (S,) output pixel centres

    def source(start: Tensor, length: Tensor) -> Tensor:  # (B,), (B,) -> (B, S) input pixel indices
        index = start[:, None] + centre * (length / size)[:, None] - 0.5
        # Pixels outside the box must not bleed in: the crop comes first, then the resize.
        return index.clamp(min=start[:, None], max=(start + length - 1)[:, None])

    rows, columns = source(top, height), source(left, width)
    columns = torch.where(flips[:, None], columns.flip(1), columns)
    to_grid = 2.0 / size  # grid_sample wants coordinates in -1..1, pixel i at (2i + 1) / S - 1
    x = (columns * to_grid + 1.0 / size - 1.0)[:, None, :].expand(-1, size, -1)
    y = (rows * to_grid + 1.0 / size - 1.0)[:, :, None].expand(-1, -1, size)
    grid = torch.stack([x, y], dim=-1)  # B×S×S×2
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def shift(images: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
    """Move each image, filling up with its mirrored border (`RandomCrop(S, padding, padding_mode="reflect")`).

    Args:
        images: B×3×S×S.
        offsets: int64 B×2, first row and column to be seen, in -(S-1)..S-1.
        flips: bool B, whether to mirror the result.

    Returns:
        B×3×S×S of the same dtype.
    """
    size = images.shape[-1]
    index = torch.arange(size, device=images.device)
    rows = offsets[:, :1] + index  # B×S
    columns = offsets[:, 1:] + torch.where(flips[:, None], index.flip(0), index)
    rows, columns = ((size - 1) - ((size - 1) - at.abs()).abs() for at in (rows, columns))
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def jitter(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Brightness, then contrast by a factor of its own for each image, as torchvision's ColorJitter does.

    Args:
        images: float32 B×3×S×S in 0..255.
        brightness, contrast: float32 B; 1 changes nothing.

    Returns:
        float32 B×3×S×S in 0..255.
    """
    images = (images * brightness.view(-1, 1, 1, 1)).clamp(0, 255)
    grey = TF.rgb_to_grayscale(images).mean((1, 2, 3), keepdim=True)
    return grey.lerp(images, contrast.view(-1, 1, 1, 1)).clamp(0, 255)


AUGMENTATIONS = ("none", "resized_crop", "shift")


@dataclass(frozen=True)
class Augmentation:
    """Raw uint8 B×3×S×S to normalised float32 B×3×S×S in channels_last memory format.

    `resized_crop` is the assignment's; `shift` moves by up to an eighth of the side, with `jitter` by up to 15 %. Both
    flip half of the images.

    Raises:
        ValueError: unknown augmentation.
    """

    name: str  # none, resized_crop or shift
    mean: Tensor  # (3,) per channel, of pixels in 0..1
    std: Tensor

    def __post_init__(self) -> None:
        if self.name not in AUGMENTATIONS:
            raise ValueError(f"unknown augmentation {self.name!r}")

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`generator`: source of the random decisions, on the images' device; None: nothing is augmented."""
        out = images if generator is None else self.augment(images, generator)
        return normalize(out, self.mean, self.std).contiguous(memory_format=torch.channels_last)

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Float32 B×3×S×S in 0..255; with `none` as they are."""
        if self.name == "none":
            return images.float()
        count, size, device = len(images), images.shape[-1], images.device
        flips = torch.rand(count, device=device, generator=generator) < 0.5
        if self.name == "resized_crop":
            return resized_crop(images.float(), sample_boxes(count, size, generator), flips)
        most = size // 8  # 4 pixels of 32
        offsets = torch.randint(-most, most + 1, (count, 2), device=device, generator=generator)
        factors = torch.empty(2, count, device=device).uniform_(1 - JITTER, 1 + JITTER, generator=generator)
        return jitter(shift(images, offsets, flips).float(), *factors)


def preview(name: str, images: Tensor, *, seed: int) -> Tensor:
    """What the augmentation makes of uint8 B×3×S×S images, as uint8 again, to look at."""
    generator = torch.Generator(images.device).manual_seed(seed)
    return Augmentation(name, torch.zeros(3), torch.ones(3)).augment(images, generator).round().to(torch.uint8)
