"""Archives of a data folder: unpacked once, where caches go, and never anywhere else."""

import gzip
import hashlib
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from ..errors import Hw1Error
from .files import file_version, free_bytes, partial_beside
from .listing import is_junk

ARCHIVE = re.compile(r"\.(?:zip|tar|tar\.(?:gz|bz2|xz)|tgz|tbz2?|txz)$", re.IGNORECASE)
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, ValueError)
DAMAGE += (NotImplementedError,)  # a way of packing that Python does not know
Members = Iterator[tuple[str, Callable[[], IO[bytes]]]]  # of each file its name, and what opens it


def unpacked_path(archive: Path, cache: Path) -> Path:
    """Where the archive's files are, or will be: for this size and time of change, a folder of the archive's name."""
    key = hashlib.sha256(file_version(archive).encode()).hexdigest()[:16]
    return cache / f"unpacked-{key}" / ARCHIVE.sub("", archive.name)


def unpack(archive: Path, cache: Path) -> None:
    """Make `unpacked_path` in the folder `cache`, unless it is there: all of it or nothing.

    What file managers leave behind and what is hidden is left out. What an earlier version of the archive was unpacked
    to is removed.

    Raises:
        Hw1Error: there is no such file, it is damaged, encrypted or larger than what is free on the disk, it holds a
            link or a device, or a name in it leads out of the folder.
    """
    target = unpacked_path(archive, cache)
    place = target.parent
    if place.is_dir():
        return
    if not archive.is_file():
        raise Hw1Error(f"There is no file {archive}: give the archive of a data folder, or the folder itself.")
    unfinished = partial_beside(place)
    try:
        count = _write(archive, unfinished / target.name)
        if not place.is_dir():  # else another process has been faster
            os.replace(unfinished, place)
    except DAMAGE as error:
        raise Hw1Error(f"{archive} is damaged, or no archive at all ({error}): get it once more.") from error
    except OSError as error:
        raise Hw1Error(
            f"{archive} cannot be unpacked into {cache} ({error.strerror or error}): make room there, or unpack it "
            "yourself and give the folder."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    for earlier in cache.glob("unpacked-*"):
        if earlier != place:
            shutil.rmtree(earlier, ignore_errors=True)
    print(f"{archive.name}: {count:,} files unpacked into {cache}")


def _write(archive: Path, folder: Path) -> int:
    """Unpack all files into the folder; how many there are."""
    folder.mkdir(parents=True)
    free, count = free_bytes(folder), 0
    members = _in_zip(archive, free) if zipfile.is_zipfile(archive) else _in_tar(archive, free)
    for name, opened in members:
        parts = _parts(name, archive)
        if not parts or any(map(is_junk, parts)):
            continue
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened() as source, open(path, "wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        count += 1
    return count


def _parts(name: str, archive: Path) -> list[str]:
    """Of the path of a file in the archive; Windows' backslashes separate, too, as some packers leave them.

    Raises:
        Hw1Error: it leads out of the folder.
    """
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    if re.match(r"[/\\]|[A-Za-z]:", name) or ".." in parts or "\0" in name:
        raise Hw1Error(
            f"{archive} has a file called {name!r}, which leads out of the folder that it is unpacked into: pack the "
            "data folder itself, with relative names."
        )
    return parts


def _refuse_large(archive: Path, size: int, free: int) -> None:
    if size > free:
        raise Hw1Error(
            f"{archive} holds {size / 1e6:,.0f} MB or more, and {free / 1e6:,.0f} MB are free where it is to be "
            "unpacked: make room there, or take fewer images."
        )


def _refuse_special(archive: Path, name: str) -> None:
    raise Hw1Error(f"{archive} holds {name!r}, which is a link or a device: pack the files themselves.")


def _in_zip(archive: Path, free: int) -> Members:
    with zipfile.ZipFile(archive) as file:
        infos = [info for info in file.infolist() if info.filename[-1:] not in ("/", "\\")]
        _refuse_large(archive, sum(info.file_size for info in infos), free)  # no more than that is ever read of one
        for info in infos:
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                _refuse_special(archive, info.filename)
            if info.flag_bits & 1:
                raise Hw1Error(f"{archive} is encrypted: unpack it yourself and give the folder.")
        for info in infos:
            yield info.filename, partial(file.open, info)


def _in_tar(archive: Path, free: int) -> Members:
    size = 0
    with tarfile.open(archive) as file:
        for member in file:
            if member.isdir():
                continue
            if not member.isfile():
                _refuse_special(archive, member.name)
            size += member.size  # known before a byte of it is read
            _refuse_large(archive, size, free)
            yield member.name, partial(file.extractfile, member)
        file.fileobj.seek(file.offset)
        if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes any rest for the end
            raise tarfile.ReadError("its end is missing")
