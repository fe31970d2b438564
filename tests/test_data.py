"""Data: any ImageFolder in, exact pixels and disjoint stratified splits out. Refusals: test_folders.py."""

import os

import numpy as np
import pytest
import torch
from conftest import SMALL, refuse
from PIL import Image

from hw1_utils.data import Samples, _generator, at_side, pixel_statistics
from hw1_utils.experiment import load, load_test
from hw1_utils.io import pixels
from hw1_utils.io.arrays import Room, Rows


def load_train_val(config):
    data = load(config)
    return data.train, data.val


def images_of_test(config):
    return load_test(load(config))


def test_split_is_stratified_disjoint_and_seeded(make_smoke_config):
    train, val = load_train_val(make_smoke_config())
    assert (len(train), len(val)) == (108, 12)
    assert set(train.counts().values()) == {36} and set(val.counts().values()) == {4}
    assert not set(train.paths) & set(val.paths) and len(set(train.paths + val.paths)) == 120
    assert load_train_val(make_smoke_config())[1].paths == val.paths
    assert load_train_val(make_smoke_config(seed=1))[1].paths != val.paths


def test_sizes_that_do_not_fit_become_a_tenth_for_validation(make_smoke_config, capsys):
    train, val = load_train_val(make_smoke_config(train_size=500, val_size=100))
    assert (len(train), len(val)) == (108, 12) and "has 120 images to train on: all are used" in capsys.readouterr().out


def test_labels_and_pixels_are_those_of_the_files(make_smoke_config, toy_folder):
    test = images_of_test(make_smoke_config())
    assert len(test) == 30 and test.images.values.dtype == torch.uint8 and test.labels.dtype == torch.int64
    for path, label, image in zip(test.paths, test.labels, test.images.values, strict=True):
        assert path.split("/")[1] == test.classes[label]
        with Image.open(toy_folder / path) as file:
            assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(file))


def test_part_of_the_test_set_is_stratified(make_smoke_config):
    assert set(images_of_test(make_smoke_config(test_size=15)).counts().values()) == {5}


def test_a_class_of_a_few_images_is_still_there_to_train_on(make_smoke_config, toy_folder):
    for path in sorted((toy_folder / "train" / "colour_2").iterdir())[2:]:
        path.unlink()
    train, val = load_train_val(make_smoke_config(train_size=20, val_size=10))
    assert len(train) == 20 and len(val) == 10 and train.counts()["colour_2"] >= 1
    assert not set(train.paths) & set(val.paths)


def test_second_load_decodes_nothing_until_a_file_changes(make_smoke_config, toy_folder, monkeypatch):
    first = images_of_test(make_smoke_config())
    monkeypatch.setattr(pixels, "decode", refuse)
    assert torch.equal(images_of_test(make_smoke_config()).images.values, first.images.values)
    os.utime(toy_folder / first.paths[0], (0, 0))  # another time, as of a file of the same size with other pixels
    with pytest.raises(AssertionError, match="on disk already"):
        images_of_test(make_smoke_config())


def test_another_rule_of_reading_is_another_cache(make_smoke_config, monkeypatch):
    images_of_test(make_smoke_config())
    monkeypatch.setattr(pixels, "READING", pixels.READING + 1)
    monkeypatch.setattr(pixels, "decode", refuse)
    with pytest.raises(AssertionError, match="on disk already"):
        images_of_test(make_smoke_config())


@pytest.fixture
def deep_folder(toy_folder):
    """The toy images as grey ones of 12 bits in files of 16; those of the test are darker."""
    for path in toy_folder.glob("*/*/*.png"):
        with Image.open(path) as image:
            values = np.asarray(image.convert("L")).astype(np.uint16) * (16 if "train" in path.parts else 4)
        Image.fromarray(values).save(path)
    return toy_folder


