"""What training and inference cost: 50-step trace, operator table, multiply-adds, speed, memory."""

import contextlib
import copy
import gzip
import io
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, schedule

from ..device import now, peak_rss_mb
from ..errors import Hw1Error
from ..io.files import atomic

WARMUP = 2  # steps before the recorded ones: allocations and first-call set-up are not training


@dataclass(frozen=True)
class Trace:
    """A finished profiler trace."""

    file: Path  # gzipped Chrome trace; open it at ui.perfetto.dev
    steps: int  # recorded
    operators: pd.DataFrame  # operator, calls, self_ms, share (of all self time), sorted by share
    operator_calls: int  # all aten:: calls, nested ones included; an overload calling another of its name counts once


def record_trace(run: Callable[[profile], object], folder: Path, device: torch.device, steps: int) -> Trace:
    """Profile `run`, which must call `.step()` on the profiler it is given exactly WARMUP + `steps` times.

    Shapes, stacks and FLOPs are left out: they multiply file size and memory. The file is written as
    `folder/trace.pt.trace.json.gz` and replaces earlier ones.
    """
    # The profiler's own log goes to stderr and looks like errors on any machine without a GPU; read when it starts.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.pt.trace.json*"):
        old.unlink()
    file = folder / "trace.pt.trace.json.gz"
    events: list[dict] = []

    def keep(profiler: profile) -> None:
        with tempfile.TemporaryDirectory() as place, atomic(file) as partial:
            plain = Path(place) / "trace.json"
            profiler.export_chrome_trace(str(plain))
            events.extend(_tidy(plain, partial))

    with (
        warnings.catch_warnings(action="ignore"),
        profile(
            activities=activities,
            schedule=schedule(wait=0, warmup=WARMUP, active=steps, repeat=1),
            on_trace_ready=keep,
        ) as profiler,
    ):
        run(profiler)
    table = operators(events, device)
    steps = table["operator"].str.startswith("ProfilerStep")
    table, recorded = table[~steps].reset_index(drop=True), int(table.loc[steps, "calls"].sum())
    table["share"] = table["self_ms"] / table["self_ms"].sum()
    calls = int(table.loc[table["operator"].str.startswith("aten::"), "calls"].sum())
    return Trace(file=file, steps=recorded, operators=table, operator_calls=calls)


def operators(events: list[dict], device: torch.device) -> pd.DataFrame:
    """operator, calls and self_ms, the most time first, of a Chrome trace's events: torch's `key_averages`.

    That one takes ten times as long, most of a small model's measuring. On a CPU an operator's own time is its duration
    without that of those it calls; on a GPU that of the kernels it launched itself. An operator that does nothing but
    call another of its name (an overload) counts once with it.
    """
    called = [e for e in events if e.get("ph") == "X" and e.get("cat") in ("cpu_op", "user_annotation")]
    called.sort(key=lambda e: (e["tid"], e["ts"], -e["dur"]))
    parents, children, own = [], [0] * len(called), [e["dur"] for e in called]
    above: list[int] = []  # those that are running, the outermost first
    for i, event in enumerate(called):
        while above and (
            called[above[-1]]["tid"] != event["tid"]
            or called[above[-1]]["ts"] + called[above[-1]]["dur"] <= event["ts"]
        ):
            above.pop()
        parents.append(above[-1] if above else None)
        if above:
            children[above[-1]] += 1
            own[above[-1]] -= event["dur"]
        above.append(i)
    if device.type == "cuda":
        launched = Counter()
        for event in events:
            if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset"):
                launched[event["args"].get("External id")] += event["dur"]
        own = [launched[e.get("args", {}).get("External id")] for e in called]
    calls, spent = Counter(), Counter()
    for event, parent, microseconds in zip(called, parents, own, strict=True):
        alone = parent is not None and children[parent] == 1 and called[parent]["name"] == event["name"]
        calls[event["name"]] += not alone
        spent[event["name"]] += microseconds
    rows = [(name, calls[name], spent[name] / 1e3) for name in calls]
    table = pd.DataFrame(rows, columns=["operator", "calls", "self_ms"])
    return table.sort_values("self_ms", ascending=False, ignore_index=True)


