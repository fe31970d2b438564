"""The assignment's CNN; a frozen timm encoder; a linear head on it."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import VisionTransformer
from torch import Tensor, nn

from .augment import normalize, resize
from .config import Config
from .io.names import encoder_title, encoder_titles
from .io.weights import Weights, build, check, find_weights

if TYPE_CHECKING:
    from .context import Context

WHITENED_PIXELS = 2**19  # whose 3×3 patches a whitened layer begins with
NO_DIRECTION = 1e-4  # share of the largest variance of patches, below which they do not differ
BLOCKS = 4  # the last ones of a ViT, whose tokens the pooling `blocks` uses
FEW_PATCHES = 300  # of which a matrix of all pairs is small


class CNN(nn.Module):
    """The assignment's network: three 3×3 convolutions (32, 64, 128), LeakyReLU, 2×2 max-pooling, one linear layer.

    No BatchNorm. For 10 classes and 32×32 images it has 113,738 parameters:
    (27 + 1) * 32 + (288 + 1) * 64 + (576 + 1) * 128 + (2048 + 1) * 10.
    """

    def __init__(self, classes: int, image_size: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.activation = nn.LeakyReLU()
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(128 * (image_size // 8) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images B×3×S×S to logits B×K."""
        for conv in (self.conv1, self.conv2, self.conv3):
            # LeakyReLU is monotonic: after the maximum it gives the same numbers from a quarter of the work.
            x = self.activation(self.pool(conv(x)))  # S -> S/2 -> S/4 -> S/8
        return self.head(x.flatten(1))


