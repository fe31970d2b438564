"""A saved model as one ONNX file: raw pixels in, probabilities out, every step between them inside."""

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..augment import normalize, resize
from ..errors import Hw1Error
from ..io.files import atomic
from ..models import AfterPreprocessing, Probe
from .saved import PixelCNN, SavedModel

NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 0.01  # of a probability; a resized pixel may be off by a grey level or two


@dataclass(frozen=True)
class Export:
    """What came of it, and how far ONNX Runtime and PyTorch agree on the test pictures."""

    path: Path
    images: int  # test pictures
    same: int  # of them, with the same prediction
    difference: float  # the largest of a probability


class PixelProbe(nn.Module):
    """A probe whose resizing is matrix products: ONNX's own Resize differs from torch's on uint8 images."""

    def __init__(self, probe: Probe, image_size: int) -> None:
        super().__init__()
        encoder, unit = probe.encoder, torch.eye(image_size)[None]  # 1×S×S
        height, width = encoder.input_size
        # Resizing is linear in rows and in columns, so what becomes of the unit matrix is its matrix.
        self.rows = resize(unit, (height, image_size), encoder.interpolation)[0]  # H×S
        self.columns = resize(unit, (image_size, width), encoder.interpolation)[0]  # S×W
        self.mean, self.std = encoder.mean, encoder.std
        self.probe = AfterPreprocessing(probe)

    def forward(self, images: Tensor) -> Tensor:
        """Raw uint8 B×3×S×S to logits B×K."""
        x = images.float()
        # Grey levels are whole numbers after each of the two passes, as in torch on the CPU and in PIL.
        x = (x @ self.columns).round().clamp(0, 255)  # B×3×S×W
        x = (self.rows @ x).round().clamp(0, 255)  # B×3×H×W
        return self.probe(normalize(x, self.mean, self.std))


class WithProbabilities(nn.Module):
    """Both outputs of the ONNX file."""

    def __init__(self, module: PixelCNN | PixelProbe) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw uint8 B×3×S×S to probabilities and logits, each B×K."""
        logits = self.module(images)
        return logits.softmax(1), logits


def export_onnx(model: SavedModel, path: Path) -> Export:
    """Write the model as ONNX: input `images`, uint8 N×3×S×S; outputs `probabilities` and `logits`, float32 N×K.

    N is free. The file's metadata hold `classes` (a JSON list, in the order of the columns) and `hw1`, all of
    `model.info` as JSON. ONNX Runtime runs the file before it is called finished.

    Raises:
        Hw1Error: a package is missing, the exporter cannot translate the model, the file's probabilities differ
            from PyTorch's by more than TOLERANCE, or the disk refuses it. No new file is left then.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise Hw1Error(f"ONNX export needs further packages: pip install {' '.join(missing)}.")
    module = copy.deepcopy(model.module).cpu()
    graph = PixelProbe(module, model.image_size) if isinstance(module, Probe) else module
    images = pictures(model.image_size)
    with torch.inference_mode():
        expected = module(images).softmax(1).numpy()
    with atomic(path) as partial:
        try:
            with _quiet():
                program = torch.onnx.export(
                    WithProbabilities(graph).eval(),
                    (images[:2],),
                    dynamo=True,
                    verbose=False,
                    input_names=["images"],
                    output_names=["probabilities", "logits"],
                    dynamic_shapes={"images": {0: torch.export.Dim("N")}},
                )
                program.model.metadata_props["classes"] = json.dumps(model.classes)
                program.model.metadata_props["hw1"] = json.dumps(model.info)
                program.save(partial, external_data=False)  # one file
            found = run_onnx(partial, images.numpy())
            alone = run_onnx(partial, images[:1].numpy())  # fails where the exporter has quietly fixed N
        except OSError:
            raise
        except Exception as error:  # exporter and runtime raise all kinds, with pages of text
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            raise Hw1Error(f"torch {torch.__version__} cannot export {model.title} to ONNX ({reason}).") from error
        difference = float(max(abs(found - expected).max(), abs(alone - expected[:1]).max()))
        if not difference <= TOLERANCE:
            raise Hw1Error(
                f"The ONNX file of {model.title} gives other probabilities than PyTorch, by up to {difference:.3g} "
                f"({TOLERANCE} is allowed): it is not kept."
            )
    same = (found.argmax(1) == expected.argmax(1)).sum()
    return Export(path, len(images), int(same), difference)


def run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities, float32 N×K, of uint8 N×3×S×S, by ONNX Runtime on the CPU."""
    import onnxruntime  # optional

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"images": images})[0]


def pictures(size: int) -> Tensor:
    """Test pictures, uint8 16×3×S×S: noise, ramps, flat ones, and edges as hard as they can be."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (5, 3, size, size), generator=generator)
    hard = torch.randint(0, 2, (5, 3, size, size), generator=generator) * 255
    ramp = torch.linspace(0, 255, size).long().expand(1, 3, size, size)
    flat = torch.tensor([0, 128, 255]).view(3, 1, 1, 1).expand(3, 3, size, size)
    stripes = (torch.arange(size) % 2 * 255).expand(1, 3, size, size)
    return torch.cat([noise, hard, ramp, ramp.mT, flat, stripes]).to(torch.uint8)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's advice to its developers stays away from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
