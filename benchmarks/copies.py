"""Copies of eight kinds, constructed from an image: what a finder of copies is tried on."""

from collections.abc import Callable, Mapping
from io import BytesIO

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Make = Callable[[Image.Image], Image.Image]


def _recompressed(image: Image.Image) -> Image.Image:
    packed = BytesIO()
    image.save(packed, "JPEG", quality=30)
    return Image.open(packed).convert("RGB")


def _darker(image: Image.Image) -> Image.Image:
    return ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(0.7)).enhance(0.7)


def _part(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """A part of it, in shares of its sides, as large as the whole."""
    side = image.width
    box = (left * side, top * side, right * side, bottom * side)
    return image.resize(image.size, Image.Resampling.BICUBIC, box)


def _shifted(image: Image.Image) -> Image.Image:
    """By a tenth of the side; what comes in repeats the edge."""
    by = max(1, round(image.width / 10))
    moved = image.transform(image.size, Image.Transform.AFFINE, (1, 0, by, 0, 1, 0))
    edge = image.crop((image.width - 1, 0, image.width, image.height))
    moved.paste(edge.resize((by, image.height)), (image.width - by, 0))
    return moved


KINDS: Mapping[str, Make] = {
    "shifted by 10 %": _shifted,
    "cropped to 85 %": lambda image: _part(image, 0.1, 0.05, 0.95, 0.9),
    "JPEG, quality 30": _recompressed,
    "mirrored": ImageOps.mirror,
    "darker, less contrast": _darker,
    "turned by 7°": lambda image: _part(image.rotate(7, Image.Resampling.BICUBIC), 0.06, 0.06, 0.94, 0.94),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(image.width / 32)),
    "half as large and back": lambda image: image.resize((image.width // 2,) * 2).resize(image.size),
}
