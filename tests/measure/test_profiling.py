"""Traces, counts and memory. Nothing here asserts a time."""

import copy
import gzip
import json
import os
import socket
import subprocess
import sys
import time
from functools import partial
from operator import call

import pytest
import timm
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from hw1_utils.config import ROOT
from hw1_utils.measure import profiling
from hw1_utils.models import CNN, blank_probe

CPU = torch.device("cpu")
CNN_MACS = 32**2 * 27 * 32 + 16**2 * 288 * 64 + 8**2 * 576 * 128 + 2048 * 10


def small_work(profiler, steps):
    model = nn.Linear(4, 3)
    for _ in range(steps):
        model(torch.ones(2, 4)).relu().backward(torch.ones(2, 3))  # no operator here calls another of its name
        profiler.step()


def record(folder, steps=50):
    return profiling.record_trace(lambda p: small_work(p, profiling.WARMUP + steps), folder, CPU, steps)


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """A trace of 50 steps, the second one recorded into its folder, and its events."""
    folder = tmp_path_factory.mktemp("folder-of-this-machine") / "profiler"
    record(folder, steps=3)
    trace = record(folder)
    with gzip.open(trace.file, "rt", encoding="utf-8") as f:
        return trace, json.load(f)


def test_the_trace_holds_exactly_the_steps_asked_for(trace):
    trace, content = trace
    names = [event.get("name", "") for event in content["traceEvents"]]
    assert trace.steps == 50
    assert sum(name.startswith("ProfilerStep") for name in names) == 50


def test_a_new_trace_replaces_the_old_one(trace):
    trace, _ = trace
    assert [file.name for file in trace.file.parent.iterdir()] == ["trace.pt.trace.json.gz"]


def test_operator_calls_are_the_aten_events_of_the_file(trace):
    trace, content = trace
    names = [event.get("name", "") for event in content["traceEvents"]]
    assert trace.operator_calls == sum(name.startswith("aten::") for name in names)
    table = trace.operators.set_index("operator")
    assert table["calls"].filter(like="aten::").sum() == trace.operator_calls
    assert table.loc["aten::linear", "calls"] == 50  # one layer, 50 steps


