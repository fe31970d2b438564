"""What is attached to a Kaggle notebook: read-only folders below /kaggle/input. Elsewhere nothing is."""

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import Hw1Error
from .listing import Listing

INPUT = Path("/kaggle/input")
# How many folders deep what was attached begins: /kaggle/input/<name>, or below its kind and owner.
KINDS = {"datasets": 3, "notebooks": 3, "models": 3, "competitions": 2}
DEEPEST, MOST_FOLDERS = 7, 2000  # that are looked into, of each: class folders may be many
MANY_IMAGES = 20  # in one folder: a picture or two explain something
OUTPUTS = ("__results___files", "runs", "hw1_utils")  # beside these lie pictures that a notebook has drawn, or this one


@dataclass(frozen=True)
class Attached:
    """What was found, nothing of it opened."""

    folders: list[Path] = field(default_factory=list)  # as they were attached, with folders of images somewhere below
    others: list[Path] = field(default_factory=list)  # files that are no images by their names, and folders


def attached() -> Attached:
    """Look through all that is attached; what cannot be read is passed over."""
    found = Attached()
    for root in _roots():
        with_images: dict[Path, int] = {}
        for here in _walk(root):
            images = here.images
            with_images |= {here.path: len(images)} if images else {}
            found.others.extend(here.path / name for name in here.files if name not in images)
            found.others.extend(inside.path for inside in here.folders)
        beside_one_another = Counter(folder.parent for folder in with_images if folder != root)
        if max(with_images.values(), default=0) >= MANY_IMAGES or max(beside_one_another.values(), default=0) > 1:
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


def _walk(root: Path) -> Iterator[Listing]:
    """Folders from `root` on, the nearest first, without what notebooks write and this project's own."""
    waiting, seen = deque([Listing(root)]), 0
    while waiting and seen < MOST_FOLDERS:
        here, seen = waiting.popleft(), seen + 1
        with suppress(Hw1Error):
            if any(inside.name in OUTPUTS for inside in here.folders):
                continue
            yield here
            if len(here.path.relative_to(root).parts) < DEEPEST:
                waiting.extend(here.folders)


def _folders(place: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in place.iterdir() if path.is_dir())
    return []
