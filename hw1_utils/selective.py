"""When should a model say that it does not know? Thresholds of confidence that keep a promise. NumPy and scipy alone.

Confidence is the probability of the predicted class (Hendrycks and Gimpel 2017; Geifman and El-Yaniv 2017). What lies
below a threshold goes unanswered: coverage is the share that is answered, accuracy the share of that which is right.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr  # scipy.stats takes half a second to import

RISK = 0.05  # that a threshold breaks its promise


@dataclass(frozen=True)
class Confidences:
    """How sure a model was of each image of a split, and whether it was right."""

    confidence: np.ndarray  # float N, of the prediction
    right: np.ndarray  # bool N

    def __len__(self) -> int:
        return len(self.right)

    def answered(self, threshold: float) -> tuple[int, int]:
        """(images answered, of these answered rightly) where everything from the threshold on is answered."""
        answered = self.confidence >= threshold
        return int(answered.sum()), int((answered & self.right).sum())


def confidences(labels: np.ndarray, probabilities: np.ndarray) -> Confidences:
    """From labels, int N, and float N×K probabilities."""
    return Confidences(probabilities.max(1), probabilities.argmax(1) == labels)


def curve(of: Confidences) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All that thresholds can do: (threshold, images answered, right ones), from the surest images to all of them.

    One entry for each confidence that occurs: images of the same confidence are answered together or not at all.
    """
    order = np.argsort(-of.confidence, kind="stable")
    confidence, right = of.confidence[order], np.cumsum(of.right[order])
    last = np.flatnonzero(np.append(confidence[1:] != confidence[:-1], True)) if len(of) else np.arange(0)
    return confidence[last], last + 1, right[last]


def least_images(target: float, risk: float = RISK) -> int:
    """Validation images that any promise of this accuracy takes: fewer prove nothing, even without an error."""
    return math.ceil(math.log(risk) / math.log(target))


def threshold_for(val: Confidences, target: float, risk: float = RISK) -> float | None:
    """The lowest threshold from which on answers are right with at least the probability `target`, by validation.

    The promise: for further images like these, it is broken with a probability of at most `risk` over the draw of the
    validation images. Taking the threshold at which their own accuracy reaches the target breaks it half of the time.

    The method is "Learn then Test" (Angelopoulos et al. 2021, algorithm 1, fixed sequence testing from several starts):
    from the surest images on, further ones are let in one by one for as long as an exact binomial test, the same as
    Clopper and Pearson's bound, refutes that the accuracy among them lies below the target. The first failure ends a
    sequence, so no correction for the number of thresholds is due; of the J starts, which go by numbers of images
    alone, each twice the last, each gets risk / J. (Geifman and El-Yaniv 2017 search by bisection with a correction for
    its steps: the same promise, from about twice as many images on.)

    Args:
        target: the accuracy, above 0 and below 1.

    Returns:
        A confidence; 0 where everything can be answered; None where no threshold is shown to reach the target.
    """
    thresholds, answered, right = curve(val)
    starts = _starts(len(val), target, risk)
    level = risk / max(1, len(starts))
    # The probability of no more errors than these, were the accuracy just the target.
    refuted = bdtr(answered - right, answered, 1 - target) <= level
    best = -1
    for start in starts:
        at = int(np.searchsorted(answered, start))
        failures = np.flatnonzero(~refuted[at:])
        best = max(best, at + (failures[0] if len(failures) else len(refuted) - at) - 1 if refuted[at] else -1)
    if best < 0:
        return None
    return 0.0 if answered[best] == len(val) else float(thresholds[best])


def _starts(images: int, target: float, risk: float) -> list[int]:
    """Numbers of images at which a sequence begins: the fewest that can prove anything, twice as many, and so on."""
    starts: list[int] = []
    for count in range(1, 64):
        first = least_images(target, risk / count)
        found = [first * 2**i for i in range(count)]
        if found[-1] > images:
            break
        starts = found
    return starts
