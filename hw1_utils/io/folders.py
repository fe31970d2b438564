"""What lies in a data folder, how its parts are read, and whether it will do, before a single image is opened."""

import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from operator import ne
from pathlib import Path

from ..errors import Hw1Error, some
from .groups import describe_groups, groups_by_pattern
from .listing import IMAGE, TABLE, Listing

LAYOUT = (
    "the data must lie as train/<class>/<image> and test/<class>/<image>, or as <class>/<image>, or be listed in a CSV "
    "(path,label) that is given in the folder's place"
)
TEST_SHARE = 0.2  # of the images, where the folder has no test/
# The usual names of parts, without case and separators: seg_train, Training set, testImages, val2017, ...
_PART = r"(?:x|seg|data|dataset|images?|imgs?)?(?:{})(?:set|data|dataset|images?|imgs?|split|folder)*\d*"
_PARTS = {
    "train": re.compile(_PART.format("train|training")),
    "val": re.compile(_PART.format("val|valid|validation|dev")),
    "test": re.compile(_PART.format("test|testing")),
}
_WORDS = ("valid", "dev")  # mean a part only beside a train/: somebody may sort images into valid/ and invalid/
_UNLABELLED = re.compile(r"(?:.*[\W_])?(?:pred|unlabel|unsup|submission|sample|example|demo)\w*")
_IMAGES = re.compile(r"images?|imgs?|jpegimages|pictures|photos")
_LABELS = re.compile(r"annotations?|labels?|masks?|trimaps|xmls?|bbox(?:es)?|imagesets")
_PIECES = re.compile(r".*images?[\W_]?(?:part[\W_]?)?\d+")  # images_001, images_002, ...
_ARCHIVE = re.compile(r"\.(?:zip|tar|t?gz|7z|rar)$", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """The files of one part, none of them opened."""

    folder: Path  # that holds the class folders
    paths: list[str]  # N, relative to the data folder, with slashes
    labels: list[int]  # N, indices into `classes`
    classes: list[str]  # K names, those of train
    left_out: list[str]  # files in the class folders that by their suffix are no images
    groups: list[int] | None = None  # N, numbers of what belongs together, the same in all parts; None: nobody said
    twins: list[int] | None = None  # N, numbers of clusters of near copies; no split made here parts them either

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Iterable[int]) -> "Part":
        """These files alone."""
        rows = list(rows)
        lists = {name: getattr(self, name) for name in ("paths", "labels", "groups", "twins")}
        return replace(self, **{name: kept and [kept[i] for i in rows] for name, kept in lists.items()})


@dataclass(frozen=True)
class Folder:
    """A data folder, read."""

    parts: dict[str, Part]  # train and, where they are given, val and test
    has_test: bool  # else the test is to be a share of the images of train: see `splits.put_aside`


def read_folder(root: Path, shown: str, groups: str | None = None) -> Folder:
    """Find the parts of the data, say how they are read, and see that they will do; no image is opened.

    Folders that only wrap another one are descended into. Without a test part the validation part takes its place;
    without any part the data are class folders, and there is a train part alone.

    Args:
        shown: what the folder is called in sentences.
        groups: a pattern on the path that says what belongs together, see `groups.groups_by_pattern`.

    Raises:
        Hw1Error: there is no such folder, what is in it is not understood, a part is missing or lacks images, the parts
            have different classes, links lead in a circle, names are not UTF-8, or the pattern does not match a path.
    """
    top = _top(root, shown)
    tables = [top.path / name for name in top.files if TABLE.search(name) and not _UNLABELLED.match(name.casefold())]
    try:
        found, notes = _find_parts(top, shown)
    except Hw1Error as error:
        if tables:
            raise Hw1Error(f"{str(error).removesuffix('.')}; or, if labels stand in it, give {tables[0]}.") from error
        raise
    if tables:
        notes.append(f"not read: {some([path.name for path in tables])}; if labels stand in it, give {tables[0]}")
    parts = {name: _read(name, place, root) for name, place in found.items()}
    if "val" in parts:  # it may lack a class that is rare
        names, val = parts["train"].classes, parts["val"]
        labels = [names.index(val.classes[label]) for label in val.labels]
        parts["val"] = replace(val, classes=names, labels=labels)
    classes = parts["train"].classes
    if len(classes) < 2:
        raise Hw1Error(f"{parts['train'].folder} has one class only: a classifier needs at least two.")
    places = [place.path for place in found.values()]
    _refuse_twins([*places, *(place / name for place in places for name in classes)])
    if "test" not in parts:
        notes.insert(0, f"{shown} has no test/: {_aside(parts['train'], groups)} put aside for the test")
    notes += _notes(found, parts, root)
    if groups:
        names = groups_by_pattern([path for part in parts.values() for path in part.paths], groups)
        parts, said = with_groups(parts, names)
        notes += said
    print(f"{shown}: {_how_used(parts, root)}; {len(classes)} classes: {some(classes)}")
    for note in notes:
        print(f"  {note}")
    return Folder(parts, "test" in parts)


