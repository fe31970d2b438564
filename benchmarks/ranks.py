"""`python -m benchmarks.ranks [--decoding] [--extraction]`: one and two processes of one thread each, side by side.

Each on a core of its own, in turn, with fresh caches each time: what `work` shares out, started by torchrun as it is by
hand. Only the work is timed, from one barrier to the next, not the start; what two do besides, notes and checksums of
parts, counts against them. It takes two cores that are idle, and three to four minutes there.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from hw1_utils.config import ROOT, make_config
from hw1_utils.context import start
from hw1_utils.data import Data
from hw1_utils.experiment import load
from hw1_utils.features import compute
from hw1_utils.io.pixels import load_pixels
from hw1_utils.io.ranks import Ranks, ranks
from hw1_utils.models import load_encoder

from .common import machine, table

PHOTOGRAPHS, SIZE, SIDE = 4000, (500, 375), 64  # JPEG files, their size in pixels, the side they are decoded to
IMAGES, CHUNK = 2048, 128  # of CIFAR-10, and how many a chunk has: both processes have as many
ROUNDS = 2


def photographs(folder: Path) -> None:
    """Cuts of two real photographs, all different."""
    rng, sources = np.random.default_rng(0), [Image.fromarray(image) for image in load_sample_images().images]
    for i in range(PHOTOGRAPHS):
        left, top = rng.integers(0, [640 - SIZE[0], 427 - SIZE[1]])
        box = (left, top, left + SIZE[0], top + SIZE[1])
        sources[i % 2].crop(box).save(folder / f"{i:05d}.jpg", quality=90)


def seconds_of(what: str, place: Path, together: Ranks) -> float:
    """Of this process, from the barrier before the work to the one behind it. The first starts with an empty cache."""
    if what == "decoding":
        paths = sorted(path.name for path in (place / "photographs").iterdir())
        work = partial(load_pixels, place / "photographs", paths, SIDE, {}, place / "cache", together)
    else:
        config = make_config("full", output_dir=str(place / f"out{together.rank}"), device="cpu")
        context = start(config)
        images = torch.load(place / "images.pt")
        encoder = load_encoder(config, context.device, context.precision.dtype, say=lambda line: None)
        encoder(images[:16])  # the first pass takes longer
        size = context.extract_batch_size
        options = {"ranks": together, "timed": False, "say": lambda line: None}
        work = partial(compute, encoder, images, size, place / "cache", **options)
    together.barrier()
    began = time.perf_counter()
    work()
    together.barrier()
    return time.perf_counter() - began


def in_rank(what: str, place: Path) -> None:
    """What torchrun starts: prints its seconds."""
    from hw1_utils import features

    features.CHUNK = CHUNK
    with ranks() as started:
        together = replace(started, ahead=True)  # as `work` shares out
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[together.rank]})
        torch.set_num_threads(1)
        seconds = seconds_of(what, place, together)
        if together.is_first:
            print(f"seconds {seconds}")


def launch(what: str, place: Path, count: int) -> float:
    shutil.rmtree(place / "cache", ignore_errors=True)
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", "-m", "benchmarks.ranks"]
    done = subprocess.run(
        [*command, "--in-rank", what, str(place)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return float(next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("seconds")))


def side_by_side(what: str, count: int, place: Path) -> list[object]:
    """A row: images a second of one process and of two, medians of ROUNDS in turn, and half of what two gain."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for number in seconds:
            seconds[number].append(launch(what, place, number))
    one, two = (statistics.median(seconds[number]) for number in (1, 2))
    spread = [f"{count / max(s):,.0f} – {count / min(s):,.0f}" for s in seconds.values()]
    return [what, f"{count / one:,.0f} ({spread[0]})", f"{count / two:,.0f} ({spread[1]})", f"{one / two / 2:.2f}"]


def main(parts: list[str]) -> None:
    torch.set_num_threads(1)  # so that the machine's line says what holds for the processes
    rows, data = [], None
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if "decoding" in parts:
            (place / "photographs").mkdir()
            photographs(place / "photographs")
            rows.append(side_by_side("decoding", PHOTOGRAPHS, place))
        if "extraction" in parts:
            data = images_of(place)
            rows.append(side_by_side("extraction", IMAGES, place))
        if data is None:
            data = SimpleNamespace(context=start(make_config("smoke", output_dir=str(place / "out"), device="cpu")))
        columns = ["Work", "One process, images/s: median (range)", "Two processes, images/s", "Speed-up / 2"]
        print(f"\n{table(columns, rows)}\n\n{machine(data)}")


def images_of(place: Path) -> Data:
    """Write down the images to extract; their Data."""
    data = load(make_config("quick", output_dir=str(place / "out"), device="cpu"))
    torch.save(data.train.images[: len(data.train) : len(data.train) // IMAGES][:IMAGES].clone(), place / "images.pt")
    return data


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decoding", action="store_true")
    parser.add_argument("--extraction", action="store_true")
    parser.add_argument("--in-rank", nargs=2, metavar=("WHAT", "PLACE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_rank:
        in_rank(args.in_rank[0], Path(args.in_rank[1]))
    else:
        main([part for part in ("decoding", "extraction") if getattr(args, part)] or ["decoding", "extraction"])
