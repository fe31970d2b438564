"""`python -m benchmarks.gpu` (`make gpu`): all that differs on a GPU, proved and measured, a row each in one table.

A check that fails says so in its row, with the error's first line, and the others go on. After each row the table is
written anew to outputs/benchmarks/gpu.md (`--output`), so that nothing is lost where time runs out. Exit status: 0 all
of it holds, 1 something does not, 2 there is no GPU.

--only NAME        one of the checks; may be there several times
--full             besides them a `full` run by part, ended after `--limit` seconds
--profile smoke    generated pictures and random weights, where there is no CIFAR-10: its speeds mean nothing

Every check is a function of `Data`, whose context says on which device: tests/test_gpu.py runs them all on a CPU.
"""

import argparse
import copy
import gzip
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hw1_utils.config import ROOT
from hw1_utils.data import Data, Split
from hw1_utils.device import Precision, find_device, now
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import Run, cnn, fit_run, probe
from hw1_utils.features import compute, extract
from hw1_utils.io.arrays import Room, Rows
from hw1_utils.io.backup import Backup
from hw1_utils.io.files import atomic
from hw1_utils.measure.costs import first_steps, trace_training
from hw1_utils.models import FrozenEncoder, load_encoder
from hw1_utils.training import Batches, evaluate, fit

from . import probe as probe_benchmark
from . import torture
from . import training as training_benchmark
from .common import load, machine, rate, ratio, table

CPU = torch.device("cpu")
OUTPUTS = ROOT / "outputs" / "benchmarks"

STEPS = 50  # of training, compared with the CPU's
WATCHED_STEPS = 40  # in which nobody may wait: fewer than `training.steps_between_looks`, which waits on purpose
PARTS = 10  # batches of images, where a part of the training images will do
FEATURE_IMAGES, MEMORY_IMAGES, SPEED_IMAGES = 128, 512, 4096
KILLS = 2
FULL_LIMIT_S = 270

SAME_PIXEL = 1e-3  # of a channel's deviation, which is some 60 levels of 255
OTHER_BOXES = 1e-3  # share of the images whose crop may be another: a product just at one half is rounded up or down
GREY_LEVELS = 2.5  # a GPU resizes in floating point, a CPU with whole numbers; bf16 rounds once more
# How far the losses may be from the CPU's in fp32, at any step. On a CPU (AMD EPYC, torch 2.14.1, CIFAR-10) one thread
# is 0.12 % from two, which round differently, and bf16 0.13 %; on the few pictures of `smoke` bf16 is further off.
LOSS_APART = {"fp32": 0.005, "bf16": 0.03, "fp16": 0.03}
# How far features may be, as vectors, of any image: there bf16 is 0.076 from fp32 (DeiT-Tiny), fp16 0.009.
FEATURES_APART = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.02}


@dataclass(frozen=True)
class Row:
    """One of the table."""

    what: str
    holds: bool | None  # None: measured, and nothing to hold
    figures: str

    @property
    def cells(self) -> list[str]:
        return [self.what, {True: "yes", False: "**no**", None: ""}[self.holds], self.figures.replace("|", "\\|")]


def attempt(what: str, work: Callable[[], tuple[bool | None, str]]) -> Row:
    """The row of a piece of work, which gives (holds, figures); where it fails, the error's first line."""
    try:
        return Row(what, *work())
    except Exception as error:  # whatever it is, the next piece of work is not to go without its turn
        return failed(what, error)


