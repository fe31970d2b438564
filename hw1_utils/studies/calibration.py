"""How far can the probabilities be believed?"""

import math

import numpy as np
import pandas as pd

from .. import metrics
from ..experiment import Result
from ..io.files import write_csv
from ..report import figures


def calibration(results: list[Result]) -> pd.DataFrame:
    """Log-loss and calibration error on test, as they are and rescaled. Writes calibration.csv and calibration.png.

    Rescaled: with the temperature fitted on validation (Guo et al. 2017). Accuracy does not change by it. Where
    validation does not tell it (see `metrics.fit_temperature`), `identifiable` is False and those cells are empty.

    Returns:
        One row per model: model, name, identifiable, temperature, test_loss, calibration_error, and these two
        `_rescaled`.
    """
    rows, curves = [], {}
    for result in results:
        val, test = result.trained.val, result.test
        temperature = metrics.fit_temperature(val.labels.numpy(), val.probabilities.numpy())
        labels, probabilities = test.labels.numpy(), test.probabilities.numpy()
        right = test.guesses == labels  # at any temperature
        row = {
            "model": result.run.title,
            "name": result.run.name,
            "identifiable": temperature is not None,
            "temperature": math.nan if temperature is None else temperature,
        }
        tables = []
        for suffix, scale in (("", 1.0), ("_rescaled", temperature)):
            if scale is None:
                row |= {f"test_loss{suffix}": math.nan, f"calibration_error{suffix}": math.nan}
                continue
            own, largest = metrics.scaled(labels, probabilities, scale)
            tables.append(metrics.reliability_of(largest, right))
            row[f"test_loss{suffix}"] = -float(np.log(own).mean())
            row[f"calibration_error{suffix}"] = metrics.calibration_error(tables[-1])
        rows.append(row)
        curves[result.run.title] = tuple(tables)
    table = pd.DataFrame(rows)
    folder = results[0].run.context.config.results_path
    write_csv(folder / "calibration.csv", table)
    figures.save(figures.calibration(curves, table["name"].tolist()), folder / "calibration.png")
    return table
