"""Every knob, once. `make_config()` reads the profile and the environment; overrides win over both."""

import difflib
import json
import os
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from .device import find_device
from .errors import Hw1Error, some
from .io.weight_files import STAND_IN, SUFFIXES, is_meant, weights_at

ROOT = Path(__file__).resolve().parent.parent  # the repository: relative paths in a Config start here


PATHS = ("data_dir", "output_dir", "backup_dir", "weights")  # the fields of Config that name files or folders

PROFILES: Mapping[str, dict] = {
    "full": {"output_dir": "."},
    "quick": {
        "output_dir": "outputs/quick",
        "train_size": 5000,
        "val_size": 1000,
        "test_size": 2000,
        "cnn_epochs": 40,
        "cnn_batch_size": 64,
        "study_images": 1000,
    },
    "smoke": {
        "output_dir": "outputs/smoke",
        "data_dir": "outputs/smoke/toy",
        "encoder": "test_vit",  # timm's smallest
        "weights": "random",
        "cnn_epochs": 3,
        "short_epochs": 2,
        "probe_epochs": 3,
        "cnn_batch_size": 8,
        "probe_batch_size": 4,
        "extract_batch_size": 32,
        "study_images": 30,
    },
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one run. Frozen and validated: a value out of range or of a wrong type is an Hw1Error.

    Text is read the same way wherever a setting comes from, see `read_setting`.
    """

    profile: str = "full"  # full, quick or smoke; `auto` has been resolved by then
    seed: int = 0  # of the split, the initial weights, the order of batches and the augmentation
    seeds: int | None = None  # trainings of CNN and probe, with seeds counting up; None: 3, of a CNN on a CPU 1
    device: str = "auto"  # auto, cpu or cuda
    precision: str = "auto"  # auto, bf16, fp16 or fp32: of the forward pass
    memory_mb: int | None = None  # for all arrays; what finds no room is streamed from disk; None: half of what is free

    data_dir: str = "data/cifar10"  # an ImageFolder: train/<class>/* and test/<class>/*
    image_size: int = 32  # side S of the square images kept in memory and seen by the CNN
    train_size: int | None = None  # training images; None: all that validation leaves
    val_size: int | None = None  # validation images; None: all of the folder's own val/, else a tenth of train/
    test_size: int | None = None  # test images; None: all

    cnn_recipe: str = "tuned"  # of the headline CNN; taught and, if not it, assignment and short are run beside it
    cnn_epochs: int = 80  # recipe tuned; recipe taught has the headline's epochs
    short_epochs: int = 12  # recipes assignment and short
    cnn_batch_size: int = 256
    class_weights: bool = False  # True: the loss counts rare classes as much as frequent ones (CNN and probe)

    encoder: str = "vit_tiny_patch16_224"  # any timm model with pooled features; several with commas between
    weights: str | None = None  # file, or folder of <encoder>.safetensors; "random": none; None: hub, then stand-in
    extract_batch_size: int = 64  # images per pass through the frozen encoder
    probe_epochs: int = 30
    probe_batch_size: int = 64
    probe_lr: float = 3e-3  # AdamW on standardised features, for pooling cls, to zero by CosineAnnealingLR
    probe_weight_decay: float = 1e-4

    sanity_check: str = "stop"  # where a model does not learn three batches by heart; or warn: say so and go on
    profile_steps: int = 50  # steps in the profiler trace
    study_images: int = 5000  # training images of the input-size study
    fresh: bool = False  # True: start over instead of using finished or interrupted experiments on disk
    skip_unreadable: bool = False  # True: leave out files that are no readable images, naming them; else stop
    output_dir: str = "."  # runs/ and results/ are made in it
    backup_dir: str | None = None  # a second copy of finished work, for example on a mounted Drive

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for f in fields(self):
            value, kind = read_setting(f.name, getattr(self, f.name)), hints[f.name]
            value = f.default if value == "" else value
            object.__setattr__(self, f.name, value)  # frozen, but not yet handed over
            allowed = (int, float) if kind is float else kind
            if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
                wanted = getattr(kind, "__name__", str(kind))
                raise Hw1Error(f"Config.{f.name} must be {wanted}, not {value!r} ({type(value).__name__}).")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise Hw1Error(f"Config.{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}.")
        for name, low in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise Hw1Error(f"Config.{name} must be at least {low}, not {value}.")
        for name, high in _AT_MOST.items():
            if getattr(self, name) > high:
                raise Hw1Error(f"Config.{name} must be at most {high}, not {getattr(self, name)}.")

        for name in PATHS:
            value = getattr(self, name)
            if value is not None and not _is_path(value):
                raise Hw1Error(f"Config.{name} must be the path of a file or folder, not {value!r}.")
        if not self.encoders:
            raise Hw1Error(f"Config.encoder must name a timm model, not {self.encoder!r}.")

    @property
    def encoders(self) -> list[str]:
        """Names of timm models, each once."""
        return list(dict.fromkeys(name.strip() for name in self.encoder.split(",") if name.strip()))

    def for_encoder(self, name: str) -> "Config":
        """The same settings with one of the encoders alone and, of the weights, those that are meant for it.

        Raises:
            Hw1Error: there are none at the place that `weights` names. Nothing else takes their place, but for the
                one encoder whose weights are a package: that may come from there.
        """
        if self.weights_path is None or not os.path.exists(self.weights_path):
            return replace(self, encoder=name)
        files = weights_at(self.weights_path)
        fitting = [(file, named) for file, named in files.items() if named and is_meant(named, name)]
        if len(files) == len(self.encoders) == 1 and None in files.values():
            fitting = [(*files, name)]  # its name says nothing: it is what was asked for
        if not fitting and name.split(".")[0] == STAND_IN:
            return replace(self, encoder=name, weights=None)
        if not fitting:
            there = some(file.name for file in files)
            found = f"it has {there}" if files else f"no file ends in {', '.join(SUFFIXES)}"
            raise Hw1Error(
                f"HW1_WEIGHTS names {self.weights}, which has no weights for {name} ({found}): name the file after "
                f"the model, as in {name}.safetensors, or take the encoder that the weights are of."
            )
        file, named = min(fitting, key=lambda pair: pair[1] != name)  # of several, that with the very name
        return replace(self, encoder=max(named, name, key=len), weights=str(file))  # the name with a tag says more

    @property
    def weights_path(self) -> Path | None:
        """The file or folder that `weights` names."""
        return None if self.weights in (None, "random") else _place(self.weights)

    @property
    def data_path(self) -> Path:
        return _place(self.data_dir)

    @property
    def is_cifar10(self) -> bool:
        """Whether the data is the folder that this package makes itself, however its path is spelt."""
        return self.data_path.resolve() == _place(Config.data_dir).resolve()

    @property
    def is_toy(self) -> bool:
        """Whether the data is the generated folder of the smoke profile."""
        return self.data_path.resolve() == _place(PROFILES["smoke"]["data_dir"]).resolve()

    @property
    def own_images(self) -> bool:
        """Whether the data is somebody's own, neither CIFAR-10 nor the toy folder of the smoke profile."""
        return not (self.is_cifar10 or self.is_toy)

    @property
    def cache_path(self) -> Path:
        """Decoded images and encoder features: beside the data folder, shared by all profiles."""
        return self.data_path.with_name(self.data_path.name + ".cache")

    @property
    def output_path(self) -> Path:
        return _place(self.output_dir)

    @property
    def runs_path(self) -> Path:
        return self.output_path / "runs"

    @property
    def results_path(self) -> Path:
        return self.output_path / "results"

    @property
    def models_path(self) -> Path:
        """Finished models, one file each: see `saved`."""
        return self.output_path / "models"

    @property
    def backup_path(self) -> Path | None:
        """Where this profile's copies go."""
        return _place(self.backup_dir) / self.profile if self.backup_dir else None

    def as_dict(self) -> dict:
        return asdict(self)

    def shown(self) -> dict:
        """All settings, files and folders by their names alone: fit to be kept beside results and shared."""
        names = {f: Path(getattr(self, f)).name or "." for f in PATHS if getattr(self, f) is not None}
        return self.as_dict() | names


def read_setting(name: str, value: object) -> object:
    """A value for a field of Config as it came from the command line, the environment, JSON or Python, understood.

    Text is read as what the field holds: `5`, `5.0` and `1_000` as whole numbers, `.001` and `1e-3` as numbers, `true`,
    `yes`, `on`, `1` and their opposites as truth values, `none` as None where the field may be None, and text as it is
    where it holds text, so that a folder may be called 2024. Space around it does not count, nor does the case of words
    that have a meaning; "" stands for a setting that is not given. What cannot be read stays, for Config to refuse.
    """
    kind = typing.get_type_hints(Config).get(name)
    kinds = typing.get_args(kind) or (kind,)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        value = value.strip()
        if value.lower() == "none" and type(None) in kinds:
            return None
        if name in _CHOICES or (name == "weights" and value.lower() == "random"):
            return value.lower()
    if value is None or value == "" or isinstance(value, bool) or str in kinds:
        return value
    if bool in kinds:
        return _TRUTH.get(str(value).lower(), value)
    return _number(value, whole=int in kinds)


def _number(value: object, whole: bool) -> object:
    if isinstance(value, str):
        for read in (int, float) if whole else (float,):
            with suppress(ValueError):
                value = read(value)
                break
    return int(value) if whole and isinstance(value, float) and value.is_integer() else value


_TRUTH = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)