def images_for_test(part: Part) -> int:
    """How many of the images are put aside, where there is no test part: a share, and one of each class at least."""
    return max(len(part.classes), math.ceil(TEST_SHARE * len(part)))


def with_groups(parts: dict[str, Part], names: list[str]) -> tuple[dict[str, Part], list[str]]:
    """(the parts with their groups, what is to be said about them); `names`: of all images, part after part.

    Raises:
        Hw1Error: all images are of one group.
    """
    found = sorted(set(names))
    numbers = {name: number for number, name in enumerate(found)}
    left = iter(names)
    parts = {part: replace(files, groups=[numbers[next(left)] for _ in files.paths]) for part, files in parts.items()}
    return parts, describe_groups(found, {part: files.groups for part, files in parts.items()})


def _aside(part: Part, groups: str | None) -> str:
    """How many images will be; with groups, which stay whole, that is not known yet."""
    return "about a fifth of its images is" if groups else f"{images_for_test(part):,} of its images are"


def _how_used(parts: dict[str, Part], root: Path) -> str:
    """What is trained on, validated on and tested on."""
    if "test" not in parts:
        return f"{len(parts['train']):,} images in class folders"
    named = {
        name: f"{part.folder.relative_to(root).as_posix()}/ ({len(part):,} images)" for name, part in parts.items()
    }
    validation = named.get("val", "a part of that")
    return f"trained on {named['train']}, validated on {validation}, tested on {named['test']}"


def _notes(found: dict[str, Listing], parts: dict[str, Part], root: Path) -> list[str]:
    """What is odd about the classes and their files, and what becomes of it."""
    notes, classes = [], parts["train"].classes
    validated = set(parts["val"].labels) if "val" in parts else set(range(len(classes)))
    if missing := [name for k, name in enumerate(classes) if k not in validated]:
        notes.append(f"no images to validate on: {some(missing)}")
    if dropped := [name for place in found.values() for name in _beside_classes(place, root)]:
        notes.append(f"left out, as no class folder: {some(dropped)}")
    if others := sorted({path for part in parts.values() for path in part.left_out}):
        notes.append(f"left out, by name no image: {_counted(others, 'file')}")
    if nested := [place.name for place in _class_folders(found["train"]) if any(map(_holds_images, place.folders))]:
        notes.append(f"what lies in folders below a class folder is of that class ({some(nested)})")
    return notes + [f"classes that only case tells apart: {some(names)}" for names in alike(classes, str.casefold)]


def singles(labels: Iterable[int], classes: list[str]) -> str:
    """ " (one image only: cat, dog)", of the classes that cannot be split for that; else nothing."""
    counts = Counter(map(int, labels))
    named = [name for label, name in enumerate(classes) if counts[label] == 1]
    return f" (one image only: {some(named)})" if named else ""


def _counted(names: list[str], kind: str) -> str:
    """2 files (a, b)"""
    return f"{len(names):,} {kind}{'s' if len(names) > 1 else ''} ({some(names)})"


