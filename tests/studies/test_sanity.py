"""The sanity check: what it says of pictures that no model can learn, and of those that this one does not."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import same
from PIL import Image

from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import cnn, load
from hw1_utils.io.toy import make_toy_folder
from hw1_utils.models import FrozenEncoder, load_encoders
from hw1_utils.studies import sanity

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(toy_folder):
    """30 training images a class: all of those that validation leaves are in the check."""
    for file in toy_folder.glob("train/*/*"):
        if int(file.stem) >= 30:
            file.unlink()
    return toy_folder


def put(folder, pixels, name, where):
    for part in where:
        Image.fromarray(pixels).save(folder / "train" / part / name)


def check(config, probes=True):
    """Of the CNN and, if asked for, of both probes. The run's own encoder, features and room are left alone."""
    data = load(config)
    left = data.context.room.left
    sanity.sanity_check(data, load_encoders(data.context) if probes else ())
    assert data.context.room.left == left and not data.context.computed
    assert not list(config.cache_path.glob("features-*"))


@pytest.fixture
def red(folder):
    with Image.open(next(folder.glob("train/colour_0/*"))) as image:
        return np.asarray(image)


LEARNT = r"(?m)^(.*): (\d) batches, accuracy 1.0 after \d+ pass(?:es)?$"


def test_all_models_learn_three_batches_and_say_so(make_smoke_config, capsys):
    check(make_smoke_config(encoder="test_vit,test_efficientnet"))
    titles, batches = zip(*re.findall(LEARNT, capsys.readouterr().out), strict=True)
    probes = ["probe, class token (test_vit)", "probe, 4 blocks (test_vit)", "probe (test_efficientnet)"]
    assert list(titles) == ["CNN, tuned recipe", *probes] and set(batches) == {"3"}


def test_what_learns_by_heart_is_a_copy(make_smoke_config):
    data = sanity.three_batches(load(make_smoke_config()))
    run = cnn(data)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    assert sanity.learn_by_heart(run)[-1]["val_accuracy"] == 1.0 and len(data.train) == 96
    assert same(run.model.state_dict(), before)


def test_what_is_streamed_is_learnt_in_as_many_passes(make_smoke_config, tmp_path, capsys):
    for memory_mb in (None, 0):
        check(make_smoke_config(memory_mb=memory_mb, output_dir=str(tmp_path / f"{memory_mb}")))
    said = [line for line in capsys.readouterr().out.splitlines() if " batches, accuracy " in line]
    assert len(said) == 6 and said[:3] == said[3:]


