"""What a run stands on: its settings, what the machine offers, places that are ours to write to."""

from dataclasses import dataclass, field

import torch
from filelock import FileLock

from .config import Config
from .device import (
    Precision,
    choose_precision,
    environment,
    find_device,
    keep_freed_memory,
    make_deterministic,
    room_for_arrays,
)
from .io.arrays import Room
from .io.backup import Backup, make_place
from .io.files import clear_partials, lock
from .io.ranks import ALONE, Ranks
from .io.tracking import clear_emptied


@dataclass(frozen=True)
class Context:
    """Settings and machine."""

    config: Config
    device: torch.device
    precision: Precision
    environment: dict  # code, versions, hardware: see `device.environment`
    room: Room = field(default_factory=Room)  # for all arrays together; what finds none stays on disk
    backup: Backup = field(default_factory=lambda: Backup(None))
    computed: dict = field(default_factory=dict)  # larger images and features of this run, by what they depend on
    ranks: Ranks = ALONE  # the processes that decode and extract together
    lock: FileLock | None = None  # held for as long as this object lives: no other run writes to the same folder

    @property
    def extract_batch_size(self) -> int:
        """Images per pass through the frozen encoder; on few a GPU spends its time on starting kernels."""
        return self.config.extract_batch_size or (64 if self.device.type == "cpu" else 512)

    @property
    def machine(self) -> str:
        """What seconds depend on, in one line: on a GPU hardly on the threads that feed it."""
        stamp = self.environment
        threads = f", {stamp['torch_threads']} threads" if self.device.type == "cpu" else ""
        others = f", {self.ranks.count} processes" if self.ranks.count > 1 else ""  # what they take is no run's cost
        return f"{stamp['device']}{threads}{others}, torch {stamp['packages']['torch']}"


def start(config: Config, ranks: Ranks = ALONE) -> Context:
    """Choose device and number format; take the output folder until the process ends, and clear what a kill left there.

    Of several processes the first takes and clears it for all.

    Raises:
        Hw1Error: the device cannot be used, a place cannot be written, or another process is at work in it.
    """
    device = find_device(config.device)
    precision = choose_precision(config.precision, device)
    taken = None
    if ranks.is_first:
        taken = lock(config.output_path)
        for folder in (config.runs_path, config.results_path, config.models_path, config.cache_path):
            clear_partials(folder.rglob(".*.partial*"))
        clear_emptied(config.runs_path)
        if config.backup_path:
            make_place(config.backup_path.parent)
    ranks.barrier()
    make_deterministic()
    keep_freed_memory()
    room, backup = Room(room_for_arrays(device, config.memory_mb, ranks.beside)), Backup(config.backup_path)
    return Context(config, device, precision, environment(device, precision), room, backup, ranks=ranks, lock=taken)
