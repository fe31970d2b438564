"""How a model is trained: recipes, the Muon optimiser, schedules, the moving average of the weights."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained; the CNN's architecture is the same in every recipe."""

    optimizer: str  # adamw, or muon: Nesterov momentum, each matrix of it orthogonalised, see `Muon`
    lr: float  # learning rate, of a schedule its peak
    weight_decay: float
    length: str = "short_epochs"  # name of the setting of `Config` that says for how many epochs
    schedule: str = "constant"  # or one_cycle: up linearly for a fifth of the run, then down to zero; cosine: to zero
    augmentation: str = "none"  # resized_crop (RandomResizedCrop, flip), shift (with flip and colour jitter) or none
    whitened: bool = False  # the first layer begins as the whitening of training patches, see `models.whiten`
    label_smoothing: float = 0.0
    teacher_weight: float = 0.0  # > 0: this share of every target is the probe's probabilities, the rest the label
    ema_decay: float = 0.0  # > 0: evaluate a `MovingAverage` of the weights (0.99 = the last ~100 steps)


# RandomResizedCrop's boxes (8 % of the area upwards) are too hard for a network this small; shifts are not.
_TUNED = Recipe(
    optimizer="muon",
    lr=6e-3,
    weight_decay=0.3,
    length="cnn_epochs",
    schedule="one_cycle",
    augmentation="shift",
    label_smoothing=0.1,
    ema_decay=0.99,
)
# Results are the committed run's, on CIFAR-10: accuracy with its 95 % interval, seconds with features and teacher.
RECIPES: Mapping[str, Recipe] = {
    # The assignment to the letter: torchvision's default RandomResizedCrop(32), flip, a plain optimiser.
    # result of assignment: 12 epochs, 69.8 % (68.8–70.6) on test, 133 s on 2 threads of AMD EPYC, bf16
    "assignment": Recipe(optimizer="adamw", lr=1e-3, weight_decay=0.01, augmentation="resized_crop"),
    # result of tuned: 80 epochs, 88.1 % (87.5–88.8) on test, 951 s on 2 threads of AMD EPYC, bf16
    "tuned": _TUNED,
    # The same for `Config.short_epochs`, from a start that is worth a point or two in a few epochs, in many nothing.
    # result of short: 12 epochs, 85.6 % (84.9–86.3) on test, 140 s on 2 threads of AMD EPYC, bf16
    "short": replace(_TUNED, length="short_epochs", whitened=True),
    # Knowledge distillation (Hinton et al. 2015): the teacher's probabilities say what label smoothing cannot.
    # result of distilled: 80 epochs, 88.1 % (87.5–88.7) on test, 1,421 s on 2 threads of AMD EPYC, bf16
    "distilled": replace(_TUNED, label_smoothing=0.0, teacher_weight=0.5),
}
# A probe's recipe comes of the settings, see `experiment.probe`: AdamW on standardised features, a cosine to zero.
# result of cls: 30 epochs, 90.2 % (89.6–90.8) on test, 423 s on 2 threads of AMD EPYC, bf16
# result of blocks: 30 epochs, 92.2 % (91.7–92.7) on test, 430 s on 2 threads of AMD EPYC, bf16


@dataclass(frozen=True)
class Optimization:
    """What the loop needs beside a model and its batches."""

    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None  # stepped after every step of the optimiser
    ema: "MovingAverage | None" = None  # where there is one, it is what is validated
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None  # float32 K, what an image of each class counts in the loss