def test_operators_are_those_of_torchs_own_table(tmp_path):
    """With overloads, nested operators, a backward pass and an optimiser's annotation."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    optimizer = torch.optim.AdamW(model.parameters())
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(3):
            nn.functional.cross_entropy(model(torch.randn(4, 3, 8, 8)), torch.arange(4)).backward()
            optimizer.step()
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    found = profiling.operators(json.loads((tmp_path / "trace.json").read_text())["traceEvents"], CPU)
    torchs = {e.key: (e.count, e.self_cpu_time_total / 1e3) for e in profiler.key_averages()}
    assert dict(zip(found["operator"], found["calls"], strict=True)) == {name: n for name, (n, _) in torchs.items()}
    assert found["self_ms"].tolist() == pytest.approx([torchs[name][1] for name in found["operator"]], abs=1e-3)
    assert found["self_ms"].is_monotonic_decreasing


def test_on_a_gpu_an_operators_own_time_is_that_of_the_kernels_it_launched():
    def event(category, name, start, duration, number, thread=1):
        about = {"ph": "X", "cat": category, "name": name, "tid": thread, "ts": start, "dur": duration}
        return about | {"args": {"External id": number}}

    events = [
        event("cpu_op", "aten::linear", 0, 90, 1),
        event("cpu_op", "aten::addmm", 10, 60, 2),
        event("cuda_runtime", "cudaLaunchKernel", 20, 5, 2),
        event("kernel", "gemm", 200, 3000, 2, thread=7),
        event("kernel", "bias", 3200, 1000, 2, thread=7),
        event("cpu_op", "aten::copy_", 100, 10, 3),
        event("gpu_memcpy", "Memcpy HtoD", 5000, 500, 3, thread=7),
    ]
    table = profiling.operators(events, torch.device("cuda")).set_index("operator")
    assert table["self_ms"].to_dict() == {"aten::addmm": 4.0, "aten::copy_": 0.5, "aten::linear": 0.0}
    assert table["calls"].tolist() == [1, 1, 1]


def test_operator_shares_sum_to_one_in_falling_order(trace):
    table = trace[0].operators
    assert table["share"].sum() == pytest.approx(1.0)
    assert table["share"].is_monotonic_decreasing
    assert (table["share"] / table["self_ms"]).std() == pytest.approx(0, abs=1e-9)  # a share of the time
    assert not table["operator"].str.startswith("ProfilerStep").any()


def test_the_trace_names_neither_this_machine_nor_its_folders(trace):
    trace, content = trace
    assert "host_name" not in content
    text = gzip.decompress(trace.file.read_bytes()).decode()
    assert f'"{socket.gethostname()}"' not in text
    assert "folder-of-this-machine" not in text and "/tmp" not in text


def test_recording_prints_nothing(tmp_path):
    """Kineto's log lines look like errors; they come from C++, past Python's stderr."""
    code = (
        "import sys, torch; from pathlib import Path; from hw1_utils.measure.profiling import record_trace\n"
        "record_trace(lambda p: [p.step() for _ in range(3)], Path(sys.argv[1]), torch.device('cpu'), 1)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_parameters_all_and_trainable():
    model = CNN(10)
    assert profiling.count_parameters(model) == (113_738, 113_738)
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    assert profiling.count_parameters(model) == (113_738, 2049 * 10)


def test_macs_of_the_cnn_equal_the_hand_count():
    model, images = CNN(10), torch.zeros(1, 3, 32, 32)
    assert CNN_MACS == 10_342_400
    assert profiling.count_macs(model, images) == CNN_MACS
    assert profiling.count_macs(model, images.expand(4, -1, -1, -1)) == 4 * CNN_MACS
    assert profiling.count_macs_thop(model, images) == CNN_MACS  # no attention: thop sees everything


def test_macs_of_a_vit_include_attention_which_thop_misses():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    image = torch.zeros(1, 3, 224, 224)
    n, d = 14**2 + 1, 192  # tokens, width
    patches = 14**2 * (3 * 16**2) * d
    layers = 3 * n * d**2 + n * d**2 + 2 * 4 * n * d**2  # q, k, v; projection; MLP up and down
    attention = 2 * n**2 * d  # q·k and weights·v
    hand = patches + 12 * (layers + attention) + d * 10
    assert hand == 1_253_493_120
    assert profiling.count_macs(model, image) == hand
    before = set(model.state_dict())
    thop = profiling.count_macs_thop(model, image)
    assert 0.9 * (hand - 12 * attention) < thop <= hand - 12 * attention
    assert set(model.state_dict()) == before  # no total_ops, no total_params


@pytest.mark.parametrize("count", [profiling.count_macs, profiling.count_macs_thop])
def test_counting_leaves_model_and_randomness_alone(count):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU()).train()
    before, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert count(model, torch.rand(2, 3, 8, 8)) > 0
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert model.training and all(parameter.device == CPU for parameter in model.parameters())
    torch.rand(2, 3, 8, 8)  # the inputs above drew the same
    drawn = torch.get_rng_state()
    torch.set_rng_state(random_state)
    torch.rand(2, 3, 8, 8)
    torch.rand(2, 3, 8, 8)
    assert torch.equal(drawn, torch.get_rng_state())


def test_time_per_call_warms_up_and_takes_at_least_three():
    calls = []
    assert profiling.time_per_call(lambda: calls.append(time.sleep(0.001)), CPU, budget=0.0) > 0
    assert len(calls) == 2 + 3
    calls.clear()
    profiling.time_per_call(lambda: calls.append(None), CPU, most=7)
    assert len(calls) == 2 + 7


def test_what_the_work_makes_is_not_in_use_before_it():
    """A probe of 22 million parameters: handed over ready-made it would hide behind its own unpickling."""
    build = partial(blank_probe, "vit_small_patch16_224", torch.float32, 3, "cls")
    (peak, before), (_, empty) = (profiling.peak_memory_mb(work, (build,), CPU) for work in (call, callable))
    assert abs(before - empty) < 20 and peak - before > 4 * 22


def test_a_process_that_is_killed_costs_a_warning_and_not_the_run(capsys):
    assert profiling.peak_memory_mb(os._exit, (9,), CPU) == (None, None)
    assert "WARNING: memory is not measured" in capsys.readouterr().out


def test_peak_memory_grows_with_what_the_work_allocates():
    little, before = profiling.peak_memory_mb(torch.ones, (250_000,), CPU)
    much, _ = profiling.peak_memory_mb(torch.ones, (100_000_000,), CPU)  # 400 MB
    if little is None:
        pytest.skip("resident memory cannot be read on this system")
    assert 0 < before <= little
    assert 300 < much - little < 500


SCRIPT = """
import hw1_utils as hw1
print("started")
run = hw1.cnn(hw1.load(hw1.make_config("smoke", data_dir={data!r}, output_dir={out!r}, device="cpu", profile_steps=2)))
print("peak", hw1.measure_costs(run).columns["peak_memory_mb"])
"""


def test_a_script_is_not_run_again_by_the_process_whose_memory_is_measured(tmp_path, toy_folder):
    """As multiprocessing would, unless its author has thought of `if __name__ == "__main__"`."""
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.format(data=str(toy_folder), out=str(tmp_path / "out")))
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.count("started") == 1 and float(done.stdout.split("peak ")[1]) > 0
