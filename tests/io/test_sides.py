"""Copies stay on one side of the splits that are made here, and where there are none nothing is split otherwise."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.copies import KINDS
from hw1_utils.experiment import load, load_test
from hw1_utils.io import pixels, twins
from hw1_utils.io.folders import read_folder
from hw1_utils.io.sides import twins_on_one_side
from hw1_utils.io.splits import choose, put_aside

pytestmark = pytest.mark.usefixtures("one_thread")
NO_SIZES = dict.fromkeys(("train_size", "val_size", "test_size"))


def pictures(side=80):
    """Distinct ones with something in them to compare: pieces of scikit-learn's two photographs."""
    for photo in load_sample_images().images:
        for top in range(0, photo.shape[0] - side, side):
            for left in range(0, photo.shape[1] - side, side):
                tile = Image.fromarray(photo[top : top + side, left : left + side])
                if np.asarray(tile.convert("L").resize((32, 32))).std() > 25:
                    yield tile


@pytest.fixture
def folder(tmp_path):
    """40 distinct pictures in class folders, no test."""
    root = tmp_path / "photos"
    for i, picture in zip(range(40), pictures(), strict=False):
        (root / f"class_{i % 2}").mkdir(parents=True, exist_ok=True)
        picture.save(root / f"class_{i % 2}" / f"{i:02}.png")
    return root


def copied(root, kind, only=slice(None)):
    """Of some pictures a copy each, in the same class."""
    for path in sorted(root.glob("*/[0-9][0-9].png"))[only]:
        with Image.open(path) as picture:
            KINDS[kind](picture.convert("RGB")).save(path.with_stem(f"{path.stem} {kind}"))


def split(root, seed=3, sizes=NO_SIZES, side=32, groups=None):
    """(the split as it was before copies were looked for, the one without copies on two sides)"""
    folder = read_folder(root, "photos", groups)
    if not folder.has_test:
        folder = put_aside(folder, "photos", seed)
    chosen = choose(folder, "photos", seed, **sizes)
    return chosen, twins_on_one_side(root, folder, chosen, side, seed, root.with_name("cache"))[1]


def sides(chosen):
    return {path: name for name, part in chosen.items() for path in part.paths}


def cut(root, chosen):
    """Pictures whose copies, by their names, are on another side."""
    found = {}
    for path, side in sides(chosen).items():
        found.setdefault(path.split("/")[-1][:2], set()).add(side)
    return [stem for stem, names in found.items() if len(names) > 1]


@pytest.mark.parametrize("kind", KINDS)
def test_no_copy_is_on_another_side(folder, kind, capsys):
    copied(folder, kind)
    before, after = split(folder)
    assert len(cut(folder, before)) > 8
    assert len(cut(folder, after)) <= (4 if kind == "cropped to 85 %" else 2)  # that the finder does not find
    _, near = pixels.load_twins(folder, [part.paths for part in after.values()], 32, {}, folder.with_name("cache"))
    of = dict(zip(sides(after), near.tolist(), strict=True))
    both = {(of[path], side) for path, side in sides(after).items()}
    assert len(both) == len(set(of.values())), "what is found is never parted"
    assert all(abs(len(after[name]) - len(before[name])) <= 2 for name in before)
    assert sorted(sides(after)) == sorted(sides(before))
    assert "images have copies, exact or near; each stays on the side of its copies" in capsys.readouterr().out


@pytest.mark.parametrize("sizes", [NO_SIZES, {"train_size": 20, "val_size": 6, "test_size": 4}])
@pytest.mark.parametrize("own_test", [False, True])
def test_without_copies_the_split_is_as_before(folder, toy_folder, sizes, own_test, capsys):
    """Of photographs, and of the pictures that the smoke profile makes."""
    before, after = split(toy_folder if own_test else folder, sizes=sizes)
    assert before is after
    assert "copies" not in capsys.readouterr().out


def test_parts_of_ones_own_are_not_touched(folder):
    copied(folder, "mirrored")
    for part in ("train", "test"):
        (folder / part).mkdir()
    for place in sorted(folder.glob("class_*")):
        place.rename(folder / "train" / place.name)
    for path in sorted(folder.glob("train/*/1*.png")):
        target = folder / "test" / path.parent.name
        target.mkdir(exist_ok=True)
        path.rename(target / path.name)
    before, after = split(folder)
    assert after["test"] is before["test"] and after["val"].paths != before["val"].paths
    assert not set(cut(folder, {name: after[name] for name in ("train", "val")}))
    for path in after["val"].paths:
        (folder / "val" / path.split("/")[1]).mkdir(parents=True, exist_ok=True)
        (folder / path).rename(folder / "val" / "/".join(path.split("/")[1:]))
    before, after = split(folder)
    assert after is before


