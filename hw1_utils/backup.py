"""A second copy of finished work in another folder (a mounted Drive, say), for a runtime that may vanish."""

import os
import shutil
from pathlib import Path

from .files import Hw1Error, atomic


class Backup:
    """Mirrors finished files in `folder`, and brings them back into a fresh runtime.

    Where a copy cannot be made, that is said once and the run goes on without further copies.
    """

    def __init__(self, folder: Path | None) -> None:
        """`folder`: None keeps no copies."""
        self.folder = folder
        self._copied: dict[Path, tuple[int, int]] = {}  # file -> its size and time of change when it was last copied

    def keep(self, path: Path, name: str) -> None:
        """Copy what is new or changed in `path`, a file or folder, to `folder/name`."""
        if self.folder:
            self._mirror(path, self.folder / name)

    def restore(self, path: Path, name: str) -> bool:
        """Replace `path` by its copy `folder/name`. Returns whether there is one."""
        if not self.folder or not os.path.exists(self.folder / name):
            return False
        if path.is_dir():
            shutil.rmtree(path)
        self._mirror(self.folder / name, path)
        return True

    def _mirror(self, source: Path, target: Path) -> None:
        try:
            files = [file for file in source.rglob("*") if file.is_file()] if source.is_dir() else [source]
            # The state of a training last: it must never promise epochs whose logs are not there.
            for file in sorted(files, key=lambda file: (file.parent.name == "state", file)):
                status = file.stat()
                version = status.st_size, status.st_mtime_ns
                if self._copied.get(file) != version and not file.name.startswith("."):  # a dot: being written
                    with atomic(target / file.relative_to(source)) as partial:
                        shutil.copyfile(file, partial)
                    self._copied[file] = version
        except (OSError, Hw1Error) as error:
            print(f"WARNING: no copies are kept in {self.folder} from here on. {error}")
            self.folder = None
