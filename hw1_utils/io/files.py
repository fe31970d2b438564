"""Writing and reading files so that a finished file is complete and a damaged one is noticed.

What one run leaves for the next (features, checkpoints, costs, finished models) has one form: `write_checked`. Only the
memory-mapped arrays of `arrays` keep NumPy's own beside it, with the checksum in a file of notes: they may be larger
than memory, and this form is read and written whole.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import Hw1Error


def partial_beside(path: Path) -> Path:
    """Where this process writes what will be `path`. The suffix stays: pandas and matplotlib go by it.

    Of several machines that share a folder under torchrun two may have the same number of a process, but not of a rank.
    """
    rank = f"-{os.environ['RANK']}" if "RANK" in os.environ else ""
    return path.with_name(f".{os.getpid()}{rank}.partial{path.suffix}")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place, synced to disk, if the block succeeds.

    A crash or an exception inside the block leaves whatever stood at `path` untouched.

    Raises:
        Hw1Error: the disk is full, the folder read-only or the like.
    """
    partial = partial_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with open(partial, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise Hw1Error(
            f"{path} cannot be written ({error.strerror or error}): make room there or choose another folder, then "
            "run again; what is finished is kept."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def clear_partials(paths: Iterable[Path]) -> None:
    """Remove those of `paths`, files or folders, that a writer which was killed left half-written."""
    with suppress(OSError):  # where there is nothing to list, there is nothing to remove
        paths = list(paths)
    for path in paths:
        match = re.fullmatch(r"\.(\d+)(?:-\d+)?\.partial(\..*)?", path.name)
        if match and not _is_running(int(match[1])):
            with suppress(OSError):  # somebody else's, perhaps
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_running(pid: int) -> bool:
    if pid == os.getpid():
        return False  # an earlier process had our number
    if os.name == "nt":
        return True  # not known: os.kill(pid, 0) is Ctrl-C there
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # somebody else's process
    return True


def lock(folder: Path, setting: str = "output_dir") -> FileLock:
    """Keep other processes from running into the same folder until this one ends (or calls `.release()`).

    Args:
        setting: what chooses the folder, as it stands in sentences.

    Raises:
        Hw1Error: another process has it, or the folder cannot be written.
    """
    taken = FileLock(folder / ".hw1.lock", timeout=0, is_singleton=True)  # one process may take it again
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken.acquire()
    except Timeout as error:
        raise Hw1Error(
            f"Another run is at work in {folder}: wait for its end (a notebook's run ends with its kernel), or give "
            f"this one another {setting}."
        ) from error
    except OSError as error:
        raise Hw1Error(f"{folder} cannot be written ({error.strerror or error}): choose another {setting}.") from error
    return taken


def full_paths(folder: Path, paths: Iterable[str]) -> list[str]:
    """These paths, relative to the folder, with the folder in front. (`Path` takes a second for 100,000 of them.)"""
    start = os.fspath(folder)
    return [os.path.join(start, path) for path in paths]


def file_version(path: str | Path) -> str:
    """Size and time of change, as far as the file can be looked at (not where a link leads nowhere)."""
    try:
        status = os.stat(path)
    except OSError as error:
        return str(error.strerror)
    return f"{status.st_size} {status.st_mtime_ns}"


def free_bytes(path: Path) -> int:
    """Free space of the file system on which `path` lies, or will lie."""
    return shutil.disk_usage(next(folder for folder in (path, *path.parents) if os.path.exists(folder))).free


def damaged(path: Path) -> None:
    """Say so, or why it may not even be opened; nothing of it is used."""
    why = "is damaged"
    try:
        path.open("rb").close()
    except OSError as error:
        why = f"cannot be read ({error.strerror})"
    print(f"The file {path.name} {why}: it is made anew.")


def write_json(path: Path, value: object) -> None:
    """Write `value` as readable JSON, atomically. A number that is not finite is refused (ValueError)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def write_csv(path: Path, table: pd.DataFrame, float_format: str = "%.6g", header: bool = True) -> None:
    """Write a table without its index, atomically. What is not UTF-8, in a file's name say, is escaped."""
    with atomic(path) as partial:
        table.to_csv(partial, index=False, header=header, float_format=float_format, errors="backslashreplace")


def sha256_file(path: Path) -> str:
    """SHA256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sha256_tensors(tensors: dict[str, torch.Tensor]) -> str:
    """SHA256 over names, dtypes, shapes and bytes, in name order: equal exactly when the contents are."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def write_checked(path: Path, tensors: dict[str, torch.Tensor] | None = None, notes: dict | None = None) -> None:
    """Write tensors and notes, plain values by name, as a safetensors file with a checksum of both, atomically.

    Notes that are text are entries of the file's metadata; all others together are one more, JSON under the name
    `json`: that name and `sha256` are taken.

    Raises:
        Hw1Error: the disk refuses.
    """
    metadata = {name: note for name, note in (notes or {}).items() if isinstance(note, str)}
    if others := {name: note for name, note in (notes or {}).items() if name not in metadata}:
        metadata["json"] = json.dumps(others)
    data = save(tensors or {}, metadata | {"sha256": checksum(tensors or {}, metadata)})
    with atomic(path) as partial:
        partial.write_bytes(data)


def read_checked(path: Path) -> tuple[dict[str, torch.Tensor], dict] | None:
    """What `write_checked` wrote: (tensors, notes), or None if it is missing or, said aloud, damaged."""
    if not os.path.exists(path):
        return None
    try:
        tensors, metadata = read_safetensors(path)
    except (SafetensorError, OSError):
        return damaged(path)
    if metadata.pop("sha256", None) != checksum(tensors, metadata):
        return damaged(path)
    return tensors, metadata | json.loads(metadata.pop("json", "{}"))


def read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(tensors, metadata) of any safetensors file. Raises SafetensorError or OSError."""
    with safe_open(path, framework="pt") as f:
        return {name: f.get_tensor(name) for name in f.keys()}, f.metadata() or {}  # noqa: SIM118 (not a dict)


def checksum(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> str:
    """SHA256 over the contents of a safetensors file; in its metadata it stands under the name `sha256`."""
    return hashlib.sha256(json.dumps([sha256_tensors(tensors), metadata], sort_keys=True).encode()).hexdigest()
