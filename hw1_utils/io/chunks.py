"""Features on disk, a chunk a file: what an interrupted extraction has finished."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import Hw1Error
from .backup import Backup
from .files import damaged, read_checked, write_checked


@dataclass(frozen=True)
class Chunks:
    """`features-<key>.safetensors`, tensor `features` float32 N×D, with notes `seconds` and `machine`."""

    folder: Path
    backup: Backup  # brings back what a lost runtime had finished

    def load(self, key: str) -> tuple[Tensor, float, str | None] | None:
        """(features, seconds they took, the machine that took them); None: there are none that can be used."""
        path = self._path(key)
        if (kept := _read(path)) is None and self.backup.restore(path, f"features/{path.name}"):
            kept = _read(path)
        return kept

    def save(self, key: str, features: Tensor, seconds: float, machine: str) -> None:
        """A disk that refuses costs a warning, not the run."""
        path = self._path(key)
        try:
            write_checked(path, {"features": features}, {"seconds": str(seconds), "machine": machine})
            self.backup.keep(path, f"features/{path.name}")
        except Hw1Error as error:
            print(f"Not cached, the run goes on. {error}")

    def _path(self, key: str) -> Path:
        return self.folder / f"features-{key}.safetensors"


def _read(path: Path) -> tuple[Tensor, float, str | None] | None:
    if (found := read_checked(path)) is None:
        return None
    features, notes = found[0]["features"], found[1]
    if not torch.isfinite(features).all():
        return damaged(path)
    return features, float(notes["seconds"]), notes.get("machine")