@torch.no_grad()
def whiten(conv: nn.Conv2d, images: Tensor, eps: float = 5e-4) -> None:
    """Let a convolution begin as the whitening of the patches it will see, to be trained on as any other.

    Its filters become the leading eigenvectors of the patches' covariance, each scaled to give unit deviation, and
    their negatives (Page 2018, "How to train your ResNet"; `eps` as in Jordan 2024, "94% on CIFAR-10 in 3.29 seconds",
    where the layer stays frozen). The bias becomes 0.

    Args:
        conv: filters that there are no directions for, as grey images have 9 in place of 27, stay as they are.
        images: normalised float32 B×C×S×S. So that the start is the same on every device, it is computed on the CPU.
    """
    side = conv.kernel_size[0]
    patches = images.cpu().double().unfold(2, side, 1).unfold(3, side, 1)  # B×C×S'×S'×h×w
    patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))  # the largest last
    count = min(conv.out_channels // 2, int((values > NO_DIRECTION * values[-1]).sum()))
    leading = (vectors / (values.clamp(min=0) + eps).sqrt()).flip(1)[:, :count].T.unflatten(1, conv.weight.shape[1:])
    conv.weight[: 2 * count] = torch.cat([leading, -leading]).to(conv.weight)
    conv.bias[: 2 * count] = 0


class FrozenEncoder(nn.Module):
    """A pretrained timm model up to its head's input: raw images in, features out, never trained.

    Frozen means: no parameter requires a gradient, eval mode whatever is asked, inference mode in `forward`.
    Preprocessing belongs to the weights: resolution, interpolation, mean and std come from the model's own
    config. The whole image is resized (no `crop_pct`): cropping would cost a small image a tenth of itself.
    """

    def __init__(self, backbone: nn.Module, *, name: str, source: str, weights_sha256: str, dtype: torch.dtype) -> None:
        super().__init__()
        data = resolve_model_data_config(backbone)
        self.name, self.source, self.weights_sha256, self.dtype = name, source, weights_sha256, dtype
        self.input_size: tuple[int, int] = tuple(data["input_size"][1:])
        self.interpolation: str = data["interpolation"]
        # They go where the model goes; no weights, so in no file of weights.
        self.register_buffer("mean", torch.tensor(data["mean"]), persistent=False)
        self.register_buffer("std", torch.tensor(data["std"]), persistent=False)
        self.is_vit = isinstance(backbone, VisionTransformer)
        self.backbone = backbone.to(dtype).requires_grad_(False)
        self._choose_attention()
        self.train(False)
        # What a run calls it; where there are several encoders see `load_encoders`.
        self.folder = "vit" if self.is_vit else name  # of its outputs
        self.title = encoder_title(name)  # in tables and figures
        self.rank = 0

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def blocks(self) -> int:
        """How many of a ViT's last blocks give tokens."""
        return min(BLOCKS, len(self.backbone.blocks))

    @property
    def head_columns(self) -> int:
        """Columns of timm's own head input; what some architectures put between pooling and head belongs to it."""
        return getattr(self.backbone, "head_hidden_size", self.backbone.num_features)

    @property
    def columns(self) -> int:
        """Columns of `forward`'s output."""
        if not self.is_vit:
            return self.head_columns
        of_a_block = 2 if self.backbone.num_prefix_tokens else 1
        return self.head_columns + (1 + of_a_block * self.blocks) * self.backbone.embed_dim

    @property
    def poolings(self) -> tuple[str, ...]:
        """Of the probes on it: `blocks` where there are further tokens, as a ViT has them."""
        return ("cls", "blocks") if self.is_vit else ("cls",)

    def side_for(self, image_size: int, largest: int) -> int:
        """Side of the images for this encoder, of files of up to `largest` pixels, where the CNN sees `image_size`.

        A photograph comes as large as the encoder wants it; what is smaller anyway it enlarges itself.
        """
        return max(image_size, min(max(self.input_size), largest))

    def probe_title(self, pooling: str) -> str:
        """Of a probe on this encoder, in tables and figures."""
        if not self.is_vit:
            return f"probe ({self.title})"
        if pooling == "blocks":
            return f"probe, {self.blocks} blocks ({self.title})"
        output = "class token" if self.backbone.global_pool == "token" else "pooled tokens"
        return f"probe, {output} ({self.title})"

    @property
    def label(self) -> str:
        """Name and hash for tables, titles and file rows."""
        return f"{self.name} [{self.weights_sha256[:12]}]"

    def key(self) -> str:
        """All that the features depend on, besides the images."""
        preprocessing = (self.input_size, self.interpolation, self.mean.tolist(), self.std.tolist())
        attention = "" if self.fused_attention else " attention in steps"
        computed = f"{self.dtype} {self.device.type} {BLOCKS} timm {timm.__version__}{attention}"
        return f"{self.name} {self.weights_sha256} {preprocessing} {computed}"

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Stay in eval mode: dropout off, normalisation statistics untouched."""
        return super().train(False)

    def _apply(self, *args: object, **options: object) -> "FrozenEncoder":
        """Whatever takes a module to another device comes through here."""
        super()._apply(*args, **options)
        self._choose_attention()
        return self

    def _choose_attention(self) -> None:
        """On a CPU products and softmax one after the other: of few patches 1.15 times as fast as torch's fused one."""
        few = self.is_vit and self.backbone.patch_embed.num_patches <= FEW_PATCHES
        self.fused_attention = self.device.type != "cpu" or not few
        for module in self.backbone.modules() if few else ():
            if hasattr(module, "fused_attn"):
                module.fused_attn = self.fused_attention

    def preprocess(self, images: Tensor) -> Tensor:
        """Raw uint8 B×3×S×S to the encoder's own input B×3×H×W."""
        x = normalize(resize(images, self.input_size, self.interpolation), self.mean, self.std).to(self.dtype)
        return x if self.is_vit else x.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Raw uint8 B×3×S×S to float32 features.

        The first `head_columns` columns are timm's own head input (a ViT's class token after the last LayerNorm).
        A ViT's are followed by the mean patch token of its output and by class token and mean patch token of each
        of the last blocks: the encoder has computed them anyway, and what they add to a linear head is free.
        """
        return self.encode(self.preprocess(images)).float()

    def encode(self, x: Tensor) -> Tensor:
        """The encoder's own input B×3×H×W to features."""
        if not self.is_vit:
            return self.backbone(x)
        prefix = self.backbone.num_prefix_tokens  # the class token and, in some models, registers
        output, tokens = self.backbone.forward_intermediates(
            x, indices=self.blocks, output_fmt="NLC", return_prefix_tokens=prefix > 0
        )
        parts = [self.backbone.forward_head(output, pre_logits=True), output[:, prefix:].mean(1)]
        for block in tokens:
            parts += [block[1][:, 0], block[0].mean(1)] if prefix else [block.mean(1)]
        return torch.cat(parts, 1)


