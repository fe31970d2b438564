"""`python -m benchmarks.torture --kills 50`: a run that is killed again and again ends like one that never was.

A process trains a CNN and a probe on a small folder, measures what they cost, judges both and writes their results. It
is killed (SIGKILL: no handler runs, nothing is tidied up) at a random moment, started again, killed again, until it
gets through; then the same in a new folder, until there were enough kills. Every other kill strikes right before or
after a file is moved into place, where a mistake would show. What is left on disk is compared with an undisturbed
run's: predictions, metrics, histories, TensorBoard events, weights, optimiser state, features. Only what a clock
measured may differ.
"""

import argparse
import io
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from hw1_utils import features
from hw1_utils.config import make_config
from hw1_utils.experiment import cnn, evaluate_on_test, load, load_test, probe, train
from hw1_utils.io.files import read_checked
from hw1_utils.io.toy import make_toy_folder
from hw1_utils.io.tracking import clear_emptied
from hw1_utils.measure import profiling
from hw1_utils.measure.costs import measure_costs
from hw1_utils.models import load_encoders
from hw1_utils.report import tables

MOVES = 60  # files that a run moves into place, about
IMPORTED = [f"hw1_utils.{name}" for name in ("experiment", "measure.costs", "report.tables")]  # all that takes long


def story(folder: Path, device: str = "cpu") -> None:
    """What is done, killed and done again: everything below `folder`, the images in `folder/toy`."""
    torch.set_num_threads(1)
    features.CHUNK = 64  # several chunks
    profiling.peak_memory_mb = lambda *args: (None, None)  # long, and its numbers are not compared
    profiling.time_per_call = lambda *args: 1.0
    config = make_config(
        "full",
        data_dir=str(folder / "toy"),
        output_dir=str(folder / "out"),
        device=device,
        encoder="test_vit",
        weights="random",
        cnn_epochs=12,
        probe_epochs=12,
        cnn_batch_size=32,
        probe_batch_size=16,
        profile_steps=2,
    )
    print("phase: data", flush=True)
    data = load(config)
    print("phase: CNN", flush=True)
    trained, costs = [train(cnn(data))], [measure_costs(cnn(data))]
    print("phase: features", flush=True)
    (encoder,) = load_encoders(data.context)
    run = probe(features.extract(encoder, data))
    print("phase: probe", flush=True)
    trained.append(train(run))
    costs.append(measure_costs(run))
    print("phase: results", flush=True)
    test = load_test(data)
    results = [evaluate_on_test(one, test) for one in trained]
    for result in results:
        tables.write_model(result, test)
    tables.compare(results, costs)
    clear_emptied(config.runs_path, patience_s=0)  # how many there are depends on when it was killed


def run(folder: Path, *, device: str = "cpu", after: float | None = None, at_move: int | None = None) -> str | None:
    """Run the story in a new process and kill it. Returns the phase in which it was killed; None: it got through.

    The process is forked from one that has imported everything and done nothing: imports are most of a small run.

    Args:
        after: seconds from its first word to the kill.
        at_move: it kills itself before (even) or after (odd) moving the file number at_move // 2 into place.
    """
    said = folder.with_suffix(".said")
    said.write_text("")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=_told, args=(folder, device, at_move, said))
    process.start()
    deadline = None
    while process.is_alive():
        if after is not None and (deadline or "phase: " in said.read_text()):
            deadline = deadline or time.monotonic() + after
            if time.monotonic() > deadline:
                process.kill()
        time.sleep(0.001)
    if process.exitcode not in (0, -signal.SIGKILL):
        raise SystemExit(f"The run failed by itself:\n{said.read_text()}")
    phases = re.findall(r"^phase: (\w+)", said.read_text(), re.MULTILINE)
    return (phases or ["start"])[-1] if process.exitcode else None


