"""CSVs of paths and labels as people have them, and what is refused of them. Only the last tests open images."""

import re

import pytest
import torch

from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import load, load_test
from hw1_utils.io.table import read_table


def lay(root, *files):
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def written(root, text, name="labels.csv", coding="utf-8"):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(text.encode(coding))
    return root / name


def read(file, groups=None):
    """part -> [(path, class)], and the groups."""
    folder = read_table(file, file.name, groups)
    shown = {
        name: [(path, part.classes[label]) for path, label in zip(part.paths, part.labels, strict=True)]
        for name, part in folder.parts.items()
    }
    return shown, {name: part.groups for name, part in folder.parts.items()}


FOUR = [f"{i}.jpg" for i in range(4)]
PETS = [(f"{i}.jpg", name) for i, name in enumerate(["cat", "dog", "cat", "dog"])]


def rows(delimiter=",", head="path,label", end="\n"):
    lines = [head.split(","), *PETS]
    return "".join(delimiter.join(line) + end for line in lines)


FORMS = {
    "plain": (rows(), "utf-8"),
    "as Excel writes it in much of Europe": (rows(";", end="\r\n"), "utf-8-sig"),
    "tabs": (rows("\t"), "utf-8"),
    "Excel's Unicode text": (rows("\t", end="\r\n"), "utf-16"),
    "a line that Excel reads": ("sep=;\n" + rows(";"), "utf-8"),
    "old line ends and an empty line": (rows(end="\r\n") + "\r\n,\r\n", "utf-8"),
    "quotes and spaces": ('Path , "Label"\n"0.jpg", cat\n 1.jpg,dog \n./2.jpg,"cat"\n"3.jpg","dog"\n', "utf-8"),
    "other heads": (rows(head="FileName,Class Name"), "utf-8"),
    "a label of any name beside an id": (rows(head="id_code,diagnosis"), "utf-8"),
    "Image and Id": (rows(head="Image,Id"), "utf-8"),
    "a number of the class as well": (
        "class id,filepaths,labels\n" + "".join(f"{i % 2},{path},{name}\n" for i, (path, name) in enumerate(PETS)),
        "utf-8",
    ),
    "without suffixes": (rows().replace(".jpg", ""), "utf-8"),
    "backslashes": (rows().replace("0.jpg", ".\\0.jpg"), "utf-8"),
}


@pytest.mark.parametrize(("text", "coding"), FORMS.values(), ids=FORMS)
def test_however_it_is_written_it_is_the_same_table(tmp_path, capsys, text, coding):
    lay(tmp_path, *FOUR)
    shown, groups = read(written(tmp_path, text.replace('"0.jpg", cat', '"0.jpg",cat'), coding=coding))
    assert shown == {"train": PETS} and groups == {"train": None}
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "labels.csv: 4 images; 2 classes: cat, dog" and said[1].startswith("  columns: path in ")
    assert said[2] == "  labels.csv names no test part: 2 of its images are put aside for the test"


def test_labels_that_are_numbers_or_na_stay_names(tmp_path):
    lay(tmp_path, *FOUR)
    shown, _ = read(written(tmp_path, "id,has_cactus\n0,1\n1,007\n2,NA\n3,1\n"))
    assert [label for _, label in shown["train"]] == ["1", "007", "NA", "1"]


def test_classes_with_a_column_each_are_labels(tmp_path, capsys):
    """As Roboflow (`_classes.csv`) and ISIC write them, with a class that no image is of."""
    lay(tmp_path, *FOUR)
    text = "image, cat,dog,UNK,age\n0,1.0,0.0,0.0,40\n1,0,1,0,41\n2,1,0,0,42\n3,0,1,0,43\n"
    assert read(written(tmp_path, text))[0] == {"train": PETS}
    said = "path in 'image', label by the column that has a 1: 'cat', 'dog', 'UNK'; left out: 'age'"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("head", "named"), [("Patient ID", True), ("age", False), ("group", False)])
def test_a_column_that_may_be_groups_is_named(tmp_path, capsys, head, named):
    lay(tmp_path, *FOUR)
    read(written(tmp_path, split("1", "1", "2", "2", head=head)))
    assert ("says what belongs together, give groups=" in capsys.readouterr().out) == named


