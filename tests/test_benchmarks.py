"""The benchmarks at toy sizes: they run to their tables, and the reference runs as it would by itself."""

import multiprocessing
import os
import pickle
import re
from contextlib import contextmanager

import numpy as np
import pytest
from conftest import make_run
from filelock import FileLock

from benchmarks import common, decoding, foreign, label_errors, probe, scaling, thresholds, training
from benchmarks.common import own_process
from hw1_utils.config import ROOT
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import load, train


class Where:
    """What the process it is made in looks like."""

    def process(self) -> tuple[int, str]:
        return os.getpid(), multiprocessing.get_start_method()


@contextmanager
def own_objects(make, *args):
    """As `own_process`, and all has to be picklable, but here: to start each of its processes takes six seconds."""
    made = pickle.loads(pickle.dumps(make))(*pickle.loads(pickle.dumps(args)))
    yield lambda method: getattr(made, method)()


@pytest.fixture
def data(make_smoke_config, one_thread, monkeypatch):
    for module in (training, probe):
        monkeypatch.setattr(module, "own_process", own_objects)
    return load(make_smoke_config())


def test_the_reference_runs_in_another_process_that_starts_its_workers_as_this_one_does():
    with own_process(Where) as call:
        (pid, method), again = call("process"), call("process")
    assert pid != os.getpid() and method == multiprocessing.get_start_method() and again == (pid, method)


def test_training_is_compared_with_pure_compute_and_the_literal_pipeline(data, monkeypatch, capsys):
    monkeypatch.setattr(training, "STEPS", 2)
    monkeypatch.setattr(training, "TARGET", 0.01)
    training.throughput(data)
    training.time_to_target(data)
    said = capsys.readouterr().out
    assert re.search(r"`fit` over the literal pipeline \|  \| \d+\.\d×", said)
    assert re.search(r"literal over package \|  \| \d+\.\d×", said) and "literal epoch 1: val" in said


def test_the_probe_is_compared_with_the_bare_encoder_other_formats_and_the_literal_pipeline(data, monkeypatch, capsys):
    for name, value in {"IMAGES": 6, "FORMAT_IMAGES": 12, "LITERAL_IMAGES": 6, "LITERAL_EPOCHS": 2}.items():
        monkeypatch.setattr(probe, name, value)
    for part in (probe.extraction, probe.whole, probe.formats):
        part(data)
    said = capsys.readouterr().out
    assert re.search(r"`extract` over bare encoder \|  \| \d+\.\d\d", said) and "literal epoch 2:" in said
    assert re.search(r"literal over package \|  \| \d+\.\d×", said) and re.search(r"\| blocks \| .* \| [+-]\d", said)


def test_growth_is_fitted_by_a_line(data, monkeypatch, capsys):
    for name, value in {"TRAIN_SIZES": (20, 40), "EXTRACT_SIZES": (4, 8), "INPUT_SIZES": (32,)}.items():
        monkeypatch.setattr(scaling, name, value)
    scaling.training_time(data)
    scaling.extraction_time(data)
    assert capsys.readouterr().out.count("ms per image; off by") == 2
    assert scaling.line((1, 2, 3), [2.5, 4.5, 6.5]) == "0.50 s + 2000.000 ms per image; off by 0.0% at most"


def test_a_process_beside_one_that_has_data_needs_no_folder_of_that(toy_folder, tmp_path):
    with FileLock(tmp_path / ".hw1.lock"):
        with pytest.raises(Hw1Error, match="^Another run is at work in"):
            common.load("smoke", data_dir=str(toy_folder), output_dir=str(tmp_path))
        apart = common.load_apart("smoke", data_dir=str(toy_folder)).context.config
    assert apart.data_dir == str(toy_folder) and not apart.output_path.is_relative_to(ROOT)


def test_drafts_are_compared_with_whole_photographs(data, tmp_path, monkeypatch, capsys):
    for name, value in {"SIZE": (1000, 800), "COPIES": 2, "ROUNDS": 1, "SIDES": (32, 64)}.items():
        monkeypatch.setattr(decoding, name, value)
    decoding.speed(decoding.photographs(tmp_path), data)
    said = capsys.readouterr().out
    assert re.search(r"\| 64 \| .*\| \d+\.\d× \| 0\.\d\d \|", said) and "one after the other" in said


def test_swapped_labels_are_counted_among_the_suspects(data, capsys):
    label_errors.table(data, "toy")
    said = capsys.readouterr().out
    assert "toy: 120 images" in said and len(re.findall(r"\| \d+%, (?:at random|similar) \| \d+\.\d% \|", said)) == 6
    right = np.arange(100) % 2
    assert [(label_errors.swap(right, 0.1, how) != right).sum() for how in (None, np.array([1, 0]))] == [10, 10]


def test_foreign_pictures_are_told_from_familiar_ones(data, monkeypatch, capsys):
    monkeypatch.setattr(foreign, "COUNT", 6)
    monkeypatch.setattr(foreign, "KEPT", {None: 5, 30: 2})
    run = make_run(data, "vit")
    foreign.table(data, run.features, [train(run)])
    said = capsys.readouterr().out
    assert "| Score | digits | letters | tiles | noise | flat |" in said
    assert "5th nearest of 108 training images | " in said and "2th nearest of 30 training images | " in said
    assert foreign.refused(np.array([0.5, 0.6, 0.7]), np.array([0.1, 0.2])) == (1.0, 0.0)
    assert foreign.refused(np.array([0.1, 0.2]), np.array([0.5, 0.6])) == (0.0, 1.0)


def test_ways_to_choose_a_threshold_are_compared(monkeypatch, capsys):
    monkeypatch.setattr(thresholds, "ROUNDS", 3)
    models = thresholds.read(ROOT / "results")
    thresholds.compare({name: models[name] for name in ("cnn", "vit")}, sizes=(200,), targets=(0.9,))
    said = capsys.readouterr().out
    assert said.count("| 200 |") == 2 * len(thresholds.WAYS)
