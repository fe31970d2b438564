"""A CSV of paths and labels in place of a data folder: `path,label[,split][,group]`, as people have them."""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from ..errors import Hw1Error, some
from .folders import Folder, Part, alike, images_for_test, part_of, with_groups
from .groups import EXAMPLE, groups_by_pattern
from .listing import IMAGE, Listing

DELIMITERS = ",;\t"
# What columns are called, without case and separators; an id, or a number of a class, where there is nothing better.
HEADS = {
    "path": (
        "path paths filepath filepaths imagepath imgpath relpath filename filenames file files fname image images img "
        "imagename imgname imagefile imagefilename",
        "id ids imageid imgid idcode",
    ),
    "label": (
        "label labels class classes classname labelname category target",
        "classid labelid categoryid classindex labelindex",
    ),
    "split": ("split splits set subset part partition dataset", ""),
    "group": ("group groups groupid", ""),
}
# Columns that are left out and named: images of one patient or film on both sides of a split make the test too easy.
MAY_GROUP = re.compile(
    r"patient|subject|person|lesion|specimen|individual|animal|video|film|clip|session|sequence|scene"
)
FLAGS = {"0": False, "0.0": False, "1": True, "1.0": True}
SAMPLE = 50  # rows that are looked for in every folder nearby
FOLDERS = 200  # nearby, of which that is done


@dataclass(frozen=True)
class _Table:
    """The rows of a CSV, as text without space around it."""

    shown: str
    head: list[str]
    rows: list[list[str]]  # N
    lines: list[int]  # N, where each ends in the file

    def column(self, name: str) -> list[str]:
        """N cells."""
        return [row[self.head.index(name)] for row in self.rows]

    def where(self, rows: Sequence[int]) -> str:
        """ "line 3", or "lines 3, 4, 9" """
        return f"line{'s' if len(rows) > 1 else ''} {some([str(self.lines[row]) for row in rows])}"


def read_table(file: Path, shown: str, groups: str | None = None) -> Folder:
    """Read which images there are, of which class and, where that is a column, in which part; none is opened.

    Commas, semicolons or tabs separate; heads are those of `HEADS` in any case and, of two columns, one is the label
    whatever it is called; in its place each class may have a column of zeros and ones. Paths start at the CSV's folder
    or at one in it, two levels down at most; of a file without a suffix the name is enough. Labels are names, "1" as
    well. Parts are as in `read_folder`.

    Args:
        shown: what the file is called in sentences.
        groups: a column, or a pattern on the path (see `groups_by_pattern`); None: the column `group`, if there is one.

    Returns:
        The parts, with paths relative to the CSV's folder.

    Raises:
        Hw1Error: there is no such file, it or its columns are not understood, files are missing or lie elsewhere, a row
            is there twice, a word names no part, or what `read_folder` refuses as well.
    """
    table = _read(file, shown)
    columns = _columns(table, groups)
    flags = [] if "label" in columns else _flags(table, columns)
    labels = _from_columns(table, flags) if flags else _filled(table, columns["label"])
    paths = _found(file.parent, _inside(file.parent, table, columns["path"]), table)
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        several = Counter(path for path, _ in set(zip(paths, labels, strict=True)))
        odd = [path for path in twice if several[path] > 1]
        files = [*odd, *(path for path in twice if several[path] == 1)]
        rows = [row for row, path in enumerate(paths) if path == files[0]]
        contrary = f", {len(odd):,} of them under several labels" if odd else ""
        raise Hw1Error(
            f"{shown} has {len(twice):,} file{'s' if len(twice) > 1 else ''} more than once ({some(files, 3)}; "
            f"{table.where(rows)}){contrary}: leave one row for each."
        )
    classes = sorted(set(labels))
    for twins in alike(classes, str):
        raise Hw1Error(
            f"Classes in {shown} look the same and differ only in their Unicode form ({some(map(ascii, twins))}): make "
            "them one."
        )
    if len(classes) < 2:
        raise Hw1Error(f"{shown} has one class only ({some(classes)}): a classifier needs at least two.")
    rows, notes = _parts(table, columns.get("split"), labels)
    numbers = {name: number for number, name in enumerate(classes)}
    parts = {
        part: Part(file.parent, [paths[i] for i in which], [numbers[labels[i]] for i in which], classes, [])
        for part, which in rows.items()
    }
    notes += [f"classes that only case tells apart: {some(names)}" for names in alike(classes, str.casefold)]
    if named := columns.get("group"):
        names = _filled(table, named, "fill it in, for an image that belongs to no other with a name of its own")
    elif groups:
        names = groups_by_pattern(paths, groups)
    if named or groups:
        parts, said = with_groups(parts, [names[i] for which in rows.values() for i in which])
        notes += said
    if "test" not in parts:
        count = "about a fifth" if named or groups else f"{images_for_test(parts['train']):,}"
        notes.insert(0, f"{shown} names no test part: {count} of its images are put aside for the test")
    used = ", ".join(f"{what} in {name!r}" for what, name in columns.items())
    if flags:
        used += f", label by the column that has a 1: {some(map(repr, flags), 10)}"
    if rest := [head for head in table.head if head not in [*columns.values(), *flags]]:
        used += f"; left out: {some(map(repr, rest), 10)}"
    if not (named or groups) and (series := [head for head in rest if MAY_GROUP.search(_plain(head))]):
        notes.append(f"if {some(map(repr, series))} says what belongs together, give groups={series[0]!r}")
    counts = ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
    images = f"{len(paths):,} images" if len(parts) == 1 else f"{counts} images"
    print(f"{shown}: {images}; {len(classes)} classes: {some(classes)}")
    for note in [f"columns: {used}", *notes]:
        print(f"  {note}")
    return Folder(parts, "test" in parts)


