"""The ONNX file gives PyTorch's probabilities for raw pixels, or there is none."""

import json
from types import SimpleNamespace

import pytest
import torch
from conftest import MODELS, SMALL, make_run

from hw1_utils.deploy import export
from hw1_utils.deploy.export import export_onnx
from hw1_utils.deploy.saved import load_model, save_model
from hw1_utils.errors import Hw1Error
from hw1_utils.experiment import load, load_test

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def data(make_smoke_config):
    return load(make_smoke_config(**SMALL))


def saved_model(data, name):
    """One that was not trained, but whose probabilities differ from image to image."""
    run = make_run(data, name)
    head = run.model.head if name == "cnn" else run.model
    with torch.no_grad():
        head.weight.mul_(1 if name == "vit_blocks" else 20)
    return load_model(save_model(SimpleNamespace(run=run, model=run.model), {}), torch.device("cpu"))


@pytest.mark.parametrize("name", MODELS)
def test_the_file_does_it_all_by_itself_for_any_batch_size(data, tmp_path, capfd, name):
    model, images = saved_model(data, name), load_test(data).images.values
    with torch.inference_mode():
        expected = model.module(images).softmax(1)
    assert expected.std(0).max() > 0.1  # else any file would do
    capfd.readouterr()
    report = export_onnx(model, tmp_path / "onnx" / "model.onnx")
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in report.path.parent.iterdir()] == ["model.onnx"]  # weights inside
    assert report.same == report.images and report.difference < export.TOLERANCE

    session = onnxruntime.InferenceSession(report.path)
    for count in (1, 5, len(images)):
        probabilities, logits = session.run(["probabilities", "logits"], {"images": images[:count].numpy()})
        torch.testing.assert_close(torch.tensor(probabilities), expected[:count], rtol=0, atol=2e-3)
        torch.testing.assert_close(torch.tensor(logits).softmax(1), torch.tensor(probabilities))
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == model.classes and json.loads(about["hw1"]) == model.info


def test_hard_edges_are_resized_as_torch_does(data):
    """Where bicubic interpolation overshoots, it matters that grey levels end at 0 and 255 after each pass."""
    probe = saved_model(data, "vit").module
    images = export.pictures(32)
    graph = export.PixelProbe(probe, 32)
    graph.probe = torch.nn.Identity()
    off = (graph(images) - probe.encoder.preprocess(images)).abs() * probe.encoder.std.view(3, 1, 1) * 255
    assert off.max() < 2.5 and (off > 0.5).float().mean() < 0.01  # grey levels


def test_a_file_that_computes_something_else_is_not_kept(data, tmp_path, monkeypatch):
    def doubled(self, images):
        logits = 2 * self.module(images)
        return logits.softmax(1), logits

    path = tmp_path / "models" / "model.onnx"
    path.parent.mkdir()
    path.write_text("an earlier one")
    monkeypatch.setattr(export.WithProbabilities, "forward", doubled)
    with pytest.raises(Hw1Error, match="other probabilities than PyTorch"):
        export_onnx(saved_model(data, "cnn"), path)
    assert path.read_text() == "an earlier one" and list(path.parent.iterdir()) == [path]


def test_what_the_exporter_cannot_translate_is_said_in_a_sentence(data, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("No decomposition for aten.magic\n" + "a page of advice\n" * 60)

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(Hw1Error, match="CNN, tuned recipe to ONNX .No decomposition for aten.magic.") as caught:
        export_onnx(saved_model(data, "cnn"), tmp_path / "model.onnx")
    assert "advice" not in str(caught.value) and not (tmp_path / "model.onnx").exists()


def test_a_batch_size_that_the_exporter_fixes_is_no_success(data, tmp_path, monkeypatch):
    model = saved_model(data, "cnn")
    real = type(model.module).forward

    def only_pairs(self, images):  # to the tracer
        return real(self, images.reshape(2, 3, 32, 32) if torch.compiler.is_exporting() else images)

    monkeypatch.setattr(type(model.module), "forward", only_pairs)
    with pytest.raises(Hw1Error, match="cannot export CNN, tuned recipe to ONNX .*invalid dimensions"):
        export_onnx(model, tmp_path / "models" / "model.onnx")
    assert list((tmp_path / "models").iterdir()) == []


def test_missing_packages_are_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name != "onnx" else name)
    with pytest.raises(Hw1Error, match="pip install onnxscript onnxruntime"):
        export_onnx(None, tmp_path / "model.onnx")
