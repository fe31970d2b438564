"""Data: any ImageFolder in, exact pixels and disjoint stratified splits out. Refusals: test_folders.py."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from hw1_utils import data
from hw1_utils.data import batches, epoch_seed, load_test, load_train_val, pixel_statistics


def refuse(*args, **kwargs):
    raise AssertionError("an image was decoded again")


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
    test = load_test(make_smoke_config())
    assert len(test) == 30 and test.images.dtype == torch.uint8 and test.labels.dtype == torch.int64
    for path, label, image in zip(test.paths, test.labels, test.images, strict=True):
        assert path.split("/")[1] == test.classes[label]
        with Image.open(toy_folder / path) as file:
            assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(file))


def test_part_of_the_test_set_is_stratified(make_smoke_config):
    assert set(load_test(make_smoke_config(test_size=15)).counts().values()) == {5}


def test_second_load_decodes_nothing_until_a_file_changes(make_smoke_config, toy_folder, monkeypatch):
    first = load_test(make_smoke_config())
    monkeypatch.setattr(data, "decode", refuse)
    assert torch.equal(load_test(make_smoke_config()).images, first.images)
    os.utime(toy_folder / first.paths[0], (0, 0))  # another time, as of a file of the same size with other pixels
    with pytest.raises(AssertionError, match="decoded again"):
        load_test(make_smoke_config())


def test_other_image_size_is_another_cache(make_smoke_config):
    assert load_test(make_smoke_config()).images.shape[-1] == 32
    assert load_test(make_smoke_config(image_size=16)).images.shape[-1] == 16


def test_damaged_cache_is_made_anew(make_smoke_config, capsys):
    config = make_smoke_config()
    first = load_test(config)
    (cache,) = config.cache_path.iterdir()
    cache.write_bytes(cache.read_bytes()[:-10])
    assert torch.equal(load_test(config).images, first.images) and "is damaged" in capsys.readouterr().out


def test_batches_hold_every_row_once_in_an_order_set_by_the_seed():
    inputs, labels = torch.arange(103), torch.arange(103) * 2
    plain = list(batches(inputs, labels, 10))
    assert [len(y) for _, y in plain] == [10] * 10 + [3] and torch.equal(torch.cat([x for x, _ in plain]), inputs)
    one, again, other = (torch.cat([x for x, _ in batches(inputs, labels, 10, shuffle_seed=s)]) for s in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other) and torch.equal(one.sort()[0], inputs)
    assert all(torch.equal(x * 2, y) for x, y in batches(inputs, labels, 10, shuffle_seed=1))
    doubled = next(batches(inputs, labels, 10, transform=lambda x: x * 2))
    assert torch.equal(*doubled)


def test_statistics_are_over_all_pixels():
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 1] //= 2
    exact = images.double().numpy() / 255
    mean, std = pixel_statistics(images)
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, exact.std((0, 2, 3)), rtol=1e-6)


def test_a_constant_channel_can_be_normalised():
    assert pixel_statistics(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))[1].tolist() == pytest.approx([1 / 255] * 3)


def test_epoch_seeds_differ_by_seed_epoch_and_stream():
    seeds = {epoch_seed(s, e, stream) for s in range(5) for e in range(50) for stream in ("order", "augmentation")}
    assert len(seeds) == 500