def folded(head: nn.Linear, mean: Tensor, deviation: Tensor) -> nn.Linear:
    """The plain linear layer that does to features what `head` does to (features - mean) / deviation."""
    plain = copy.deepcopy(head)
    with torch.no_grad():
        plain.weight.copy_(head.weight / deviation)
        plain.bias.copy_(head.bias - plain.weight @ mean)
    return plain


class Probe(nn.Module):
    """A frozen encoder and a trained linear head.

    The head is a plain nn.Linear. Pooling `cls`: on timm's own head input, the assignment's probe. `blocks`: on all the
    columns that the encoder gives, as DINOv2's linear evaluation takes the last blocks' tokens.
    """

    def __init__(self, encoder: FrozenEncoder, classes: int, pooling: str = "cls") -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.head_columns if pooling == "cls" else encoder.columns, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Raw uint8 B×3×S×S to logits B×K."""
        # clone(): a tensor made in inference mode cannot be saved for the head's backward pass
        features = self.encoder(images)[:, : self.head.in_features].clone()  # float32 B×D
        # fp32 even under autocast: the head is a sliver of the cost and all of what is trained
        with torch.autocast(images.device.type, enabled=False):
            return self.head(features)


def blank_probe(encoder: str, dtype: torch.dtype, classes: int, pooling: str) -> Probe:
    """A probe with random weights: as large as a trained one."""
    backbone = timm.create_model(encoder, num_classes=0)
    frozen = FrozenEncoder(backbone, name=encoder, source="random weights", weights_sha256="", dtype=dtype)
    return Probe(frozen, classes, pooling)


class AfterPreprocessing(nn.Module):
    """A probe from the encoder's own input on: all of its multiply-adds, and what ONNX can express."""

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self.probe = probe

    def forward(self, x: Tensor) -> Tensor:
        """B×3×H×W to logits B×K."""
        return self.probe.head(self.probe.encoder.encode(x)[:, : self.probe.head.in_features])


def load_encoders(context: "Context") -> list[FrozenEncoder]:
    """All encoders that `context.config` names, each once, on its `device`, in the number format of its `precision`.

    No two have one folder, of ViTs the first has vit/, or one title; `rank` counts them from 0.
    """
    encoders: dict[str, FrozenEncoder] = {}
    for name in context.config.encoders:
        encoder = load_encoder(context.config, context.device, context.precision.dtype, name=name)
        encoders.setdefault(encoder.name, encoder)
    folders: set[str] = set()
    for rank, (encoder, title) in enumerate(zip(encoders.values(), encoder_titles(list(encoders)), strict=True)):
        encoder.rank, encoder.title = rank, title
        encoder.folder = encoder.name if encoder.folder in folders else encoder.folder
        folders.add(encoder.folder)
    return list(encoders.values())


def load_encoder(
    config: Config, device: torch.device, dtype: torch.dtype, *, name: str | None = None, say: Callable = print
) -> FrozenEncoder:
    """A configured encoder, the first if none is named, frozen, with weights from the first place that has them.

    Raises:
        Hw1Error: unknown encoder, missing or unfit weights file, or no weights to be had at all; see `find_weights`.
    """
    weights = _weights(config, name or config.encoders[0])
    if weights.warning:
        say(f"WARNING: {weights.warning}")
    backbone, digest = build(weights, config.seed, say=say)
    encoder = FrozenEncoder(backbone, name=weights.encoder, source=weights.source, weights_sha256=digest, dtype=dtype)
    encoder.to(device)
    if not encoder.is_vit:
        encoder.to(memory_format=torch.channels_last)
    return encoder


def sketch_encoders(config: Config) -> list[FrozenEncoder]:
    """All configured encoders without the memory for their tensors, once it is known that their weights fit.

    Takes seconds; what the model hub has is downloaded.

    Raises:
        Hw1Error: as `load_encoder`.
    """
    return [
        FrozenEncoder(
            check(weights), name=weights.encoder, source=weights.source, weights_sha256="", dtype=torch.float32
        )
        for weights in [_weights(config, name) for name in config.encoders]
    ]


def _weights(config: Config, name: str) -> Weights:
    return find_weights(name, config.weights_place, alone=len(config.encoders) == 1)