def _top(root: Path, shown: str) -> Listing:
    """The folder that holds the parts, or the class folders.

    Raises:
        Hw1Error: there is no such folder.
    """
    if os.path.isfile(root):
        raise Hw1Error(f"{shown} is a file: give a folder, a .zip or .tar of one, or a .csv; {LAYOUT}.")
    if not os.path.isdir(root):
        raise Hw1Error(f"There is no folder {shown}: {LAYOUT}.")
    return _unwrap(Listing(root), into_parts=False)


def _find_parts(top: Listing, shown: str) -> tuple[dict[str, Listing], list[str]]:
    """(which folder holds the class folders of which part, notes on what else was found), by names alone.

    Train, test and, where one is given, val; train alone where a share of it is to become the test.

    Raises:
        Hw1Error: what is in the folder is not understood.
    """
    found: dict[str | None, list[Listing]] = {"train": [], "val": [], "test": [], None: []}
    for place in top.folders:
        found[part_of(place.name)].append(place)
    if not found["train"]:
        found["val"] = [place for place in found["val"] if place.name.casefold() not in _WORDS]
        if not found["val"] + found["test"]:
            return {"train": _check_classes(top)}, _copies(top)
        taken = " or ".join(f"{place.name}/" for place in found["val"] + found["test"])
        raise Hw1Error(
            f"There is no folder train/ in {top.path}, {_contents(top)}: {LAYOUT}; if {taken} is a class and no "
            "part, rename it."
        )
    notes = [note for place in found.pop(None) if (note := _why_left_out(place, found["train"][0]))]
    if loose := top.images:
        notes.append(f"left out, beside the parts: {_counted(loose, 'image')}")
    names, parts, unlabelled = {}, {}, []
    for part, candidates in found.items():
        labelled = [place for place in candidates if part == "train" or _is_labelled(place)]
        if len(labelled) > 1:
            several = " and ".join(f"{place.name}/" for place in labelled)
            raise Hw1Error(f"{several} in {top.path} may each be the {part} part: leave one of them there.")
        for place in labelled:
            names[part], parts[part] = place.name, _check_classes(_unwrap(place, into_parts=True))
            notes += _copies(parts[part])
        unlabelled = [place for place in candidates if place not in labelled] + unlabelled
    if "test" not in parts and "val" in parts:
        notes.insert(0, f"{shown} has no test/: {names['val']}/ takes its place")
        parts["test"] = parts.pop("val")
    if "test" not in parts:
        missing = [f"{place.path} has no class folders, {_contents(_innermost(place))}" for place in unlabelled]
        raise Hw1Error(
            f"{[*missing, f'There is no folder test/ in {top.path}'][0]}: {LAYOUT}; give {parts['train'].path} as the "
            "data folder to have a fifth of it put aside for the test."
        )
    notes += [f"left out: {p.name}/, which has no class folders, {_contents(_innermost(p))}" for p in unlabelled]
    for name in parts.keys() - {"train"}:
        _compare_classes(parts["train"], parts[name], every=name == "test")
    return parts, notes


def _only_folders(place: Listing) -> list[Listing]:
    """The folders directly inside, if there is no file among them that may be an image."""
    return [] if place.candidates else place.folders


def _holds_images(place: Listing) -> bool:
    return any(here.candidates for here in place.walk())


def _contents(place: Listing) -> str:
    """What lies directly inside, in a few words."""
    folders, images = [f"{inside.name}/" for inside in place.folders], place.images
    others = [name for name in place.files if name not in images]
    kinds = {"folder": folders, "image": images, "other file": others}
    words = [_counted(names, kind) for kind, names in kinds.items() if names]
    unpack = ", to be unpacked" if any(_ARCHIVE.search(name) for name in others) else ""
    return (f"only {' and '.join(words)}" if words else "nothing at all") + unpack


def part_of(name: str) -> str | None:
    """The part that is usually called so."""
    plain = re.sub(r"[\W_]+", "", name.casefold())
    return next((part for part, names in _PARTS.items() if names.fullmatch(plain)), None)


