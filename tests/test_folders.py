"""What is said, in one sentence, about folders and images that will not do."""

import shutil

import pytest

from hw1_utils.data import check_folder, load_test, load_train_val
from hw1_utils.files import Hw1Error


def refusal(function, config) -> str:
    with pytest.raises(Hw1Error) as caught:
        function(config)
    return str(caught.value)


def test_check_folder_counts(make_smoke_config):
    assert check_folder(make_smoke_config()) == {"train": 120, "test": 30}


def test_missing_folder(make_smoke_config, toy_folder):
    shutil.rmtree(toy_folder / "test")
    sentence = (
        f"There is no folder test/ in {toy_folder}: "
        "the data must lie as train/<class>/<image> and test/<class>/<image>."
    )
    assert refusal(check_folder, make_smoke_config()) == refusal(load_test, make_smoke_config()) == sentence


def test_class_folder_without_images(make_smoke_config, toy_folder):
    for path in (toy_folder / "train" / "colour_1").iterdir():
        path.unlink()
    sentence = refusal(check_folder, make_smoke_config())
    assert (
        sentence.startswith(f"{toy_folder}/train has no class folders with images: ")
        and "Found no valid file for the classes colour_1" in sentence
    )


def test_no_class_folders(make_smoke_config, toy_folder):
    shutil.rmtree(toy_folder / "train")
    (toy_folder / "train").mkdir()
    assert f"{toy_folder}/train has no class folders with images" in refusal(check_folder, make_smoke_config())


def test_different_classes(make_smoke_config, toy_folder):
    (toy_folder / "test" / "colour_2").rename(toy_folder / "test" / "color_2")
    sentence = "train/ and test/ must have the same classes; only one of them has: color_2, colour_2."
    assert refusal(check_folder, make_smoke_config()) == sentence


def test_one_class(make_smoke_config, toy_folder):
    for part in ("train", "test"):
        for k in (1, 2):
            shutil.rmtree(toy_folder / part / f"colour_{k}")
    sentence = "toy/train has one class only: a classifier needs at least two."
    assert refusal(check_folder, make_smoke_config()) == sentence


def test_unreadable_files_are_named(make_smoke_config, toy_folder):
    good = (toy_folder / "test/colour_0/00000.png").read_bytes()
    short_header = good[:11] + b"\x05" + good[12:]  # PIL raises ValueError, not OSError
    for i, bad in enumerate([b"", b"not an image", good[: len(good) // 2], short_header]):
        (toy_folder / f"test/colour_0/0000{i}.png").write_bytes(bad)
    names = ", ".join(f"test/colour_0/0000{i}.png" for i in range(4))
    sentence = f"4 files cannot be read as images: {names}: remove or replace them."
    config = make_smoke_config()
    assert refusal(load_test, config) == sentence
    assert not config.cache_path.exists()


def test_of_many_unreadable_files_five_are_named(make_smoke_config, toy_folder):
    for i in range(7):
        (toy_folder / f"test/colour_0/0000{i}.png").write_bytes(b"")
    sentence = refusal(load_test, make_smoke_config())
    assert sentence.startswith("7 files cannot") and "00004.png, …: remove" in sentence and "00005" not in sentence


def test_too_few_images_for_the_split(make_smoke_config, toy_folder):
    for path in (toy_folder / "train" / "colour_1").glob("*[1-9].png"):
        path.unlink()
    for path in (toy_folder / "train" / "colour_1").glob("000[1-9]0.png"):
        path.unlink()
    sentence = refusal(load_train_val, make_smoke_config())
    assert sentence.startswith("81 images in 3 classes cannot be split into 73 for training and 8 for validation (")
    assert sentence.endswith("): add images or lower train_size and val_size.")


@pytest.mark.parametrize("test_size", [2, 29])
def test_a_test_size_that_cannot_be_stratified(make_smoke_config, test_size):
    sentence = refusal(load_test, make_smoke_config(test_size=test_size))
    assert sentence.startswith(f"{test_size} of 30 test images in 3 classes cannot be chosen (")
