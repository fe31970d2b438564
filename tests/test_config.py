"""One Config: what is refused and in which words, profiles, environment variables, the encoder a file chooses."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch

from hw1_utils import config as config_module
from hw1_utils.app.cli import parse
from hw1_utils.config import ROOT, STUDIES, Config, make_config
from hw1_utils.errors import Hw1Error


def refusal(*args, **overrides) -> str:
    with pytest.raises(Hw1Error) as caught:
        make_config(*args, **overrides)
    return str(caught.value)


def test_unknown_field_gets_the_nearest_name():
    assert refusal("quick", probe_lrr=0.1) == "Config has no field 'probe_lrr': did you mean 'probe_lr'?"


def test_unknown_field_like_no_other_gets_the_list():
    sentence = refusal("quick", zzz=1)
    assert sentence.startswith("Config has no field 'zzz': the fields are profile, seed, ")
    assert sentence.endswith("backup_dir.")


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("seed", "zero", "Config.seed must be int, not 'zero' (str)."),
        ("seed", True, "Config.seed must be int, not True (bool)."),
        ("seed", 1.5, "Config.seed must be int, not 1.5 (float)."),
        ("seed", "1.5", "Config.seed must be int, not 1.5 (float)."),
        ("seed", "none", "Config.seed must be int, not 'none' (str)."),
        ("seed", "inf", "Config.seed must be int, not inf (float)."),
        ("probe_lr", False, "Config.probe_lr must be float, not False (bool)."),
        ("probe_lr", "1e", "Config.probe_lr must be float, not '1e' (str)."),
        ("fresh", 2, "Config.fresh must be bool, not 2 (int)."),
        ("fresh", "perhaps", "Config.fresh must be bool, not 'perhaps' (str)."),
        ("encoder", None, "Config.encoder must be str, not None (NoneType)."),
        ("encoder", " , ", "Config.encoder must name a timm model, not ','."),
        ("weights", 7, "Config.weights must be str | None, not 7 (int)."),
        ("train_size", 5000.5, "Config.train_size must be int | None, not 5000.5 (float)."),
        ("train_size", True, "Config.train_size must be int | None, not True (bool)."),
        ("device", "gpu", "Config.device must be one of auto, cpu, cuda, not 'gpu'."),
        ("precision", "fp8", "Config.precision must be one of auto, bf16, fp16, fp32, not 'fp8'."),
        ("cnn_recipe", "best", "Config.cnn_recipe must be one of assignment, tuned, short, not 'best'."),
        ("seed", -1, "Config.seed must be at least 0, not -1."),
        ("seed", 2**32, "Config.seed must be at most 4294966272, not 4294967296."),
        ("image_size", 2000, "Config.image_size must be at most 1024, not 2000."),
        ("data_dir", "/", "Config.data_dir must be the path of a file or folder, not '/'."),
        ("output_dir", "a\0b", "Config.output_dir must be the path of a file or folder, not 'a\\x00b'."),
        (
            "backup_dir",
            "~nobody-here/x",
            "Config.backup_dir must be the path of a file or folder, not '~nobody-here/x'.",
        ),
        ("probe_lr", float("inf"), "Config.probe_lr must be at most 1000.0, not inf."),
        ("skip_unreadable", None, "Config.skip_unreadable must be bool, not None (NoneType)."),
        ("image_size", 7, "Config.image_size must be at least 8, not 7."),
        ("val_size", 1, "Config.val_size must be at least 2, not 1."),
        ("cnn_epochs", 0, "Config.cnn_epochs must be at least 1, not 0."),
        ("probe_batch_size", 0, "Config.probe_batch_size must be at least 1, not 0."),
        ("probe_lr", -1e-9, "Config.probe_lr must be at least 0.0, not -1e-09."),
        ("probe_weight_decay", float("nan"), "Config.probe_weight_decay must be at least 0.0, not nan."),
    ],
)
def test_wrong_types_and_ranges_are_refused_in_these_words(field, value, sentence):
    assert refusal("quick", **{field: value}) == sentence
    with pytest.raises(Hw1Error):
        Config(**{field: value})  # built directly, it is checked all the same


def from_command_line(monkeypatch, field, text):
    return make_config("quick", **parse(["data", f"--{field.replace('_', '-')}={text}"]).settings)


def from_json(monkeypatch, field, text):
    monkeypatch.setenv("HW1_OVERRIDES", json.dumps({field: text}))
    return make_config("quick")


def from_variable(monkeypatch, field, text):
    name = {"data_dir": "HW1_DATA", "weights": "HW1_WEIGHTS", "encoder": "HW1_ENCODER"}.get(field)
    if name is None:
        return from_json(monkeypatch, field, text)
    monkeypatch.setenv(name, text)
    return make_config("quick")


@pytest.mark.parametrize(
    "source",
    [
        from_command_line,
        from_json,
        from_variable,
        lambda _, field, text: make_config("quick", **{field: text}),
        lambda _, field, text: Config(**{field: text}),
    ],
    ids=["command line", "json", "variable", "overrides", "Config"],
)
@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        *[("weights", text, None) for text in ("none", "None", "NONE", " none ")],
        ("weights", "Random", "random"),
        ("weights", "007", "007"),
        ("train_size", "none", None),
        ("device", "CPU", "cpu"),
        ("precision", "BF16", "bf16"),
        ("train_size", "1_000", 1000),
        ("seed", "5", 5),
        ("seed", "5.0", 5),
        ("seed", "1e3", 1000),
        ("probe_lr", ".001", 0.001),
        ("probe_lr", "1e-3", 0.001),
        ("fresh", "YES", True),
        ("fresh", "1", True),
        ("fresh", "off", False),
        ("data_dir", "2024", "2024"),
        ("data_dir", "none", "none"),
        ("data_dir", "random", "random"),
        ("encoders", " test_vit,, resnet18 , test_vit", ["test_vit", "resnet18"]),
        ("encoders", "", ["vit_tiny_patch16_224"]),
        ("data_dir", " ", "data/cifar10"),
        ("weights", "", None),
        ("probe_epochs", "", 30),
    ],
)
def test_text_is_read_the_same_wherever_it_comes_from(monkeypatch, source, field, text, value):
    monkeypatch.chdir(ROOT)
    found = getattr(source(monkeypatch, field.replace("encoders", "encoder"), text), field)
    if isinstance(found, str) and os.path.isabs(found):
        found = os.path.relpath(found)  # the command line's paths start where it was given
    assert found == value and type(found) is type(value)


def test_an_empty_value_leaves_the_profiles_own():
    assert make_config("quick", cnn_batch_size="", output_dir=" ").as_dict() == make_config("quick").as_dict()


def test_numbers_and_paths_of_python_will_do():
    config = make_config("quick", seed=5.0, fresh=1, data_dir=Path("photos") / "2024")
    assert (config.seed, config.fresh, config.data_dir) == (5, True, "photos/2024")


@pytest.mark.parametrize(
    "spelling", ["data/cifar10/", "./data/cifar10", "data/../data//cifar10", str(ROOT / "data/cifar10"), "link"]
)
def test_cifar10_is_cifar10_however_it_is_spelt(tmp_path, monkeypatch, spelling):
    if spelling == "link":
        (tmp_path / "link").symlink_to(ROOT / "data/cifar10", target_is_directory=True)
        spelling = str(tmp_path / "link")
    config = make_config("quick", data_dir=spelling)
    assert config.is_cifar10 and not config.own_images
    monkeypatch.chdir(ROOT / "tests")
    assert make_config("quick", **parse(["data", "--data", "../data/cifar10"]).settings).is_cifar10


def test_other_folders_are_somebodys_own(tmp_path):
    assert make_config("quick", data_dir="data/cifar100").own_images
    assert make_config("quick", data_dir=str(tmp_path / "cifar10")).own_images
    assert make_config("smoke", data_dir="outputs/smoke/toy/").is_toy


@pytest.mark.parametrize("name", ["output_dir", "backup_dir"])
@pytest.mark.parametrize("inside", ["photos", "photos/my_run", "link/my_run"])
def test_what_is_written_must_not_lie_among_the_data(tmp_path, name, inside):
    """It would be a class or a part of it, and the run would find that out after its training."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    for data in ("photos", "link"):
        sentence = refusal("quick", data_dir=tmp_path / data, **{name: tmp_path / inside})
        assert sentence.startswith(f"{name} {tmp_path / inside}")
        assert sentence.endswith(f" lies in the data folder {tmp_path / data}: choose one outside of it.")
    make_config("quick", data_dir=tmp_path / "photos", **{name: tmp_path / "photos.out"})
    assert list((tmp_path / "photos").iterdir()) == []


