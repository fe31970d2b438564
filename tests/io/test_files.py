"""A finished file is complete; a damaged one is noticed; a disk that refuses leaves what was there."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from hw1_utils.errors import Hw1Error
from hw1_utils.io.arrays import load_array
from hw1_utils.io.files import (
    atomic,
    clear_partials,
    free_bytes,
    read_checked,
    sha256_file,
    sha256_tensors,
    write_checked,
    write_json,
)

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([[1, 255]], dtype=torch.uint8)}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_atomic_makes_folders_keeps_the_suffix_and_replaces(tmp_path):
    path = tmp_path / "new" / "figure.png"
    for text in ("first", "second"):
        with atomic(path) as partial:
            assert partial.suffix == ".png" and partial.parent == path.parent and partial != path
            partial.write_text(text)
        assert path.read_text() == text
    assert names(path.parent) == ["figure.png"]


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
def test_atomic_keeps_the_old_file_and_leaves_no_partial_when_interrupted(tmp_path, interruption):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(interruption), atomic(path) as partial:
        partial.write_text("half of the n")
        assert path.read_text() == "old"
        raise interruption
    assert path.read_text() == "old" and names(tmp_path) == ["file.txt"]


def test_json_round_trip_and_no_infinities(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"имя": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"имя": [1, 2.5, None]}
    assert "имя" in path.read_text(encoding="utf-8")
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            write_json(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == {"имя": [1, 2.5, None]}


def test_sha256_of_a_file_is_the_known_one(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2's example
    assert sha256_file(tmp_path / "abc") == known


def test_sha256_of_tensors_depends_on_contents_only():
    reordered = dict(reversed(TENSORS.items()))
    strided = TENSORS | {"a": torch.arange(6.0).view(2, 3).t().contiguous().t()}
    assert sha256_tensors(TENSORS) == sha256_tensors(reordered) == sha256_tensors(strided)


@pytest.mark.parametrize(
    "other",
    [
        {"a": TENSORS["a"]},
        {"a": TENSORS["a"], "c": TENSORS["b"]},
        TENSORS | {"a": TENSORS["a"].view(3, 2)},
        TENSORS | {"a": TENSORS["a"].view(torch.int32)},
        TENSORS | {"a": TENSORS["a"] + torch.eye(2, 3) * 1e-6},
    ],
    ids=["fewer", "name", "shape", "dtype", "value"],
)
def test_sha256_of_tensors_notices_every_difference(other):
    assert sha256_tensors(other) != sha256_tensors(TENSORS)


NOTES = {"seconds": "1.5", "epoch": 3, "loss": 0.1 + 0.2, "rows": [{"имя": None, "ok": True}], "none": {}}


@pytest.mark.parametrize("tensors", [TENSORS, None], ids=["tensors", "notes alone"])
@pytest.mark.parametrize("notes", [NOTES, {"seconds": "1.5"}, None], ids=["of any kind", "text", "no notes"])
def test_tensors_and_notes_come_back_as_they_were(tmp_path, capsys, tensors, notes):
    path = tmp_path / "cache" / "x.safetensors"
    write_checked(path, tensors, notes)
    found, told = read_checked(path)
    assert told == (notes or {}) and found.keys() == (tensors or {}).keys()
    for name, tensor in found.items():
        assert tensor.dtype == TENSORS[name].dtype and torch.equal(tensor, TENSORS[name])
    assert capsys.readouterr().out == "" and names(path.parent) == ["x.safetensors"]


def test_feature_files_of_earlier_versions_are_still_read(tmp_path):
    """Hours of encoder work lie in them."""
    path, notes = tmp_path / "features-0.safetensors", {"seconds": "1.5", "machine": "this one"}
    known = "d032c5635784ca85eff6f3bd793ccaef2f0d28da1305b8dd2eb30fb916b7f934"  # by the first version that wrote them
    path.write_bytes(save(TENSORS, notes | {"sha256": known}))
    assert read_checked(path)[1] == notes
    write_checked(path, TENSORS, notes)
    with safe_open(path, framework="pt") as f:
        assert f.metadata() == notes | {"sha256": known}  # and those versions read what is written now


def test_a_missing_file_is_nothing_to_talk_about(tmp_path, capsys):
    assert read_checked(tmp_path / "x.safetensors") is None
    assert capsys.readouterr().out == ""


def test_every_changed_byte_and_every_truncation_is_noticed(tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    write_checked(path, TENSORS, {"seconds": "1.5", "epoch": 3})
    good = path.read_bytes()
    damaged = [good[:i] + bytes([good[i] ^ bit]) + good[i + 1 :] for i in range(len(good)) for bit in (1, 32, 128)]
    damaged += [good[:i] for i in range(len(good))] + [good + b"\0"]
    for data in damaged:
        path.write_bytes(data)
        assert read_checked(path) is None
        assert capsys.readouterr().out == "The file x.safetensors is damaged: it is made anew.\n"
    path.write_bytes(good)
    assert read_checked(path) is not None


def test_a_file_that_may_not_be_opened_is_not_called_damaged(tmp_path, capsys, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    write_checked(tmp_path / "x", TENSORS)
    monkeypatch.setattr("hw1_utils.io.files.safe_open", refuse)  # root may open any file
    monkeypatch.setattr(Path, "open", refuse)
    for load in (read_checked, load_array):
        assert load(tmp_path / "x") is None
        assert capsys.readouterr().out == "The file x cannot be read (Permission denied): it is made anew.\n"


@pytest.mark.parametrize("folder", ["a file", "long" * 99])
def test_in_a_folder_that_cannot_be_is_nothing(tmp_path, capsys, folder):
    (tmp_path / "a file").touch()
    clear_partials((tmp_path / folder).rglob(".*.partial*"))
    for load in (read_checked, load_array):
        assert load(tmp_path / folder / "x") is None
    assert free_bytes(tmp_path / folder) > 0 and capsys.readouterr().out == ""


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(Hw1Error, match=f"^{tmp_path}/cache/x.safetensors cannot be written "):
        write_checked(tmp_path / "cache" / "x.safetensors", TENSORS)
    assert names(tmp_path) == ["cache"]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    path = tmp_path / "x.safetensors"
    write_checked(path, TENSORS)
    before = path.read_bytes()
    monkeypatch.setattr("hw1_utils.io.files.os.fsync", full)
    with pytest.raises(Hw1Error, match=r"\(No space left on device\)"):
        write_checked(path, {})
    assert path.read_bytes() == before and names(tmp_path) == ["x.safetensors"]
