"""Every knob, once. `make_config()` reads the profile and the environment; overrides win over both."""

import difflib
import json
import os
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from .files import Hw1Error
from .runtime import find_device

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
    """The settings of one run. Frozen and validated: a value out of range or of a wrong type is an Hw1Error."""

    profile: str = "full"  # full, quick or smoke; `auto` has been resolved by then
    seed: int = 0  # of the split, the initial weights, the order of batches and the augmentation
    seeds: int | None = None  # trainings of CNN and probe, with seeds counting up; None: 3 on a GPU, else 1
    device: str = "auto"  # auto, cpu or cuda
    precision: str = "auto"  # auto, bf16, fp16 or fp32: of the forward pass
    memory_mb: int | None = None  # larger arrays stay on disk and are streamed; None: a quarter of what is free

    data_dir: str = "data/cifar10"  # an ImageFolder: train/<class>/* and test/<class>/*
    image_size: int = 32  # side S of the square images kept in memory and seen by the CNN
    train_size: int | None = None  # training images; None: all that validation leaves
    val_size: int | None = None  # validation images; None: a tenth of train/
    test_size: int | None = None  # test images; None: all

    cnn_recipe: str = "tuned"  # of the headline CNN; assignment, short and taught are run beside it
    cnn_epochs: int = 80  # recipes tuned and taught
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
            value, kind = getattr(self, f.name), hints[f.name]
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

    @property
    def encoders(self) -> list[str]:
        """Names of timm models, each once."""
        return list(dict.fromkeys(name.strip() for name in self.encoder.split(",")))

    def for_encoder(self, name: str) -> "Config":
        """The same settings with one of the encoders alone and, of the weights, those that are meant for it."""
        if self.weights in (None, "random"):
            return replace(self, encoder=name)
        path = ROOT / Path(self.weights).expanduser()
        files = sorted(path.glob("*")) if path.is_dir() else [path]
        if path.is_dir() or (path.exists() and len(self.encoders) > 1):
            files = [file for file in files if file.suffix in (".safetensors", ".pth") and _meant(file, name)]
        return replace(self, encoder=name, weights=str(files[0]) if files else None)

    @property
    def data_path(self) -> Path:
        return ROOT / Path(self.data_dir).expanduser()

    @property
    def own_images(self) -> bool:
        """Whether the data is somebody's own, neither CIFAR-10 nor the toy folder of the smoke profile."""
        return self.data_dir not in (Config.data_dir, PROFILES["smoke"]["data_dir"])

    @property
    def cache_path(self) -> Path:
        """Decoded images and encoder features: beside the data folder, shared by all profiles."""
        return self.data_path.with_name(self.data_path.name + ".cache")

    @property
    def output_path(self) -> Path:
        return ROOT / Path(self.output_dir).expanduser()

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
        return ROOT / Path(self.backup_dir).expanduser() / self.profile if self.backup_dir else None

    def as_dict(self) -> dict:
        return asdict(self)

    def shown(self) -> dict:
        """All settings, files and folders by their names alone: fit to be kept beside results and shared."""
        names = {f: Path(getattr(self, f)).name or "." for f in PATHS if getattr(self, f) is not None}
        return self.as_dict() | names


def _is_path(value: str) -> bool:
    """Whether it can be a path at all: of something with a name, of a home directory that exists."""
    try:
        return value != "" and "\0" not in value and bool((ROOT / Path(value).expanduser()).name)
    except RuntimeError:
        return False


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

    Raises:
        Hw1Error: unknown profile or field (the nearest valid name is given), wrong type or range.
    """
    if profile == "auto":
        profile = os.environ.get("HW1_PROFILE", "").strip() or "auto"
    if profile == "auto":
        profile = "full" if find_device().type == "cuda" else "quick"
    if profile not in PROFILES:
        raise Hw1Error(f"There is no profile {profile!r}: choose auto, {', '.join(PROFILES)}.")
    overrides = _from_json(os.environ.get("HW1_OVERRIDES") or "{}") | overrides
    known = [f.name for f in fields(Config)]
    for name in overrides:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(known)}."
            raise Hw1Error(f"Config has no field {name!r}: {hint}")
    settings = {**PROFILES[profile], "profile": profile}
    if profile != "smoke":
        variables = {"HW1_DATA": "data_dir", "HW1_WEIGHTS": "weights", "HW1_ENCODER": "encoder"}
        settings |= {field: os.environ[name] for name, field in variables.items() if os.environ.get(name)}
    return Config(**_encoder_named_by_weights(settings | overrides))


def _from_json(text: str) -> dict:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise Hw1Error(f'HW1_OVERRIDES must be a JSON object such as {{"seed": 1}}, not {text!r}.') from error


def _meant(file: Path, encoder: str) -> bool:
    """Whether a weights file is named after this encoder; a tag counts where both have one."""
    return file.stem == encoder or file.name.split(".")[0] == encoder or file.stem == encoder.split(".")[0]


def _encoder_named_by_weights(settings: dict) -> dict:
    """Let a weights file named after a timm model choose the encoder, unless one was asked for.

    `vit_tiny` and `deit_tiny` share every tensor shape but not the normalisation: loaded under the wrong
    name, a file would fit and quietly give wrong features.

    Raises:
        Hw1Error: the file is named after another model than the one that was asked for.
    """
    import timm  # seconds to import: only when the package is used

    weights = settings.get("weights")
    if not weights or weights == "random":
        return settings
    path = ROOT / Path(weights).expanduser()
    named = path.stem if path.stem in timm.list_pretrained() else path.name.split(".")[0]
    if path.is_dir() or not timm.is_model(named):
        return settings
    encoder = settings.setdefault("encoder", named)
    if not any(_meant(path, name.strip()) for name in encoder.split(",")):
        raise Hw1Error(
            f"The weights file {Path(weights).name} is named after {named}, but the encoder asked for is "
            f"{encoder}: set both to the same model, or rename the file if its name is wrong."
        )
    return settings
