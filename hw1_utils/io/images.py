"""Image files to pixels: any format and mode that PIL reads becomes an upright RGB square."""

import re
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from ..errors import some
from .progress import Progress

MAX_SAMPLE_VALUE = 281  # of TIFF
READING = 3  # one more whenever `read_image` makes other pixels of a file: cached ones are not used again then
AHEAD = 512  # files read before their pixels are put away
MOST_PIXELS = 2**28  # of a file; PIL takes four bytes for each, and as much again to turn or convert them
MOST_TEXT = {"MAX_TEXT_CHUNK": 2**26, "MAX_TEXT_MEMORY": 2**28}  # bytes of a PNG's colour profile, XMP and the like
LARGE = 2**24  # pixels to be decoded: of what is larger there is only one in memory, however many cores there are
DRAFT = 2  # a JPEG is decoded at no less than this many times the side that is wanted
MISSING = 1.0  # of 255 levels, on average: how far a JPEG may hang on bytes that its file has lost

Levels = dict[str, tuple[float, float]]  # mode of PIL -> the values that mean black and white

_one_at_a_time = threading.Lock()
_TURNS = {  # by the EXIF tag Orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # the brands of such files
_CONVERT = "{}, which is not read here: convert it to PNG or JPEG"
_SIGNATURES = (  # of files that PIL does not open: (offset, what stands there, what to say)
    (0, b"\xff\xd8\xff", "damaged"),
    (0, b"\x89PNG\r\n", "damaged"),
    (0, b"GIF8", "damaged"),
    (8, b"WEBP", "damaged"),
    (0, b"II*\0", "damaged, or a TIFF of a rare kind"),
    (0, b"MM\0*", "damaged, or a TIFF of a rare kind"),
    (0, b"\xff\x0a", _CONVERT.format("JPEG XL")),
    (4, b"JXL ", _CONVERT.format("JPEG XL")),
    (128, b"DICM", _CONVERT.format("DICOM")),
    (0, b"v/1\x01", _CONVERT.format("OpenEXR")),
    (4, b"ftypcrx ", _CONVERT.format("camera raw")),
    (0, b"FUJIFILM", _CONVERT.format("camera raw")),
    (0, b"version https://git-lfs", "only a pointer to it: git lfs pull"),
)


_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # behind the data of a JPEG's scan


class UnknownRange(Exception):
    """Grey as floating-point or 32-bit numbers, or colours of 12 bits in 16: nobody says what black and white are."""


def read_image(path: str, size: int, levels: Levels | None = None) -> np.ndarray:
    """One image file as uint8 size×size×3.

    Turned upright as EXIF says; transparency laid on white; more than 8 bits a pixel brought to 8; grey, palette and
    CMYK converted by PIL; the first frame of an animation; resized without keeping the ratio of the sides.

    Args:
        levels: black and white of grey images with more than 8 bits that do not say it themselves. For 16 bits they
            are else 0 and 65535.

    Raises:
        UnknownRange: nobody can know which values of the file mean black and white.
        Exception: of whatever kind PIL chooses, if it is no readable image.
    """
    with open(path, "rb") as file, Image.open(file) as image:  # by its name, Pillow 13 would garble an unpacked TIFF
        return _square(image, size, levels)  # that is to be turned by 90°


def _square(image: Image.Image, size: int, levels: Levels | None) -> np.ndarray:
    # The JPEG decoder can leave out the finest detail, at a fraction of time and memory. Other formats know no draft.
    draft = image.draft(None, (DRAFT * size, DRAFT * size))
    box = draft[1] if draft else None  # what the picture takes of its last row and column of draft pixels
    with _one_at_a_time if image.width * image.height > LARGE else nullcontext():
        deep_colour = ";16" in str(image.tile) and not _is_deep(image)
        image.load_end = partial(_forgive, image.load_end)  # when the pixels are there, and PIL sees to the metadata
        image.load()
        turn = None
        with suppress(Exception):
            turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))  # none of a TIFF, which PIL has turned
        if _is_deep(image):
            image = _to_8_bits(image, levels or {})
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
        if deep_colour and 0 < max(high for _, high in image.getextrema()) < 16:
            raise UnknownRange  # PIL has kept the upper 8 of 16 bits, of values that have no more than 12
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BICUBIC, box)
        return np.asarray(image if turn is None else image.transpose(turn))


def _forgive(step: Callable[[], object]) -> None:
    with suppress(Exception):  # of all the ways in which metadata may be odd, none concerns the picture
        step()


def _is_deep(image: Image.Image) -> bool:
    """Whether it is grey with more than 8 bits, which PIL would cut off above 255."""
    return image.mode[:4] in ("I;16", "I", "F")


def _to_8_bits(image: Image.Image, levels: Levels) -> Image.Image:
    mode = image.mode[:4]  # one for both orders of bytes
    black, white = _own_levels(image) or levels.get(mode) or ((0, 65535) if mode == "I;16" else (None, None))
    if white is None:
        raise UnknownRange
    values = (np.asarray(image, dtype=np.float32) - black) * (255 / (white - black))
    return Image.fromarray(np.nan_to_num(values).clip(0, 255).round().astype(np.uint8))


