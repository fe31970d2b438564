"""What lies in a data folder, how its parts are read, and whether it will do, before a single image is opened."""

import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import ne
from pathlib import Path

from ..config import Config
from ..errors import Hw1Error, some

LAYOUT = "the data must lie as train/<class>/<image> and test/<class>/<image>, or as <class>/<image>"
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
# What file managers and systems leave behind; all that is hidden, and this project's <folder>.cache, go with it.
_JUNK = {"__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "system volume information"}
_JUNK |= {"lost+found", "lost.dir", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
_ARCHIVE = re.compile(r"\.(?:zip|tar|t?gz|7z|rar)$", re.IGNORECASE)
# What people keep beside images, by suffix. Whether any other file is an image, its contents decide.
_NO_IMAGE = re.compile(
    r"\.(?:txt|xml|csv|tsv|jsonl?|ya?ml|toml|ini|cfg|md|rst|html?|url|pdf|docx?|xlsx?|log|mat|np[yz]|pkl|pickle|h5|hdf5|"
    r"parquet|db|py|ipynb|sh|xmp|aae|mov|mp4|avi|mkv|pth?|safetensors|onnx|zip|tar|t?gz|7z|rar)$",
    re.IGNORECASE,
)
# By these suffixes images are noticed where none should lie.
_IMAGE = re.compile(r"\.(?:jpe?g|jpe|jfif|png|gif|bmp|tiff?|webp|hei[cf]|avif|jp2|p[pgn]m)$", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """The files of one part, none of them opened."""

    folder: Path  # that holds the class folders
    paths: list[str]  # N, relative to the data folder, with slashes
    labels: list[int]  # N, indices into `classes`
    classes: list[str]  # K names, those of train
    left_out: list[str]  # files in the class folders that by their suffix are no images

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Iterable[int]) -> "Part":
        """These files alone."""
        rows = list(rows)
        return replace(self, paths=[self.paths[i] for i in rows], labels=[self.labels[i] for i in rows])


@dataclass(frozen=True)
class Parts:
    """Which folder holds the class folders of which part."""

    folders: dict[str, Path]  # train, test and, where one is given, val; train alone: a share of it becomes the test
    notes: list[str]  # what else was found, and what becomes of it


def check_folder(config: Config) -> Parts:
    """Look at the folder without opening an image, before any expensive work, and say how it is read.

    Raises:
        Hw1Error: a part is missing or empty, the parts have different classes, or it is not clear what they are.
    """
    parts = find_parts(config)
    read = {name: scan(config, parts, name) for name in dict.fromkeys((*parts.folders, "test"))}
    train, test = read["train"], read["test"]
    if len(train.classes) < 2:
        raise Hw1Error(f"{train.folder} has one class only: a classifier needs at least two.")

    def described(name: str) -> str:
        place = read[name].folder.relative_to(config.data_path).as_posix()
        return f"{place}/ ({len(read[name]):,} images)"

    _refuse_twins([*parts.folders.values(), *(f / name for f in parts.folders.values() for name in train.classes)])
    notes = list(parts.notes)
    if "val" in read and (missing := [name for k, name in enumerate(train.classes) if k not in read["val"].labels]):
        notes.append(f"no images to validate on: {some(missing)}")
    if "test" in parts.folders:
        validation = described("val") if "val" in read else "a part of that"
        how = f"trained on {described('train')}, validated on {validation}, tested on {described('test')}"
    else:
        notes.insert(0, f"{config.data_dir} has no test/: {len(test):,} of its images are put aside for the test")
        how = f"{len(train) + len(test):,} images in class folders"
    print(f"{config.data_dir}: {how}; {len(train.classes)} classes: {some(train.classes)}")
    if dropped := [name for folder in parts.folders.values() for name in _beside_classes(folder, config.data_path)]:
        notes.append(f"left out, as no class folder: {some(dropped)}")
    aside = sorted({path for part in read.values() for path in part.left_out})
    if aside:
        notes.append(f"left out, by name no image: {_counted(aside, 'file')}")
    if nested := [name for name in train.classes if any(map(_holds_images, _folders(train.folder / name)))]:
        notes.append(f"what lies in folders below a class folder is of that class ({some(nested)})")
    notes += [f"classes that only case tells apart: {some(names)}" for names in _alike(train.classes, str.casefold)]
    for note in notes:
        print(f"  {note}")
    return parts


def find_parts(config: Config) -> Parts:
    """Which folder is which part, by names alone; no image is looked for that the names do not ask for.

    Folders that only wrap another one are descended into. Without a test part the validation part takes its place;
    without any part the data are class folders, to be split.

    Raises:
        Hw1Error: there is no such folder, or what is in it is not understood.
    """
    root = config.data_path
    if os.path.isfile(root):
        raise Hw1Error(f"{config.data_dir} is a file: give a folder, unpacked if this is an archive; {LAYOUT}.")
    if not os.path.isdir(root):
        raise Hw1Error(f"There is no folder {config.data_dir}: {LAYOUT}.")
    top = _unwrap(root, into_parts=False)
    found: dict[str | None, list[Path]] = {"train": [], "val": [], "test": [], None: []}
    for folder in _folders(top):
        found[_part_of(folder.name)].append(folder)
    if not found["train"]:
        found["val"] = [folder for folder in found["val"] if folder.name.casefold() not in _WORDS]
        if not found["val"] + found["test"]:
            return Parts({"train": _check_classes(top)}, _copies(top))
        taken = " or ".join(f"{folder.name}/" for folder in found["val"] + found["test"])
        raise Hw1Error(
            f"There is no folder train/ in {top}, {_contents(top)}: {LAYOUT}; if {taken} is a class and no "
            "part, rename it."
        )
    notes = [note for folder in found.pop(None) if (note := _why_left_out(folder, found["train"][0]))]
    if loose := _images(top):
        notes.append(f"left out, beside the parts: {_counted(loose, 'image')}")
    names, folders, unlabelled = {}, {}, []
    for part, candidates in found.items():
        labelled = [folder for folder in candidates if part == "train" or _is_labelled(folder)]
        if len(labelled) > 1:
            several = " and ".join(f"{folder.name}/" for folder in labelled)
            raise Hw1Error(f"{several} in {top} may each be the {part} part: leave one of them there.")
        for folder in labelled:
            names[part], folders[part] = folder.name, _check_classes(_unwrap(folder, into_parts=True))
            notes += _copies(folders[part])
        unlabelled = [folder for folder in candidates if folder not in labelled] + unlabelled
    if "test" not in folders and "val" in folders:
        notes.insert(0, f"{config.data_dir} has no test/: {names['val']}/ takes its place")
        folders["test"] = folders.pop("val")
    if "test" not in folders:
        missing = [f"{folder} has no class folders, {_contents(_innermost(folder))}" for folder in unlabelled]
        raise Hw1Error(
            f"{[*missing, f'There is no folder test/ in {top}'][0]}: {LAYOUT}; give {folders['train']} as the data "
            "folder to have a fifth of it put aside for the test."
        )
    notes += [f"left out: {f.name}/, which has no class folders, {_contents(_innermost(f))}" for f in unlabelled]
    for name in folders.keys() - {"train"}:
        _compare_classes(folders["train"], folders[name], every=name == "test")
    return Parts(folders, notes)


def scan(config: Config, parts: Parts, name: str) -> Part:
    """The files of one of the parts that `find_parts` found, train, val or test, without opening one.

    Where no test part is given it is a share of the class folders' images, stratified and seeded, and train the rest.

    Raises:
        Hw1Error: an empty class, links in a circle, names that are not UTF-8, or too few images to be split.
    """
    folders = parts.folders
    part = _read(folders.get(name, folders["train"]), config.data_path)
    if name == "val" and len(part) == 1:
        raise Hw1Error(f"{part.folder} has one image only: add some, or remove it to validate on a part of train.")
    if name == "val" and part.paths:  # may lack a class that is rare
        classes = [path.name for path in _class_folders(folders["train"])]
        return replace(part, classes=classes, labels=[classes.index(part.classes[label]) for label in part.labels])
    empty = [part.classes[label] for label in sorted(set(range(len(part.classes))) - set(part.labels))]
    if empty:
        raise Hw1Error(f"{part.folder} has class folders without images ({some(empty)}): fill or remove them.")
    if "test" in folders:
        return part
    from sklearn.model_selection import train_test_split  # a second to import: not for who only predicts

    count = max(len(part.classes), math.ceil(TEST_SHARE * len(part)))
    try:
        rows = train_test_split(range(len(part)), test_size=count, stratify=part.labels, random_state=config.seed)
    except ValueError as error:
        raise Hw1Error(
            f"{config.data_dir} has {len(part)} images in {len(part.classes)} classes: too few to put a fifth of each "
            f"aside for the test{singles(part.labels, part.classes)}; add images, or a test/ of your own."
        ) from error
    return part.take(sorted(rows[0 if name == "train" else 1]))


def files_below(folder: Path) -> tuple[list[str], list[str]]:
    """The files in a folder and below it, in order: those that may be images, and those that by suffix are none.

    What is hidden or left behind by file managers is in neither.

    Raises:
        Hw1Error: a symbolic link leads to a folder that contains it, or a folder cannot be read.
    """
    images, others = [], []
    for here, names in sorted(_walk(folder)):
        for name in sorted(names):
            (others if _NO_IMAGE.search(name) else images).append(os.path.join(here, name))
    return images, others


def singles(labels: Iterable[int], classes: list[str]) -> str:
    """ " (one image only: cat, dog)", of the classes that cannot be split for that; else nothing."""
    counts = Counter(map(int, labels))
    named = [name for label, name in enumerate(classes) if counts[label] == 1]
    return f" (one image only: {some(named)})" if named else ""


def _counted(names: list[str], kind: str) -> str:
    """2 files (a, b)"""
    return f"{len(names):,} {kind}{'s' if len(names) > 1 else ''} ({some(names)})"


# ---- one folder


def _scan(folder: Path) -> list[os.DirEntry]:
    """What lies directly inside, but for what is hidden, left behind by systems or a cache of this project."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise Hw1Error(f"{folder} cannot be read ({error.strerror}): mend that or move it away.") from error
    caches = {f"{entry.name}.cache" for entry in entries}  # a class may be called l2.cache
    return [e for e in entries if not (e.name[0] == "." or e.name.casefold() in _JUNK or e.name in caches)]


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(folder, names of its files) for this one and all below it."""
    yield str(folder), [entry.name for entry in _scan(folder) if not _is_folder(entry)]
    for inside in _folders(folder):
        yield from _walk(inside)


def _folders(folder: Path) -> list[Path]:
    """The folders directly inside.

    Raises:
        Hw1Error: one is a symbolic link to a folder above it: it would be walked for ever.
    """
    inside = sorted(folder / entry.name for entry in _scan(folder) if _is_folder(entry))
    for path in inside:
        if path.is_symlink() and path.resolve() in {above.resolve() for above in path.parents}:
            raise Hw1Error(f"{path} is a symbolic link to a folder that contains it: remove it.")
    return inside


def _is_folder(entry: os.DirEntry) -> bool:
    with suppress(OSError):  # a link in a circle, or to where one may not look
        return entry.is_dir()
    return False


def _images(folder: Path) -> list[str]:
    """Names of the files directly inside that look like images."""
    return sorted(entry.name for entry in _scan(folder) if _IMAGE.search(entry.name))


def _may_be_image(entry: os.DirEntry) -> bool:
    return not (_NO_IMAGE.search(entry.name) or _is_folder(entry))


def _only_folders(folder: Path) -> list[Path]:
    """The folders directly inside, if there is no file among them that may be an image."""
    return [] if any(map(_may_be_image, _scan(folder))) else _folders(folder)


def _holds_images(folder: Path) -> bool:
    return any(map(_may_be_image, _scan(folder))) or any(map(_holds_images, _folders(folder)))


def _holds_files(folder: Path) -> bool:
    return any(names for _, names in _walk(folder))


def _contents(folder: Path) -> str:
    """What lies directly inside, in a few words."""
    folders, images = [f"{path.name}/" for path in _folders(folder)], _images(folder)
    others = sorted(e.name for e in _scan(folder) if not _is_folder(e) and e.name not in images)
    kinds = {"folder": folders, "image": images, "other file": others}
    words = [_counted(names, kind) for kind, names in kinds.items() if names]
    unpack = ", to be unpacked" if any(_ARCHIVE.search(name) for name in others) else ""
    return (f"only {' and '.join(words)}" if words else "nothing at all") + unpack


# ---- what the folders mean


def _part_of(name: str) -> str | None:
    """The part that is usually called so."""
    plain = re.sub(r"[\W_]+", "", name.casefold())
    return next((part for part, names in _PARTS.items() if names.fullmatch(plain)), None)


def _is_no_class(name: str) -> bool:
    """Whether a folder that is the only one of a part only holds its images, by its name."""
    name = name.casefold()
    return bool(_part_of(name) or _IMAGES.fullmatch(name) or _UNLABELLED.fullmatch(name))


def _unwrap(folder: Path, *, into_parts: bool) -> Path:
    """The folder inside, and so on, as long as it is the only one with images and has them in folders of its own."""
    while not _images(folder):
        inside = _folders(folder)
        if len(inside) > 1:  # one may hold annotations or the like; an empty one is a class that lacks its images
            inside = [path for path in inside if _holds_images(path) or not _holds_files(path)]
        if len(inside) != 1 or not _folders(inside[0]) or _images(inside[0]):
            break
        if _part_of(inside[0].name) and not into_parts:
            break
        folder = inside[0]
    return folder


def _innermost(folder: Path) -> Path:
    """Where the images of a part without classes lie."""
    while len(inside := _only_folders(folder)) == 1:
        folder = inside[0]
    return folder


def _is_labelled(part: Path) -> bool:
    inside = _folders(_unwrap(part, into_parts=True))
    return len(inside) > 1 or any(not _is_no_class(path.name) for path in inside)


def _class_folders(folder: Path) -> list[Path]:
    """The folders inside, but for one that holds all the others once more, as some archives do."""
    inside = _folders(folder)
    names = {path.name for path in inside}

    def is_copy(path: Path) -> bool:
        below = {path.name for path in _only_folders(path)}
        return 1 < len(names) - 1 <= len(below) and below | {path.name} == names

    return [path for path in inside if not is_copy(path)]


def _copies(folder: Path) -> list[str]:
    classes = {path.name for path in _class_folders(folder)}
    names = [path.name for path in _folders(folder) if path.name not in classes]
    return [f"left out: {name}/ in {folder.name}/, which holds the same folders once more" for name in names]


def _check_classes(folder: Path) -> Path:
    """The same folder, if the folders in it can be classes.

    Raises:
        Hw1Error: there are none, images lie beside them, or they look like something else.
    """
    classes, loose = _class_folders(folder), _images(folder)
    names = [path.name for path in classes]
    if not classes or (len(classes) == 1 and _is_no_class(names[0])):
        held = _innermost(folder)
        raise Hw1Error(f"{held} has no class folders, {_contents(held)}: {LAYOUT}.")
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
    bare = [[word for word in said if not _part_of(word)] for said in words]
    if all(map(ne, words, bare)) and len(set(map(tuple, bare))) < len(bare):
        raise Hw1Error(f"The folders in {folder} ({some(names)}) name a part and a class each: {LAYOUT}.")
    for twins in _alike(names, str):
        raise Hw1Error(
            f"Class folders in {folder} look the same and differ only in their Unicode form or in spaces around the "
            f"name ({some([ascii(name) for name in twins])}): make them one, or rename them."
        )
    deeper = {
        path.name: [p.name for p in below] for path in classes if len(below := _only_folders(_innermost(path))) > 1
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
    return folder


def _beside_classes(folder: Path, data: Path) -> list[str]:
    """What lies among class folders and may be meant as a class: archives, dangling links, hidden folders of images."""
    names = {e.name for e in _scan(folder) if _may_be_image(e) or _ARCHIVE.search(e.name)}
    names |= {path.parent.name for path in folder.glob(".*/*") if _IMAGE.search(path.name)}
    return [(folder / name).relative_to(data).as_posix() for name in sorted(names)]


def _refuse_twins(folders: list[Path]) -> None:
    """Raise Hw1Error if two of them are one, by symbolic links."""
    seen: dict[Path, Path] = {}
    for path in folders:
        if (twin := seen.setdefault(path.resolve(), path)) != path:
            raise Hw1Error(f"{twin} and {path} are the same folder, by a symbolic link: remove one of them.")


def _compare_classes(train: Path, other: Path, *, every: bool) -> None:
    """Raise Hw1Error unless the other part has the same classes (or some of them) as train."""
    here, there = ({path.name for path in _class_folders(part)} for part in (train, other))
    odd = sorted(here ^ there if every else there - here)
    for twins in _alike(odd, str.casefold):
        raise Hw1Error(
            f"{train.name}/ and {other.name}/ spell the same class differently ({some([ascii(n) for n in twins])}), in "
            "upper and lower case, spaces or Unicode form: rename one of them."
        )
    if odd:
        raise Hw1Error(
            f"{train.name}/ and {other.name}/ must have the same classes; only one of them has: {some(odd)}."
        )


def _alike(names: list[str], simplify: Callable[[str], str]) -> list[list[str]]:
    """Groups of names that are the same but for Unicode form, spaces around them and what `simplify` takes away."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(simplify(unicodedata.normalize("NFC", name).strip()), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _why_left_out(folder: Path, train: Path) -> str | None:
    """A note about a folder beside the parts; none where it holds no images.

    Raises:
        Hw1Error: it may be data.
    """
    if not _holds_images(folder):
        return None
    if any(_part_of(path.name) for path in _folders(folder)):
        return f"left out: {folder.name}/, which holds parts of its own"
    if _UNLABELLED.fullmatch(folder.name.casefold()):
        return f"left out: {folder.name}/, {_contents(_innermost(folder))}"
    raise Hw1Error(
        f"{folder.name}/ lies beside {train.name}/ in {train.parent} and may be a class or a part of its own: move it "
        f"away or, if {train.name} is a class as well, rename {train.name}/."
    )


def _read(root: Path, data: Path) -> Part:
    """All files in the class folders of `root`."""
    paths, labels, left_out = [], [], []
    classes = [path.name for path in _class_folders(root)]
    for label, name in enumerate(classes):
        images, others = files_below(root / name)
        paths += images
        labels += [label] * len(images)
        left_out += others
    for path in paths:
        if path.encode("utf-8", "replace").decode() != path:
            readable = path.encode("utf-8", "backslashreplace").decode()
            raise Hw1Error(f"The name of {readable} is not in UTF-8: rename it.")
    start = len(os.path.join(data, ""))
    relative = [[path[start:].replace(os.sep, "/") for path in files] for files in (paths, left_out)]
    return Part(root, relative[0], labels, classes, relative[1])
