"""A run that memory does not hold: no step of it and no study takes more rows of pixels or features than its share."""

import pytest
import torch
from conftest import make_run

import hw1_utils as hw1
from hw1_utils import data, experiment, features
from hw1_utils.io import arrays, pixels, twins
from hw1_utils.io.toy import make_toy_folder
from hw1_utils.questions import STUDIES
from hw1_utils.report import figures, tables
from hw1_utils.studies import (
    baselines,
    confident_learning,
    duplicates,
    feature_map,
    learning_curve,
    logreg,
    neighbours,
    sanity,
)

pytestmark = pytest.mark.usefixtures("one_thread", "quick_costs")
MOST = 48  # rows in memory at a time, of 260 to train on, 70 to validate on and 66 to test on
SIDE = 32
SETTINGS = {"val_size": 70, "cnn_batch_size": 32, "probe_batch_size": 32, "extract_batch_size": 32, "study_images": 40}
SETTINGS |= {"cnn_epochs": 1, "short_epochs": 1, "probe_epochs": 1, "seeds": 2, "memory_mb": 0}
BLOCKS = {  # all that says how many rows are taken at a time, or at all
    data: {"EVAL_BATCH": MOST, "STATISTICS_CHUNK": MOST},
    features: {"CHUNK": MOST, "TIMED": 8},
    experiment: {"CHUNK": MOST, "WHITENED_PIXELS": 40 * SIDE**2},
    twins: {"BLOCK": MOST, "PIXELS": MOST * SIDE**2, "AT_ONCE": MOST, "USUAL": MOST},
    pixels: {"MOST": 90},
    sanity: {"BATCHES": 1},
    neighbours: {"BLOCK": MOST},
    baselines: {"MOST": 100},
    confident_learning: {"CHUNK": MOST},
    logreg: {"CHUNK": MOST, "LEAST_IMAGES": 40},
    feature_map: {"MOST": 40},
    learning_curve: {"PER_CLASS": (10,)},
}


class Streamed(torch.Tensor):
    """Of a file, of which no more than MOST rows are to be in memory: views of it are free, copies are counted."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        given = next(one for one in args if isinstance(one, Streamed))
        with torch._C.DisableTorchFunctionSubclass():
            result, limit = function(*args, **(kwargs or {})), MOST * given[:1].numel()
            if function in (torch.Tensor.numpy, torch.Tensor.__array__) and given.ndim > 1:
                assert given.numel() <= limit, f"{len(given)} rows are handed to NumPy"

            def checked(one):
                if not isinstance(one, torch.Tensor):
                    return one
                if one.untyped_storage().data_ptr() == given.untyped_storage().data_ptr():
                    return one.as_subclass(Streamed)
                fits = one.numel() <= limit or len(one) <= MOST  # a batch may be enlarged
                assert fits, f"{function.__name__} takes {one.numel():,} numbers into memory"
                return one

            several = type(result) in (list, tuple)
            return type(result)(map(checked, result)) if several else checked(result)


@pytest.fixture
def streamed(tmp_path, make_smoke_config, monkeypatch):
    """The data of a run that has no memory for arrays, and what files hold of them under guard."""
    for module, values in BLOCKS.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(figures, "save", lambda figure, path: path)  # drawing takes half the time, looked at elsewhere
    real_to, real_empty = arrays.Rows.to, arrays.empty_array

    def to(self, device, room):
        there = real_to(self, device, room)
        assert there.streamed
        return arrays.replace(there, values=there.values.as_subclass(Streamed))

    def empty(shape, room, folder, dtype=torch.float32):
        values, resident = real_empty(shape, room, folder, dtype)
        assert not resident
        return values.as_subclass(Streamed), resident

    monkeypatch.setattr(arrays.Rows, "to", to)
    for module in (features, neighbours, duplicates):  # what is said of N images has K numbers for each, and stays
        monkeypatch.setattr(module, "empty_array", empty)
    make_toy_folder(tmp_path / "many", train=110, test=22)
    return experiment.load(make_smoke_config(data_dir=str(tmp_path / "many"), **SETTINGS))


def test_no_step_and_no_study_takes_more_than_its_share(streamed, capsys):
    encoders = hw1.load_encoders(streamed.context)
    hw1.exact_copies(streamed)
    hw1.sanity_check(streamed, encoders)
    cnn, probe, blocks = (hw1.train(make_run(streamed, name)) for name in ("cnn", "vit", "vit_blocks"))
    taught = hw1.train(hw1.cnn(streamed, "distilled", teacher=probe))
    test = hw1.load_test(streamed)
    results = [hw1.evaluate_on_test(one, test) for one in (cnn, taught, probe, blocks)]
    first, second = results[0], results[2]
    tables.write_model(first, test)
    studies = {
        "blocks": lambda: None,
        "recipes": lambda: None,
        "duplicates": lambda: hw1.duplicates(results, test),
        "label_errors": lambda: hw1.label_errors(first, second, test),
        "baselines": lambda: hw1.baselines(results, test),
        "coverage": lambda: hw1.coverage(results),
        "mistakes": lambda: hw1.mistakes([first, second], test),
        "feature_map": lambda: hw1.feature_map(second, test),
        "input_size": lambda: hw1.input_size([probe]),
        "learning_curve": lambda: hw1.learning_curve(cnn, [probe]),
        "logreg": lambda: hw1.logreg([probe], test),
        "calibration": lambda: hw1.calibration(results),
        "disagreement": lambda: hw1.disagreement(first, second, test),
        "seeds": lambda: hw1.seeds([first, second], test),
        "flips": lambda: hw1.flips(results, test),
    }
    assert studies.keys() == STUDIES.keys()
    capsys.readouterr()
    said = {}
    for name, study in studies.items():
        study()
        said[name] = capsys.readouterr().out
    assert "Near copies are looked for among 90 of 396 images, a part" in said["duplicates"]
    assert "each head learns from 40 of 3" in said["label_errors"]
    assert "Neighbours are looked for among 100 of 260 train images" in said["baselines"]
    assert "The map shows 40 of 66 test images" in said["feature_map"]
    assert "trained on 40 of 260 train images" in said["input_size"]
    assert "judged on 40 of 70 val images" in said["input_size"]
    assert "penalties are fitted on 40 of 260 train images" in said["logreg"]
    hw1.save_models(results)


def test_the_guard_notices_what_takes_all(streamed):
    rows = streamed.train.images
    assert len(rows[:MOST].float()) == MOST
    for greedy in (lambda: rows[:].float(), lambda: rows[:].numpy(), lambda: rows[torch.arange(MOST + 1)]):
        with pytest.raises(AssertionError):
            greedy()
