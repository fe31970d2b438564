"""Weights averaged with and without a warm-up, and the trained weights themselves, on few and on many images.

python -m benchmarks.averaging [--counts 100 300 1000 5000 45000] [--seeds 3]

CIFAR-10, recipe short with the learning curve's epochs; each row is judged on the 5,000 validation images.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
from dataclasses import replace

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hw1_utils.config import make_config
from hw1_utils.experiment import CNNTask, prepare
from hw1_utils.preparation import Setup
from hw1_utils.recipes import MovingAverage
from hw1_utils.studies import _cnn_on, some_of
from hw1_utils.training import evaluate, fit

DECAY = 0.99  # of the recipe


class Plain(AveragedModel):
    """torch's, which has no warm-up but that it takes over the first step's weights whole."""

    update = AveragedModel.update_parameters


class Both:
    """Follows one training with both averages."""

    def __init__(self, model: nn.Module) -> None:
        plain = Plain(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
        self.averages = {"with warm-up": MovingAverage(model, DECAY), "without": plain}
        self.module = self.averages["with warm-up"].module

    def update(self, model: nn.Module) -> None:
        for average in self.averages.values():
            average.update(model)


def accuracies(setup: Setup, count: int, seed: int) -> dict[str, float]:
    """Validation accuracy of each kind of weights after one training on `count` images."""
    seeded = replace(setup, config=replace(setup.config, seed=seed))
    total = len(setup.train)
    if count < total:
        part = setup.train.part_of(some_of(setup.train, count, seed))
        task = _cnn_on(replace(seeded, train=part), total, CNNTask(seeded, "short"))
    else:
        task = CNNTask(seeded, "short")
    both = Both(task.model)
    fit(
        task.model,
        task.train_batches,
        epochs=task.epochs,
        precision=task.precision,
        **task.recipe(task.model) | {"ema": both},
    )
    models = {"trained weights": task.model} | {name: average.module for name, average in both.averages.items()}
    return {name: evaluate(m, task.eval_batches(setup.val), task.precision).accuracy for name, m in models.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 300, 1000, 5000, 45000])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        with contextlib.redirect_stdout(io.StringIO()):
            setup = prepare(make_config("full", cnn_recipe="short", test_size=2000, output_dir=home))
        print("| Images | trained weights | without warm-up | with warm-up |\n|---|---|---|---|")
        for count in options.counts:
            found = [accuracies(setup, count, seed) for seed in range(options.seeds if count < 45_000 else 1)]
            cells = []
            for name in ("trained weights", "without", "with warm-up"):
                values = [accuracy[name] * 100 for accuracy in found]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread}")
            print(f"| {count:,} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
