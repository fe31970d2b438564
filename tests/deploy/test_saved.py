"""A saved model says what the run said, without anything the run had; what is no such file is said in a sentence."""

import dataclasses
import errno
import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from conftest import MODELS, SMALL, make_run
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save

from hw1_utils.config import make_config
from hw1_utils.deploy import saved
from hw1_utils.deploy.saved import find_images, load_model, predict, save_model, save_models
from hw1_utils.deploy.unsure import promise
from hw1_utils.device import Precision
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import cnn, evaluate_on_test, load, load_test, train
from hw1_utils.io.files import sha256_tensors, write_checked
from hw1_utils.io.toy import make_toy_folder
from hw1_utils.selective import Confidences

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory, one_thread):
    """Three models trained, judged and saved; then nothing is left but their files and copies of the test pictures."""
    root = tmp_path_factory.mktemp("run")
    make_toy_folder(root / "toy", size=48)  # the probes take larger images than the CNN
    shutil.copytree(root / "toy" / "test", root / "pictures" / "test")
    places = {"data_dir": str(root / "toy"), "output_dir": str(root / "out")}
    data = load(make_config("smoke", **(SMALL | places | {"precision": "fp32"})))
    trained = [train(make_run(data, name)) for name in MODELS]
    test = load_test(data)
    results = [evaluate_on_test(one, test) for one in trained]
    paths = save_models(results)
    files = [str(root / "pictures" / path) for path in test.paths]
    for gone in ("toy", "toy.cache", "out/runs"):
        shutil.rmtree(root / gone)
    by_name = {name: SimpleNamespace(path=p, result=r) for name, p, r in zip(MODELS, paths, results, strict=True)}
    return SimpleNamespace(root=root, data=data, files=files, **by_name)


def untrained(run):
    return SimpleNamespace(run=run, model=run.model)


def changed(data, folder, **context):
    """The data of a run that writes to another folder."""
    config = dataclasses.replace(data.context.config, output_dir=str(folder))
    return dataclasses.replace(data, context=dataclasses.replace(data.context, config=config, **context))


@pytest.fixture
def copy(run, tmp_path):
    """The CNN's file, to be changed."""
    return Path(shutil.copy(run.cnn.path, tmp_path / "copy.safetensors"))


@pytest.mark.parametrize("name", MODELS)
def test_predictions_for_the_test_files_are_those_of_the_run(run, name):
    result = getattr(run, name).result
    table = predict(load_model(getattr(run, name).path, CPU), run.files, batch_size=7)
    columns = [f"p_{label}" for label in result.run.data.classes]
    assert table.columns.tolist() == ["path", "prediction", "probability", *columns, "error"]
    assert table["path"].tolist() == run.files
    assert table["prediction"].tolist() == [result.run.data.classes[i] for i in result.test.guesses]
    found = torch.tensor(table[columns].to_numpy(), dtype=torch.float32)
    torch.testing.assert_close(found, result.test.probabilities, rtol=0, atol=1e-5)
    assert table["probability"].tolist() == table[columns].max(axis=1).tolist()
    assert table["error"].isna().all()


@pytest.mark.parametrize("name", MODELS)
def test_the_file_says_what_it_is_and_where_it_comes_from(run, name):
    path, result = getattr(run, name).path, getattr(run, name).result
    assert path == run.root / "out" / "models" / f"{name}.safetensors"
    model = load_model(path, CPU)
    assert (model.title, model.classes) == (result.run.title, ["colour_0", "colour_1", "colour_2"])
    assert model.image_size == (32 if name == "cnn" else 48)
    assert model.info["config"]["cnn_epochs"] == 3 and model.info["environment"] == run.data.context.environment
    assert model.info["test"] == {"test_images": 30} | result.quality
    assert ("encoder" in model.info) == (name != "cnn")
    assert not model.module.training and not any(p.requires_grad for p in model.module.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_the_file_names_no_folder_of_this_machine(run, name):
    assert str(run.root).encode() not in getattr(run, name).path.read_bytes()


def test_an_encoder_that_computes_in_bf16_is_saved_in_float32(run, tmp_path):
    half = make_run(changed(run.data, tmp_path, precision=Precision("bf16")), "vit")
    path = save_model(untrained(half), {})
    with safe_open(path, framework="pt") as f:
        assert {f.get_tensor(name).dtype for name in f.keys()} == {torch.float32}  # noqa: SIM118 (not a dict)
    images = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8)
    logits = load_model(path, CPU).module(images)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, half.from_pixels.assemble(half.model)(images), rtol=0, atol=0.1)