def test_twelve_bits_have_one_range_in_all_parts_which_is_said(make_smoke_config, deep_folder, capsys, monkeypatch):
    data = load(make_smoke_config())
    train, val, test = data.train, data.val, load_test(data)
    said = "  in grey images of more than 8 bits 0 is black and 4,095 white, going by images to train on\n"
    assert capsys.readouterr().out.count(f"colour_2\n{said}") == 1
    assert train.levels == val.levels == test.levels == {"I;16": (0, 4095)}
    for split, largest in ((train, 4095), (val, 4095), (test, 4095)):
        with Image.open(deep_folder / split.paths[0]) as image:
            expected = np.asarray(image) / largest * 255
        np.testing.assert_allclose(split.images.values[0, 1], expected, atol=0.51)
    larger = at_side(test, 48, data.context)
    assert abs(larger.images.values.float().mean() - test.images.values.float().mean()) < 1
    monkeypatch.setattr(pixels, "measure_levels", refuse)  # once is enough
    monkeypatch.setattr(pixels, "decode", refuse)
    assert torch.equal(images_of_test(make_smoke_config()).images.values, test.images.values)


def test_another_range_is_another_cache(make_smoke_config, deep_folder):
    config = make_smoke_config()
    before = images_of_test(config).images.values.float().mean()
    for path in deep_folder.glob("train/*/*.png"):
        Image.fromarray(np.full((32, 32), 1000, np.uint16)).save(path)
    assert images_of_test(config).images.values.float().mean() > 3 * before  # 1,023 is white now


def test_other_image_size_is_another_cache(make_smoke_config):
    assert images_of_test(make_smoke_config()).images.values.shape[-1] == 32
    assert images_of_test(make_smoke_config(image_size=16)).images.values.shape[-1] == 16


def test_damaged_cache_is_made_anew(make_smoke_config, capsys):
    config = make_smoke_config()
    first = images_of_test(config).images.values.clone()
    for cache in config.cache_path.glob("*.npy"):
        cache.write_bytes(cache.read_bytes()[:-10])
    assert torch.equal(images_of_test(config).images.values, first)
    assert capsys.readouterr().out.count("is damaged") == 3  # train, val and test


def test_a_disk_without_room_for_the_cache_costs_a_warning(make_smoke_config, monkeypatch, capsys):
    def full(*args):
        raise OSError(28, "No space left on device")

    config = make_smoke_config()
    expected = images_of_test(config).images.values.clone()
    for file in config.cache_path.iterdir():
        file.unlink()
    monkeypatch.setattr("hw1_utils.io.arrays.os.posix_fallocate", full)
    assert torch.equal(images_of_test(config).images.values, expected)
    assert "Not cached, the run goes on" in capsys.readouterr().out and not list(config.cache_path.glob("images*"))


@pytest.mark.parametrize("name", ["toy", "long" * 63])  # with .cache behind it no name any more
def test_a_cache_that_can_never_be_costs_a_warning(make_smoke_config, toy_folder, capsys, name):
    toy_folder.with_name("toy.cache").touch()  # a file
    config = make_smoke_config(data_dir=str(toy_folder.rename(toy_folder.with_name(name))), **SMALL)
    assert len(load(config).train) == 108
    # Three parts, and before that train and val among which copies are looked for.
    assert capsys.readouterr().out.count("Not cached, the run goes on") == 5


def test_unreadable_files_leave_no_gap_and_are_named_again_by_the_next_run(make_smoke_config, toy_folder, capsys):
    whole = images_of_test(make_smoke_config())
    for path in (whole.paths[0], whole.paths[17]):
        (toy_folder / path).write_bytes(b"?")
    good = [i for i in range(30) if i not in (0, 17)]
    for _ in range(2):
        test = images_of_test(make_smoke_config(skip_unreadable=True))
        assert torch.equal(test.images.values, whole.images.values[good]) and test.paths == [
            whole.paths[i] for i in good
        ]
        assert torch.equal(test.labels, whole.labels[good])
        assert "2 files: test/colour_0/00000.png (not an image)" in capsys.readouterr().out


def test_larger_images_come_from_the_files(make_smoke_config, toy_folder):
    expected, data = images_of_test(make_smoke_config()), load(make_smoke_config(image_size=16))
    small = load_test(data)
    larger = at_side(small, 32, data.context)
    assert torch.equal(larger.images.values, expected.images.values) and larger.paths == small.paths
    assert at_side(small, 32, data.context) is larger and at_side(small, 16, data.context) is small


