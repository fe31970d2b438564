"""Folders as people have them: how each is read, and the sentence that an unusable one gets."""

import dataclasses
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from hw1_utils.config import make_config
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import load, load_test
from hw1_utils.io import images, pixels
from hw1_utils.io.folders import LAYOUT, read_folder
from hw1_utils.io.splits import choose, put_aside


def refusal(function, config) -> str:
    with pytest.raises(Hw1Error) as caught:
        function(config)
    return str(caught.value)


def read(config):
    folder = read_folder(config.data_path, config.data_dir, config.groups)
    return folder if folder.has_test else put_aside(folder, config.data_dir, config.seed)


def chosen(config):
    sizes = {name: getattr(config, name) for name in ("train_size", "val_size", "test_size")}
    return choose(read(config), config.data_path.name, config.seed, **sizes)


def images_of_test(config):
    return load_test(load(config))


def no_folder(root):
    shutil.rmtree(root)


def no_test(root):
    shutil.rmtree(root / "test")


def images_without_class_folders(root):
    for path in (root / "train").glob("*/*.png"):
        path.rename(root / "train" / f"{path.parent.name}-{path.name}")
    for folder in [path for path in (root / "train").iterdir() if path.is_dir()]:
        folder.rmdir()


def nothing_in_train(root):
    shutil.rmtree(root / "train")
    (root / "train").mkdir()


def a_name_in_another_encoding(root):
    os.rename(
        os.path.join(root, "train", "colour_0", "00000.png"), os.fsencode(root / "train" / "colour_0") + b"/\xe9.png"
    )


def an_empty_class(root):
    for path in (root / "train" / "colour_1").iterdir():
        path.unlink()
    (root / "train" / "colour_1" / ".DS_Store").touch()  # does not count
    (root / "train" / ".ipynb_checkpoints").mkdir()  # and this is no class


def class_folders_of_one_image_each(root):
    for path in list((root / "train").glob("*/*.png")):
        if path.name != "00000.png":
            path.unlink()
    for folder in list((root / "train").iterdir()):
        folder.rename(root / folder.name)
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "test")


def no_folders_at_all(root):
    shutil.rmtree(root)
    root.mkdir()
    Image.new("RGB", (8, 8)).save(root / "a.png")


def one_class(root):
    for part in ("train", "test"):
        for k in (1, 2):
            shutil.rmtree(root / part / f"colour_{k}")


def other_classes_in_test(root):
    (root / "test" / "colour_2").rename(root / "test" / "color_2")


def a_loop(root):
    (root / "train" / "colour_0" / "again").symlink_to(root / "train")


def a_loop_over_two_links(root):
    (root / "train" / "colour_0" / "other").symlink_to(root / "train" / "colour_1")
    (root / "train" / "colour_1" / "other").symlink_to(root / "train" / "colour_0")


def a_pipe_that_nobody_writes_to(root):
    os.mkfifo(root / "train" / "colour_0" / "00000.jpg")


CATALOGUE = [
    (no_folder, f"There is no folder {{root}}: {LAYOUT}."),
    (
        no_test,
        f"There is no folder test/ in {{root}}: {LAYOUT}; give {{root}}/train as the data folder to have a fifth of it "
        "put aside for the test.",
    ),
    (
        images_without_class_folders,
        "{root}/train has no class folders, only 120 images (colour_0-00000.png, colour_0-00001.png, "
        f"colour_0-00002.png, colour_0-00003.png, colour_0-00004.png, …): {LAYOUT}.",
    ),
    (nothing_in_train, f"{{root}}/train has no class folders, nothing at all: {LAYOUT}."),
    (a_name_in_another_encoding, r"The name of {root}/train/colour_0/\udce9.png is not in UTF-8: rename it."),
    (an_empty_class, "{root}/train has class folders without images (colour_1): fill or remove them."),
    (
        class_folders_of_one_image_each,
        "{root} has 3 images in 3 classes: too few to put a fifth of each aside for the test (one image only: "
        "colour_0, colour_1, colour_2); add images, or a test/ of your own.",
    ),
    (no_folders_at_all, f"{{root}} has no class folders, only 1 image (a.png): {LAYOUT}."),
    (one_class, "{root}/train has one class only: a classifier needs at least two."),
    (
        other_classes_in_test,
        "train/ and test/ must have the same classes; only one of them has: color_2, colour_2.",
    ),
    (a_loop, "{root}/train/colour_0/again is a symbolic link to a folder that contains it: remove it."),
    (
        a_loop_over_two_links,
        "{root}/train/colour_0/other/other is a symbolic link to a folder that contains it: remove it.",
    ),
    (a_pipe_that_nobody_writes_to, "{root}/train/colour_0/00000.jpg is neither a file nor a folder: move it away."),
]


