"""What is attached to a Kaggle notebook: read-only folders below /kaggle/input. Elsewhere nothing is."""

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from .listing import IMAGE

INPUT = Path("/kaggle/input")
# How many folders deep what was attached begins: /kaggle/input/<name>, or below its kind and owner.
KINDS = {"datasets": 3, "notebooks": 3, "models": 3, "competitions": 2}
DEEPEST = 8  # models/<owner>/<name>/<framework>/<variation>/<version>/ and two more
MOST_FOLDERS, MOST_ENTRIES = 2000, 1000  # that are looked at: class folders may be many, and hold many files


@dataclass(frozen=True)
class Attached:
    """What was found, nothing of it opened."""

    folders: list[Path] = field(default_factory=list)  # as they were attached, with images somewhere below
    others: list[Path] = field(default_factory=list)  # files and folders by whose names nobody would expect an image


def attached() -> Attached:
    """Look through all that is attached, a few thousand names at most in each folder."""
    found = Attached()
    for root in _roots():
        folders = dict(_walk(root))
        paths = [folder / name for folder, names in folders.items() for name in names]
        others = [path for path in paths if not IMAGE.search(path.name)]
        found.others.extend(others)
        of_this_project = any("hw1_utils" in names for names in folders.values())  # with pictures of its own
        if len(others) < len(paths) and not of_this_project:
            found.folders.append(root)
    return found


def advice() -> str:
    """What to do on Kaggle where something cannot be downloaded, as the end of a sentence; nothing elsewhere."""
    if not INPUT.is_dir():
        return ""
    return (
        "; on Kaggle switch the internet on (Settings), or attach (Add Input) the encoder's weights in a file that is "
        "named after the model, and CIFAR-10's official archive or a folder of your own images"
    )


def _roots() -> Iterator[Path]:
    """Each dataset, model or output of another notebook, as it was attached."""
    for place in _folders(INPUT):
        level = [place]
        for _ in range(KINDS.get(place.name, 1) - 1):
            level = [inner for outer in level for inner in _folders(outer)]
        yield from level


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders from `root` on, the nearest first, each with the names in it."""
    waiting, seen = deque([root]), 0
    while waiting and seen < MOST_FOLDERS:
        folder, seen = waiting.popleft(), seen + 1
        with os.scandir(folder) as entries:
            inside = sorted(islice(entries, MOST_ENTRIES), key=lambda entry: entry.name)
        yield folder, [entry.name for entry in inside]
        if len(folder.relative_to(INPUT).parts) < DEEPEST:
            waiting.extend(Path(entry.path) for entry in inside if entry.is_dir())


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
