"""Complete training state on disk after each epoch, and exact continuation from it."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from .files import read_checked, write_checked


@dataclass(frozen=True)
class Checkpoint:
    """One file that holds everything `fit` needs to go on after its last finished epoch.

    No generator's state is part of it: every epoch's order and augmentation are seeded by the epoch's own number
    (`data.Samples`), and the models here draw nothing themselves.
    """

    path: Path
    settings: dict  # all that the training depends on, plain values; a checkpoint made with others is not used
    after_save: Callable[[], object] = lambda: None  # called each time the file is complete

    def save(self, parts: dict, history: list[dict]) -> None:
        """Replace the file with the present state of `parts` (objects with a state_dict, or None).

        Raises:
            Hw1Error: it cannot be written; the state of the epoch before stays.
        """
        state = {name: part.state_dict() for name, part in parts.items() if part is not None}
        content = io.BytesIO()  # a state_dict is no dict of tensors: numbers, lists and integer keys are among them
        torch.save(state, content)
        tensors = {"state": torch.frombuffer(content.getbuffer(), dtype=torch.uint8)}
        write_checked(self.path, tensors, {"settings": self.settings, "history": history})
        self.after_save()

    def restore(self, parts: dict) -> list[dict]:
        """Load the state into `parts`. Returns the finished epochs' rows: none if there is nothing to go on from."""
        found = read_checked(self.path)
        if found is None:
            return []
        tensors, saved = found
        changed = changes(saved["settings"], self.settings)
        if changed:
            print(f"  starting afresh: what is on disk was made with other settings ({changed})")
            self.path.unlink()  # before the logs that belong to it are replaced
            return []
        state = torch.load(io.BytesIO(tensors["state"].numpy()), map_location="cpu", weights_only=True)
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(state[name])
        return saved["history"]


def changes(old: dict, new: dict) -> str:
    """What differs between two settings, in words; an empty string if nothing does."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name}: {old.get(name)}, now {new.get(name)}" for name in names)
