"""Ahead of a run, by as many processes as torchrun starts: its images decoded, features computed, models trained.

Everything is kept on disk under the hash of all that it depends on, complete or absent, so the run finds it there. What
must be measured alone (the costs), and what is chosen or said, is left to the run; of the test images nothing is
computed but pixels and features.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import replace

import torch.distributed as dist

from ..config import Config
from ..data import Data
from ..errors import Hw1Error
from ..experiment import Run, cnn, load, load_test, probe, train
from ..features import Features, extract, extract_split
from ..io.ranks import ALONE, Ranks, ranks
from ..models import load_encoders
from ..studies.beside import block_probes, distilled, further_recipes
from ..studies.common import train_only
from ..studies.input_size import size_runs
from ..studies.learning_curve import curve_runs
from ..studies.seeds import seed_runs

CHECKPOINT = "checkpoint"  # of a training that the run compares: `train` keeps its logs, too


def work_ahead(config: Config) -> None:
    """Leave on disk what a run of these settings decodes, extracts and trains. All processes of a torchrun call this.

    Raises:
        Hw1Error: as `load`, `extract` and `train`; a disk takes no file; another process has ended.
    """
    with ranks() as started:
        together = replace(started, ahead=True)
        _refuse(config, together)
        with _heard(together, together.is_first):
            data = load(config, together)
            features = _extract_all(data)
        alone = replace(data.context, ranks=ALONE)  # from here on each has trainings of its own
        data = replace(data, context=alone)
        features = [replace(one, data=data) for one in features]
        with _heard(together, together.count > 1):
            count = _train_all(data, features, together)
        together.barrier()
        if "input_size" in config.asked:
            with _heard(together, together.is_first):
                count += _train_sizes(features, together)
        together.barrier()
        if together.is_first:
            print(_what_next(data, count))


def _refuse(config: Config, together: Ranks) -> None:
    if config.fresh:
        raise Hw1Error("fresh=True would have the run do again what work has done before it: leave it out.")
    if config.backup_dir and together.count > 1:
        raise Hw1Error("backup_dir is for one process alone: leave it out under torchrun, or work without torchrun.")


def _extract_all(data: Data) -> list[Features]:
    """The features of all images for each encoder, of the test's as well, which need no labels."""
    test, features = load_test(data), []
    for encoder in load_encoders(data.context):
        features.append(extract(encoder, data))
        extract_split(encoder, test, data)
    return features


def _train_all(data: Data, features: list[Features], together: Ranks) -> int:
    """Train, and say how many that are: the probes first, of which one may be a teacher, then the longest first."""
    config = data.context.config
    headline, probes = cnn(data), [probe(one) for one in features]
    compared = [*probes, *(block_probes(features) if "blocks" in config.asked else [])]
    for run in together.share(compared):
        train(run)
    together.barrier()
    trainings = [(CHECKPOINT, headline)]
    if "recipes" in config.asked:
        trainings += [(CHECKPOINT, run) for run in further_recipes(data)]
        if together.is_first:  # there is no longer one; of its teacher one process alone keeps the logs
            train(distilled(data, [train(run) for run in compared]))
    if "learning_curve" in config.asked:
        trainings += curve_runs(headline, compared)
    if "seeds" in config.asked:
        trainings += [training for run in (headline, *compared) for training in seed_runs(run)]
    for name, run in together.share(sorted(trainings, key=_shortness)):
        if name == CHECKPOINT:
            train(run)
        else:
            train_only(run, name=name)
            print(f"{run.title}, {name}: {run.epochs} epochs")
    return len(compared) + len(trainings) + ("recipes" in config.asked)


def _shortness(training: tuple[str, Run]) -> tuple[bool, int]:
    """To sort by: a CNN sees pixels and takes longer than a head, and each in proportion to what it sees."""
    _, run = training
    return run.kind != "cnn", -run.epochs * len(run.train)


def _train_sizes(features: list[Features], together: Ranks) -> int:
    """The probes at other input sizes: features by all processes, then each size's training, of seconds, by one."""
    count = 0
    for one in features:
        data = replace(one.data, context=replace(one.data.context, ranks=together))
        for name, run in size_runs(probe(replace(one, data=data))):
            if count % together.count == together.rank:
                train_only(run, name=name)
            count += 1
    return count


def _what_next(data: Data, count: int) -> str:
    context = data.context
    said = f"{count} trainings and all features are on disk: a run of the same settings finds them"
    if context.device.type == "cpu" and dist.is_torchelastic_launched():
        threads = context.environment["torch_threads"]
        said += f" with OMP_NUM_THREADS={threads} before its command, as a CPU's training depends on its threads"
    return f"{said}. It measures costs itself, alone."


class _Marked(io.TextIOBase):
    """Lines of one process among others: each is written whole, with its number in front."""

    def __init__(self, rank: int) -> None:
        self.stream, self.mark, self.begun = sys.stdout, f"[{rank}] ", ""

    def write(self, text: str) -> int:
        *lines, self.begun = (self.begun + text).split("\n")
        for line in lines:
            self.stream.write(f"{self.mark}{line}\n")
        self.stream.flush()
        return len(text)


@contextlib.contextmanager
def _heard(together: Ranks, heard: bool) -> Iterator[None]:
    """What this process prints, if it is to be heard: of several with its number."""
    if not heard:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    elif together.count > 1:
        with contextlib.redirect_stdout(_Marked(together.rank)):
            yield
    else:
        yield
