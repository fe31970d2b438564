"""What does a CNN gain by looking at each image and at its mirror image? Never a headline."""

import pandas as pd

from .. import metrics
from ..data import Split
from ..experiment import Result, Trained
from ..io.files import write_csv
from ..training import Predictions, evaluate


def flips(results: list[Result], test: Split) -> pd.DataFrame:
    """Judge each CNN on test once more, with `flip_tta`. Writes flip_averaging.csv.

    Returns:
        Two rows per CNN: model, name, passes_per_image (1 or 2), and the columns of `metrics.summary`.
    """
    rows = []
    for result in (r for r in results if r.run.kind == "cnn"):
        both = flip_tta(result.trained, test)
        twice = metrics.summary(both.labels.numpy(), both.probabilities.numpy(), result.groups)
        for passes, quality in ((1, result.quality), (2, twice)):
            rows.append({"model": result.run.title, "name": result.run.name, "passes_per_image": passes} | quality)
    table = pd.DataFrame(rows)
    write_csv(results[0].run.context.config.results_path / "flip_averaging.csv", table)
    return table


def flip_tta(trained: Trained, split: Split) -> Predictions:
    """A CNN's probabilities averaged over each image and its mirror image (test-time augmentation), at twice the cost.

    With the loss of the averaged probabilities.
    """
    run, samples = trained.run, trained.run.samples(split)
    mirrored = ((images.flip(3), labels) for images, labels in samples.in_order())
    one, other = (evaluate(trained.model, batches, run.precision) for batches in (samples.in_order(), mirrored))
    probabilities = (one.probabilities + other.probabilities) / 2
    true = probabilities.gather(1, one.labels[:, None])
    return Predictions(
        loss=-true.log().mean().item(),
        accuracy=(probabilities.argmax(1) == one.labels).double().mean().item(),
        probabilities=probabilities,
        labels=one.labels,
    )
