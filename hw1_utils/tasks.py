"""What is trained: the CNN under a recipe, the probe on an encoder. Each Task tells the loop all it must know."""

import copy
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from sklearn.utils.class_weight import compute_class_weight
from timm.optim import Muon
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .augment import make_transform
from .backup import Backup
from .config import Config
from .data import Split, batches, epoch_seed, with_side
from .features import Features, extract
from .models import CNN, FrozenEncoder, Preprocessed, Probe, StandardizedLinear, load_encoder, load_encoders
from .recipes import RECIPES, Fp32Muon, one_cycle
from .runtime import Precision
from .training import Batches, trainable

EVAL_BATCH = 512  # rows per evaluation pass; has no influence on the numbers


@dataclass(frozen=True)
class Setup:
    """Everything the tasks share."""

    config: Config
    device: torch.device
    precision: Precision
    train: Split  # on the device
    val: Split
    mean: Tensor  # float32 (3,), of the training images' pixels in 0..1
    std: Tensor
    environment: dict
    backup: Backup = field(default_factory=lambda: Backup(None))
    room: int = sys.maxsize  # bytes; larger arrays stay on disk
    largest_side: int = 0  # of the image files, in pixels
    larger: dict[tuple[str, int], Split] = field(default_factory=dict)  # splits at another side: see `ProbeTask.seen`
    lock: FileLock | None = None  # held for as long as this object lives: no other run writes to the same folder

    @property
    def classes(self) -> list[str]:
        return self.train.classes


