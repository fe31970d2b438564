"""Folders as people have them: how each is read, and the sentence that an unusable one gets."""

import dataclasses
import os
import shutil

import pandas as pd
import pytest
import torch
from PIL import Image

from hw1_utils import images
from hw1_utils.data import load_test, load_train_val
from hw1_utils.experiment import prepare
from hw1_utils.files import Hw1Error
from hw1_utils.folders import LAYOUT, check_folder


def refusal(function, config) -> str:
    with pytest.raises(Hw1Error) as caught:
        function(config)
    return str(caught.value)


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


CATALOGUE = [
    (no_folder, f"There is no folder {{root}}: {LAYOUT}."),
    (
        no_test,
        f"There is no folder test/ in {{root}}: {LAYOUT}; give {{root}}/train as the data folder to have a fifth of it put "
        "aside for the test.",
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
]


@pytest.mark.parametrize(("spoil", "sentence"), CATALOGUE, ids=[spoil.__name__ for spoil, _ in CATALOGUE])
def test_catalogue(make_smoke_config, toy_folder, monkeypatch, spoil, sentence):
    spoil(toy_folder)
    monkeypatch.setattr(Image, "open", None)  # it is found before a single image is opened
    said = refusal(check_folder, make_smoke_config())
    assert said in (sentence.format(root=toy_folder), sentence.format(root=toy_folder).replace("colour_0", "colour_1"))


def test_class_folders_alone_are_split_once_for_all_and_the_split_is_kept(make_smoke_config, toy_folder, capsys):
    for path in list(toy_folder.glob("*/*/*.png")):
        target = toy_folder / path.parent.name / f"{path.parent.parent.name}-{path.name}"
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    for part in ("train", "test"):
        shutil.rmtree(toy_folder / part)
    config = make_smoke_config()
    setup = prepare(config)
    test = load_test(config)
    assert f"{toy_folder} has no test/: 30 of its images are put aside for the test\n" in capsys.readouterr().out
    assert [len(split) for split in (setup.train, setup.val, test)] == [108, 12, 30]
    assert set(test.counts().values()) == {10}
    paths = [*setup.train.paths, *setup.val.paths, *test.paths]
    assert len(set(paths)) == 150
    table = pd.read_csv(config.results_path / "split.csv")
    assert table["path"].tolist() == paths and table["part"].value_counts()["test"] == 30
    assert load_test(make_smoke_config()).paths == test.paths != load_test(make_smoke_config(seed=1)).paths


def test_val_takes_the_place_of_a_missing_test(make_smoke_config, toy_folder, capsys):
    before = load_test(make_smoke_config())
    (toy_folder / "test").rename(toy_folder / "val")
    setup = prepare(make_smoke_config())
    test = load_test(make_smoke_config())
    assert f"{toy_folder} has no test/: val/ takes its place\n" in capsys.readouterr().out
    assert torch.equal(test.images, before.images) and test.paths[0].startswith("val/")
    assert (len(setup.train), len(setup.val)) == (108, 12)  # out of train/, as ever
    assert not (setup.config.results_path / "split.csv").exists()


def test_what_is_wrong_with_the_folder_is_what_a_run_says(make_smoke_config, toy_folder):
    one_class(toy_folder)
    config = dataclasses.replace(make_smoke_config(), profile="quick")  # smoke would mend its own folder
    assert refusal(prepare, config) == refusal(check_folder, config)


def test_a_link_to_a_folder_elsewhere_is_no_loop(make_smoke_config, toy_folder, tmp_path):
    (toy_folder / "train" / "colour_0").rename(tmp_path / "elsewhere")
    (toy_folder / "train" / "colour_0").symlink_to(tmp_path / "elsewhere")
    check_folder(make_smoke_config())


def spoil_four_files(root):
    good = (root / "test/colour_0/00000.png").read_bytes()
    for i, bad in enumerate([b"", b"not an image", good[: len(good) // 2]]):
        (root / f"test/colour_0/0000{i}.png").write_bytes(bad)
    (root / "test/colour_0/00003.png").unlink()
    (root / "test/colour_0/00003.png").symlink_to("nowhere")
    (root / "test/colour_0/notes").write_text("a file that is no image at all")


def test_unreadable_files_are_named_before_anything_is_trained(make_smoke_config, toy_folder):
    spoil_four_files(toy_folder)
    sentence = (
        "5 files cannot be read as images: test/colour_0/00000.png (not an image), test/colour_0/00001.png (not an "
        "image), test/colour_0/00002.png (damaged), test/colour_0/00003.png (No such file or directory), "
        "test/colour_0/notes (not an image): remove or replace them, or set skip_unreadable=True."
    )
    config = dataclasses.replace(make_smoke_config(), profile="quick")
    assert refusal(load_test, config) == refusal(prepare, config) == sentence
    assert not list(config.cache_path.iterdir())


def test_of_many_unreadable_files_five_are_named(make_smoke_config, toy_folder):
    for i in range(7):
        (toy_folder / f"test/colour_0/0000{i}.png").write_bytes(b"")
    sentence = refusal(load_test, make_smoke_config())
    assert sentence.startswith("7 files cannot") and "00004.png (not an image), …: remove" in sentence
    assert "00005" not in sentence


def test_unreadable_files_are_left_out_if_asked_and_named_all_the_same(make_smoke_config, toy_folder, capsys):
    spoil_four_files(toy_folder)
    config = make_smoke_config(skip_unreadable=True)
    for _ in range(2):  # every run names them
        test = load_test(config)
        assert len(test) == len(test.images) == len(test.paths) == 26
        assert test.counts() == {"colour_0": 6, "colour_1": 10, "colour_2": 10}
        assert not {"test/colour_0/00001.png", "test/colour_0/notes"} & set(test.paths)
        said = capsys.readouterr().out
        assert said.startswith("Left out, as they cannot be read as images: 5 files: test/colour_0/00000.png (not an")
    assert "5 files cannot be read as images" in refusal(load_test, make_smoke_config())  # and without, it is an error


def test_a_file_that_can_be_read_again_is_not_remembered_as_damaged(make_smoke_config, toy_folder, monkeypatch):
    def refused(*args):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(images, "read_image", refused)
        assert "00000.png (Permission denied)" in refusal(load_test, make_smoke_config())
    assert len(load_test(make_smoke_config())) == 30


def test_a_class_too_rare_for_validation_is_no_error(make_smoke_config, toy_folder):
    for path in list((toy_folder / "train" / "colour_2").iterdir())[3:]:
        path.unlink()
    train, val = load_train_val(make_smoke_config())
    assert train.counts()["colour_2"] == 3 and val.counts()["colour_2"] == 0


def test_a_class_of_unreadable_files_only_cannot_be_left_out(make_smoke_config, toy_folder):
    for path in (toy_folder / "test" / "colour_1").iterdir():
        path.write_bytes(b"")
    sentence = refusal(load_test, make_smoke_config(skip_unreadable=True))
    assert sentence == "No readable image is left in test for colour_1: add some."


def test_what_file_managers_leave_behind_is_no_data(make_smoke_config, toy_folder):
    for name in (".DS_Store", "._00000.png", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints/00000-checkpoint.png"):
        path = toy_folder / "test" / "colour_0" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"?")
    assert len(load_test(make_smoke_config())) == 30


def test_class_and_file_names_may_be_long_and_in_any_script(make_smoke_config, toy_folder):
    name = "класс 図 🦊 " + "x" * 100
    for part in ("train", "test"):
        (toy_folder / part / "colour_1").rename(toy_folder / part / name)
        for path in (toy_folder / part / name).iterdir():
            path.rename(path.with_name("z" * 200 + "ё" + path.name))
    train, _ = load_train_val(make_smoke_config())
    assert name in train.classes and train.counts()[name] == 36


def test_too_few_images_for_the_split(make_smoke_config, toy_folder):
    for path in (toy_folder / "train" / "colour_1").glob("*[1-9].png"):
        path.unlink()
    for path in (toy_folder / "train" / "colour_1").glob("000[1-9]0.png"):
        path.unlink()
    sentence = refusal(load_train_val, make_smoke_config())
    assert sentence == (
        "81 images in 3 classes cannot be split into 73 for training and 8 for validation (one image only: colour_1): "
        "add images or lower train_size and val_size."
    )


def test_a_test_size_below_the_number_of_classes(make_smoke_config):
    sentence = refusal(load_test, make_smoke_config(test_size=2))
    assert sentence == "test_size 2 is less than one image for each of 3 classes: raise it, or take None."


def test_a_test_size_that_cannot_be_stratified_holds_every_class(make_smoke_config):
    assert sorted(load_test(make_smoke_config(test_size=29)).counts().values()) == [9, 10, 10]
    assert set(load_test(make_smoke_config(test_size=3)).counts().values()) == {1}