@pytest.mark.parametrize(("spoil", "sentence"), CATALOGUE, ids=[spoil.__name__ for spoil, _ in CATALOGUE])
def test_catalogue(make_smoke_config, toy_folder, monkeypatch, spoil, sentence):
    spoil(toy_folder)
    monkeypatch.setattr(Image, "open", None)  # it is found before a single image is opened
    said = refusal(read, make_smoke_config())
    assert said in (sentence.format(root=toy_folder), sentence.format(root=toy_folder).replace("colour_0", "colour_1"))


def lay(root, *folders):
    """Make what is looked at, empty files.

    `a/b 3` is three images in a/b, `a/b.txt` a file, `a/` a folder, `a -> b` a link.
    """
    for folder in folders:
        link, _, target = folder.partition(" -> ")
        if target:
            (root / link).symlink_to(target)
            continue
        name, _, count = folder.rpartition(" ")
        for i in range(int(count) if name else 0):
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name / f"{i}.jpg").touch()
        if not name:
            (root / folder).parent.mkdir(parents=True, exist_ok=True)
            (root / folder).mkdir() if folder.endswith("/") else (root / folder).touch()


def parts(train, test, *more, wrap=""):
    """Two classes in each of these folders."""
    counts = {train: 6, test: 3, **dict.fromkeys(more, 2)}
    return [f"{wrap}{part}/{name} {count}" for part, count in counts.items() for name in ("cat", "dog")]