def _told(folder: Path, device: str, at_move: int | None, said: Path) -> None:
    """The story, in the process that is killed, with what it says in a file."""
    with said.open("a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    if at_move is not None:
        die_at_move(at_move)
    story(folder, device)


def die_at_move(number: int) -> None:
    """Kill this process at its move number `number // 2`, before it (even) or after it (odd)."""
    real, count = os.replace, 0

    def replace(source: object, target: object) -> None:
        nonlocal count
        count += 1
        if count * 2 == number:
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)
        if count * 2 + 1 == number:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace


def _plain(value: object) -> object:
    """Tensors as bytes and clock readings left out, so that == compares."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if "seconds" not in str(name)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def left_on_disk(folder: Path) -> dict[str, object]:
    """All that a run left, by relative path, in a form that == compares; without what a clock measured."""
    found: dict[str, object] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if name.startswith("toy/") or file.name in (".hw1.lock", "environment.json", "operators.csv", "costs"):
            continue  # machine and clock
        if file.suffix == ".pt":
            tensors, notes = read_checked(file)
            state = torch.load(io.BytesIO(tensors["state"].numpy()), weights_only=True)
            found[name] = _plain(notes | {"state": state})
        elif "tfevents" in name:
            # A training that was killed in its first epoch begins anew, under a name that sorts behind the old one.
            name = re.sub(r"tfevents\.\d+", "tfevents", name)
            events = [event for event in EventFileLoader(str(file)).Load() if event.HasField("summary")]
            found[name] = [(event.step, event.summary.SerializeToString()) for event in events]
        elif file.suffix == ".safetensors":
            found[name] = _plain(read_checked(file)[0])
        elif file.name in (
            "model_profile_comparison.csv",
            "milestones.csv",
            "history.csv",
            "model_metrics_comparison.csv",
        ):
            table = pd.read_csv(file)
            timed = [c for c in table if "second" in c or c.startswith("top_operator") or c.endswith(("_ms", "_mb"))]
            found[name] = table.drop(columns=timed).to_csv()
        elif file.name == "config.json":
            found[name] = file.read_text().replace(folder.name, "")
        elif name.endswith((".json.gz", "convergence.png", "operators.png", "quality_and_cost.png")):
            found[name] = "there"  # drawn from times
        else:
            found[name] = file.read_bytes()
    return found


def torture(home: Path, kills: int, seed: int = 0, say: object = print, device: str = "cpu") -> Counter:
    """Kill runs below `home` `kills` times; compare each that got through. Returns how often each phase was hit.

    Raises:
        AssertionError: a run that was killed did not end like the undisturbed one.
    """
    moments = random.Random(seed)
    make_toy_folder(home / "whole" / "toy", train=100)
    started = time.monotonic()
    assert run(home / "whole", device=device) is None
    span = time.monotonic() - started
    expected = left_on_disk(home / "whole")
    hit: Counter = Counter()
    while hit.total() < kills:
        folder = Path(tempfile.mkdtemp(dir=home))
        shutil.copytree(home / "whole" / "toy", folder / "toy")  # with the times of change, which are part of a key
        while True:
            if hit.total() >= kills:
                phase = run(folder, device=device)
            elif hit.total() % 2:
                phase = run(folder, device=device, at_move=moments.randrange(2, 2 * MOVES))
            else:
                phase = run(folder, device=device, after=moments.uniform(0, span / 3))
            if phase is None:
                break
            hit[phase] += 1
            say(f"kill {hit.total()}: {phase}")
        found = left_on_disk(folder)
        different = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        assert not different, f"after kills in {dict(hit)} these differ: {different}"
        say(f"got through: {len(found)} files are those of the undisturbed run")
    return hit


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        hit = torture(Path(home), options.kills, options.seed, device=options.device)
    print("\n| Killed while at work on | Times |\n|---|---|")
    for phase, times in hit.items():
        print(f"| {phase} | {times} |")
    print(f"\n{hit.total()} kills, every run that got through left the same files as the undisturbed one.")
