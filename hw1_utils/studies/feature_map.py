"""How do the test images lie to one another, as the encoder sees them?"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from ..data import Split
from ..errors import Hw1Error
from ..experiment import Result
from ..io.files import write_csv
from ..report import figures, galleries
from .common import fair_part

MOST = 2000  # images on the map: more are slower, and hide one another
COMPONENTS = 50  # of the PCA before t-SNE, as its authors did
PERPLEXITY = 30.0  # scikit-learn's
FEWEST = 10  # images that make a neighbourhood; fewer are shown by the PCA alone


def feature_map(result: Result, test: Split) -> pd.DataFrame:
    """A map of the test features that a probe's head gets. Writes feature_map.csv and feature_map.png.

    PCA to at most 50 components, then t-SNE (van der Maaten and Hinton 2008; scikit-learn's, started from the PCA) of
    up to 2,000 images, stratified and seeded. About ten seconds of one core; on one machine the same numbers each time.

    Args:
        result: of a probe.

    Returns:
        One row an image on the map: path, true, predicted, nearest (the true class of the nearest other image on the
        map, by those components; empty where all features are equal), x, y.

    Raises:
        Hw1Error: the result is not a probe's.
    """
    run, config = result.run, result.run.context.config
    if run.features is None:
        raise Hw1Error(f"{run.title} has no features of an encoder to map: give the result of a probe.")
    rows = fair_part(test, MOST, config.seed, "The map shows")
    chosen = torch.from_numpy(rows)
    samples, targets = run.samples(test), test.labels[chosen.to(test.labels.device)]
    shown = replace(samples, inputs=samples.inputs.subset(chosen), targets=targets)
    # Standardised, as the head gets them.
    values = torch.cat([features.cpu() for features, _ in shown.in_order()]).numpy()
    names = np.array(test.classes, dtype=object)
    true = names[result.test.labels.numpy()[rows]]
    reduced, flat, how = in_two_dimensions(values, config.seed)
    table = pd.DataFrame(
        {
            "path": [test.paths[row] for row in rows],
            "true": true,
            "predicted": names[result.test.guesses[rows]],
            "nearest": true[_nearest(reduced)] if reduced.any() else None,
            "x": flat[:, 0],
            "y": flat[:, 1],
        }
    )
    wrong = (table["true"] != table["predicted"]).sum()
    total = f"{len(test):,} test images"
    part = f"The {total}" if len(rows) == len(test) else f"{len(rows):,} of {total} (stratified, seed {config.seed})"
    title = (
        f"{part} as the encoder sees them: {how}\n"
        f"Black edge: wrong with {run.title} ({wrong:,}). Near means alike; how far groups lie apart means nothing."
    )
    write_csv(config.results_path / "feature_map.csv", table)
    figures.save(galleries.feature_map(table, test.classes, title), config.results_path / "feature_map.png")
    return table


def in_two_dimensions(values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """float32 N×D features as (their principal components, N×C; two coordinates, N×2; what these are, in words).

    All zero where all features are equal.
    """
    if (values == values[0]).all():
        return np.zeros((len(values), 2)), np.zeros((len(values), 2)), "all features are equal"
    # With several threads t-SNE's sums depend on which is ready first.
    with threadpool_limits(1):
        reduced = PCA(min(COMPONENTS, *values.shape), svd_solver="full").fit_transform(values)
        if len(values) < FEWEST or reduced.shape[1] < 2:
            flat = np.pad(reduced[:, :2], ((0, 0), (0, max(0, 2 - reduced.shape[1]))))
            return reduced, flat, "PCA"
        perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
        flat = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return reduced, flat, f"PCA to {reduced.shape[1]} components, then t-SNE"


def _nearest(values: np.ndarray) -> np.ndarray:
    """Of each row the nearest other one, int64 N."""
    return NearestNeighbors(n_neighbors=1).fit(values).kneighbors(return_distance=False)[:, 0]
