"""Batches: every row once, in the seed's order, streamed or not."""

import threading

import pytest
import torch

from hw1_utils.batching import batches, epoch_seed


@pytest.mark.parametrize("shuffle_seed", [None, 1])
def test_streamed_batches_are_the_same_batches(shuffle_seed):
    inputs, labels = torch.arange(103), torch.arange(103) * 2
    one, other = (list(batches(inputs, labels, 10, shuffle_seed=shuffle_seed, streamed=s)) for s in (False, True))
    assert all(torch.equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True))
    before = set(threading.enumerate())
    given_up = batches(inputs, labels, 10, streamed=True)
    next(given_up)
    given_up.close()  # as a loop does that stops early: its reading thread ends with it
    assert set(threading.enumerate()) <= before


def test_batches_hold_every_row_once_in_an_order_set_by_the_seed():
    inputs, labels = torch.arange(103), torch.arange(103) * 2
    plain = list(batches(inputs, labels, 10))
    assert [len(y) for _, y in plain] == [10] * 10 + [3] and torch.equal(torch.cat([x for x, _ in plain]), inputs)
    one, again, other = (torch.cat([x for x, _ in batches(inputs, labels, 10, shuffle_seed=s)]) for s in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other) and torch.equal(one.sort()[0], inputs)
    assert all(torch.equal(x * 2, y) for x, y in batches(inputs, labels, 10, shuffle_seed=1))
    doubled = next(batches(inputs, labels, 10, transform=lambda x: x * 2))
    assert torch.equal(*doubled)


@pytest.mark.parametrize("streamed", [False, True])
def test_batches_of_a_part_are_those_of_its_rows(streamed):
    inputs, part = torch.arange(103), torch.tensor([7, 100, 3, 50, 51])
    found = list(batches(inputs, part * 2, 2, shuffle_seed=1, part=part, streamed=streamed))
    assert [len(x) for x, _ in found] == [2, 2, 1] and all(torch.equal(x * 2, y) for x, y in found)
    assert torch.equal(torch.cat([x for x, _ in found]).sort()[0], part.sort()[0])


def test_epoch_seeds_differ_by_seed_epoch_and_stream():
    seeds = {epoch_seed(s, e, stream) for s in range(5) for e in range(50) for stream in ("order", "augmentation")}
    assert len(seeds) == 500
