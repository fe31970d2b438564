"""The nearest of many rows, by the cosine of the angle between them, in blocks: memory does not grow with the rows."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..augment import normalize
from ..context import Context
from ..data import Data, Samples
from ..io.arrays import Rows, empty_array

BLOCK = 4096  # references compared with a batch at a time
PIXELS = 32  # of a side of the images that are compared as they are; larger ones are averaged down to it
TEMPERATURE = 0.07  # of a vote


class Neighbours:
    """References with their labels, and who of them is nearest.

    The vote is that of DINO's evaluation (Caron et al. 2021, eval_knn.py; Wu et al. 2018): each of the nearest counts
    for its class by exp(cosine / TEMPERATURE).
    """

    def __init__(self, samples: Samples, classes: int, context: Context) -> None:
        """`samples`: the references, whose `transform` makes rows of numbers, B×D, of images or features.

        What it makes is kept, in memory where that has room, else in a file without a name.
        """
        self.classes, self.labels, self.transform = classes, samples.targets, samples.transform
        columns = self.unit(samples.inputs[:1].to(self.labels.device)).shape[1]
        shape = (len(samples), columns)
        values, resident = empty_array(shape, context.room.for_a_while(), context.config.cache_path)
        start = 0
        for batch, _ in samples.in_order():
            values[start : start + len(batch)] = F.normalize(batch).cpu()
            start += len(batch)
        self.rows = Rows(values.to(self.labels.device) if resident else values, streamed=not resident)

    def unit(self, inputs: Tensor) -> Tensor:
        """Images or features, B×…, as rows of length 1."""
        return F.normalize(self.transform(inputs, None))

    def nearest(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The nearest references of each query, float32 B×D of length 1: (cosines, falling; their rows), each B×count.

        B·BLOCK cosines at a time.
        """
        cosines = torch.empty(len(queries), 0, device=queries.device)
        rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
        for start in range(0, len(self.rows), BLOCK):
            block = self.rows[start : start + BLOCK].to(queries.device)
            found, at = (queries @ block.T).topk(min(count, len(block)))
            cosines, rows = torch.cat([cosines, found], 1), torch.cat([rows, at + start], 1)
            cosines, best = cosines.topk(min(count, cosines.shape[1]))
            rows = rows.gather(1, best)
        return cosines, rows

    def guesses(self, queries: Tensor, counts: Sequence[int]) -> Tensor:
        """What the nearest 1, 5, … references, as `counts` has it, vote for: int64 len(counts)×B."""
        cosines, rows = self.nearest(queries, max(counts))
        votes, labels = ((cosines - 1) / TEMPERATURE).exp(), self.labels[rows]
        empty = torch.zeros(len(queries), self.classes, device=queries.device)
        totals = [empty.scatter_add(1, labels[:, :count], votes[:, :count]) for count in counts]
        return torch.stack([total.argmax(1) for total in totals])


def pixels(data: Data) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The transform of images, raw uint8 B×3×S×S, to normalised pixels, B×3·S·S of at most PIXELS² places."""
    mean, std = (values.to(data.context.device) for values in (data.mean, data.std))

    def transform(images: Tensor, generator: Tensor | None = None) -> Tensor:
        side = min(PIXELS, images.shape[-1])
        return normalize(F.adaptive_avg_pool2d(images.float(), side), mean, std).flatten(1)

    return transform
