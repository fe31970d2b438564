"""What lies in a folder, listed once: which files may be images, and what does not count at all."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from ..errors import Hw1Error

# What file managers and systems leave behind; all that is hidden, and this project's <folder>.cache, go with it.
_JUNK = {"__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "system volume information"}
_JUNK |= {"lost+found", "lost.dir", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
# What people keep beside images, by suffix. Whether any other file is an image, its contents decide.
_NO_IMAGE = re.compile(
    r"\.(?:txt|xml|csv|tsv|jsonl?|ya?ml|toml|ini|cfg|md|rst|html?|url|pdf|docx?|xlsx?|log|mat|np[yz]|pkl|pickle|h5|hdf5|"
    r"parquet|db|py|ipynb|sh|xmp|aae|mov|mp4|avi|mkv|pth?|safetensors|onnx|zip|tar|t?gz|7z|rar)$",
    re.IGNORECASE,
)
TABLE = re.compile(r"\.[ct]sv$", re.IGNORECASE)
# By these suffixes images are noticed where none should lie.
IMAGE = re.compile(r"\.(?:jpe?g|jpe|jfif|png|gif|bmp|tiff?|webp|hei[cf]|avif|jp2|p[pgn]m)$", re.IGNORECASE)


class Listing:
    """A folder, and those inside it: each is listed when it is first asked for, and then never again.

    What is hidden, left behind by systems or a cache of this project is not in it.

    Raises:
        Hw1Error: whenever it is asked for what cannot be listed, or a symbolic link leads to a folder that contains it,
            or a pipe, a socket or a device is in it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name

    @cached_property
    def _names(self) -> tuple[list[str], list[str]]:
        """Of folders and of files."""
        folders: list[str] = []
        files: list[str] = []
        cached: set[str] = set()
        try:
            with os.scandir(self.path) as entries:  # of a million names nothing else is kept
                for entry in entries:
                    if not is_junk(entry.name):
                        _refuse_special(entry)
                        (folders if _is_folder(entry) else files).append(entry.name)
                    if entry.name.endswith(".cache"):
                        cached.add(entry.name.removesuffix(".cache"))
        except OSError as error:
            raise Hw1Error(f"{self.path} cannot be read ({error.strerror}): mend that or move it away.") from error
        # A class may be called l2.cache: only what is the cache of something here is none.
        caches = {f"{name}.cache" for name in cached.intersection(folders + files if cached else ())}
        return tuple(sorted(name for name in names if name not in caches) for names in (folders, files))

    @cached_property
    def folders(self) -> list["Listing"]:
        """Directly inside, in order."""
        inside = [self.path / name for name in self._names[0]]
        for path in inside:
            if path.is_symlink() and path.resolve() in {above.resolve() for above in path.parents}:
                raise Hw1Error(f"{path} is a symbolic link to a folder that contains it: remove it.")
        return [Listing(path) for path in inside]

    @property
    def files(self) -> list[str]:
        """Names, directly inside, in order."""
        return self._names[1]

    @property
    def images(self) -> list[str]:
        """Of the files those that by their suffix look like images."""
        return [name for name in self.files if IMAGE.search(name)]

    @property
    def candidates(self) -> list[str]:
        """Of the files those that may be images: by their suffix they are nothing else."""
        return [name for name in self.files if not _NO_IMAGE.search(name)]

    def walk(self) -> Iterator["Listing"]:
        """This folder and all below it."""
        yield self
        for inside in self.folders:
            yield from inside.walk()

    def each_below(self) -> Iterator[tuple[str, bool]]:
        """Of each file here and below: its path, and whether it may be an image, or by its suffix is none.

        A folder's files come before those of the folders in it, and only names of folders that lie on the way to where
        it has got are held: there may be any number of files.
        """
        here = "" if self.path == Path() else self.path  # without the ./ of what lies below "."
        for name in self.files:
            yield os.path.join(here, name), not _NO_IMAGE.search(name)
        for inside in self.folders:
            yield from Listing(inside.path).each_below()

    def files_below(self) -> tuple[list[str], list[str]]:
        """Paths of all files here and below, in order: those that may be images, and those that by suffix are none."""
        images, others = [], []
        for here in sorted(self.walk(), key=lambda here: str(here.path)):
            for name in here.files:
                (others if _NO_IMAGE.search(name) else images).append(os.path.join(here.path, name))
        return images, others


def is_junk(name: str) -> bool:
    """Whether a file or folder of that name is hidden, or left behind by a system."""
    return name[0] == "." or name.casefold() in _JUNK


def _refuse_special(entry: os.DirEntry) -> None:
    """Of a pipe, a socket or a device the reading might never end."""
    with suppress(OSError):  # a link in a circle
        if not (entry.is_file() or entry.is_dir()) and os.path.exists(entry.path):  # else a link to nowhere
            raise Hw1Error(f"{entry.path} is neither a file nor a folder: move it away.")


def _is_folder(entry: os.DirEntry) -> bool:
    with suppress(OSError):  # a link in a circle, or to where one may not look
        return entry.is_dir()
    return False