def _is_path(value: str) -> bool:
    """Whether it can be a path at all: of something with a name, of a home directory that exists."""
    try:
        return value != "" and "\0" not in value and bool(_place(value).name)
    except RuntimeError:
        return False


def _place(path: str) -> Path:
    """The absolute path: relative ones start at the repository; links stay as they are."""
    return Path(os.path.abspath(ROOT / Path(path).expanduser()))


_CHOICES = {
    "profile": tuple(PROFILES),
    "device": ("auto", "cpu", "cuda"),
    "precision": ("auto", "bf16", "fp16", "fp32"),
    "sanity_check": ("stop", "warn"),
    "cnn_recipe": ("assignment", "tuned", "short"),  # what can be trained without a teacher
}
_AT_LEAST = {
    "seed": 0,
    "seeds": 1,
    "image_size": 8,  # three max-pools leave 1×1
    "train_size": 2,
    "val_size": 2,
    "test_size": 2,
    "cnn_epochs": 1,
    "short_epochs": 1,
    "cnn_batch_size": 1,
    "extract_batch_size": 1,
    "probe_epochs": 1,
    "probe_batch_size": 1,
    "probe_lr": 0.0,
    "probe_weight_decay": 0.0,
    "memory_mb": 0,
    "profile_steps": 1,
    "study_images": 2,
}
_AT_MOST = {
    "seed": 2**32 - 2**10,  # scikit-learn's generators take 32 bits; further seeds count up from it
    "image_size": 1024,
    "probe_lr": 1e3,
    "probe_weight_decay": 1e3,
}


