"""Fixtures for all tests: a toy dataset, a config that stays in a temporary folder, a clean environment."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from hw1_utils import experiment
from hw1_utils.config import ROOT, Config, make_config
from hw1_utils.data import Data, Samples
from hw1_utils.experiment import Run, Trained, cnn, load, probe
from hw1_utils.features import extract
from hw1_utils.io import attached
from hw1_utils.io.toy import make_toy_folder
from hw1_utils.measure import profiling
from hw1_utils.models import load_encoders

SMALL = {"encoder": "test_vit", "device": "cpu", "cnn_epochs": 3, "probe_epochs": 3, "profile_steps": 2}  # seconds
MODELS = ("cnn", "vit", "vit_blocks")  # names of the runs that `make_run` makes
DEIT = "deit_tiny_patch16_224"
LONGEST = (  # files of 15 seconds and more; where one is begun last, the other processes wait for it
    "test_notebook.py",
    "test_costs.py",
    "test_experiment.py",
    "test_choices.py",
    "test_fuzz.py",
    "test_torture.py",
    "test_survival.py",
    "test_profiling.py",
    "test_benchmarks.py",
    "test_ranks.py",
    "test_work.py",
)
_HW1_WEIGHTS = os.environ.get("HW1_WEIGHTS")  # read before `clean_environment` removes it


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # pytest-xdist would begin with the files of the most tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, where several processes share them."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HW1_* variable of the person who runs the tests reaches them, and nothing that is attached on Kaggle."""
    for name in [name for name in os.environ if name.startswith("HW1_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(attached, "INPUT", Path("/nowhere/input"))


@pytest.fixture
def toy_folder(tmp_path: Path) -> Path:
    """An ImageFolder of this test's own: 3 classes, 40 train and 10 test images each, 32×32 PNG."""
    folder = tmp_path / "toy"
    make_toy_folder(folder)
    return folder


@pytest.fixture
def make_smoke_config(tmp_path: Path, toy_folder: Path) -> Callable[..., Config]:
    """`make_smoke_config(field=value, …)`: the smoke profile on `toy_folder`, on the CPU, writing to tmp_path/out."""

    def make(**overrides: object) -> Config:
        here = {"data_dir": str(toy_folder), "output_dir": str(tmp_path / "out"), "device": "cpu", "profile_steps": 2}
        return make_config("smoke", **(here | overrides))

    return make


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """The real DeiT-Tiny weights file: from HW1_WEIGHTS, else beside the repository; skips where there is none."""
    named = [ROOT / Path(_HW1_WEIGHTS).expanduser()] if _HW1_WEIGHTS else []
    for path in [*named, ROOT.parent / f"shared/weights/{DEIT}.safetensors"]:
        if path.is_file() and path.name.startswith(DEIT):
            return path
    pytest.skip(f"no real weights here: neither HW1_WEIGHTS nor ../shared/weights has {DEIT}.safetensors")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For work this small, threads only wait for each other, for long where other processes have the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # for the processes whose memory is measured
        yield
    torch.set_num_threads(before)


@pytest.fixture
def quick_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory and speed are not measured, where their numbers play no part."""
    monkeypatch.setattr(profiling, "peak_memory_mb", lambda *args: (2.0, 1.0))
    monkeypatch.setattr(profiling, "time_per_call", lambda *args: 0.001)


def load_toy(root: Path) -> Data:
    """The data of a small smoke run of a module's own, which writes below `root`."""
    make_toy_folder(root / "toy")
    return load(make_config("smoke", **SMALL, data_dir=str(root / "toy"), output_dir=str(root / "out")))


def make_run(data: Data, name: str = "cnn") -> Run:
    """One of `MODELS`, ready to be trained; the probes on the first configured encoder."""
    if name == "cnn":
        return cnn(data)
    return probe(extract(load_encoders(data.context)[0], data), "blocks" if name.endswith("blocks") else "cls")


def start(config: Config, name: str = "cnn") -> Run:
    return make_run(load(config), name)


def refuse(*args: object, **kwargs: object) -> None:
    raise AssertionError("this is on disk already, or to come later")


def called_steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows by the name of each of the story's steps that is called from outside the package."""
    called: list[str] = []

    def watch(name: str, step: Callable) -> None:
        def watched(*args: object, **options: object) -> object:
            called.append(name)
            return step(*args, **options)

        monkeypatch.setattr(experiment, name, watched)

    for name in ("train", "load_test", "evaluate_on_test"):
        watch(name, getattr(experiment, name))
    return called


class PowerCut(Exception):
    """Ends a run where a test wants it to."""


def cut(epoch: int, error: BaseException | type[BaseException] = PowerCut) -> Callable[[int], None]:
    """For `watched`: ends the training in this epoch."""

    def look(now: int) -> None:
        if now == epoch:
            raise error

    return look


def watched(run: Run, look: Callable[[int], object]) -> Run:
    """The run, whose training calls `look` with the epoch's number after each batch."""

    class Watched(Samples):
        def batches(self, size: int, epoch: int | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            for batch in super().batches(size, epoch):
                yield batch
                if epoch is not None:
                    look(epoch)

    return replace(run, train=Watched(**vars(run.train)))


def numbers(history: pd.DataFrame) -> pd.DataFrame:
    """The history without what a clock measured."""
    return history.drop(columns=["seconds", "elapsed_seconds"])


def weights(training: Trained) -> dict[str, torch.Tensor]:
    return training.model.state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
