"""Any image file becomes the upright RGB square a person would expect; what cannot be read says why."""

import struct
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from packaging.version import Version
from PIL import EpsImagePlugin, Image, PngImagePlugin
from sklearn.datasets import load_sample_image

from hw1_utils.io import images as module
from hw1_utils.io import progress
from hw1_utils.io.images import decode, measure_levels, measure_sizes, read_image

CONVERT = "{}, which is not read here: convert it to PNG or JPEG"
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


@pytest.fixture(scope="module")
def photo():
    """A real photograph, 640×427."""
    return Image.fromarray(load_sample_image("china.jpg"))


def exif(orientation, *entries):
    """EXIF bytes of the orientation and further entries: (tag, type, count, value or offset)."""
    entries = [(0x0112, 3, 1, orientation), *entries]
    return (
        b"Exif\0\0II*\0\x08\0\0\0"
        + struct.pack("<H", len(entries))
        + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        + bytes(64)
    )


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


@pytest.mark.parametrize(
    ("dtype", "smallest", "largest", "levels"),
    [
        (np.uint16, 0, 3000, {"I;16": (0, 4095)}),  # 12 bits, as of X-rays
        (np.uint16, 0, 60_000, {"I;16": (0, 65535)}),
        (">u2", 9, 1000, {"I;16": (0, 1023)}),
        (np.int32, -1000, 2000, {"I": (-1000, 2000)}),
        (np.int32, 0, 2**20, {"I": (0, 2**21 - 1)}),
        (np.float32, 0.25, 0.75, {"F": (0.25, 0.75)}),
    ],
)
def test_more_than_8_bits_are_read_between_levels_that_the_images_give(tmp_path, dtype, smallest, largest, levels):
    values = np.tile(np.linspace(smallest, largest, 32), (32, 1))
    paths = [save(tmp_path / f"{i}.tiff", Image.fromarray((values / i).astype(dtype))) for i in (1, 2)]
    paths.append(save(tmp_path / "8.png", Image.new("L", (32, 32), 255)))  # which has no say in it
    assert measure_levels(paths if smallest >= 0 and dtype != np.float32 else paths[::2]) == levels
    images, failures = decode(paths[::2], 32, levels=levels)
    ((black, white),) = levels.values()
    expected = (values.astype(dtype).astype(float)[0] - black) / (white - black) * 255
    assert not failures and (images[1] == 255).all()
    np.testing.assert_allclose(images[0, 0, 0], expected, atol=0.51)


def test_a_value_that_is_no_number_is_black(tmp_path):
    values = np.tile(np.float32([0, 1, np.nan, np.inf]), (4, 1))
    path = save(tmp_path / "x.tiff", Image.fromarray(values))
    assert measure_levels([path]) == {"F": (0, 1)}
    assert read_image(path, 4, {"F": (0, 1)})[0, :, 0].tolist() == [0, 255, 0, 255]


@pytest.mark.parametrize(("most", "white"), [(4095, 4095), (3000, 65535)])  # 3000 is but what is largest in this one
def test_a_file_that_says_its_range_is_taken_at_its_word(tmp_path, most, white):
    image = Image.fromarray(np.full((8, 8), 2000, np.uint16))
    path = save(tmp_path / "x.tiff", image, tiffinfo={module.MAX_SAMPLE_VALUE: most})
    assert read_image(path, 8)[0, 0, 0] == round(2000 / white * 255)
    assert measure_levels([path]) == ({} if most == white else {"I;16": (0, 2047)})


def test_twelve_bits_in_colours_of_sixteen_are_refused_not_shown_black(tmp_path):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    for value, reason in ((4095, {0: "levels of unknown range: save it with 8 bits"}), (65535, {}), (0, {})):
        rows = (b"\0" + np.full(8 * 3, value, ">u2").tobytes()) * 8
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
        data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        (tmp_path / "x.png").write_bytes(data)
        images, failures = decode([str(tmp_path / "x.png")], 8)
        assert failures == reason and (images == (255 if value == 65535 else 0)).all()


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


