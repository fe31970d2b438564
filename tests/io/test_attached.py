"""What is attached to a Kaggle notebook, in an imitated /kaggle/input."""

import os

import pytest
from PIL import Image

from hw1_utils.config import Config, make_config
from hw1_utils.errors import Hw1Error
from hw1_utils.io import attached as module
from hw1_utils.io.attached import attached
from hw1_utils.io.cifar10 import archives_among
from hw1_utils.io.weight_files import weights_among
from hw1_utils.io.weights import find_weights


@pytest.fixture
def attach(tmp_path, monkeypatch):
    """`attach(path, …)`: put empty files, or small pictures, below the imitated /kaggle/input."""
    monkeypatch.setattr(module, "INPUT", tmp_path / "input")
    for name in ("HW1_DATA", "HW1_WEIGHTS", "HW1_ENCODER", "HW1_OUTPUT", "HW1_OVERRIDES"):
        monkeypatch.delenv(name, raising=False)

    def put(*paths):
        for path in paths:
            file = tmp_path / "input" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(file) if file.suffix == ".png" else file.touch()
        return tmp_path / "input"

    return put


FLOWERS = [f"{part}/{name}/{i}.png" for part in ("train", "test") for name in ("rose", "tulip") for i in range(2)]


def test_elsewhere_nothing_is_attached(attach):
    assert attached().folders == attached().others == [] and module.advice() == ""
    assert make_config("quick").data_dir == Config.data_dir


@pytest.mark.parametrize("root", ["flowers", "datasets/someone/flowers", "notebooks/someone/flowers"])
def test_the_one_folder_of_images_that_is_attached_is_the_data(attach, root):
    place = attach(*(f"{root}/flowers/{path}" for path in FLOWERS)) / root
    config = make_config("quick")
    assert config.data_path == place and config.own_images
    assert make_config("smoke").is_toy and make_config("quick", data_dir="elsewhere").data_path.name == "elsewhere"


def test_of_several_folders_one_has_to_be_chosen(attach):
    place = attach("flowers/rose/1.png", "flowers/tulip/1.png", "cats/tom/1.png", "cats/felix/1.png")
    with pytest.raises(Hw1Error, match="choose one of .*cats, .*flowers with HW1_DATA"):
        make_config("quick")
    assert make_config("quick", data_dir=str(place / "cats")).data_path == place / "cats"
    attach("cifar/cifar-10-python.tar.gz")
    with pytest.raises(Hw1Error, match=r"data/cifar10 \(CIFAR-10\)"):
        make_config("quick")


@pytest.mark.parametrize("name", ["c/cifar-10-python.tar.gz", "datasets/o/c/cifar-10-batches-py/data_batch_1"])
def test_cifar10_is_found_as_archive_or_unpacked(attach, name):
    attach(name)
    (found,) = archives_among(attached().others)
    assert found.name in name.split("/") and make_config("quick").is_cifar10


@pytest.mark.parametrize(
    "paths",
    [
        ("hw1/hw1_utils/config.py", "hw1/results/samples.png", "hw1/docs/picture.png"),
        ("run/hw1/runs/cnn/a.tfevents", "run/hw1/results/vit/cm.png", "run/hw1/results/cnn/cm.png"),
        ("run/__results___files/1.png", "run/other/2.png"),
        ("titanic/train.csv", "titanic/docs/figure.png", "titanic/logo.png"),
        ("flowers.csv/__MACOSX/a/1.png", "flowers.csv/__MACOSX/b/1.png", "flowers.csv/.hidden/c.png"),
        ("odd/a.png/readme.txt", "odd/b.png/readme.txt"),
    ],
)
def test_pictures_that_explain_or_show_something_are_no_data(attach, paths):
    attach(*paths)
    assert attached().folders == [] and make_config("quick").is_cifar10


def test_data_that_are_not_understood_are_not_passed_over_for_cifar10(attach):
    """Pictures in one folder, with a table of labels: that is refused when it is read."""
    place = attach("flat/labels.csv", *(f"flat/images/{i}.png" for i in range(25)))
    assert make_config("quick").data_path == place / "flat"


