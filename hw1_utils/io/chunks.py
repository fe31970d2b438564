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
    required: bool = False  # the files are what the work is for, not what it saves the next run

    def load(self, key: str) -> tuple[Tensor, float, str | None] | None:
        """(features, seconds they took, the machine that took them); None: there are none that can be used."""
        path = self._path(key)
        if (kept := _read(path)) is None and self.backup.restore(path, f"features/{path.name}"):
            kept = _read(path)
        return kept

    def save(self, key: str, features: Tensor, seconds: float, machine: str) -> None:
        """A disk that refuses costs a warning, not the run; where they are `required`, an Hw1Error."""
        path = self._path(key)
        try:
            write_checked(path, {"features": features}, {"seconds": str(seconds), "machine": machine})
            self.backup.keep(path, f"features/{path.name}")
        except Hw1Error as error:
            if self.required:
                raise
            print(f"Not cached, the run goes on. {error}")

    def _path(self, key: str) -> Path:
        return self.folder / f"features-{key}.safetensors"


@dataclass
class Spent:
    """What an extraction has cost so far, and where its rows came from."""

    machine: str  # this one: the seconds of others are no cost here
    seconds: float = 0.0  # that `timed` rows took on this machine, now or in an earlier run
    timed: int = 0
    from_cache: int = 0  # rows
    computing: float = 0.0  # seconds, of this run alone

    def add(self, rows: int, seconds: float, machine: str | None, from_cache: bool = False) -> None:
        """So many rows more, and what they took on which machine."""
        if machine == self.machine:
            self.seconds, self.timed = self.seconds + seconds, self.timed + rows
        if from_cache:
            self.from_cache += rows
        else:
            self.computing += seconds

    def seconds_for(self, rows: int) -> float:
        """What so many rows take on this machine, going by those that were timed; 0 if none was."""
        return self.seconds * (rows / max(self.timed, 1))

    def summary(self, rows: int) -> str:
        """How an extraction of so many rows has come by them, in words."""
        if not self.computing:
            return "from cache"
        cached = f", {self.from_cache:,} of them from cache" if self.from_cache else ""
        return f"{(rows - self.from_cache) / self.computing:,.0f} images/s{cached}"


def _read(path: Path) -> tuple[Tensor, float, str | None] | None:
    if (found := read_checked(path)) is None:
        return None
    features, notes = found[0]["features"], found[1]
    if not torch.isfinite(features).all():
        return damaged(path)
    return features, float(notes["seconds"]), notes.get("machine")
