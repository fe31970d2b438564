"""What the process asks of the machine."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from hw1_utils.device import find_device, room_for_arrays

FAULTS = """
import resource, sys, torch
from hw1_utils.device import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(20):
    torch.ones(16, 1024, 1024)  # 64 MB: until the heap has grown for it, its pages have to be mapped
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(16, 1024, 1024)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives freed memory back this way")
def test_large_blocks_are_mapped_once_not_in_every_step():
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "plain")
    )
    assert given_back > 5 * kept  # 20 blocks against none, or one or two


def test_cublas_is_told_to_be_reproducible_before_its_first_product(monkeypatch):
    seen = []
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    ones, cpu = torch.ones, torch.device("cpu")

    def product(*size, device):  # cuBLAS reads it there, and never again
        seen.append(os.environ["CUBLAS_WORKSPACE_CONFIG"])
        return ones(*size, device=cpu)

    monkeypatch.setattr(torch, "ones", product)
    assert find_device().type == "cuda" and set(seen) == {":4096:8"}


def test_processes_of_one_machine_share_its_memory():
    assert room_for_arrays(torch.device("cpu"), 100, 4) == 25 * 10**6
    assert room_for_arrays(torch.device("cuda"), 100, 4) == 10**8  # a GPU is each one's own