def test_the_profile_is_no_override(monkeypatch):
    monkeypatch.setenv("HW1_OVERRIDES", '{"profile": "smoke"}')
    assert refusal("quick").startswith("The profile is no override")
    assert make_config("smoke").profile == "smoke"


def test_an_int_serves_as_a_float_and_none_as_no_limit():
    config = make_config("quick", probe_lr=0, train_size=None)
    assert (config.probe_lr, config.train_size) == (0, None)


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_config("quick").seed = 1


def test_unknown_profile():
    assert refusal("fast") == "There is no profile 'fast': choose auto, full, quick, smoke."


@pytest.mark.parametrize(
    ("profile", "sizes", "output"),
    [("full", (None, None, None), "."), ("quick", (5000, 1000, 2000), "outputs/quick")],
)
def test_profiles_have_their_sizes_and_places(profile, sizes, output):
    config = make_config(profile)
    assert (config.train_size, config.val_size, config.test_size) == sizes
    assert config.data_path == ROOT / "data/cifar10" and config.cache_path == ROOT / "data/cifar10.cache"
    assert config.runs_path == ROOT / output / "runs" and config.results_path == ROOT / output / "results"


def test_absolute_places_are_taken_as_they_are(tmp_path):
    config = make_config("quick", data_dir=str(tmp_path / "pets"), output_dir=str(tmp_path / "out"))
    assert config.data_path == tmp_path / "pets" and config.cache_path == tmp_path / "pets.cache"
    assert config.results_path == tmp_path / "out" / "results"