PLACES = {  # files, ids in the CSV, where they are found
    "a folder beside it": (["images/0.jpg", "images/1.jpg", "more.txt"], "0 1", "images/0.jpg images/1.jpg"),
    "two folders down": (
        ["images/images/0.jpg", "images/images/1.jpg"],
        "0 1",
        "images/images/0.jpg images/images/1.jpg",
    ),
    "in pieces": (["part_1/0.jpg", "part_2/1.jpg"], "0 1", "part_1/0.jpg part_2/1.jpg"),
    "train of train and test": (
        ["train/1.png", "train/2.png", "test/1.png", "test/2.png"],
        "1 2",
        "train/1.png train/2.png",
    ),
    "train_images of two": (
        ["test_images/1.png", "test_images/2.png", "train_images/1.png", "train_images/2.png"],
        "1.png 2.png",
        "train_images/1.png train_images/2.png",
    ),
    "the one that has all": (["a/0.jpg", "a/1.jpg", "b/0.jpg"], "0.jpg 1.jpg", "a/0.jpg a/1.jpg"),
    "beside it before elsewhere": (["0.jpg", "1.jpg", "small/0.jpg", "small/1.jpg"], "0 1", "0.jpg 1.jpg"),
    "paths below": (["img/a/0.jpg", "img/b/0.jpg"], "a/0.jpg b/0", "img/a/0.jpg img/b/0.jpg"),
    "dots in names": (["v1.2.jpg", "v1.3.jpg"], "v1.2 v1.3.jpg", "v1.2.jpg v1.3.jpg"),
}


@pytest.mark.parametrize(("files", "ids", "found"), PLACES.values(), ids=PLACES)
def test_files_are_found_where_they_usually_lie(tmp_path, files, ids, found):
    lay(tmp_path, *files)
    lines = [f"{name},{label}\n" for name, label in zip(ids.split(), "ab", strict=True)]
    shown, _ = read(written(tmp_path, "id,label\n" + "".join(lines)))
    assert [path for path, _ in shown["train"]] == found.split()


def test_absolute_paths_inside_are_made_relative(tmp_path):
    lay(tmp_path, *FOUR)
    shown, _ = read(written(tmp_path, rows().replace("0.jpg", f"{tmp_path}/0.jpg")))
    assert shown["train"] == PETS


def split(*words, head="split", more=()):
    lines = [f"{path},{name},{word}\n" for (path, name), word in zip([*PETS, *more], words, strict=True)]
    return f"path,label,{head}\n" + "".join(lines)


@pytest.mark.parametrize(
    ("head", "words"), [("split", "train test"), ("data set", "Training TESTING"), ("Set", "train val")]
)
def test_parts_are_those_of_the_table(tmp_path, capsys, head, words):
    lay(tmp_path, *FOUR)
    here, there = words.split()
    shown, _ = read(written(tmp_path, split(here, here, there, there, head=head)))
    assert shown == {"train": PETS[:2], "test": PETS[2:]}
    out = capsys.readouterr().out
    assert "labels.csv: 2 train, 2 test images; 2 classes" in out and ("takes its place" in out) == (there == "val")


def test_a_column_of_groups_or_a_named_one_or_a_pattern(tmp_path, capsys):
    lay(tmp_path, *FOUR)
    text = "path,label,Group,patient\n" + "".join(f"{p},{n},{i // 2},{i % 2}\n" for i, (p, n) in enumerate(PETS))
    file = written(tmp_path, text)
    assert read(file)[1] == {"train": [0, 0, 1, 1]}
    assert read(file, "PATIENT")[1] == {"train": [0, 1, 0, 1]}
    assert "group in 'patient'" in capsys.readouterr().out
    assert read(file, r"(\d)\.jpg")[1] == {"train": [0, 1, 2, 3]}


