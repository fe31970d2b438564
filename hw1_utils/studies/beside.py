"""The trainings beside the two that are compared, where a run asks for them: `blocks` and `recipes`."""

from collections.abc import Sequence

from ..data import Data
from ..experiment import Run, Trained, cnn, probe
from ..features import Features


def block_probes(features: Sequence[Features]) -> list[Run]:
    """A probe on several blocks' tokens for each encoder that has blocks."""
    return [probe(one, "blocks") for one in features if "blocks" in one.encoder.poolings]


def further_recipes(data: Data) -> list[Run]:
    """The CNN by recipes other than the headline's."""
    return [cnn(data, name) for name in ("short", "assignment") if name != data.context.config.cnn_recipe]


def distilled(data: Data, probes: Sequence[Trained]) -> Run:
    """The CNN that learns from the best of `probes` on validation."""
    return cnn(data, "distilled", teacher=max(probes, key=lambda one: one.val_score))