USUAL = "trained on {}/ (12 images), validated on {}, tested on {}/ (6 images); 2 classes: cat, dog"
REST = "a part of that"
ALONE = "18 images in class folders; {} classes: {}"
NO_TEST = "{root} has no test/: 4 of its images are put aside for the test"
LAYOUTS = {  # what is there -> what is said, one line after the other; catalogues of data sets are full of each
    "fer2013": (parts("train", "test"), [USUAL.format("train", REST, "test")]),
    "brain MRI": (parts("Training", "Testing"), [USUAL.format("Training", REST, "Testing")]),
    "upper case": (parts("TRAIN", "Test"), [USUAL.format("TRAIN", REST, "Test")]),
    "sets": (parts("train_set", "Test-Set"), [USUAL.format("train_set", REST, "Test-Set")]),
    "spaces": (parts("training data", "test images"), [USUAL.format("training data", REST, "test images")]),
    "intel": (
        [*parts("seg_train/seg_train", "seg_test/seg_test"), "seg_pred/seg_pred 5"],
        [
            USUAL.format("seg_train/seg_train", REST, "seg_test/seg_test"),
            "left out: seg_pred/, only 5 images (0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg)",
        ],
    ),
    "chest X-rays": (
        [
            *parts("train", "test", "val", wrap="chest_xray/"),
            *parts("train", "test", "val", wrap="chest_xray/chest_xray/"),
            *parts("train", "test", wrap="chest_xray/__MACOSX/"),
            *["__MACOSX/._x", "chest_xray/.DS_Store", "chest_xray/train/.DS_Store"],
        ],
        [
            USUAL.format("chest_xray/train", "chest_xray/val/ (4 images)", "chest_xray/test"),
            "left out: chest_xray/, which holds parts of its own",
        ],
    ),
    "roboflow": (
        [*parts("train", "test", "valid"), "README.roboflow.txt"],
        [USUAL.format("train", "valid/ (4 images)", "test")],
    ),
    "dev": (parts("train", "test", "dev"), [USUAL.format("train", "dev/ (4 images)", "test")]),
    "imagenette": (
        [*parts("train", "val", wrap="imagenette2/"), "imagenette2/noisy_imagenette.csv"],
        [
            USUAL.format("imagenette2/train", REST, "imagenette2/val"),
            "{root} has no test/: val/ takes its place",
            "not read: noisy_imagenette.csv; if labels stand in it, give {root}/imagenette2/noisy_imagenette.csv",
        ],
    ),
    "unlabelled test": (
        [*parts("train", "validation"), "test/test 4", "sample_submission.csv"],
        [
            USUAL.format("train", REST, "validation"),
            "{root} has no test/: validation/ takes its place",
            "left out: test/, which has no class folders, only 4 images (0.jpg, 1.jpg, 2.jpg, 3.jpg)",
        ],
    ),
    "a class missing in val": (
        [*parts("train", "test"), "val/dog 2"],
        [USUAL.format("train", "val/ (2 images)", "test"), "no images to validate on: cat"],
    ),
    "synology": (
        [*parts("train", "test"), "train/@eaDir/cat 3", "train/cat/@eaDir/0.jpg 2", "@eaDir/x 1"],
        [USUAL.format("train", REST, "test")],
    ),
    "recycled": (
        [*parts("train", "test"), "$RECYCLE.BIN/x 1", "train/lost+found/", "train/cat/Thumbs.db", "train/#recycle/a 1"],
        [USUAL.format("train", REST, "test")],
    ),
    "a figure beside": (
        [*parts("train", "test"), "overview.png", "LICENSE", "docs/index.html"],
        [USUAL.format("train", REST, "test"), "left out, beside the parts: 1 image (overview.png)"],
    ),
    "sidecars": (
        [*parts("train", "test"), "train/cat/0.txt", "train/dog/labels.CSV", "test/cat/0.xml", "train/readme.md"],
        [
            USUAL.format("train", REST, "test"),
            "left out, by name no image: 3 files (test/cat/0.xml, train/cat/0.txt, train/dog/labels.CSV)",
        ],
    ),
    "caltech": (
        ["c/101_Objects/ant 9", "c/101_Objects/BACKGROUND_Google 9", "c/Annotations/ant/1.mat", "c/show.m"],
        [ALONE.format(2, "BACKGROUND_Google, ant"), NO_TEST],
    ),
    "flowers twice": (
        [f"flowers/{twice}{name} 6" for twice in ("", "flowers/") for name in ("daisy", "rose", "tulip")],
        [
            ALONE.format(3, "daisy, rose, tulip"),
            NO_TEST,
            "left out: flowers/ in flowers/, which holds the same folders once more",
        ],
    ),
    "its own cache": (["cat 9", "dog 9", "cat.cache/images-0.npy"], [ALONE.format(2, "cat, dog"), NO_TEST]),
    "what may be a class": (
        ["cat 9", "l2.cache 9", ".net 9", "fish.zip", "dog -> nowhere", "0001", "LICENSE.txt"],
        [ALONE.format(2, "cat, l2.cache"), NO_TEST, "left out, as no class folder: .net, 0001, dog, fish.zip"],
    ),
    "images above a folder": (
        ["cat 5", "cat/more 4", "dog 9", "dog/notes/1.txt"],
        [
            ALONE.format(2, "cat, dog"),
            NO_TEST,
            "left out, by name no image: 1 file (dog/notes/1.txt)",
            "what lies in folders below a class folder is of that class (cat)",
        ],
    ),
    "valid and invalid": (["valid 9", "invalid 9"], [ALONE.format(2, "invalid, valid"), NO_TEST]),
    "letters": (
        ["a 6", "A 6", "b 6"],
        [ALONE.format(3, "A, a, b"), NO_TEST, "classes that only case tells apart: A, a"],
    ),
    "many": ([f"{i} 3" for i in range(6)], [ALONE.format(6, "0, 1, 2, 3, 4, …"), NO_TEST.replace("4", "6")]),
    "classes of classes": (
        ["animals/cat 5", "animals/dog 4", "things/car 4", "things/bus 5"],
        [
            ALONE.format(2, "animals, things"),
            NO_TEST,
            "what lies in folders below a class folder is of that class (animals, things)",
        ],
    ),
    "a class named train": (
        ["train/train 6", "train/bus 6", "test/train 3", "test/bus 3"],
        [USUAL.format("train", REST, "test").replace("cat, dog", "bus, train")],
    ),
}