def test_one_picture_in_several_classes_is_named_and_the_run_goes_on(make_smoke_config, folder, red, capsys):
    put(folder, 255 - red, "all.png", ["colour_0", "colour_1", "colour_2"])
    put(folder, 250 - red // 2, "both.png", ["colour_0", "colour_1"])
    check(make_smoke_config(val_size=3))
    said = capsys.readouterr().out
    assert "WARNING: the same picture lies in several classes" in said
    for name, parts in (("all.png", (0, 1, 2)), ("both.png", (0, 1))):
        assert all(f"train/colour_{part}/{name}" in said for part in parts)
    assert len(re.findall(LEARNT, said)) == 3  # all others


def test_pictures_that_are_all_alike_are_no_matter_of_labels(make_smoke_config, folder, capsys):
    for file in folder.glob("train/*/*"):
        Image.new("RGB", (32, 32)).save(file)
    with pytest.raises(Hw1Error, match="Sanity check: 87 of 87 pictures are alike"):
        check(make_smoke_config(val_size=3))
    check(make_smoke_config(val_size=3, sanity_check="warn"))
    said = capsys.readouterr().out
    assert "WARNING: Sanity check: 87 of 87" in said and "passes" not in said


def fails_on(monkeypatch, rows_of):
    """The check as if the model could not learn the rows that `rows_of(inputs, labels)` gives."""

    original = sanity.overfit_check

    def overfit(model, batches, **options):
        history, end = original(model, batches, **options)
        probabilities = end.probabilities.clone()
        for row in rows_of(torch.cat([inputs for inputs, _ in batches]), end.labels):
            probabilities[row] = probabilities[row].roll(1)
        return history, replace(end, probabilities=probabilities)

    monkeypatch.setattr(sanity, "overfit_check", overfit)


def test_a_picture_that_is_not_learnt_is_named(make_smoke_config, folder, monkeypatch, capsys):
    fails_on(monkeypatch, lambda inputs, labels: [5])
    named = r"gets 1 of these very images wrong: train/(colour_\d)/\d+\.png \(in \1, taken for colour_\d\); .*'warn'"
    with pytest.raises(Hw1Error, match=named):
        check(make_smoke_config(val_size=3), probes=False)
    check(make_smoke_config(val_size=3, sanity_check="warn", seed=1), probes=False)
    assert "WARNING: Sanity check: after" in capsys.readouterr().out


def near_copies(inputs, labels):
    apart = torch.cdist(inputs.flatten(1), inputs.flatten(1), p=1)
    apart[labels[:, None] == labels] = torch.inf
    return divmod(int(apart.argmin()), len(labels))


def test_near_copies_that_are_not_learnt_are_no_reason_to_stop(make_smoke_config, folder, red, monkeypatch, capsys):
    put(folder, red.clip(0, 253) + 2, "saved_again.png", ["colour_1"])
    fails_on(monkeypatch, near_copies)
    check(make_smoke_config(val_size=3), probes=False)
    said = capsys.readouterr().out
    assert "gets 2 of these very images wrong" in said and "near copies of them lie in other classes" in said


def test_many_near_copies_are_no_excuse_for_a_model_that_is_blind(make_smoke_config, folder, monkeypatch):
    """Pictures that differ in a detail only, as those of a production line do."""
    for i, file in enumerate(folder.glob("train/*/*")):
        pixels = np.full((32, 32, 3), 100, np.uint8)
        pixels[i % 30, (i // 30) * 10] = 255
        Image.fromarray(pixels).save(file)
    fails_on(monkeypatch, lambda inputs, labels: range(40))
    with pytest.raises(Hw1Error, match="of these very images wrong"):
        check(make_smoke_config(val_size=3), probes=False)


def test_a_check_that_diverges_is_a_check_that_failed(make_smoke_config, monkeypatch, folder, capsys):
    def diverge(*args, **options):
        raise Hw1Error("The loss is nan at step 1 of epoch 1: training diverged.")

    monkeypatch.setattr(sanity, "overfit_check", diverge)
    with pytest.raises(Hw1Error, match=r"^Sanity check: The loss is nan"):
        check(make_smoke_config(val_size=3), probes=False)
    check(make_smoke_config(val_size=3, sanity_check="warn"))
    assert capsys.readouterr().out.count("WARNING: Sanity check: The loss is nan") == 3


def test_features_that_overflow_are_said_as_such(make_smoke_config):
    data = load(make_smoke_config(precision="fp16", sanity_check="warn", train_size=6, val_size=3))
    (encoder,) = load_encoders(data.context)
    encoder.backbone.norm.weight.fill_(6e4)
    with pytest.raises(Hw1Error, match=r"^test_vit \[\w+\] gives features that are not finite numbers"):
        sanity.sanity_check(data, [encoder])


def test_a_gpu_that_holds_only_small_batches_is_enough(make_smoke_config, monkeypatch):
    def at_most_8(self, images):
        if len(images) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return real(self, images)

    real = FrozenEncoder.forward
    monkeypatch.setattr(FrozenEncoder, "forward", at_most_8)
    check(make_smoke_config(extract_batch_size=8))


def test_an_encoder_sees_photographs_at_its_own_size(make_smoke_config, tmp_path, monkeypatch):
    make_toy_folder(tmp_path / "photos", size=100, train=40, test=2)
    seen = []
    real = FrozenEncoder.forward
    monkeypatch.setattr(FrozenEncoder, "forward", lambda self, images: seen.append(images.shape) or real(self, images))
    check(make_smoke_config(data_dir=str(tmp_path / "photos")))
    assert {shape[-1] for shape in seen} == {100} and sum(shape[0] for shape in seen) == 96
