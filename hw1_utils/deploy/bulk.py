"""Predictions for any number of files, as a CSV: streamed, resumed after a kill, shared out under torchrun.

While it is made, `<output>.parts/` holds the list of the files, made once, and a CSV of each PART of them. Parts are
files of their own, joined in the end, and nothing is appended to one file: a part is there complete or not at all,
whichever process has written it, and in whatever order. `<output>.json` says in the end what the CSV was made from.
"""

import csv
import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from ..errors import Hw1Error, some
from ..io.files import atomic, clear_partials, lock, sha256_file, write_csv, write_json
from ..io.images import READING
from ..io.progress import Progress
from ..io.ranks import Ranks
from .saved import SavedModel, columns, each_file, predict, refuse_nothing

PART = 1024  # files: what an interruption can cost
BATCH = 256  # files decoded at a time
NAMED = 6  # at most, of what was left out and the like: one more than a sentence shows
_BOUND = {  # to what a CSV is bound, and what it is called where it is another
    "model_sha256": "another model",
    "target_accuracy": "another target accuracy",
    "arguments_sha256": "other files",
    "device": "another kind of device",
    "torch": "another version of torch",
    "reading": "another version of this project",
    "part": "another version of this project",
}

Say = Callable[[str], object]


@dataclass(frozen=True)
class Output:
    """The CSV and what lies beside it."""

    path: Path

    @property
    def about(self) -> Path:
        """What the finished CSV was made from, and how many of its rows are what."""
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def parts(self) -> Path:
        """The folder of what is finished of it."""
        return self.path.with_name(f"{self.path.name}.parts")

    @property
    def begun(self) -> Path:
        """What it is being made from: written when the list of files is complete, removed when the CSV is."""
        return self.parts / "run.json"

    @property
    def files(self) -> Path:
        """Their paths, each with a zero byte behind it, the one that no name has."""
        return self.parts / "files.txt"

    def part(self, number: int) -> Path:
        """Rows of PART files, without a header."""
        return self.parts / f"{number:08d}.csv"

    def names(self, offsets: list[int], number: int) -> list[str]:
        """Paths of the files of a part."""
        with open(self.files, "rb") as file:
            file.seek(offsets[number])
            listed = file.read(offsets[number + 1] - offsets[number])
        return [os.fsdecode(name) for name in listed.split(b"\0")[:-1]]

    def is_ours(self, path: str) -> bool:
        """Whether a file that was found is one of these: the CSV may lie in the folder of the images."""
        if self.path.name not in path:
            return False
        real, here = os.path.realpath(path), os.path.realpath(self.path)
        return real in (here, f"{here}.json") or real.startswith(os.path.join(f"{here}.parts", ""))


@dataclass
class Found:
    """What there is to predict."""

    files: int = 0
    sha256: str = ""  # of their paths, in order
    offsets: list[int] = field(default_factory=list)  # in bytes, in the list of files: of each part, and of the end
    left_out: Counter = field(default_factory=Counter)  # how many files are by suffix no images, folders without any
    named: dict[str, list[str]] = field(default_factory=dict)  # some of each

    def __str__(self) -> str:
        words = {"left out": "left out, by name no image", "empty": "folders without images"}
        parts = [f"{words[kind]}: {count:,} ({some(self.named[kind])})" for kind, count in self.left_out.items()]
        return "; ".join([f"{self.files:,} files", *parts])


