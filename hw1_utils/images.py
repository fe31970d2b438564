"""Image files to pixels: any format and mode that PIL reads becomes an upright RGB square."""

import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

PROGRESS_S = 10  # between two lines about a long decoding
AHEAD = 512  # files read before their pixels are put away


class UnknownRange(Exception):
    """Grey levels as floating-point or 32-bit numbers."""


def read_image(path: str, size: int) -> np.ndarray:
    """One image file as uint8 size×size×3.

    Turned upright as EXIF says; transparency laid on white; 16 bits a pixel brought to 8; grey, palette and CMYK
    converted by PIL; the first frame of an animation; resized without keeping the ratio of the sides.

    Raises:
        UnknownRange: nobody can know which values of the file mean black and white.
        Exception: of whatever kind PIL chooses, if it is no readable image.
    """
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I;16"):  # PIL would cut off everything above 255
            image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise UnknownRange
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(image)


@dataclass(frozen=True)
class Sizes:
    """Widths and heights of image files, in pixels."""

    smallest: tuple[int, int]  # width and height, each on its own
    largest: tuple[int, int]
    shorter_side: int  # median

    def describe(self, image_size: int) -> str:
        """In words, with a hint for `Config.image_size`."""
        (narrow, low), (wide, high) = self.smallest, self.largest
        text = f"images of {narrow}×{low} to {wide}×{high} pixels, the shorter side {self.shorter_side} in the middle"
        fitting = [side for side in (32, 48, 64, 96, 128) if image_size < side <= self.shorter_side]
        hint = f": image_size={fitting[-1]} would show it more, and take longer" if fitting else ""
        return f"{text}; the CNN sees {image_size}×{image_size}{hint}"


def measure_sizes(paths: list[str], most: int = 500) -> Sizes:
    """The sizes of image files, from the headers of about `most` of them, evenly spread. One can be read at least."""
    sizes = []
    for path in paths[:: max(1, len(paths) // most)]:
        with suppress(Exception), Image.open(path) as image:  # a broken one was named when the files were decoded
            sizes.append(image.size)
    smallest, largest = np.min(sizes, axis=0).tolist(), np.max(sizes, axis=0).tolist()
    return Sizes(tuple(smallest), tuple(largest), int(np.median(np.min(sizes, axis=1))))


def decode(
    paths: list[str], size: int, images: Tensor | None = None, *, say: Callable[[str], object] = print
) -> tuple[Tensor, dict[int, str]]:
    """Read many image files with all processor cores.

    Args:
        images: uint8 N×3×size×size zeros to be filled; None: new ones.

    Returns:
        images: zeros where a file could not be read.
        failures: row -> why, for those files.
    """
    if images is None:
        images = torch.zeros(len(paths), 3, size, size, dtype=torch.uint8)
    failures, started = {}, time.monotonic()
    reported = started
    # PIL warns of pictures that may exhaust memory; here, with a picture in each thread, they are refused.
    bomb = warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning)
    with bomb, ThreadPoolExecutor() as pool:  # PIL decodes outside the interpreter lock
        # Some at a time: `map` runs ahead as far as it can, and pixels that nobody has put away yet fill the memory.
        parts = (paths[start : start + AHEAD] for start in range(0, len(paths), AHEAD))
        decoded = (pixels for part in parts for pixels in pool.map(partial(_try, size=size), part))
        for i, pixels in enumerate(decoded):
            if isinstance(pixels, str):
                failures[i] = pixels
            else:
                images[i] = torch.tensor(pixels).permute(2, 0, 1)  # S×S×3 -> 3×S×S
            if (now := time.monotonic()) - reported >= PROGRESS_S:
                done, rate = i + 1, (i + 1) / (now - started)
                left = (len(paths) - done) / rate
                say(f"  decoded {done:,} of {len(paths):,} ({rate:,.0f} images/s, {left:.0f} s left)")
                reported = now
    return images, failures


def _try(path: str, size: int) -> np.ndarray | str:
    """The pixels, or in a word or two why there are none."""
    try:
        return read_image(path, size)
    except UnidentifiedImageError:
        return "not an image"
    except UnknownRange:
        return "grey levels of unknown range"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError):
        return "too many pixels"
    except Exception as error:  # PIL raises what it likes on damaged files: OSError, SyntaxError, ValueError, …
        return (error.strerror if isinstance(error, OSError) else None) or "damaged"
