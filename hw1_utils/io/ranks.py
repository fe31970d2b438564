"""The processes that torchrun starts to share one piece of work; without torchrun there is one, which waits for none.

What passes between them is little: they meet at barriers and take items from a list by a counter in the store through
which torchrun brings them together anyway. So the process group is gloo's, on machines with GPUs as well: NCCL would
open a context on every GPU for it, wants a GPU for each process, and has nothing to send here.
"""

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from ..errors import Hw1Error

T = TypeVar("T")
# A process may wait at a barrier for hours while another trains. A lost one is found by its closed connection and by
# torchrun, which ends the others, not by a time that has passed.
PATIENCE = timedelta(days=30)
MEETING = timedelta(minutes=5)  # in which all of them have to be there at the start
LOOK_S = 0.02  # between two looks at a barrier: one wait for it would be deaf to Ctrl-C
GRACE_S = 5  # in which torchrun ends the others of this machine: its report then names the one that failed alone


@dataclass(frozen=True)
class Ranks:
    """This process among those that share the work."""

    rank: int = 0
    count: int = 1
    beside: int = 1  # how many of them are on this machine
    store: dist.Store | None = None  # all of them see it; None: there is one process
    ahead: bool = False  # what they compute is for a run to come: without room on the disk there is no use in it
    _lists: Iterator[int] = field(default_factory=itertools.count)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until all processes are here.

        Raises:
            Hw1Error: one of them has ended before it came here.
        """
        if self.store is None:
            return
        try:
            meeting = dist.barrier(async_op=True)
            while not meeting.is_completed():
                time.sleep(LOOK_S)
            meeting.wait()
        except RuntimeError as error:
            time.sleep(GRACE_S)
            raise Hw1Error("Another process of this work has ended: what it said tells why.") from error

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process does what is inside while the others wait; then they do, and find what it has left."""
        if not self.is_first:
            self.barrier()
        yield
        if self.is_first:
            self.barrier()

    def first_says(self, answer: bool) -> bool:
        """The first process's answer, to all: where it hangs on it whether they meet, they have to be of one mind."""
        if self.store is None:
            return answer
        self.barrier()
        told = [answer]
        dist.broadcast_object_list(told)
        return told[0]

    def share(self, items: Sequence[T]) -> Iterator[T]:
        """Those of `items` that fall to this process, in their order: whoever is free takes the next one.

        Each falls to exactly one process. All processes call this with the same items, and call it equally often.

        Raises:
            Hw1Error: torchrun has ended.
        """
        number = next(self._lists)
        return iter(items) if self.store is None else self._take(f"list {number}", items)

    def _take(self, name: str, items: Sequence[T]) -> Iterator[T]:
        while (turn := self._next(name)) < len(items):
            yield items[turn]

    def _next(self, name: str) -> int:
        try:
            return self.store.add(name, 1) - 1
        except RuntimeError as error:  # the store is torchrun's own process, on the first machine
            raise Hw1Error("torchrun, which has started this process, has ended: give its command again.") from error


ALONE = Ranks()


@contextmanager
def ranks() -> Iterator[Ranks]:
    """Meet the other processes, if torchrun has started this one, and part from them in the end.

    Raises:
        Hw1Error: they do not come together.
    """
    if not dist.is_torchelastic_launched():
        yield ALONE
        return
    try:
        store, rank, count = next(dist.rendezvous("env://", timeout=MEETING))
        # torchrun's store outlives the processes: after a restart their lists begin anew.
        store = dist.PrefixStore(f"hw1 {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(
            "gloo", store=dist.PrefixStore("group", store), rank=rank, world_size=count, timeout=PATIENCE
        )
    except RuntimeError as error:  # torch's own errors of store and group are such
        raise Hw1Error(f"The processes that torchrun has started do not find each other ({error}).") from error
    try:
        yield Ranks(rank, count, int(os.environ["LOCAL_WORLD_SIZE"]), store)
    except Hw1Error:
        if rank:  # where all fail alike, the first says it, and torchrun ends the others meanwhile
            time.sleep(GRACE_S)
        raise
    finally:
        dist.destroy_process_group()


def take_one_gpu() -> None:
    """Leave this process one GPU, where there are any: the one of its place on this machine; then `cuda` means it.

    To be called before anything computes. More processes than GPUs share them.

    Raises:
        Hw1Error: the GPU was chosen before, by whoever asked for it first.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    if not dist.is_torchelastic_launched() or count < 2:
        return
    names = visible.split(",") if visible else [str(i) for i in range(count)]
    os.environ["CUDA_VISIBLE_DEVICES"] = names[int(os.environ["LOCAL_RANK"]) % count].strip()
    if torch.cuda.device_count() != 1:
        raise Hw1Error("This process cannot be kept to one GPU: start each with its own CUDA_VISIBLE_DEVICES.")
