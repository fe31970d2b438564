"""Image files to pixels: any format and mode that PIL reads becomes an upright RGB square."""

import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

PROGRESS_S = 10  # between two lines about a long decoding


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


def describe_sizes(paths: list[str], image_size: int, most: int = 500) -> str:
    """The sizes of image files in words, from the headers of about `most` of them, with a hint for `image_size`."""
    sizes = []
    for path in paths[:: max(1, len(paths) // most)]:
        with suppress(Exception), Image.open(path) as image:  # what cannot be read is named when it is decoded
            sizes.append(image.size)
    if not sizes:
        return "no image can be opened"
    (narrow, low), (wide, high) = np.min(sizes, axis=0), np.max(sizes, axis=0)
    shorter = int(np.median(np.min(sizes, axis=1)))
    text = f"images of {narrow}×{low} to {wide}×{high} pixels, the shorter side {shorter} in the middle"
    fitting = [side for side in (32, 48, 64, 96, 128) if image_size < side <= shorter]
    hint = f": image_size={fitting[-1]} would show it more, and take longer" if fitting else ""
    return f"{text}; the CNN sees {image_size}×{image_size}{hint}"


def decode(paths: list[str], size: int, *, say: Callable[[str], object] = print) -> tuple[Tensor, dict[int, str]]:
    """Read many image files with all processor cores.

    Returns:
        images: uint8 N×3×size×size; zeros where a file could not be read.
        failures: row -> why, for those files.
    """
    images, failures = torch.zeros(len(paths), 3, size, size, dtype=torch.uint8), {}
    started = reported = time.monotonic()
    # PIL warns of pictures that may exhaust memory; here, with a picture in each thread, they are refused.
    bomb = warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning)
    with bomb, ThreadPoolExecutor() as pool:  # PIL decodes outside the interpreter lock
        for i, pixels in enumerate(pool.map(partial(_try, size=size), paths)):
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
