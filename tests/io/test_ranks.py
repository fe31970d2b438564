"""Processes that torchrun has started share a list: one is killed, one is slow, one fails, a disk is full."""

import os
import re
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist

from hw1_utils.config import ROOT
from hw1_utils.errors import Hw1Error
from hw1_utils.io import together
from hw1_utils.io.backup import Backup
from hw1_utils.io.chunks import Chunks
from hw1_utils.io.pixels import load_pixels
from hw1_utils.io.ranks import ALONE, Ranks, take_one_gpu
from hw1_utils.io.toy import make_toy_folder

TWO = Ranks(count=2, ahead=True)  # of which the other has never anything to do

# Of five parts the second process takes one, writes it down, and is killed over its next; after the restart it is slow.
# In the end it fails, while the first waits.
SCRIPT = f"""
import os, signal, sys, time
from dataclasses import replace
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from hw1_utils.errors import Hw1Error
from hw1_utils.io import ranks as module
from hw1_utils.io import together
from hw1_utils.io.pixels import load_pixels

again, second = os.environ["TORCHELASTIC_RESTART_COUNT"] == "1", os.environ["RANK"] == "1"
decode, taken = together.decode, []

def watched(files, *args, **options):
    who = ("second" if second else "first") + " again" * again
    sys.stdout.write(f"part {{Path(files[0]).stem}} of {{who}}\\n")
    sys.stdout.flush()
    taken.append(files)
    if second and again:
        time.sleep(0.5)
    if second and not again and len(taken) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    done = decode(files, *args, **options)
    if not second and not again:
        time.sleep(0.5)
    return done

together.decode, together.PART, root = watched, 6, Path(sys.argv[1])
paths = sorted(path.relative_to(root).as_posix() for path in root.glob("train/*/*"))
try:
    with module.ranks() as ranks:
        images, _ = load_pixels(root, paths, 32, {{}}, root.with_name("cache"), replace(ranks, ahead=True))
        print("all", len(images), flush=True)
        ranks.barrier()
        if not ranks.is_first:
            raise Hw1Error("The disk of the second is full.")
        ranks.barrier()
except Hw1Error as error:
    print(f"hw1: {{error}}", file=sys.stderr)
    sys.exit(1)
"""


def test_a_killed_process_is_restarted_and_a_failing_one_ends_all_with_its_sentence(tmp_path):
    root = tmp_path / "toy"
    make_toy_folder(root, classes=1, train=27)
    (root / "train/colour_0/00013.png").write_bytes(b"no picture")
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1"]
    command += [tmp_path / "script.py", root]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    sentences = [line for line in done.stderr.splitlines() if line.startswith("hw1: ")]
    assert sentences == ["hw1: The disk of the second is full."]
    assert done.stdout.count("all 26") == 2
    # Two processes print at once, and may end up in one line.
    parts = re.findall(r"part (\d+) of (first|second)( again)?", done.stdout)
    before = [part for part, _, again in parts if not again]
    killed_over = [part for part, who, again in parts if who == "second" and not again][1]
    after = [part for part, _, again in parts if again]
    assert len(before) == len(set(before)) and len(after) == len(set(after))
    assert set(before) | set(after) == {f"{start:05d}" for start in range(0, 27, 6)}
    # What was complete is not decoded again: at most what either was at.
    assert killed_over in after and len(set(before) & set(after)) <= 2
    paths = sorted(path.relative_to(root).as_posix() for path in root.glob("train/*/*"))
    (array,) = (tmp_path / "cache").glob("*.npy")
    content = {path.name: path.read_bytes() for path in (array, array.with_suffix(".json"))}
    array.unlink()
    load_pixels(root, paths, 32, {}, tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in (array, array.with_suffix(".json"))} == content
    assert not list((tmp_path / "cache").glob("*.parts"))


def test_a_process_alone_waits_for_nobody_and_takes_all():
    with ALONE.first_alone():
        ALONE.barrier()
    assert list(ALONE.share([3, 1, 2])) == [3, 1, 2] and ALONE.first_says(True) and ALONE.is_first


def test_without_torchrun_its_processes_end_with_a_sentence():
    server = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    store = dist.TCPStore("localhost", server.port, is_master=False)
    items = Ranks(count=2, store=store).share([3, 1, 2])
    assert next(items) == 3
    del server  # as after a kill
    with pytest.raises(Hw1Error, match="^torchrun, which has started this process, has ended"):
        next(items)


def test_a_full_disk_ends_shared_work(tmp_path, monkeypatch, toy_folder):
    """A run goes on without a cache; of `work` the files are all there is."""

    def full(*args):
        raise OSError(28, "No space left on device")

    paths = sorted(path.relative_to(toy_folder).as_posix() for path in toy_folder.glob("train/*/*"))
    monkeypatch.setattr("hw1_utils.io.arrays.os.posix_fallocate", full)
    for several in (TWO, Ranks(ahead=True)):
        with pytest.raises(Hw1Error, match=r"cannot be written \(No space left on device\)"):
            load_pixels(toy_folder, paths, 32, {}, tmp_path / "cache", several)
    assert not list((tmp_path / "cache").rglob("*.np*"))
    monkeypatch.setattr("hw1_utils.io.files.os.fsync", full)
    with pytest.raises(Hw1Error, match="No space left on device"):
        Chunks(tmp_path, Backup(None), required=True).save("key", torch.zeros(2, 2), 1.0, "")


def test_what_another_hand_has_changed_is_refused(tmp_path, monkeypatch, toy_folder):
    paths = sorted(path.relative_to(toy_folder).as_posix() for path in toy_folder.glob("train/*/*"))
    sums = together._sha256
    monkeypatch.setattr(together, "_sha256", lambda values: sums(values) + str(time.monotonic_ns()))
    with pytest.raises(Hw1Error, match="is not what lies there: run again"):
        load_pixels(toy_folder, paths, 32, {}, tmp_path / "cache", TWO)
    monkeypatch.undo()
    assert len(load_pixels(toy_folder, paths, 32, {}, tmp_path / "cache", TWO)[0]) == 120


@pytest.mark.parametrize(("visible", "local", "left"), [(None, 1, "1"), ("4,6", 1, "6"), ("4,6", 2, "4")])
def test_each_process_has_a_gpu_of_its_own(monkeypatch, visible, local, left):
    counts = iter([2, 1])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: next(counts))
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", str(local))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    take_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == left