class Task:
    """One model to train: what `fit` needs to know about it."""

    name: str  # folder in runs/ and results/
    title: str  # in tables and figures
    kind: str  # cnn or probe
    variant: str  # recipe of a CNN, pooling of a probe
    details: dict  # columns that say exactly which model this is
    image_size: int  # side of the images it takes
    model: nn.Module  # what is trained
    full_model: nn.Module  # raw images or their `look` to logits: what is traced and timed
    precision: Precision  # of `model`
    epochs: int
    batch_size: int
    label_smoothing = 0.0
    teacher_seconds = 0.0  # spent on training another model first, to learn from it
    targets: Tensor  # of the training images: int64 N, or float32 N×K where they are probabilities
    sanity_lr: float
    rank = 0  # of a probe's encoder among the configured ones

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.targets = setup.train.labels
        self._initial: dict | None = None
        torch.manual_seed(setup.config.seed)  # initial weights

    @property
    def runs(self) -> Path:
        return self.setup.config.runs_path / self.name

    @property
    def results(self) -> Path:
        return self.setup.config.results_path / self.name

    def seen(self, split: Split) -> Split:
        """The split with images as large as this model wants them."""
        return split

    def look(self, images: Tensor) -> Tensor:
        """Raw uint8 images to what `full_model` takes, without augmentation."""
        raise NotImplementedError

    def image_batches(self, epoch: int) -> Batches:
        """Training batches for `full_model`."""
        raise NotImplementedError

    def train_batches(self, epoch: int) -> Batches:
        """Training batches for `model`."""
        return self.image_batches(epoch)

    def eval_batches(self, split: Split) -> Batches:
        """All of a split for `model`, in order, without augmentation."""
        return batches(split.images, split.labels, EVAL_BATCH, transform=self.look, streamed=split.streamed)

    def arithmetic(self, image: Tensor) -> tuple[nn.Module, Tensor]:
        """A module and its input that hold every multiply-add between one preprocessed image and its logits."""
        return self.full_model, self.look(image)

    def recipe(self, model: nn.Module) -> dict:
        """Optimiser, scheduler and the like for `model`, as keyword arguments of `fit`."""
        raise NotImplementedError

    def settings(self) -> dict:
        """All that weights, logs and costs depend on, in plain values, but for pixels, labels and the machine."""
        config = self.setup.config
        return {
            "seed": config.seed,
            "image_size": self.image_size,
            "class_weights": config.class_weights,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "profile_steps": config.profile_steps,
            **self.details,
        }

    def reset(self) -> None:
        """Back to the weights before any training: a cell that is run again does not go on from where it stopped."""
        if self._initial is None:
            self._initial = copy.deepcopy(self.model.state_dict())
        self.model.load_state_dict(self._initial)

    def class_weights(self) -> Tensor | None:
        """float32 K for the loss, N / (K · images of the class), where `Config.class_weights` asks for it."""
        if not self.setup.config.class_weights:
            return None
        labels = self.setup.train.labels.cpu().numpy()
        weights = compute_class_weight("balanced", classes=np.arange(len(self.setup.classes)), y=labels)
        return torch.tensor(weights, dtype=torch.float32, device=self.setup.device)

    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.epochs * -(-len(self.setup.train) // self.batch_size)

    def _order(self, epoch: int) -> int:
        return epoch_seed(self.setup.config.seed, epoch, "order")


class CNNTask(Task):
    """The documented CNN under one of the recipes; recipe `taught` learns from `teacher` as well as from the labels."""

    kind = "cnn"
    sanity_lr = 3e-3

    def __init__(self, setup: Setup, recipe: str, teacher: Tensor | None = None) -> None:
        """`teacher`: another model's probabilities for the training images without augmentation, float32 N×K."""
        super().__init__(setup)
        config = setup.config
        self.variant = recipe
        self.name = "cnn" if recipe == config.cnn_recipe else f"cnn_{recipe}"
        self.title = f"CNN, {recipe} recipe"
        self.details = {"recipe": recipe, "encoder": "", "weights": "from scratch", "weights_sha256": ""}
        self.hyper = RECIPES[recipe]
        self.epochs = config.short_epochs if recipe in ("assignment", "short") else config.cnn_epochs
        if teacher is not None:
            labels = nn.functional.one_hot(self.targets, len(setup.classes)).float()
            self.targets = labels.lerp(teacher.to(setup.device), self.hyper.teacher_weight)
        self.batch_size = config.cnn_batch_size
        self.label_smoothing = self.hyper.label_smoothing
        self.precision = setup.precision
        self.image_size = config.image_size
        model = CNN(len(setup.classes), config.image_size)
        self.model = self.full_model = model.to(setup.device, memory_format=torch.channels_last)
        self.look = make_transform("none", setup.mean, setup.std)

    def image_batches(self, epoch: int) -> Batches:
        setup = self.setup
        seed = epoch_seed(setup.config.seed, epoch, "augmentation")
        generator = torch.Generator(setup.device).manual_seed(seed)
        transform = make_transform(self.hyper.augmentation, setup.mean, setup.std, generator)
        return batches(
            setup.train.images,
            self.targets,
            self.batch_size,
            transform=transform,
            shuffle_seed=self._order(epoch),
            streamed=setup.train.streamed,
        )

    def settings(self) -> dict:
        return super().settings() | asdict(self.hyper)

    def recipe(self, model: nn.Module) -> dict:
        r = self.hyper
        if r.optimizer == "muon":
            # Jordan et al. 2024. timm's: kernels flattened to matrices, AdamW at the same rate for the biases.
            kind = Muon if self.precision.name == "bf16" else Fp32Muon
            optimizer = kind(model.parameters(), lr=r.lr, weight_decay=r.weight_decay, momentum=0.95, nesterov=True)
        else:
            optimizer = torch.optim.AdamW(model.parameters(), lr=r.lr, weight_decay=r.weight_decay)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, one_cycle(self.steps())) if r.one_cycle else None
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(r.ema_decay)) if r.ema_decay else None
        return {
            "optimizer": optimizer,
            "scheduler": scheduler,
            "ema": ema,
            "label_smoothing": self.label_smoothing,
            "class_weights": self.class_weights(),
        }


