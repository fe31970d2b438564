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

import torch
from torch import nn

from hw1_utils.config import make_config
from hw1_utils.experiment import CNNTask, prepare
from hw1_utils.preparation import Setup
from hw1_utils.studies.studies import _cnn_on, some_of
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


def accuracies(setup: Setup, count: int, seed: int) -> dict[str, float]:
    """Validation accuracy of each kind of weights after one training on `count` images."""
    seeded = replace(setup, config=replace(setup.config, seed=seed))
    total = len(setup.train)
    if count < total:
        part = setup.train.part_of(some_of(setup.train, count, seed))
        task = _cnn_on(replace(seeded, train=part), total, CNNTask(seeded, "short"))
    else:
        task = CNNTask(seeded, "short")
    averages = Averages(task.model)
    recipe = task.recipe(task.model) | {"ema": averages}
    fit(task.model, task.train_batches, epochs=task.epochs, precision=task.precision, **recipe)
    models = {"trained weights": task.model} | averages.modules
    return {name: evaluate(m, task.eval_batches(setup.val), task.precision).accuracy for name, m in models.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 300, 1000, 5000, 45000])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        with contextlib.redirect_stdout(io.StringIO()):
            setup = prepare(make_config("full", cnn_recipe="short", test_size=2000, output_dir=home))
        titles = ["trained weights", *DECAYS]
        print(f"| Images | {' | '.join(titles)} |\n|---{'|---' * len(titles)}|")
        for count in options.counts:
            found = [accuracies(setup, count, seed) for seed in range(options.seeds if count < 45_000 else 1)]
            cells = []
            for name in titles:
                values = [accuracy[name] * 100 for accuracy in found]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread}")
            print(f"| {count:,} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