def _own_levels(image: Image.Image) -> tuple[float, float] | None:
    """Black and white as the file itself says: a TIFF of 12 bits, or one in 16 bits whose largest value is 2^k - 1.

    Any other MaxSampleValue is a statistic of that one picture, and PNG's sBIT speaks of values that have already been
    spread over 16 bits.
    """
    tags = getattr(image, "tag_v2", {})
    bits, most = (np.ravel(tags.get(tag, 0))[0] for tag in (ExifTags.Base.BitsPerSample, MAX_SAMPLE_VALUE))
    if image.mode[:4] == "I;16" and 0 < bits < 16:
        return 0, 2 ** int(bits) - 1
    return (0, int(most)) if image.mode[:4] == "I;16" and most > 0 and int(most) & int(most) + 1 == 0 else None


def measure_levels(paths: list[str]) -> Levels:
    """Black and white for the grey images of more than 8 bits among these that do not say it themselves.

    Whole numbers from 0 on: 0 and the first 2^k - 1 that none of them exceeds, 4095 for 12 bits. Others, as negative
    ones or fractions: the smallest and the largest. Empty if there are no such images.
    """
    with _set_up(), ThreadPoolExecutor() as pool:
        found = list(filter(None, pool.map(_extremes, paths)))
    levels: Levels = {}
    for mode in sorted({mode for mode, _, _ in found}):
        low, high = min(low for m, low, _ in found if m == mode), max(high for m, _, high in found if m == mode)
        if mode == "F" or low < 0:
            levels[mode] = low, high if high > low else low + 1
        else:
            levels[mode] = 0, 2 ** max(1, int(high).bit_length()) - 1
    return levels


def _extremes(path: str) -> tuple[str, float, float] | None:
    """(mode, smallest, largest value) of a grey image of more than 8 bits that does not say its levels."""
    with suppress(Exception), Image.open(path) as image:  # a broken one is named when it is decoded
        if _is_deep(image) and not _own_levels(image):
            values = np.asarray(image)
            values = values[np.isfinite(values)]
            return image.mode[:4], float(values.min()), float(values.max())
    return None


@dataclass(frozen=True)
class Sizes:
    """Widths and heights of image files, in pixels."""

    smallest: tuple[int, int]  # width and height, each on its own
    largest: tuple[int, int]
    shorter_side: int  # median

    def describe(self, image_size: int) -> str:
        """In words, with a hint for `Config.image_size`."""
        (narrow, low), (wide, high) = self.smallest, self.largest
        text = f"images of {narrow}×{low} pixels"
        if self.largest != self.smallest:
            text = (
                f"images of {narrow}×{low} to {wide}×{high} pixels, the shorter side {self.shorter_side} in the middle"
            )
        fitting = [side for side in (32, 48, 64, 96, 128) if image_size < side <= self.shorter_side]
        hint = f": image_size={fitting[-1]} would show it more, and take longer" if fitting else ""
        return f"{text}; the CNN sees {image_size}×{image_size}{hint}"