def make_optimization(
    model: nn.Module, recipe: Recipe, steps: int, *, class_weights: Tensor | None = None, muon_dtype: torch.dtype
) -> Optimization:
    """The recipe for the parameters of `model` that can be trained, over `steps` steps.

    Args:
        muon_dtype: in which Muon orthogonalises: float32 where the hardware has no bfloat16 (50 ms a step instead of
            3 on an AVX2 processor that emulates it).
    """
    parameters = trainable(model)
    if recipe.optimizer == "muon":
        optimizer = Muon(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, dtype=muon_dtype)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    scheduler = None
    if recipe.schedule == "one_cycle":
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, one_cycle(steps))
    elif recipe.schedule == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    ema = MovingAverage(model, recipe.ema_decay) if recipe.ema_decay else None
    return Optimization(optimizer, scheduler, ema, recipe.label_smoothing, class_weights)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def one_cycle(steps: int) -> Callable[[int], float]:
    """Factor of the peak learning rate at each step: up linearly for a fifth of the run, then down to zero."""
    return lambda step: max(0.0, min(1.0, (step + 1) / (0.2 * steps), (steps - step) / (0.8 * steps)))


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024): Nesterov momentum whose every matrix is made orthogonal before it is applied.

    A convolution's kernels are one matrix, outputs × (inputs · height · width). Biases, matrices with a side below 4
    or very long ones, and heads of many classes get AdamW with Nesterov momentum at the same rate. The same as timm's
    Muon to the last digit, but that one cannot be told to work in float32. The step size is that of Liu et al. 2025,
    "Muon is scalable for LLM training".
    """

    # a, b, c of five Newton-Schulz steps a·x + b·(x·xᵀ)·x + c·(x·xᵀ)²·x, which bring all singular values near 1.
    STEPS = (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    )
    MOMENTUM, BETAS, EPS = 0.95, (0.9, 0.95), 1e-7
    SHORTEST, LONGEST = 4, 128  # a matrix's smaller side; times as long as that the larger
    HEAD_CLASSES = 100  # with more, orthogonalising the head costs more than the rest of the step

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float, dtype: torch.dtype):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                update = self._orthogonal if self._is_matrix(parameter) else self._nadamw
                update(parameter, parameter.grad, self.state[parameter], group["lr"])

    def _is_matrix(self, parameter: Tensor) -> bool:
        if parameter.ndim < 2 or (parameter.ndim == 2 and len(parameter) > self.HEAD_CLASSES):
            return False
        short, long = sorted(parameter.flatten(1).shape)
        return short >= self.SHORTEST and long <= self.LONGEST * short

    def _orthogonal(self, parameter: Tensor, gradient: Tensor, state: dict, lr: float) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - self.MOMENTUM)
        matrix = gradient.lerp(momentum, self.MOMENTUM).flatten(1)
        update = self.orthogonalize(matrix).reshape(parameter.shape)
        parameter.add_(update, alpha=-lr * 0.2 * max(matrix.shape) ** 0.5)  # as long as AdamW's steps on average

    def orthogonalize(self, matrix: Tensor) -> Tensor:
        """The orthogonal matrix nearest to this one, M×N, about."""
        x = matrix.to(self.dtype)
        x = x.mT if len(x) > x.shape[1] else x
        x = (x / x.norm().clamp(min=self.EPS)).contiguous()
        for a, b, c in self.STEPS:
            squares = x @ x.mT
            x = torch.addmm(x, torch.addmm(squares, squares, squares, beta=b, alpha=c), x, beta=a)
        return x.mT if len(matrix) > matrix.shape[1] else x

    def _nadamw(self, parameter: Tensor, gradient: Tensor, state: dict, lr: float) -> None:
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        state["step"] += 1
        beta1, beta2 = self.BETAS
        exp_avg = state["exp_avg"].lerp_(gradient, 1 - beta1).lerp(gradient, 1 - beta1)  # the second is Nesterov's
        exp_avg_sq = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        correction1, correction2 = (1 - beta ** state["step"] for beta in self.BETAS)
        parameter.addcdiv_(exp_avg, (exp_avg_sq.sqrt() / correction2**0.5).add_(self.EPS), value=-lr / correction1)


class MovingAverage(nn.Module):
    """An exponential moving average of a model's parameters (not of buffers), with a warm-up.

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

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        self.steps = int(state)
