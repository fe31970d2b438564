"""docs/example_folders.py builds what docs/your-own-images.md says of its folders, or leaves nothing behind."""

import gzip
import importlib.util
import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hw1_utils.config import ROOT

SPEC = importlib.util.spec_from_file_location("example_folders", ROOT / "docs" / "example_folders.py")
example_folders = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(example_folders)


@pytest.fixture
def build(tmp_path, monkeypatch):
    """(example, source) -> the folder, built as from a shell."""

    def run(example: str, source: Path | None = None) -> Path:
        target = tmp_path / "built"
        monkeypatch.setattr("sys.argv", ["", example, str(target), *(["--source", str(source)] if source else [])])
        example_folders.main()
        return target

    return run


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_digits(build):
    folder = build("digits")
    assert len(files(folder)) == 1797 and Image.open(folder / "3" / "0003.png").size == (8, 8)


def test_fashion_is_read_from_the_files_of_the_package(tmp_path, build):
    pixels = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    for name in ("train", "t10k"):
        for what, values in (("images-idx3", pixels), ("labels-idx1", np.array([9, 0], np.uint8))):
            head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            (tmp_path / f"{name}-{what}-ubyte.gz").write_bytes(gzip.compress(head + values.tobytes()))
    folder = build("fashion", tmp_path)
    names = ["Ankle-boot/00000.png", "T-shirt/00001.png"]
    assert files(folder) == [f"{part}/{name}" for part in ("test", "train") for name in names]
    assert np.array_equal(np.asarray(Image.open(folder / "test" / names[1])), pixels[1])


def test_faces_have_the_wrong_labels_and_the_copies_that_their_names_tell_of(build, monkeypatch):
    pieces = np.random.default_rng(0).random((200, 25, 25))
    monkeypatch.setattr(example_folders, "scikit_image", lambda: SimpleNamespace(lfw_subset=lambda: pieces))
    folder = build("faces")
    found = [Path(name) for name in files(folder)]
    originals = [path for path in found if "_" not in path.stem]
    assert Counter(int(path.stem) for path in originals) == Counter(range(200))
    wrong = Counter(
        (path.parts[0], path.parts[1]) for path in originals if (int(path.stem) < 100) != ("face" in path.parts)
    )
    assert wrong == {
        (part, name): count for part, count in example_folders.SWAPPED.items() for name in ("face", "other")
    }
    copies = [path for path in found if "_" in path.stem]
    assert len(copies) == 10 and {path.parts[0] for path in copies} == {"train"}
    for path in copies:  # of test images with the right label
        original = folder / "test" / path.parts[1] / f"{path.stem[:3]}.png"
        equal = Image.open(folder / path).tobytes() == Image.open(original).tobytes()
        assert equal == path.stem.endswith("same")


def test_emojis_are_those_that_both_have_drawn(tmp_path, build):
    def emoji(name: str, category: str, **has: bool) -> dict:
        return {"image": name, "category": category, "has_img_google": True, "has_img_twitter": True} | has

    emojis = [
        emoji("1f34e.png", "Food & Drink"),
        emoji("1f995.png", "Animals & Nature", has_img_twitter=False),
        emoji("1f3fb.png", "Component"),
    ]
    for maker in ("google", "twitter"):
        with tarfile.open(tmp_path / f"emoji-datasource-{maker}-16.0.0.tgz", "w:gz") as archive:
            for name, content in (
                ("emoji.json", json.dumps(emojis).encode()),
                (f"img/{maker}/64/1f34e.png", maker.encode()),
            ):
                entry = tarfile.TarInfo(f"package/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    folder = build("emoji", tmp_path)
    assert files(folder) == ["Food & Drink/1f34e_google.png", "Food & Drink/1f34e_twitter.png"]
    assert (folder / files(folder)[1]).read_bytes() == b"twitter"


@pytest.mark.parametrize(
    ("example", "command"), [("emoji", "npm pack emoji-datasource-google@16.0.0"), ("fashion", "apt-get install")]
)
def test_what_is_missing_is_said_with_the_command_that_fetches_it(tmp_path, build, example, command):
    with pytest.raises(SystemExit, match=command):
        build(example, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_archive_leaves_nothing(tmp_path, build):
    source = tmp_path / "source"
    source.mkdir()
    for maker in ("google", "twitter"):
        (source / f"emoji-datasource-{maker}-16.0.0.tgz").write_bytes(b"half an archive")
    with pytest.raises(SystemExit, match="was not built"):
        build("emoji", source)
    assert list(tmp_path.iterdir()) == [source]


def test_what_is_there_is_not_overwritten(tmp_path, build):
    (tmp_path / "built").mkdir()
    with pytest.raises(SystemExit, match="exists already"):
        build("digits")