@pytest.mark.parametrize(("folders", "said"), LAYOUTS.values(), ids=LAYOUTS)
def test_usual_layouts_are_read_and_it_is_said_how(tmp_path, capsys, folders, said):
    lay(tmp_path, *folders)
    read(make_config("smoke", data_dir=str(tmp_path)))
    lines = [line.format(root=tmp_path) for line in said]
    assert capsys.readouterr().out == "\n  ".join([f"{tmp_path}: {lines[0]}", *lines[1:]]) + "\n"


NOT_UNDERSTOOD = {
    "tiny imagenet": (
        ["t/train/n1/images 3", "t/train/n2/images 3", "t/val/images 2", "t/test/images 2", "t/val/annotations.txt"],
        "{root}/t/test has no class folders, only 2 images (0.jpg, 1.jpg): {LAYOUT}; give {root}/t/train as the data "
        "folder to have a fifth of it put aside for the test.",
    ),
    "pets": (
        ["images 5", "annotations/trimaps 5", "annotations/list.txt"],
        "The folders in {root} (annotations, images) look like images whose labels stand in files, which are not read: "
        "{LAYOUT}.",
    ),
    "yolo": (
        ["train/images 3", "train/labels/0.txt", "val/images 3"],
        "The folders in {root}/train (images, labels) look like images whose labels stand in files, which are not "
        "read: {LAYOUT}.",
    ),
    "pieces": (
        ["images_part_1 3", "images_part_2 3", "metadata.csv"],
        "The folders in {root} (images_part_1, images_part_2) look like images whose labels stand in files, which are "
        "not read: {LAYOUT}; or, if labels stand in it, give {root}/metadata.csv.",
    ),
    "dogs against cats": (
        ["train/train 2", "test1/test1 2", "sampleSubmission.csv"],
        "{root}/train/train has no class folders, only 2 images (0.jpg, 1.jpg): {LAYOUT}.",
    ),
    "images and a table": (
        ["images 2", "styles.csv"],
        "{root}/images has no class folders, only 2 images (0.jpg, 1.jpg): {LAYOUT}; or, if labels stand in it, give "
        "{root}/styles.csv.",
    ),
    "tables": (
        ["train.csv", "test.csv"],
        "{root} has no class folders, only 2 other files (test.csv, train.csv): {LAYOUT}; or, if labels stand in it, "
        "give {root}/test.csv.",
    ),
    "archives": (
        ["train.zip", "test.zip"],
        "{root} has no class folders, only 2 other files (test.zip, train.zip), to be unpacked: {LAYOUT}.",
    ),
    "no train": (
        parts("val", "test"),
        "There is no folder train/ in {root}, only 2 folders (test/, val/): {LAYOUT}; if val/ or test/ is a class and "
        "no part, rename it.",
    ),
    "a class called test": (
        ["control 3", "test 3"],
        "There is no folder train/ in {root}, only 2 folders (control/, test/): {LAYOUT}; if test/ is a class and no "
        "part, rename it.",
    ),
    "two of a kind": (
        [*parts("train", "test"), "Training/cat 3"],
        "Training/ and train/ in {root} may each be the train part: leave one of them there.",
    ),
    "a class beside parts": (
        [*parts("train", "test"), "cat 3"],
        "cat/ lies beside train/ in {root} and may be a class or a part of its own: move it away or, if train is a "
        "class as well, rename train/.",
    ),
    "loose images": (
        ["cat 3", "dog 3", "what.JPG"],
        "{root} holds 1 image (what.JPG) beside the class folders: move each into the folder of its class, or away.",
    ),
    "different depths": (
        ["cat 3", "animals/dog 3", "animals/cow 3"],
        "In {root}, animals/ holds folders (cow, dog) and cat/ does not: it is not clear which are the classes; put "
        "all class folders side by side.",
    ),
    "unknown parts": (
        ["amazon/images/bike 3", "amazon/images/mug 3", "dslr/images/bike 3", "dslr/images/mug 3"],
        "In {root}, amazon/, dslr/ hold folders of the same names (bike, mug): if those are the classes, merge the "
        "outer folders or, where they are parts, name them train/ and test/; if the outer ones are, put the images "
        "directly into them.",
    ),
    "folds": (
        ["fold1/cat 3", "fold1/cow 3", "fold1/dog 3", "fold2/cat 3", "fold2/dog 3", "fold3/cow 3", "fold3/dog 3"],
        "In {root}, fold1/, fold2/, fold3/ hold folders of the same names (cat, cow, dog): if those are the classes, "
        "merge the outer folders or, where they are parts, name them train/ and test/; if the outer ones are, put the "
        "images directly into them.",
    ),
    "parts in the names": (
        ["train_cat 3", "train_dog 3", "test_cat 3", "test_dog 3"],
        "The folders in {root} (test_cat, test_dog, train_cat, train_dog) name a part and a class each: {LAYOUT}.",
    ),
    "a class under two names": (
        ["cat 3", "dog 3", "kitty -> cat"],
        "{root}/cat and {root}/kitty are the same folder, by a symbolic link: remove one of them.",
    ),
    "tested on the training images": (
        ["train/cat 3", "train/dog 3", "test -> train"],
        "{root}/train and {root}/test are the same folder, by a symbolic link: remove one of them.",
    ),
    "upper case in one part": (
        ["train/Cat 3", "train/dog 3", "test/cat 2", "test/dog 2"],
        "train/ and test/ spell the same class differently ('Cat', 'cat'), in upper and lower case, spaces or Unicode "
        "form: rename one of them.",
    ),
    "Unicode forms in two parts": (
        ["train/\xe9 3", "train/dog 3", "test/e\u0301 2", "test/dog 2"],
        "train/ and test/ spell the same class differently ('e\\u0301', '\\xe9'), in upper and lower case, spaces or "
        "Unicode form: rename one of them.",
    ),
    "Unicode forms in one part": (
        ["\xe9 3", "e\u0301 3"],
        "Class folders in {root} look the same and differ only in their Unicode form or in spaces around the name "
        "('e\\u0301', '\\xe9'): make them one, or rename them.",
    ),
    "a class that only val has": (
        [*parts("train", "test", "val"), "val/cow 2"],
        "train/ and val/ must have the same classes; only one of them has: cow.",
    ),
    "an empty val": (
        [*parts("train", "test"), "val/cat/", "val/dog/"],
        "{root}/val has class folders without images (cat, dog): fill or remove them.",
    ),
    "one image to validate on": (
        [*parts("train", "test"), "val/cat 1"],
        "{root}/val has one image only: add some, or remove it to validate on a part of train.",
    ),
    "too few of a class": (
        ["cat 1", "cow 8", "dog 9"],
        "{root} has 18 images in 3 classes: too few to put a fifth of each aside for the test (one image only: cat); "
        "add images, or a test/ of your own.",
    ),
}