def test_preprocessing_is_the_files_and_not_that_of_the_installed_timm(run, tmp_path):
    probe = make_run(changed(run.data, tmp_path), "vit")
    encoder = probe.features.encoder
    encoder.mean, encoder.std, encoder.interpolation = torch.tensor([0.1, 0.2, 0.3]), torch.ones(3), "bilinear"
    loaded = load_model(save_model(untrained(probe), {}), CPU)
    images = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8)
    assert torch.equal(loaded.module(images), probe.from_pixels.assemble(probe.model)(images))


def test_a_file_that_cannot_be_read_has_a_row_that_says_so(run, tmp_path):
    text, missing = tmp_path / "text.png", tmp_path / "missing.png"
    text.write_text("no picture")
    model = load_model(run.cnn.path, CPU)
    table = predict(model, [run.files[0], str(text), str(missing), run.files[1]], batch_size=2)
    good = table.drop(index=[1, 2]).reset_index(drop=True)
    assert good.equals(predict(model, run.files[:2]))
    assert table["error"].tolist()[1:3] == ["not an image", "No such file or directory"]
    assert table.loc[1:2, "prediction":"p_colour_2"].isna().all(axis=None)


def test_the_range_of_grey_levels_goes_with_the_model(run, tmp_path):
    data = changed(run.data, tmp_path)
    part = dataclasses.replace(data.train, levels={"I;16": (0, 4095), "F": (0.0, 1.0)})
    model = load_model(save_model(untrained(cnn(dataclasses.replace(data, train=part))), {}), CPU)
    with Image.open(run.files[0]) as image:
        grey = image.convert("L")
    values, paths = (
        np.asarray(grey, dtype=np.float32) / 255,
        [str(tmp_path / name) for name in ("8.png", "16.png", "f")],
    )
    for path, kind in zip(paths, (grey, (values * 4095).round().astype(np.uint16), values), strict=True):
        (kind if kind is grey else Image.fromarray(kind)).save(path, format="TIFF" if path.endswith("f") else "PNG")
    table = predict(model, paths)
    assert table["error"].isna().all() and np.ptp(table["p_colour_0"]) < 1e-3
    before = dataclasses.replace(model, info={k: v for k, v in model.info.items() if k != "levels"})  # an older file's
    assert predict(before, paths)["error"].tolist()[2] == "levels of unknown range: save it with 8 bits"


# ---- a target accuracy


@pytest.fixture
def sure(run):
    """The CNN, as if it had been right on 200 validation images, those apart of which it was less than half sure."""
    confidence = np.linspace(0.2, 1, 200, dtype=np.float32)
    known = {"val": Confidences(confidence, confidence >= 0.5), "test": Confidences(confidence[:9], np.arange(9) < 6)}
    return dataclasses.replace(load_model(run.cnn.path, CPU), known=known)


@pytest.mark.parametrize("name", MODELS)
def test_the_file_knows_how_sure_the_model_was_of_validation_and_test(run, name):
    model, result = load_model(getattr(run, name).path, CPU), getattr(run, name).result
    for part, of in (("val", result.trained.val), ("test", result.test)):
        assert np.array_equal(model.known[part].confidence, of.probabilities.max(1).values.numpy())
        assert np.array_equal(model.known[part].right, of.guesses == of.labels.numpy())


