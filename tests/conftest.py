"""Fixtures for all tests: a toy dataset, a config that stays in a temporary folder, a clean environment."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hw1_utils.config import ROOT, Config, make_config
from hw1_utils.data import make_toy_folder

DEIT = "deit_tiny_patch16_224"
_HW1_WEIGHTS = os.environ.get("HW1_WEIGHTS")  # read before `clean_environment` removes it


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HW1_* variable of the person who runs the tests reaches them."""
    for name in [name for name in os.environ if name.startswith("HW1_")]:
        monkeypatch.delenv(name)


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
        here = {"data_dir": str(toy_folder), "output_dir": str(tmp_path / "out"), "device": "cpu"}
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
