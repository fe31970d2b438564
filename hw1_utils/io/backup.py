"""A second copy of finished work in another folder (a mounted Drive, say), for a runtime that may vanish."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from ..errors import Hw1Error
from .files import atomic, clear_partials, file_version, partial_beside


class Backup:
    """Mirrors finished files in `folder`, and brings them back into a fresh runtime.

    Where a copy cannot be made, that is said once and the run goes on without further copies.
    """

    def __init__(self, folder: Path | None) -> None:
        """`folder`: None keeps no copies."""
        self.folder = folder
        self._copied: dict[Path, str] = {}  # file -> its version when it was last copied
        if folder:
            with suppress(OSError):
                clear_partials(folder.rglob(".*.partial*"))

    def keep(self, path: Path, name: str) -> None:
        """Copy what is new or changed in `path`, a file or folder, to `folder/name`, the oldest first.

        So a checkpoint, written after the logs of its epochs, is never copied without them. Logs that were emptied are
        copied last, behind what has taken them in.
        """
        if not self.folder:
            return
        try:
            for file in sorted(_finished_files(path), key=lambda f: (not f.stat().st_size, f.stat().st_mtime_ns)):
                if self._copied.get(file) != file_version(file):
                    with atomic(self.folder / name / file.relative_to(path)) as partial:
                        shutil.copyfile(file, partial)
                    self._copied[file] = file_version(file)
        except (OSError, Hw1Error) as error:
            print(f"WARNING: no copies are kept in {self.folder} from here on. {error}")
            self.folder = None

    def restore(self, path: Path, name: str) -> bool:
        """Replace `path` by its copy `folder/name`, in one go. Returns whether there is one that can be read."""
        copy = self.folder / name if self.folder else None
        if copy is None or not os.path.exists(copy):
            return False
        staged = partial_beside(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if copy.is_dir():
                shutil.copytree(copy, staged, ignore=shutil.ignore_patterns(".*"))
                shutil.rmtree(path, ignore_errors=True)
            else:
                shutil.copyfile(copy, staged)
            os.replace(staged, path)
        except OSError as error:  # shutil.Error is one
            print(f"WARNING: the copy of {name} in backup_dir cannot be used, so it is made anew: {error}")
            return False
        finally:
            clear_partials([staged])
        self._copied.update((file, file_version(file)) for file in _finished_files(path))
        return True


def make_place(folder: Path) -> None:
    """Make the folder of the copies, but none above it: where a Drive is not mounted, copies would be lost with it.

    Raises:
        Hw1Error: it cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise Hw1Error(
            f"backup_dir {folder} cannot be made ({error.strerror}): correct it, mount its drive, or make the folder "
            "above it."
        ) from error


def _finished_files(path: Path) -> list[Path]:
    """`path` itself, or all files in it but those that are being written (`files.partial_beside`)."""
    files = (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [file for file in files if not file.name.startswith(".")]
