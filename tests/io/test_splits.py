"""Which rows a part gets. Splits of whole folders: test_data.py and test_folders.py."""

import numpy as np

from hw1_utils.io.splits import stratified_subset


def test_every_class_has_an_image_however_small_the_part():
    labels = np.repeat(np.arange(6), [1000, 1000, 400, 5, 3, 1])
    for count in (6, 10, 300):
        rows = stratified_subset(labels, count, seed=0)
        assert len(set(rows.tolist())) == count and set(labels[rows]) == set(range(6))
    assert len(stratified_subset(labels, 4, seed=0)) == 4  # fewer than classes
    assert stratified_subset(labels, 10**6, seed=0).tolist() == list(range(len(labels)))
    thousand = np.repeat(np.arange(1000), [3] * 500 + [2] * 500)
    rows = stratified_subset(thousand, 2000, seed=0)
    assert len(rows) == 2000 and set(thousand[rows].tolist()) == set(range(1000))
