"""What is trained: each Task tells the loop all it must know about a model. The CNN under a recipe is one."""

import copy
from dataclasses import asdict
from pathlib import Path

import torch
from timm.optim import Muon
from torch import Tensor, nn

from .augment import make_transform
from .batching import batches, epoch_seed
from .data import Split
from .device import Precision
from .models import CNN
from .optim import RECIPES, Fp32Muon, MovingAverage, one_cycle
from .preparation import Setup
from .training import Batches

MUON_CLASSES = 100  # with more, orthogonalising the head costs more than the rest of the step: AdamW takes it
EVAL_BATCH = 512  # rows per evaluation pass; has no influence on the numbers
EVAL_PIXELS = 2**22  # of all images in one: the first layer makes 32 numbers of each


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
        rows = max(1, min(EVAL_BATCH, EVAL_PIXELS // self.image_size**2))
        return batches(split.images, split.labels, rows, transform=self.look, streamed=split.streamed, part=split.part)

    def arithmetic(self, image: Tensor) -> tuple[nn.Module, Tensor]:
        """A module and its input that hold every multiply-add between one preprocessed image and its logits."""
        return self.full_model, self.look(image)

    def on_images(self, model: nn.Module) -> nn.Module:
        """What `full_model` is, with the weights of a trained `model`."""
        return model

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
        """float32 K for the loss, N / (classes · images of the class), where `Config.class_weights` asks for it.

        As scikit-learn's "balanced"; a class without images, as a part of the training images may have one, gets 0.
        """
        if not self.setup.config.class_weights:
            return None
        counts = torch.tensor(list(self.setup.train.counts().values()), device=self.setup.device)
        share = (counts > 0).sum() * counts / counts.sum()
        return torch.where(counts > 0, 1 / share, 0.0)

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
        # The taught CNN has the headline's epochs: else they, and not the teacher, might be the difference.
        schedule = config.cnn_recipe if recipe == "taught" else recipe
        self.epochs = config.cnn_epochs if schedule == "tuned" else config.short_epochs
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
            part=setup.train.part,
        )

    def settings(self) -> dict:
        return super().settings() | asdict(self.hyper)

    def recipe(self, model: nn.Module) -> dict:
        r = self.hyper
        if r.optimizer == "muon":
            # Jordan et al. 2024. timm's: kernels flattened to matrices, AdamW at the same rate for the biases.
            kind = Muon if self.precision.name == "bf16" else Fp32Muon
            wide = {model.head.weight} if len(self.setup.classes) > MUON_CLASSES else set()
            groups = [{"params": [p for p in model.parameters() if p not in wide]}]
            groups += [{"params": list(wide), "use_fallback": True}] if wide else []
            optimizer = kind(groups, lr=r.lr, weight_decay=r.weight_decay, momentum=0.95, nesterov=True)
        else:
            optimizer = torch.optim.AdamW(model.parameters(), lr=r.lr, weight_decay=r.weight_decay)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, one_cycle(self.steps())) if r.one_cycle else None
        ema = MovingAverage(model, r.ema_decay) if r.ema_decay else None
        return {
            "optimizer": optimizer,
            "scheduler": scheduler,
            "ema": ema,
            "label_smoothing": self.label_smoothing,
            "class_weights": self.class_weights(),
        }


def cnn_tasks(setup: Setup) -> list[CNNTask]:
    """The headline CNN, then those beside it that need no teacher: short and assignment, unless one is the headline."""
    recipes = dict.fromkeys([setup.config.cnn_recipe, "short", "assignment"])
    return [CNNTask(setup, recipe) for recipe in recipes]