@pytest.mark.parametrize(("folders", "sentence"), NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD)
def test_what_is_not_understood_is_refused_with_what_was_found(tmp_path, folders, sentence):
    lay(tmp_path, *folders)
    said = refusal(read, make_config("smoke", data_dir=str(tmp_path)))
    assert said == sentence.format(root=tmp_path, LAYOUT=LAYOUT)


def test_every_class_folder_is_listed_once(make_smoke_config, toy_folder, monkeypatch):
    """On a mounted drive each listing of many images takes seconds."""
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
    read(make_smoke_config())
    assert sorted(Counter(path for path in listed if "colour" in path).values()) == [1] * 6


@pytest.mark.parametrize("place", ["", "cat", "dog/more"])
def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch, place):
    lay(tmp_path, "cat 3", "dog 3", "dog/more 2")
    closed, scandir = tmp_path / place, os.scandir

    def refuse(path):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    said = refusal(read, make_config("smoke", data_dir=str(tmp_path)))
    assert said == f"{closed} cannot be read (Permission denied): mend that or move it away."


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "data.rar").touch()
    said = refusal(read, make_config("smoke", data_dir=str(tmp_path / "data.rar")))
    assert said == f"{tmp_path}/data.rar is a file: give a folder, a .zip or .tar of one, or a .csv; {LAYOUT}."


