"""Weights averaged in several ways, and the trained weights themselves, on few and on many images.

python -m benchmarks.averaging [--counts 100 300 1000 5000 45000] [--seeds 3]

CIFAR-10, recipe short with the learning curve's epochs; every average follows the same trainings, and is judged on the
5,000 validation images.
"""

import argparse
import contextlib
import copy
import io
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from hw1_utils.config import make_config
from hw1_utils.data import Data
from hw1_utils.experiment import cnn, load
from hw1_utils.studies.learning_curve import cnn_on
from hw1_utils.training import evaluate, fit

DECAYS: dict[str, Callable[[int], float]] = {  # title -> the decay after n steps
    "no warm-up (torch's)": lambda n: 0.99 if n > 1 else 0.0,
    "bias-corrected, as Adam's": lambda n: 0.99 * (1 - 0.99 ** (n - 1)) / (1 - 0.99**n),
    "(1 + n) / (10 + n)": lambda n: min(0.99, (1 + n) / (10 + n)),
    "(1 + n) / (4 + n), as it is": lambda n: min(0.99, (1 + n) / (4 + n)),
}


class Averages:
    """Follows one training with all of them."""

    def __init__(self, model: nn.Module) -> None:
        self.modules, self.steps = {title: copy.deepcopy(model) for title in DECAYS}, 0
        self.module = model  # what `fit` takes for the average

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        for title, decay in DECAYS.items():
            kept = list(self.modules[title].parameters())
            torch._foreach_lerp_(kept, list(model.parameters()), 1 - decay(self.steps))


def accuracies(data: Data, count: int, seed: int) -> dict[str, float]:
    """Validation accuracy of each kind of weights after one training on `count` images."""
    run = cnn_on(data.subset(count, seed), cnn(data, "short", seed=seed))
    averages = Averages(run.model)
    optimization = replace(run.optimization(run.model), ema=averages)
    batches = partial(run.train.batches, run.batch_size)
    fit(run.model, batches, optimization, epochs=run.epochs, precision=run.precision)
    models = {"trained weights": run.model} | averages.modules
    return {name: evaluate(model, run.val.in_order(), run.precision).accuracy for name, model in models.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 300, 1000, 5000, 45000])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        with contextlib.redirect_stdout(io.StringIO()):
            data = load(make_config("full", cnn_recipe="short", test_size=2000, output_dir=home))
        titles = ["trained weights", *DECAYS]
        print(f"| Images | {' | '.join(titles)} |\n|---{'|---' * len(titles)}|")
        for count in options.counts:
            found = [accuracies(data, count, seed) for seed in range(options.seeds if count < 45_000 else 1)]
            cells = []
            for name in titles:
                values = [accuracy[name] * 100 for accuracy in found]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread}")
            print(f"| {count:,} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
