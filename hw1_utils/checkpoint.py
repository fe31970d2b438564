"""Complete training state on disk after each epoch, and exact continuation from it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from .files import atomic


@dataclass(frozen=True)
class Checkpoint:
    """One file that holds everything `fit` needs to go on after its last finished epoch.

    Randomness is not part of it: every epoch's order and augmentation are seeded by the epoch's own number
    (`data.epoch_seed`), and the models here draw nothing themselves.
    """

    path: Path
    key: str  # names the config, data and weights; a checkpoint with another key is not used

    def save(self, parts: dict, history: list[dict]) -> None:
        """Replace the file with the present state of `parts` (objects with a state_dict, or None)."""
        state = {name: part.state_dict() for name, part in parts.items() if part is not None}
        with atomic(self.path) as partial:
            torch.save({"key": self.key, "history": history, "state": state}, partial)

    def restore(self, parts: dict) -> list[dict]:
        """Load the state into `parts`. Returns the finished epochs' rows: none if there is nothing to go on from."""
        if not self.path.exists():
            return []
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        if saved["key"] != self.key:
            print("  the checkpoint on disk belongs to another config: starting afresh")
            return []
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(saved["state"][name])
        return saved["history"]