def failed(what: str, error: Exception) -> Row:
    return Row(what, False, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")


# ---- the same work on two devices


class DrawnOnTheCPU(TorchFunctionMode):
    """Within it the numbers that a GPU's generator draws are those of a CPU's with the same seed, copied there."""

    def __init__(self) -> None:
        super().__init__()
        self.twins: dict[torch.Generator, torch.Generator] = {}

    def __torch_function__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        kwargs = dict(kwargs or {})
        generator = kwargs.get("generator")
        if generator is None or generator.device.type == "cpu":
            return func(*args, **kwargs)
        if generator not in self.twins:
            self.twins[generator] = torch.Generator().manual_seed(generator.initial_seed())
        kwargs["generator"] = self.twins[generator]
        if func.__name__ == "uniform_":
            target, *bounds = args
            return target.copy_(torch.empty(target.shape, dtype=target.dtype).uniform_(*bounds, **kwargs))
        device = kwargs.pop("device")
        return func(*args, **kwargs).to(device)


def few(data: Data, count: int) -> Data:
    """With `count` of the training images, or all, drawn from all classes."""
    return data.subset(min(count, len(data.train)), data.context.config.seed)


def moved(data: Data, device: torch.device, precision: str, *, streamed: bool = False) -> Data:
    """The same pixels and labels in tensors of their own on a device, or streamed to it; nothing else is known yet."""

    def there(split: Split) -> Split:
        values = split.images[:].to(CPU if streamed else device)
        return replace(split, images=Rows(values, streamed=streamed), labels=split.labels.to(device))

    context = replace(
        data.context, device=device, precision=Precision(precision), room=Room(), backup=Backup(None), computed={}
    )
    return replace(data, context=context, train=there(data.train), val=there(data.val))


def on_device(data: Data, *, streamed: bool = False) -> Data:
    """`moved` to where the data is anyway."""
    return moved(data, data.context.device, data.context.precision.name, streamed=streamed)


def equal_batches(data: Data) -> Iterator[Row]:
    """Order, augmentation and normalisation of an epoch against the CPU's, the random numbers being the same."""
    part = few(data, PARTS * data.context.config.cnn_batch_size)
    for recipe in ("assignment", "tuned"):

        def compare(recipe: str = recipe) -> tuple[bool, str]:
            size = part.context.config.cnn_batch_size
            with DrawnOnTheCPU():
                pixels, labels = zip(
                    *(
                        [torch.cat(parts).cpu() for parts in zip(*cnn(one, recipe).train.batches(size, 1), strict=True)]
                        for one in (moved(part, CPU, "fp32"), moved(part, part.context.device, "fp32"))
                    ),
                    strict=True,
                )
            apart = (pixels[0] - pixels[1]).abs().amax((1, 2, 3))
            other = apart > SAME_PIXEL
            most = apart[~other].max().item() if not other.all() else float("nan")
            holds = torch.equal(*labels) and other.sum().item() <= OTHER_BOXES * len(apart)
            said = f"{len(apart):,} images, {other.sum()} of them others; else {most:.1g} of a deviation apart at most"
            return holds, said

        yield attempt(f"Batches, recipe {recipe}: the CPU's", compare)


# ---- training


def losses(data: Data) -> list[float]:
    """Of each of the first STEPS steps of recipe `tuned`, whose whole schedule they are made."""
    run = replace(cnn(data, "tuned"), epochs=1)
    model = copy.deepcopy(run.model)
    batches = first_steps(lambda epoch: run.train.batches(run.batch_size, epoch), STEPS)
    with DrawnOnTheCPU():
        history = fit(
            model,
            lambda _: itertools.islice(batches, 1),  # an epoch of one step: its row has that step's loss
            run.optimization(model),
            epochs=STEPS,
            precision=run.precision,
        )
    return [row["train_loss"] for row in history]


def equal_steps(data: Data) -> Iterator[Row]:
    """Losses of STEPS steps on the device, in each number format, against those of the CPU in fp32."""
    part = few(data, STEPS * data.context.config.cnn_batch_size)
    expected = losses(moved(part, CPU, "fp32"))
    for name, most in LOSS_APART.items():

        def compare(name: str = name, most: float = most) -> tuple[bool, str]:
            # torch takes TF32 for a GPU's fp32 convolutions unless it is told not to, as the package does not.
            with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                found = losses(moved(part, part.context.device, name))
            apart = max(abs(a - b) / b for a, b in zip(found, expected, strict=True))
            fell = expected[-1] < expected[0]  # else nothing was trained, and anything would be near
            said = f"loss {found[0]:.4f} to {found[-1]:.4f}, the CPU's to {expected[-1]:.4f}; {apart:.2%} apart at most"
            return apart <= most and fell, f"{said} ({most:.1%} allowed)"

        yield attempt(f"{STEPS} steps in {name}: the CPU's losses in fp32", compare)


@contextmanager
def nobody_waits(device: torch.device) -> Iterator[None]:
    """Within it whatever makes the CPU wait for the GPU is an error. On a CPU, for the test: reading a tensor is."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    else:
        with _Unread():
            yield


class _Unread(TorchDispatchMode):
    def __torch_dispatch__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a tensor is read")
        return func(*args, **(kwargs or {}))


def watched(batches: Batches, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches; nobody may wait from the moment the first is there (an epoch's order has come) to the last's end."""
    batches = iter(batches)
    first = next(batches)
    with nobody_waits(device):
        yield first
        yield from batches


def waits(data: Data) -> Iterator[Row]:
    """Steps of the CNN, of the probe's head and of an evaluation, in which the CPU must not wait for the GPU."""
    config, device = data.context.config, data.context.device
    part = on_device(few(data, WATCHED_STEPS * config.cnn_batch_size))
    encoder = load_encoder(config, device, data.context.precision.dtype, say=hush)

    def steps_of(run: Run) -> tuple[bool, str]:
        count = min(WATCHED_STEPS, -(-len(run.train) // run.batch_size))
        for watch in (False, True):  # what waits the first time only, in CUDA's own libraries, is over then
            model = copy.deepcopy(run.model)
            batches = itertools.islice(run.train.batches(run.batch_size, 1), count)
            with closing(watched(batches, device) if watch else (batch for batch in batches)) as batches:
                fit(
                    model,
                    lambda _, batches=batches: batches,
                    run.optimization(model),
                    epochs=1,
                    precision=run.precision,
                )
        return True, f"{count} steps"

    def evaluation(run: Run) -> tuple[bool, str]:
        with closing(watched(run.val.in_order(), device)) as batches:
            evaluate(run.model, batches, run.precision)
        return True, f"{len(run.val):,} images"

    for recipe in ("tuned", "assignment"):
        run = cnn(part, recipe)
        yield attempt(f"Nobody waits in a step, recipe {recipe}, {run.precision.name}", lambda run=run: steps_of(run))
    yield attempt("Nobody waits in an evaluation", lambda: evaluation(run))
    with tempfile.TemporaryDirectory() as folder:
        small = few(part, PARTS * config.probe_batch_size)
        small = replace(small, context=replace(small.context, config=replace(config, data_dir=f"{folder}/none")))
        head = probe(extract(encoder, replace(small, val=small.train)))
    yield attempt("Nobody waits in a step of the probe's head", lambda: steps_of(head))


def streaming(data: Data) -> Iterator[Row]:
    """Images and features that are streamed, from pinned memory, against those that lie on the device."""
    config = data.context.config
    part = few(data, PARTS * config.cnn_batch_size)

    def training() -> tuple[bool, str]:
        (kept, resident), (sent, streamed) = (
            fit_run(replace(cnn(on_device(part, streamed=streamed), "short"), epochs=2)) for streamed in (False, True)
        )
        same = numbers(resident) == numbers(streamed) and equal_weights(kept, sent)
        speeds = [len(part.train) / rows[-1]["seconds"] for rows in (resident, streamed)]
        return same, f"{len(part.train):,} images, 2 epochs; {speeds[0]:,.0f} and {speeds[1]:,.0f} images/s"

    def features() -> tuple[bool, str]:
        encoder = load_encoder(config, data.context.device, data.context.precision.dtype, say=hush)
        values = []
        for streamed in (False, True):
            images = on_device(part, streamed=streamed).train.images[:FEATURE_IMAGES]
            with tempfile.TemporaryDirectory() as cache:
                size = data.context.extract_batch_size
                found = compute(encoder, images, size, Path(cache), room=Room(0 if streamed else sys.maxsize), say=hush)
                chunks = found.rows.chunks(torch.arange(len(found)), size, data.context.device)
                values.append(torch.cat(list(chunks)))
        return torch.equal(*values), f"{len(values[0]):,} images"

    yield attempt("Training on streamed images: on resident ones", training)
    yield attempt("Streamed features: resident ones", features)


def numbers(history: list[dict]) -> list[dict]:
    """The history without what a clock measured."""
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in history]


def equal_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def hush(line: str) -> None:
    """Say nothing."""


def again(data: Data) -> Iterator[Row]:
    """The same work twice in one process: the same numbers, to the last digit."""
    config = data.context.config
    part = few(data, PARTS * config.cnn_batch_size)

    def training(recipe: str) -> tuple[bool, str]:
        ends = []
        for _ in range(2):
            run = replace(cnn(on_device(part), recipe), epochs=2)
            model, history = fit_run(run)
            ends.append((model, numbers(history), evaluate(model, run.val.in_order(), run.precision).probabilities))
        (one, rows, said), (other, rows_again, said_again) = ends
        same = rows == rows_again and equal_weights(one, other) and torch.equal(said, said_again)
        return same, f"{len(part.train):,} images, 2 epochs: history, weights, probabilities"

    def features() -> tuple[bool, str]:
        encoder = load_encoder(config, data.context.device, data.context.precision.dtype, say=hush)
        images = data.val.images[:FEATURE_IMAGES].to(data.context.device)
        return torch.equal(encoder(images), encoder(images)), f"{len(images):,} images"

    for recipe in ("tuned", "assignment"):
        yield attempt(f"The same numbers twice, recipe {recipe}", lambda recipe=recipe: training(recipe))
    yield attempt("The same features twice", features)


def killed(data: Data) -> Iterator[Row]:
    """Runs that end by SIGKILL and go on, and one that nothing disturbs, each in a process of its own."""

    def work() -> tuple[bool, str]:
        with tempfile.TemporaryDirectory() as home:
            hit = torture.torture(Path(home), KILLS, say=hush, device=data.context.device.type)
        return True, "killed at " + ", ".join(f"{phase} ({times})" for phase, times in hit.items())

    yield attempt("The same files after SIGKILL", work)


# ---- the encoder


def equal_features(data: Data) -> Iterator[Row]:
    """The encoder's pixels and features on the device, in each number format, against the CPU's in fp32."""
    config, device = data.context.config, data.context.device
    images = data.val.images[:FEATURE_IMAGES].to(CPU)
    plain = load_encoder(config, CPU, torch.float32, say=hush)
    with torch.inference_mode():
        ready = plain.preprocess(images)
        expected = plain.encode(ready)
    levels = 255 * plain.std.view(3, 1, 1)

    def compare(name: str, most: float) -> tuple[bool, str]:
        encoder = load_encoder(config, device, Precision(name).dtype, say=hush)
        # A convolution cuts patches: see `equal_steps` for its TF32.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            pixels = encoder.preprocess(images.to(device)).float().to(CPU)
            found = encoder.encode(ready.to(device, encoder.dtype)).float().to(CPU)
        off = ((pixels - ready).abs() * levels).max().item()
        apart = ((found - expected).norm(dim=1) / expected.norm(dim=1)).max().item()
        said = (
            f"{len(images)} images; pixels {off:.2g} levels of 255 apart at most, features {apart:.2g} of their length"
        )
        return off <= GREY_LEVELS and apart <= most, f"{said} ({most:.2g} allowed)"

    for name, most in FEATURES_APART.items():
        yield attempt(f"Features in {name}: the CPU's in fp32", lambda name=name, most=most: compare(name, most))


@contextmanager
def little_memory(encoder: FrozenEncoder, images: Tensor) -> Iterator[None]:
    """Within it the GPU has memory for more than half of these images in one pass, but not for all of them."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    encoder(images)
    needed = torch.cuda.max_memory_reserved() - before
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + 0.75 * needed
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info()[1])
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def memory(data: Data) -> Iterator[Row]:
    """Extraction where the memory is full: with smaller batches it gets through, to the same features."""
    config, device = data.context.config, data.context.device

    def work() -> tuple[bool, str]:
        encoder = load_encoder(config, device, data.context.precision.dtype, say=hush)
        images = data.train.images[:MEMORY_IMAGES].to(device)
        said: list[str] = []
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            plain = compute(encoder, images, data.context.extract_batch_size, Path(one), say=hush)
            with little_memory(encoder, images):
                found = compute(encoder, images, len(images), Path(other), say=said.append)
        halved = [line.strip() for line in said if "memory is full" in line]
        expected = plain.rows[:]
        apart = ((found.rows[:] - expected).norm(dim=1) / expected.norm(dim=1)).max().item()
        near = apart <= FEATURES_APART[data.context.precision.name]
        return bool(halved) and near, f"{len(images)} at once: {halved or 'nothing was halved'}; {apart:.2g} apart"

    yield attempt("A GPU whose memory is full gets half a batch", work)


# ---- what is measured


def trace(data: Data) -> Iterator[Row]:
    """The profiler's trace of the CNN's training."""
    config = data.context.config

    def work() -> tuple[bool, str]:
        made = trace_training(cnn(data))
        with gzip.open(made.file, "rt", encoding="utf-8") as file:
            events = Counter(event.get("cat") for event in json.load(file)["traceEvents"])
        kind = "kernel" if data.context.device.type == "cuda" else "cpu_op"
        whole = made.steps == config.profile_steps and events[kind] >= made.steps
        timed = bool(made.operators["self_ms"].sum() > 0)
        said = f"{made.steps} steps, {events[kind]:,} events of kind {kind}, {made.operator_calls:,} operator calls"
        return whole and timed, f"{said}, {made.file.stat().st_size / 1e6:.1f} MB"

    yield attempt(f"The trace holds {config.profile_steps} steps and what ran in them", work)


def speed(data: Data) -> Iterator[Row]:
    """Images/s: `fit` over pure compute, extraction over the bare encoder, the literal pipeline beside both."""

    def training() -> tuple[None, str]:
        seconds = training_benchmark.throughput(data)
        count = training_benchmark.STEPS * data.context.config.cnn_batch_size
        pure, package, literal = (rate(count, seconds[name]) for name in ("pure", "package", "literal"))
        share, times = (ratio(*map(seconds.get, pair)) for pair in (("pure", "package"), ("literal", "package")))
        return None, f"`fit` {package}, {share:.2f} of pure compute {pure}; literal pipeline {literal}: {times:.1f}×"

    def features() -> tuple[None, str]:
        count = min(SPEED_IMAGES, len(data.train))
        seconds = probe_benchmark.extraction(data, count)
        fewer = min(probe_benchmark.LITERAL_IMAGES, len(data.train))
        bare, package = (rate(count, seconds[name]) for name in ("bare", "package"))
        share = ratio(seconds["bare"], seconds["package"])
        return (
            None,
            f"`extract` {package}, {share:.2f} of bare encoder {bare}; literal {rate(fewer, seconds['literal'])}",
        )

    yield attempt("Training, images/s: median (range)", training)
    yield attempt("Extraction, images/s: median (range)", features)


def full(data: Data, limit_s: float) -> Iterator[Row]:
    """Seconds of a whole run, headless, under each heading of the notebook; it is ended after `limit_s`."""
    torch.cuda.empty_cache()
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # in a script's background: so would the run
        signal.signal(signal.SIGINT, signal.default_int_handler)
    folder, profile = OUTPUTS / "full", data.context.config.profile
    shutil.rmtree(folder, ignore_errors=True)
    cells = json.loads((ROOT / "hw1.ipynb").read_text(encoding="utf-8"))["cells"]
    lines = [line for cell in cells if cell["cell_type"] == "markdown" for line in "".join(cell["source"]).splitlines()]
    headings = {line.lstrip("# ") for line in lines if line.startswith("#")}
    command = [sys.executable, "-m", "hw1_utils", "run", "--profile", profile, "--output-dir", str(folder)]
    part, began = "start", time.perf_counter()
    started, last = began, ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        timer = threading.Timer(limit_s, process.send_signal, [signal.SIGINT])
        timer.start()
        for line in map(str.strip, process.stdout):
            last = line or last
            if line in headings:
                yield Row(f"`{profile}` run: {part}", None, f"{time.perf_counter() - began:.1f} s")
                part, began = line, time.perf_counter()
        timer.cancel()
    yield Row(f"`{profile}` run: {part}", None, f"{time.perf_counter() - began:.1f} s")
    seconds = f"{time.perf_counter() - started:.1f} s"
    ended = process.returncode == 0
    yield Row(f"`{profile}` run, everything", ended, seconds if ended else f"not through after {seconds}: {last}")


CHECKS: dict[str, Callable[[Data], Iterator[Row]]] = {
    "batches": equal_batches,
    "steps": equal_steps,
    "features": equal_features,
    "streaming": streaming,
    "waits": waits,
    "memory": memory,
    "trace": trace,
    "again": again,
    "killed": killed,
    "speed": speed,
}


@dataclass
class Report:
    """The table as far as it has come, on disk after each row."""

    path: Path
    rows: list[Row] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # of each check

    def add(self, row: Row, data: Data) -> None:
        """Take in a row, and print it."""
        self.rows.append(row)
        print("| " + " | ".join(row.cells) + " |", flush=True)
        self.write(data)

    def write(self, data: Data) -> None:
        spent = ", ".join(f"{name} {seconds:.0f}" for name, seconds in self.seconds.items())
        text = table(["What", "Holds?", "Figures"], [row.cells for row in self.rows])
        with atomic(self.path) as partial:
            partial.write_text(f"{text}\n\n{machine(data)}\n\nSeconds: {spent}\n", encoding="utf-8")

    @property
    def holds(self) -> bool:
        return all(row.holds is not False for row in self.rows)


def work_through(checks: dict[str, Callable[[Data], Iterator[Row]]], data: Data, report: Report) -> None:
    """All of the checks, one after the other; one that fails as a whole is a row as well."""
    for name, check in checks.items():
        print(f"\n{name}: {check.__doc__.splitlines()[0] if check.__doc__ else ''}", flush=True)
        started = now(data.context.device)
        try:
            for row in check(data):
                report.add(row, data)
        except Exception as error:
            report.add(failed(f"{name}: the check itself", error), data)
        report.seconds[name] = time.perf_counter() - started
        report.write(data)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[*CHECKS, "full"], metavar="NAME", help=", ".join(CHECKS))
    parser.add_argument("--full", action="store_true", help="besides the checks, a full run by part")
    parser.add_argument("--limit", type=float, default=FULL_LIMIT_S, help="seconds for it (%(default)s)")
    parser.add_argument("--profile", choices=("full", "smoke"), default="full")
    parser.add_argument("--output", type=Path, default=OUTPUTS / "gpu.md")
    options = parser.parse_args(words)
    try:
        find_device("cuda")
    except Hw1Error as error:
        print(f"benchmarks.gpu needs a GPU: {error}", file=sys.stderr)
        return 2
    known = CHECKS | {"full": lambda data: full(data, options.limit)}
    chosen = options.only or [*CHECKS, *(["full"] if options.full else [])]
    data = load(options.profile, device="cuda", output_dir=str(OUTPUTS / "gpu"))
    report = Report(options.output)
    work_through({name: known[name] for name in chosen}, data, report)
    print(f"\n{options.output.read_text(encoding='utf-8')}\n{os.path.relpath(options.output)}")
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
