"""`work` by two processes of torchrun: the same files as by one, and a run afterwards has nothing left to compute."""

import hashlib
import io
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import SMALL, refuse

from hw1_utils import features
from hw1_utils.app import work
from hw1_utils.config import ROOT, make_config
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import cnn, load, load_test, probe, train
from hw1_utils.features import extract, extract_split
from hw1_utils.io.checkpoint import Checkpoint
from hw1_utils.io.chunks import Chunks
from hw1_utils.io.files import read_checked
from hw1_utils.io.ranks import Ranks
from hw1_utils.io.toy import make_toy_folder
from hw1_utils.models import load_encoders
from hw1_utils.studies.beside import block_probes, distilled, further_recipes
from hw1_utils.studies.common import train_only
from hw1_utils.studies.input_size import size_runs
from hw1_utils.studies.learning_curve import curve_runs
from hw1_utils.studies.seeds import seed_runs

pytestmark = pytest.mark.usefixtures("one_thread")

CHUNK, PART = 37, 25  # of 108, 12 and 30 images: three chunks, which two do not divide, and fewer than two
SETTINGS = SMALL | {"studies": "all", "seeds": 2, "study_images": 12, "image_size": 24}  # not the side of twins
LAUNCHED = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from hw1_utils import features
from hw1_utils.app.cli import main
from hw1_utils.io import together

features.CHUNK, together.PART = {CHUNK}, {PART}
sys.exit(main())
"""


def config_in(root, **overrides):
    return make_config("smoke", **(SETTINGS | overrides), data_dir=str(root / "toy"), output_dir=str(root / "out"))


@pytest.fixture(scope="module")
def places(one_thread, tmp_path_factory):
    """(where one process has worked, where two have, what these said)."""
    alone, together = (tmp_path_factory.mktemp(name) for name in ("alone", "together"))
    make_toy_folder(alone / "toy", test=7)
    shutil.copytree(alone / "toy", together / "toy", copy_function=shutil.copy2)
    (together / "launched.py").write_text(LAUNCHED)
    given = [f"--{name}={value}" for name, value in SETTINGS.items()]
    given += [f"--data-dir={together / 'toy'}", f"--output-dir={together / 'out'}", "--profile=smoke"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", together / "launched.py", "work"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HW1_")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, *given], env=environment, **pipes) as process:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(features, "CHUNK", CHUNK)
            work.work_ahead(config_in(alone))
        said, wrong = process.communicate()
    assert process.returncode == 0, said + wrong
    return alone, together, said


def content(path):
    """The file's SHA256; where a clock has written into it, of all but that."""
    if path.suffix == ".safetensors":
        tensors, notes = read_checked(path)
        if "state" in tensors:
            tensors = torch.load(io.BytesIO(tensors["state"].numpy()), weights_only=True)["model"]
            rows = [{name: row[name] for name in row if "seconds" not in name} for row in notes["history"]]
            notes = {"settings": notes["settings"], "history": rows}
        notes = {name: note for name, note in notes.items() if name not in ("seconds", "machine")}
        return {name: tensor.flatten().tolist() for name, tensor in tensors.items()}, notes
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(root):
    kept = [path for folder in ("toy.cache", "out") for path in (root / folder).rglob("*") if path.is_file()]
    kept = [path for path in kept if not path.name.startswith(".") and "tfevents" not in path.name]
    return {path.relative_to(root).as_posix(): content(path) for path in kept}


def test_two_processes_leave_what_one_does(places):
    alone, together, said = places
    one, two = files(alone), files(together)
    assert one.keys() == two.keys() and [name for name in one if one[name] != two[name]] == []
    names = " ".join(one)
    assert names.count(".npy") == 6  # two sides of three parts; those of side 32 that all were compared at are gone
    assert names.count("features-") == 3 + 1 + 1 + 4 * 2 - 1
    assert all(f"/{run}/state/checkpoint" in names for run in ("cnn", "cnn_short", "cnn_assignment", "cnn_distilled"))
    logs = [sorted(path.parent for path in root.rglob("*tfevents*")) for root in (alone / "out", together / "out")]
    assert {path.relative_to(alone) for path in logs[0]} == {path.relative_to(together) for path in logs[1]}
    assert said.count("profile smoke") == 1 and "[1] " in said
    assert "with OMP_NUM_THREADS=1 before its command" in said


def test_a_run_finds_everything(places, monkeypatch):
    """What is not measured or said: nothing is decoded, extracted or trained, and test is seen by encoders alone."""
    config = config_in(places[1])
    monkeypatch.setattr(features, "CHUNK", CHUNK)
    monkeypatch.setattr("hw1_utils.io.pixels.decode", refuse)
    monkeypatch.setattr(Chunks, "save", refuse)
    monkeypatch.setattr(Checkpoint, "save", refuse)
    assert not (config.results_path / "cnn").exists() and not config.models_path.exists()
    data = load(config)
    extracted = [extract(encoder, data) for encoder in load_encoders(data.context)]
    extract_split(extracted[0].encoder, load_test(data), data)
    headline, probes = cnn(data), [*map(probe, extracted), *block_probes(extracted)]
    taught_by = [train(run) for run in probes]
    for run in (headline, *further_recipes(data), distilled(data, taught_by)):
        train(run)
    further = [*curve_runs(headline, probes), *(one for run in (headline, *probes) for one in seed_runs(run))]
    further += size_runs(probes[0])
    assert len(further) > 6
    for name, run in further:
        train_only(run, name=name)


def test_without_room_for_what_it_is_to_leave_it_does_not_begin(tmp_path, monkeypatch):
    """A run would go on without a cache; `work` would say in the end that all is on disk."""
    monkeypatch.setattr("hw1_utils.io.arrays.free_bytes", lambda folder: 10**5)
    make_toy_folder(tmp_path / "toy")
    with pytest.raises(Hw1Error, match=r"toy.cache needs 1 MB .* has 0 MB free: make room there\.$"):
        work.work_ahead(config_in(tmp_path))
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize(
    ("overrides", "count", "sentence"),
    [
        ({"fresh": True}, 1, "fresh=True would have the run do again"),
        ({"backup_dir": "/nowhere/copies"}, 2, "backup_dir is for one process alone"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything(tmp_path, overrides, count, sentence):
    with pytest.raises(Hw1Error, match=f"^{sentence}"):
        work._refuse(config_in(tmp_path, **overrides), Ranks(count=count))
