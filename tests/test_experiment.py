"""The whole story on a toy folder: what is on disk afterwards, and that the same config gives the same numbers."""

import dataclasses
import json
import shutil

import pandas as pd
import pytest
import torch
from conftest import SMALL, PowerCut, numbers, same, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hw1_utils import experiment, tasks
from hw1_utils.config import make_config
from hw1_utils.data import load_test, make_toy_folder
from hw1_utils.experiment import CNNTask, ProbeTask, cnn_tasks, prepare, sanity_check, taught_by, train
from hw1_utils.io import checkpoint
from hw1_utils.io.files import read_sealed
from hw1_utils.judging import evaluate_both_ways, judge
from hw1_utils.studies import studies

TASKS = {
    "cnn": lambda setup: CNNTask(setup, "tuned"),
    "vit": ProbeTask,
    "vit_layers": lambda setup: ProbeTask(setup, "layers"),
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, one_thread):
    """Both models trained and tested, with nothing replaced."""
    root = tmp_path_factory.mktemp("finished")
    make_toy_folder(root / "toy")
    here = {"data_dir": str(root / "toy"), "output_dir": str(root / "out")}
    setup = prepare(make_config("smoke", **(SMALL | here)))
    started = [make(setup) for make in TASKS.values()]
    checks = [sanity_check(task) for task in started]
    trainings = [train(task) for task in started]
    return root / "out", started, checks, trainings, load_test(setup.config)


def start(config, name):
    return TASKS[name](prepare(config))


# ---- one run, looked at


@pytest.mark.parametrize("name", TASKS)
def test_runs_hold_logs_and_a_trace(finished, name):
    runs = finished[0] / "runs" / name
    for part in ("train", "val"):
        events = EventAccumulator(str(runs / "logs" / part), size_guidance={"scalars": 0})
        events.Reload()
        assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    assert [file.name for file in (runs / "profiler").iterdir()] == ["trace.pt.trace.json.gz"]
    assert (finished[0] / "results" / name / "operators.csv").is_file()


def test_sanity_check_reached_accuracy_one_on_a_copy(finished):
    _, started, checks, *_ = finished
    assert [history[-1]["val_accuracy"] for history in checks] == [1.0] * len(TASKS)
    setup = started[0].setup
    task = CNNTask(setup, "tuned")
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    sanity_check(task)
    assert same(task.model.state_dict(), before)


def test_trainings_learn_and_report_every_cost(finished):
    _, _, _, trainings, test = finished
    for training in trainings:
        assert training.history["epoch"].tolist() == [1, 2, 3]
        assert judge(training, test).test.accuracy > 0.8  # three colours
        missing = [name for name, value in training.costs.items() if value is None]
        assert missing == []
        assert training.costs["trace_steps"] == 2
        assert training.costs["operator_calls_per_step"] == training.costs["operator_calls"] / 2
        assert training.costs["peak_memory_mb"] > training.costs["memory_before_mb"] > 0
    cnn, probe, layers = (training.costs for training in trainings)
    assert cnn["trainable_parameters"] == cnn["parameters"] == 99_395  # 3 classes
    assert probe["trainable_parameters"] == (64 + 1) * 3
    assert layers["trainable_parameters"] == (640 + 1) * 3
    assert layers["macs"] - probe["macs"] == (640 - 64) * 3  # only the head is larger
    assert cnn["extraction_seconds"] == 0 < probe["extraction_seconds"] == layers["extraction_seconds"]
    assert probe["total_training_seconds"] == probe["training_seconds"] + probe["extraction_seconds"]


def test_the_last_row_of_the_history_is_the_model_that_is_judged(finished):
    """For the CNN, the moving average."""
    for training in finished[3]:
        val = training.evaluations["val"]
        last = training.history.iloc[-1]
        assert (val.loss, val.accuracy) == pytest.approx((last["val_loss"], last["val_accuracy"]), rel=1e-6)