def test_only_what_finds_no_room_is_streamed(make_smoke_config):
    test, cpu = images_of_test(make_smoke_config()), torch.device("cpu")
    room = Room(test.images.values.nbytes + 1)  # for all arrays together
    assert [test.to(cpu, room).images.streamed for _ in range(2)] == [False, True]


def test_a_part_shares_the_pixels_of_its_split(make_smoke_config):
    test = images_of_test(make_smoke_config())
    part = test.subset(torch.tensor([3, 1, 20])).subset(torch.tensor([2, 0]))
    assert part.images.values.data_ptr() == test.images.values.data_ptr() and part.paths == [
        test.paths[20],
        test.paths[3],
    ]
    assert len(part) == 2 and part.counts() == {"colour_0": 1, "colour_1": 0, "colour_2": 1}
    for rows in (slice(None), slice(0, 9), torch.tensor([0, 1])):
        assert torch.equal(part.take(rows), test.images.values[[20, 3]])
    assert len({split.sha256 for split in (test, part, test.subset(torch.tensor([3, 20])))}) == 3


def test_statistics_are_over_all_pixels():
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 1] //= 2
    exact = images.double().numpy() / 255
    mean, std = pixel_statistics(images)
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, exact.std((0, 2, 3)), rtol=1e-6)


def test_a_constant_channel_can_be_normalised():
    assert pixel_statistics(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))[1].tolist() == pytest.approx([1 / 255] * 3)


# ---- batches


def as_they_are(inputs, generator):
    return inputs


def samples(part=None, streamed=False, transform=as_they_are, seed=0):
    """Of each row the target is twice the input."""
    inputs = torch.arange(103)
    targets = 2 * (inputs if part is None else part)
    return Samples(Rows(inputs, streamed, part), targets, transform, seed)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("part", [None, torch.tensor([7, 100, 3, 50, 51])], ids=["all", "part"])
def test_batches_hold_every_row_once_in_an_order_set_by_seed_and_epoch(part, streamed):
    rows = torch.arange(103) if part is None else part

    def order(epoch, seed=0):
        batches = list(samples(part, streamed, seed=seed).batches(2, epoch))
        assert [len(x) for x, _ in batches] == [2] * (len(rows) // 2) + [1]
        assert all(torch.equal(2 * x, y) for x, y in batches)
        return torch.cat([x for x, _ in batches]).tolist()

    assert order(None) == rows.tolist() == torch.cat([x for x, _ in samples(part, streamed).in_order()]).tolist()
    assert order(1) == order(1) and sorted(order(1)) == sorted(rows.tolist())
    assert _generator(0, 1, "order").initial_seed() != _generator(0, 1, "augmentation").initial_seed()
    assert len({tuple(order(epoch, seed)) for epoch, seed in ((None, 0), (1, 0), (2, 0), (1, 1))}) == 4
    assert torch.equal(samples(part, streamed).inputs[1:4], rows[1:4])


def test_augmentation_is_drawn_in_training_alone_and_set_by_seed_and_epoch():
    def noisy(inputs, generator):
        return inputs * 0 if generator is None else torch.rand(len(inputs), generator=generator)

    def drawn(seed, epoch):
        return torch.cat([x for x, _ in samples(transform=noisy, seed=seed).batches(10, epoch)])

    assert not drawn(0, None).any() and torch.equal(drawn(1, 2), drawn(1, 2))
    assert len({drawn(seed, epoch).numpy().tobytes() for seed in range(5) for epoch in range(1, 51)}) == 250


@pytest.mark.parametrize(("side", "most"), [(32, 512), (64, 512), (256, 64), (512, 16)])
def test_large_images_are_evaluated_a_few_at_a_time(side, most):
    images = torch.zeros(600, 3, 1, 1, dtype=torch.uint8).expand(-1, -1, side, side)
    inputs, _ = next(Samples(Rows(images), torch.zeros(600), as_they_are).in_order())
    assert len(inputs) == most
