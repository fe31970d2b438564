"""Data folders in archives: the same data, unpacked once, and nothing anywhere else."""

import io
import os
import shutil
import stat
import tarfile
import zipfile

import pytest

from hw1_utils.config import make_config
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import load
from hw1_utils.io import archives
from hw1_utils.io.archives import unpack, unpacked_path


def entries(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_is_the_folder_it_was_made_of(make_smoke_config, toy_folder, tmp_path, capsys, kind):
    (toy_folder / "train" / ".DS_Store").touch()
    (toy_folder / "__MACOSX").mkdir()
    (toy_folder / "__MACOSX" / "._a.png").touch()
    plain = load(make_smoke_config())
    archive = shutil.make_archive(tmp_path / "packed.v2", kind, tmp_path, "toy")
    places = {"data_dir": archive, "output_dir": str(tmp_path / "other")}
    data = load(make_smoke_config(**places))
    config = data.context.config
    assert (data.train.sha256, data.val.sha256) == (plain.train.sha256, plain.val.sha256)
    assert config.cache_path == tmp_path / f"{os.path.basename(archive)}.cache" and config.data_path.name == "packed.v2"
    assert (config.data_path / data.train.paths[0]).is_file()
    assert entries(config.data_path) == {f"toy/{name}" for name in entries(toy_folder) if name.endswith(".png")} - {
        "toy/__MACOSX/._a.png"
    }
    assert capsys.readouterr().out.count("150 files unpacked into") == 1
    before = os.stat(config.data_path / data.train.paths[0])
    load(make_smoke_config(**places))  # is not unpacked again
    assert os.stat(config.data_path / data.train.paths[0]) == before and "unpacked" not in capsys.readouterr().out
    os.utime(archive, (1, 1))  # another version: what was unpacked of the first is gone
    unpack(config.data_source, config.cache_path)
    assert [path.name for path in config.cache_path.glob("unpacked-*")] == [config.data_path.parent.name]


def zipped(path, *names, contents=b"x", mode=0):
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename, info.external_attr = name, mode << 16
            file.writestr(info, contents)
    return path


def tarred(path, *names, kind=tarfile.REGTYPE, size=1, mode="w"):
    with tarfile.open(path, mode) as file:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, "/etc/passwd", size if kind == tarfile.REGTYPE else 0
            file.addfile(info, io.BytesIO(b"x" * size))
    return path


OUTSIDE = ["../out.png", "a/../../out.png", "/out.png", "..\\out.png", "C:\\out.png", "c:out.png", "\\\\host\\out.png"]


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, make, name):
    archive = make(tmp_path / ("a.zip" if make is zipped else "a.tar"), "train/cat/1.png", name)
    before = entries(tmp_path)
    with pytest.raises(Hw1Error, match="leads out of the folder"):
        unpack(archive, tmp_path / "inner" / "cache")
    assert entries(tmp_path) == before and not list((tmp_path / "inner").rglob("*unpacked*"))


def test_backslashes_of_windows_separate_folders(tmp_path):
    archive = zipped(tmp_path / "a.zip", "photos\\", "photos\\cat\\1.png", "./photos/dog/2.png", "photos/Thumbs.db")
    unpack(archive, tmp_path / "cache")
    assert entries(unpacked_path(archive, tmp_path / "cache")) == {"photos/cat/1.png", "photos/dog/2.png"}


def encrypted(path):
    zipped(path, "train/cat/1.png")
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)


def cut(path):
    tarred(path, "train/cat/1.png", "train/cat/2.png", size=3000, mode="w:gz" if path.suffix == ".gz" else "w")
    path.write_bytes(path.read_bytes()[: -40 if path.suffix == ".gz" else 4096 + 512])


def wrong_bytes(path):
    zipped(path, "train/cat/1.png", contents=b"abc" * 100)
    data = bytearray(path.read_bytes())
    data[data.index(b"abcabc")] ^= 1
    path.write_bytes(data)


def unheaded(path):
    """A header in the middle of a tar is overwritten: tarfile takes that for the end."""
    tarred(path, "train/cat/1.png", "train/cat/2.png")
    data = bytearray(path.read_bytes())
    data[1024:1100] = b"\xff" * 76
    path.write_bytes(data)


BAD = {
    "encrypted": ("a.zip", encrypted, "is encrypted: unpack it yourself and give the folder"),
    "a link in a zip": ("a.zip", lambda p: zipped(p, "cat/1.png", mode=stat.S_IFLNK | 0o777), "is a link or a device"),
    "a symbolic link": ("a.tar", lambda p: tarred(p, "cat/1.png", kind=tarfile.SYMTYPE), "is a link or a device"),
    "a hard link": ("a.tar", lambda p: tarred(p, "cat/1.png", kind=tarfile.LNKTYPE), "is a link or a device"),
    "a device": ("a.tar", lambda p: tarred(p, "cat/1.png", kind=tarfile.CHRTYPE), "is a link or a device"),
    "no archive": ("a.zip", lambda p: p.write_bytes(b"<html>not found</html>"), "is damaged, or no archive at all"),
    "empty": ("a.tgz", lambda p: p.touch(), "is damaged, or no archive at all"),
    "cut, packed": ("a.tar.gz", cut, "is damaged, or no archive at all"),
    "cut": ("a.tar", cut, "is damaged, or no archive at all"),
    "bytes changed": ("a.zip", wrong_bytes, "is damaged, or no archive at all (Bad CRC-32"),
    "a header changed": ("a.tar", unheaded, "is damaged, or no archive at all (its end is missing)"),
    "missing": ("a.zip", lambda p: None, "There is no file"),
    "a file and a folder of one name": ("a.zip", lambda p: zipped(p, "cat", "cat/1.png"), "cannot be unpacked into"),
}


@pytest.mark.parametrize(("name", "make", "said"), BAD.values(), ids=BAD)
def test_an_archive_that_will_not_do_is_refused_in_one_sentence_and_leaves_nothing(tmp_path, name, make, said):
    make(tmp_path / name)
    with pytest.raises(Hw1Error) as caught:
        unpack(tmp_path / name, tmp_path / "cache")
    assert said in str(caught.value) and not list(tmp_path.rglob("*unpacked*")) + list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bomb_is_refused_before_it_goes_off(tmp_path, monkeypatch, kind):
    archive = tmp_path / f"a.{kind}"
    zipped(archive, "a.png", "b.png", contents=b"0" * 600) if kind == "zip" else tarred(
        archive, "a.png", "b.png", size=600
    )
    monkeypatch.setattr(archives, "free_bytes", lambda path: 1000)
    with pytest.raises(Hw1Error, match="make room there, or take fewer images"):
        unpack(archive, tmp_path / "cache")
    assert not list(tmp_path.rglob("*.png"))


def test_a_folder_may_be_called_like_an_archive(make_smoke_config, toy_folder, tmp_path):
    place = toy_folder.rename(tmp_path / "toy.zip")
    config = make_smoke_config(data_dir=str(place))
    assert config.data_path == place and not config.is_archive
    assert make_config("quick", data_dir=str(tmp_path / "a.tar.gz")).is_archive
