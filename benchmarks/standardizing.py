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
from hw1_utils.experiment import load, probe
from hw1_utils.features import Features, extract
from hw1_utils.models import load_encoders
from hw1_utils.studies.common import train_only

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


def accuracy(features: Features, title: str, seed: int) -> float:
    """On the validation images, in %, of a probe whose features are standardised in this way."""
    run = probe(features, seed=seed)
    if title in WAYS:
        rows = features.train[:][:, : run.model.in_features]
        mean, deviation = (x.to(rows.device) for x in WAYS[title](rows))
        train, val = (replace(s, transform=lambda x, _: (x - mean) / deviation) for s in (run.train, run.val))
        run = replace(run, train=train, val=val)
    return train_only(run)[0].accuracy * 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[20, 100, 1000])
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        with contextlib.redirect_stdout(io.StringIO()):
            data = load(make_config("full", output_dir=home))
            whole = extract(load_encoders(data.context)[0], data)
        print(f"{probe(whole).title}, {len(data.val):,} validation images: accuracy in %\n")
        titles = [*WAYS, "each its own, at least the median: as it is"]
        print(f"| Images | {' | '.join(titles)} |\n|---{'|---' * len(titles)}|")
        for count in options.counts:
            cells = []
            for title in titles:
                seeds = range(options.seeds)
                found = [accuracy(whole.subset(count, seed), title, seed) for seed in seeds]
                cells.append(f"{statistics.mean(found):.1f}")
            print(f"| {count:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
