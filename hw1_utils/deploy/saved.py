"""A finished model as one file, which needs neither data nor settings nor a model hub to be used again."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pandas as pd
import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..augment import normalize
from ..device import beside_each_other, halving
from ..errors import Hw1Error, some
from ..io.files import checksum, read_safetensors, sha256_tensors, write_checked
from ..io.images import decode
from ..io.listing import Listing
from ..models import CNN, FrozenEncoder, Probe, folded
from ..selective import Confidences, confidences
from .unsure import promise

if TYPE_CHECKING:  # who only predicts does not wait for the imports of all that trains
    from ..experiment import Result, Trained
    from ..training import Predictions

FORMAT = 4  # of `SavedModel.info`, the names of the tensors and the checksum
KINDS = ("image", "left out", "empty")  # of what `each_file` finds
KNOWN = ("val", "test")  # splits of which a file says, from format 4 on, how sure the model was and whether right


class PixelCNN(nn.Module):
    """A CNN with its normalisation."""

    def __init__(self, cnn: CNN, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.cnn = cnn
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Raw uint8 B×3×S×S to logits B×K."""
        return self.cnn(normalize(images, self.mean, self.std))


@dataclass(frozen=True)
class SavedModel:
    """A model that was read from its file."""

    module: PixelCNN | Probe  # raw uint8 B×3×S×S to float32 logits B×K; in eval mode, nothing requires a gradient
    title: str
    classes: list[str]  # K
    image_size: int  # S, the side of the square to which an image file is brought first
    info: dict  # all that the file says about the model, the fields above included
    known: dict[str, Confidences] = field(default_factory=dict)  # of `KNOWN`, where the file has them


def save_models(results: "list[Result]") -> list[Path]:
    """Write each model to a file of its own, to be used without data and settings, with its quality on test."""
    return [
        save_model(
            one.trained,
            {"test_images": len(one.test.labels)} | one.quality,
            {"val": one.trained.val, "test": one.test},
        )
        for one in results
    ]