@pytest.mark.parametrize(
    "odd",
    [
        (0x011A, 2, 1, 0x41),  # a resolution in letters
        (0x0102, 4, 1, 70_000),  # bits a sample that no 16 bits hold
        (0x010F, 11, 1, 0x7FC00000),  # a camera's name that is no number
        (0x02BC, 4, 1, 300),  # XMP that is a number
        (0x8769, 9, 1, 0xFFFFFFFF),  # the rest lies before the beginning
        (0x010F, 2, 2**31, 8),  # a name of two gigabytes
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_no_other_tag_of_exif_fails_a_picture_or_hides_its_orientation(tmp_path, odd, suffix):
    if suffix == "tiff" and odd[2] == 2**31 and Version(PIL.__version__) < Version("13"):
        pytest.skip("an older Pillow reads no tag at all of such a TIFF")
    path = save(tmp_path / "x.jpg", left_and_right(size=(64, 32)), exif=exif(6, odd), quality=95)
    if suffix == "tiff":  # whose tags are EXIF's
        entries = [(256, 3, 1, 64), (257, 3, 1, 32), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 512)]
        entries += [(274, 3, 1, 6), (277, 3, 1, 1), (278, 3, 1, 32), (279, 4, 1, 64 * 32)]
        entries = sorted([entry for entry in entries if entry[0] != odd[0] or odd[0] == 258] + [odd] * (odd[0] != 258))
        ifd = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        pixels = np.asarray(left_and_right(250, 5, "L", (64, 32))).tobytes()
        (tmp_path / "x.jpg").write_bytes((b"II*\0\x08\0\0\0" + ifd).ljust(512, b"\0") + pixels)
    top, bottom = colours(decode([path], 32)[0][0].permute(2, 1, 0).numpy())
    assert top[0] > 240 and bottom[0] < 15


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
    bad = str(tmp_path / "bad.png")
    assert measure_sizes([bad, *paths], most=1) == sizes and measure_sizes([bad]) is None


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_is_decoded_by_draft_and_differs_little_from_the_whole(tmp_path, photo, monkeypatch, mode):
    sizes, seen = [(1600, 1067), (1237, 911), (1601, 529), (640, 427)], []
    for i, size in enumerate(sizes):
        noise = np.random.default_rng(i).normal(0, 5, (*size[::-1], 1))
        image = Image.fromarray((photo.resize(size) + noise).clip(0, 255).astype(np.uint8)).convert(mode)
        path = save(tmp_path / "x.jpg", image, exif=exif(i + 5))
        for side in (32, 64, 224):
            with monkeypatch.context() as patch:
                quick = read_image(path, side)
                patch.setattr(module, "DRAFT", 1000)
                whole = read_image(path, side)
            seen.append(np.abs(np.subtract(quick, whole, dtype=float)).mean())
            assert (seen[-1] == 0) == (min(size) < 4 * side)
    assert max(seen) < 0.7 and np.mean([difference for difference in seen if difference]) < 0.5


def test_a_photograph_of_108_million_pixels_is_read(tmp_path, monkeypatch):
    path = save(tmp_path / "x.jpg", left_and_right(0, 255, "L", (12_000, 9_000)))
    assert Image.MAX_IMAGE_PIXELS < 108e6  # PIL by itself warns of it
    images, failures = decode([path], 32)
    assert not failures and images[0, 0, 16, [8, 24]].tolist() == [0, 255]
    assert measure_sizes([path]).largest == (12_000, 9_000)


def test_of_large_pictures_one_is_in_memory_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGE", 1000)
    paths = [save(tmp_path / f"{i}.png", Image.new("RGB", (40, 40), (i, i, i))) for i in range(20)]
    at_work, most, convert = [], [], Image.Image.convert

    def slow(self, *args):
        at_work.append(self)
        most.append(len(at_work))
        time.sleep(0.002)
        return convert(at_work.pop(), *args)

    monkeypatch.setattr(Image.Image, "convert", slow)
    images, failures = decode(paths, 8)
    assert max(most) == 1 and not failures and images[:, 0, 0, 0].tolist() == list(range(20))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_last_bytes_is_read_and_said_but_not_half_of_one(tmp_path, photo, progressive):
    whole = tmp_path / "whole.jpg"
    photo.save(whole, progressive=progressive)
    data, paths, said = whole.read_bytes(), [str(whole)], []
    for lost in (1, 2, 20, len(data) // 10 if not progressive else len(data) // 2):
        paths.append(str(tmp_path / f"{lost}.jpg"))
        (tmp_path / f"{lost}.jpg").write_bytes(data[:-lost])
    for side in (32, 224):
        images, failures = decode(paths, side, say=said.append)
        assert failures == {4: "damaged"}
        assert all((images[i].float() - images[0]).abs().mean() < 1 for i in (1, 2, 3))
    named = "JPEG files without their last bytes, which are next to nothing of the picture, are read: "
    assert said == [f"  {named}1.jpg, 2.jpg, 20.jpg"] * 2


DAMAGED = {name: {} for name in ("png", "gif", "jpg", "pcx")}
DAMAGED |= {f"{name}.tif": {"compression": name} for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits")}


@pytest.mark.parametrize(("name", "options"), DAMAGED.items(), ids=DAMAGED)
def test_a_file_damaged_in_its_middle_is_never_read_in_part(tmp_path, name, options):
    ramp = (np.indices((256, 256)).sum(0) % 256).astype(np.uint8)
    path = tmp_path / f"x.{name}"
    data = bytearray(Path(save(path, Image.fromarray(ramp).convert("RGB"), **options)).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff" * 40
    path.write_bytes(data)
    assert decode([str(path)], 32)[1] == {0: "damaged"}


def test_a_png_may_have_a_large_colour_profile_and_large_texts(tmp_path):
    texts = PngImagePlugin.PngInfo()
    for i in range(3):
        texts.add_text(f"note {i}", "x" * 2**25, zip=True)
    path = save(tmp_path / "x.png", left_and_right(), icc_profile=bytes(2**22), pnginfo=texts)
    images, failures = decode([path], 32)
    assert not failures and colours(images[0].permute(1, 2, 0).numpy()) == (RED, BLUE)


def test_heic_is_read_where_pillow_heif_is_there_and_else_the_way_to_it_is_named(tmp_path, photo, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    Image.init()  # all formats are there to be taken away
    heif.register_heif_opener()
    path = save(tmp_path / "IMG_0001", photo, format="HEIF")
    expected = np.asarray(photo.resize((64, 64), Image.Resampling.BICUBIC), dtype=float)
    assert np.abs(decode([path], 64)[0][0].permute(1, 2, 0).numpy() - expected).mean() < 2
    (tmp_path / "cut").write_bytes((tmp_path / "IMG_0001").read_bytes()[:2000])
    assert decode([str(tmp_path / "cut")], 64)[1] == {0: "damaged"}
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    for name in ("HEIF", "AVIF"):
        monkeypatch.delitem(Image.OPEN, name)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name not in ("HEIF", "AVIF")])
    (tmp_path / "x").write_bytes(b"\0\0\0\x1cftypavif")
    reasons = {0: "HEIC: pip install pillow-heif", 1: "AVIF: pip install -U pillow"}
    assert decode([path, str(tmp_path / "x")], 64)[1] == reasons


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", CONVERT.format("EPS")),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), CONVERT.format("HDF5")),
        (b"\xff\xd8\xff\xe0??", "damaged"),
        (b"\x89PNG\r\n\x1a\n????", "damaged"),
        (b"II*\0????", "damaged, or a TIFF of a rare kind"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", CONVERT.format("JPEG XL")),
        (bytes(128) + b"DICM", CONVERT.format("DICOM")),
        (b'<?xml version="1.0"?><svg/>', CONVERT.format("SVG")),
        (b"version https://git-lfs.github.com/spec/v1\noid", "only a pointer to it: git lfs pull"),
        (b"<!doctype html><title>Not found</title>", "not an image"),
    ],
)
def test_not_an_image_is_said_of_what_is_none(tmp_path, monkeypatch, content, reason):
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", False)  # as if Ghostscript were not installed
    (tmp_path / "x.jpg").write_bytes(content)
    assert decode([str(tmp_path / "x.jpg")], 32)[1] == {0: reason}


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
    reasons = ["empty", "not an image", "damaged", "damaged", *["over 5 million pixels: make it smaller"] * 2]
    reasons.append("levels of unknown range: save it with 8 bits")
    assert failures == dict(enumerate(reasons, start=2))
    assert images.shape == (9, 3, 32, 32) and (images[0] == 9).all() and (images[2:] == 0).all()
    assert images[1, :, 16, 8].tolist() == list(RED)


def test_long_decoding_tells_rate_and_remaining_time(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "LOG_S", 0)
    lines = []
    decode([save(tmp_path / "x.png", left_and_right())] * 3, 32, say=lines.append)
    assert len(lines) == 3 and "decoding: 2 of 3 images, " in lines[1] and " images/s, 0 s left" in lines[1]
    assert lines[2].startswith("  decoding: 3 images in 0 s, ")