def test_test_evaluation_sees_every_image_in_order(finished):
    _, _, _, trainings, test = finished
    for training in trainings:
        evaluation = judge(training, test).test
        assert torch.equal(evaluation.labels, test.labels)
        assert torch.allclose(evaluation.probabilities.sum(1), torch.ones(len(test)), atol=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_a_finished_experiment_is_used_not_repeated(finished, monkeypatch, name):
    for repeated in ("trace_training", "measure_costs"):
        monkeypatch.setattr(experiment, repeated, refuse)
    before = finished[3][list(TASKS).index(name)]
    task = TASKS[name](before.task.setup)
    task.train_batches = refuse
    again = train(task)
    pd.testing.assert_frame_equal(again.history, before.history)  # to the second
    assert again.costs == before.costs and same(weights(again), weights(before))


def test_both_probes_work_on_raw_images_as_they_do_on_features(finished):
    *_, trainings, test = finished
    for training in trainings[1:]:
        probabilities = training.task.on_images(training.model)(test.images).softmax(1)
        expected = judge(training, test).test.probabilities
        torch.testing.assert_close(probabilities, expected, rtol=0, atol=2e-2)  # bf16 in batches of another size


@pytest.mark.parametrize(("side", "most"), [(32, 512), (64, 512), (256, 64), (512, 16)])
def test_large_images_are_evaluated_a_few_at_a_time(make_smoke_config, side, most):
    task = CNNTask(prepare(make_smoke_config(**SMALL, image_size=side)), "tuned")
    images = torch.zeros(600, 3, 1, 1, dtype=torch.uint8).expand(-1, -1, side, side)
    many = dataclasses.replace(task.setup.val, images=images, labels=torch.zeros(600, dtype=torch.int64))
    inputs, _ = next(iter(task.eval_batches(many)))
    assert len(inputs) == most


# ---- CNNs under several recipes


@pytest.mark.parametrize("headline", ["tuned", "short", "assignment"])
def test_every_cnn_is_trained_once_and_the_headline_comes_first(make_smoke_config, headline):
    setup = prepare(make_smoke_config(**SMALL, cnn_recipe=headline))
    tasks = cnn_tasks(setup)
    assert tasks[0].variant == headline and tasks[0].name == "cnn"
    assert [task.variant for task in tasks[1:]] == [r for r in ("short", "assignment") if r != headline]
    assert len({task.title for task in tasks}) == len({task.name for task in tasks}) == len(tasks)
    taught = CNNTask(setup, "taught", torch.full((len(setup.train), 3), 1 / 3))
    assert taught.epochs == tasks[0].epochs == (3 if headline == "tuned" else setup.config.short_epochs)


# ---- a CNN taught by the probe


def test_a_taught_cnn_learns_from_labels_and_teacher_in_equal_parts(finished):
    *_, trainings, _ = finished
    task = taught_by(trainings[-1])
    labels = torch.nn.functional.one_hot(task.setup.train.labels, 3)
    torch.testing.assert_close(task.targets, (labels + trainings[-1].evaluations["train"].probabilities) / 2)
    images, targets = next(iter(task.train_batches(1)))
    assert images.shape == (8, 3, 32, 32) and targets.shape == (8, 3)


def test_the_teachers_time_is_part_of_the_taught_cnns(finished, quick_costs):
    teacher = finished[3][-1]
    taught = train(taught_by(teacher))
    assert taught.costs["teacher_seconds"] == teacher.costs["total_training_seconds"] > 0
    assert taught.costs["total_training_seconds"] == (
        taught.costs["training_seconds"] + taught.costs["teacher_seconds"]
    )
    assert taught.task.runs.name == "cnn_taught"


def test_another_teacher_is_another_experiment(finished):
    teacher = finished[3][-1]
    other = dataclasses.replace(teacher, evaluations={"train": finished[3][1].evaluations["train"]})
    assert experiment.settings_of(taught_by(teacher)) != experiment.settings_of(taught_by(other))


def test_flip_averaging_is_the_mean_of_both_views_and_blind_to_the_side(finished):
    *_, trainings, test = finished
    training = trainings[0]
    mirrored = dataclasses.replace(test, images=test.images.flip(3))
    both = evaluate_both_ways(training, test)
    views = [judge(training, split).test.probabilities for split in (test, mirrored)]
    torch.testing.assert_close(both.probabilities, sum(views) / 2)
    torch.testing.assert_close(both.probabilities, evaluate_both_ways(training, mirrored).probabilities)
    assert both.accuracy == float((both.probabilities.argmax(1) == test.labels).double().mean())


# ---- classes that are rare


def test_class_weights_are_the_inverse_of_a_classs_share(make_smoke_config, toy_folder):
    for path in sorted((toy_folder / "train" / "colour_2").iterdir())[10:]:
        path.unlink()
    setup = prepare(make_smoke_config(class_weights=True))
    counts = torch.tensor(list(setup.train.counts().values()))
    for task in (CNNTask(setup, "tuned"), ProbeTask(setup)):
        weights = task.recipe(task.model)["class_weights"]
        torch.testing.assert_close(weights, len(setup.train) / (3 * counts))
    few = dataclasses.replace(setup, train=setup.train.part_of(torch.arange(30)))  # of the first class alone
    assert CNNTask(few, "tuned").class_weights().tolist() == [1, 0, 0]
    plain = ProbeTask(prepare(make_smoke_config()))
    assert plain.recipe(plain.model)["class_weights"] is None and plain.settings() != task.settings()


# ---- same config, same numbers


@pytest.mark.parametrize("name", TASKS)
def test_the_same_config_gives_the_same_numbers_in_another_folder(make_smoke_config, tmp_path, quick_costs, name):
    trainings = []
    for where in ("one", "two"):
        make_toy_folder(tmp_path / where / "toy")
        places = {"data_dir": str(tmp_path / where / "toy"), "output_dir": str(tmp_path / where)}
        trainings.append(train(start(make_smoke_config(**SMALL, **places), name)))
    one, two = trainings
    pd.testing.assert_frame_equal(numbers(one.history), numbers(two.history), check_exact=True)
    test = load_test(one.task.setup.config)
    probabilities = [judge(training, test).test.probabilities for training in trainings]
    assert torch.equal(*probabilities)


@pytest.mark.parametrize("name", TASKS)
def test_an_interrupted_training_ends_like_an_uninterrupted_one(
    make_smoke_config, tmp_path, quick_costs, monkeypatch, name
):
    whole = train(start(make_smoke_config(**SMALL), name))
    config = make_smoke_config(**SMALL, output_dir=str(tmp_path / "cut"))

    def fail_in_epoch_2(line):
        if "epoch  2/" in str(line):
            raise PowerCut

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(experiment, "print", fail_in_epoch_2, raising=False)
        train(start(config, name))
    continued = train(start(config, name))
    pd.testing.assert_frame_equal(numbers(continued.history), numbers(whole.history), check_exact=True)
    assert same(weights(continued), weights(whole))
    assert continued.costs["operator_calls"] == whole.costs["operator_calls"]


def test_another_config_starts_afresh(make_smoke_config, quick_costs, monkeypatch, capsys):
    first = train(start(make_smoke_config(**SMALL), "cnn"))
    capsys.readouterr()
    other = train(start(make_smoke_config(**SMALL, seed=1), "cnn"))
    said = capsys.readouterr().out
    assert "starting afresh" in said and "trace of 2 steps" in said
    assert other.history["epoch"].tolist() == [1, 2, 3]
    assert other.history["train_loss"].tolist() != first.history["train_loss"].tolist()
    measured = json.loads(read_sealed(other.task.runs / "state" / "costs"))["costs"]
    assert measured == {name: other.costs[name] for name in measured}


@pytest.mark.parametrize("name", TASKS)
def test_the_same_task_trained_again_starts_from_its_first_weights(make_smoke_config, quick_costs, monkeypatch, name):
    """A notebook's cell that is run again after Ctrl-C in the first epoch, or with fresh=True."""
    task = start(make_smoke_config(**SMALL, fresh=True), name)
    whole = train(task)
    expected = {key: value.clone() for key, value in weights(whole).items()}
    real = task.train_batches

    def stop_in_the_middle(epoch):
        yield next(iter(real(epoch)))
        raise KeyboardInterrupt

    task.train_batches = stop_in_the_middle
    with pytest.raises(KeyboardInterrupt):
        train(task)
    task.train_batches = real
    again = train(task)
    pd.testing.assert_frame_equal(numbers(again.history), numbers(whole.history), check_exact=True)
    assert same(weights(again), expected)


def test_going_back_to_the_first_config_leaves_no_logs_of_the_second(make_smoke_config, quick_costs, monkeypatch):
    first = train(start(make_smoke_config(**SMALL), "cnn"))
    other = start(make_smoke_config(**SMALL, seed=1), "cnn")
    other.train_batches = lambda epoch: 1 / 0  # stopped in its first epoch
    with pytest.raises(ZeroDivisionError):
        train(other)
    again = train(start(make_smoke_config(**SMALL), "cnn"))
    pd.testing.assert_frame_equal(numbers(again.history), numbers(first.history), check_exact=True)
    events = EventAccumulator(str(again.task.runs / "logs" / "train"), size_guidance={"scalars": 0})
    events.Reload()
    logged = [(event.step, event.value) for event in events.Scalars("loss")]
    assert logged == [(step, pytest.approx(loss)) for step, loss in first.history[["epoch", "train_loss"]].to_numpy()]


def test_fresh_forgets_what_is_on_disk(make_smoke_config, quick_costs, capsys):
    first = train(start(make_smoke_config(**SMALL), "cnn"))
    capsys.readouterr()
    again = train(start(make_smoke_config(**SMALL, fresh=True), "cnn"))
    said = capsys.readouterr().out
    assert "trace of 2 steps" in said and "epoch  1/3" in said and "continuing" not in said
    pd.testing.assert_frame_equal(numbers(again.history), numbers(first.history), check_exact=True)


def test_only_what_a_model_depends_on_makes_it_start_afresh(make_smoke_config):
    """Another learning rate of the probe is no reason to train the CNN again."""
    plain = {name: experiment.settings_of(start(make_smoke_config(**SMALL), name)) for name in ("cnn", "vit")}
    for changed, affected in (
        ({"probe_lr": 0.5}, {"vit"}),
        ({"probe_epochs": 4}, {"vit"}),
        ({"cnn_epochs": 4}, {"cnn"}),
        ({"fresh": True, "study_images": 20, "seeds": 2, "backup_dir": "b"}, set()),
        ({"seed": 1}, {"cnn", "vit"}),
    ):
        config = make_smoke_config(**{**SMALL, **changed})
        other = {name: experiment.settings_of(start(config, name)) for name in ("cnn", "vit")}
        assert {name for name in plain if other[name] != plain[name]} == affected, changed


def test_another_recipe_of_the_same_name_makes_it_start_afresh(make_smoke_config, monkeypatch):
    config = make_smoke_config(**SMALL)
    before = experiment.settings_of(start(config, "cnn"))
    monkeypatch.setitem(tasks.RECIPES, "tuned", dataclasses.replace(tasks.RECIPES["tuned"], lr=1.0))
    assert checkpoint.changes(before, experiment.settings_of(start(config, "cnn"))) == "lr: 0.006, now 1.0"


def refuse(*args):
    raise AssertionError("this is on disk already")


def test_results_that_were_deleted_are_written_again_without_training(make_smoke_config, quick_costs, monkeypatch):
    first = train(start(make_smoke_config(**SMALL), "cnn"))
    shutil.rmtree(first.task.setup.config.results_path)
    for repeated in ("trace_training", "measure_costs"):
        monkeypatch.setattr(experiment, repeated, refuse)
    task = start(make_smoke_config(**SMALL), "cnn")
    task.train_batches = refuse
    again = train(task)
    pd.testing.assert_frame_equal(again.history, first.history)
    pd.testing.assert_frame_equal(again.operators, first.operators)
    assert (again.task.results / "operators.csv").is_file()


def test_a_damaged_state_is_said_and_made_anew(make_smoke_config, quick_costs, capsys):
    first = train(start(make_smoke_config(**SMALL), "cnn"))
    state = first.task.runs / "state"
    (state / "costs").write_bytes((state / "costs").read_bytes().replace(b"99395", b"99396"))
    (state / "checkpoint.pt").write_bytes(b"?" + (state / "checkpoint.pt").read_bytes()[1:])
    capsys.readouterr()
    again = train(start(make_smoke_config(**SMALL), "cnn"))
    said = capsys.readouterr().out
    for name in ("costs", "checkpoint.pt"):
        assert f"The file {name} is damaged: it is made anew." in said
    pd.testing.assert_frame_equal(numbers(again.history), numbers(first.history), check_exact=True)


def test_costs_are_those_of_the_training_that_is_reported(make_smoke_config, quick_costs):
    """Also where its checkpoint was lost and it was trained again."""
    first = train(start(make_smoke_config(**SMALL), "cnn"))
    (first.task.runs / "state" / "checkpoint.pt").unlink()
    again = train(start(make_smoke_config(**SMALL), "cnn"))
    seconds = again.history["elapsed_seconds"].iloc[-1]
    assert seconds != first.history["elapsed_seconds"].iloc[-1]
    assert again.costs["training_seconds"] == again.costs["total_training_seconds"] == seconds
    assert again.costs["loop_images_per_second"] == pytest.approx(3 * len(again.task.setup.train) / seconds)


@pytest.mark.parametrize("other", [{"torch_threads": 7}, {"packages": {"timm": "0"}}, {"device": "another processor"}])
def test_another_machine_or_version_is_another_training(make_smoke_config, quick_costs, other, capsys):
    setup = prepare(make_smoke_config(**SMALL))
    train(CNNTask(setup, "tuned"))
    packages = setup.environment["packages"] | other.get("packages", {})
    elsewhere = dataclasses.replace(setup, environment=setup.environment | other | {"packages": packages})
    assert len(train(CNNTask(elsewhere, "tuned")).history) == 3
    assert "starting afresh: what is on disk was made with other settings" in capsys.readouterr().out


def test_features_of_validation_images_are_no_training_time(make_smoke_config, quick_costs):
    task = start(make_smoke_config(**SMALL), "vit")
    assert train(task).costs["extraction_seconds"] == task.features(task.setup.train).seconds


# ---- the scale of features


@pytest.mark.parametrize("factor", [0.01, 0.1, 10.0])
@pytest.mark.parametrize("pooling", ["cls", "layers"])
def test_a_probe_does_not_depend_on_the_scale_of_its_features(make_smoke_config, pooling, factor):
    setup = prepare(make_smoke_config(**SMALL))
    accuracies, encoder = [], ProbeTask(setup).encoder
    for scale in (1.0, factor):
        task = ProbeTask(setup, pooling, encoder)
        for split in (setup.train, setup.val):
            features = task.features(split)
            task.use_features(split, dataclasses.replace(features, values=features.values * scale + 5 * scale))
        (val,) = studies.train_only(task)
        accuracies.append(val.probabilities)
    torch.testing.assert_close(*accuracies, rtol=0, atol=2e-3)


def test_a_channel_that_is_silent_in_training_does_no_harm(make_smoke_config):
    setup = prepare(make_smoke_config(**SMALL))
    task = ProbeTask(setup, "layers")
    for split in (setup.train, setup.val):
        features = task.features(split)
        values = features.values.clone()
        values[:, 7] = 0.0 if split is setup.train else 0.5
        task.use_features(split, dataclasses.replace(features, values=values))
    (val,) = studies.train_only(task)
    assert val.loss < 1.0  # of three colours; with a deviation of nearly nothing it was in the thousands


# ---- the test set


def test_training_needs_no_test_image(make_smoke_config, toy_folder, quick_costs):
    # Not `smoke`: that profile writes its toy images anew.
    config = dataclasses.replace(make_smoke_config(**SMALL), profile="quick")
    task = start(config, "cnn")
    shutil.rmtree(toy_folder / "test")
    shutil.rmtree(config.cache_path)
    assert len(train(task).history) == 3
