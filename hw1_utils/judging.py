"""Trained models on test: each is judged once, after all training."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from . import metrics
from .data import Split
from .errors import Hw1Error
from .experiment import Training
from .tasks import Task
from .training import Evaluation, evaluate


@dataclass(frozen=True)
class Result:
    """A trained model, judged on test."""

    training: Training
    test: Evaluation
    classes: list[str]

    @property
    def task(self) -> Task:
        return self.training.task

    @property
    def predictions(self) -> np.ndarray:
        return self.test.probabilities.argmax(1).numpy()

    @property
    def correct(self) -> np.ndarray:
        return self.predictions == self.test.labels.numpy()

    @cached_property
    def quality(self) -> dict[str, float]:
        """See `metrics.summary`."""
        return metrics.summary(self.test.labels.numpy(), self.test.probabilities.numpy())

    def per_class(self) -> pd.DataFrame:
        return metrics.per_class(self.test.labels.numpy(), self.predictions, self.classes)

    def confusion(self) -> np.ndarray:
        return metrics.confusion(self.test.labels.numpy(), self.predictions, len(self.classes))


def judge(training: Training, test: Split) -> Result:
    """The one look at the test set, after all training is done."""
    task = training.task
    evaluation = evaluate(training.model, task.eval_batches(test), task.precision)
    if len(evaluation.labels) != len(test):
        raise Hw1Error(f"{len(evaluation.labels)} of {len(test)} test images were evaluated: this is a bug.")
    return Result(training, evaluation, task.setup.classes)


def evaluate_both_ways(training: Training, split: Split) -> Evaluation:
    """A CNN's probabilities averaged over each image and its mirror image: flip-TTA, at twice the cost."""
    task = training.task
    mirrored = ((images.flip(3), labels) for images, labels in task.eval_batches(split))
    one, other = (evaluate(training.model, b, task.precision) for b in (task.eval_batches(split), mirrored))
    probabilities = (one.probabilities + other.probabilities) / 2
    true = probabilities.gather(1, one.labels[:, None])
    return Evaluation(
        loss=-true.log().mean().item(),
        accuracy=(probabilities.argmax(1) == one.labels).double().mean().item(),
        probabilities=probabilities,
        labels=one.labels,
    )