def predict_to_csv(
    model: SavedModel,
    source: Path,
    arguments: list[str],
    output: Path,
    ranks: Ranks,
    *,
    target_accuracy: float | None = None,
    say: Say = print,
) -> None:
    """Write the table of `saved.predict` for all files that the arguments name, a row a file, in their order.

    Memory does not grow with the number of files, but for the names of one folder while it is listed. Called again
    after whatever end, it goes on with the parts that are missing, and the CSV is the same to the last byte; with
    another model, other settings or files it refuses. Files that have gone since it was begun get rows that say so, as
    all that cannot be read do, in the column `error`; other contents under the same name are not noticed. Of paths,
    what is not UTF-8 and the character CR are escaped with a backslash.

    Args:
        source: the file of the model.
        arguments: files and folders, see `saved.each_file`.
        output: the CSV; its folder is made where there is none.
        ranks: the processes that share the parts: each of them calls this.
        say: where the first process's lines go.

    Raises:
        Hw1Error: there are no such files, the output is something else's, another process is at work on it, or the
            disk refuses.
    """
    place = Output(output)
    if output.suffix.lower() != ".csv" or output.is_dir():
        raise Hw1Error(f"The predictions cannot be written to {output}: name a file that ends in .csv.")
    bound = _bound(model, source, arguments, target_accuracy) if ranks.is_first else {}
    if ranks.first_says(ranks.is_first and _is_complete(place, bound, arguments, say)):
        return
    with _alone(place) if ranks.is_first else nullcontext():
        if ranks.is_first:
            _prepare(place, bound, arguments, say)
        ranks.barrier()
        begun = json.loads(place.begun.read_text(encoding="utf-8"))
        _predict_parts(model, place, begun, ranks, say)
        ranks.barrier()
        if ranks.is_first:
            _join(place, begun, columns(model, target_accuracy is not None), say)


@contextmanager
def _alone(place: Output) -> Iterator[None]:
    """Keep other runs away from the parts; nothing is left of them in the end but what can be gone on with."""
    taken = lock(place.parts, "--output")
    clear_partials(place.parts.glob(".*.partial*"))
    try:
        yield
    finally:
        taken.release()
        if not place.begun.exists():
            shutil.rmtree(place.parts, ignore_errors=True)


def _bound(model: SavedModel, source: Path, arguments: list[str], target_accuracy: float | None) -> dict:
    """What decides the rows, but for the files themselves."""
    places = b"\0".join(os.fsencode(os.path.abspath(argument)) for argument in arguments if argument)
    return {
        "model": model.title,
        "model_sha256": sha256_file(source),
        "target_accuracy": target_accuracy,
        "arguments_sha256": hashlib.sha256(places).hexdigest(),
        "device": next(model.module.parameters()).device.type,
        "torch": torch.__version__,
        "reading": READING,
        "part": PART,
    }


def _is_complete(place: Output, bound: dict, arguments: list[str], say: Say) -> bool:
    """Whether nothing is left to do, which is said.

    Raises:
        Hw1Error: there is a CSV, but of something else.
    """
    if not (place.path.exists() and place.about.exists()):
        return False
    kept = json.loads(place.about.read_text(encoding="utf-8"))
    _refuse_other(place.path, bound, kept)
    if _find(place, arguments).sha256 != kept["files_sha256"]:
        raise Hw1Error(f"{place.path} was made from other files: give another --output, or delete it.")
    shutil.rmtree(place.parts, ignore_errors=True)  # a kill just before the end may have left them
    say(f"{place.path} is complete: {_summary(kept)}")
    return True


def _prepare(place: Output, bound: dict, arguments: list[str], say: Say) -> None:
    """List the files, or see that they are those that the parts that are there were made from.

    Raises:
        Hw1Error: they are not, or there is a CSV of which nobody knows what it was made from, or nothing at all is
            where the arguments say.
    """
    if place.begun.exists():
        kept = json.loads(place.begun.read_text(encoding="utf-8"))
        _refuse_other(place.parts, bound, kept)
        found = _find(place, arguments)
        if found.sha256 != kept["files_sha256"]:
            _refuse_new(place, arguments, kept["offsets"])
            say(f"{kept['files'] - found.files:,} of {kept['files']:,} files have gone since {place.path} was begun")
        parts = range(len(kept["offsets"]) - 1)
        finished = sum(place.part(number).exists() for number in parts)
        say(f"{found}; {finished:,} of {len(parts):,} parts are finished")
    elif place.path.exists():
        raise Hw1Error(f"{place.path} is there, and nothing says what it was made from: give another --output.")
    elif all(arguments) and not any(map(os.path.lexists, arguments)):  # of some, each that is not there has a row
        raise Hw1Error(f"There is no {some(arguments)}: name files or folders of images.")
    else:
        with atomic(place.files) as partial, open(partial, "wb") as file:
            found = _find(place, arguments, file)
        listed = {"files": found.files, "files_sha256": found.sha256, "offsets": found.offsets}
        write_json(place.begun, bound | listed)
        say(str(found))


