"""Arrays that do not fit in memory: mapped from files, streamed, and the numbers stay the same."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import numbers, same, weights

from hw1_utils.data import load_test, make_toy_folder
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import CNNTask, ProbeTask, prepare, sanity_check, train
from hw1_utils.io.arrays import Room, cached_array, empty_array, load_array
from hw1_utils.judging import judge
from hw1_utils.studies import studies

pytestmark = pytest.mark.usefixtures("one_thread", "quick_costs")


def test_an_array_comes_back_from_its_file_with_its_notes(tmp_path):
    path = tmp_path / "cache/x.npy"
    with cached_array(path, (3, 4)) as (array, notes):
        array[1] = 7
        notes["unreadable"] = {"2": "damaged"}
    again, read = load_array(path)
    assert torch.equal(again, array) and again.dtype == torch.uint8 and read == notes
    assert np.load(path).tolist() == array.tolist()  # NumPy's own format
    again += 1  # in memory only
    assert torch.equal(load_array(path)[0], array)


def test_a_block_that_fails_leaves_no_array(tmp_path):
    with pytest.raises(KeyboardInterrupt), cached_array(tmp_path / "x.npy", (3, 4)):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir()) and load_array(tmp_path / "x.npy") is None


@pytest.mark.parametrize("file", ["x.npy", "x.json"])
def test_a_damaged_array_is_noticed(tmp_path, capsys, file):
    with cached_array(tmp_path / "x.npy", (30, 4)):
        pass
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[:-3] + b"?" + content[-2:])
    assert load_array(tmp_path / "x.npy") is None and "x.npy is damaged" in capsys.readouterr().out


def test_what_finds_no_room_in_memory_is_a_file_that_nobody_sees(tmp_path, monkeypatch):
    room = Room(399)  # bytes: enough for one of two
    for in_memory in (True, False):
        array, resident = empty_array((10, 5), room, tmp_path)
        assert resident == in_memory
        array[:] = torch.arange(5)
        assert array.sum() == 100 and array.dtype == torch.float32
    assert not list(tmp_path.iterdir())

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hw1_utils.io.arrays.os.posix_fallocate", full)
    with pytest.raises(Hw1Error, match=r"has no room for .* GB .*\(No space left on device\): free some"):
        empty_array((10, 5), room, tmp_path)


@pytest.mark.parametrize("kind", ["cnn", "probe"])
def test_a_streamed_training_gives_the_same_numbers(make_smoke_config, tmp_path, kind):
    trainings = []
    for memory_mb in (None, 0):
        config = make_smoke_config(memory_mb=memory_mb, output_dir=str(tmp_path / f"{memory_mb}"))
        setup = prepare(config)
        task = CNNTask(setup, "tuned") if kind == "cnn" else ProbeTask(setup, "layers")
        sanity_check(task)
        trainings.append(train(task))
        test = load_test(config).to(setup.device, setup.room)
        assert setup.train.streamed == test.streamed == (memory_mb == 0)
        trainings[-1].evaluations["test"] = judge(trainings[-1], test).test
    one, other = trainings
    pd.testing.assert_frame_equal(numbers(one.history), numbers(other.history))
    assert same(weights(one), weights(other))
    assert torch.equal(one.evaluations["test"].probabilities, other.evaluations["test"].probabilities)


def test_studies_of_a_streamed_run_give_the_same_numbers(make_smoke_config, tmp_path):
    tables = []
    for memory_mb in (None, 0):
        setup = prepare(make_smoke_config(memory_mb=memory_mb, output_dir=str(tmp_path / f"{memory_mb}")))
        cnn, probe = (train(task) for task in (CNNTask(setup, "tuned"), ProbeTask(setup)))
        sizes = studies.input_sizes([probe]).drop(columns="extraction_images_per_second")
        tables.append([studies.learning_curve(cnn, [probe]), sizes])
    for one, other in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_the_encoder_gets_photographs_at_its_own_size_and_the_cnn_at_its(make_smoke_config, tmp_path):
    make_toy_folder(tmp_path / "photos", size=100, train=12, test=2)
    setup = prepare(make_smoke_config(data_dir=str(tmp_path / "photos"), output_dir=str(tmp_path / "out")))
    cnn, probe = CNNTask(setup, "tuned"), ProbeTask(setup)  # test_vit takes 160×160: 100 is all there is
    assert (cnn.image_size, probe.image_size) == (32, 100)
    assert next(iter(cnn.image_batches(1)))[0].shape[-1] == 32
    assert next(iter(probe.image_batches(1)))[0].shape[-1] == 100
    assert probe.settings()["image_size"] == 100 and torch.equal(probe.seen(setup.val).labels, setup.val.labels)
    expected = probe.encoder(probe.seen(setup.val).images)[:, : probe.encoder.features]
    torch.testing.assert_close(probe.features(setup.val).values, expected, rtol=0, atol=1e-4)
    larger = ProbeTask(dataclasses.replace(setup, largest_side=1000), encoder=probe.encoder)
    assert larger.image_size == 160