def test_what_is_not_sure_enough_is_marked(run, sure, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    files = [*run.files, str(tmp_path / "bad.png")]
    plain, marked = predict(sure, files), predict(sure, files, target_accuracy=0.9)
    kept = promise(sure, 0.9)
    assert 0.4 < kept.threshold <= 0.5 and marked.drop(columns="unsure").equals(plain)
    assert marked["unsure"].tolist()[:-1] == [p < kept.threshold for p in plain["probability"][:-1]]
    assert marked["unsure"].iloc[-1] is None and marked.columns.tolist()[2:4] == ["probability", "unsure"]
    answered, right = sure.known["val"].answered(kept.threshold)
    assert kept.known["val"] == {"images": 200, "answered": answered, "right": right}
    assert f"Answered are {answered:,} of 200 validation images, {right / answered:.1%} of them rightly" in str(kept)
    assert str(kept).endswith("and 0 of 9 test images.") and f"{kept.threshold:.3f}" in str(kept)


def test_a_low_target_leaves_nothing_unsure(run, sure):
    assert not predict(sure, run.files, target_accuracy=0.3)["unsure"].any()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (
            0.999,
            r"cannot promise that 0.999 of its answers are right: that takes 2,995 validation images at least, and",
        ),
        (95, "lies between 0 and 1, as 0.95 for 95 %, not 95"),
        (1.0, "lies between 0 and 1"),
        (0.0, "lies between 0 and 1"),
        (float("nan"), "lies between 0 and 1"),
    ],
)
def test_a_target_that_cannot_be_promised_is_one_sentence(run, sure, target, said):
    with pytest.raises(Hw1Error, match=said):
        predict(sure, run.files, target_accuracy=target)


def test_a_model_that_is_wrong_where_it_is_sure_promises_nothing(sure):
    known = {"val": Confidences(sure.known["val"].confidence, ~sure.known["val"].right)}
    with pytest.raises(Hw1Error, match="not even the images that it is surest of, of its 200 validation images"):
        promise(dataclasses.replace(sure, known=known), 0.9)


# ---- which files


def test_folders_are_searched_in_order_and_what_is_left_out_by_its_name_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    junk = ["b/.hidden.png", "b/.cache/y.png", "b/Thumbs.db", "b/@eaDir/2.JPG", "b/__MACOSX/z.png"]
    for name in ("b/2.JPG", "b/10.png", "b/9.heic", "b/IMG_0001", "a/deep/x.webp", "b/n.txt", "b/paper.PDF", *junk):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    pictures, others = ["b/10.png", "b/2.JPG", "b/9.heic", "b/IMG_0001"], ["b/n.txt", "b/paper.PDF"]
    Path("none").mkdir()
    assert find_images(["b"]) == (pictures, others, [])
    assert find_images(["no.png", "b/n.txt", "none", "."]) == (
        ["no.png", "b/n.txt", "a/deep/x.webp", *pictures],
        others,
        ["none"],
    )


def test_pictures_below_a_hidden_folder_that_was_asked_for_are_found(tmp_path):
    (tmp_path / ".mine").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / ".mine" / "a.png")
    assert find_images([str(tmp_path / ".mine")]) == ([str(tmp_path / ".mine" / "a.png")], [], [])


@pytest.mark.parametrize(("what", "said"), [("", "folder is empty"), (".", "no image in [.]")])
def test_nothing_to_classify_is_an_error(tmp_path, monkeypatch, what, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Hw1Error, match=said):
        find_images([what])


# ---- files that are none


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: flip(content, -100), "is damaged"),  # in a tensor
        (lambda content: content.replace(b"tuned recipe", b"tuned_recipe"), "is damaged"),  # in what is said of it
        (lambda content: content[:-1], "no safetensors file, or a damaged one"),
        (lambda content: b"", "no safetensors file, or a damaged one"),
        (lambda content: b"<html>Sign in to download</html>", "no safetensors file, or a damaged one"),
    ],
)
def test_a_damaged_file_is_refused(copy, change, said):
    copy.write_bytes(change(copy.read_bytes()))
    with pytest.raises(Hw1Error, match=said):
        load_model(copy, CPU)