def _is_no_class(name: str) -> bool:
    """Whether a folder that is the only one of a part only holds its images, by its name."""
    name = name.casefold()
    return bool(part_of(name) or _IMAGES.fullmatch(name) or _UNLABELLED.fullmatch(name))


def _unwrap(place: Listing, *, into_parts: bool) -> Listing:
    """The folder inside, and so on, as long as it is the only one with images and has them in folders of its own."""
    while not place.images:
        inside = place.folders
        if len(inside) > 1:  # one may hold annotations or the like; an empty one is a class that lacks its images
            inside = [p for p in inside if _holds_images(p) or not any(here.files for here in p.walk())]
        if len(inside) != 1 or not inside[0].folders or inside[0].images:
            break
        if part_of(inside[0].name) and not into_parts:
            break
        place = inside[0]
    return place


def _innermost(place: Listing) -> Listing:
    """Where the images of a part without classes lie."""
    while len(inside := _only_folders(place)) == 1:
        place = inside[0]
    return place


def _is_labelled(part: Listing) -> bool:
    inside = _unwrap(part, into_parts=True).folders
    return len(inside) > 1 or any(not _is_no_class(place.name) for place in inside)


def _class_folders(part: Listing) -> list[Listing]:
    """The folders inside, but for one that holds all the others once more, as some archives do."""
    names = {place.name for place in part.folders}

    def is_copy(place: Listing) -> bool:
        below = {inside.name for inside in _only_folders(place)}
        return 1 < len(names) - 1 <= len(below) and below | {place.name} == names

    return [place for place in part.folders if not is_copy(place)]


def _copies(part: Listing) -> list[str]:
    classes = _class_folders(part)
    names = [place.name for place in part.folders if place not in classes]
    return [f"left out: {name}/ in {part.name}/, which holds the same folders once more" for name in names]


def _check_classes(part: Listing) -> Listing:
    """The same folder, if the folders in it can be classes.

    Raises:
        Hw1Error: there are none, images lie beside them, or they look like something else.
    """
    classes, loose, folder = _class_folders(part), part.images, part.path
    names = [place.name for place in classes]
    if not classes or (len(classes) == 1 and _is_no_class(names[0])):
        held = _innermost(part)
        raise Hw1Error(f"{held.path} has no class folders, {_contents(held)}: {LAYOUT}.")
    if loose:
        raise Hw1Error(
            f"{folder} holds {_counted(loose, 'image')} beside the class folders: move each into the folder of its "
            "class, or away."
        )
    lower = [name.casefold() for name in names]
    if (any(map(_LABELS.fullmatch, lower)) and any(map(_IMAGES.fullmatch, lower))) or all(
        map(_PIECES.fullmatch, lower)
    ):
        raise Hw1Error(
            f"The folders in {folder} ({some(names)}) look like images whose labels stand in files, which are not "
            f"read: {LAYOUT}."
        )
    words = [re.findall(r"[^\W_]+", name) for name in lower]
    bare = [[word for word in said if not part_of(word)] for said in words]
    if all(map(ne, words, bare)) and len(set(map(tuple, bare))) < len(bare):
        raise Hw1Error(f"The folders in {folder} ({some(names)}) name a part and a class each: {LAYOUT}.")
    for twins in alike(names, str):
        raise Hw1Error(
            f"Class folders in {folder} look the same and differ only in their Unicode form or in spaces around the "
            f"name ({some([ascii(name) for name in twins])}): make them one, or rename them."
        )
    deeper = {
        place.name: [p.name for p in below] for place in classes if len(below := _only_folders(_innermost(place))) > 1
    }
    if deeper and len(deeper) < len(classes):
        deep, flat = next(iter(deeper)), next(name for name in names if name not in deeper)
        raise Hw1Error(
            f"In {folder}, {deep}/ holds folders ({some(deeper[deep])}) and {flat}/ does not: it is not clear which "
            "are the classes; put all class folders side by side."
        )
    counts = Counter(name for below in deeper.values() for name in below)
    shared = sorted(name for name, count in counts.items() if count > 1)
    if len(shared) > len(counts) / 2:
        raise Hw1Error(
            f"In {folder}, {some([f'{name}/' for name in names])} hold folders of the same names ({some(shared)}): if "
            "those are the classes, merge the outer folders or, where they are parts, name them train/ and test/; if "
            "the outer ones are, put the images directly into them."
        )
    return part


