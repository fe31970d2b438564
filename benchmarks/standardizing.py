"""What the probe's features are divided by, and what that is worth on few and on many images.

HW1_ENCODER=… HW1_WEIGHTS=… [HW1_DATA=…] python -m benchmarks.standardizing [--counts 20 100 1000] [--seeds 4]

The probe on the class token (of an encoder that is no ViT, on its pooled features), judged on the validation images.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from hw1_utils.config import make_config
from hw1_utils.experiment import ProbeTask, prepare
from hw1_utils.studies.studies import some_of, train_only

# title -> mean and deviation, from features N×D
WAYS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "nothing": lambda x: (torch.zeros(()), torch.ones(())),
    "nothing, features × 0.1": lambda x: (torch.zeros(()), torch.tensor(10.0)),
    "one deviation for all": lambda x: (x.mean(0), (x - x.mean(0)).square().mean().sqrt()),
    "each its own": lambda x: (x.mean(0), _own(x)),
    "each its own, at least half the median": lambda x: (x.mean(0), _own(x).clamp(min=_own(x).median() / 2)),
}


def _own(x: Tensor) -> Tensor:
    deviation = x.std(0, correction=0)
    return torch.where(deviation > 0, deviation, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[20, 100, 1000])
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        with contextlib.redirect_stdout(io.StringIO()):
            setup = prepare(make_config("full", output_dir=home))
            whole = ProbeTask(setup)
            train, val = whole.features(setup.train), whole.features(setup.val)
        print(f"{whole.title}, {len(setup.val):,} validation images: accuracy in %\n")
        titles = [*WAYS, "each its own, at least the median: as it is"]
        print(f"| Images | {' | '.join(titles)} |\n|---{'|---' * len(titles)}|")
        for count in options.counts:
            cells = []
            for title in titles:
                found = []
                for seed in range(options.seeds):
                    rows = some_of(setup.train, count, seed)
                    part = replace(setup, train=setup.train.part_of(rows), config=replace(setup.config, seed=seed))
                    task = ProbeTask(part, encoder=whole.encoder)
                    task.use_features(part.train, replace(train, part=rows.cpu()))
                    task.use_features(setup.val, val)
                    if title in WAYS:
                        task.mean, task.deviation = WAYS[title](train.values[rows])
                    found.append(train_only(task)[0].accuracy * 100)
                cells.append(f"{statistics.mean(found):.1f}")
            print(f"| {count:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