def test_a_missing_file_and_somebody_elses_are_refused(tmp_path):
    with pytest.raises(Hw1Error, match="There is no model file"):
        load_model(tmp_path / "cnn.safetensors", CPU)
    other = tmp_path / "other.safetensors"
    other.write_bytes(save({"weight": torch.zeros(3)}))
    with pytest.raises(Hw1Error, match="no model of this project"):
        load_model(other, CPU)


def test_a_file_from_a_newer_version_is_refused(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(saved, "FORMAT", saved.FORMAT + 1)
        path = save_model(untrained(cnn(changed(run.data, tmp_path))), {})
    with pytest.raises(Hw1Error, match="newer version"):
        load_model(path, CPU)


def write_old(path, info, tensors):
    """As formats 1 and 2 were written."""
    text = json.dumps(info)
    digest = hashlib.sha256(f"{text} {sha256_tensors(tensors)}".encode()).hexdigest()
    path.write_bytes(save(tensors, {"hw1": text, "sha256": digest}))


def test_a_file_of_format_2_is_read_and_its_checksum_verified(run, tmp_path):
    path, (info, tensors) = tmp_path / "old.safetensors", contents(run.cnn.path)
    write_old(path, info | {"format": 2}, tensors)
    old, new = (load_model(file, CPU).module.state_dict() for file in (path, run.cnn.path))
    assert all(torch.equal(old[name], new[name]) for name in new)
    path.write_bytes(flip(path.read_bytes(), -100))
    with pytest.raises(Hw1Error, match="is damaged"):
        load_model(path, CPU)


def contents(path):
    with safe_open(path, framework="pt") as f:
        return json.loads(f.metadata()["hw1"]), {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118


def test_a_file_of_format_3_is_read_and_says_that_it_cannot_promise(run, tmp_path):
    path, (info, tensors) = tmp_path / "old.safetensors", contents(run.cnn.path)
    for name in [name for name in tensors if name.startswith(("val.", "test."))]:
        del tensors[name]
    write_checked(path, tensors, {"hw1": json.dumps(info | {"format": 3})})
    model = load_model(path, CPU)
    assert predict(model, run.files[:2]).equals(predict(load_model(run.cnn.path, CPU), run.files[:2]))
    with pytest.raises(Hw1Error, match="does not hold how sure it was on validation"):
        predict(model, run.files[:2], target_accuracy=0.9)


def test_a_head_on_standardised_features_of_format_1_is_read_as_the_linear_layer_that_it_is(run, tmp_path):
    info, tensors = contents(run.vit_blocks.path)
    assert info["format"] == saved.FORMAT
    mean, deviation = torch.randn(tensors["head.weight"].shape[1]), torch.full((1,), 2.0)
    old = tensors | {"head.mean": mean, "head.std": deviation}
    old["head.weight"] = tensors["head.weight"] * deviation
    old["head.bias"] = tensors["head.bias"] + tensors["head.weight"] @ mean
    path = tmp_path / "old.safetensors"
    write_old(path, info | {"format": 1}, old)
    for name, tensor in load_model(path, CPU).module.head.state_dict().items():
        torch.testing.assert_close(tensor, tensors[f"head.{name}"])


def test_a_timm_that_builds_another_encoder_under_the_name_is_named(run, monkeypatch):
    real = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **settings: real("test_vit2", **settings))
    with pytest.raises(Hw1Error, match=f"pip install timm=={timm.__version__}"):
        load_model(run.vit.path, CPU)


def test_a_full_disk_leaves_the_file_that_was_there(run, copy, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = run.cnn.path.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Hw1Error, match="No space left on device"):
        save_model(run.cnn.result.trained, {})
    assert run.cnn.path.read_bytes() == before
    assert sorted(path.stem for path in run.cnn.path.parent.iterdir()) == sorted(MODELS)
