"""Any image file becomes the upright RGB square a person would expect; what cannot be read says why."""

import numpy as np
import pytest
from PIL import Image

from hw1_utils import images as module
from hw1_utils.images import decode, measure_sizes, read_image

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def save(path, image, **options):
    image.save(path, **options)
    return str(path)


def left_and_right(left=RED, right=BLUE, mode="RGB", size=(32, 32)):
    """A picture of two halves."""
    image = Image.new(mode, size, right)
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    return image


def colours(pixels):
    """The middle of the left and of the right half."""
    middle, quarter = pixels.shape[0] // 2, pixels.shape[1] // 4
    return tuple(pixels[middle, quarter].tolist()), tuple(pixels[middle, 3 * quarter].tolist())


def test_an_rgb_file_of_the_right_size_is_its_pixels(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(read_image(save(tmp_path / "x.png", Image.fromarray(noise)), 32), noise)


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.gif", "x.tiff", "x.webp", "x.jpg"])
def test_formats(tmp_path, name):
    pixels = read_image(save(tmp_path / name, left_and_right()), 32)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
    np.testing.assert_allclose(colours(pixels), (RED, BLUE), atol=6)  # two of them are lossy


def test_grey_in_8_and_1_bits(tmp_path):
    assert colours(read_image(save(tmp_path / "l.png", left_and_right(77, 200, "L")), 32)) == ((77,) * 3, (200,) * 3)
    assert colours(read_image(save(tmp_path / "1.png", left_and_right(0, 255, "1")), 32)) == ((0,) * 3, WHITE)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_grey_in_16_bits_is_scaled_not_cut_off(tmp_path, suffix):
    values = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (32, 1))
    pixels = read_image(save(tmp_path / f"x.{suffix}", Image.fromarray(values)), 32)
    assert np.array_equal(pixels[0, :, 0], np.round(values[0] / 257).astype(np.uint8))
    assert (pixels == pixels[..., :1]).all()


def test_palette(tmp_path):
    image = left_and_right().convert("P", palette=Image.Palette.ADAPTIVE)
    assert colours(read_image(save(tmp_path / "x.png", image), 32)) == (RED, BLUE)


def test_cmyk(tmp_path):
    pixels = read_image(save(tmp_path / "x.tiff", left_and_right().convert("CMYK")), 32)
    assert colours(pixels) == (RED, BLUE)


def test_transparency_is_laid_on_white_and_never_shows_what_is_under_it(tmp_path):
    clear, half = (255, 0, 0, 0), (0, 0, 255, 128)
    pixels = read_image(save(tmp_path / "rgba.png", left_and_right(clear, half, "RGBA")), 32)
    np.testing.assert_allclose(colours(pixels), (WHITE, (127, 127, 255)), atol=1)
    pixels = read_image(save(tmp_path / "la.png", left_and_right((0, 0), (50, 255), "LA")), 32)
    assert colours(pixels) == (WHITE, (50, 50, 50))
    palette = left_and_right().convert("P", palette=Image.Palette.ADAPTIVE)
    transparent = palette.getpixel((0, 0))
    assert colours(read_image(save(tmp_path / "p.png", palette, transparency=transparent), 32)) == (WHITE, BLUE)


@pytest.mark.parametrize(
    ("orientation", "expected"), [(1, (RED, BLUE)), (2, (BLUE, RED)), (3, (BLUE, RED)), (6, None), (8, None)]
)
def test_exif_orientation_is_obeyed(tmp_path, orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read_image(save(tmp_path / "x.png", left_and_right(), exif=exif), 32)
    if expected is None:  # a quarter turn: left and right become top and bottom
        top, bottom = colours(pixels.transpose(1, 0, 2))
        expected = (RED, BLUE) if orientation == 6 else (BLUE, RED)
        assert (top, bottom) == expected
    else:
        assert colours(pixels) == expected


def test_any_size_becomes_the_square_asked_for(tmp_path):
    for size in ((1, 1), (7, 100), (500, 20), (1500, 1200)):
        pixels = read_image(save(tmp_path / "x.png", left_and_right(size=size)), 16)
        assert pixels.shape == (16, 16, 3)


def test_the_first_frame_of_an_animation_counts(tmp_path):
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE)]
    path = save(tmp_path / "x.gif", frames[0], save_all=True, append_images=frames[1:])
    assert colours(read_image(path, 32)) == (RED, RED)


def test_names_may_be_long_and_in_any_script(tmp_path):
    name = "картинка 図 🦊 " + "x" * 200 + ".png"
    assert colours(read_image(save(tmp_path / name, left_and_right()), 32)) == (RED, BLUE)


def test_sizes_are_described_with_a_hint(tmp_path):
    paths = [
        save(tmp_path / f"{i}.png", Image.new("L", size)) for i, size in enumerate([(40, 30), (200, 100), (90, 300)])
    ]
    (tmp_path / "bad.png").write_bytes(b"?")
    sizes = measure_sizes([*paths, str(tmp_path / "bad.png")])
    assert sizes.shorter_side == 90
    assert sizes.describe(32) == (
        "images of 40×30 to 200×300 pixels, the shorter side 90 in the middle; the CNN sees 32×32: image_size=64 would "
        "show it more, and take longer"
    )
    assert sizes.describe(64).endswith("the CNN sees 64×64")


def test_decode_keeps_the_order_and_says_what_is_wrong_with_the_rest(tmp_path, monkeypatch):
    good = (tmp_path / "good.png", left_and_right())
    paths = [save(tmp_path / "grey.png", Image.new("L", (32, 32), 9)), save(*good)]
    data = (tmp_path / "good.png").read_bytes()
    bad = {
        "empty.png": b"",
        "text.txt": b"not an image",
        "half.png": data[: len(data) // 2],
        "header.png": data[:11] + b"\x05" + data[12:],  # PIL raises ValueError, not OSError
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        paths.append(str(tmp_path / name))
    paths.append(save(tmp_path / "huge.png", Image.new("1", (3000, 3000))))
    paths.append(save(tmp_path / "enormous.png", Image.new("1", (5000, 5000))))
    paths.append(save(tmp_path / "float.tiff", Image.new("F", (32, 32), 0.5)))
    monkeypatch.setattr(module, "MOST_PIXELS", 5_000_000)
    images, failures = decode(paths, 32)
    reasons = ["not an image", "not an image", "damaged", "damaged", *["over 5 million pixels: make it smaller"] * 2]
    reasons.append("grey levels of unknown range")
    assert failures == dict(enumerate(reasons, start=2))
    assert images.shape == (9, 3, 32, 32) and (images[0] == 9).all() and (images[2:] == 0).all()
    assert images[1, :, 16, 8].tolist() == list(RED)


def test_long_decoding_tells_rate_and_remaining_time(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PROGRESS_S", 0)
    lines = []
    decode([save(tmp_path / "x.png", left_and_right())] * 3, 32, say=lines.append)
    assert len(lines) == 3 and lines[-1].startswith("  decoded 3 of 3 (") and lines[-1].endswith(" images/s, 0 s left)")