@pytest.mark.parametrize(("device", "profile"), [("cpu", "quick"), ("cuda", "full")])
def test_auto_is_full_with_a_gpu_and_quick_without(monkeypatch, device, profile):
    monkeypatch.setattr(config_module, "find_device", lambda: torch.device(device))
    assert make_config().profile == make_config("auto").profile == profile


def test_environment_chooses_the_profile_unless_one_is_named(monkeypatch):
    monkeypatch.setenv("HW1_PROFILE", " Smoke ")
    assert make_config().profile == make_config("auto").profile == "smoke"
    assert make_config("full").profile == "full"
    monkeypatch.setenv("HW1_PROFILE", "fast")
    assert refusal() == "There is no profile 'fast': choose auto, full, quick, smoke."
    monkeypatch.setenv("HW1_PROFILE", "")  # as Make exports a variable that is not set
    assert make_config().profile in ("full", "quick")


@pytest.fixture
def variables(monkeypatch):
    monkeypatch.setenv("HW1_DATA", "pets")
    monkeypatch.setenv("HW1_WEIGHTS", "mine.safetensors")
    monkeypatch.setenv("HW1_ENCODER", "resnet18")


def test_any_field_may_come_from_the_environment_as_json(monkeypatch):
    monkeypatch.setenv("HW1_OVERRIDES", '{"seed": 4, "cnn_epochs": 7}')
    config = make_config("smoke", seed=5)
    assert (config.seed, config.cnn_epochs) == (5, 7)
    monkeypatch.setenv("HW1_OVERRIDES", " ")
    assert make_config("smoke").seed == 0
    for text in ("seed=4", "[1]", "7", '[["seed", 1]]'):
        monkeypatch.setenv("HW1_OVERRIDES", text)
        assert refusal("quick").startswith("HW1_OVERRIDES must be a JSON object such as")


def test_environment_fills_in_and_overrides_win(variables):
    config = make_config("quick")
    assert (config.data_dir, config.weights, config.encoder) == ("pets", "mine.safetensors", "resnet18")
    config = make_config("quick", data_dir="cars", weights="random", encoder="resnet34")
    assert (config.data_dir, config.weights, config.encoder) == ("cars", "random", "resnet34")


