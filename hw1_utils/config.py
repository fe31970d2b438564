"""Every knob, once. `make_config()` reads the profile and the environment; overrides win over both."""

import difflib
import hashlib
import json
import os
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path

from .device import find_device
from .errors import Hw1Error, some
from .io.archives import ARCHIVE, unpacked_path
from .io.attached import INPUT, Attached, attached
from .io.cifar10 import archives_among
from .io.groups import read_pattern
from .io.listing import TABLE
from .io.weight_files import DEFAULT_ENCODER, check_named, encoder_among, encoder_named_by, weights_among
from .questions import STUDIES

ROOT = Path(__file__).resolve().parent.parent  # the repository: relative paths in a Config start here
LARGEST_SEED = 2**32 - 2**10  # scikit-learn's generators take 32 bits; further seeds count up from it

PROFILES: Mapping[str, dict] = {
    "full": {"output_dir": "."},
    "quick": {
        "output_dir": "outputs/quick",
        "train_size": 5000,
        "val_size": 1000,
        "test_size": 2000,
        "cnn_epochs": 20,
        "cnn_batch_size": 64,
        "extract_batch_size": 32,
        "profile_batch_size": 4,
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


def knob(
    default: object,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    path: bool = False,
    env: str | None = None,
) -> typing.Any:
    """A setting: a field of Config, checked by it, and an option of the command line (see `app.cli`).

    Args:
        default: the full profile's.
        help: for the command line; what None means, too.
        low, high: the smallest and the largest number allowed.
        choices: the words allowed, in lower case; of a path the words that are none.
        path: it names a file or folder.
        env: an environment variable that gives it, too; what follows HW1_ is a second option of the command line.
    """
    about = {"help": help, "low": low, "high": high, "choices": choices, "path": path, "env": env}
    return field(default=default, metadata=about)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one run. Frozen and validated: a value out of range or of a wrong type is an Hw1Error.

    So is a place to write to that lies in the data folder. Text is read the same way wherever it comes from, see
    `read_setting`.
    """

    # the run, and the machine it is computed on
    profile: str = knob("full", "size of the run; auto: full with a GPU, else quick", choices=tuple(PROFILES))
    seed: int = knob(0, "of split, initial weights, order of batches, augmentation", low=0, high=LARGEST_SEED)
    seeds: int | None = knob(None, "trainings of CNN and probe, seeds counting up; none: 3, of a CNN on a CPU 1", low=1)
    device: str = knob("auto", "what computes", choices=("auto", "cpu", "cuda"))
    precision: str = knob("auto", "of the forward pass", choices=("auto", "bf16", "fp16", "fp32"))
    memory_mb: int | None = knob(None, "for all arrays, the rest is streamed; none: half of what is free", low=0)

    # the data; three max-pools need 8 pixels to leave 1×1
    data_dir: str = knob(
        "data/cifar10",
        "folder of train/<class>/*, test/<class>/*, a zip or tar of one, or a CSV of paths and labels",
        path=True,
        env="HW1_DATA",
    )
    groups: str | None = knob(
        None,
        "what belongs together, on one side of every split: a pattern on the path, as '(patient[0-9]+)', or a column "
        "of the CSV; none: its column group, else each image is by itself",
    )
    image_size: int = knob(32, "side of the square images kept in memory and seen by the CNN", low=8, high=1024)
    train_size: int | None = knob(None, "training images; none: all that validation leaves", low=2)
    val_size: int | None = knob(None, "validation images; none: all of val/, else a tenth of train/", low=2)
    test_size: int | None = knob(None, "test images; none: all", low=2)

    # the CNN; `distilled` and, if not the headline, `assignment` and `short` are run beside it
    cnn_recipe: str = knob("tuned", "of the headline CNN", choices=("assignment", "tuned", "short"))
    cnn_epochs: int = knob(80, "passes of recipe tuned; distilled has the headline's", low=1)
    short_epochs: int = knob(12, "passes of recipes assignment and short", low=1)
    cnn_batch_size: int = knob(256, "images a step", low=1)
    class_weights: bool = knob(False, "the loss counts rare classes as much as frequent ones, CNN and probe")

    # the frozen encoder and the probe: AdamW on standardised features; the rate, pooling cls, falls to zero by a cosine
    encoder: str = knob(DEFAULT_ENCODER, "timm model with pooled features; several with commas", env="HW1_ENCODER")
    weights: str | None = knob(
        None, "file or folder, or random; none: hub, then stand-in", path=True, choices=("random",), env="HW1_WEIGHTS"
    )
    extract_batch_size: int | None = knob(
        None, "images per pass through the frozen encoder; none: 64, on a GPU 512", low=1
    )
    probe_epochs: int = knob(30, "passes over the features", low=1)
    probe_batch_size: int = knob(64, "images a step", low=1)
    probe_lr: float = knob(3e-3, "learning rate of AdamW on standardised features", low=0.0, high=1e3)
    probe_weight_decay: float = knob(1e-4, "of AdamW", low=0.0, high=1e3)

    # how the run goes about it, and where it writes
    sanity_check: str = knob("stop", "where three batches are not learnt by heart", choices=("stop", "warn"))
    profile_steps: int = knob(50, "steps in the profiler trace", low=1)
    profile_batch_size: int | None = knob(
        None, "images a step of a probe, images in, while its costs are measured; none: probe_batch_size", low=1
    )
    studies: str = knob(
        "auto", f"further questions: auto (all; in quick all but recipes), all, none, or of {', '.join(STUDIES)}"
    )
    study_images: int = knob(5000, "training images of the input-size study", low=2)
    fresh: bool = knob(False, "start over instead of using what is finished or interrupted on disk")
    skip_unreadable: bool = knob(False, "leave out and name files that are no readable images, instead of stopping")
    output_dir: str = knob(".", "runs/ and results/ are made in it", path=True, env="HW1_OUTPUT")
    backup_dir: str | None = knob(None, "for a second copy of finished work, as on a mounted Drive", path=True)

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = read_setting(setting.name, getattr(self, setting.name))
            value = setting.default if value == "" else value
            object.__setattr__(self, setting.name, value)  # frozen, but not yet handed over
            _check(setting, value)
        if not self.encoders:
            raise Hw1Error(f"Config.encoder must name a timm model, not {self.encoder!r}.")
        if unknown := [name for name in self.asked if name not in STUDIES]:
            raise Hw1Error(
                f"Config.studies has no {', '.join(unknown)}: choose auto, all, none, or of {', '.join(STUDIES)}."
            )
        if self.groups and not TABLE.search(self.data_dir):
            read_pattern(self.groups)
        data = os.path.realpath(self.data_source)
        for name, place in (("output_dir", self.output_path), ("backup_dir", self.backup_path)):
            if place and Path(os.path.realpath(place)).is_relative_to(data):  # it would be read as a class of the data
                raise Hw1Error(f"{name} {place} lies in the data folder {self.data_dir}: choose one outside of it.")

    @property
    def encoders(self) -> list[str]:
        """Names of timm models, each once."""
        return _names(self.encoder)

    @property
    def asked(self) -> list[str]:
        """The further questions of the run, out of `questions.STUDIES`."""
        words = self.studies.lower()
        usual = [name for name in STUDIES if (self.profile, name) != ("quick", "recipes")]  # they double its time
        return {"auto": usual, "all": list(STUDIES), "none": []}.get(words, _names(words))

    @property
    def weights_place(self) -> Path | str | None:
        """What `weights` names: a file or folder, "random", or None."""
        return self.weights if self.weights in (None, "random") else _place(self.weights)

    @property
    def data_source(self) -> Path:
        """What `data_dir` names: a folder, an archive of one, or a CSV."""
        return _place(self.data_dir)

    @property
    def is_archive(self) -> bool:
        return bool(ARCHIVE.search(self.data_dir)) and not self.data_source.is_dir()

    @property
    def is_table(self) -> bool:
        return bool(TABLE.search(self.data_dir)) and not self.data_source.is_dir()

    @property
    def data_path(self) -> Path:
        """The folder that paths of images start at: of an archive where it is unpacked, of a CSV the one it lies in."""
        if self.is_archive:
            return unpacked_path(self.data_source, self.cache_path)
        return self.data_source.parent if self.is_table else self.data_source

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
        """Decoded images, encoder features and what was unpacked: beside the data, shared by all profiles.

        Where that may only be read, as on Kaggle, a folder of the repository's `data/` for each such place.
        """
        beside = self.data_source.with_name(self.data_source.name + ".cache")
        if os.access(next(place for place in beside.parents if place.exists()), os.W_OK):
            return beside
        digest = hashlib.sha256(os.fsencode(self.data_source)).hexdigest()
        return _place(f"data/{self.data_source.name}-{digest[:8]}.cache")

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
        """Finished models, one file each: see `deploy.saved`."""
        return self.output_path / "models"

    @property
    def backup_path(self) -> Path | None:
        """Where this profile's copies go."""
        return _place(self.backup_dir) / self.profile if self.backup_dir else None

    def as_dict(self) -> dict:
        return asdict(self)

    def shown(self) -> dict:
        """All settings, files and folders by their names alone: fit to be kept beside results and shared."""
        paths = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata["path"]}
        return self.as_dict() | {name: Path(path).name or "." for name, path in paths.items() if path is not None}


_SETTINGS: Mapping[str, Field] = {setting.name: setting for setting in fields(Config)}


def read_setting(name: str, value: object) -> object:
    """A value for a field of Config as it came from the command line, the environment, JSON or Python, understood.

    Text is read as what the field holds: `5`, `5.0` and `1_000` as whole numbers, `.001` and `1e-3` as numbers, `true`,
    `yes`, `on`, `1` and their opposites as truth values, `none` as None where the field may be None, and text as it is
    where it holds text, so that a folder may be called 2024. Space around it does not count, nor does the case of words
    that have a meaning; "" stands for a setting that is not given. What cannot be read stays, for Config to refuse.
    """
    kind, about = _SETTINGS[name].type, _SETTINGS[name].metadata
    kinds = typing.get_args(kind) or (kind,)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        value = value.strip()
        if value.lower() == "none" and type(None) in kinds:
            return None
        if about["choices"] and (value.lower() in about["choices"] or not about["path"]):
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


def _check(setting: Field, value: object) -> None:
    """Raise Hw1Error unless a field of Config may have the value."""
    what, kind, about = f"Config.{setting.name} must be", setting.type, setting.metadata
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        wanted = kind.__name__ if isinstance(kind, type) else kind
        raise Hw1Error(f"{what} {wanted}, not {value!r} ({type(value).__name__}).")
    if value is None:
        return
    if about["path"]:
        if not _is_path(value):
            raise Hw1Error(f"{what} the path of a file or folder, not {value!r}.")
    elif about["choices"] and value not in about["choices"]:
        raise Hw1Error(f"{what} one of {', '.join(about['choices'])}, not {value!r}.")
    if about["low"] is not None and not value >= about["low"]:  # nor is nan
        raise Hw1Error(f"{what} at least {about['low']}, not {value}.")
    if about["high"] is not None and value > about["high"]:
        raise Hw1Error(f"{what} at most {about['high']}, not {value}.")


def _names(text: str) -> list[str]:
    """Those between commas, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _is_path(value: str) -> bool:
    """Whether it can be a path at all: of something with a name, of a home directory that exists."""
    try:
        return value != "" and "\0" not in value and bool(_place(value).name)
    except RuntimeError:
        return False


def _place(path: str) -> Path:
    """The absolute path: relative ones start at the repository; links stay as they are."""
    return Path(os.path.abspath(ROOT / Path(path).expanduser()))


def make_config(profile: str = "auto", **overrides: object) -> Config:
    """Build the Config of a run.

    Args:
        profile: full, quick, smoke, or auto (HW1_PROFILE if set; else full with a GPU, quick without).
        **overrides: any field of `Config`; they win over the profile and the environment.

    Environment: HW1_PROFILE; HW1_DATA (data_dir), HW1_WEIGHTS (weights), HW1_ENCODER (encoder) and HW1_OUTPUT
    (output_dir), none of which the smoke profile reads; HW1_OVERRIDES, any fields as a JSON object, in which the
    command line hands on its options. What is empty counts as not given, in all of them: a variable that Make exports
    unset, an option without its value.

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
    for name in overrides:
        if name not in _SETTINGS:
            near = difflib.get_close_matches(name, _SETTINGS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(_SETTINGS)}."
            raise Hw1Error(f"Config has no field {name!r}: {hint}")
    if overrides.get("profile", profile) != profile:
        raise Hw1Error("The profile is no override: choose it with PROFILE, --profile or HW1_PROFILE.")
    settings = {**PROFILES[profile], "profile": profile}
    if profile != "smoke":
        variables = {name: setting.metadata["env"] for name, setting in _SETTINGS.items()}
        settings |= _given({name: os.environ.get(env, "") for name, env in variables.items() if env})
    settings |= _given(overrides)
    weights = settings.get("weights")
    if isinstance(weights, str) and weights != "random" and _is_path(weights):
        if "encoder" in settings:
            check_named(_place(weights), _names(str(settings["encoder"])))
        else:
            settings["encoder"] = encoder_named_by(_place(weights))
    names_no_encoder = weights is None and "encoder" not in settings
    if names_no_encoder or "data_dir" not in settings:
        found = attached()
        if names_no_encoder:
            settings["encoder"] = encoder_among(weights_among(found.others).values(), str(INPUT))
        if "data_dir" not in settings:
            settings["data_dir"] = _attached_data(found)
    return Config(**settings)


def _attached_data(found: Attached) -> str:
    """The folder of images that is attached to a Kaggle notebook, if there is one, else CIFAR-10's.

    Raises:
        Hw1Error: several are attached.
    """
    kinds = [str(folder) for folder in found.folders]
    kinds += [f"{Config.data_dir} (CIFAR-10)"] if archives_among(found.others) else []
    if len(kinds) > 1:
        raise Hw1Error(
            f"Images of several kinds are attached: choose one of {some(kinds)} with HW1_DATA, or data_dir=."
        )
    return str(found.folders[0]) if found.folders else Config.data_dir


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