def _beside_classes(part: Listing, root: Path) -> list[str]:
    """What lies among class folders and may be meant as a class: archives, dangling links, hidden folders of images."""
    names = {*part.candidates, *filter(_ARCHIVE.search, part.files)}
    names |= {path.parent.name for path in part.path.glob(".*/*") if IMAGE.search(path.name)}
    return [(part.path / name).relative_to(root).as_posix() for name in sorted(names)]


def _refuse_twins(folders: list[Path]) -> None:
    """Raise Hw1Error if two of them are one, by symbolic links."""
    seen: dict[Path, Path] = {}
    for path in folders:
        if (twin := seen.setdefault(path.resolve(), path)) != path:
            raise Hw1Error(f"{twin} and {path} are the same folder, by a symbolic link: remove one of them.")


def _compare_classes(train: Listing, other: Listing, *, every: bool) -> None:
    """Raise Hw1Error unless the other part has the same classes (or some of them) as train."""
    here, there = ({place.name for place in _class_folders(part)} for part in (train, other))
    odd = sorted(here ^ there if every else there - here)
    for twins in alike(odd, str.casefold):
        raise Hw1Error(
            f"{train.name}/ and {other.name}/ spell the same class differently ({some([ascii(n) for n in twins])}), in "
            "upper and lower case, spaces or Unicode form: rename one of them."
        )
    if odd:
        raise Hw1Error(
            f"{train.name}/ and {other.name}/ must have the same classes; only one of them has: {some(odd)}."
        )


def alike(names: list[str], simplify: Callable[[str], str]) -> list[list[str]]:
    """Groups of names that are the same but for Unicode form, spaces around them and what `simplify` takes away."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(simplify(unicodedata.normalize("NFC", name).strip()), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _why_left_out(place: Listing, train: Listing) -> str | None:
    """A note about a folder beside the parts; none where it holds no images.

    Raises:
        Hw1Error: it may be data.
    """
    if not _holds_images(place):
        return None
    if any(part_of(inside.name) for inside in place.folders):
        return f"left out: {place.name}/, which holds parts of its own"
    if _UNLABELLED.fullmatch(place.name.casefold()):
        return f"left out: {place.name}/, {_contents(_innermost(place))}"
    raise Hw1Error(
        f"{place.name}/ lies beside {train.name}/ in {train.path.parent} and may be a class or a part of its own: move "
        f"it away or, if {train.name} is a class as well, rename {train.name}/."
    )


def _read(name: str, place: Listing, root: Path) -> Part:
    """All files in the class folders of a part.

    Raises:
        Hw1Error: images are lacking, or names are not UTF-8.
    """
    paths, labels, left_out = [], [], []
    classes = [folder.name for folder in _class_folders(place)]
    for label, folder in enumerate(_class_folders(place)):
        images, others = folder.files_below()
        paths += images
        labels += [label] * len(images)
        left_out += others
    for path in paths:
        if path.encode("utf-8", "replace").decode() != path:
            readable = path.encode("utf-8", "backslashreplace").decode()
            raise Hw1Error(f"The name of {readable} is not in UTF-8: rename it.")
    if name == "val" and len(paths) == 1:
        raise Hw1Error(f"{place.path} has one image only: add some, or remove it to validate on a part of train.")
    empty = [classes[label] for label in sorted(set(range(len(classes))) - set(labels))]
    if empty and not (name == "val" and paths):  # a class that is rare may be lacking there
        raise Hw1Error(f"{place.path} has class folders without images ({some(empty)}): fill or remove them.")
    start = len(os.path.join(root, ""))
    relative = [[path[start:].replace(os.sep, "/") for path in files] for files in (paths, left_out)]
    return Part(place.path, relative[0], labels, classes, relative[1])
