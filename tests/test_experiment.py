"""The whole story on a toy folder: what is on disk afterwards, and that the same config gives the same numbers."""

import dataclasses
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import MODELS, SMALL, PowerCut, cut, load_toy, make_run, numbers, refuse, same, start, watched, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hw1_utils import experiment, features, models
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import class_weights, cnn, evaluate_on_test, load, load_test, probe, train
from hw1_utils.features import extract
from hw1_utils.io import checkpoint, pixels
from hw1_utils.io.arrays import Rows
from hw1_utils.io.toy import make_toy_folder
from hw1_utils.models import load_encoders
from hw1_utils.optim import RECIPES

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, one_thread):
    """(results on test of each of `MODELS` by its name, the test images)."""
    data = load_toy(tmp_path_factory.mktemp("finished"))
    trained = [train(make_run(data, name)) for name in MODELS]
    test = load_test(data)
    return {one.run.name: evaluate_on_test(one, test) for one in trained}, test


def logged(run, part, name="loss"):
    events = EventAccumulator(str(run.folder / "logs" / part), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


# ---- one run, looked at


@pytest.mark.parametrize("name", MODELS)
def test_a_training_learns_and_logs_what_its_history_says(finished, name):
    result = finished[0][name]
    run, history = result.run, result.trained.history
    assert history["epoch"].tolist() == [1, 2, 3] and result.test.accuracy > 0.8  # three colours
    for part in ("train", "val"):
        expected = history[["epoch", f"{part}_loss"]].to_numpy()
        assert logged(run, part) == [(step, pytest.approx(loss)) for step, loss in expected]


def test_seconds_of_features_are_part_of_a_probes_and_those_of_validation_images_are_not(finished):
    spent = {name: result.trained.seconds for name, result in finished[0].items()}
    for name, result in finished[0].items():
        history, features = result.trained.history, result.run.features
        assert spent[name]["training_seconds"] == history["elapsed_seconds"].iloc[-1]
        assert spent[name]["extraction_seconds"] == (features.train.seconds if features else 0)
        assert spent[name]["extraction_timed_images"] == (108 if features else 0)
        assert spent[name]["total_training_seconds"] == (
            spent[name]["training_seconds"] + spent[name]["extraction_seconds"]
        )
    assert spent["vit"]["extraction_seconds"] == spent["vit_blocks"]["extraction_seconds"] > 0


def test_the_last_row_of_the_history_is_the_model_that_is_judged(finished):
    """For the CNN, the moving average."""
    for result in finished[0].values():
        val, last = result.trained.val, result.trained.history.iloc[-1]
        assert (val.loss, val.accuracy) == pytest.approx((last["val_loss"], last["val_accuracy"]), rel=1e-6)


def test_test_evaluation_sees_every_image_in_order(finished):
    results, test = finished
    for result in results.values():
        assert torch.equal(result.test.labels, test.labels)
        assert torch.allclose(result.test.probabilities.sum(1), torch.ones(len(test)), atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_finished_training_is_used_not_repeated(finished, name):
    before = finished[0][name].trained
    again = train(watched(make_run(before.run.data, name), refuse))
    pd.testing.assert_frame_equal(again.history, before.history)  # to the second
    assert again.seconds == before.seconds and same(weights(again), weights(before))


@pytest.mark.parametrize("name", MODELS)
def test_a_trained_model_works_on_raw_images_as_it_does_on_its_samples(finished, name):
    result, test = finished[0][name], finished[1]
    images = result.run.from_pixels.samples.transform(test.images.values, None)
    probabilities = result.run.from_pixels.assemble(result.trained.model)(images).softmax(1)
    torch.testing.assert_close(probabilities, result.test.probabilities, rtol=0, atol=2e-2)  # bf16, other batches


# ---- making a run


def test_making_a_run_takes_no_work(make_smoke_config, monkeypatch):
    """What takes long is a function that is called: `load`, `extract`, `train`, `measure`."""
    data = load(make_smoke_config(**SMALL))
    (encoder,) = load_encoders(data.context)
    extracted = extract(encoder, data)
    for module, name in ((features, "compute"), (experiment, "decode"), (pixels, "decode"), (experiment, "fit")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(models.FrozenEncoder, "forward", refuse)
    for run in (cnn(data), cnn(data, "assignment", seed=1), probe(extracted), probe(extracted, "blocks", seed=1)):
        few = data.subset(12, seed=0)
        part = cnn(few, run.variant) if run.kind == "cnn" else probe(extracted.subset(12, seed=0), run.variant)
        for one in (run, part):
            one.depends_on()
            assert (one.image_size, len(one.train), len(one.val)) == (32, len(one.data.train), 12)
            assert len(list(one.train.batches(one.batch_size, 1))) == -(-len(one.train) // one.batch_size)
            assert sum(len(targets) for _, targets in one.val.in_order()) == 12


@pytest.mark.parametrize("headline", ["tuned", "short", "assignment"])
def test_the_headline_is_called_cnn_and_every_recipe_has_a_name_and_a_title(make_smoke_config, headline):
    data = load(make_smoke_config(**SMALL, cnn_recipe=headline))
    uniform = torch.full((len(data.train), 3), 1 / 3)
    teacher = SimpleNamespace(train=SimpleNamespace(probabilities=uniform), seconds={"total_training_seconds": 1.0})
    runs = {name: cnn(data, name, teacher=teacher if name == "distilled" else None) for name in RECIPES}
    assert [recipe for recipe, run in runs.items() if run.name == "cnn"] == [headline]
    assert len({run.title for run in runs.values()}) == len({run.name for run in runs.values()}) == len(RECIPES)
    epochs = 3 if headline == "tuned" else data.context.config.short_epochs
    assert runs["distilled"].epochs == runs[headline].epochs == epochs
    # But for its teacher it is the recipe that has these epochs, from the same start.
    starts = {name: run.model.conv1.weight for name, run in runs.items()}
    assert torch.equal(starts["distilled"], starts["tuned" if headline == "tuned" else "short"])
    assert torch.equal(starts["tuned"], starts["assignment"]) and not torch.equal(starts["short"], starts["tuned"])


@pytest.mark.parametrize("recipe", ["distilled", "tuned", "tunned"])
def test_a_recipe_that_does_not_exist_or_wants_or_has_no_teacher_is_refused(finished, recipe):
    teacher = finished[0]["vit"].trained if recipe == "tuned" else None
    with pytest.raises(Hw1Error, match=f"{recipe}"):
        cnn(finished[0]["cnn"].run.data, recipe, teacher=teacher)


def test_a_part_of_the_images_has_its_own_rows_of_the_features(finished):
    run = finished[0]["vit_blocks"].run
    few = run.data.subset(12, seed=0)
    part, rows = probe(run.features.subset(12, seed=0), "blocks"), few.train.images.index
    assert torch.equal(torch.cat([part.train.inputs[:5], part.train.inputs[5:12]]), run.train.inputs[rows])
    assert torch.equal(part.train.targets, run.train.targets[rows])
    assert torch.equal(part.from_pixels.samples.inputs[:12], run.from_pixels.samples.inputs[rows])
    assert part.depends_on() != run.depends_on()


def test_a_split_has_its_own_features_whatever_it_is_called(finished):
    (run, test) = finished[0]["vit"].run, finished[1]
    for name in ("train", "val", "test"):
        samples = run.samples(dataclasses.replace(test, name=name))
        rows = features.extract_split(run.features.encoder, test, run.data).rows
        assert torch.equal(samples.inputs[:], rows[:][:, : run.model.in_features])


# ---- a CNN that learns from the probe


def test_a_distilled_cnn_learns_from_labels_and_teacher_in_equal_parts(finished):
    teacher = finished[0]["vit_blocks"].trained
    run = cnn(teacher.run.data, "distilled", teacher=teacher)
    labels = torch.nn.functional.one_hot(run.data.train.labels, 3)
    torch.testing.assert_close(run.train.targets, (labels + teacher.train.probabilities) / 2)
    images, targets = next(iter(run.train.batches(run.batch_size, 1)))
    assert images.shape == (8, 3, 32, 32) and targets.shape == (8, 3)
    other = cnn(teacher.run.data, "distilled", teacher=finished[0]["vit"].trained)
    assert other.depends_on() != run.depends_on()  # another teacher is another training


def test_the_teachers_time_is_part_of_the_distilled_cnns(finished):
    teacher = finished[0]["vit_blocks"].trained
    trained = train(cnn(teacher.run.data, "distilled", teacher=teacher))
    seconds = trained.seconds
    assert seconds["teacher_seconds"] == teacher.seconds["total_training_seconds"] > 0
    assert seconds["total_training_seconds"] == seconds["training_seconds"] + seconds["teacher_seconds"]
    assert trained.run.folder.name == "cnn_distilled"
    assert torch.equal(trained.train.labels, trained.run.data.train.labels)  # judged by what is true


# ---- classes that are rare


def test_class_weights_are_the_inverse_of_a_classs_share(make_smoke_config, toy_folder):
    for path in sorted((toy_folder / "train" / "colour_2").iterdir())[10:]:
        path.unlink()
    data = load(make_smoke_config(class_weights=True))
    counts = torch.tensor(list(data.train.counts().values()))
    runs = [make_run(data, name) for name in ("cnn", "vit")]
    for run in runs:
        found = run.optimization(run.model).class_weights
        torch.testing.assert_close(found, len(data.train) / (3 * counts))
    assert class_weights(data.train.subset(torch.arange(30))).tolist() == [1, 0, 0]  # of the first class alone
    plain = start(make_smoke_config(), "vit")
    assert plain.optimization(plain.model).class_weights is None and plain.depends_on() != runs[1].depends_on()


# ---- same config, same numbers


@pytest.mark.parametrize("name", MODELS)
def test_the_same_config_gives_the_same_numbers_in_another_folder(make_smoke_config, tmp_path, name):
    results = []
    for where in ("one", "two"):
        make_toy_folder(tmp_path / where / "toy")
        places = {"data_dir": str(tmp_path / where / "toy"), "output_dir": str(tmp_path / where)}
        trained = train(start(make_smoke_config(**SMALL, **places), name))
        results.append(evaluate_on_test(trained, load_test(trained.run.data)))
    one, two = results
    pd.testing.assert_frame_equal(numbers(one.trained.history), numbers(two.trained.history), check_exact=True)
    assert torch.equal(one.test.probabilities, two.test.probabilities)


@pytest.mark.parametrize("name", MODELS)
def test_an_interrupted_training_ends_like_an_uninterrupted_one(make_smoke_config, tmp_path, name):
    whole = train(start(make_smoke_config(**SMALL), name))
    config, epochs = make_smoke_config(**SMALL, output_dir=str(tmp_path / "cut")), set()
    with pytest.raises(PowerCut):
        train(watched(start(config, name), cut(2)))
    continued = train(watched(start(config, name), epochs.add))
    assert epochs == {2, 3}
    pd.testing.assert_frame_equal(numbers(continued.history), numbers(whole.history), check_exact=True)
    assert same(weights(continued), weights(whole))


def test_another_config_starts_afresh(make_smoke_config, capsys):
    first = train(start(make_smoke_config(**SMALL)))
    other = train(start(make_smoke_config(**SMALL, seed=1)))
    assert "starting afresh" in capsys.readouterr().out
    assert other.history["epoch"].tolist() == [1, 2, 3]
    assert other.history["train_loss"].tolist() != first.history["train_loss"].tolist()


@pytest.mark.parametrize("name", MODELS)
def test_a_run_is_never_changed_by_its_training(make_smoke_config, name):
    """A notebook's cell that is run again, after Ctrl-C in the first epoch or with fresh=True, starts as it did."""
    run = start(make_smoke_config(**SMALL, fresh=True), name)
    states = run.model.state_dict() | run.from_pixels.model.state_dict()
    before = {key: value.clone() for key, value in states.items()}
    whole = train(run)
    with pytest.raises(KeyboardInterrupt):
        train(watched(run, cut(1, KeyboardInterrupt)))
    again = train(run)
    pd.testing.assert_frame_equal(numbers(again.history), numbers(whole.history), check_exact=True)
    assert same(weights(again), weights(whole)) and not same(weights(again), run.model.state_dict())
    assert same(run.model.state_dict() | run.from_pixels.model.state_dict(), before)


def test_going_back_to_the_first_config_leaves_no_logs_of_the_second(make_smoke_config):
    first = train(start(make_smoke_config(**SMALL)))
    with pytest.raises(PowerCut):
        train(watched(start(make_smoke_config(**SMALL, seed=1)), cut(1)))
    again = train(start(make_smoke_config(**SMALL)))
    pd.testing.assert_frame_equal(numbers(again.history), numbers(first.history), check_exact=True)
    expected = first.history[["epoch", "train_loss"]].to_numpy()
    assert logged(again.run, "train") == [(step, pytest.approx(loss)) for step, loss in expected]


def test_fresh_forgets_what_is_on_disk(make_smoke_config):
    first, epochs = train(start(make_smoke_config(**SMALL))), set()
    again = train(watched(start(make_smoke_config(**SMALL, fresh=True)), epochs.add))
    assert epochs == {1, 2, 3}
    pd.testing.assert_frame_equal(numbers(again.history), numbers(first.history), check_exact=True)


def test_only_what_a_model_depends_on_makes_it_start_afresh(make_smoke_config):
    """Another learning rate of the probe is no reason to train the CNN again."""
    plain = {name: start(make_smoke_config(**SMALL), name).depends_on() for name in ("cnn", "vit")}
    for changed, affected in (
        ({"probe_lr": 0.5}, {"vit"}),
        ({"probe_epochs": 4}, {"vit"}),
        ({"cnn_epochs": 4}, {"cnn"}),
        ({"fresh": True, "study_images": 20, "seeds": 2, "backup_dir": "b"}, set()),
        ({"seed": 1}, {"cnn", "vit"}),
    ):
        config = make_smoke_config(**{**SMALL, **changed})
        other = {name: start(config, name).depends_on() for name in ("cnn", "vit")}
        assert {name for name in plain if other[name] != plain[name]} == affected, changed


def test_another_recipe_of_the_same_name_makes_it_start_afresh(make_smoke_config, monkeypatch):
    data = load(make_smoke_config(**SMALL))
    before = cnn(data).depends_on()
    monkeypatch.setitem(experiment.RECIPES, "tuned", dataclasses.replace(RECIPES["tuned"], lr=1.0))
    assert checkpoint.changes(before, cnn(data).depends_on()) == "lr: 0.006, now 1.0"


def test_a_damaged_checkpoint_is_said_and_made_anew(make_smoke_config, capsys):
    first = train(start(make_smoke_config(**SMALL)))
    file = first.run.folder / "state" / "checkpoint.safetensors"
    file.write_bytes(b"?" + file.read_bytes()[1:])
    again = train(start(make_smoke_config(**SMALL)))
    assert "The file checkpoint.safetensors is damaged: it is made anew." in capsys.readouterr().out
    pd.testing.assert_frame_equal(numbers(again.history), numbers(first.history), check_exact=True)


def test_seconds_are_those_of_the_training_that_is_reported(make_smoke_config):
    """Also where its checkpoint was lost and it was trained again."""
    first = train(start(make_smoke_config(**SMALL)))
    (first.run.folder / "state" / "checkpoint.safetensors").unlink()
    again = train(start(make_smoke_config(**SMALL)))
    seconds = again.history["elapsed_seconds"].iloc[-1]
    assert seconds != first.history["elapsed_seconds"].iloc[-1]
    assert again.seconds["training_seconds"] == again.seconds["total_training_seconds"] == seconds
    assert again.seconds["loop_images_per_second"] == pytest.approx(3 * len(again.run.train) / seconds)


@pytest.mark.parametrize("other", [{"torch_threads": 7}, {"packages": {"timm": "0"}}, {"device": "another processor"}])
def test_another_machine_or_version_is_another_training(make_smoke_config, other, capsys):
    data = load(make_smoke_config(**SMALL))
    train(cnn(data))
    machine = data.context.environment
    machine = machine | other | {"packages": machine["packages"] | other.get("packages", {})}
    elsewhere = dataclasses.replace(data, context=dataclasses.replace(data.context, environment=machine))
    assert len(train(cnn(elsewhere)).history) == 3
    assert "starting afresh: what is on disk was made with other settings" in capsys.readouterr().out


# ---- the scale of features


def scaled(found, change):
    """Features whose values `change` has gone over, given them and whether they are those to train on."""
    train, val = (Rows(change(part.rows.values.clone(), part is found.train)) for part in (found.train, found.val))
    parts = {"train": dataclasses.replace(found.train, rows=train), "val": dataclasses.replace(found.val, rows=val)}
    return dataclasses.replace(found, **parts)


@pytest.mark.parametrize("factor", [0.01, 0.1, 10.0])
@pytest.mark.parametrize("pooling", ["cls", "blocks"])
def test_a_probe_does_not_depend_on_the_scale_of_its_features(finished, tmp_path, pooling, factor):
    found = finished[0]["vit"].run.features
    runs = [probe(scaled(found, lambda x, _, by=by: x * by + 5 * by), pooling) for by in (1.0, factor)]
    both = [train(elsewhere(run, tmp_path / f"{i}")).val.probabilities for i, run in enumerate(runs)]
    torch.testing.assert_close(*both, rtol=0, atol=2e-3)


def test_a_channel_that_is_silent_in_training_does_no_harm(finished, tmp_path):
    def silence(values, in_training):
        values[:, 7] = 0.0 if in_training else 0.5
        return values

    run = probe(scaled(finished[0]["vit"].run.features, silence), "blocks")
    # Of three colours; where the deviation was nearly nothing, in the thousands.
    assert train(elsewhere(run, tmp_path)).val.loss < 1.0


def elsewhere(run, folder):
    """The run, writing to another folder: what is on disk does not know that its features are others."""
    config = dataclasses.replace(run.context.config, output_dir=str(folder))
    context = dataclasses.replace(run.context, config=config)
    return dataclasses.replace(run, data=dataclasses.replace(run.data, context=context))


# ---- the test set


def test_training_needs_no_test_image(make_smoke_config, toy_folder):
    # Not `smoke`: that profile writes its toy images anew.
    run = start(dataclasses.replace(make_smoke_config(**SMALL), profile="quick"))
    shutil.rmtree(toy_folder / "test")
    shutil.rmtree(run.context.config.cache_path)
    assert len(train(run).history) == 3
