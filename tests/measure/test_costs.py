"""Costs are a step of their own: measured once under the same settings, and no training notices it."""

import shutil
from functools import partial

import pandas as pd
import pytest
import torch
from conftest import MODELS, SMALL, load_toy, make_run, numbers, refuse, same, start, weights

from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import train
from hw1_utils.io.files import read_checked
from hw1_utils.measure import costs, profiling
from hw1_utils.measure.costs import first_steps, measure_costs
from hw1_utils.models import FrozenEncoder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def measured(tmp_path_factory, one_thread):
    """(run, its costs) of each of `MODELS` by its name, with nothing replaced; speed is looked at for a moment only."""
    data = load_toy(tmp_path_factory.mktemp("measured"))
    runs = [make_run(data, name) for name in MODELS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiling, "time_per_call", partial(profiling.time_per_call, budget=0.1))
        return {run.name: (run, measure_costs(run)) for run in runs}


@pytest.mark.parametrize("name", MODELS)
def test_every_cost_is_measured_and_the_trace_is_there(measured, name):
    run, costs = measured[name]
    columns = costs.columns
    assert [column for column, value in columns.items() if value is None] == []
    assert columns["trace_steps"] == 2 and columns["operator_calls_per_step"] == columns["operator_calls"] / 2
    assert columns["peak_memory_mb"] > columns["memory_before_mb"] > 0
    assert [file.name for file in (run.folder / "profiler").iterdir()] == ["trace.pt.trace.json.gz"]
    table = pd.read_csv(run.results / "operators.csv")
    assert table["operator"].tolist() == costs.operators["operator"].tolist()
    assert (
        costs.operators.loc[costs.operators["operator"].str.startswith("aten::"), "calls"].sum()
        == (columns["operator_calls"])
    )


def test_parameters_and_multiply_adds_are_those_of_the_whole_model(measured):
    cnn, probe, blocks = (measured[name][1].columns for name in MODELS)
    assert cnn["trainable_parameters"] == cnn["parameters"] == 99_395  # 3 classes
    assert probe["trainable_parameters"] == (64 + 1) * 3 and blocks["trainable_parameters"] == (640 + 1) * 3
    assert probe["parameters"] > 300_000  # the encoder's among them
    assert blocks["macs"] - probe["macs"] == (640 - 64) * 3  # only the head is larger


@pytest.mark.parametrize("name", MODELS)
def test_what_was_measured_is_read_from_disk_also_where_its_table_was_deleted(measured, monkeypatch, name):
    run, before = measured[name]
    for repeated in ("trace_training", "speed_and_memory"):
        monkeypatch.setattr(costs, repeated, refuse)
    shutil.rmtree(run.results)
    again = measure_costs(make_run(run.data, name))
    assert again.columns == before.columns and (run.results / "operators.csv").is_file()
    pd.testing.assert_frame_equal(again.operators, before.operators)


@pytest.fixture
def counted(quick_costs, monkeypatch):
    """A list that grows by a name with each trace that is taken."""
    taken, real = [], costs.trace_training
    monkeypatch.setattr(costs, "trace_training", lambda run: taken.append(run.name) or real(run))
    return taken


@pytest.mark.parametrize("changed", [{"seed": 1}, {"profile_steps": 3}, {"cnn_batch_size": 9}, {"fresh": True}])
def test_other_settings_measure_anew(make_smoke_config, counted, changed):
    measure_costs(start(make_smoke_config(**SMALL)))
    other = start(make_smoke_config(**SMALL | changed))
    found = measure_costs(other)
    assert counted == ["cnn", "cnn"] and found.columns["trace_steps"] == changed.get("profile_steps", 2)
    kept = read_checked(other.folder / "state" / "costs.safetensors")[1]
    assert kept["costs"] == found.columns and kept["settings"].items() >= other.depends_on().items()


def test_damaged_costs_are_said_and_measured_anew(make_smoke_config, counted, capsys):
    run = start(make_smoke_config(**SMALL))
    first = measure_costs(run)
    file = run.folder / "state" / "costs.safetensors"
    file.write_bytes(file.read_bytes().replace(b"99395", b"99396"))
    assert measure_costs(run).columns["parameters"] == first.columns["parameters"] and len(counted) == 2
    assert "The file costs.safetensors is damaged: it is made anew." in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cnn", "vit"])
@pytest.mark.parametrize("first", [measure_costs, train])
def test_measuring_and_training_know_nothing_of_each_other(make_smoke_config, tmp_path, quick_costs, name, first):
    alone = train(start(make_smoke_config(**SMALL, output_dir=str(tmp_path / "alone")), name))
    run = start(make_smoke_config(**SMALL), name)
    states = run.model.state_dict() | run.from_pixels.model.state_dict()
    before = {key: value.clone() for key, value in states.items()}
    done = {step: step(run) for step in ((train, measure_costs) if first is train else (measure_costs, train))}
    assert same(run.model.state_dict() | run.from_pixels.model.state_dict(), before)
    pd.testing.assert_frame_equal(numbers(done[train].history), numbers(alone.history), check_exact=True)
    assert same(weights(done[train]), weights(alone))
    assert measure_costs(run).columns == done[measure_costs].columns


def test_ctrl_c_between_trace_and_measuring_leaves_nothing_wrong(make_smoke_config, counted, monkeypatch):
    """A new trace beside old figures, say."""
    measure_costs(start(make_smoke_config(**SMALL)))
    other = start(make_smoke_config(**SMALL, seed=1))

    def interrupt(run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(costs, "speed_and_memory", interrupt)
        measure_costs(other)
    assert not (other.folder / "state" / "costs.safetensors").exists()
    back = measure_costs(start(make_smoke_config(**SMALL)))  # the first one's trace has been replaced
    assert counted == ["cnn"] * 3 and back.columns["trace_steps"] == 2
    assert [file.name for file in (other.folder / "profiler").iterdir()] == ["trace.pt.trace.json.gz"]


def out_of_memory(*args, **kwargs):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def test_a_gpu_that_holds_only_small_batches_is_enough(make_smoke_config, monkeypatch, quick_costs):
    def at_most_8(self, images):
        return real(self, images) if len(images) <= 8 else out_of_memory()

    real = FrozenEncoder.forward
    monkeypatch.setattr(FrozenEncoder, "forward", at_most_8)
    monkeypatch.setattr(profiling, "time_per_call", lambda call, device: 1.0 if call() is not None else 0.0)
    run = start(make_smoke_config(**SMALL, extract_batch_size=32), "vit")
    assert measure_costs(run).columns["inference_batch_size"] == 8


def test_too_little_gpu_memory_is_one_sentence(make_smoke_config, monkeypatch, quick_costs):
    run = start(make_smoke_config(**SMALL), "vit")
    monkeypatch.setattr(costs, "fit", out_of_memory)
    with pytest.raises(Hw1Error, match=r"^The GPU's memory is too small for probe, .*: lower probe_batch_size .now 4."):
        measure_costs(run)


def test_first_steps_run_on_into_later_epochs():
    asked = []

    def batches(epoch):
        asked.append(epoch)
        return [(epoch, i) for i in range(2)]

    assert list(first_steps(batches, 5)) == [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0)]
    assert asked == [1, 2, 3]