@pytest.mark.parametrize("name", ["val", "Validation", "dev_set"])
def test_a_validation_part_of_ones_own_is_what_is_validated_on(make_smoke_config, toy_folder, capsys, name):
    series = {f"{name}/{path.parent.name}/{path.name}" for path in (toy_folder / "train").glob("*/0000*.png")}
    for path in series:
        (toy_folder / path).parent.mkdir(parents=True, exist_ok=True)
        (toy_folder / path.replace(name, "train")).rename(toy_folder / path)
    for path in (toy_folder / name / "colour_0").iterdir():  # a class that is missing there moves no label
        path.unlink()
    data = load(make_smoke_config())
    assert f"validated on {name}/ (20 images), tested on test/ (30 images)" in capsys.readouterr().out
    assert set(data.val.paths) == {path for path in series if "colour_0" not in path}
    assert data.val.counts() == {"colour_0": 0, "colour_1": 10, "colour_2": 10} and len(data.train) == 90
    for path, label in zip(data.val.paths, data.val.labels, strict=True):
        assert path.split("/")[1] == data.classes[label]
    assert not (data.context.config.results_path / "split.csv").exists()
    fewer = chosen(make_smoke_config(train_size=30, val_size=6))
    assert [sorted(Counter(fewer[name].labels).values()) for name in ("train", "val")] == [[10, 10, 10], [3, 3]]
    assert len(chosen(make_smoke_config(val_size=500))["val"]) == 20


def test_parts_of_any_name_in_any_wrapping_give_the_same_data(make_smoke_config, toy_folder, tmp_path):
    plain = load(make_smoke_config())
    wrapped = tmp_path / "wrapped" / "archive" / "toy"
    for old, new in (("train", "Training Set"), ("test", "seg_test/seg_test")):
        shutil.copytree(toy_folder / old, wrapped / new)
    config = make_smoke_config(data_dir=str(tmp_path / "wrapped"), output_dir=str(tmp_path / "other"))
    other = load(config)
    assert (other.train.sha256, other.val.sha256) == (plain.train.sha256, plain.val.sha256)
    assert other.train.paths[0] == plain.train.paths[0].replace("train/", "archive/toy/Training Set/")
    assert load_test(other).sha256 == load_test(plain).sha256
    assert not (config.results_path / "split.csv").exists()


def test_class_folders_alone_are_split_once_for_all_and_the_split_is_kept(make_smoke_config, toy_folder, capsys):
    for path in list(toy_folder.glob("*/*/*.png")):
        target = toy_folder / path.parent.name / f"{path.parent.parent.name}-{path.name}"
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    for part in ("train", "test"):
        shutil.rmtree(toy_folder / part)
    data = load(make_smoke_config())
    test = load_test(data)
    assert f"{toy_folder} has no test/: 30 of its images are put aside for the test\n" in capsys.readouterr().out
    assert [len(split) for split in (data.train, data.val, test)] == [108, 12, 30]
    assert set(test.counts().values()) == {10}
    paths = [*data.train.paths, *data.val.paths, *test.paths]
    assert len(set(paths)) == 150
    table = pd.read_csv(data.context.config.results_path / "split.csv")
    assert table["path"].tolist() == paths and table["part"].value_counts()["test"] == 30
    assert images_of_test(make_smoke_config()).paths == test.paths != images_of_test(make_smoke_config(seed=1)).paths


def test_val_takes_the_place_of_a_missing_test(make_smoke_config, toy_folder, capsys):
    before = images_of_test(make_smoke_config())
    (toy_folder / "test").rename(toy_folder / "val")
    data = load(make_smoke_config())
    test = load_test(data)
    assert f"{toy_folder} has no test/: val/ takes its place\n" in capsys.readouterr().out
    assert torch.equal(test.images.values, before.images.values) and test.paths[0].startswith("val/")
    assert (len(data.train), len(data.val)) == (108, 12)  # out of train/, as ever
    assert not (data.context.config.results_path / "split.csv").exists()