def _refuse_other(path: Path, bound: dict, kept: dict) -> None:
    for name, what in _BOUND.items():
        if bound[name] != kept[name]:
            raise Hw1Error(f"{path} was made with {what}: give another --output, or delete it.")


def _refuse_new(place: Output, arguments: list[str], offsets: list[int]) -> None:
    """Files may have gone from the list since it was made; what has come would not be in it."""
    before = (name for number in range(len(offsets) - 1) for name in place.names(offsets, number))
    for path, kind in each_file(arguments):
        if kind == "image" and path not in before:  # both are in the same order: it is looked for from where we are
            raise Hw1Error(
                f"{place.parts} was made from a list of files that lacks {path}: move away what is new, give another "
                "--output, or delete it."
            )


def _find(place: Output, arguments: list[str], listing: io.BufferedWriter | None = None) -> Found:
    """List the files, into a file if one is given."""
    found, digest, at = Found(), hashlib.sha256(), 0
    for path, kind in each_file(arguments):
        if kind == "image":
            name = os.fsencode(path) + b"\0"
            digest.update(name)
            if listing:
                listing.write(name)
            if found.files % PART == 0:
                found.offsets.append(at)
            found.files, at = found.files + 1, at + len(name)
        elif not place.is_ours(path):
            found.left_out[kind] += 1
            if len(named := found.named.setdefault(kind, [])) < NAMED:
                named.append(path)
    if not found.files:
        refuse_nothing(found.named.get("left out", []), found.named.get("empty", []))
    found.sha256 = digest.hexdigest()
    found.offsets.append(at)
    return found


def _predict_parts(model: SavedModel, place: Output, begun: dict, ranks: Ranks, say: Say) -> None:
    """Write the parts that are missing and fall to this process."""
    offsets, files, at_work = begun["offsets"], begun["files"], False
    progress = Progress("  predicting", files, "files", say=say) if ranks.is_first else None
    with progress or nullcontext():
        for number in ranks.share(range(len(offsets) - 1)):
            if place.part(number).exists():
                continue
            if progress and not at_work:
                progress.begin(number * PART)
                at_work = True
            names = place.names(offsets, number)
            tell = progress.say if progress else _tell
            table = predict(model, names, BATCH, tell, target_accuracy=begun["target_accuracy"])
            table["path"] = pd.Series([name.replace("\r", "\\r") for name in names], dtype=object)
            write_csv(place.part(number), table, header=False)
            if progress:  # the parts before this one are finished, or at work in other processes
                progress.update(min((number + 1) * PART, files))


def _tell(line: str) -> None:
    """Of processes that have no progress to show."""
    print(line)


def _join(place: Output, begun: dict, names: list[str], say: Say) -> None:
    """Make the CSV of its parts; then they go."""
    counts = {name: 0 for name in ("unsure", "error") if name in names}
    with atomic(place.path) as partial, open(partial, "wb") as whole:
        whole.write(pd.DataFrame(columns=names).to_csv(index=False).encode())
        for number in range(len(begun["offsets"]) - 1):
            rows = place.part(number).read_bytes()
            whole.write(rows)
            for row in csv.reader(io.StringIO(rows.decode(), newline="")):
                for name in counts:
                    counts[name] += row[names.index(name)] not in ("", "False")
    about = {name: value for name, value in begun.items() if name != "offsets"} | counts
    write_json(place.about, about)
    place.begun.unlink(missing_ok=True)
    say(f"{place.path}: {_summary(about)}")


def _summary(about: dict) -> str:
    parts = [f"{about['files']:,} files"]
    if "unsure" in about:
        parts.append(f"{about['unsure']:,} of them unsure")
    if about["error"]:
        parts.append(f"{about['error']:,} that cannot be read as images: their rows say why")
    return ", ".join(parts)