REFUSED = {
    "not there": (None, "There is no file labels.csv"),
    "no rows": ("path,label\n", "has no rows"),
    "empty": ("", "has no rows"),
    "no path": ("x,y,label\n1,2,a\n", "has no column 'path' among 'x', 'y', 'label'"),
    "no label": ("path,x,y\n0,1,a\n", "has no column 'label' among 'path', 'x', 'y'"),
    "two labels": ("path,label,class\n0,a,b\n", "several columns that may be the label: 'label', 'class'; rename all"),
    "a head twice": ("path,label,label\n0,a,b\n", "has several columns called 'label'"),
    "a long row": (rows() + "4.jpg,a,b\n", "has 2 heads, but 3 cells in line 6 (1 such rows)"),
    "an open quote": (rows() + '"4.jpg,a\n', "unexpected end of data"),
    "an empty label": (rows() + "4.jpg,\n", "has nothing in column 'label' in line 6 (1 of 5 rows)"),
    "no line of heads": (
        rows().split("\n", 1)[1],
        "begins with an image ('0.jpg', 'cat') and has no line of heads: put",
    ),
    "a row twice": (rows() + "2.jpg,cat\n", "has 1 file more than once (2.jpg; lines 4, 6): leave one row"),
    "a file twice, once without its suffix": (
        rows() + "0,cat\n2,dog\n",
        "has 2 files more than once (2.jpg, 0.jpg; lines 4, 7), 1 of them under several labels: leave one row",
    ),
    "no group": (
        split("", "b", "b", "b", head="group"),
        "nothing in column 'group' in line 2 (1 of 4 rows): fill it in, for",
    ),
    "several classes": (
        "path,cat,dog\n0.jpg,1,0\n1.jpg,1,1\n",
        "of its columns of zeros and ones ('cat', 'dog') not just one has a 1 in line 3 (1 of 2 rows): take",
    ),
    "files that are not there": (
        rows() + "8.jpg,a\n9,b\n",
        "2 of 6 files that labels.csv names are not there: 8.jpg, 9",
    ),
    "outside": (rows() + "../x.jpg,a\n", "names files outside of its own folder (../x.jpg; line 6)"),
    "elsewhere": (rows() + "/other/x.jpg,a\n", "names files outside of its own folder (/other/x.jpg; line 6)"),
    "another drive": (rows() + "C:\\x.jpg,a\n", "names files outside of its own folder (C:/x.jpg; line 6)"),
    "one class": ("path,label\n0.jpg,a\n1.jpg,a\n", "has one class only (a)"),
    "a word that is no part": (
        split("train", "train", "test", "tset"),
        "says in column 'split' 'tset' (line 5), which",
    ),
    "a number for a part": (split("0", "1", "2", "3", head="set"), "says in column 'set' '0', '1', '2', '3'"),
    "nothing to train on": (split("test", "test", "val", "val"), "names no image to train on in column 'split'"),
    "other classes": (
        split("train", "train", "test", "train"),
        "must have the same classes; only one of them has: dog",
    ),
    "Unicode twins": ("path,label\n0.jpg,caf\u00e9\n1.jpg,cafe\u0301\n", "differ only in their Unicode form"),
    "no pattern for all": ((rows(), r"(\d)\d"), "must find a name in every path"),
    "no such column": ((rows(), "patient"), "has no column 'patient' among 'path', 'label'"),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_understood_is_refused_in_one_sentence(tmp_path, text, said):
    lay(tmp_path, *FOUR)
    text, groups = text if isinstance(text, tuple) else (text, None)
    file = tmp_path / "labels.csv" if text is None else written(tmp_path, text)
    with pytest.raises(Hw1Error) as caught:
        read_table(file, "labels.csv", groups)
    sentence = str(caught.value)
    assert said in sentence and "\n" not in sentence and re.search(r": [^:]*\.$|\)\.$", sentence)


def test_a_fold_is_no_part(tmp_path, capsys):
    lay(tmp_path, *FOUR)
    shown, _ = read(written(tmp_path, split("0", "1", "2", "3", head="fold")))
    assert shown == {"train": PETS}
    assert "  columns: path in 'path', label in 'label'; left out: 'fold'\n" in capsys.readouterr().out


def test_folders_that_both_have_all_files_are_refused(tmp_path):
    lay(tmp_path, *(f"{place}/{name}" for place in ("images", "masks") for name in FOUR))
    with pytest.raises(Hw1Error, match=r"may mean images/0.jpg or masks/0.jpg \(4 such rows\): write the folder"):
        read(written(tmp_path, rows()))
    lay(tmp_path, "0.png", "0.tif", "1.png", "2.png", "3.png")
    with pytest.raises(Hw1Error, match="'0' may be 0.png or 0.tif in .*: write the suffixes into the CSV"):
        read(written(tmp_path, rows().replace(".jpg", "")))


def test_a_file_in_another_encoding_is_refused(tmp_path):
    with pytest.raises(Hw1Error, match="is not in UTF-8"):
        read(written(tmp_path, "path,label\n0.jpg,caf\u00e9\n", coding="latin-1"))


def test_a_run_on_a_table_is_the_run_on_the_folder(make_smoke_config, toy_folder, capsys):
    plain = load(make_smoke_config())
    lines = [
        f"{path.relative_to(toy_folder).as_posix()};{path.parent.name};{path.parent.parent.name}"
        for path in sorted(toy_folder.glob("*/*/*.png"))
    ]
    file = written(toy_folder, "\n".join(["image;target;split", *lines]))
    config = make_smoke_config(data_dir=str(file), output_dir=str(toy_folder / "out"))
    data = load(config)
    assert data.train.sha256 == plain.train.sha256 and load_test(data).sha256 == load_test(plain).sha256
    assert config.data_path == toy_folder and config.cache_path == toy_folder / "labels.csv.cache"
    assert f"{file}: 120 train, 30 test images; 3 classes" in capsys.readouterr().out


def test_a_run_keeps_groups_on_one_side_and_says_what_it_got(make_smoke_config, toy_folder, capsys):
    """Toy images 00000.png to 00039.png of three classes: the films are 0000, 0001, 0002, 0003, in train and test."""
    data = load(make_smoke_config(groups=r"(\d{4})\d\.png"))
    out = capsys.readouterr().out
    assert "4 groups of 30 to 60 images, which no split that is made here parts: 0000, 0001, 0002, …" in out
    assert "WARNING, a leak: 1 group is in both train and test (0000), with 30 of 30 test images" in out
    assert "  groups: 90 train images of 3, 30 val images of 1, 30 test images of 1\n" in out
    assert not set(data.train.groups.tolist()) & set(data.val.groups.tolist())
    part = data.train.subset(torch.tensor([3, 50]))
    assert part.groups.tolist() == data.train.groups[[3, 50]].tolist()
