"""Augmentation agrees with torchvision: the same boxes, and for a given box the same pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as TF

from hw1_utils import augment
from hw1_utils.augment import Augmentation, jitter, normalize, preview, resize, resized_crop, sample_boxes, shift

SIZE = 32
MEAN, STD = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count):
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator())


@pytest.mark.parametrize("size", [(96, 96), (40, 60)])
@pytest.mark.parametrize("on_a_gpu", [False, True])
def test_resize_gives_pils_pixels(size, on_a_gpu, monkeypatch):
    if on_a_gpu:  # where torchvision goes by floating point
        monkeypatch.setattr(TF._geometry, "_do_native_uint8_resize_on_cpu", lambda interpolation: False)
    images = 255 * (pictures(20) > 127).to(torch.uint8)  # nothing but hard edges
    expected = [
        Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BICUBIC) for image in images
    ]
    pixels = torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) for one in expected])
    assert (resize(images, size).int() - pixels.int()).abs().max() <= 2


def test_resized_crop_gives_torchvisions_pixels():
    extremes = [[0, 0, 32, 32], [31, 31, 1, 1], [0, 5, 1, 27], [7, 0, 25, 1], [3, 4, 5, 6]]
    boxes = torch.cat([sample_boxes(200, SIZE, generator()), torch.tensor(extremes)])
    images = pictures(len(boxes))
    ours = resized_crop(images.float(), boxes, torch.zeros(len(boxes), dtype=torch.bool))
    for image, box, out in zip(images, boxes.tolist(), ours, strict=True):
        exact = TF.resized_crop(image.float(), *box, [SIZE, SIZE], antialias=True)
        torch.testing.assert_close(out, exact, rtol=0, atol=0.02)
        rounded = TF.resized_crop(image, *box, [SIZE, SIZE], antialias=True)
        assert (out.round() - rounded.float()).abs().max() <= 1


def test_flip_is_the_mirror_image():
    images, boxes = pictures(20), sample_boxes(20, SIZE, generator())
    plain = resized_crop(images.float(), boxes, torch.zeros(20, dtype=torch.bool))
    flipped = resized_crop(images.float(), boxes, torch.ones(20, dtype=torch.bool))
    torch.testing.assert_close(flipped, plain.flip(-1), rtol=0, atol=1e-3)


def test_boxes_have_torchvisions_distribution():
    torch.manual_seed(0)
    image = torch.zeros(3, SIZE, SIZE)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(8000)])
    ours = sample_boxes(8000, SIZE, generator())
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.01, column
    inside = (ours[:, :2] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= SIZE).all() and (ours[:, 2:] > 0).all()
    assert inside


def test_shift_equals_padding_with_reflection_and_cropping():
    images = pictures(81)
    offsets = torch.cartesian_prod(torch.arange(-4, 5), torch.arange(-4, 5))
    flips = torch.arange(81) % 2 == 1
    padded = F.pad(images.float(), (4, 4, 4, 4), mode="reflect").to(torch.uint8)
    for image, (top, left), flip, out in zip(padded, offsets + 4, flips, shift(images, offsets, flips), strict=True):
        expected = image[:, top : top + SIZE, left : left + SIZE]
        assert torch.equal(out, expected.flip(-1) if flip else expected)


def test_jitter_equals_torchvisions_adjustments():
    images = pictures(20)
    factors = torch.rand(2, 20, generator=generator()) + 0.5
    for image, brightness, contrast, out in zip(images, *factors, jitter(images.float(), *factors), strict=True):
        brighter = TF.adjust_brightness(image / 255, brightness.item())
        expected = TF.adjust_contrast(brighter, contrast.item())
        torch.testing.assert_close(out / 255, expected, rtol=1e-4, atol=1e-5)


def test_every_shift_is_drawn_in_both_directions(monkeypatch):
    monkeypatch.setattr(augment, "JITTER", 0.0)
    rows = torch.arange(1, SIZE + 1, dtype=torch.uint8)[:, None].expand(SIZE, SIZE)
    image = torch.stack([rows, rows.T, rows])
    shifted = preview("shift", image.expand(4000, 3, SIZE, SIZE), seed=0)
    middle = SIZE // 2
    seen = set(zip(*(shifted[:, channel, middle, middle].tolist() for channel in (0, 1)), strict=True))
    # Nine vertical shifts; of the nine horizontal ones and their mirror images, eight coincide in the middle.
    assert len(seen) == 9 * 10


@pytest.mark.parametrize("name", ["resized_crop", "shift"])
def test_each_image_gets_its_own_and_the_seed_decides(name):
    same = pictures(1).expand(64, 3, SIZE, SIZE)
    one, again, other = (Augmentation(name, MEAN, STD)(same, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert len({image.numpy().tobytes() for image in one}) > 50


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_none_is_normalisation_alone_and_so_is_any_without_a_generator(name):
    images = pictures(5)
    expected = (images.float() / 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    for found in (Augmentation(name, MEAN, STD)(images), Augmentation("none", MEAN, STD)(images, generator())):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(normalize(images, MEAN, STD), expected, rtol=1e-5, atol=1e-5)


def test_unknown_name():
    with pytest.raises(ValueError, match="unknown augmentation 'cutout'"):
        Augmentation("cutout", MEAN, STD)
