"""Other starts for the same network, at equal numbers of epochs, which here is equal time.

python -m benchmarks.starting [--epochs 2 4 12] [--seeds 3] [--starts random whitened]

CIFAR-10, recipes tuned and short but for their epochs, 45,000 images; judged on the 5,000 validation images.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from hw1_utils.augment import JITTER, jitter, normalize, shift
from hw1_utils.config import make_config
from hw1_utils.data import Data
from hw1_utils.experiment import Run, cnn, load
from hw1_utils.optim import Muon, Optimization, one_cycle
from hw1_utils.training import evaluate, fit


def alternating(run: Run, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of an epoch: every image is mirrored in every other epoch, in place of at random (Jordan 2024)."""
    samples, device = run.train, run.train.targets.device
    generators = [torch.Generator(place).manual_seed(run.seed * 1000 + epoch) for place in ("cpu", device)]
    once = torch.randint(0, 2, (len(samples),), generator=torch.Generator().manual_seed(run.seed))
    for index in torch.randperm(len(samples), generator=generators[0]).split(run.batch_size):
        images = samples.inputs[index]
        offsets = torch.randint(-4, 5, (len(index), 2), device=device, generator=generators[1])
        factors = torch.empty(2, len(index), device=device).uniform_(1 - JITTER, 1 + JITTER, generator=generators[1])
        moved = jitter(shift(images, offsets, ((once[index] + epoch) % 2 == 1).to(device)).float(), *factors)
        normalised = normalize(moved, run.data.mean, run.data.std).contiguous(memory_format=torch.channels_last)
        yield normalised, samples.targets[index.to(device)]


def own_rates(run: Run, biases: float, head: float) -> Optimization:
    """The recipe's optimisation with these factors of the rate for the biases and for the head's weights."""
    optimization, recipe = run.optimization(run.model), run.recipe
    named = dict(run.model.named_parameters())
    groups = [
        {"params": [p for name, p in named.items() if name.endswith("weight") and name != "head.weight"]},
        {"params": [p for name, p in named.items() if name.endswith("bias")], "lr": recipe.lr * biases},
        {"params": [named["head.weight"]], "lr": recipe.lr * head},
    ]
    optimizer = Muon(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, dtype=optimization.optimizer.dtype)
    steps = run.epochs * -(-len(run.train) // run.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, one_cycle(steps))
    return replace(optimization, optimizer=optimizer, scheduler=scheduler)


STARTS = {  # title -> (whitened, flips alternate, factors of the rate for biases and head)
    "random": (False, False, None),  # as PyTorch begins, and recipe tuned
    "whitened": (True, False, None),  # recipe short
    "whitened, alternating flips": (True, True, None),
    "whitened, biases at 8 times the rate": (True, False, (8, 1)),
    "whitened, head at half the rate": (True, False, (1, 0.5)),
    "whitened, head at twice the rate": (True, False, (1, 2)),
}


def accuracy(data: Data, start: str, epochs: int, seed: int) -> float:
    """On validation, after one training."""
    whitened, alternate, factors = STARTS[start]
    run = replace(cnn(data, "short" if whitened else "tuned", seed=seed), epochs=epochs)
    optimization = own_rates(run, *factors) if factors else run.optimization(run.model)
    batches = partial(alternating, run) if alternate else partial(run.train.batches, run.batch_size)
    fit(run.model, batches, optimization, epochs=epochs, precision=run.precision)
    return evaluate(optimization.ema.module, run.val.in_order(), run.precision).accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, nargs="+", default=[2, 4, 12])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        with contextlib.redirect_stdout(io.StringIO()):
            data = load(make_config("full", test_size=2000, output_dir=home))
        print(f"| Start | {' | '.join(f'{n} epochs' for n in options.epochs)} |\n|---{'|---' * len(options.epochs)}|")
        for start in options.starts:
            cells = []
            for epochs in options.epochs:
                values = [accuracy(data, start, epochs, seed) * 100 for seed in range(options.seeds)]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread}")
            print(f"| {start} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