def save_model(trained: "Trained", quality: dict, predictions: "Mapping[str, Predictions] | None" = None) -> Path:
    """Write `models/<name>.safetensors`: the judged model in float32, an encoder included, and how it is used.

    Args:
        quality: figures to be kept with the model as `info["test"]`, plain numbers and text; may be empty.
        predictions: the model's for the splits of `KNOWN`: what `predict` needs for a target accuracy, five bytes an
            image.

    Raises:
        Hw1Error: the disk is full, the folder read-only or the like.
    """
    run, data, context = trained.run, trained.run.data, trained.run.context
    info = {"format": FORMAT} | {name: getattr(run, name) for name in ("name", "title", "kind", "variant")}
    info |= {"classes": data.classes, "image_size": run.image_size, "levels": data.train.levels}
    info |= {"config": context.config.shown(), "environment": context.environment, "test": quality}
    tensors = run.from_pixels.assemble(trained.model).state_dict()
    if run.kind == "cnn":
        info["preprocessing"] = {"mean": data.mean.tolist(), "std": data.std.tolist()}
    else:
        encoder = run.features.encoder
        info["encoder"] = {name: getattr(encoder, name) for name in ("name", "source", "weights_sha256")}
        info["preprocessing"] = {
            "input_size": [3, *encoder.input_size],
            "interpolation": encoder.interpolation,
            "mean": encoder.mean.tolist(),
            "std": encoder.std.tolist(),
        }
    # Copies: safetensors takes neither channels_last nor tensors that share their memory.
    tensors = {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    for split, of in (predictions or {}).items():
        known = confidences(of.labels.numpy(), of.probabilities.numpy())
        tensors[f"{split}.confidence"] = torch.from_numpy(known.confidence)
        tensors[f"{split}.right"] = torch.from_numpy(known.right)
    text = json.dumps(info, ensure_ascii=False, allow_nan=False)
    path = context.config.models_path / f"{run.name}.safetensors"
    write_checked(path, tensors, {"hw1": text})
    return path


def load_model(path: Path, device: torch.device) -> SavedModel:
    """What `save_model` wrote.

    Raises:
        Hw1Error: no such file, none of this package, a damaged or a newer one, or a timm that builds other encoders.
    """
    if not os.path.isfile(path):
        raise Hw1Error(f"There is no model file {path}.")
    try:
        tensors, notes = read_safetensors(path)
    except (SafetensorError, OSError) as error:
        raise Hw1Error(f"{path} is no safetensors file, or a damaged one ({error}).") from error
    if "hw1" not in notes:
        raise Hw1Error(f"{path} is no model of this project: those lie in the folder models/ of a run.")
    found = notes.pop("sha256", None)
    if found != checksum(tensors, notes) and found != _checksum_until_format_2(notes["hw1"], tensors):
        raise Hw1Error(f"The model file {path} is damaged: copy it again from where it came.")
    info = json.loads(notes["hw1"])
    if info["format"] > FORMAT:
        raise Hw1Error(f"{path} was written by a newer version of this project: update the project to use it.")
    known = {
        split: Confidences(*(tensors.pop(f"{split}.{what}").numpy() for what in ("confidence", "right")))
        for split in KNOWN
        if f"{split}.right" in tensors
    }
    try:
        module = _build(info, tensors)
    except RuntimeError as error:  # timm does not know the encoder, or the tensors do not fit
        made_with = info["environment"]["packages"]["timm"]
        raise Hw1Error(
            f"{path} was made with timm {made_with} and does not fit what timm {timm.__version__} builds: "
            f"pip install timm=={made_with}."
        ) from error
    module.to(device).eval().requires_grad_(False)
    return SavedModel(module, info["title"], info["classes"], info["image_size"], info, known)


def _build(info: dict, tensors: dict[str, Tensor]) -> PixelCNN | Probe:
    classes, preprocessing = len(info["classes"]), info["preprocessing"]
    if info["kind"] == "cnn":
        cnn = CNN(classes, info["image_size"])
        cnn.load_state_dict(tensors)
        return PixelCNN(cnn.to(memory_format=torch.channels_last), **preprocessing)
    # The overlay: what the weights were used with counts, not what this timm holds for the default.
    backbone = timm.create_model(info["encoder"]["name"], num_classes=0, pretrained_cfg_overlay=preprocessing)
    probe = Probe(FrozenEncoder(backbone, **info["encoder"], dtype=torch.float32), classes, info["variant"])
    if "head.mean" in tensors:  # a model of pooling `layers` in format 1
        mean, deviation = tensors.pop("head.mean"), tensors.pop("head.std")
        probe.load_state_dict(tensors)
        probe.head = folded(probe.head, mean, deviation)
    else:
        probe.load_state_dict(tensors)
    return probe


def _checksum_until_format_2(info: str, tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(f"{info} {sha256_tensors(tensors)}".encode()).hexdigest()


def predict(
    model: SavedModel,
    paths: list[str],
    batch_size: int = 64,
    say: Callable[[str], object] = print,
    *,
    target_accuracy: float | None = None,
) -> pd.DataFrame:
    """Classify image files, one or more: `batch_size` of them, while as many are decoded ahead.

    Args:
        target_accuracy: of the answers; what is not sure enough for it is marked, see `unsure.promise`.

    Returns:
        A row per file, in their order: path, prediction, probability (of the prediction), with a target also unsure
        (bool), p_<class> for each class, and error, empty or why the file could not be read: then all but path is empty
        instead.

    Raises:
        Hw1Error: the target cannot be promised, or the GPU's memory does not hold a single image's pass.
    """
    threshold = None if target_accuracy is None else promise(model, target_accuracy).threshold
    parts, errors = [], []
    for images, failures in _decoded(model, paths, batch_size, say):
        parts.append(_probabilities(model, images))
        errors += [failures.get(row) for row in range(len(images))]
    probabilities = torch.cat(parts)
    best, names = probabilities.max(1), [f"p_{name}" for name in model.classes]
    table = pd.DataFrame({"path": paths, "prediction": [model.classes[i] for i in best.indices.tolist()]})
    table["probability"] = best.values.numpy()
    if threshold is not None:
        table["unsure"] = (table["probability"] < threshold).astype(object)  # which may be empty
    table = table.join(pd.DataFrame(probabilities.numpy(), columns=names))
    table.loc[pd.notna(errors), [name for name in table if name != "path"]] = None
    return table.assign(error=pd.Series(errors, dtype="object"))


def columns(model: SavedModel, unsure: bool) -> list[str]:
    """Of the table of `predict`, which with a target accuracy has `unsure`."""
    each = [f"p_{name}" for name in model.classes]
    return ["path", "prediction", "probability", *(["unsure"] if unsure else []), *each, "error"]


def _decoded(
    model: SavedModel, paths: list[str], size: int, say: Callable[[str], object]
) -> Iterator[tuple[Tensor, dict[int, str]]]:
    """`size` files at a time, as `decode` gives them; the next are decoded while the caller works with these."""
    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for start in range(0, len(paths), size):
            files, levels = paths[start : start + size], model.info.get("levels")
            ready, ahead = ahead, reader.submit(decode, files, model.image_size, levels=levels, say=say)
            if ready:
                yield ready.result()
        if ahead:
            yield ahead.result()


@torch.inference_mode()
def _probabilities(model: SavedModel, images: Tensor) -> Tensor:
    """Raw uint8 N×3×S×S to float32 N×K on the CPU."""
    device = next(model.module.parameters()).device

    @torch.inference_mode()  # which is each thread's own
    def one_pass(images: Tensor) -> Tensor:
        return model.module(images.to(device)).softmax(1).cpu()

    if device.type == "cpu":
        return beside_each_other(lambda rows: one_pass(images[rows.start : rows.stop]), range(len(images)))
    try:
        return halving(lambda size: torch.cat([*map(one_pass, images.split(size))]), len(images))[1]
    except torch.OutOfMemoryError as error:
        raise Hw1Error(f"The GPU's memory is too small for {model.title}: close what else uses it.") from error


def find_images(arguments: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """(files to be read, files left out, folders without images): see `each_file`.

    Raises:
        Hw1Error: there is nothing to be read, or an argument is empty.
    """
    lists: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for path, kind in each_file(arguments):
        lists[kind].append(path)
    found, left_out, empty = lists.values()
    if not found:
        refuse_nothing(left_out, empty)
    return found, left_out, empty


def each_file(arguments: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What the arguments name, one path after the other, each with its kind of `KINDS`.

    A file is taken as given, whatever its name, and even if there is none; in place of a folder, what is in it and
    below it, in order. As in training, what is hidden does not count, what by its suffix is no image is left out, and
    of all else the contents decide. A folder without images is named itself, after what is left out of it.

    Raises:
        Hw1Error: an argument is empty, or a folder cannot be listed.
    """
    for argument in arguments:
        if not argument:
            raise Hw1Error("The name of an image file or folder is empty.")
        if not os.path.isdir(argument):
            yield argument, "image"
            continue
        found = False
        for path, may_be_image in Listing(Path(argument)).each_below():
            found |= may_be_image
            yield path, "image" if may_be_image else "left out"
        if not found:
            yield argument, "empty"


def refuse_nothing(left_out: list[str], empty: list[str]) -> NoReturn:
    """Say that there is no image, only what was left out of folders that are without one."""
    only = f", only {some(left_out)}" if left_out else ""
    raise Hw1Error(f"There is no image in {', '.join(empty)}{only}.")
