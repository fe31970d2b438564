"""The linear probe as a Task: a head on features that are computed once."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from .batching import batches
from .data import Split, with_side
from .device import Precision
from .features import Features, extract, standardization
from .measure.environment import timed_on
from .models import FrozenEncoder, Preprocessed, Probe, folded, load_encoder, load_encoders
from .preparation import Setup
from .tasks import EVAL_BATCH, Task
from .training import Batches, trainable


class ProbeTask(Task):
    """A linear head on the frozen encoder. The head is trained on features computed once, standardised.

    So its learning rate fits any encoder: features that are ten times as large train as these do. What comes out is
    a plain linear layer all the same, with mean and deviation folded into it: see `on_images`.
    """

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
        self.model = copy.deepcopy(self.full_model.head)  # of standardised features
        columns = self.model.in_features
        self.mean, self.deviation = torch.zeros(columns), torch.ones(columns)  # of the training features, once there
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
            config, computed = self.setup.config, self.setup.features
            key = (self.encoder.key(), split.sha256, self.image_size)  # both poolings take columns of the same
            if key not in computed:
                computed[key] = extract(
                    self.encoder,
                    self.seen(split),
                    config.extract_batch_size,
                    config.cache_path,
                    room=self.setup.room,
                    backup=self.setup.backup,
                    machine=timed_on(self.setup.environment),
                    timed=split.name == "train",
                    name=split.name,
                )
            whole = computed[key]
            self.use_features(split, replace(whole, values=whole.values[:, : self.model.in_features]))
        return self._features[split.name]

    def use_features(self, split: Split, features: Features) -> None:
        """Take these features, N×columns of the head, for the split's; train's set the standardisation."""
        self._features[split.name] = features
        if split.name == "train":
            self.mean, self.deviation = (x.to(self.setup.device) for x in standardization(features))

    def standardize(self, features: Tensor) -> Tensor:
        """Float32 B×D features, on the device, as the head is trained on them."""
        return (features - self.mean) / self.deviation

    def on_images(self, head: nn.Linear) -> Probe:
        """The whole probe, raw images in, with a head that was trained on standardised features."""
        probe = Probe(self.encoder, len(self.setup.classes), self.variant)
        probe.head = folded(head, self.mean, self.deviation)
        return probe

    def image_batches(self, epoch: int) -> Batches:
        images = self.seen(self.setup.train)
        return batches(
            images.images,
            images.labels,
            self.batch_size,
            shuffle_seed=self._order(epoch),
            streamed=images.streamed,
            part=images.part,
        )

    def train_batches(self, epoch: int) -> Batches:
        return self._feature_batches(self.setup.train, self.batch_size, shuffle_seed=self._order(epoch))

    def eval_batches(self, split: Split) -> Batches:
        return self._feature_batches(split, EVAL_BATCH)

    def _feature_batches(self, split: Split, batch_size: int, shuffle_seed: int | None = None) -> Batches:
        features = self.features(split)
        return batches(
            features.values,
            split.labels,
            batch_size,
            transform=self.standardize,
            shuffle_seed=shuffle_seed,
            streamed=features.streamed,
            part=features.part,
        )

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
    """The probes of each configured encoder: `cls`, and `layers` where there are further tokens, as a ViT has them."""
    encoders = load_encoders(setup.config, setup.device, setup.precision.dtype)
    of_layers = [encoder for encoder in encoders if encoder.columns > encoder.features]
    return [ProbeTask(setup, encoder=e) for e in encoders], [ProbeTask(setup, "layers", e) for e in of_layers]
