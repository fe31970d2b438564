"""Writing and reading files so that a finished file is complete and a damaged one is noticed."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save


class Hw1Error(Exception):
    """What went wrong and what to do about it, in one sentence meant for the person at the keyboard."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place, synced to disk, if the block succeeds.

    A crash or an exception inside the block leaves whatever stood at `path` untouched. The file keeps
    its suffix, so that writers which look at it (matplotlib, pandas) choose the right format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        with open(partial, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write `value` as readable JSON, atomically. A number that is not finite is refused (ValueError)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def write_csv(path: Path, table: pd.DataFrame, float_format: str = "%.6g") -> None:
    """Write a table without its index, atomically."""
    with atomic(path) as partial:
        table.to_csv(partial, index=False, float_format=float_format)


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


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], **notes: str) -> bool:
    """Write a cache file with a checksum of its contents. A disk that refuses costs a warning, not the run.

    Returns:
        Whether the file was written.
    """
    data = save(tensors, {**notes, "sha256": _checksum(tensors, notes)})
    try:
        with atomic(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        print(f"Not cached, the run goes on: {path.name} cannot be written ({error.strerror}).")
        return False
    return True


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
    """Read what `save_tensors` wrote: (tensors, notes), or None if it is missing or, said aloud, damaged."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as f:
            notes = f.metadata() or {}
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
        if notes.pop("sha256", None) == _checksum(tensors, notes):
            return tensors, notes
    except (SafetensorError, OSError):
        pass
    print(f"The cache file {path.name} is damaged: it is made anew.")
    return None


def _checksum(tensors: dict[str, torch.Tensor], notes: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps([sha256_tensors(tensors), notes], sort_keys=True).encode()).hexdigest()
