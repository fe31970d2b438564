"""Arrays in files: they come back as they were, damage is noticed, and what finds no room in memory lies there."""

import threading

import numpy as np
import pytest
import torch

from hw1_utils.errors import Hw1Error
from hw1_utils.io.arrays import Room, Rows, cached_array, empty_array, load_array


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


def test_what_is_read_ahead_comes_in_order_and_its_thread_ends_with_it():
    rows, order = Rows(torch.arange(103), streamed=True), torch.randperm(103)
    assert all(map(torch.equal, rows.chunks(order, 10, torch.device("cpu")), order.split(10)))
    before = set(threading.enumerate())
    given_up = rows.chunks(order, 10, torch.device("cpu"))
    next(given_up)
    given_up.close()  # as a loop does that stops early
    assert set(threading.enumerate()) <= before