# ---- the file


def _read(file: Path, shown: str) -> _Table:
    """The rows, all as long as the head.

    Raises:
        Hw1Error: there is no such file, it is not text, has no rows, or some of another length.
    """
    if not file.is_file():
        raise Hw1Error(f"There is no file {shown}: give a CSV of paths and labels, or a folder.")
    contents = file.read_bytes()
    coding = "utf-16" if contents[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # Excel's "Unicode text"
    try:
        text = contents.decode(coding)
    except UnicodeDecodeError as error:
        raise Hw1Error(f'{shown} is not in UTF-8 ({error.reason}): save it once more, as "CSV UTF-8".') from error
    first, _, rest = text.partition("\n")
    if said := re.fullmatch(r"\"?sep=(.)\"?", first.strip()):  # a line that Excel reads, and writes for itself
        text, skipped, delimiter = rest, 1, said[1]
    else:
        skipped, delimiter = 0, max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    read, lines = [], []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                read.append([cell.strip() for cell in row])
                lines.append(reader.line_num + skipped)
    except csv.Error as error:
        raise Hw1Error(f"{shown}, line {reader.line_num + skipped}: {error}: mend the line.") from error
    if len(read) < 2:
        raise Hw1Error(f"{shown} has no rows: give a line of heads, path and label, and one for each image.")
    table = _Table(shown, read[0], read[1:], lines[1:])
    if odd := [row for row, cells in enumerate(table.rows) if len(cells) != len(table.head)]:
        raise Hw1Error(
            f"{shown} has {len(table.head)} heads, but {len(table.rows[odd[0]])} cells in {table.where(odd[:1])} "
            f"({len(odd):,} such rows): put quotes around what holds a {delimiter!r}."
        )
    return table


def _filled(table: _Table, name: str, advice: str = "fill it in, or take the rows out") -> list[str]:
    """A column in which no cell may be empty."""
    cells = table.column(name)
    if empty := [row for row, cell in enumerate(cells) if not cell]:
        raise Hw1Error(
            f"{table.shown} has nothing in column {name!r} in {table.where(empty)} ({len(empty):,} of {len(cells):,} "
            f"rows): {advice}."
        )
    return cells


def _flags(table: _Table, columns: dict[str, str]) -> list[str]:
    """Heads of the columns, not used otherwise, that hold zeros and ones alone: one-hot labels, if there are several.

    As in exports of Roboflow (`_classes.csv`) and in ISIC's tables.
    """
    rest = [head for head in table.head if head not in columns.values()]
    return [head for head in rest if all(cell in FLAGS for cell in table.column(head))]


def _from_columns(table: _Table, heads: list[str]) -> list[str]:
    """N labels: the head of the one of these columns, as from `_flags`, that has a 1 in the row.

    Raises:
        Hw1Error: a row has none, or several.
    """
    ones = [
        [head for head, flag in zip(heads, flags, strict=True) if FLAGS[flag]]
        for flags in zip(*map(table.column, heads), strict=True)
    ]
    if odd := [row for row, names in enumerate(ones) if len(names) != 1]:
        raise Hw1Error(
            f"{table.shown} has no column 'label', and of its columns of zeros and ones ({some(map(repr, heads))}) not "
            f"just one has a 1 in {table.where(odd)} ({len(odd):,} of {len(ones):,} rows): take these rows out, or "
            "name the one class of each image in a column 'label'."
        )
    return [names[0] for names in ones]


def _columns(table: _Table, groups: str | None) -> dict[str, str]:
    """What is in which column, by its head: path, label (unless classes have a column each), split and group if there.

    Raises:
        Hw1Error: a head is there twice, or none or several may be meant.
    """
    if twice := [name for name, count in Counter(table.head).items() if count > 1]:
        raise Hw1Error(f"{table.shown} has several columns called {some(map(repr, twice))}: rename all but one.")
    taken: dict[str, str] = {}
    if groups and (named := [head for head in table.head if head.casefold() == groups.strip().casefold()]):
        taken["group"] = named[0]
    elif groups and "(" not in groups:  # nor is it a pattern
        raise Hw1Error(
            f"{table.shown} has no column {groups!r} among {some(map(repr, table.head), 10)}: name in groups a column "
            f"that it has, or give a pattern on the path such as {EXAMPLE}."
        )
    for what, tiers in HEADS.items():
        if what in taken or (what == "group" and groups):
            continue
        for tier in tiers:
            fits = [head for head in table.head if head not in taken.values() and _plain(head) in tier.split()]
            if len(fits) > 1:
                raise Hw1Error(
                    f"{table.shown} has several columns that may be the {what}: {some(map(repr, fits))}; rename all "
                    "but one."
                )
            if fits:
                taken[what] = fits[0]
                break
    rest = [head for head in table.head if head not in taken.values()]
    if "path" in taken and "label" not in taken and len(rest) == 1:
        taken["label"] = rest[0]
    if "path" not in taken and any(IMAGE.search(head) for head in table.head):
        raise Hw1Error(
            f"{table.shown} begins with an image ({some(map(repr, table.head), 3)}) and has no line of heads: put one "
            "above it, such as path,label."
        )
    for what in ("path", "label"):
        if what in taken or (what == "label" and len(_flags(table, taken)) > 1):
            continue
        raise Hw1Error(
            f"{table.shown} has no column {what!r} among {some(map(repr, table.head), 10)}: call the one that "
            f"holds each image's {'file' if what == 'path' else 'class'} {what!r}."
        )
    return {what: taken[what] for what in HEADS if what in taken}


def _plain(head: str) -> str:
    return re.sub(r"[\W_]+", "", head.casefold())


# ---- the files


def _inside(folder: Path, table: _Table, name: str) -> list[str]:
    """The paths as they are written, with slashes and relative to the CSV's folder or to one in it.

    Raises:
        Hw1Error: one is empty or leads out of the CSV's folder.
    """
    paths, outside = [], []
    for row, written in enumerate(_filled(table, name)):
        path = written.replace("\\", "/")
        if path.startswith("/") and Path(path).is_relative_to(os.path.abspath(folder)):
            path = Path(path).relative_to(os.path.abspath(folder)).as_posix()
        plain = os.path.normpath(path).replace(os.sep, "/")
        if plain.startswith("/") or plain.split("/")[0] == ".." or re.match(r"[A-Za-z]:/", plain):
            outside.append(row)
        paths.append(plain)
    if outside:
        raise Hw1Error(
            f"{table.shown} names files outside of its own folder ({some([paths[row] for row in outside], 3)}; "
            f"{table.where(outside)}): put the CSV into the folder above all images, with paths relative to that."
        )
    return paths


class _Nearby:
    """Which files lie where, each folder listed when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._listed = folder, {}

    def find(self, root: str, path: str) -> str | None:
        """The path from the CSV's folder of a file, which may be written without its suffix; None: it is not there.

        Raises:
            Hw1Error: several files may be meant.
        """
        place, _, name = f"{root}{path}".rpartition("/")
        if place not in self._listed:
            self._listed[place] = _list(self.folder / place)
        names, stems = self._listed[place]
        if name in names:
            found = name
        elif len(fits := stems.get(name, [])) > 1:
            raise Hw1Error(
                f"{path!r} may be {' or '.join(fits)} in {self.folder / place}: write the suffixes into the CSV."
            )
        elif fits:
            found = fits[0]
        else:
            return None
        return f"{place}/{found}" if place else found


def _list(folder: Path) -> tuple[set[str], dict[str, list[str]]]:
    """Names of the files in a folder that may be images; those of each stem."""
    names = Listing(folder).candidates if folder.is_dir() else []
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(PurePosixPath(name).stem, []).append(name)
    return set(names), stems


def _found(folder: Path, paths: list[str], table: _Table) -> list[str]:
    """Each file's path from the CSV's folder.

    Where the CSV's own folder lacks some, all folders nearby are tried: one that has them all is taken, and of several
    the one that is called train; else each file must lie in exactly one of them, as where images come in pieces.

    Raises:
        Hw1Error: files are missing, or it is not clear in which folder they are meant.
    """
    nearby = _Nearby(folder)
    direct = [nearby.find("", path) for path in paths]
    if all(direct):
        return direct
    sample = paths[:: max(1, len(paths) // SAMPLE)]
    roots = ["", *islice(_roots(Listing(folder), "", 2), FOLDERS)]
    roots = [root for root in roots if any(nearby.find(root, path) for path in sample)]
    found = {root: [nearby.find(root, path) for path in paths] for root in roots}
    whole = [root for root in roots if all(found[root])]
    named = [root for root in whole if any(part_of(name) == "train" for name in root.split("/"))]
    if len(one := named if len(whole) > 1 and len(named) == 1 else whole) == 1:
        return found[one[0]]
    every = [[place for place in places if place] for places in zip(*found.values(), strict=True)]
    every = every or [[] for _ in paths]
    if lost := [row for row, places in enumerate(every) if not places]:
        where = f"{folder} and the folders in it" if not roots else some([f"{folder / root}" for root in roots], 3)
        raise Hw1Error(
            f"{len(lost):,} of {len(paths):,} files that {table.shown} names are not there: "
            f"{some([paths[row] for row in lost])} ({table.where(lost)}; looked for in {where}): add them, or take the "
            "rows out."
        )
    if unclear := [places for places in every if len(places) > 1]:
        raise Hw1Error(
            f"{table.shown} may mean {' or '.join(unclear[0])} ({len(unclear):,} such rows): write the folder into the "
            "paths."
        )
    return [places[0] for places in every]


def _roots(place: Listing, above: str, depth: int) -> Iterator[str]:
    """Folders below, with a slash at the end: all of one level before those of the next."""
    level = [(f"{above}{inside.name}/", inside) for inside in place.folders]
    while level and depth:
        yield from (name for name, _ in level)
        depth -= 1
        level = [(f"{name}{below.name}/", below) for name, here in level for below in here.folders if depth]


# ---- the parts


def _parts(table: _Table, name: str | None, labels: list[str]) -> tuple[dict[str, list[int]], list[str]]:
    """(the rows of train and, where they are given, val and test; notes). By the same rules as for folders.

    Raises:
        Hw1Error: a word names no part, there is none to train on, or parts have different classes.
    """
    if name is None:
        return {"train": list(range(len(labels)))}, []
    rows: dict[str | None, list[int]] = {}
    words = _filled(table, name)
    for row, word in enumerate(words):
        rows.setdefault(part_of(word), []).append(row)
    if odd := rows.pop(None, []):
        raise Hw1Error(
            f"{table.shown} says in column {name!r} {some(dict.fromkeys(repr(words[row]) for row in odd))} "
            f"({table.where(odd)}), which names no part: write train, val or test, or rename the column."
        )
    notes = []
    if "train" not in rows:
        raise Hw1Error(f"{table.shown} names no image to train on in column {name!r}: write train, val or test.")
    if "test" not in rows and "val" in rows:
        notes.append(f"{table.shown} names no test part: {words[rows['val'][0]]!r} takes its place")
        rows["test"] = rows.pop("val")
    if len(rows.get("val", "both")) == 1:
        raise Hw1Error(f"{table.shown} has one image only to validate on: name more, or none.")
    here = {labels[row] for row in rows["train"]}
    for part in sorted(rows.keys() - {"train"}):
        there = {labels[row] for row in rows[part]}
        if odd := sorted(here ^ there if part == "test" else there - here):
            raise Hw1Error(
                f"train and {part} in {table.shown} must have the same classes; only one of them has: {some(odd)}."
            )
        if part == "val" and here - there:
            notes.append(f"no images to validate on: {some(sorted(here - there))}")
    return {part: rows[part] for part in ("train", "val", "test") if part in rows}, notes