class ProbeTask(Task):
    """A linear head on the frozen encoder. The head is trained on features computed once."""

    kind = "probe"
    sanity_lr = 3e-2
    precision = Precision("fp32")  # the head is a sliver of the cost and all of what is trained

    def __init__(self, setup: Setup, pooling: str = "cls", encoder: FrozenEncoder | None = None) -> None:
        """`pooling`: cls or layers, see `models.Probe`. `encoder`: one that is loaded; None: the first configured."""
        super().__init__(setup)
        config = setup.config
        self.encoder = encoder or load_encoder(config, setup.device, setup.precision.dtype)
        self.rank = self.encoder.rank
        self.variant = pooling
        self.name = self.encoder.folder if pooling == "cls" else f"{self.encoder.folder}_{pooling}"
        self.title = f"linear probe on {self.encoder.label}" + (", all pooled layers" if pooling == "layers" else "")
        self.details = {
            "recipe": f"{pooling}, AdamW, CosineAnnealingLR",
            "encoder": self.encoder.name,
            "weights": self.encoder.source,
            "weights_sha256": self.encoder.weights_sha256,
        }
        self.epochs = config.probe_epochs
        self.batch_size = config.probe_batch_size
        torch.manual_seed(config.seed)
        self.full_model = Probe(self.encoder, len(setup.classes), pooling).to(setup.device)
        self.model = self.full_model.head
        # A photograph goes to the encoder as large as it wants it; what is smaller anyway it enlarges itself.
        self.image_size = max(config.image_size, min(max(self.encoder.input_size), setup.largest_side))
        self._features: dict[str, Features] = {}

    def seen(self, split: Split) -> Split:
        if split.images.shape[-1] >= self.image_size:
            return split
        setup, key = self.setup, (split.sha256, self.image_size)
        if key not in setup.larger:
            setup.larger[key] = with_side(split, setup.config, self.image_size, setup.room)
        return setup.larger[key]

    def look(self, images: Tensor) -> Tensor:
        return images  # resizing and normalisation are the encoder's own

    def features(self, split: Split) -> Features:
        """The columns of the split's features that the head takes, computed at the first call."""
        if split.name not in self._features:
            config = self.setup.config
            whole = extract(
                self.encoder,
                self.seen(split).images,
                config.extract_batch_size,
                config.cache_path,
                room=self.setup.room,
                backup=self.setup.backup,
                name=split.name,
            )
            self.use_features(split, replace(whole, values=whole.values[:, : self.model.in_features]))
        return self._features[split.name]

    def use_features(self, split: Split, features: Features) -> None:
        """Take these features, N×columns of the head, for the split's; train's set the head's standardisation."""
        self._features[split.name] = features
        if split.name == "train" and isinstance(self.model, StandardizedLinear):
            self.model.measure(features.values)

    def image_batches(self, epoch: int) -> Batches:
        return self._batches(self.seen(self.setup.train), epoch)

    def train_batches(self, epoch: int) -> Batches:
        return self._batches(self.features(self.setup.train), epoch)

    def _batches(self, source: Split | Features, epoch: int) -> Batches:
        inputs = source.images if isinstance(source, Split) else source.values
        order = self._order(epoch)
        return batches(inputs, self.setup.train.labels, self.batch_size, shuffle_seed=order, streamed=source.streamed)

    def eval_batches(self, split: Split) -> Batches:
        features = self.features(split)
        return batches(features.values, split.labels, EVAL_BATCH, streamed=features.streamed)

    def arithmetic(self, image: Tensor) -> tuple[nn.Module, Tensor]:
        return Preprocessed(self.full_model), self.encoder.preprocess(image)

    def settings(self) -> dict:
        config = self.setup.config
        probe = {"probe_lr": config.probe_lr, "probe_weight_decay": config.probe_weight_decay}
        return super().settings() | probe | {"features": self.encoder.key()}

    def recipe(self, model: nn.Module) -> dict:
        config = self.setup.config
        lr = config.probe_lr * self.encoder.features / self.model.in_features  # `layers` has ten times the inputs
        optimizer = torch.optim.AdamW(trainable(model), lr=lr, weight_decay=config.probe_weight_decay)
        return {
            "optimizer": optimizer,
            "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.steps()),
            "class_weights": self.class_weights(),
        }


def probe_tasks(setup: Setup) -> tuple[list[ProbeTask], list[ProbeTask]]:
    """Both probes, `cls` and `layers`, of each configured encoder."""
    encoders = load_encoders(setup.config, setup.device, setup.precision.dtype)
    return tuple([ProbeTask(setup, pooling, encoder) for encoder in encoders] for pooling in ("cls", "layers"))