def test_smoke_reads_none_of_them(variables):
    config = make_config("smoke")
    assert (config.data_dir, config.weights) == ("outputs/smoke/toy", "random")
    assert config.encoder == "test_vit"


def test_empty_variables_count_as_unset(monkeypatch):
    for name in ("HW1_DATA", "HW1_WEIGHTS", "HW1_ENCODER"):
        monkeypatch.setenv(name, "")
    config = make_config("quick")
    assert (config.data_dir, config.weights, config.encoder) == ("data/cifar10", None, "vit_tiny_patch16_224")


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "deit_tiny_patch16_224.fb_in1k"])
def test_a_weights_file_named_after_a_model_chooses_the_encoder(name):
    assert make_config("quick", weights=f"/some/where/{name}.pth").encoder == name


def test_a_weights_file_with_any_other_name_leaves_the_encoder():
    assert make_config("quick", weights="model.safetensors").encoder == "vit_tiny_patch16_224"


@pytest.mark.parametrize("encoder", ["deit_tiny_patch16_224", "deit_tiny_patch16_224.fb_in1k"])
def test_a_weights_file_of_the_encoder_asked_for_is_fine(encoder):
    assert make_config("quick", weights="deit_tiny_patch16_224.safetensors", encoder=encoder).encoder == encoder


def test_a_weights_file_of_another_model_is_refused(monkeypatch):
    sentence = (
        "The weights file deit_tiny_patch16_224.safetensors is named after deit_tiny_patch16_224, but the encoder "
        "asked for is vit_tiny_patch16_224: set both to the same model, or rename the file if its name is wrong."
    )
    weights = "w/deit_tiny_patch16_224.safetensors"
    assert refusal("quick", weights=weights, encoder="vit_tiny_patch16_224") == sentence
    monkeypatch.setenv("HW1_WEIGHTS", weights)
    monkeypatch.setenv("HW1_ENCODER", "vit_tiny_patch16_224")
    assert refusal("quick") == sentence


@pytest.mark.parametrize(
    ("studies", "asked"),
    [
        ("all", list(STUDIES)),
        (" None ", []),
        ("", [name for name in STUDIES if name != "recipes"]),
        ("auto", [name for name in STUDIES if name != "recipes"]),
        ("seeds, Flips,seeds", ["seeds", "flips"]),
    ],
)
def test_further_questions_are_all_none_or_named(studies, asked):
    assert make_config("quick", studies=studies).asked == asked


def test_a_question_that_there_is_not_is_refused():
    assert refusal("quick", studies="seeds, rain").startswith(
        "Config.studies has no rain: choose auto, all, none, or of blocks"
    )


def test_as_dict_gives_back_the_same_config():
    config = make_config("quick", seed=3)
    assert Config(**config.as_dict()) == config


def test_an_archive_or_a_table_is_the_data_and_its_folder_holds_the_images(tmp_path):
    config = make_config("quick", data_dir=str(tmp_path / "photos.TAR.gz"))
    assert config.data_source == tmp_path / "photos.TAR.gz" and config.cache_path == tmp_path / "photos.TAR.gz.cache"
    assert config.data_path.parent.parent == config.cache_path and config.data_path.name == "photos"
    config = make_config("quick", data_dir=str(tmp_path / "train.csv"), output_dir=str(tmp_path / "out"))
    assert config.data_path == tmp_path and config.cache_path == tmp_path / "train.csv.cache"  # out/ is no class there
    folder = make_config("quick", data_dir=str(tmp_path / "photos"))
    assert folder.data_source == folder.data_path and not (folder.is_archive or folder.is_table)


def test_a_pattern_of_groups_is_checked_at_once_unless_it_may_be_a_column(tmp_path):
    assert "must say in one pair of parentheses" in refusal("quick", groups="patient")
    assert "is no regular expression" in refusal("quick", groups="(")
    assert make_config("quick", groups="patient", data_dir=str(tmp_path / "a.csv")).groups == "patient"
    assert make_config("quick", groups=" none ").groups is None