def measure_sizes(paths: list[str], most: int = 500) -> Sizes | None:
    """The sizes of image files, from the headers of about `most` of them, evenly spread; None if none can be read."""
    with _set_up():
        sizes = list(_sizes(paths[:: max(1, len(paths) // most)])) or list(_sizes(paths))
    if not sizes:
        return None
    smallest, largest = np.min(sizes, axis=0).tolist(), np.max(sizes, axis=0).tolist()
    return Sizes(tuple(smallest), tuple(largest), int(np.median(np.min(sizes, axis=1))))


def _sizes(paths: list[str]) -> Iterator[tuple[int, int]]:
    for path in paths:
        with suppress(Exception), Image.open(path) as image:  # a broken one is named when it is decoded
            yield image.size


def decode(
    paths: list[str],
    size: int,
    images: Tensor | None = None,
    *,
    levels: Levels | None = None,
    say: Callable[[str], object] = print,
    workers: int | None = None,
) -> tuple[Tensor, dict[int, str]]:
    """Read many image files with all processor cores.

    Args:
        images: uint8 N×3×size×size zeros to be filled; None: new ones.
        levels: see `read_image`.
        say: see `Progress`.
        workers: threads; None: as many as suit all cores.

    Returns:
        images: zeros where a file could not be read.
        failures: row -> why, for those files.
    """
    if images is None:
        images = torch.zeros(len(paths), 3, size, size, dtype=torch.uint8)
    failures, mended, progress = {}, [], Progress("  decoding", len(paths), "images", say=say)
    with progress, _set_up(), ThreadPoolExecutor(workers) as pool:  # PIL decodes outside the interpreter lock
        # Some at a time: `map` runs ahead as far as it can, and pixels that nobody has put away yet fill the memory.
        parts = (paths[start : start + AHEAD] for start in range(0, len(paths), AHEAD))
        decoded = (result for part in parts for result in pool.map(partial(_try, size=size, levels=levels), part))
        for i, (pixels, problem) in enumerate(decoded):
            if pixels is None:
                failures[i] = problem
            else:
                images[i] = torch.tensor(pixels).permute(2, 0, 1)  # S×S×3 -> 3×S×S
                mended += [paths[i]] if problem else []
            progress.update(i + 1)
    if mended:
        named = some(Path(path).name for path in mended)
        say(f"  JPEG files without their last bytes, which are next to nothing of the picture, are read: {named}")
    return images, failures


@contextmanager
def _set_up() -> Iterator[None]:
    """PIL as it is to be here, while files are read: it knows HEIC, and refuses what would exhaust the memory."""
    with suppress(ImportError):
        from pillow_heif import register_heif_opener  # not a requirement

        register_heif_opener()
    limits = [(Image, "MAX_IMAGE_PIXELS", MOST_PIXELS)]
    limits += [(PngImagePlugin, name, most) for name, most in MOST_TEXT.items()]
    before = [(module, name, getattr(module, name)) for module, name, _ in limits]
    try:
        for limit in limits:
            setattr(*limit)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        for limit in before:
            setattr(*limit)


def _try(path: str, size: int, levels: Levels | None) -> tuple[np.ndarray | None, str | None]:
    """(pixels, None), or (None, in a word or two why there are none), or (pixels, what was wrong all the same)."""
    try:
        try:
            return read_image(path, size, levels), None
        except OSError as error:
            # An OSError of no special kind, with no number of the system's: PIL says that bytes are missing.
            missing = type(error) is OSError and error.strerror is None
            if missing and (pixels := _read_without_end(path, size)) is not None:
                return pixels, "it lacks its end"
            raise
    except UnidentifiedImageError:
        return None, _unidentified(path)
    except UnknownRange:
        return None, "levels of unknown range: save it with 8 bits"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None, f"over {MOST_PIXELS / 1e6:,.0f} million pixels: make it smaller"
    except MemoryError:
        return None, "too large for this machine's memory"
    except Exception as error:  # PIL raises what it likes on damaged files: OSError, SyntaxError, ValueError, …
        if re.search("Ghostscript|cannot find loader", str(error)):  # a format that PIL knows only by name
            with Image.open(path) as image:
                return None, _CONVERT.format(image.format)
        return None, (error.strerror if isinstance(error, OSError) else None) or "damaged"


def _read_without_end(path: str, size: int) -> np.ndarray | None:
    """The pixels of a JPEG that lacks its last bytes; None if it is none, or if they are more than a few.

    It is read with noise in place of what may be missing, and with nothing: how far the two differ is how far the
    picture hangs on it.
    """
    data = Path(path).read_bytes().rstrip(b"\xff")
    if not data.startswith(b"\xff\xd8") or not _has_all_scans(data):
        return None
    noise = np.random.default_rng(0).integers(0, 255, len(data), dtype=np.uint8).tobytes()  # 255 would begin a marker

    def read(more: bytes, size: int) -> np.ndarray:
        with Image.open(BytesIO(data + more + b"\xff\xd9")) as image:
            return _square(image, size, None)

    difference = np.abs(np.subtract(read(b"", 256), read(noise, 256), dtype=np.int16))  # the same for every `size`
    return read(b"", size) if difference.mean() <= MISSING else None


def _has_all_scans(data: bytes) -> bool:
    """Whether the scans of a JPEG, were they complete, bring all bits of all coefficients: noise begins no scan."""
    missing, at = {(0, 0): 1}, 2  # (component, coefficient) -> bits of it that no scan has brought
    while at + 4 <= len(data):
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        segment, at = data[at + 4 : end], end
        if marker in range(0xC0, 0xD0) and marker not in (0xC4, 0xC8, 0xCC):  # a frame, which lists the components
            missing = {(component, k): 1 for component in segment[6 : 6 + 3 * segment[5] : 3] for k in range(64)}
        elif marker == 0xDA:  # a scan
            first, last, bits = segment[1 + 2 * segment[0] :]
            components = segment[1 : 1 + 2 * segment[0] : 2]
            missing |= {(component, k): bits % 16 for component in components for k in range(first, last + 1)}
            following = _NEXT_MARKER.search(data, at)
            at = following.start() if following else len(data)
    return not any(missing.values())


def _unidentified(path: str) -> str:
    """What to say of a file that PIL does not open."""
    with open(path, "rb") as file:
        head = file.read(1024)
    if not head:
        return "empty"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC:
        return "damaged" if "HEIF" in Image.OPEN else "HEIC: pip install pillow-heif"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return "damaged" if "AVIF" in Image.OPEN else "AVIF: pip install -U pillow"
    named = (what for offset, start, what in _SIGNATURES if head[offset:].startswith(start))
    return next(named, _CONVERT.format("SVG") if b"<svg" in head else "not an image")
