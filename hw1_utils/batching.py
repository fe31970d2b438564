"""Tensors to batches on the device, in an order that a seed gives."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

AHEAD = 2  # batches fetched before they are asked for, where they are streamed


def batches(
    inputs: Tensor,
    labels: Tensor,
    batch_size: int,
    *,
    transform: Callable[[Tensor], Tensor] | None = None,
    shuffle_seed: int | None = None,
    streamed: bool = False,
    part: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut tensors into batches on the device, the last one perhaps smaller, each row exactly once.

    Args:
        inputs: N×... images or features, on the device; streamed ones are mapped from a file.
        labels: int64 N, or float32 N×K, on the device.
        transform: applied to each batch of inputs.
        shuffle_seed: seeds the order; None keeps the order of the rows.
        streamed: the next batches are read, and sent to the device, while this one is worked on.
        part: int64 N, on the CPU: the rows of `inputs` that the labels belong to; None: they are all of them.
    """
    if shuffle_seed is None:
        order = torch.arange(len(labels))
    else:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(shuffle_seed))
    wanted = order if part is None else part[order]
    if streamed:
        chunks = _ahead(inputs, wanted.split(batch_size), labels.device)
    else:
        chunks = (inputs[rows] for rows in wanted.to(inputs.device).split(batch_size))
    for chunk, index in zip(chunks, order.to(labels.device).split(batch_size), strict=True):
        yield (transform(chunk) if transform else chunk), labels[index]


def _ahead(inputs: Tensor, parts: tuple[Tensor, ...], device: torch.device) -> Iterator[Tensor]:
    """Rows of an array in a file, part by part, fetched by a second thread."""

    def fetch(rows: Tensor) -> Tensor:
        chunk = inputs[rows]
        # From pinned memory a GPU fetches by itself, and nobody waits for it.
        return chunk.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else chunk

    with ThreadPoolExecutor(1) as reader:
        waiting: deque = deque()
        for rows in parts:
            waiting.append(reader.submit(fetch, rows))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def epoch_seed(seed: int, epoch: int, stream: str) -> int:
    """A seed for one purpose in one epoch: an interrupted run continues with what it would have drawn."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch} {stream}".encode()).digest()[:6], "big")