def _tidy(plain: Path, target: Path) -> list[dict]:
    """Gzip a Chrome trace without the host name and the temporary folder, both written by torch. Its events.

    And without torch's running numbers of the events, which no viewer shows: a fifth of the file.
    """
    try:
        content = json.loads(plain.read_text(encoding="utf-8"))
    except ValueError as error:  # torch does not say when it could not write everything
        raise Hw1Error(
            f"The trace was not written completely: make room on the disk and in {tempfile.gettempdir()}, then run "
            "again; what is finished is kept."
        ) from error
    content.pop("host_name", None)
    content["traceName"] = "trace.pt.trace.json"
    for event in content["traceEvents"]:
        for number in ("Ev Idx", "Record function id"):
            event.get("args", {}).pop(number, None)
    with gzip.open(target, "wt", encoding="utf-8") as f:
        f.write(json.dumps(content, separators=(",", ":")))  # at once: json.dump writes it number by number
    return content["traceEvents"]


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(all, trainable) parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, grad in sizes if grad)


def count_macs(model: nn.Module, inputs: Tensor) -> int:
    """Exact multiply-adds of a forward pass over `inputs` (B×...), by torch's FlopCounterMode (2 FLOPs each).

    Counted on the meta device, where attention is not fused: fused attention is invisible to the counter on
    the CPU before torch 2.15. `model` is left as it is.
    """
    from torch.utils.flop_counter import FlopCounterMode  # brings Triton along: 0.2 s, and not in every run

    shadow = copy.deepcopy(model).float().to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(inputs.to("meta", torch.float32))
    return counter.get_total_flops() // 2


def count_macs_thop(model: nn.Module, inputs: Tensor) -> int | None:
    """Multiply-adds as thop counts them: it knows layers, not operations, so attention's products are missing.

    None where thop cannot be imported (it needs setuptools on Python 3.12 and newer).
    """
    try:
        from thop import profile as thop_profile
    except ImportError:
        return None
    shadow = copy.deepcopy(model).float().eval()  # thop leaves counters in the model it is given
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        macs, _ = thop_profile(shadow, inputs=(inputs.float(),), verbose=False)
    return int(macs)


def time_per_call(call: Callable[[], object], device: torch.device, *, budget: float = 2.0, most: int = 50) -> float:
    """Median seconds of one call, synchronised, after a warm-up; about `budget` seconds or `most` calls in all."""
    for _ in range(2):
        call()
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds) < budget and len(seconds) < most):
        started = now(device)
        call()
        seconds.append(now(device) - started)
    return statistics.median(seconds)


def peak_memory_mb(work: Callable[..., object], args: tuple, device: torch.device) -> tuple[float | None, float | None]:
    """Peak memory of `work(*args)`, in MB (10^6 bytes), and what was in use before it began.

    GPU: allocated tensors, in this process. CPU: resident memory of a fresh process, in which Python and torch
    themselves are the part in use before; `work` and `args` must be importable and picklable there. (None, None),
    said aloud, where that process does not come to its end.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work(*args)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / 1e6, before / 1e6
    # Not multiprocessing: its new process runs the user's script again, which may not be written for that.
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path = {sys.path!r}; from {__name__} import _peak_of; _peak_of()",
    ]
    done = subprocess.run(command, input=pickle.dumps((work, args)), stdout=subprocess.PIPE, check=False)
    if done.returncode:
        print("WARNING: memory is not measured, as the process for it was ended, perhaps for want of memory.")
        return None, None
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def _peak_of() -> None:
    work, args = pickle.load(sys.stdin.buffer)
    before = peak_rss_mb()
    work(*args)
    print(json.dumps([peak_rss_mb(), before]))
