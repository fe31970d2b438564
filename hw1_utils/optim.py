"""How the CNN is trained: its recipes, and what they need beside torch's optimisers."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from unittest import mock

import torch
from timm.optim import Muon, muon
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the CNN is trained; its architecture is the same in every recipe."""

    augmentation: str  # resized_crop (RandomResizedCrop, flip), shift (with flip and colour jitter) or none
    optimizer: str  # adamw, or muon: Nesterov momentum, each matrix of it orthogonalised (adamw for the biases)
    lr: float  # learning rate, with one_cycle its peak
    weight_decay: float
    one_cycle: bool  # linear warm-up and decay to zero over the whole run; else a constant rate
    label_smoothing: float
    teacher_weight: float  # > 0: this share of every target is the probe's probabilities, the rest the label
    ema_decay: float  # > 0: evaluate a `MovingAverage` of the weights (0.99 = the last ~100 steps)


# RandomResizedCrop's boxes (8 % of the area upwards) are too hard for a network this small; shifts are not.
_TUNED = Recipe(
    augmentation="shift",
    optimizer="muon",
    lr=6e-3,
    weight_decay=0.3,
    one_cycle=True,
    label_smoothing=0.1,
    teacher_weight=0.0,
    ema_decay=0.99,
)
RECIPES: Mapping[str, Recipe] = {
    # The assignment to the letter: torchvision's default RandomResizedCrop(32), flip, a plain optimiser.
    "assignment": Recipe(
        augmentation="resized_crop",
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.01,
        one_cycle=False,
        label_smoothing=0.0,
        teacher_weight=0.0,
        ema_decay=0.0,
    ),
    "tuned": _TUNED,
    "short": _TUNED,  # for `short_epochs`
    # Knowledge distillation (Hinton et al. 2015): the teacher's probabilities say what label smoothing cannot.
    "taught": replace(_TUNED, label_smoothing=0.0, teacher_weight=0.5),
}


class Fp32Muon(Muon):
    """timm's Muon, but orthogonalising in fp32.

    timm does it in bf16 and lets nobody choose. Hardware without bf16 emulates it: 50 ms a step instead of 3 on an
    AVX2 processor.
    """

    def step(self, closure: Callable | None = None) -> float | None:
        in_fp32 = partial(muon.zeropower_via_newtonschulz, dtype=torch.float32)
        with mock.patch.object(muon, "zeropower_via_newtonschulz", in_fp32):
            return super().step(closure)


class MovingAverage(nn.Module):
    """An exponential moving average of a model's parameters, with a warm-up.

    After n steps the decay is (1 + n) / (4 + n), so that about the last third of them counts, until it has grown to
    `decay`. Without that a short training would be judged mostly by its first weights. TensorFlow's
    ExponentialMovingAverage has 10 in place of 4: tried, as others were, in benchmarks/README.md. timm's and torch's
    averages have no warm-up, or do not count their steps by themselves.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's parameters after a further step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (4 + self.steps))
        torch._foreach_lerp_(list(self.module.parameters()), list(model.parameters()), 1 - decay)

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor(self.steps)

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.steps = int(state)


def one_cycle(steps: int, warm_up: float = 0.2) -> Callable[[int], float]:
    """Factor of the peak learning rate at each step: up linearly for a fifth of the run, then down to zero."""
    return lambda step: max(0.0, min(1.0, (step + 1) / (warm_up * steps), (steps - step) / ((1 - warm_up) * steps)))
