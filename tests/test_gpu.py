"""`benchmarks.gpu` without a GPU: each check says yes on the CPU, and no to an implementation that is broken."""

import re
import sys
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module

import pytest
import torch

from benchmarks import gpu, torture
from benchmarks import probe as probe_benchmark
from benchmarks import training as training_benchmark
from hw1_utils import features, training
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import load
from hw1_utils.io.arrays import Rows
from hw1_utils.measure import costs, profiling

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def data(make_smoke_config, monkeypatch, tmp_path):
    sizes = {"STEPS": 12, "WATCHED_STEPS": 4, "PARTS": 4, "FEATURE_IMAGES": 6, "MEMORY_IMAGES": 16, "SPEED_IMAGES": 6}
    for name, value in sizes.items():
        monkeypatch.setattr(gpu, name, value)
    monkeypatch.setattr(gpu, "OUTPUTS", tmp_path / "benchmarks")
    monkeypatch.setattr(training, "steps_between_looks", lambda device: 50)  # as on a GPU
    return load(make_smoke_config(precision="fp32"))


def holds(check, data):
    return [row.holds for row in check(data)]


def brighter(split):
    return replace(split, images=Rows(split.images.values // 2 + 100, streamed=split.images.streamed))


@contextmanager
def spoilt_on_the_device(monkeypatch, spoil=brighter):
    """The second of two places, and every other one after it, has other training images."""
    places, move = [], gpu.moved

    def moved(*args, **options):
        places.append(args)
        there = move(*args, **options)
        return replace(there, train=spoil(there.train)) if len(places) % 2 == 0 else there

    with monkeypatch.context() as patch:
        patch.setattr(gpu, "moved", moved)
        yield


# ---- the draws


class Elsewhere(torch.Generator):
    """A generator that says that it is on another device."""

    device = torch.device("meta")


def test_a_devices_draws_are_the_cpus():
    def drawn(generator):
        return [
            torch.rand(5, device="cpu", generator=generator),
            torch.randint(-4, 5, (5, 2), device="cpu", generator=generator),
            torch.empty(2, 5).uniform_(-1, 1, generator=generator),
        ]

    with gpu.DrawnOnTheCPU():
        elsewhere, again = drawn(Elsewhere().manual_seed(7)), drawn(torch.Generator().manual_seed(7))
    expected = drawn(torch.Generator().manual_seed(7))
    for one in (elsewhere, again):
        assert all(map(torch.equal, one, expected))


# ---- the checks


def test_batches(data, monkeypatch):
    assert holds(gpu.equal_batches, data) == [True, True]
    with spoilt_on_the_device(monkeypatch):
        assert holds(gpu.equal_batches, data) == [False, False]
    with spoilt_on_the_device(monkeypatch, lambda split: replace(split, labels=split.labels.flip(0))):
        assert holds(gpu.equal_batches, data) == [False, False]


def test_steps(data, monkeypatch):
    rows = list(gpu.equal_steps(data))
    assert [row.holds for row in rows] == [True] * 3, rows
    assert "0.00% apart at most" in rows[0].figures and "in fp16" in rows[2].what

    monkeypatch.setattr(gpu, "LOSS_APART", {"fp32": gpu.LOSS_APART["fp32"]})
    move = gpu.moved

    def other_labels(part, device, precision):
        there = move(part, device, precision)
        labels = there.train.labels if device is gpu.CPU else (there.train.labels + 1) % 3
        return replace(there, train=replace(there.train, labels=labels))

    with monkeypatch.context() as patch:
        patch.setattr(gpu, "moved", other_labels)
        assert holds(gpu.equal_steps, data) == [False]
    with monkeypatch.context() as patch:  # nothing is learnt: everything would be near
        patch.setattr(training, "mean_loss", lambda logits, *rest: (logits * 0).sum() + 1)
        assert holds(gpu.equal_steps, data) == [False]


def test_features(data, monkeypatch):
    assert holds(gpu.equal_features, data) == [True] * 3
    make = gpu.load_encoder

    def spoilt(part):
        def load_encoder(*args, **options):
            encoder = make(*args, **options)
            if made.append(encoder) or len(made) > 1:
                part(encoder)
            return encoder

        made = []
        with monkeypatch.context() as patch:
            patch.setattr(gpu, "load_encoder", load_encoder)
            return holds(gpu.equal_features, data)

    assert spoilt(lambda encoder: encoder.mean.add_(0.02)) == [False] * 3  # five levels of 255
    assert spoilt(lambda encoder: encoder.backbone.pos_embed.mul_(3)) == [False] * 3


def test_streaming(data, monkeypatch):
    assert holds(gpu.streaming, data) == [True, True]
    with spoilt_on_the_device(monkeypatch):
        assert holds(gpu.streaming, data) == [False, False]


def test_waits(data, monkeypatch):
    # AdamW counts its steps on the CPU, also for a GPU's parameters: reading that makes nobody wait.
    monkeypatch.setattr(import_module("torch.optim.adam"), "_get_value", lambda step: float(step.numpy()))
    assert holds(gpu.waits, data) == [True] * 4
    mean_loss = training.mean_loss
    with monkeypatch.context() as patch:
        patch.setattr(training, "mean_loss", lambda *args: mean_loss(*args) + 0 * mean_loss(*args).item())
        rows = list(gpu.waits(data))
    assert [row.holds for row in rows] == [False, False, True, False]
    assert rows[0].figures == "RuntimeError: a tensor is read"
    monkeypatch.setattr(gpu, "evaluate", lambda model, batches, precision: [x.sum().item() for x, _ in batches])
    assert holds(gpu.waits, data) == [True, True, False, True]


@contextmanager
def room_for(images, encoder):
    """As on a GPU whose memory holds so many at once."""
    forward = encoder.forward

    def limited(pixels):
        if len(pixels) > images:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(pixels)

    encoder.forward = limited
    try:
        yield
    finally:
        encoder.forward = forward


def test_memory(data, monkeypatch):
    monkeypatch.setattr(gpu, "little_memory", lambda encoder, images: room_for(9, encoder))
    (row,) = gpu.memory(data)
    assert row.holds and "8 images at a time" in row.figures
    with monkeypatch.context() as patch:
        patch.setattr(gpu, "little_memory", lambda encoder, images: room_for(16, encoder))
        (row,) = gpu.memory(data)
        assert row.holds is False and "nothing was halved" in row.figures
    with monkeypatch.context() as patch:
        patch.setattr(features, "halving", lambda work, size: (size, work(size)))
        (row,) = gpu.memory(data)
        assert row.holds is False and row.figures.startswith("Hw1Error: The GPU's memory is too small")
    with monkeypatch.context() as patch:
        patch.setattr(features, "halving", lambda work, size: (size // 2, work(size // 2) * (1.0 + (size == 16))))
        assert holds(gpu.memory, data) == [False]


def test_trace(data, monkeypatch):
    (row,) = gpu.trace(data)
    assert row.holds and row.figures.startswith("2 steps, ")
    with monkeypatch.context() as patch:
        patch.setattr(profiling, "_tidy", lambda plain, target: tidy(keep_no_operator(plain), target))
        assert holds(gpu.trace, data) == [False]
    monkeypatch.setattr(costs, "first_steps", lambda batches, count: gpu.first_steps(batches, count - 2))
    assert holds(gpu.trace, data) == [False]


tidy = profiling._tidy


def keep_no_operator(path):
    """As where the driver lets nobody see the kernels."""
    path.write_text(path.read_text().replace('"cpu_op"', '"something"'))
    return path


def test_again(data, monkeypatch):
    assert holds(gpu.again, data) == [True] * 3
    with spoilt_on_the_device(monkeypatch):
        assert holds(gpu.again, data) == [False, False, True]
    call = features.FrozenEncoder.forward
    monkeypatch.setattr(features.FrozenEncoder, "forward", lambda encoder, x: call(encoder, x) + torch.rand(1))
    assert holds(gpu.again, data)[2] is False


def test_killed(data, monkeypatch):
    runs = iter(["undisturbed", None, "CNN", "probe", None] * 2)  # phases in which `torture.run` was killed
    monkeypatch.setattr(torture, "run", lambda folder, **options: next(runs) if options["device"] == "cpu" else 1 / 0)
    next(runs)
    monkeypatch.setattr(torture, "left_on_disk", lambda folder: {"weights": 1})
    (row,) = gpu.killed(data)
    assert row.holds and row.figures == "killed at CNN (1), probe (1)"
    next(runs)
    monkeypatch.setattr(torture, "left_on_disk", lambda folder: {"weights": folder})
    (row,) = gpu.killed(data)
    assert row.holds is False and "these differ: ['weights']" in row.figures


def test_speed(data, monkeypatch):
    """The measuring itself is tests/test_benchmarks.py's."""
    seconds = {"pure": [1.0, 2.0], "package": [2.0, 4.0], "bare": [1.0, 2.0], "literal": [20.0, 40.0]}
    asked = []
    monkeypatch.setattr(training_benchmark, "throughput", lambda data: seconds)
    monkeypatch.setattr(probe_benchmark, "extraction", lambda data, count: asked.append(count) or seconds)
    rows = list(gpu.speed(data))
    assert [row.holds for row in rows] == [None, None] and asked == [6]
    assert re.search(
        r"`fit` 107 \(80 – 160\), 0.50 of pure compute 213 .* literal pipeline 11 .*: 10.0×$", rows[0].figures
    )
    assert re.search(r"`extract` 2 \(.*\), 0.50 of bare encoder 4 .* literal 4 ", rows[1].figures)
    monkeypatch.setattr(training_benchmark, "throughput", lambda data: 1 / 0)
    assert [row.holds for row in gpu.speed(data)] == [False, None]


@pytest.mark.parametrize(("code", "last"), [(0, True), (1, False)])
def test_full(data, monkeypatch, tmp_path, code, last):
    """The parts of a run are what stands under the notebook's headings."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho; echo Data; echo said; echo; echo Models; echo hw1: no room; exit {code}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    rows = list(gpu.full(data, limit_s=60))
    assert [row.what for row in rows] == [f"`smoke` run: {part}" for part in ("start", "Data", "Models")] + [
        "`smoke` run, everything"
    ]
    assert rows[-1].holds is last and ("hw1: no room" in rows[-1].figures) is not last


def test_a_full_run_is_ended_when_its_time_is_over(data, monkeypatch, tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho Data\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    *_, row = gpu.full(data, limit_s=0.5)
    assert row.holds is False and row.figures.startswith("not through after ")


# ---- the table


def test_a_check_that_fails_is_a_row_and_the_others_go_on(data, tmp_path, capsys):
    def good(data):
        """It holds."""
        yield gpu.Row("good", True, "1 | 2")

    def breaks(data):
        yield gpu.Row("half", None, "3 s")
        raise ValueError("first line\nsecond line")

    report = gpu.Report(tmp_path / "there" / "gpu.md")
    gpu.work_through({"breaks": breaks, "good": good}, data, report)
    text = report.path.read_text()
    assert not report.holds and "| breaks: the check itself | **no** | ValueError: first line |" in text
    assert "| half |  | 3 s |" in text and "| good | yes | 1 \\| 2 |" in text and "torch" in text
    assert re.search(r"Seconds: breaks \d+, good \d+", text) and "good: It holds." in capsys.readouterr().out


def test_without_a_gpu_it_is_one_sentence(monkeypatch, capsys):
    def none(name):
        raise Hw1Error("device='cuda' cannot be used here (no driver\nmuch more)")

    monkeypatch.setattr(gpu, "find_device", none)
    monkeypatch.setattr(gpu, "load", lambda *args, **options: pytest.fail("this is expensive"))
    assert gpu.main([]) == 2
    said = capsys.readouterr()
    assert (
        said.err == "benchmarks.gpu needs a GPU: device='cuda' cannot be used here (no driver much more)\n"
        and said.out == ""
    )


@pytest.mark.parametrize(("found", "status"), [(True, 0), (False, 1)])
def test_the_command_runs_what_it_is_asked_for_and_says_how_it_went(data, monkeypatch, tmp_path, capsys, found, status):
    done = []

    def check(name):
        return lambda data, *rest: done.append(name) or [gpu.Row(name, found, "")]

    monkeypatch.setattr(gpu, "find_device", lambda name: None)
    monkeypatch.setattr(gpu, "load", lambda *args, **options: data)
    for name in gpu.CHECKS:
        monkeypatch.setitem(gpu.CHECKS, name, check(name))
    monkeypatch.setattr(gpu, "full", check("full"))
    output = ["--output", str(tmp_path / "gpu.md")]
    assert gpu.main([*output, "--only", "trace", "--only", "full"]) == status and done == ["trace", "full"]
    done.clear()
    assert gpu.main([*output, "--full"]) == status and done == [*gpu.CHECKS, "full"]
    done.clear()
    assert gpu.main(output) == status and done == [*gpu.CHECKS]
    assert "| speed | " in capsys.readouterr().out