def test_what_is_wrong_with_the_folder_is_what_a_run_says(make_smoke_config, toy_folder):
    one_class(toy_folder)
    config = dataclasses.replace(make_smoke_config(), profile="quick")  # smoke would mend its own folder
    assert refusal(load, config) == refusal(read, config)


def test_a_link_to_a_folder_elsewhere_is_no_loop(make_smoke_config, toy_folder, tmp_path):
    (toy_folder / "train" / "colour_0").rename(tmp_path / "elsewhere")
    (toy_folder / "train" / "colour_0").symlink_to(tmp_path / "elsewhere")
    read(make_smoke_config())


def spoil_four_files(root):
    good = (root / "test/colour_0/00000.png").read_bytes()
    for i, bad in enumerate([b"", b"not an image", good[: len(good) // 2]]):
        (root / f"test/colour_0/0000{i}.png").write_bytes(bad)
    (root / "test/colour_0/00003.png").unlink()
    (root / "test/colour_0/00003.png").symlink_to("nowhere")
    (root / "test/colour_0/notes").write_text("a file that is no image at all")


def test_unreadable_files_of_all_parts_are_named_at_once(make_smoke_config, toy_folder, monkeypatch, capsys):
    spoil_four_files(toy_folder)
    (toy_folder / "train/colour_0/notes").touch()
    config = dataclasses.replace(make_smoke_config(), profile="quick")
    table = config.results_path / "unreadable.csv"
    said = refusal(load, config)
    assert said.startswith("6 files cannot be read as images: train/colour_0/notes (")
    assert said.endswith("or set skip_unreadable=True (the whole list: results/unreadable.csv).")
    bad = [f"test/colour_0/{name}" for name in ("00000.png", "00001.png", "00002.png", "00003.png", "notes")]
    why = ["empty", "not an image", "damaged", "No such file or directory", "not an image"]
    rows = pd.read_csv(table)
    assert rows["path"].tolist()[1:] == bad and rows["why"].tolist()[1:] == why
    with monkeypatch.context() as patch:
        patch.setattr(pixels, "cached_array", lambda *args: pytest.fail("decoded once more"))
        load(dataclasses.replace(config, skip_unreadable=True))
    assert "Left out, as they cannot be read as images: 6 files: train/colour_0/notes (" in capsys.readouterr().out
    assert pd.read_csv(table).equals(rows)
    for path in rows["path"]:
        (toy_folder / path).unlink()
    load(config)
    assert not table.exists()


def test_of_many_unreadable_files_five_are_named(make_smoke_config, toy_folder):
    for i in range(7):
        (toy_folder / f"test/colour_0/0000{i}.png").write_bytes(b"")
    sentence = refusal(load, make_smoke_config())
    assert sentence.startswith("7 files cannot") and "00004.png (empty), …: remove" in sentence
    assert "00005" not in sentence


def test_unreadable_files_are_left_out_if_asked_and_named_all_the_same(make_smoke_config, toy_folder, capsys):
    spoil_four_files(toy_folder)
    config = make_smoke_config(skip_unreadable=True)
    for _ in range(2):  # every run names them
        test = images_of_test(config)
        assert len(test) == len(test.images) == len(test.paths) == 26
        assert test.counts() == {"colour_0": 6, "colour_1": 10, "colour_2": 10}
        assert not {"test/colour_0/00001.png", "test/colour_0/notes"} & set(test.paths)
        said = capsys.readouterr().out
        assert "\nLeft out, as they cannot be read as images: 5 files: test/colour_0/00000.png (empty)" in said
    assert "5 files cannot be read as images" in refusal(load, make_smoke_config())  # and without, it is an error


def test_a_file_that_can_be_read_again_is_not_remembered_as_damaged(make_smoke_config, toy_folder, monkeypatch):
    def refused(*args):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(images, "read_image", refused)
        assert ".png (Permission denied)" in refusal(load, make_smoke_config())
    assert len(images_of_test(make_smoke_config())) == 30


def test_a_class_too_rare_for_validation_is_no_error(make_smoke_config, toy_folder):
    for path in list((toy_folder / "train" / "colour_2").iterdir())[3:]:
        path.unlink()
    data = load(make_smoke_config())
    assert [counts["colour_2"] for counts in (data.train.counts(), data.val.counts(), data.test_counts)] == [3, 0, 10]


def test_a_class_of_unreadable_files_only_cannot_be_left_out(make_smoke_config, toy_folder):
    for path in (toy_folder / "test" / "colour_1").iterdir():
        path.write_bytes(b"")
    sentence = refusal(load, make_smoke_config(skip_unreadable=True))
    assert sentence == "No readable image is left in test for colour_1: add some."


def test_what_file_managers_leave_behind_is_no_data(make_smoke_config, toy_folder):
    for name in (".DS_Store", "._00000.png", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints/00000-checkpoint.png"):
        path = toy_folder / "test" / "colour_0" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"?")
    assert len(images_of_test(make_smoke_config())) == 30


def test_class_and_file_names_may_be_long_and_in_any_script(make_smoke_config, toy_folder):
    name = "класс 図 🦊 " + "x" * 100
    for part in ("train", "test"):
        (toy_folder / part / "colour_1").rename(toy_folder / part / name)
        for path in (toy_folder / part / name).iterdir():
            path.rename(path.with_name("z" * 200 + "ё" + path.name))
    assert load(make_smoke_config()).train.counts()[name] == 36


def test_too_few_images_for_the_split_is_said_before_one_is_opened(make_smoke_config, toy_folder, monkeypatch):
    for path in (toy_folder / "train" / "colour_1").glob("*[1-9].png"):
        path.unlink()
    for path in (toy_folder / "train" / "colour_1").glob("000[1-9]0.png"):
        path.unlink()
    monkeypatch.setattr(Image, "open", None)
    sentence = refusal(load, make_smoke_config())
    assert sentence == (
        "81 images in 3 classes cannot be split into 73 for training and 8 for validation (one image only: colour_1): "
        "add images or lower train_size and val_size."
    )


def test_a_test_size_below_the_number_of_classes(make_smoke_config, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    sentence = refusal(load, make_smoke_config(test_size=2))
    assert sentence == "test_size 2 is less than one image for each of 3 classes: raise it, or take None."


def test_a_test_size_that_cannot_be_stratified_holds_every_class(make_smoke_config):
    assert sorted(images_of_test(make_smoke_config(test_size=29)).counts().values()) == [9, 10, 10]
    assert set(images_of_test(make_smoke_config(test_size=3)).counts().values()) == {1}


def test_a_table_beside_the_images_is_not_passed_over_in_silence(make_smoke_config, toy_folder, tmp_path, capsys):
    (toy_folder / "labels.csv").write_text("path,label\n")
    read_folder(toy_folder, "mine")
    assert f"not read: labels.csv; if labels stand in it, give {toy_folder / 'labels.csv'}" in capsys.readouterr().out
    flat = tmp_path / "flat"
    rows = ["file,kind"]
    for i, image in enumerate(sorted(toy_folder.glob("train/*/*.png"))):
        (flat / "images").mkdir(parents=True, exist_ok=True)
        (flat / "images" / f"{i}.png").write_bytes(image.read_bytes())
        rows.append(f"{i}.png,{image.parent.name}")
    (flat / "train.csv").write_text("\n".join(rows))
    archive = shutil.make_archive(tmp_path / "packed", "zip", tmp_path, "flat")
    places = {"data_dir": archive, "output_dir": str(tmp_path / "out")}
    with pytest.raises(
        Hw1Error, match=r"no class folders.*; or, if labels stand in it, give .*train\.csv\.$"
    ) as refused:
        load(make_smoke_config(**places))
    table = re.search(r"give (\S*train\.csv)\.$", str(refused.value))[1]
    assert len(load(make_smoke_config(**places | {"data_dir": table})).train) == 86  # a fifth for test, a tenth for val