def test_what_cannot_be_read_is_passed_over(attach, monkeypatch):
    place = attach(*(f"flowers/{path}" for path in FLOWERS), "secret/x.txt")
    (place / "loop").mkdir()
    (place / "loop" / "again").symlink_to(place / "loop")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("hw1_utils.io.listing.os.scandir", refuse)
    assert attached().folders == [place / "flowers"]


@pytest.mark.parametrize(
    ("path", "encoder"),
    [
        ("vit/deit_tiny_patch16_224.safetensors", "deit_tiny_patch16_224"),
        ("models/o/vit/pytorch/tiny/1/vit_tiny_patch16_224.augreg_in21k.bin", "vit_tiny_patch16_224.augreg_in21k"),
        ("resnet18-5c106cde.pth", "resnet18"),
        ("models/o/m/pytorch/deit_tiny_patch16_224/1/model.safetensors", "deit_tiny_patch16_224"),
    ],
)
def test_attached_weights_choose_the_encoder_that_they_are_named_after(attach, path, encoder):
    place = attach(f"weights/{path}" if "/" not in path else path)
    config = make_config("quick")
    assert config.encoder == encoder
    found = find_weights(config.encoder, config.weights_place)
    assert found.origin == "file" and found.path.is_relative_to(place) and "attached" in found.source


def test_files_that_are_named_after_no_model_are_not_taken_for_weights(attach):
    place = attach("mine/best.pth", "mine/notes.bin", "mine/resnet18.pth/readme.txt")
    (place / "mine" / "resnet34.pth").symlink_to(place / "gone")
    assert weights_among(attached().others) == {} and make_config("quick").encoder == Config.encoder


def test_of_several_attached_weights_the_default_encoders_are_taken_or_one_has_to_be_chosen(attach):
    attach("w/resnet18.pth", "w/deit_tiny_patch16_224.pth")
    with pytest.raises(Hw1Error, match="has weights of deit_tiny_patch16_224, resnet18: choose"):
        make_config("quick")
    assert find_weights(make_config("quick", encoder="resnet18").encoder).path.name == "resnet18.pth"
    attach("w/resnet18.a1_in1k.safetensors")  # the same model as one of them
    assert find_weights("resnet18.a1_in1k").path.name == "resnet18.a1_in1k.safetensors"
    attach("w/vit_tiny_patch16_224.pth")
    assert make_config("quick").encoder == "vit_tiny_patch16_224"


def test_folders_by_the_thousand_are_not_looked_through_to_the_end(attach, monkeypatch):
    monkeypatch.setattr(module, "MOST_FOLDERS", 5)
    place = attach(*(f"many/train/{i:03}/{j}.png" for i in range(20) for j in range(3)))
    looked = [here.path for here in module._walk(place / "many")]
    assert attached().folders == [place / "many"] and len(looked) == 5


def test_images_far_below_or_beside_many_other_files_are_found(attach):
    deep = [f"datasets/o/s/archive/data/v1/images/{path}" for path in FLOWERS]
    place = attach(*deep, *(f"datasets/o/s/labels{i}.xml" for i in range(1200)))
    assert make_config("quick").data_path == place / "datasets/o/s"


def test_decoded_images_of_a_folder_that_may_only_be_read_lie_elsewhere(attach, monkeypatch):
    place = attach(*(f"flowers/{path}" for path in FLOWERS))
    beside = place / "flowers.cache"
    config = make_config("quick")
    assert config.cache_path == beside
    monkeypatch.setattr("hw1_utils.config.os.access", lambda path, mode: False)
    other = make_config("quick", data_dir=str(place.parent / "flowers"))
    assert config.cache_path.parent.name == "data" and config.cache_path.name.startswith("flowers-")
    assert config.cache_path != other.cache_path  # two folders of one name


def test_what_cannot_be_downloaded_is_to_be_attached(attach):
    attach("empty/readme.md")
    assert module.advice().startswith("; on Kaggle switch the internet on") and "weights" in module.advice()
