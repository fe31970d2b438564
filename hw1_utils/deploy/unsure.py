"""What a saved model can promise of its answers, and what it leaves unanswered for it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import Hw1Error
from ..selective import RISK, least_images, threshold_for

if TYPE_CHECKING:
    from .saved import SavedModel


@dataclass(frozen=True)
class Promise:
    """From which confidence on a model answers, and what came of that where the labels are known."""

    target: float  # share of the answers that are right, at least
    threshold: float  # of the probability of the prediction
    known: dict[str, dict[str, int]]  # of val and test: images, answered, right

    def __str__(self) -> str:
        parts = [_reached(split, **counts) for split, counts in self.known.items()]
        return (
            f"Answers that are to be right {self.target:.6g} of the time: unsure below a probability of "
            f"{self.threshold:.3f}, going by validation (broken by chance at most {RISK:.0%} of the time). "
            f"Answered are {' and '.join(parts)}."
        )


def promise(model: "SavedModel", target: float) -> Promise:
    """The confidence from which on at least a share `target` of a model's answers is right: see `threshold_for`.

    The promise is about images like those of the run, and about plain accuracy: rare classes may have less. A file
    computes in float32; where the run judged its validation images in fewer bits, confidences differ by a little.

    Raises:
        Hw1Error: no such share, nothing is known of the model's confidence, or none is high enough.
    """
    if not 0 < target < 1:
        raise Hw1Error(f"A target accuracy lies between 0 and 1, as 0.95 for 95 %, not {target:g}.")
    if "val" not in model.known:
        raise Hw1Error(
            f"The file of {model.title} does not hold how sure it was on validation, as those of older versions do "
            "not: start the run again, which writes it anew, or predict without a target accuracy."
        )
    val = model.known["val"]
    threshold = threshold_for(val, target)
    if threshold is None:
        least = least_images(target)
        if len(val) < least:
            why = f"that takes {least:,} validation images at least, and its run had {len(val):,}"
        else:
            why = f"not even the images that it is surest of, of its {len(val):,} validation images, show that"
        raise Hw1Error(f"{model.title} cannot promise that {target:.6g} of its answers are right: {why}; ask for less.")
    known = {}
    for split, of in model.known.items():
        answered, right = of.answered(threshold)
        known[split] = {"images": len(of), "answered": answered, "right": right}
    return Promise(target, threshold, known)


def _reached(split: str, images: int, answered: int, right: int) -> str:
    name = {"val": "validation", "test": "test"}[split]
    rightly = f", {right / answered:.1%} of them rightly" if answered else ""
    return f"{answered:,} of {images:,} {name} images{rightly}"