@pytest.mark.parametrize("side", [32, 64])
def test_the_second_run_looks_for_nothing(folder, monkeypatch, side):
    copied(folder, "blurred", slice(12))
    _, first = split(folder, side=side)
    monkeypatch.setattr(pixels, "load_pixels", None)
    monkeypatch.setattr(pixels, "decode", None)
    monkeypatch.setattr(twins, "twin_clusters", None)
    assert split(folder)[1] == first
    other = split(folder, seed=4)[1]  # the same files, dealt otherwise
    assert not cut(folder, other) and other["val"].paths != first["val"].paths


@pytest.mark.parametrize("side", [32, 64])
def test_what_cannot_be_read_has_no_copies(folder, side):
    copied(folder, "mirrored", slice(10))
    for i in range(8):
        (folder / "class_0" / f"bad {i}.png").write_bytes(b"no picture")
    paths = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("*/*.png"))]
    exact, near = pixels.load_twins(folder, [paths[::2], paths[1::2]], side, {}, folder.with_name("cache"))
    order = [*paths[::2], *paths[1::2]]
    for numbers in (exact, near):
        counts = Counter(numbers.tolist())
        assert [counts[number] for path, number in zip(order, numbers, strict=True) if "bad" in path] == [1] * 8
    assert len(set(near.tolist())) == 48 and len(set(exact.tolist())) == 58


@pytest.mark.parametrize("side", [32, 64])
def test_among_very_many_images_only_exact_copies_are_looked_for_and_none_is_in_memory(
    folder, side, monkeypatch, capsys
):
    copied(folder, "mirrored", slice(10))
    files = sorted(folder.glob("*/*.png"))
    (folder / "class_0" / "again.png").write_bytes(files[0].read_bytes())
    paths = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("*/*.png"))]
    for name, value in {"LONG": 2, "MOST": len(paths) - 1, "IN_MEMORY": 0}.items():
        monkeypatch.setattr(pixels, name, value)
    exact, near = pixels.load_twins(folder, [paths], side, {}, folder.with_name("cache"))
    assert (exact == near).all() and len(set(exact.tolist())) == len(paths) - 1
    assert f"exact copies among {len(paths)} images" in capsys.readouterr().out


def test_a_film_is_not_kept_together_and_groups_are_suggested(folder, capsys):
    """Thirty frames in a class of 54, ten of which are equal."""
    with Image.open(folder / "class_0" / "00.png") as picture:
        for i in range(30):
            light = picture.convert("RGB").point(lambda value, i=i: value * (1 - 0.01 * max(i, 9)))
            light.save(folder / "class_0" / f"frame {i}.png")
    copied(folder, "mirrored", slice(1, 9))
    _, after = split(folder)
    where = sides(after)
    assert len({where[f"class_0/frame {i}.png"] for i in range(10, 30)}) > 1
    assert len({where[f"class_0/frame {i}.png"] for i in range(10)}) == 1
    assert cut(folder, after) == ["fr"]
    said = capsys.readouterr().out
    assert "have copies on another side of the split" in said and "say with groups what belongs" in said


def test_a_class_of_nothing_but_copies_is_split_all_the_same(folder, capsys):
    for i in range(6):
        (folder / "same").mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), "red").save(folder / "same" / f"{i}.png")
    before, after = split(folder)
    assert after is before
    said = capsys.readouterr().out
    assert "6 images, same/" in said and "the very same picture to be kept together: keep one file of each" in said


def test_groups_and_copies_stay_whole_together_or_it_is_said(folder, capsys):
    def groups_of(path):
        return path.rsplit("/", 1)[-1][:1]  # tens: four groups

    copied(folder, "mirrored")
    before, after = split(folder, groups=r"/(\d)\d")
    assert after is before and "on another side" not in capsys.readouterr().out  # copies are in the same group
    sides_of = {(groups_of(path), side) for path, side in sides(after).items()}
    assert len(sides_of) == 4
    for i, path in enumerate(sorted(folder.glob("*/* mirrored.png"))[::4]):  # now they tie all groups together
        path.rename(path.with_name(f"{(i + 1) % 4}9 {path.name}"))
    before, after = split(folder, groups=r"/(\d)\d")
    assert after is before
    assert "as groups and copies tie too many images together" in capsys.readouterr().out


def test_a_run_trains_on_no_copy_of_what_judges_it(folder, make_smoke_config, toy_folder):
    copied(folder, "darker, less contrast", slice(20))
    settings = {"encoder": "test_vit", "data_dir": str(folder), "memory_mb": 1, "image_size": 128}
    data = load(make_smoke_config(**settings))
    chosen = {split.name: split for split in (data.train, data.val, load_test(data))}
    assert data.train.images.streamed
    assert len(cut(folder, chosen)) <= 1