def make_config(profile: str = "auto", **overrides: object) -> Config:
    """Build the Config of a run.

    Args:
        profile: full, quick, smoke, or auto (HW1_PROFILE if set; else full with a GPU, quick without).
        **overrides: any field of `Config`; they win over the profile and the environment.

    Environment: HW1_PROFILE; HW1_DATA (data_dir), HW1_WEIGHTS (weights) and HW1_ENCODER (encoder), none of which the
    smoke profile reads; HW1_OVERRIDES, any fields as a JSON object, in which the command line hands on its options.
    What is empty counts as not given, in all of them: a variable that Make exports unset, an option without its value.

    Raises:
        Hw1Error: unknown profile or field (the nearest valid name is given), wrong type or range.
    """
    profile = read_setting("profile", profile)
    if profile in ("", "auto"):
        profile = read_setting("profile", os.environ.get("HW1_PROFILE")) or "auto"
    if profile == "auto":
        profile = "full" if find_device().type == "cuda" else "quick"
    if profile not in PROFILES:
        raise Hw1Error(f"There is no profile {profile!r}: choose auto, {', '.join(PROFILES)}.")
    overrides = overrides_from_environment() | overrides
    known = [f.name for f in fields(Config)]
    for name in overrides:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(known)}."
            raise Hw1Error(f"Config has no field {name!r}: {hint}")
    if overrides.get("profile", profile) != profile:
        raise Hw1Error("The profile is no override: choose it with PROFILE, --profile or HW1_PROFILE.")
    settings = {**PROFILES[profile], "profile": profile}
    if profile != "smoke":
        variables = {"HW1_DATA": "data_dir", "HW1_WEIGHTS": "weights", "HW1_ENCODER": "encoder"}
        settings |= _given({field: os.environ.get(name, "") for name, field in variables.items()})
    return Config(**_encoder_named_by_weights(settings | _given(overrides)))


def _given(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings as they are meant, without those that are empty."""
    read = {name: read_setting(name, value) for name, value in settings.items()}
    return {name: value for name, value in read.items() if value != ""}


def overrides_from_environment() -> dict[str, object]:
    """The fields of Config in HW1_OVERRIDES.

    Raises:
        Hw1Error: it is no JSON object.
    """
    text = os.environ.get("HW1_OVERRIDES", "").strip() or "{}"
    with suppress(ValueError):
        if isinstance(found := json.loads(text), dict):
            return found
    raise Hw1Error(f'HW1_OVERRIDES must be a JSON object such as {{"seed": 1}}, not {text!r}.')


def _encoder_named_by_weights(settings: dict) -> dict:
    """Let weights named after a timm model choose the encoder, unless one was asked for.

    `vit_tiny` and `deit_tiny` share every tensor shape but not the normalisation: loaded under the wrong
    name, a file would fit and quietly give wrong features.

    Raises:
        Hw1Error: they are named after other models than the one that was asked for, or after several.
    """
    weights = settings.get("weights")
    if not isinstance(weights, str) or weights == "random" or not _is_path(weights):
        return settings
    place = _place(weights)
    names = list(dict.fromkeys(name for name in weights_at(place).values() if name))
    if "encoder" in settings:
        asked = [name.strip() for name in str(settings["encoder"]).split(",")]
        if names and not place.is_dir() and not any(is_meant(names[0], name) for name in asked):
            raise Hw1Error(
                f"The weights file {place.name} is named after {names[0]}, but the encoder asked for is "
                f"{settings['encoder']}: set both to the same model, or rename the file if its name is wrong."
            )
    elif len(names) == 1:
        settings["encoder"] = names[0]
    elif names and not any(is_meant(name, Config.encoder) for name in names):
        raise Hw1Error(f"{place} has weights of {some(names)}: choose with HW1_ENCODER, or encoder=, which to use.")
    return settings
