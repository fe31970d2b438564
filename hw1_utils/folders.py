"""What lies in a data folder, and whether it will do, before a single image is opened."""

import os
from pathlib import Path

from sklearn.model_selection import train_test_split
from torchvision.datasets import ImageFolder

from .config import Config
from .files import Hw1Error

LAYOUT = "the data must lie as train/<class>/<image> and test/<class>/<image>, or as <class>/<image>"
TEST_SHARE = 0.2  # of the images, where the folder has no test/


def check_folder(config: Config) -> None:
    """Look at the folder without opening an image, before any expensive work.

    Raises:
        Hw1Error: a part is missing or empty, or the two parts have different classes.
    """
    parts = {part: scan(config, part) for part in ("train", "test")}
    if parts["train"].classes != parts["test"].classes:
        odd = sorted(set(parts["train"].classes) ^ set(parts["test"].classes))
        raise Hw1Error(f"train/ and test/ must have the same classes; only one of them has: {some(odd)}.")
    if len(parts["train"].classes) < 2:
        raise Hw1Error(f"{parts['train'].root} has one class only: a classifier needs at least two.")
    if parts["test"].root == parts["train"].root:
        print(f"{config.data_dir} has no test/: {len(parts['test']):,} of its images are put aside for the test")
    elif Path(parts["test"].root).name != "test":
        print(f"{config.data_dir} has no test/: {Path(parts['test'].root).name}/ takes its place")


def scan(config: Config, part: str) -> ImageFolder:
    """The files of one part, train or test, without opening one.

    They lie in folders of these names. Where there is no test/, val/ takes its place; where there is no train/ either,
    the folder's own class folders are split, stratified and seeded.

    Raises:
        Hw1Error: no such folder, no class folders, empty ones, links in a circle, names that are not UTF-8.
    """
    root, named = config.data_path, {"train": ("train",), "test": ("test", "val")}
    if not root.is_dir():
        raise Hw1Error(f"There is no folder {config.data_dir}: {LAYOUT}.")
    here = [name for name in named[part] if (root / name).is_dir()]
    if here:
        return _read(root / here[0])
    if any((root / name).is_dir() for names in named.values() for name in names):
        raise Hw1Error(f"There is no folder {part}/ in {config.data_dir}: {LAYOUT}.")
    folder = _read(root)
    try:
        rows = train_test_split(
            range(len(folder)), test_size=TEST_SHARE, stratify=folder.targets, random_state=config.seed
        )
    except ValueError as error:
        raise Hw1Error(
            f"{config.data_dir} has {len(folder)} images in {len(folder.classes)} classes: too few to put a fifth of "
            "each aside for the test; add images, or a test/ of your own."
        ) from error
    chosen = sorted(rows[0 if part == "train" else 1])
    folder.samples = [folder.samples[i] for i in chosen]
    folder.targets = [folder.targets[i] for i in chosen]
    return folder


def _read(root: Path) -> ImageFolder:
    """All files in the class folders of `root`."""
    _refuse_loops(root)
    folder = _Folder(str(root), is_valid_file=lambda path: _is_meant(path[len(str(root)) :]), allow_empty=True)
    filled = set(folder.targets)
    empty = [name for label, name in enumerate(folder.classes) if label not in filled]
    if empty:
        raise Hw1Error(f"{root} has class folders without images ({some(empty)}): fill or remove them.")
    for path, _ in folder.samples:
        if path.encode("utf-8", "replace").decode() != path:
            readable = path.encode("utf-8", "backslashreplace").decode()
            raise Hw1Error(f"The name of {readable} is not in UTF-8: rename it.")
    return folder


class _Folder(ImageFolder):
    """torchvision's, but hidden folders (.ipynb_checkpoints and the like) are no classes."""

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        names = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir() and entry.name[0] != ".")
        if not names:
            raise Hw1Error(f"{directory} has no class folders: {LAYOUT}.")
        return names, {name: label for label, name in enumerate(names)}


def _is_meant(path: str) -> bool:
    """Whether a file below train/ or test/ is data: not if it is hidden or left behind by file managers."""
    return f"{os.sep}." not in path and os.path.basename(path) not in ("Thumbs.db", "desktop.ini")


def _refuse_loops(root: Path) -> None:
    """Raise Hw1Error if a symbolic link below `root` leads to a folder above it: it would be walked for ever."""
    for here, folders, _ in os.walk(root, followlinks=True):
        for path in (Path(here, name) for name in folders):
            if path.is_symlink() and path.resolve() in {above.resolve() for above in path.parents}:
                raise Hw1Error(f"{path} is a symbolic link to a folder that contains it: remove it.")


def some(names: list[str]) -> str:
    """Up to five names."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
